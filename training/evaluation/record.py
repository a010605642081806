"""The rows of an evaluation: one per response, and one per held-out row, so that every figure can be traced.

    id, sources          sources: the id of the task's row, of the packed row or of the pair
    part, task           "task", "slice" or "pairs", and its name
    prompt, response     messages; null for held-out text
    sample               which response to this prompt, from 0
    score, reason        null: could not be judged, and why; of a pair the margin per token, nats
    answer               what the scorer took it to answer
    tokens               of the response, or of a pair's chosen reply; of held-out text, those that were predicted
    cut, refused         reached max_tokens; declines to help
    loss, entropy, kl    means per token, nats; loss of held-out text and of chosen replies
    against              the reference's response where compared, with the judge's `first`, `second`, their `preference`
                         for ours, and why there is none in `judged`

The law: equal evaluations give equal rows in equal order. Not covered: rows of the evaluation harness, which keeps its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gristmill.dataops.dataset import row_id
from gristmill.training.evaluation.asking import Asked
from gristmill.training.evaluation.comparing import Pair, preference
from gristmill.training.evaluation.likelihood import Sums
from gristmill.training.evaluation.pairs import Told
from gristmill.training.evaluation.refusals import refuses
from gristmill.training.evaluation.slices import Read
from gristmill.training.evaluation.spec import OP, Task
from gristmill.training.scoring import Score

SCHEMA = pa.schema(
    [
        ("id", pa.binary(16)),
        ("sources", pa.list_(pa.binary(16))),
        ("part", pa.string()),
        ("task", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("response", pa.string()),
        ("sample", pa.int32()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("answer", pa.string()),
        ("tokens", pa.int32()),
        ("cut", pa.bool_()),
        ("refused", pa.bool_()),
        *((name, pa.float64()) for name in ("loss", "entropy", "kl")),
        ("against", pa.string()),
        *((name, pa.float64()) for name in ("first", "second", "preference")),
        ("judged", pa.string()),
    ]
)

UNSCORED = Score(None, "no_scorer")


def slice_rows(name: str, told: Read) -> list[dict[str, Any]]:
    """A row per packed row that has something to predict."""
    rows = []
    for place, source in enumerate(told.ids):
        targets = int(told.sums.targets[place])
        if targets:
            means = {key: column[place] / targets for key, column in told.sums.columns.items()}
            rows.append(_row("slice", name, source, 0) | {"tokens": targets, **_known(means)})
    return rows


def pair_rows(name: str, told: Told) -> list[dict[str, Any]]:
    """A row per pair."""
    columns = {"score": told.margin, "loss": told.loss, "tokens": told.tokens}
    return [
        _row("pairs", name, source, 0) | {key: column[place].item() for key, column in columns.items()}
        for place, source in enumerate(told.ids)
    ]


def task_rows(
    task: Task,
    asked: Asked,
    scores: Sequence[Sequence[Score]] | None,
    tokens: Sequence[Sequence[int | None]],
    told: Sequence[Sequence[Sums | None]],
    pairs: Sequence[Sequence[Pair]] | None,
) -> list[dict[str, Any]]:
    """A row per response."""
    rows = []
    for i, row in enumerate(asked.rows):
        for j, response in enumerate(asked.responses[i]):
            score = UNSCORED if scores is None else scores[i][j]
            made = _row("task", task.name, row["id"], j) | {
                "prompt": asked.conversations[i],
                "response": response,
                "score": score.score,
                "reason": score.reason,
                "answer": score.answer,
                "tokens": tokens[i][j],
                "cut": asked.cut[i][j],
                "refused": None if response is None else refuses(response),
            }
            sums = told[i][j]
            if sums is not None:
                made |= _known(
                    {name: column[0] / sums.targets[0] for name, column in sums.columns.items()} | {"loss": None}
                )
            if pairs is not None:
                made |= _judged(pairs[i][j])
            rows.append(made)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """All rows, in one order: by part, name, source and sample."""
    ordered = sorted(rows, key=lambda row: (row["part"], row["task"], row["sources"][0], row["sample"]))
    return pa.Table.from_pylist(ordered, schema=SCHEMA)


def _row(part: str, name: str, source: bytes, sample: int) -> dict[str, Any]:
    own = row_id(OP, part, name, source, str(sample))
    return {"id": own, "sources": [source], "part": part, "task": name, "sample": sample}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in ("loss", "entropy", "kl") if name in values}


def _judged(pair: Pair) -> dict[str, Any]:
    unjudged = next((item.reason for item in (pair.first, pair.second) if item.score is None), pair.first.reason)
    return {
        "against": pair.against,
        "first": pair.first.score,
        "second": pair.second.score,
        "preference": preference(pair),
        "judged": unjudged,
    }
