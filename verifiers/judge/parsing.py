"""What a judge's reply says: one of the choices, or nothing.

A reply counts when it is one choice and nothing else (`B`, `[[B]]`), or ends in one choice in double brackets
(`... so the second is better. [[B]]`) and holds no other choice in such brackets. What stands before the end of a
`</think>` is not read. All else is unreadable: guessing what a judge meant would let a quoted candidate speak for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARK = re.compile(r"\[\[ *([^\[\]\n]{1,40}?) *\]\]")


def read(reply: str | None, choices: Sequence[str]) -> str | None:
    """The choice that a reply makes; None where it makes none, or several."""
    if reply is None:
        return None
    if "<think>" in reply or "</think>" in reply:
        _, closed, reply = reply.rpartition("</think>")
        if not closed or "<think>" in reply:
            return None
    said = reply.strip()
    if said in choices:
        return said
    marks = list(_MARK.finditer(said))
    if not marks or marks[-1].end() != len(said) or len({mark[1] for mark in marks}) > 1:
        return None
    return marks[-1][1] if marks[-1][1] in choices else None
