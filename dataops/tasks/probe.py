"""Tasks that can be trusted: each is held against its own verifier before a model meets it, and stands there once.

`probe` takes out tasks whose gold answer fails their verifier (a right answer would be punished) and those that pass
with an empty answer (silence would be rewarded); `unique` takes out prompts that stood before.

The laws: a task stays only where the verifier gave a verdict on each probe, and the right one; a task without a gold
answer is probed by the empty one alone, and says so (`gold_passes` is null); of prompts with different golds none
stays, since one of them is wrong.

Reasons: "gold_fails", "gold_unjudged", "empty_passes", "empty_unjudged", "no_gold" (a column that the verifier needs is
null); "duplicate", "conflicting". Not covered: a gold that passes and is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.passes import positioned
from gristmill.dataops.store import Corpus

SHOWN = 300  # characters of evidence


class Probed(NamedTuple):
    """What probing a task found: why it may not be used (None: it may), what shows it, and whether its gold passes
    (None: it has none)."""

    reason: str | None
    evidence: str = ""
    gold: bool | None = None


def asked(prompt: Any) -> str:
    """A prompt as verifiers read it: the text, or that of the last message."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def probe(verifier: Mapping[str, Any], probing: Callable[[Sequence[Mapping[str, Any]]], list[Probed]]) -> Any:
    """The op that keeps tasks which pass `probing` by the verifier of this identity, a JSON text in each row."""
    return tasks_probe(verifier=dict(verifier), probing_context=probing)


@op("tasks.probe", version=1)
def tasks_probe(frame: pl.DataFrame, *, verifier: dict[str, Any], probing_context: Any) -> Split:
    """Adds `verifier` and `gold_passes`."""
    rows = [{**row, "prompt": asked(row["prompt"])} for row in frame.to_dicts()]
    found: list[Probed] = probing_context(rows)
    told = frame.with_columns(
        verifier=pl.lit(json.dumps(verifier, sort_keys=True, ensure_ascii=False)),
        gold_passes=pl.Series([one.gold for one in found], dtype=pl.Boolean),
    )
    reason = pl.Series("reason", [one.reason for one in found], dtype=pl.String)
    evidence = pl.Series("evidence", [one.evidence[:SHOWN] for one in found], dtype=pl.String)
    gone = pl.DataFrame([frame["id"], reason, evidence]).filter(reason.is_not_null())
    return Split(told.filter(reason.is_null()), ledger(gone))


@op("tasks.unique", version=1, kind="corpus")
def unique(corpus: Corpus, *, golds: Sequence[str]) -> list[pl.DataFrame]:
    """Drop prompts that stood before, whatever the space in them, and all of one that have different `golds`, columns
    that say what is right. Only names of prompts and golds are held."""
    shards = corpus.dataset.shards()
    told = []
    for number, shard in enumerate(shards):
        rows = positioned(shard, ["id", "prompt", *golds])
        prompts = [_prompt(prompt) for prompt in rows["prompt"].to_list()]
        said = rows.select("id", *golds).iter_rows()
        right = [row_id(*(json.dumps(value, default=str) for value in row)) for _, *row in said]
        names = {"prompt": pl.Series(prompts, dtype=pl.Binary), "right": pl.Series(right, dtype=pl.Binary)}
        told.append(rows.select("id", "row").with_columns(**names, shard=pl.lit(number, pl.UInt32)))
    every = pl.concat(told).with_columns(
        first=pl.col("id").first().over("prompt"),
        place=pl.int_range(pl.len()).over("prompt"),
        rights=pl.col("right").n_unique().over("prompt"),
    )
    gone = every.filter((pl.col("rights") > 1) | (pl.col("place") > 0)).select(
        "shard",
        "id",
        "row",
        reason=pl.when(pl.col("rights") > 1).then(pl.lit("conflicting")).otherwise(pl.lit("duplicate")),
        value=pl.when(pl.col("rights") > 1).then(pl.col("rights").cast(pl.Float64)),
        evidence=pl.col("first").bin.encode("hex"),
    )
    return [ledger(gone.filter(pl.col("shard") == number).drop("shard")) for number in range(len(shards))]


def _prompt(messages: Sequence[Mapping[str, str]]) -> bytes:
    return row_id(*(part for turn in messages for part in (turn["role"], " ".join(turn["content"].split()))))
