"""Sets of real numbers as pieces of the line: intervals, points and what unions, intersections and differences make.

The idea: a set with numbers for its ends is a sorted list of disjoint pieces, and two sets are equal when their lists
are. Ends are computed to `DIGITS` digits, and two that agree to half of them are one.
The law: `pieces` and `solved` give the whole set or raise `NotRegion` or Undecided. Not covered: sets of pairs, sets
with letters in their ends (compared part by part in collections.py), conditions on two letters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath

from gristmill.verifiers.maths.algebra.grammar import Node
from gristmill.verifiers.maths.algebra.numeric import evaluate, is_real
from gristmill.verifiers.maths.algebra.values import symbols

DIGITS = 60
_INF = mpmath.inf


class NotRegion(ValueError):
    """Not a set of real numbers that can be written as pieces."""


@dataclass(frozen=True)
class Piece:
    """From `low` to `high`, each with whether it belongs; a point has both and they are the same."""

    low: Any
    low_in: bool
    high: Any
    high_in: bool

    @property
    def empty(self) -> bool:
        return self.low > self.high or (_equal(self.low, self.high) and not (self.low_in and self.high_in))


LINE = (Piece(-_INF, False, _INF, False),)
Pieces = tuple[Piece, ...]


def _equal(a: Any, b: Any) -> bool:
    if a == b or _INF in (abs(a), abs(b)):
        return a == b
    return abs(a - b) <= mpmath.mpf(10) ** (-DIGITS // 2) * max(abs(a), abs(b), 1)


def end(node: Node) -> Any:
    """The number at an end. Raises NotRegion for what is no real number."""
    if node == ("const", "inf"):
        return _INF
    if node == ("neg", ("const", "inf")):
        return -_INF
    if symbols(node):
        raise NotRegion("letters at an end")
    value, _ = evaluate(node, {}, DIGITS)
    if not is_real(value, DIGITS):
        raise NotRegion("an end that is not real")
    return mpmath.re(value)


def pieces(node: Node) -> Pieces:
    """The set that a tree names. Raises NotRegion."""
    kind = node[0]
    if kind == "group" and len(node) == 4:
        low, high = end(node[2]), end(node[3])
        if low > high:
            raise NotRegion("an interval from high to low")
        piece = Piece(low, node[1][0] == "[" and low != -_INF, high, node[1][1] == "]" and high != _INF)
        return () if piece.empty else (piece,)
    if kind == "set":
        return joined(tuple(Piece(value, True, value, True) for value in map(end, node[1:])))
    if kind == "known" and node[1] in ("R", "empty"):
        return LINE if node[1] == "R" else ()
    if kind == "cup":
        return joined(pieces(node[1]) + pieces(node[2]))
    if kind == "cap":
        return intersection(pieces(node[1]), pieces(node[2]))
    if kind == "minus":
        return intersection(pieces(node[1]), complement(pieces(node[2])))
    raise NotRegion(kind)


def joined(parts: Pieces) -> Pieces:
    """The union, sorted and with what touches made one."""
    done: list[Piece] = []
    for part in sorted(parts, key=lambda part: (part.low, not part.low_in)):
        last = done[-1] if done else None
        if last is None or not _touch(last, part):
            done.append(part)
        elif _equal(part.high, last.high):
            done[-1] = Piece(last.low, last.low_in, last.high, last.high_in or part.high_in)
        elif part.high > last.high:
            done[-1] = Piece(last.low, last.low_in, part.high, part.high_in)
    return tuple(done)


def _touch(left: Piece, right: Piece) -> bool:
    if _equal(left.high, right.low):
        return left.high_in or right.low_in
    return left.high > right.low


def complement(parts: Pieces) -> Pieces:
    """What is left of the line."""
    done, low, low_in = [], -_INF, False
    for part in joined(parts):
        done.append(Piece(low, low_in, part.low, not part.low_in and part.low != -_INF))
        low, low_in = part.high, not part.high_in and part.high != _INF
    done.append(Piece(low, low_in, _INF, False))
    return tuple(part for part in done if not part.empty and part.low != _INF and part.high != -_INF)


def intersection(a: Pieces, b: Pieces) -> Pieces:
    """What belongs to both."""
    return complement(joined(complement(a) + complement(b)))


def same_pieces(a: Pieces, b: Pieces) -> bool:
    """Whether two sets are one."""
    return len(a) == len(b) and all(
        _equal(left.low, right.low)
        and _equal(left.high, right.high)
        and left.low_in == right.low_in
        and left.high_in == right.high_in
        for left, right in zip(a, b, strict=True)
    )


def solved(relation: Node, hard: Callable[[str, Node, Node, str], Pieces]) -> Pieces:
    """The solutions of a chain of relations in one letter; `hard` solves what is not a letter against a number."""
    names = sorted(symbols(relation_body(relation)))
    if len(names) != 1:
        raise NotRegion("not one letter")
    found: Pieces = LINE
    _, operators, terms = relation
    for operator, left, right in zip(operators, terms, terms[1:], strict=False):
        found = intersection(found, _link(operator, left, right, names[0], hard))
    return found


def _link(operator: str, left: Node, right: Node, name: str, hard: Callable[[str, Node, Node, str], Pieces]) -> Pieces:
    easy = _side(operator, left, right)
    return hard(operator, left, right, name) if easy is None else easy


def relation_body(relation: Node) -> Node:
    """All terms of a relation in one tree."""
    return ("add", *relation[2])


def _side(operator: str, left: Node, right: Node) -> Pieces | None:
    """A letter against a number."""
    if right[0] == "sym" and not symbols(left):
        left, right, operator = right, left, flipped(operator)
    if left[0] != "sym" or symbols(right):
        return None
    value = end(right)
    if operator == "=":
        return (Piece(value, True, value, True),)
    if operator == "!=":
        return complement((Piece(value, True, value, True),))
    closed = operator.endswith("=") and abs(value) != _INF
    return (Piece(value, closed, _INF, False) if operator[0] == ">" else Piece(-_INF, False, value, closed),)


def flipped(operator: str) -> str:
    """The relation read from right to left."""
    return {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator)
