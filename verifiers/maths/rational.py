r"""Exact rational values of the trees of arithmetic.py, within limits in size.

The law: a value is exact, or there is none: irrational, undefined and too large are exceptions, never guesses.
"""

from __future__ import annotations

import math
from fractions import Fraction

from gristmill.verifiers.maths.arithmetic import Tree, Unclear

#: The largest number worked out, in bits, and the largest factorial.
MAX_BITS, MAX_FACTORIAL = 100_000, 5000


class Huge(Exception):
    """Greater in size than any number worked out here, and so equal to none of them."""


class Undefined(Unclear):
    """No number at all: a division by zero."""


def exact(tree: Tree) -> Fraction:
    """The rational value. Raises Unclear where there is none (or none is known here), Huge beyond all limits."""
    kind = tree[0]
    if kind == "num":
        return tree[1]
    if kind in ("const", "var", "call"):
        raise Unclear(kind)
    if kind == "^":
        return _raised(exact(tree[1]), tree[2])
    values = [exact(branch) for branch in tree[1:]]
    left, right = values[0], values[-1]
    if kind in ("+", "-", "*"):
        result = left + right if kind == "+" else left - right if kind == "-" else left * right
    elif kind == "/":
        if not right:
            raise Undefined("division by zero")
        result = left / right
    elif kind in ("neg", "abs"):
        result = -left if kind == "neg" else abs(left)
    elif kind == "!":
        result = _factorial(left)
    elif kind == "choose":
        if left.denominator != 1 or right.denominator != 1 or not 0 <= right <= left <= MAX_FACTORIAL:
            raise Unclear("binomial")
        result = Fraction(math.comb(int(left), int(right)))
    else:
        result = _root(left, right)
    if max(result.numerator.bit_length(), result.denominator.bit_length()) > MAX_BITS:
        raise Unclear("size")
    return result


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or value < 0:
        raise Unclear("factorial")
    if value > MAX_FACTORIAL:
        raise Huge
    return Fraction(math.factorial(int(value)))


def _raised(base: Fraction, exponent: Tree) -> Fraction:
    try:
        power = exact(exponent)
    except Huge:
        if base.denominator == 1 and base >= 2:
            raise
        raise Unclear("size") from None
    if power.denominator != 1:
        if base <= 0:
            raise Unclear("no real root for sure")
        base, power = _root(base, Fraction(power.denominator)), Fraction(power.numerator)
    if not base and power <= 0:
        raise Undefined("zero to no positive power")
    if abs(base) > 1 or 0 < abs(base) < 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(power)
        if bits > MAX_BITS:
            if base.denominator == 1 and power > MAX_BITS:
                raise Huge
            raise Unclear("size")
    return base ** int(power) if abs(base) != 1 else Fraction(base if power % 2 else 1)


def _root(value: Fraction, index: Fraction) -> Fraction:
    if index.denominator != 1 or not 2 <= index <= 64:
        raise Unclear("root")
    degree, sign = int(index), -1 if value < 0 else 1
    if sign < 0 and degree % 2 == 0:
        raise Unclear("imaginary")
    return Fraction(sign * _whole_root(abs(value.numerator), degree), _whole_root(value.denominator, degree))


def _whole_root(value: int, degree: int) -> int:
    if degree == 2:
        root = math.isqrt(value)
    elif value.bit_length() > 1000:
        raise Unclear("size")
    else:
        low, high = 0, 1 << (value.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= value else (low, middle - 1)
        root = low
    if root**degree != value:
        raise Unclear("irrational")
    return root
