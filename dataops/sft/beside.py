"""Numbers that somebody else has found out about conversations, beside them: what a choice goes by.

    sft.numbers    columns of a second dataset, by id: what training/describe.py publishes of encoded conversations
    sft.score      what a judge, a reward model or a verifier says of the last answer

The law: a conversation without numbers is in the ledger, for the reason for which it could not be encoded for the model
("too_long", ...), else as "no_numbers"; one that could not be judged stays with a null score, which no choice takes.
Not covered: scores of earlier answers of a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.sft.turns import turns
from gristmill.dataops.store import Task

_TOLD = ("reason", "value", "threshold", "evidence")
_ROWS = 4_096  # of a batch
Scoring = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Sequence[tuple[float | None, str, str]]]
Work = tuple[Shard, Dataset, Dataset]


def _plan(inputs: Sequence[Dataset], _: Path, __: int, *, columns: Sequence[str]) -> list[Task]:
    """A task is a shard of the conversations."""
    chats, numbered, encoded = inputs
    missing = [name for name in columns if name not in numbered.schema().names]
    if missing:
        raise InputError(f"{numbered.name} has no column {missing[0]!r}; it has: {', '.join(numbered.schema().names)}")
    taken = [name for name in columns if name in dict(chats.base.manifest["schema"])]
    if taken:
        raise InputError(
            f"{chats.name} has a column {taken[0]!r} already: choose by it, or have the chats described without it"
        )
    return [Task((shard, numbered, encoded), shard.kept) for shard in chats.shards()]


@op("sft.numbers", version=1, kind="source", plan=_plan)
def numbers(task: Work, *, columns: Sequence[str]) -> Iterator[Split]:
    """The conversations of the first input with `columns` of the second, of the same ids. The third is what the numbers
    were found of, the encoded conversations: its ledger says why the others have none.

    Raises InputError for columns that the second lacks, or that the first has already.
    """
    shard, numbered, encoded = task
    ids = shard.read(["id"])["id"].to_pylist()
    wanted = pl.DataFrame({"id": pl.Series(ids, dtype=pl.Binary)})
    known = [
        pl.DataFrame(batch).with_columns(pl.col("id").cast(pl.Binary)).join(wanted, on="id", how="semi")
        for batch in numbered.batches(_ROWS, ["id", *columns])
    ]
    found = pl.concat([frame for frame in known if frame.height] or known[:1])
    gone = encoded.ledger().filter(pl.col("unit") == "row").select("id", *_TOLD).collect()
    rows = shard.read()
    for start in range(0, max(rows.num_rows, 1), _ROWS):
        frame = pl.DataFrame(rows.slice(start, _ROWS))
        kept = frame.join(found, on="id", how="inner", maintain_order="left")
        lost = frame.select("id").join(kept.select("id"), on="id", how="anti", maintain_order="left")
        told = lost.join(gone, on="id", how="left", maintain_order="left")
        drops = ledger(told.with_columns(pl.col("reason").fill_null("no_numbers")))
        yield Split(kept, drops, frame.height)


@op("sft.score", version=1)
def score(frame: pl.DataFrame, *, scorer: dict[str, Any], scoring_context: Scoring) -> pl.DataFrame:
    """Add `score` and `score_reason`: what a scorer says of the assistant's last turn, as a response to all before it.

    The scorer sees the row, with `prompt` as messages of role and content. Null where that turn says nothing
    ("no_response"), stands at the beginning ("no_prompt"), or could not be judged. Raises InputError where there is a
    column `score` already.
    """
    taken = [name for name in ("score", "score_reason") if name in frame.columns]
    if taken:
        raise InputError(f"sft.score: there is a column {taken[0]!r} already: choose by it, without a scorer")
    said = turns(frame).select("row", "at", "role", "content")
    last = said.filter(pl.col("role") == "assistant").group_by("row").agg(last=pl.col("at").max())
    before: dict[int, list[dict[str, str]]] = {}
    answers: dict[int, str] = {}
    for row, at, role, content, end in said.join(last, on="row", maintain_order="left").iter_rows():
        if at < end:
            before.setdefault(row, []).append({"role": role or "", "content": content or ""})
        elif at == end and (content or "").strip():
            answers[row] = content
    judged = [row for row in sorted(answers) if row in before]
    tasks = frame.drop("messages")[judged].to_dicts()
    asked = [{**task, "prompt": before[row]} for task, row in zip(tasks, judged, strict=True)]
    found: list[tuple[float | None, str]] = [
        (None, "no_prompt" if row in answers else "no_response") for row in range(frame.height)
    ]
    for row, one in zip(judged, scoring_context(asked, [answers[row] for row in judged]), strict=True):
        found[row] = (one[0], one[1])
    return frame.with_columns(
        pl.Series("score", [one[0] for one in found], dtype=pl.Float64),
        pl.Series("score_reason", [one[1] for one in found], dtype=pl.String),
    )
