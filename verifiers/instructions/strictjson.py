"""JSON as the standard has it (RFC 8259), of any size from anyone: a value, or the name of what is wrong.

Python's `json` also reads NaN and Infinity, turns 1e999 into infinity, keeps the last of two equal keys, and ends in a
RecursionError on nested brackets. The law: the answer depends on the text alone, comes in linear time, and nothing is
raised. Not covered: JSON with comments or trailing commas, which is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 64
#: Longer ones do not fit a float, which schemas compare with.
MAX_DIGITS = 300

_FENCE = re.compile(r"```(?:json|Json|JSON)?")


@dataclass(frozen=True)
class Read:
    """`value`, or a `problem` (a short name), with the attack that it looks like, and `where` it stands."""

    value: Any = None
    problem: str | None = None
    attack: str | None = None
    where: str | None = None


class _Refused(ValueError):
    def __init__(self, problem: str, attack: str, where: str) -> None:
        super().__init__(problem)
        self.read = Read(None, problem, attack, where[:80])


def unfenced(text: str) -> str:
    """The text without white space and a Markdown fence around it, as IFEval takes it off."""
    said = text.strip()
    fence = _FENCE.match(said)
    return said[fence.end() :].removesuffix("```").strip() if fence is not None else said


def read(text: str) -> Read:
    """Read one JSON text. Problems: not_json, not_finite, duplicate_key, number_too_long, too_deep."""
    try:
        value = _DECODER.decode(text)
    except _Refused as refused:
        return refused.read
    except RecursionError:
        return Read(None, "too_deep", "depth_bomb")
    except ValueError as error:
        return Read(None, "not_json", None, str(error)[:80])
    if text.count("[") + text.count("{") > MAX_DEPTH and _deep(value):
        return Read(None, "too_deep", "depth_bomb")
    return Read(value)


def _deep(value: Any) -> bool:
    """Whether containers stand in each other more than `MAX_DEPTH` deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        inner = [item for item in level if isinstance(item, dict | list)]
        if not inner:
            return False
        level = [item for box in inner for item in (box.values() if isinstance(box, dict) else box)]
    return True


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise _Refused("duplicate_key", "duplicate_key", twice)
    return found


def _constant(name: str) -> Any:
    raise _Refused("not_finite", "not_finite", name)


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused("number_too_long", "huge_number", digits)
    return int(digits)


def _real(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Refused("not_finite", "huge_number", digits)
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_real)
