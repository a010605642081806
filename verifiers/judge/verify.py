"""The judges as verifiers, over an engine that the caller gives.

    from gristmill.verifiers.judge.verify import pairwise
    judge = pairwise(engine, read("ours.yaml"), by="logprobs")
    judge(prompt, response, against=other).score  # 1: `response` is better, 0: `against` is, 0.5: a tie

A judge's identity is the engine's name and version, the constitution's digest, the way of asking and the version of
the wording; the engine and the constitution themselves are context. An identity read from a manifest makes a judge
without an engine, which can be compared and not asked. A request that does not fit into the engine's window is not
judged (`no_answer`): limit the length of responses before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.judge import calibration, ensemble  # noqa: F401  (they register judge.calibrated, judge.ensemble)
from gristmill.verifiers.judge.asking import PROMPTS, known_way
from gristmill.verifiers.judge.constitution import Constitution, Principle, principles, shipped
from gristmill.verifiers.judge.engine import Engine
from gristmill.verifiers.judge.pairs import compare
from gristmill.verifiers.judge.pointwise import grade
from gristmill.verifiers.judge.tournament import rank_many
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier, verifier


def pointwise(
    engine: Engine, constitution: Constitution | None = None, *, by: str = "letters", scale: int = 5
) -> Verifier:
    """The verifier `judge`: grades a response by each principle, or by the criteria in its row's column `rubric` (a
    list of texts or of {name, text, weight}). Raises InputError for a way of asking or a scale that there is not."""
    if not 2 <= scale <= 9:
        raise InputError(f"a scale has 2 to 9 grades, one digit each; not {scale}")
    return _graded(**_bound(engine, constitution, by), scale=scale)


def pairwise(engine: Engine, constitution: Constitution | None = None, *, by: str = "letters") -> Verifier:
    """The verifier `judge.pairwise`: the preference for `response` over the row's column `against`, in both orders.
    `by` is letters, reasons (the judge argues before it decides) or logprobs (a preference between 0 and 1)."""
    return _paired(**_bound(engine, constitution, by))


def best_of(engine: Engine, constitution: Constitution | None = None, *, by: str = "letters") -> Verifier:
    """The verifier `judge.best_of`: the mean preference for `response` over the others in the row's column `responses`;
    rows of one group share its meetings. For a ranking without rows see tournament.rank."""
    return _best(**_bound(engine, constitution, by))


def _bound(engine: Engine, constitution: Constitution | None, by: str) -> dict[str, Any]:
    laws = constitution if constitution is not None else shipped()
    return {
        "engine": {"name": engine.name, "version": engine.version},
        "constitution": laws.digest,
        "by": known_way(by),
        "prompts": PROMPTS,
        "engine_context": engine,
        "constitution_context": laws,
    }


@verifier("judge", version=1)
def _graded(
    rows: Sequence[Row],
    *,
    engine: Mapping[str, str] | None = None,
    constitution: str | None = None,
    by: str = "letters",
    scale: int = 5,
    prompts: int = PROMPTS,
    engine_context: Engine | None = None,
    constitution_context: Constitution | None = None,
) -> list[Verdict]:
    ready, laws = _ready(engine, constitution, prompts, engine_context, constitution_context)
    rubrics = [_rubric(row.get("rubric"), laws) for row in rows]
    answers = [
        (r["prompt"], r["response"], told) for r, told in zip(rows, rubrics, strict=True) if isinstance(told, tuple)
    ]
    graded = iter(grade(ready, answers, by, scale))
    return [told if isinstance(told, Verdict) else next(graded) for told in rubrics]


@verifier("judge.pairwise", version=1, needs=("against",))
def _paired(
    rows: Sequence[Row],
    *,
    engine: Mapping[str, str] | None = None,
    constitution: str | None = None,
    by: str = "letters",
    prompts: int = PROMPTS,
    engine_context: Engine | None = None,
    constitution_context: Constitution | None = None,
) -> list[Verdict]:
    ready, laws = _ready(engine, constitution, prompts, engine_context, constitution_context)
    fit = [isinstance(row["against"], str) for row in rows]
    matches = [(row["prompt"], row["response"], row["against"]) for row, ok in zip(rows, fit, strict=True) if ok]
    judged = iter(compare(ready, laws, matches, by))
    return [next(judged) if ok else _unfit("against", row, "a text") for row, ok in zip(rows, fit, strict=True)]


@verifier("judge.best_of", version=1, needs=("responses",))
def _best(
    rows: Sequence[Row],
    *,
    engine: Mapping[str, str] | None = None,
    constitution: str | None = None,
    by: str = "letters",
    prompts: int = PROMPTS,
    engine_context: Engine | None = None,
    constitution_context: Constitution | None = None,
) -> list[Verdict]:
    ready, laws = _ready(engine, constitution, prompts, engine_context, constitution_context)
    groups = [_group(row) for row in rows]
    once = list(dict.fromkeys(group for group in groups if group is not None))
    ranked = dict(zip(once, rank_many(ready, once, laws, by), strict=True))
    verdicts = []
    for row, group in zip(rows, groups, strict=True):
        if group is None:
            verdicts.append(_unfit("responses", row, "a list of texts, with one other than the response"))
            continue
        ranking, at = ranked[group], group[1].index(row["response"])
        score = ranking.scores[at]
        evidence = {
            "place": 1 + sum(other is not None and score is not None and other > score for other in ranking.scores),
            "scores": [None if one is None else round(one, 4) for one in ranking.scores],
            "order": list(ranking.order),
            "matches": ranking.matches,
            "flips": ranking.flips,
            "unjudged": ranking.unjudged,
        }
        reason = "ranked" if score is not None else (*ranking.reasons, "unjudged")[0]
        verdicts.append(Verdict(score, reason, evidence))
    return verdicts


def _ready(
    engine: Mapping[str, str] | None,
    constitution: str | None,
    prompts: int,
    engine_context: Engine | None,
    constitution_context: Constitution | None,
) -> tuple[Engine, Constitution]:
    """What to judge with, if it is what the identity says. Raises InputError where it is not."""
    if engine_context is None or engine is None or constitution is None:
        raise InputError(
            "a judge needs an engine: give --engine FOLDER, or make it by pointwise(engine), pairwise or best_of"
        )
    told = {"name": engine_context.name, "version": engine_context.version}
    if dict(engine) != told:
        raise InputError(f"the judge is for the engine {dict(engine)}; it was given {told}")
    laws = constitution_context if constitution_context is not None else shipped()
    if constitution != laws.digest:
        raise InputError(f"the judge goes by the constitution {constitution[:12]}; it was given {laws.digest[:12]}")
    if prompts != PROMPTS:
        raise InputError(f"the judge's wording is at version {PROMPTS}; version {prompts} was asked for")
    return engine_context, laws


def _rubric(column: Any, laws: Constitution) -> tuple[Principle, ...] | Verdict:
    if column is None:
        return laws.principles
    try:
        return principles(column, "rubric")
    except InputError as error:
        return Verdict(None, "bad_rubric", {"error": str(error)[:200]})


def _group(row: Row) -> tuple[str, tuple[str, ...]] | None:
    """The row's prompt and all its entrants; the response joins where it is not among them."""
    others = row["responses"]
    if not isinstance(others, Sequence) or isinstance(others, str) or not all(isinstance(one, str) for one in others):
        return None
    entrants = tuple(others) if row["response"] in others else (*others, row["response"])
    return (row["prompt"], entrants) if len(set(entrants)) > 1 else None


def _unfit(column: str, row: Row, wanted: str) -> Verdict:
    return Verdict(None, f"bad_{column}", {"found": repr(row[column])[:100], "wanted": wanted})
