"""Responses scored, and what is learned from the scores: judgements, conversations, tasks of the right difficulty.

    by = by_verifier(find("maths")())                      # or by_rows(), by_scorer(Scorer(...))
    scores = scored(store, store.get("responses"), by)     # responses-scored: every response with its score
    judged = from_scores(store, scores, "judgements", name="judged")
    pairs = store.build("pairs-read", make_pairs(policy="best_worst"), [judged])
    from_scores(store, scores, "rates", name="curriculum", at_least=1.0)

The laws: what could not be judged has a null score and its reason, and stays in the scored dataset; where who scores
was away nothing is published, and the same call asks again (outage.py); a verifier's task is probed before its
responses are judged (verifiers/probes.py), so that a gold answer which fails its own verifier makes no right answer
wrong. What is made of the scores keeps the laws of dataops/tasks/scored.py.

Not covered: scorers that draw lots; their scores are published once, and taken from there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.executor import InProcess
from gristmill.dataops.store import Store
from gristmill.dataops.tasks.collapse import LIMIT, collapse
from gristmill.dataops.tasks.probe import asked
from gristmill.dataops.tasks.scored import ADDED, Scoring, accepted, best, judgements, rates, scores_add
from gristmill.flows.sets.outage import reached
from gristmill.flows.train import resolved
from gristmill.training.evaluation.texts import distinct, words
from gristmill.training.online.rewards import identity
from gristmill.training.scoring import Score, Scorer, open_scorer
from gristmill.training.scoring import Scoring as Opened
from gristmill.verifiers.probes import probed
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Verifier, find, load

Make = Literal["judgements", "best", "rejection", "rates"]
Said = list[tuple[float | None, str, str]]
#: The call of a scorer that is a verifier, which is asked as one.
_VERIFIER = "gristmill.flows.scoring:verifier"


@dataclass(frozen=True)
class By:
    """Who scores: its identity, what scores (picklable), the score that passes (None: nobody says), and whether it may
    be asked by several processes at once."""

    identity: Mapping[str, Any]
    scoring: Scoring
    passes: float | None
    spread: bool


def by_verifier(verifier: Verifier) -> By:
    """A verifier; a score of 1 passes."""
    scoring = functools.partial(_by_verifier, verifier)
    return By({"verifier": verifier.identity}, scoring, 1.0, not verifier.many)


def by_rows() -> By:
    """The verifier that each row names in its column `verifier`, as `task_set` writes it."""
    return By({"rows": "verifier"}, _by_rows, 1.0, False)


def by_scorer(scorer: Scorer) -> By:
    """Whatever a training step may be scored by: a judge, a reward model, a verifier. Raises InputError where it cannot
    be made."""
    if scorer.call == _VERIFIER:
        try:
            return by_verifier(find(scorer.settings["verifier"])(**{k: v for k, v in scorer.settings.items()
                                                                    if k != "verifier"}))  # fmt: skip
        except (KeyError, TypeError) as error:
            raise InputError(f"scorer {scorer.name}: {error}") from None
    _opened(json.dumps(asdict(scorer)))
    (known,) = identity([scorer])
    return By({"scorer": known}, functools.partial(_by_scorer, scorer), None, False)


def by_json(store: Store, given: str) -> By:
    """A scorer in a spec's words: JSON, or a file of it; {"dataset": REFERENCE} is filled in. Raises InputError."""
    try:
        told = json.loads(given if given.lstrip().startswith("{") else Path(given).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"--scorer {given[:80]}: neither JSON nor a file of it: {error}") from None
    if not isinstance(told, dict):
        raise InputError(f"--scorer {given[:80]}: an object is wanted, this is a {type(told).__name__}")
    try:
        scorer = Scorer(**resolved(store, told))
    except TypeError as error:
        raise InputError(
            f'--scorer: {error}; write {{"name": ..., "call": "MODULE:FUNCTION", "settings": {{}}}}'
        ) from None
    return by_scorer(scorer)


