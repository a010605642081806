"""Numeric values of trees to any number of digits, by mpmath. Used in the workers only.

The idea: a tree is evaluated as it stands, with one rounding per operation, so no automatic rewriting can blow it up
or change its domain. Beside the value comes what was lost: digits, to sums of very unequal parts and to large arguments
of functions, and the real numbers.
The law: the result has all its digits right but those named as lost, or `Undefined`, `TooLarge` or `NotNumeric` is
raised.
Conventions: a real odd root of a negative number is real (as is its power p/q with q odd); `log` without a base is
decimal; an unknown function f has values that depend on its name and arguments only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import mpmath
from mpmath import mp

from gristmill.verifiers.maths.algebra.bounds import ARGUMENT_BITS, TooLarge
from gristmill.verifiers.maths.algebra.exact import Point, Undefined, based, exact, terms
from gristmill.verifiers.maths.algebra.grammar import Node


class NotNumeric(ArithmeticError):
    """The tree has no number: a set, a relation, an infinity."""


@dataclass
class Losses:
    """What an evaluation gave up, in decimal digits, and whether it stayed `real` on its way (√x·√y does not for
    negative x and y, although its value is real).

    `cancelled` bounds what the value may have lost: to differences of near numbers, to functions near their zeros, to
    large arguments. `hidden` is how far below the value a part of it lies that this precision may not see at all."""

    cancelled: int = 0
    hidden: int = 0
    real: bool = True


def evaluate(node: Node, point: Point, digits: int) -> tuple[Any, Losses]:
    """The value (an mpf or mpc) at `digits` decimal digits, and what it lost."""
    lost = Losses()
    with mp.workdps(digits):
        try:
            value = _value(node, point, lost)
        except ZeroDivisionError:
            raise Undefined("a division by zero") from None
        except (ValueError, TypeError, mpmath.libmp.NoConvergence, OverflowError) as error:
            raise Undefined(str(error)[:80]) from None
        if not mp.isfinite(value):
            raise Undefined("no finite value")
        lost.real = lost.real and is_real(value, digits)
        return value, lost


def is_real(value: Any, digits: int) -> bool:
    """Whether an imaginary part is rounding only."""
    if isinstance(value, mpmath.mpf):
        return True
    return abs(value.imag) <= abs(value) * mpmath.mpf(10) ** (-digits // 2)


def _number(value: Fraction) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator if value.denominator != 1 else mpmath.mpf(value.numerator)


def _size(value: Any) -> int:
    """log10 of the absolute value, as an integer; 0 for 0."""
    big = max(abs(value.real), abs(value.imag))
    return 0 if big == 0 else int((mp.frexp(big)[1]) * 0.30103)


def _argument(value: Any, lost: Losses) -> Any:
    """An argument whose own error becomes an error of the function times its size."""
    size = _size(value)
    if size > ARGUMENT_BITS * 0.30103:
        raise TooLarge("an argument")
    lost.hidden = max(lost.hidden, size)
    lost.cancelled += max(size, 0)
    return value


def _value(node: Node, point: Point, lost: Losses) -> Any:
    kind = node[0]
    if kind == "num":
        return _number(node[1])
    if kind == "sym":
        if node[1] not in point:
            raise NotNumeric(node[1])
        return _number(point[node[1]])
    if kind == "const":
        if node[1] == "inf":
            raise NotNumeric("infinity")
        return {"pi": +mp.pi, "e": +mp.e, "i": mp.j}[node[1]]
    if kind == "neg":
        return -_value(node[1], point, lost)
    if kind == "add":
        return _added([_value(part, point, lost) for part in node[1:]], lost)
    if kind == "mul":
        product = mpmath.mpf(1)
        for part in node[1:]:
            product *= _value(part, point, lost)
        return product
    if kind == "div":
        return _value(node[1], point, lost) / _value(node[2], point, lost)
    if kind == "pow":
        return _kept_real(_power(_value(node[1], point, lost), node[2], point, lost), lost)
    if kind == "fn":
        return _kept_real(_function(node[1], node[2:], point, lost), lost)
    if kind == "app":
        return _unknown(node[1], [_value(part, point, lost) for part in node[2:]])
    if kind == "based":
        return _number(based(node[1], node[2]))
    if kind in ("sum", "prod"):
        return _series(node, point, lost)
    raise NotNumeric(kind)


def _kept_real(value: Any, lost: Losses) -> Any:
    lost.real = lost.real and is_real(value, mp.dps)
    return value


def _added(values: list[Any], lost: Losses) -> Any:
    total = mp.fsum(values)
    sizes = [_size(value) for value in values if value != 0]
    if len(sizes) > 1:
        smallest = min(sizes if total == 0 else [*sizes, _size(total)])
        lost.hidden = max(lost.hidden, max(sizes) - smallest)
        lost.cancelled += mp.dps if total == 0 else max(0, max(sizes) - _size(total))
    return total


def _power(base: Any, exponent: Node, point: Point, lost: Losses) -> Any:
    known = exact(exponent, point)
    if known is not None and known.denominator == 1:
        if known.numerator.bit_length() > ARGUMENT_BITS:
            raise TooLarge("an exponent")
        if base == 0 and known <= 0:
            raise Undefined("zero to the power of zero or less")
        figures = len(str(abs(known.numerator))) - 1
        lost.hidden = max(lost.hidden, figures)
        lost.cancelled += figures
        return base**known.numerator
    value = _argument(_value(exponent, point, lost), lost)
    if base == 0:
        if mp.re(value) > 0:
            return mpmath.mpf(0)
        raise Undefined("zero to the power of zero or less")
    if known is not None and known.denominator % 2 == 1 and is_real(base, mp.dps) and mp.re(base) < 0:
        return mp.power(-mp.re(base), value) * (-1 if known.numerator % 2 else 1)
    return mp.exp(_argument(value * mp.log(base), lost))


def _root(value: Any, degree: Node, point: Point) -> Any:
    n = exact(degree, point)
    if n is None or n == 0:
        raise Undefined("a root whose degree is no number")
    if value == 0:
        return value
    if n == 2:
        return mp.sqrt(value)
    if n.denominator == 1 and n.numerator % 2 == 1 and is_real(value, mp.dps) and mp.re(value) < 0:
        return -mp.power(-mp.re(value), 1 / _number(n))
    return mp.power(value, 1 / _number(n))


def _function(name: str, parts: tuple[Node, ...], point: Point, lost: Losses) -> Any:
    if name == "root":
        return _root(_value(parts[0], point, lost), parts[1], point)
    given = [_value(part, point, lost) for part in parts]
    first = given[0]
    if name in ("floor", "ceil"):
        return _rounded(name, parts[0], first, point)
    if name in ("max", "min", "gcd", "lcm"):
        if name in ("gcd", "lcm") or not all(is_real(value, mp.dps) for value in given):
            raise Undefined(f"{name} of what is no whole number")
        return (max if name == "max" else min)(mp.re(value) for value in given)
    if name == "abs":
        return abs(first)
    if name == "sign":
        return mp.sign(first)
    if name in ("ln", "log"):
        if first == 0:
            raise Undefined("the logarithm of zero")
        base = mp.log(given[1]) if len(given) == 2 else mp.log(10) if name == "log" else 1
        return _near_zero(mp.log(first), lost) / base
    if name in ("factorial", "binom"):
        for value in given:
            _argument(value, lost)
        return mp.factorial(first) if name == "factorial" else mp.binomial(*given)
    return _near_zero(_MPMATH[name](_argument(first, lost)), lost)


def _near_zero(value: Any, lost: Losses) -> Any:
    """A function's value, whose error is relative to 1 and not to a smaller value."""
    lost.cancelled += mp.dps if value == 0 else max(0, -_size(value))
    return value


