r"""Floating point on the trees of arithmetic.py: what can show that two expressions differ, never that they are equal.

The law: numbers only count as different when they differ by far more than their rounding errors can add up to; the
largest size met on the way (`peak`) is the measure. Variables stand for positive whole numbers, so that identities that
hold for these alone (`\\cos n\\pi = (-1)^n`, `\\sqrt{x^2} = x`) are not denied.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Mapping

from gristmill.verifiers.maths.arithmetic import Tree, Unclear, variables

_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "\\sin": cmath.sin, "\\cos": cmath.cos, "\\tan": cmath.tan, "\\ln": cmath.log, "\\exp": cmath.exp,
    "\\sinh": cmath.sinh, "\\cosh": cmath.cosh, "\\tanh": cmath.tanh,
    "\\sec": lambda z: 1 / cmath.cos(z), "\\csc": lambda z: 1 / cmath.sin(z), "\\cot": lambda z: 1 / cmath.tan(z),
}  # fmt: skip
_CONSTANTS = {"\\pi": math.pi, "e": math.e, "i": 1j}
_MAX_CHOSEN = 1000
_POINTS = ((2, 3, 5, 7, 11, 13), (3, 7, 2, 11, 5, 17))


def differ(one: Tree, other: Tree) -> bool:
    """Whether the two surely have different values somewhere. False says nothing."""
    names = sorted(variables(one) | variables(other))
    if len(names) > len(_POINTS[0]):
        return False
    for point in _POINTS:
        at, peak = dict(zip(names, point, strict=False)), [1e-300]
        try:
            left, right = floating(one, at, peak), floating(other, at, peak)
        except Unclear:
            continue
        if abs(left - right) > 1e-7 * peak[0]:
            return True
    return False


def floating(tree: Tree, at: Mapping[str, float], peak: list[float]) -> complex:
    """The value in floating point; `peak[0]` becomes the largest size met on the way. Raises Unclear."""
    try:
        value = _floating(tree, at, peak)
    except (ArithmeticError, ValueError, KeyError):
        raise Unclear("floating") from None
    if not cmath.isfinite(value):
        raise Unclear("infinite")
    return value


def _floating(tree: Tree, at: Mapping[str, float], peak: list[float]) -> complex:
    kind = tree[0]
    if kind == "num":
        value = complex(float(tree[1]))
    elif kind == "const":
        value = complex(_CONSTANTS[tree[1]])
    elif kind == "var":
        value = complex(at[tree[1]])
    elif kind == "call":
        value = _FUNCTIONS[tree[1]](_floating(tree[2], at, peak))
    else:
        values = [_floating(branch, at, peak) for branch in tree[1:]]
        left, right = values[0], values[-1]
        if kind in ("+", "-"):
            value = left + right if kind == "+" else left - right
        elif kind in ("*", "/"):
            value = left * right if kind == "*" else left / right
        elif kind in ("neg", "abs"):
            value = -left if kind == "neg" else complex(abs(left))
        elif kind == "^":
            value = left**right
        elif kind == "root" and left.imag == 0 and left.real < 0 and right.real % 2 == 1:
            value = -complex((-left.real) ** (1 / right.real))
        elif kind == "root":
            value = left ** (1 / right)
        elif kind == "!" and left.imag == 0 and left.real == int(left.real) and 0 <= left.real <= 170:
            value = complex(math.factorial(int(left.real)))
        elif kind == "choose" and all(item.imag == 0 and item.real == int(item.real) <= _MAX_CHOSEN for item in values):
            value = complex(math.comb(int(left.real), int(right.real)))
        else:
            raise Unclear(kind)
    peak[0] = max(peak[0], abs(value))
    return value
