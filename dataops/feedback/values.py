"""What a rater can say, by the kind of a queue; kinds and numbers are those of dataops/preferences/judgements.py.

    pairwise   [2, 0] the first of two is better, by 2; [0, 1] the second; [0, 0] a tie
    ranking    the rank of each response, 1 the best, equal ranks where they tie
    thumbs     [1] or [0]
    rating     by aspect, a number for each response: {"honest": [4, 2], "kind": [5, null]}; "overall" is of the whole
    edit       the response as it should have been, a text

and for all of them null: the rater could not judge, which never counts as a verdict. The law kept here: a value is
said of what was shown and kept of the item, so the order on screen never changes whom it favours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from gristmill.dataops.dataset import InputError

#: The kinds, and how many responses an item of each has (least, most).
KINDS: dict[str, tuple[int, int]] = {
    "pairwise": (2, 2), "ranking": (2, 64), "thumbs": (1, 1), "rating": (1, 64), "edit": (1, 1),
}  # fmt: skip
#: By what candidates are ranked, see candidates.py.
STRATEGIES = ("uncertainty", "disagreement", "coverage", "random")
WHOLE = "overall"
LONGEST = 1_000_000  # characters of an edit, a prompt or a response
_ASPECTS = 64


def of_item(kind: str, value: Any, order: Sequence[int]) -> Any:
    """A value said of responses in the order in which they were shown, as one of the item's own order.

    `order[p]` is the response that stood at position p. None stays None. Raises InputError for what is no value of
    this kind.
    """
    if value is None:
        return None
    if kind == "edit":
        if not isinstance(value, str) or not value.strip() or len(value) > LONGEST:
            raise InputError(f"an edit is a text of 1 to {LONGEST:,} characters, not {_told(value)}")
        return sound(value, "an edit")
    if kind == "rating":
        if not isinstance(value, dict) or not 0 < len(value) <= _ASPECTS or not all(map(_aspect, value)):
            raise InputError(f'a rating is numbers by aspect, such as {{"helpful": [4]}}, not {_told(value)}')
        return {aspect: _placed(_numbers(kind, value[aspect], order), order) for aspect in sorted(value)}
    return _placed(_numbers(kind, value, order), order)


def _numbers(kind: str, value: Any, order: Sequence[int]) -> list[float | None]:
    given = value if isinstance(value, list) else []
    if len(given) != len(order) or not all(number(one) or (one is None and kind == "rating") for one in given):
        raise InputError(f"a {kind} has {len(order)} numbers, one for each response, not {_told(value)}")
    if kind == "pairwise" and min(given) != 0:
        raise InputError(f"of a pair one response has 0, the other how much better it is; not {_told(value)}")
    if kind == "thumbs" and given[0] not in (0, 1):
        raise InputError(f"a thumb is [1] or [0], not {_told(value)}")
    if kind == "ranking" and not all(rank == int(rank) and 1 <= rank <= len(order) for rank in given):
        raise InputError(f"ranks go from 1 to {len(order)}, not {_told(value)}")
    if all(one is None for one in given):
        raise InputError("an aspect without a number for any response: leave it out")
    return [None if one is None else float(one) for one in given]


def _placed(numbers: Sequence[float | None], order: Sequence[int]) -> list[float | None]:
    placed: list[float | None] = [None] * len(order)
    for position, one in zip(order, numbers, strict=True):
        placed[position] = one
    return placed


def sound(text: str, what: str) -> str:
    """The text, if a database and a dataset can keep it. Raises InputError for half a surrogate pair, or a NUL."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: half a character (a lone surrogate) at position {error.start}") from None
    if "\0" in text:
        raise InputError(f"{what}: a NUL character at position {text.index(chr(0))}")
    return text


def same_order(responses: int) -> list[int]:
    """The order of an item's own."""
    return list(range(responses))


def number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold: 10**400 is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _aspect(name: Any) -> bool:
    return isinstance(name, str) and bool(name.strip()) and bool(sound(name, "an aspect"))


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({len(text):,} characters)"
