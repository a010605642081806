"""Whether a value or an output is what was expected, by exact types.

Values: `bool` equals `bool` alone, an int is due where an int is expected, and where a float is expected an int of the
same value will do; strings, bytes and None are exact; containers compare member by member and by type, except that
dict's standard subclasses count as dicts and, where `tuples` says so, a tuple as a list. NaN equals NaN.
Outputs: line by line, all lines, exact and case-sensitive; only blanks, tabs and carriage returns at the ends of lines
and empty lines at the end of the text do not count. `tolerance` is relative and absolute, 0 by default: numbers equal.
"""

from __future__ import annotations

import math
import re
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def equal(got: Any, want: Any, tolerance: float = 0.0, tuples: bool = False) -> bool:
    """Whether a value is the expected one; the rules stand in the module."""
    kind = type(want)
    if kind is float:
        return type(got) in (float, int) and _near(got, want, tolerance)
    if kind is list or kind is tuple:
        fits = type(got) is kind or (tuples and type(got) is tuple)
        return (
            fits
            and len(got) == len(want)
            and all(equal(*pair, tolerance, tuples) for pair in zip(got, want, strict=True))
        )
    if isinstance(want, dict):
        if not isinstance(got, dict) or len(got) != len(want):
            return False
        theirs = {_key(key): value for key, value in got.items()}
        return all(_key(key) in theirs and equal(theirs[_key(key)], want[key], tolerance, tuples) for key in want)
    if kind is set or kind is frozenset:
        return type(got) is kind and set(map(_key, got)) == set(map(_key, want))
    return type(got) is kind and bool(got == want)


def _key(key: Any) -> Any:
    """A member of a set with its types, so that 1, 1.0 and True are three."""
    return (tuple, *map(_key, key)) if type(key) is tuple else (type(key), key)


def _near(got: float, want: float, tolerance: float) -> bool:
    if isinstance(want, float) and math.isnan(want):
        return isinstance(got, float) and math.isnan(got)
    try:
        return got == want or (tolerance > 0 and math.isclose(got, want, rel_tol=tolerance, abs_tol=tolerance))
    except OverflowError:
        return False


def same_output(got: str, want: str, tolerance: float = 0.0) -> bool:
    """Whether an output is the expected one; the rules stand in the module."""
    mine, theirs = lines(want), lines(got)
    return len(mine) == len(theirs) and all(
        line == other or (tolerance > 0 and _near_line(other, line, tolerance))
        for line, other in zip(mine, theirs, strict=True)
    )


def lines(text: str) -> list[str]:
    """The lines that count."""
    found = [line.rstrip(" \t\r") for line in text.split("\n")]
    while found and not found[-1]:
        found.pop()
    return found


def _near_line(got: str, want: str, tolerance: float) -> bool:
    mine, theirs = want.split(), got.split()
    return len(mine) == len(theirs) and all(
        word == other or (_number(word) and _number(other) and _near(float(other), float(word), tolerance))
        for word, other in zip(mine, theirs, strict=True)
    )


def _number(word: str) -> bool:
    return len(word) <= 400 and _NUMBER.fullmatch(word) is not None
