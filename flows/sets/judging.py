"""Pairs of responses judged into a dataset.

A judged pair is a row of JUDGEMENT (kind pairwise, rater "judge:<engine>@<version>") with the ids of both responses,
the score, its reason and what each order said. The laws: both orders are asked always, and where they disagree it is a
tie; what the judge could not say has a null value; an outage ends the work and makes no row, and what was judged before
is kept and not asked again. Not covered: exact repetition, since a model in another batch may answer otherwise; the
manifest says so.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, is_remote, publish_rows, recipe_key
from gristmill.dataops.identity import row_id
from gristmill.dataops.manifest import versions
from gristmill.dataops.noise.pairs import wilson
from gristmill.dataops.passes import to_arrow
from gristmill.dataops.preferences.judgements import frame, judgement
from gristmill.dataops.store import Store
from gristmill.flows.sets.engines import engine_fields, settings_of
from gristmill.training.engines import chunks
from gristmill.training.engines.settings import open_engine
from gristmill.verifiers.judge import bias, constitution, pairs
from gristmill.verifiers.judge.asking import PROMPTS, known_way
from gristmill.verifiers.verdict import Verdict

if TYPE_CHECKING:
    from gristmill.verifiers.judge.engine import Engine

OP, VERSION = "judge.pairs", 1
OUTAGE = "engine_failed"
_FIELDS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content")


@dataclass(frozen=True)
class Judge:
    """Who judges (a word as in engines.py), by which constitution (a YAML file; None: the shipped one), and how it is
    asked: letters, reasons or logprobs."""

    who: str
    constitution: str | None = None
    by: str = "letters"


@dataclass(frozen=True)
class Panelist:
    """A judge whose engine is open."""

    engine: Engine
    laws: constitution.Constitution
    by: str

    @property
    def rater(self) -> str:
        """What its judgements are signed with."""
        return f"judge:{self.engine.name}@{self.engine.version}"

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its verdicts, as verifiers/judge/verify.py has it."""
        engine = {"name": self.engine.name, "version": self.engine.version}
        return {"engine": engine, "constitution": self.laws.digest, "by": self.by, "prompts": PROMPTS}


@dataclass(frozen=True)
class Response:
    """One of the responses to a prompt; `id` is its row's."""

    id: bytes
    text: str
    engine: str


@dataclass(frozen=True)
class Group:
    """The different responses to one prompt, in the order of their rows."""

    prompt: Sequence[Mapping[str, str]]
    responses: tuple[Response, ...]


#: Two responses of a group, by their numbers; of many groups at once: (group, first, second).
Pair = tuple[int, int, int]
Ask = Callable[[Sequence[Pair]], list[Verdict]]
#: Chooses which pairs of some groups are asked, and asks.
Strategy = Callable[[Sequence[Group], Ask], list[tuple[Pair, Verdict]]]


def checked(store: Store, judge: Judge) -> tuple[dict[str, Any], constitution.Constitution]:
    """The engine's fields and the principles of a judge that can be opened. Raises InputError, before hours have gone
    into the responses that it is to judge."""
    known_way(judge.by)
    laws = constitution.shipped() if judge.constitution is None else constitution.read(judge.constitution)
    return engine_fields(store, judge.who), laws


@contextlib.contextmanager
def opened(store: Store, judge: Judge) -> Iterator[Panelist]:
    """A judge with its engine, which is closed again. Raises InputError, and OSError where there is no server."""
    (fields, laws), folder = checked(store, judge), None
    if "model" in fields:
        model = Dataset.load(fields["model"]["path"])
        if is_remote(model.path):
            raise InputError(f"{model.path}: copy the checkpoint to a local folder first")
        model.check_files()
        folder = model.file("")
    engine = open_engine(settings_of(fields.get("engine", {})), folder)
    with contextlib.closing(engine):
        yield Panelist(engine, laws, judge.by)


def said(prompt: Any) -> str:
    """A prompt as a judge reads it: what the user says, or of more than one message all of them with their roles."""
    if isinstance(prompt, str):
        return prompt
    told = [message for message in prompt if (message["content"] or "").strip()]
    if len(told) == 1:
        return str(told[0]["content"])
    return "\n\n".join(f"{message['role'].capitalize()}: {message['content']}" for message in told)


def message(role: str, content: str) -> dict[str, Any]:
    """A message with all its fields."""
    return dict.fromkeys(_FIELDS) | {"role": role, "content": content}


