"""Personal data out of conversations: each value in a message replaced by the name of its type, as in `pii.redact`.

The law: the ledger has one row per value with its place and never the value; cutting those places out of the messages
as they came in gives the messages that go on. A tool call is JSON that a program runs: rows with a finding in one go as
a whole, since a call with `<email>` for an address would teach calls that fail. Texts made before ("sft.texts") do not
know of the change: redact first.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.pii.find import TYPES, find, replaced
from gristmill.dataops.sft.turns import turns

_WRITTEN = ("content", "reasoning_content")


@op("sft.redact", version=1)
def redact(frame: pl.DataFrame, *, types: tuple[str, ...] = TYPES, national_ids: tuple[str, ...] = ()) -> Split:
    """Redact `content` and `reasoning_content` of all messages; `types` and `national_ids` as in `pii.redact`.

    A row per value: unit "chars", `lost` its characters, `reason` its type, evidence {"message" (from 1), "field",
    "start", "end"} in characters of the text as it came in. A conversation with a value in a tool call is dropped:
    `in_tool_call`, the evidence names message and type. Raises InputError for unknown types.
    """
    said = turns(frame)
    wanted = (*types, *national_ids)
    called = find(said["tool_calls"], wanted)
    places = said.select("row", "at")[called["row"]].with_columns(type=called["type"])
    first = places.unique("row", keep="first", maintain_order=True)
    gone = ledger(
        frame.select("id")[first["row"]].hstack(first.drop("row")),
        reason="in_tool_call",
        evidence=pl.struct(message=pl.col("at") + 1, type="type").struct.json_encode(),
    )
    going = set(first["row"])
    changed: dict[tuple[int, int], dict[str, str]] = {}
    drops = [gone]
    for field in _WRITTEN:
        found = find(said[field], wanted)
        at = said.select("row", "at")[found["row"]].rename({"row": "chat"})
        here = found.hstack(at).filter(~pl.col("chat").is_in(sorted(going)))
        for (place,), values in here.group_by("row", maintain_order=True):
            row, number = said["row"][place], said["at"][place]
            spans = list(values.select("start", "end", "type").iter_rows())
            changed.setdefault((row, number), {})[field] = replaced(said[field][place], spans)
        drops.append(
            ledger(
                frame.select("id")[here["chat"]].hstack(here.drop("row")),
                reason=pl.col("type"),
                evidence=pl.struct(
                    message=pl.col("at") + 1, field=pl.lit(field), start="start", end="end"
                ).struct.json_encode(),
                lost=pl.col("end").cast(pl.Int64) - pl.col("start").cast(pl.Int64),
                unit="chars",
            )
        )
    kept = frame.with_columns(_rewritten(frame["messages"], changed)) if changed else frame
    if going:
        kept = kept.filter(~pl.int_range(pl.len()).is_in(sorted(going)))
    return Split(kept, pl.concat(drops))


def _rewritten(messages: pl.Series, changed: dict[tuple[int, int], dict[str, str]]) -> pl.Series:
    """The column with these fields of these messages changed; only the rows concerned are taken apart."""
    rows = sorted({row for row, _ in changed})
    made = []
    for row, chat in zip(rows, messages.gather(rows).to_list(), strict=True):
        made.append([{**message, **changed.get((row, at), {})} for at, message in enumerate(chat)])
    indexed = pl.DataFrame(
        {"row": rows, "made": pl.Series(made, dtype=messages.dtype)}, schema_overrides={"row": pl.UInt32}
    )
    joined = (
        messages.to_frame("messages").with_row_index("row").join(indexed, on="row", how="left", maintain_order="left")
    )
    return joined.select(pl.coalesce("made", "messages").alias("messages")).to_series()
