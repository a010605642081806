"""AI feedback and red-teaming as flows, for schedules and for the form in Prefect's UI: what `gristmill ai-feedback`
and `gristmill red-team` do, by the same functions.

The law: a run whose data stand already asks nobody again, so a schedule that comes too often costs nothing; what an
engine's outage leaves is gone on with by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from gristmill.dataops.store import Store
from gristmill.flows.progress import draw
from gristmill.flows.sets import redteam, rlaif
from gristmill.flows.sets.engines import prompts_of
from gristmill.flows.sets.judging import Judge

T = TypeVar("T")


def _step(name: str, work: Callable[[], T]) -> T:
    return task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)()


@flow(name="ai-feedback", persist_result=False)
def ai_feedback(
    prompts: str,
    engines: Sequence[str],
    judges: Sequence[str],
    root: str = ".gristmill",
    *,
    constitution: str | None = None,
    by: Literal["letters", "reasons", "logprobs"] = "letters",
    samples: int = 2,
    max_tokens: int = 512,
    temperature: float = 1.0,
    pairs: Literal["all", "best"] = "all",
    most: int | None = None,
    seed: int = 0,
    name: str = "ai-feedback",
) -> dict[str, Any]:
    """Sample responses to `prompts` (a file, or a dataset of the root) from `engines`, and let `judges` say in both
    orders which of two is better. Engines and judges are named as in engines.py: a checkpoint, a model's folder, a
    server's URL. Returns what each judge's dataset says of itself. Raises InputError for bad input, OSError where an
    engine goes away."""
    store = Store(Path(root), progress=draw)
    asked = [Judge(who, constitution, by) for who in judges]
    given = _step("prompts", lambda: prompts_of(store, prompts, f"{name}-prompts"))
    made = _step(
        "judge",
        lambda: rlaif.ai_feedback(
            store, given, engines, asked, samples=samples, max_tokens=max_tokens, temperature=temperature,
            which=pairs, most=most, seed=seed, name=name,
        ),
    )  # fmt: skip
    told = [rlaif.summary(item) for item in made["judged"]]
    rows = [{"judge": item["rater"], **{key: item[key] for key in ("pairs", "judged", "ties")}} for item in told]
    create_table_artifact(key="ai-feedback", table=rows, description="Pairs judged, by judge")
    return {"judged": told, "between": rlaif.between(made["judged"])}


@flow(name="red-team", persist_result=False)
def red_team(
    seeds: str,
    engine: str,
    root: str = ".gristmill",
    *,
    mutations: Sequence[str] = (),
    each: int | None = None,
    controls: float = 0.3,
    samples: int = 2,
    max_tokens: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
    name: str = "red-team",
) -> dict[str, Any]:
    """Attack `engine` (a checkpoint such as NAME@promoted, a model's folder, a server's URL) with the requests in
    `seeds` (a file, or a dataset of the root). Returns the rates of attacks that succeed and of controls that are
    declined, and the datasets. Raises InputError for bad input, OSError where the engine goes away."""
    store = Store(Path(root), progress=draw)
    given = _step("seeds", lambda: prompts_of(store, seeds, f"{name}-seeds"))
    built = _step(
        "attack",
        lambda: redteam.red_team(
            store, given, engine, mutations=mutations, each=each, controls=controls, samples=samples,
            max_tokens=max_tokens, temperature=temperature, seed=seed, name=name,
        ),
    )  # fmt: skip
    told = redteam.rates(built["judged"])
    rows = [{"rate": rate, **measure} for rate, measure in told["measures"].items()]
    create_table_artifact(key="red-team", table=rows, description="Attacks that succeed, controls declined")
    return {
        "rates": told,
        "datasets": {what: {"name": item.name, "key": item.key, "rows": item.rows} for what, item in built.items()},
    }