def judge_pairs(
    store: Store,
    name: str,
    judge: Panelist,
    groups: Sequence[Group],
    strategy: Strategy,
    *,
    inputs: Sequence[Dataset],
    params: Mapping[str, Any],
    told: Mapping[str, Any],
    chunk: int = 64,
) -> Dataset:
    """Judge pairs of the responses of each group and publish the judgements as `name`, or take those that stand.

    `params` are what decides, besides the judge and the inputs, which pairs are asked; `told` joins the stats. `chunk`
    groups are asked at once, and are what a stop can lose. Raises OSError where the judge goes away.
    """
    op = {"name": OP, "version": VERSION, "params": {"judge": judge.identity, **params}}
    key = recipe_key([op], [item.digest for item in inputs])
    final = store.root / name / key[:12]
    if not (final / MANIFEST).exists():
        kept = store.root / ".judging" / f"{name}-{key[:12]}"
        kept.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        files = []
        for at in range(0, len(groups), chunk):
            file = kept / f"{at:010d}-{min(at + chunk, len(groups)):010d}.arrow"
            if not _whole(file):
                chunks.write(file, _table(judge, groups[at : at + chunk], strategy, name, at, len(groups)))
            files.append(file)
            store.progress(name, len(files), -(-len(groups) // chunk), chunks.span(file)[1])
        made = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.monotonic() - started, 3),
            "versions": versions(),
        }
        tables = [chunks.read(file) for file in files] or [_arrow([], [])]
        building = store.root / ".building" / f"{name}-{key[:12]}-{time.time_ns():x}"
        try:
            publish_rows(
                store.root, name, building, tables, ops=[op], inputs=inputs, made=made, reproducible=False,
                stats={**told, "rater": judge.rater, "constitution": judge.laws.told, **measured(tables, judge)},
            )  # fmt: skip
        finally:
            shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)
    store.tag(name, "latest", key)
    return Dataset.load(final)


def _whole(file: Path) -> bool:
    try:
        return file.exists() and chunks.read(file).num_rows >= 0
    except (OSError, pa.ArrowInvalid):
        return False


def _table(judge: Panelist, groups: Sequence[Group], strategy: Strategy, name: str, at: int, of: int) -> pa.Table:
    """The judgements of some groups. Raises OSError where the judge could not be reached for one of them."""
    shown = [said(group.prompt) for group in groups]

    def ask(wanted: Sequence[Pair]) -> list[Verdict]:
        texts = [(shown[n], groups[n].responses[i].text, groups[n].responses[j].text) for n, i, j in wanted]
        verdicts = pairs.compare(judge.engine, judge.laws, texts, judge.by)
        if any(verdict.reason == OUTAGE for verdict in verdicts):
            raise OSError(
                f"the judge {judge.engine.name} went away. The judgements of {at:,} of {of:,} prompts are kept: put "
                "that right, then run the same again to go on"
            )
        return verdicts

    rows, more = [], []
    for (n, i, j), verdict in strategy(groups, ask):
        group = groups[n]
        both = [group.responses[i], group.responses[j]]
        orders = verdict.evidence.get("orders")
        rows.append(
            judgement(
                [message(item["role"], item["content"]) for item in group.prompt],
                [message("assistant", item.text) for item in both],
                "pairwise", preference(verdict), rater=judge.rater, at=datetime.now(UTC),
            )
            | {"id": row_id(OP, judge.rater, *(item.id for item in both)), "source": name}
        )  # fmt: skip
        more.append(
            {
                "sources": [item.id for item in both],
                "engines": [item.engine for item in both],
                "score": verdict.score,
                "reason": verdict.reason,
                "orders": orders,
            }
        )
    return _arrow(rows, more)


def _arrow(rows: Sequence[Mapping[str, Any]], more: Sequence[Mapping[str, Any]]) -> pa.Table:
    extra: dict[str, Any] = {
        "sources": pl.List(pl.Binary), "engines": pl.List(pl.String), "score": pl.Float64, "reason": pl.String,
        "orders": pl.List(pl.Float64),
    }  # fmt: skip
    return to_arrow(pl.concat([frame(rows), pl.DataFrame(list(more), schema=extra)], how="horizontal"))


def preference(verdict: Verdict) -> list[float] | None:
    """The value of a pairwise judgement: how much better one is; both 0 for a tie, and where the orders disagree; None
    for what was not judged."""
    if verdict.score is None:
        return None
    strength = 0.0 if verdict.reason == "order_disagrees" else 2 * verdict.score - 1
    return [max(strength, 0.0), max(-strength, 0.0)]


def measured(tables: Sequence[pa.Table], judge: Panelist) -> dict[str, Any]:
    """Counts, how often both orders agree (with Wilson's 95 % interval, pairs of one prompt not independent), and the
    bias report."""
    rows: list[dict[str, Any]] = []
    for table in tables:
        rows += table.select(["prompt", "responses", "engines", "score", "reason", "orders"]).to_pylist()
    verdicts = [
        Verdict(row["score"], row["reason"], {"orders": row["orders"]} if row["orders"] else {}) for row in rows
    ]
    shown = [
        {
            "prompt": "",
            "response": row["responses"][0]["content"],
            "against": row["responses"][1]["content"],
            "model": row["engines"][0],
            "against_model": row["engines"][1],
        }
        for row in rows
    ]
    asked = [(row, said(row["prompt"])) for row in rows if row["orders"] and None not in row["orders"]]
    agree = np.array([row["reason"] != "order_disagrees" for row, _ in asked], dtype=float)
    share = wilson(agree, np.array([prompt for _, prompt in asked])) if asked else (None, None, None)
    values = [value for verdict in verdicts if (value := preference(verdict)) is not None]
    return {
        "pairs": len(rows),
        "judged": len(values),
        "ties": sum(not any(value) for value in values),
        "reasons": dict(Counter(verdict.reason for verdict in verdicts).most_common()),
        "consistency": {"value": share[0], "low": share[1], "high": share[2], "n": len(asked)},
        "bias": bias.report(shown, verdicts, judge_model=judge.engine.name).as_json(),
    }
