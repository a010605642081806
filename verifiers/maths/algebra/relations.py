"""Whether two single equations or inequalities are the same up to a constant factor. Used in the workers only.

The idea: with everything on one side, two equations are the same when the quotient of their sides is one number, not
zero, at all random points; inequalities when it is a positive one. 3x-y+13=0 and 3x+4y+14=0 differ: the quotient
varies. The law: as in values.py, a difference is a proof and agreement is taken as one. Not covered: equations that
are the same only after multiplying by something with letters (y = 1/x and xy = 1), or after squaring.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath

from gristmill.verifiers.maths.algebra.exact import Point, Undefined, exact
from gristmill.verifiers.maths.algebra.grammar import Node, is_name
from gristmill.verifiers.maths.algebra.numeric import NotNumeric, evaluate, is_real
from gristmill.verifiers.maths.algebra.regions import flipped
from gristmill.verifiers.maths.algebra.values import FIRST, POINTS, points, same, symbols

Pair = tuple[str, Node, Node]


def pairs(relation: Node) -> list[Pair]:
    """The links of a chain; `a > b` as `b < a`."""
    _, operators, terms = relation
    links = zip(operators, terms, terms[1:], strict=False)
    return [(flipped(o), b, a) if o[0] == ">" else (o, a, b) for o, a, b in links]


def is_solved(relation: Node) -> bool:
    """One name on one side, a number on the other: `x = 3`."""
    _, operators, terms = relation
    if operators != ("=",):
        return False
    left, right = terms
    return (is_name(left) and not symbols(right)) or (is_name(right) and not symbols(left))


def pair_equal(a: Pair, b: Pair) -> bool:
    """Whether two links say the same."""
    if a[0] != b[0]:
        return False
    symmetric = a[0] in ("=", "!=")
    if not symbols(("add", *a[1:])) or not symbols(("add", *b[1:])):
        straight = same(a[1], b[1]) and same(a[2], b[2])
        return straight or (symmetric and same(a[1], b[2]) and same(a[2], b[1]))
    if a[0] == "equiv":
        return same(a[1], b[1]) and same(a[2], b[2])
    left, right = (("add", pair[1], ("neg", pair[2])) for pair in (a, b))
    names = sorted(symbols(left) | symbols(right))
    ratio: Any = None
    seen = 0
    for point in points(names, (a, b)):
        try:
            values = _both(left, right, point)
        except (Undefined, NotNumeric):
            continue
        if values is None:
            continue
        one, two = values
        if one == 0 or two == 0:
            if one == two:
                continue
            return False
        found = two / one
        if ratio is None:
            ratio = found
            if not symmetric and ratio < 0:
                return False
        elif abs(found - ratio) > abs(ratio) * _tolerance(found):
            return False
        seen += 1
        if seen == POINTS:
            return True
    return False


def _tolerance(value: Any) -> Any:
    return 0 if isinstance(value, Fraction) else mpmath.mpf(10) ** (-FIRST // 2)


def _both(left: Node, right: Node, point: Point) -> tuple[Any, Any] | None:
    """Both values, both exact or both rounded; None where one is not real."""
    one, two = exact(left, point), exact(right, point)
    if one is not None and two is not None:
        return one, two
    found = [evaluate(node, point, FIRST)[0] for node in (left, right)]
    if not all(is_real(value, FIRST) for value in found):
        return None
    return mpmath.re(found[0]), mpmath.re(found[1])
