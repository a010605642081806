"""Conversations that nothing can be learned from: no messages, empty turns, wrong roles, wrong order, no answer.

The law: what passes here passes `chat.messages.check`, which guards the templates; what that refuses goes here with
the same reason. Beyond it, turns alternate (templates raise at two of one role in a row, or join them without a word),
and a conversation ends with the assistant: what comes after is cut off and in the ledger, for nobody learns from it.

Not covered: whether a tool's result answers the call before it.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.chat.messages import ROLES
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.sft.turns import turns

_FIRST = ["system", "developer"]
#: Who may speak after whom.
_AFTER = {"user": ["assistant"], "assistant": ["user", "tool"], "tool": ["assistant", "tool"]}
#: As `str.strip` has it: the four separators of ASCII are white space too.
_SAYS = r"[^\s\x1c-\x1f]"


@op("sft.order", version=1)
def order(frame: pl.DataFrame) -> Split:
    """Drop conversations that are `empty`, have `bad_roles` (see chat/messages.py), are in `bad_order` (two of one role
    in a row, a tool that nobody called) or hold `no_answer`; the evidence names the message, counted from 1.

    Messages after the assistant's last are cut off: ledger rows `unanswered`, unit "messages".
    """
    said = turns(frame).with_columns(name=pl.col("role").fill_null(""))
    opening = pl.col("name").is_in(_FIRST)
    before = pl.col("name").shift(1).over("row")
    begun = (~opening).cum_sum().over("row") - (~opening) > 0
    silent = ~pl.col("content").str.contains(_SAYS).fill_null(False) & pl.col("tool_calls").is_null()
    follows = pl.any_horizontal(
        (pl.col("name") == role) & ~before.is_in(others) for role, others in _AFTER.items()
    ) & before.is_in(list(_AFTER))
    faults: list[tuple[str, pl.Expr, pl.Expr]] = [
        ("empty", pl.col("role").is_null() & pl.col("content").is_null(), pl.lit(" is null")),
        ("bad_roles", ~pl.col("name").is_in(list(ROLES)), _of(" is of {}")),
        ("bad_roles", opening & begun, _of(" is of {}, behind others")),
        ("bad_roles", ~opening & ~begun & (pl.col("name") != "user"), _of(", the first to speak, is of {}")),
        ("empty", ~opening & (pl.col("name") != "tool") & silent, _of(", of {}, has no text")),
        ("bad_order", follows, pl.format(", of '{}', follows '{}'", "name", before)),
    ]
    reason, evidence = pl.lit(None, pl.String), pl.lit(None, pl.String)
    for name, fails, told in reversed(faults):
        fails = fails.fill_null(False)
        reason = pl.when(fails).then(pl.lit(name)).otherwise(reason)
        evidence = pl.when(fails).then(pl.format("message {}{}", pl.col("at") + 1, told)).otherwise(evidence)
    judged = said.with_columns(reason=reason, evidence=evidence)
    # What `check` says of a whole conversation comes before what is only said here.
    ranked = judged.with_columns(later=pl.col("reason") == "bad_order").filter(pl.col("reason").is_not_null())
    first = ranked.sort("row", "later", "at").unique("row", keep="first", maintain_order=True)
    last = said.group_by("row", maintain_order=True).agg(
        count=pl.len(), keep=pl.col("at").filter(pl.col("role") == "assistant").max() + 1
    )
    rows = frame.select("id", row=pl.int_range(pl.len(), dtype=pl.UInt32))
    rows = rows.join(first.select("row", "reason", "evidence"), on="row", how="left", maintain_order="left")
    rows = rows.join(last, on="row", how="left", maintain_order="left")
    nothing = pl.when(pl.col("count").is_null()).then(pl.lit("empty"))
    unanswered = pl.when(pl.col("keep").is_null()).then(pl.lit("no_answer"))
    rows = rows.with_columns(
        reason=pl.coalesce(nothing, "reason", unanswered),
        evidence=pl.when(pl.col("count").is_null()).then(pl.lit("no messages")).otherwise("evidence"),
        lost=(pl.col("count") - pl.col("keep")).cast(pl.Int64),
    )
    gone = rows.filter(pl.col("reason").is_not_null()).drop("lost")
    stay = rows.filter(pl.col("reason").is_null())
    trailing = stay.filter(pl.col("lost") > 0).with_columns(reason=pl.lit("unanswered"), evidence=pl.lit(None))
    kept = frame[stay["row"]].with_columns(pl.col("messages").list.head(pl.lit(stay["keep"].cast(pl.Int64))))
    return Split(kept, pl.concat([ledger(gone), ledger(trailing, unit="messages")]))


def _of(told: str) -> pl.Expr:
    return pl.format(told, pl.format("'{}'", "name"))