def _by_verifier(verifier: Verifier, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Said:
    told = _verdicts(verifier, rows, responses)
    reached(verifier.name, [(one.score, one.reason, one.evidence) for one in told])
    return _signed(verifier, told)


def _as_they_are(verifier: Verifier, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Said:
    return _signed(verifier, _verdicts(verifier, rows, responses))


def _verdicts(verifier: Verifier, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> list[Verdict]:
    return probed(verifier, [_row(row, said) for row, said in zip(rows, responses, strict=True)])


def _signed(verifier: Verifier, told: Sequence[Verdict]) -> Said:
    return [(one.score, one.reason, f"{verifier.name}/{verifier.version}") for one in told]


def _by_rows(
    rows: Sequence[Mapping[str, Any]], responses: Sequence[str], ask: Callable[..., Said] = _by_verifier
) -> Said:
    places: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        places.setdefault(row.get("verifier") or "", []).append(n)
    found: Said = [(None, "no_verifier", "")] * len(rows)
    for text, mine in places.items():
        if text:
            told = ask(_loaded(text), [rows[n] for n in mine], [responses[n] for n in mine])
            for n, one in zip(mine, told, strict=True):
                found[n] = one
    return found


def _by_scorer(scorer: Scorer, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Said:
    told = _opened(json.dumps(asdict(scorer)))(rows, responses)
    reached(f"scorer {scorer.name}", [(one.score, one.reason, {}) for one in told])
    return [(one.score, one.reason, scorer.name) for one in told]


def _row(row: Mapping[str, Any], response: str) -> dict[str, Any]:
    """The task alone, as a verifier sees it: samples of one task are one task to its probes."""
    own = {name: value for name, value in row.items() if name not in ADDED and name != "verifier"}
    return {**own, "prompt": asked(row["prompt"]), "response": response}


def own() -> Opened:
    """A scorer for training and evaluation that asks each task's own verifier (its column `verifier`): tasks of several
    kinds in one run; what an outage leaves without a score the run itself weighs.
    {"name": "own", "call": "gristmill.flows.sets.scored:own"}"""

    def score(rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> list[Score]:
        return [Score(score, reason) for score, reason, _ in _by_rows(rows, responses, _as_they_are)]

    return score


@functools.cache
def _loaded(text: str) -> Verifier:
    return load(json.loads(text))


@functools.cache
def _opened(text: str) -> Opened:
    return open_scorer(Scorer(**json.loads(text)))


def scored(store: Store, responses: Dataset, by: By, *, name: str | None = None) -> Dataset:
    """Every response with its score, as `name` (default: <responses>-scored).

    Raises InputError for a dataset that holds none, and where none of them could be judged; OSError where the scorer is
    gone."""
    names = responses.schema().names
    wanted = ["id", "prompt", "response", *(["verifier"] if "rows" in by.identity else [])]
    if missing := [item for item in wanted if item not in names]:
        what = "its rows do not say who scores them: name a verifier or a scorer"
        what = what if missing == ["verifier"] else "it holds no responses to score"
        raise InputError(f"{responses.name} has no column {missing[0]!r}: {what} (it has {', '.join(names)})")
    if taken := [item for item in ("task", "score", "score_reason", "scorer") if item in names]:
        raise InputError(f"{responses.name} has a column {taken[0]!r}, which scoring makes: it may be scored already")
    own = Store(store.root, store.executor if by.spread else InProcess(), store.progress)
    adding = scores_add(scorer=dict(by.identity), scoring_context=by.scoring)
    made = own.build(name or f"{responses.name}-scored", adding, [responses])
    told = summary(made)
    if told["unjudged"] == told["responses"]:
        why = ", ".join(f"{reason} {count:,}" for reason, count in told["reasons"].items())
        raise InputError(f"{made.name}: none of {told['responses']:,} responses could be judged ({why or 'no rows'})")
    return made


def summary(scores: Dataset) -> dict[str, Any]:
    """Responses, prompts, those not judged, the mean score, and reasons, the commonest first."""
    import polars as pl

    rows = scores.scan().select("task", "score", "score_reason").collect()
    reasons = rows["score_reason"].value_counts(sort=True).sort("count", "score_reason", descending=[True, False])
    return {
        "responses": rows.height,
        "prompts": rows["task"].n_unique(),
        "unjudged": rows["score"].null_count(),
        "mean": rows.select(pl.col("score").mean()).item(),
        "reasons": dict(reasons.rows()),
    }


def from_scores(
    store: Store, scores: Dataset, make: Make, *, name: str, at_least: float | None = None, most: int | None = None
) -> Dataset:
    """What is made of scored responses: "judgements" for preference pairs; "best" and "rejection", conversations whose
    score is `at_least`, of a prompt the `most` best; "rates", tasks with the share of responses that pass.

    Raises InputError for options that are of another kind, and where nothing is left, with why.
    """
    if most is not None and (make != "rejection" or most < 1):
        raise InputError(f"most = {most}: it is of rejection, how many responses to a prompt are taken at most, from 1")
    if make == "judgements":
        if at_least is not None:
            raise InputError("at_least is of best, rejection and rates: pairs have a margin of their own")
        made = store.build(name, judgements(), [scores])
    elif make == "best":
        made = store.build(name, best(at_least=at_least), [scores])
    elif at_least is None:
        raise InputError(f"{make} needs at_least: from which score on a response is good enough")
    elif make == "rejection":
        made = store.build(name, accepted(at_least=at_least, most=most), [scores])
    elif make == "rates":
        made = store.build(name, rates(at_least=at_least), [scores])
    else:
        raise InputError(f"nothing is called {make!r}; there are: judgements, best, rejection, rates")
    if not made.rows:
        (tally,) = made.manifest["counts"].values()
        raise InputError(f"{name}: nothing is left of {tally['in']:,} responses: {_why(tally['reasons'])}")
    return made


def _why(reasons: Mapping[str, int]) -> str:
    told = ", ".join(f"{name} {rows:,}" for name, rows in sorted(reasons.items(), key=lambda item: -item[1]))
    if reasons.keys() == {"always_solved"}:
        return f"{told}. Every prompt is solved always: this model learns nothing from them, ask harder ones"
    if reasons.keys() == {"never_solved"}:
        return f"{told}. No prompt is ever solved: ask easier ones, or sample more"
    return told


def collapsed(
    store: Store, responses: Dataset, previous: Dataset | None = None, *, name: str = "collapse", limit: float = LIMIT
) -> Dataset:
    """How different the responses are, against those of the `previous` round: a dataset whose stats say it (see
    dataops/tasks/collapse.py); `alarms` are what fell by more than `limit`."""
    rounds = [responses] if previous is None else [responses, previous]
    return store.build(name, collapse(limit=limit, distinct_context=_distinct), rounds)


def _distinct(texts: Sequence[str], n: int) -> float | None:
    return distinct([words(text) for text in texts], n)
