"""Scored responses, several to a prompt, into what is learned from: judgements, conversations, and tasks with the share
that was solved.

    judgements   of each prompt one rating of all its responses, for preferences/pairs.py (right against wrong)
    best         the best response of each prompt as a conversation (best-of-n)
    accepted     every different response that is good enough as a conversation (rejection sampling)
    rates        each prompt as a task with its `pass_rate`, where a model solves it sometimes

The laws: a response without a score is in no conversation, in no rate, and null in a rating; one that stopped at its
length is no conversation, since it would teach to stop there; each response is the source of a row or in the ledger.
Of equally good ones the shortest is taken, then the first. Prompts are told apart by `task`, the id of the row that was
asked (see `scores_add`).

Reasons: "no_response", "unjudged", "truncated", "not_best", "below" (its score under `at_least`), "duplicate",
"over_most", "one_reply", "too_many" (more different replies than a judgement holds), "always_solved", "never_solved".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.chat.messages import MESSAGE, MESSAGES, as_messages
from gristmill.dataops.dataset import Dataset, InputError, Shard
from gristmill.dataops.identity import canonical_json, row_id
from gristmill.dataops.op import LEDGER, Split, ledger, op
from gristmill.dataops.preferences.judgements import JUDGEMENT, frame, judgement, reply_name
from gristmill.dataops.store import Task

_ROWS = 1 << 16  # responses of a task, about
_MOST = 64  # replies that a judgement holds
#: What generation and scoring add to a task's columns.
ADDED = (
    "sources", "response", "sample", "tokens", "finish", "logprob", "engine", "engine_version",
    "task", "score", "score_reason", "scorer",
)  # fmt: skip
#: A conversation as chat/shapes.py has it, with what it was chosen by.
CHAT: dict[str, pl.DataType] = {
    "id": pl.Binary(),
    "sources": pl.List(pl.Binary()),
    "messages": MESSAGES,
    "tools": pl.String(),
    "source": pl.String(),
    "licence": pl.String(),
    "ids": pl.List(pl.String()),
    "score": pl.Float64(),
    "scorer": pl.String(),
}
Scoring = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Sequence[tuple[float | None, str, str]]]


@op("scores.add", version=1)
def scores_add(frame: pl.DataFrame, *, scorer: dict[str, Any], scoring_context: Scoring) -> pl.DataFrame:
    """Adds `score` (null: not judged), `score_reason`, `scorer` (its name) and `task`: the first of a row's `sources`,
    without these a name of its prompt. A response that is null is not asked about."""
    rows = frame.to_dicts()
    there = [n for n, row in enumerate(rows) if row["response"] is not None]
    said = scoring_context([rows[n] for n in there], [rows[n]["response"] for n in there])
    found: list[tuple[float | None, str, str | None]] = [(None, "no_response", None)] * len(rows)
    for n, one in zip(there, said, strict=True):
        found[n] = one
    return frame.with_columns(
        pl.Series("score", [one[0] for one in found], dtype=pl.Float64),
        pl.Series("score_reason", [one[1] for one in found], dtype=pl.String),
        pl.Series("scorer", [one[2] for one in found], dtype=pl.String),
        pl.Series("task", [_task(row) for row in rows], dtype=pl.Binary),
    )


def _task(row: Mapping[str, Any]) -> bytes:
    sources = row.get("sources")
    return sources[0] if sources else row_id("scores.task", canonical_json(row["prompt"]))


def _plan(inputs: Sequence[Dataset], _: Path, __: int, **___: Any) -> list[Task]:
    """Tasks of whole prompts, cut by their names and the number of rows alone."""
    if inputs[0].rows and not {"task", "score", "response"} <= {*inputs[0].schema().names}:
        raise InputError(f"{inputs[0].name} holds no scored responses: score them first (scores.add)")
    shards = inputs[0].shards()
    names = [shard.read(["task"])["task"].to_pylist() for shard in shards]
    parts = max(-(-sum(map(len, names)) // _ROWS), 1)
    counts = np.zeros(parts, np.int64)
    for found in names:
        counts += np.bincount(_part(found, parts), minlength=parts)
    return [Task((shards, part, parts), int(count)) for part, count in enumerate(counts)]


def _part(names: Sequence[bytes], parts: int) -> np.ndarray:
    return np.array([int.from_bytes(name[:8], "little") % parts for name in names], dtype=np.int64)


Work = tuple[Sequence[Shard], int, int]


def _groups(task: Work) -> Iterator[list[dict[str, Any]]]:
    """The responses to each prompt of a task, in the order of the dataset."""
    shards, part, parts = task
    found = []
    for shard in shards:
        table = shard.read()
        found.append(pl.DataFrame(table).filter(pl.Series(_part(table["task"].to_pylist(), parts) == part)))
    groups: dict[bytes, list[dict[str, Any]]] = {}
    for rows in found:
        for row in rows.to_dicts():
            groups.setdefault(row["task"], []).append(row)
    yield from groups.values()


class _Lost(list[dict[str, Any]]):
    """Ledger rows, gathered."""

    def add(self, rows: Sequence[Mapping[str, Any]], reason: str, **more: Any) -> None:
        self.extend({"id": row["id"], "reason": reason, "value": row["score"], **more} for row in rows)

    def ledger(self) -> pl.DataFrame:
        schema = {name: LEDGER[name] for name in ("id", "reason", "value", "threshold", "evidence")}
        return ledger(pl.DataFrame(list(self), schema=schema))


def _judged(rows: Sequence[dict[str, Any]], lost: _Lost) -> list[dict[str, Any]]:
    """The rows that may become conversations; the others are told."""
    left = []
    for row in rows:
        if _silent(row):
            lost.add([row], "no_response")
        elif row.get("finish") == "length":
            lost.add([row], "truncated")
        elif row["score"] is None:
            lost.add([row], "unjudged")
        else:
            left.append(row)
    return left


def _silent(row: Mapping[str, Any]) -> bool:
    return row["response"] is None or not row["response"].strip()


@op("scores.judgements", version=1, kind="source", plan=_plan)
def judgements(task: Work) -> Iterator[Split]:
    """Rows of `JUDGEMENT`, of kind "rating", whose rater is the scorer: a prompt's different replies with their scores
    (equal replies with their mean), null for those that were not judged."""
    made, lost, taken = [], _Lost(), 0
    for rows in _groups(task):
        taken += len(rows)
        told = [row for row in rows if not _silent(row)]
        lost.add([row for row in rows if _silent(row)], "no_response")
        replies: dict[bytes, list[dict[str, Any]]] = {}
        for row in told:
            replies.setdefault(reply_name(_said(row)), []).append(row)
        scored = {name: [row["score"] for row in same if row["score"] is not None] for name, same in replies.items()}
        for name in [*replies][_MOST:]:
            lost.add(replies[name], "too_many", threshold=float(_MOST))
        shown = [*replies][:_MOST]
        kept = [row for name in shown for row in replies[name]]
        if sum(bool(scored[name]) for name in shown) < 2:
            lost.add([row for row in kept if row["score"] is None], "unjudged")
            lost.add([row for row in kept if row["score"] is not None], "one_reply")
            continue
        value = [sum(scored[name]) / len(scored[name]) if scored[name] else None for name in shown]
        rater = next(row["scorer"] for row in kept if row["score"] is not None)
        responses = [_said(replies[name][0]) for name in shown]
        one = judgement(as_messages(rows[0]["prompt"], "user"), responses, "rating", value, rater=rater)
        sources = [row["id"] for row in kept]
        one |= {"id": row_id("scores.judgements", rows[0]["task"], *sources), "source": rater}
        made.append((one, sources))
    named = pl.Series("sources", [names for _, names in made], dtype=pl.List(pl.Binary))
    found = frame([one for one, _ in made]).with_columns(named)
    yield Split(found.select(*JUDGEMENT, "sources"), lost.ledger(), taken, {"judgements": len(made)})


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": row["response"]}


@op("scores.best", version=1, kind="source", plan=_plan)
def best(task: Work, *, at_least: float | None) -> Iterator[Split]:
    """Rows of `CHAT`: the best response of each prompt, unless its score is below `at_least`."""
    made, lost, taken = [], _Lost(), 0
    for rows in _groups(task):
        taken += len(rows)
        ranked = sorted(_judged(rows, lost), key=_rank)
        if not ranked:
            continue
        if at_least is not None and ranked[0]["score"] < at_least:
            lost.add(ranked, "below", threshold=at_least)
            continue
        made.append(_conversation("scores.best", ranked[0]))
        lost.add(ranked[1:], "not_best", threshold=ranked[0]["score"], evidence=ranked[0]["id"].hex())
    yield Split(pl.DataFrame(made, schema=CHAT), lost.ledger(), taken, {"conversations": len(made)})


@op("scores.accepted", version=1, kind="source", plan=_plan)
def accepted(task: Work, *, at_least: float, most: int | None) -> Iterator[Split]:
    """Rows of `CHAT`: the different responses of each prompt with a score of `at_least`, the best `most` of them."""
    made, lost, taken = [], _Lost(), 0
    for rows in _groups(task):
        taken += len(rows)
        ranked = sorted(_judged(rows, lost), key=_rank)
        lost.add([row for row in ranked if row["score"] < at_least], "below", threshold=at_least)
        good: dict[str, dict[str, Any]] = {}
        for row in ranked:
            if row["score"] >= at_least:
                first = good.setdefault(row["response"].strip(), row)
                if first is not row:
                    lost.add([row], "duplicate", evidence=first["id"].hex())
        kept = [*good.values()]
        made += [_conversation("scores.accepted", row) for row in kept[:most]]
        lost.add(kept[len(kept) if most is None else most :], "over_most", threshold=most)
    yield Split(pl.DataFrame(made, schema=CHAT), lost.ledger(), taken, {"conversations": len(made)})


def _rank(row: Mapping[str, Any]) -> tuple[float, int]:
    """The best first, of equals the shortest; sorting keeps the order of the rest."""
    return -row["score"], len(row["response"])


def _conversation(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    empty = dict.fromkeys(field.name for field in MESSAGE.fields)
    said = [empty | turn for turn in [*as_messages(row["prompt"], "user"), _said(row)]]
    about = {key: row[key] for key in ("source", "licence") if isinstance(row.get(key), str)}
    return {
        "id": row_id(name, row["id"]),
        "sources": [row["id"]],
        "messages": said,
        "ids": [row["task"].hex()],
        **about,
        **{key: row[key] for key in ("score", "scorer")},
    }


@op("scores.rates", version=1, kind="source", plan=_plan)
def rates(task: Work, *, at_least: float) -> Iterator[Split]:
    """The tasks that were asked, under their own ids, with `pass_rate` (the share of judged responses whose score is
    `at_least`), `difficulty` (1 - pass_rate) and `samples` (how many were judged). Those that are always or never
    solved go: nothing tells their responses apart, so they give no gradient (Yu et al. 2025, DAPO, 3.2)."""
    lost, taken, kept = _Lost(), 0, []
    for rows in _groups(task):
        taken += len(rows)
        # An empty response is one that failed, as its verifier said; only a missing one was never given.
        missing = [row for row in rows if row["response"] is None]
        lost.add(missing, "no_response")
        lost.add([row for row in rows if row["response"] is not None and row["score"] is None], "unjudged")
        told = [row for row in rows if row["response"] is not None and row["score"] is not None]
        if not told:
            continue
        share = sum(row["score"] >= at_least for row in told) / len(told)
        if share in (0.0, 1.0):
            lost.add(told, "always_solved" if share else "never_solved", threshold=at_least)
            continue
        sources = [row["id"] for row in told]
        kept.append({**rows[0], "id": rows[0]["task"], "sources": sources, "pass_rate": share,
                     "difficulty": 1 - share, "samples": len(told)})  # fmt: skip
    schema = _task_columns(task[0])
    yield Split(pl.DataFrame(kept, schema=schema), lost.ledger(), taken, {"tasks": len(kept)})


def _task_columns(shards: Sequence[Shard]) -> dict[str, pl.DataType]:
    """What a task had before it was answered, and what its rate adds."""
    known = pl.DataFrame(shards[0].read().slice(0, 0)).schema if shards else {}
    own = {name: kind for name, kind in known.items() if name not in (*ADDED, "pass_rate", "difficulty", "samples")}
    return {**own, "sources": pl.List(pl.Binary()), "pass_rate": pl.Float64(), "difficulty": pl.Float64(),
            "samples": pl.UInt32()}  # fmt: skip
