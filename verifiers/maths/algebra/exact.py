"""Exact values of trees: fractions where everything stays rational and small, else None.

The idea: most answers are rational numbers or polynomials; with fractions they are compared without any rounding.
The law: a value that comes out is the value. None says "not rational, or past the bounds", never "undefined":
a division by zero raises `Undefined`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from gristmill.verifiers.maths.algebra.bounds import EXACT_BITS, FACTORIAL, TERMS, TooLarge, bits, exact_power
from gristmill.verifiers.maths.algebra.grammar import Node, parts

Point = Mapping[str, Fraction]


class Undefined(ArithmeticError):
    """There is no value: a division by zero, the logarithm of zero."""


def exact(node: Node, point: Point) -> Fraction | None:
    """The rational value of a tree where its letters have these values. Raises Undefined."""
    kind = node[0]
    if kind == "num":
        return node[1]
    if kind == "sym":
        return point.get(node[1])
    if kind == "neg":
        inner = exact(node[1], point)
        return None if inner is None else -inner
    if kind in ("add", "mul"):
        return _folded(kind, node[1:], point)
    if kind in ("div", "pow"):
        left, right = exact(node[1], point), exact(node[2], point)
        if left is None or right is None:
            return None
        return _quotient(left, right) if kind == "div" else _power(left, right)
    if kind == "fn":
        given = [exact(part, point) for part in node[2:]]
        return None if None in given else _function(node[1], given)
    if kind == "based":
        return based(node[1], node[2])
    if kind in ("sum", "prod"):
        return _series(node, point)
    return None


def based(digits: str, base: int) -> Fraction:
    """The value of digits in a base."""
    whole, _, part = digits.partition(".")
    return Fraction(int(whole + part, base), base ** len(part))


def _folded(kind: str, parts: tuple[Node, ...], point: Point) -> Fraction | None:
    total = Fraction(0 if kind == "add" else 1)
    for part in parts:
        value = exact(part, point)
        if value is None:
            return None
        total = total + value if kind == "add" else total * value
        if bits(total) > EXACT_BITS:
            return None
    return total


def _quotient(left: Fraction, right: Fraction) -> Fraction:
    if right == 0:
        raise Undefined("a division by zero")
    return left / right


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0 and exponent <= 0:
        raise Undefined("zero to the power of zero or less")
    if exponent.denominator == 1:
        return exact_power(base, exponent.numerator)
    root = _root(base, exponent.denominator)
    return None if root is None else exact_power(root, exponent.numerator)


def _root(value: Fraction, degree: int) -> Fraction | None:
    """A rational root, if there is one; of negative numbers the real one, for odd degrees."""
    if degree < 1 or degree > 64 or (value < 0 and degree % 2 == 0):
        return None
    above, below = _whole_root(abs(value.numerator), degree), _whole_root(value.denominator, degree)
    if above is None or below is None:
        return None
    return Fraction(-above if value < 0 else above, below)


def _whole_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
        return root if root * root == value else None
    low, high = 0, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
    return low if low**degree == value else None


def _function(name: str, given: list[Any]) -> Fraction | None:
    first = given[0]
    whole = all(value.denominator == 1 for value in given)
    if name == "abs":
        return abs(first)
    if name in ("floor", "ceil"):
        return Fraction(math.floor(first) if name == "floor" else math.ceil(first))
    if name in ("max", "min"):
        return max(given) if name == "max" else min(given)
    if name == "sign":
        return Fraction((first > 0) - (first < 0))
    if name == "root" and given[1].denominator == 1:
        return _root(first, given[1].numerator)
    if name in ("gcd", "lcm") and whole:
        numbers = [value.numerator for value in given]
        return Fraction(math.gcd(*numbers) if name == "gcd" else math.lcm(*numbers))
    if name == "factorial" and whole:
        if first < 0:
            raise Undefined("the factorial of a negative number")
        return Fraction(math.factorial(first.numerator)) if first <= FACTORIAL else None
    small = name == "binom" and whole and min(given) >= 0 and given[1] * bits(first) <= EXACT_BITS
    return Fraction(math.comb(first.numerator, given[1].numerator)) if small else None


def terms(node: Node, point: Point) -> range | None:
    """The values of the running letter of a sum or product; None where its ends are no whole numbers."""
    low, high = exact(node[2], point), exact(node[3], point)
    if low is None or high is None or low.denominator != 1 or high.denominator != 1:
        return None
    if (high - low) ** _series_depth(node) > TERMS:
        raise TooLarge(f"{high - low} terms")
    return range(low.numerator, high.numerator + 1)


def _series_depth(node: Node) -> int:
    """How many sums and products are inside one another."""
    return (node[0] in ("sum", "prod")) + max(map(_series_depth, parts(node)), default=0)


def _series(node: Node, point: Point) -> Fraction | None:
    running = terms(node, point)
    if running is None:
        return None
    total = Fraction(0 if node[0] == "sum" else 1)
    for k in running:
        value = exact(node[4], {**point, node[1]: Fraction(k)})
        if value is None:
            return None
        total = total + value if node[0] == "sum" else total * value
        if bits(total) > EXACT_BITS:
            return None
    return total
