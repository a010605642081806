"""Whether two expressions have the same value wherever both have a real one. Used in the workers only.

The policy. The same tree, but for the order of sums and products, is equal. Else both are evaluated at random points,
exactly where that is rational, else to 60 digits and, where they may have lost digits, to as many more. A difference
that stays when precision is raised makes them different: this is a proof, up to mpmath being right. Agreement at
`POINTS` points makes them equal: two different polynomials of degree d agree at a point drawn from N with probability
at most d/N (Schwartz 1980, Zippel 1979; N is 2^30 here), and no rewriting decides equality of elementary expressions
in general (Richardson 1968), so a proof by simplifying would add time and never change a verdict.
Domain: points have letters of both signs and several sizes. Points where a side has no real
value, or only by way of complex numbers, are left out: √(1/n) is 1/√n and √x·√y is √(xy), but √x² is not x.
Where nothing is real, complex values count; where nothing has a value at such points, whole numbers are tried (sums,
(-1)^n).
Not covered: expressions equal at random points but not on a set of measure zero.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction

import mpmath

from gristmill.verifiers.maths.algebra.bounds import DIGITS, TooLarge
from gristmill.verifiers.maths.algebra.exact import Point, Undefined, exact
from gristmill.verifiers.maths.algebra.grammar import Node, parts
from gristmill.verifiers.maths.algebra.numeric import evaluate

#: Points at which two expressions must agree, and at least so many where a domain is small.
POINTS, FEWEST = 8, 3
#: Digits of the first evaluation, and how many of them rounding may take: two values agree to 50 digits.
FIRST, GUARD = 60, 10
_TRIES = 60
_INFINITIES = (("const", "inf"), ("neg", ("const", "inf")))


class Undecided(Exception):
    """Neither equal nor different could be said."""


def symbols(node: Node) -> frozenset[str]:
    """The letters of a tree that stand for numbers."""
    if node[0] == "sym":
        return frozenset((node[1],))
    if node[0] in ("sum", "prod"):
        return frozenset().union(*(symbols(part) for part in node[2:4])) | symbols(node[4]) - {node[1]}
    return frozenset().union(*map(symbols, parts(node)))


def contains(node: Node, wanted: Node) -> bool:
    """Whether a tree has another in it."""
    return node == wanted or any(contains(part, wanted) for part in parts(node))


def canonical(node: Node) -> Node:
    """The tree with nested sums and products made flat and their parts in one order."""
    if node[0] in ("rel", "matrix") or not parts(node):
        return node
    inner = [canonical(part) if isinstance(part, tuple) else part for part in node[1:]]
    if node[0] in ("add", "mul"):
        flat = [deep for part in inner for deep in (part[1:] if part[0] == node[0] else (part,))]
        return (node[0], *sorted(flat, key=repr))
    return (node[0], *inner)


def points(names: list[str], about: object = "") -> Iterator[Point]:
    """Random points, the same for what they are about: by turns all positive and with one letter below zero, of
    several sizes, so that max(x, 5) is not 5 and |x| not x. They depend on both trees, so no answer can be made to fit
    points known beforehand."""
    draw = random.Random(repr(about))
    for attempt in range(_TRIES):
        scale = (1, 1, 8, 2, 1000, 1, Fraction(1, 8), 64)[attempt % 8]
        below = draw.randrange(len(names)) if names and attempt % 2 else None
        point = {}
        for i, name in enumerate(names):
            sign = -1 if i == below else draw.choice((1, -1)) if below is not None else 1
            point[name] = Fraction(draw.getrandbits(30) + 1, 1 << 29) * scale * sign
        yield point


def whole_points(names: list[str], about: object = "") -> Iterator[Point]:
    """Small whole numbers, from few to many."""
    draw = random.Random(repr(about))
    for attempt in range(_TRIES // 3):
        yield {name: Fraction(draw.randint(1, 4 + attempt)) for name in names}


def same(a: Node, b: Node) -> bool:
    """Whether two expressions are equal. Raises Undecided, TooLarge, Undefined (a constant without a value) or
    NotNumeric."""
    a, b = canonical(a), canonical(b)
    if a == b:
        return True
    if a in _INFINITIES or b in _INFINITIES:
        return False
    names = sorted(symbols(a) | symbols(b))
    if not names:
        return agree(a, b, {}) is not False
    seen = _agreements(a, b, points(names, (a, b)))
    if seen is None:
        seen = _agreements(a, b, whole_points(names, (a, b)))
    if seen is None:
        raise Undecided("no point where both have a value")
    return seen


def _agreements(a: Node, b: Node, where: Iterator[Point]) -> bool | None:
    """True for enough agreements, False at the first difference, None where there were too few points."""
    real = other = 0
    different = False
    refused: TooLarge | None = None
    for point in where:
        try:
            found = agree(a, b, point)
        except (Undefined, Undecided):
            continue
        except TooLarge as error:
            refused = error
            continue
        if found is None:  # not real on one side
            if _complex(a, point) and _complex(b, point):
                other += 1
                different = different or not agree(a, b, point, complex_too=True)
        elif not found:
            return False
        else:
            real += 1
            if real == POINTS:
                return True
    if real >= FEWEST:
        return True
    if real == 0 and other >= FEWEST:
        return not different
    if refused is not None:
        raise refused
    return None


def _complex(node: Node, point: Point) -> bool:
    return not evaluate(node, point, FIRST)[1].real


def agree(a: Node, b: Node, point: Point, *, complex_too: bool = False) -> bool | None:
    """Whether two expressions have the same value at a point; None where one is not real there.

    Without letters, or where i is written, complex values count as they are."""
    left, right = exact(a, point), exact(b, point)
    if left is not None and right is not None:
        return left == right
    digits = FIRST
    value, lost = evaluate(a, point, digits)
    against, lost_too = evaluate(b, point, digits)
    if not (lost.real and lost_too.real) and point and not complex_too and not (contains(a, _I) or contains(b, _I)):
        return None
    gap, size = abs(value - against), max(abs(value), abs(against))
    hidden = max(lost.hidden, lost_too.hidden)
    if hidden < GUARD and gap <= size * mpmath.mpf(10) ** (GUARD - FIRST):
        return True
    if gap > size * mpmath.mpf(10) ** (GUARD + lost.cancelled + lost_too.cancelled - FIRST):
        return False
    return _settled(a, b, point, hidden)


_I = ("const", "i")


def _settled(a: Node, b: Node, point: Point, hidden: int) -> bool:
    """Two evaluations, the second with more digits: a difference that stays is one, one that shrinks is none."""
    gaps = []
    for digits in (FIRST + 2 * hidden, 2 * FIRST + 3 * hidden):
        if digits > DIGITS:
            raise Undecided(f"needs more than {DIGITS} digits")
        gaps.append((abs(evaluate(a, point, digits)[0] - evaluate(b, point, digits)[0]), digits))
    (first, _), (second, _) = gaps
    if second == 0 or second <= first * mpmath.mpf(10) ** (-FIRST // 2):
        return True
    if abs(first - second) <= second / 1000:
        return False
    raise Undecided("the difference is neither steady nor shrinking")
