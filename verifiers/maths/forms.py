r"""What an answer is taken apart into, and how a text is cut where no bracket is open."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from gristmill.verifiers.maths.arithmetic import Decimal, Tree


@dataclass(frozen=True)
class Form:
    r"""One answer or a part of it.

    `text`: its tight text, as algebra gets it. `items`: the members (of an equation or inequality: its sides). `mark`:
    brackets of an interval, the separator of a list, the signs of a relation, the base of a number, the columns of a
    matrix. `label`: what stood before `=` or `\in`. `spare`: the same text as a number (`1,22`, `5m`).
    """

    kind: str
    text: str
    items: tuple[Form, ...] = ()
    number: Decimal | None = None
    tree: Tree | None = None
    unit: str = ""
    mark: str = ""
    label: str = ""
    spare: Form | None = None


_OPEN, _CLOSE = "([{", ")]}"
_TOP = re.compile(r"\\begin\s*\{|\\end\s*\{|\\[A-Za-z]+|\\.|[\[\](){},;:=<>&|]|\b(?:and|or)\b", re.DOTALL)


def split(text: str, wanted: Callable[[str], bool]) -> list[tuple[str, str]]:
    """(part, the sign after it) for the signs wanted outside all brackets; the last part has none."""
    parts, depth, start = [], 0, 0
    for found in _TOP.finditer(text):
        sign = found[0]
        if sign in _OPEN or sign in ("\\{", "\\langle") or sign.startswith("\\begin"):
            depth += 2 if sign.startswith("\\begin") else 1  # its brace, which closes after the name, and itself
        elif sign in _CLOSE or sign in ("\\}", "\\rangle"):
            depth -= 1
        elif sign.startswith("\\end") and sign.endswith("{"):
            depth += 0  # its brace opens, the environment closes
        elif depth == 0 and wanted(sign):
            parts.append((text[start : found.start()], sign))
            start = found.end()
    parts.append((text[start:], ""))
    return parts


def whole(text: str, opens: int, closes: int) -> bool:
    """Whether the brackets at both ends are one pair: what is between them never closes more than it opened."""
    depth = 0
    for found in _TOP.finditer(text, opens, len(text) - closes):
        sign = found[0]
        depth += (sign in _OPEN or sign in ("\\{", "\\langle")) - (sign in _CLOSE or sign in ("\\}", "\\rangle"))
        depth += sign.startswith("\\begin") + (sign.startswith("\\end") and sign.endswith("{"))
        if depth < 0:
            return False
    return depth == 0