def _rounded(name: str, part: Node, value: Any, point: Point) -> Any:
    known = exact(part, point)
    if known is not None:
        return _number(exact(("fn", name, part), point) or Fraction(0))
    if not is_real(value, mp.dps) or abs(value - mp.nint(value)) < mpmath.mpf(10) ** (-mp.dps // 2):
        raise Undefined(f"{name} at a jump")
    return mp.floor(value) if name == "floor" else mp.ceil(value)


def _unknown(name: str, values: list[Any]) -> Any:
    """A value for a function that nothing is known of: the same for the same arguments, and for no others."""
    total = mpmath.mpf(zlib.crc32(name.encode())) / 2**32
    for place, value in enumerate(values, start=2):
        total = total * mp.sqrt(place) + mp.atan(value * total + place) + value / (place + total)
    return total


def _series(node: Node, point: Point, lost: Losses) -> Any:
    running = terms(node, point)
    if running is None:
        raise Undefined("a sum whose ends are no whole numbers")
    values = [_value(node[4], {**point, node[1]: Fraction(k)}, lost) for k in running]
    return _added(values, lost) if node[0] == "sum" else mp.fprod(values)


def _cot(value: Any) -> Any:
    return mp.cos(value) / mp.sin(value)


_MPMATH = {
    **{name: getattr(mp, name) for name in ("sin", "cos", "tan", "sec", "csc", "sinh", "cosh", "tanh", "coth")},
    **{"arc" + name: getattr(mp, "a" + name) for name in ("sin", "cos", "tan", "sec", "csc", "sinh", "cosh", "tanh")},
    "cot": _cot,
    "sech": mp.sech,
    "csch": mp.csch,
    "arccot": lambda value: mp.pi / 2 - mp.atan(value),
}
