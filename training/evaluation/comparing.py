"""Responses held against another model's: a judge asked in both orders, and changes against an earlier evaluation.

The laws: equal texts are a tie that nobody is asked about; what one order left unjudged is not judged; a change is told
over the prompts (or rows) that both evaluations have, and only where both were asked the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.evaluation.accuracy import mean_scores, pass_rates
from gristmill.training.evaluation.asking import Asked, score
from gristmill.training.evaluation.intervals import Measure, change, ratio
from gristmill.training.evaluation.spec import OP, EvaluateSpec, Pairs, Slice, asked
from gristmill.training.evaluation.winrate import win_rates
from gristmill.training.scoring import Score, Scoring

SAME = "identical"


@dataclass(frozen=True)
class Pair:
    """A response held against another: the judge's word with it in the first seat, and in the second."""

    against: str | None
    first: Score
    second: Score


def compare(judge: Scoring, ours: Asked, theirs: Sequence[Sequence[str | None]]) -> list[list[Pair]]:
    """Sample by sample, each response of ours against theirs to the same prompt."""
    places = [(i, j) for i, prompt in enumerate(ours.responses) for j in range(len(prompt))]
    one = [ours.responses[i][j] for i, j in places]
    two = [theirs[i][j] for i, j in places]
    open_ = [n for n in range(len(places)) if one[n] is not None and two[n] is not None and one[n] != two[n]]
    rows = [ours.rows[places[n][0]] for n in open_]
    first = score(
        judge, [{**row, "against": two[n]} for row, n in zip(rows, open_, strict=True)], [one[n] for n in open_]
    )
    second = score(
        judge, [{**row, "against": one[n]} for row, n in zip(rows, open_, strict=True)], [two[n] for n in open_]
    )
    told = {n: Pair(two[n], a, b) for n, a, b in zip(open_, first, second, strict=True)}
    found: list[list[Pair]] = [[] for _ in ours.responses]
    for n, (i, _) in enumerate(places):
        missing = one[n] is None or two[n] is None
        same = Score(None, "no_response") if missing else Score(0.5, SAME)
        found[i].append(told.get(n, Pair(two[n], same, same)))
    for pair in (pair for prompt in found for pair in prompt):
        for value in (pair.first.score, pair.second.score):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"the judge gave {value}; a preference lies in [0, 1], 1 for the first seat")
    return found


def preference(pair: Pair) -> float | None:
    """(first + 1 - second) / 2; None where an order was not judged."""
    one, two = pair.first.score, pair.second.score
    return None if one is None or two is None else (one + 1 - two) / 2


def comparison_measures(ours: Asked, pairs: Sequence[Sequence[Pair]], *, seed: int) -> dict[str, Measure]:
    """The measures of winrate.py, in characters of difference. Pairs of equal texts are ties without a seat."""
    first = np.array([[_number(pair.first.score) for pair in prompt] for prompt in pairs])
    second = np.array([[_number(pair.second.score) for pair in prompt] for prompt in pairs])
    lengths = [
        [len(response or "") - len(pair.against or "") for pair, response in zip(*both, strict=True)]
        for both in zip(pairs, ours.responses, strict=True)
    ]
    return win_rates(first, second, np.array(lengths, dtype=np.float64), seed=seed)


def check_parent(parent: Dataset) -> None:
    """Raises InputError where a dataset is no evaluation."""
    if parent.kind != "rows" or parent.manifest["ops"][-1]["name"] != OP:
        raise InputError(f"{parent.name} at {parent.path} is no evaluation; name one as parent, or leave it out")


def _by_source(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, bytes], list[Mapping[str, Any]]]:
    found: dict[tuple[str, bytes], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["task"], row["sources"][0]), []).append(row)
    return found


def changes(
    spec: EvaluateSpec, rows: Sequence[Mapping[str, Any]], parent: Dataset
) -> tuple[dict[str, Measure], list[str]]:
    """`score_change` and `pass@1_change` of tasks, `margin_change` of pairs and (per token) `parent_loss_change` of
    slices, paired; and what cannot be compared, with the reason."""
    columns = ["task", "sources", "score", "loss", "tokens"]
    before = _by_source(row for batch in parent.batches(4_096, columns) for row in batch.to_pylist())
    params = parent.manifest["ops"][-1]["params"]
    then = {item["name"]: item for item in (*params["slices"], *params.get("pairs", []), *params["tasks"])}
    now = _by_source(rows)
    found: dict[str, Measure | None] = {}
    notes = []
    for item in spec.asked:
        if then.get(item.name) != json.loads(json.dumps(asked(item))):
            what = "is not in the parent" if item.name not in then else "was asked otherwise in the parent"
            notes.append(f"{item.name} {what}: no change is told")
            continue
        both = [(now[key], before[key]) for key in sorted(now) if key[0] == item.name and key in before]
        if isinstance(item, Slice):
            tokens, new, old = (
                np.array([pair[side][0][name] for pair in both], dtype=np.float64)
                for side, name in ((0, "tokens"), (0, "loss"), (1, "loss"))
            )
            found[f"{item.name}/parent_loss_change"] = ratio((new - old) * tokens, tokens, seed=spec.seed)
            continue
        if isinstance(item, Pairs):
            new, old = (np.array([pair[side][0]["score"] for pair in both]) for side in (0, 1))
            found[f"{item.name}/margin_change"] = change(new, old, seed=spec.seed)
            continue
        scores = [[[row["score"] for row in pair[side]] for pair in both] for side in (0, 1)]
        found[f"{item.name}/score_change"] = change(*map(mean_scores, scores), seed=spec.seed)
        if item.right is not None:
            rates = (pass_rates(side, item.right, 1) for side in scores)
            found[f"{item.name}/pass@1_change"] = change(*rates, seed=spec.seed)
    return {name: measure for name, measure in found.items() if measure is not None}, notes


def _number(value: float | None) -> float:
    return math.nan if value is None else value
