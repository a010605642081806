"""Preference pairs as the report and the noise op read them: texts, keys that tell equal ones, and amounts of format.

A dataset holds pairs where its rows have `prompt`, `chosen` and `rejected` as lists of messages (`chat.shapes`). The
text of a side is what its messages say, one behind the other, with what they think and the tools they call. The law:
two sides are the same where role and text of every message are; spaces at the ends of a message do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.noise.features import amounts

SIDES = ("prompt", "chosen", "rejected")
ADDED = ("chance", "place", "suspect", "cluster", "agree")  #: columns that the report joins
_SPOKEN = ("reasoning_content", "content", "tool_calls")
_BETWEEN, _WITHIN = "\n\n", "\x1f"


def is_pairs(dataset: Dataset) -> bool:
    """Whether a dataset's rows are preference pairs of messages."""
    if dataset.kind not in ("rows", "view") or not dataset.base.manifest.get("shards"):
        return False
    schema = dataset.schema()
    return {"id", *SIDES} <= set(schema.names) and all(_is_messages(schema.field(name).type) for name in SIDES)


def check_pairs(dataset: Dataset) -> None:
    """Raises InputError for a dataset of other rows, or of none."""
    if not is_pairs(dataset):
        raise InputError(
            f"{dataset.name} at {dataset.path} holds no preference pairs: its rows need prompt, chosen and rejected as "
            "lists of messages; read a file of them in the shape 'pairs'"
        )
    if not dataset.rows:
        raise InputError(f"{dataset.name} at {dataset.path} has no rows: nothing can be said of its pairs")


def _is_messages(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return pa.types.is_struct(inner) and {"role", "content"} <= {inner.field(i).name for i in range(inner.num_fields)}


def spoken(schema: pa.Schema, side: str) -> pl.Expr:
    """What the messages of a side say."""
    return pl.col(side).list.eval(_said(schema, side)).list.join(_BETWEEN).fill_null("")


def last_asked(schema: pa.Schema) -> pl.Expr:
    """What the last message of the prompt says: the topic of a pair is taken from it."""
    return pl.col("prompt").list.tail(1).list.eval(_said(schema, "prompt")).list.join("").fill_null("")


def _said(schema: pa.Schema, side: str) -> pl.Expr:
    kind = schema.field(side).type.value_type
    names = {kind.field(i).name for i in range(kind.num_fields)}
    fields = [pl.element().struct.field(name).cast(pl.String) for name in _SPOKEN if name in names]
    return pl.concat_str(fields, separator="\n", ignore_nulls=True).str.strip_chars()


def _key(schema: pa.Schema, side: str) -> pl.Expr:
    return pl.col(side).list.eval(keyed(schema, side)).list.join(_WITHIN * 2).fill_null("").hash(0)


def keyed(schema: pa.Schema, side: str) -> pl.Expr:
    """A message as a text that is the same for equal ones, for use inside `list.eval`."""
    role = pl.element().struct.field("role").cast(pl.String).fill_null("")
    return pl.concat_str([role, _said(schema, side)], separator=_WITHIN)


def measured(dataset: Dataset) -> pl.DataFrame:
    """Per pair, by id and without a text: `p`, `c`, `r` (UInt64, equal for equal sides), and for both replies the
    amounts of `features.DENSE` as `c_chars`, `r_chars`, ...; with the columns of `dataset` that hold texts or numbers,
    but for those of such names."""
    schema = dataset.schema()
    made = [_key(schema, side).alias(side[0]) for side in SIDES]
    made += [number for side in SIDES[1:] for number in amounts(spoken(schema, side), f"{side[0]}_")]
    taken = {*ADDED, *(expression.meta.output_name() for expression in made)}
    plain = [field.name for field in schema if not pa.types.is_nested(field.type) and field.name not in taken]
    return dataset.scan().select(*plain, *made).collect().sort("id")


def texts(dataset: Dataset, most: int) -> pl.DataFrame:
    """`id`, `group` (Int64, numbers prompts from 0), `asked`, `chosen` and `rejected`, by id, of all pairs or of the
    `most` with the smallest ids: a fair choice because ids are hashes, and the same one every time."""
    schema, rows = dataset.schema(), dataset.scan()
    if dataset.rows > most:
        limit = rows.select("id").collect()["id"].sort()[most - 1]
        rows = rows.filter(pl.col("id") <= limit)
    found = rows.select(
        "id", _key(schema, "prompt").alias("p"), last_asked(schema).alias("asked"),
        spoken(schema, "chosen").alias("chosen"), spoken(schema, "rejected").alias("rejected"),
    ).collect().sort("id")  # fmt: skip
    return found.with_columns(group=pl.col("p").rank("dense").cast(pl.Int64) - 1).drop("p")


def fetch(dataset: Dataset, ids: list[bytes]) -> Mapping[bytes, Mapping[str, Any]]:
    """The texts of a few pairs by id: `prompt` (with the roles), `chosen` and `rejected`."""
    schema = dataset.schema()
    role = pl.element().struct.field("role").cast(pl.String).fill_null("?")
    told = pl.concat_str([role, _said(schema, "prompt")], separator=": ")
    found = (
        dataset.scan()
        .filter(pl.col("id").is_in(pl.Series("id", ids, pl.Binary).implode()))
        .select(
            "id",
            pl.col("prompt").list.tail(4).list.eval(told).list.join(_BETWEEN).alias("prompt"),
            spoken(schema, "chosen").alias("chosen"),
            spoken(schema, "rejected").alias("rejected"),
        )  # fmt: skip
        .collect()
    )
    return {row["id"]: row for row in found.to_dicts()}


def wilson(values: np.ndarray, groups: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high) of values from 0 to 1 with Wilson's 95 % interval (1927), widened where values of one group
    agree: n is divided by the design effect, the variance of sums over groups against that of single values."""
    n = len(values)
    if not n:
        return float("nan"), 0.0, 1.0
    mean = float(values.mean())
    place = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(place, weights=values - mean)
    alone = n * mean * (1 - mean)
    effect = max(1.0, float(np.square(sums).sum()) / alone) if alone > 0 else 1.0
    z2, size = 1.959964**2, n / effect
    middle = (mean + z2 / (2 * size)) / (1 + z2 / size)
    half = 1.959964 / (1 + z2 / size) * np.sqrt(mean * (1 - mean) / size + z2 / (4 * size**2))
    return mean, max(0.0, middle - float(half)), min(1.0, middle + float(half))
