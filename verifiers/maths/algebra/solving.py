"""Inequalities and equations in one letter, solved over the real numbers by sympy. Used in the workers only.

The idea: the tree is built into a sympy expression node by node (no text is ever given to sympy), sympy solves, and
its set comes back as pieces of the line. The law: a solution set comes back whole, or Undecided is raised.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import sympy

from gristmill.verifiers.maths.algebra.bounds import TooLarge, bits
from gristmill.verifiers.maths.algebra.exact import exact
from gristmill.verifiers.maths.algebra.grammar import Node
from gristmill.verifiers.maths.algebra.regions import DIGITS, LINE, Piece, Pieces, complement, joined
from gristmill.verifiers.maths.algebra.values import Undecided

#: Largest whole exponent, and bits of a number, given to sympy, which expands both.
EXPONENT, BITS = 60, 2_000
_FUNCTIONS = {
    **{name: getattr(sympy, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    **{"arc" + name: getattr(sympy, "a" + name) for name in ("sin", "cos", "tan")},
    "abs": sympy.Abs,
    "ln": sympy.log,
    "max": sympy.Max,
    "min": sympy.Min,
    "floor": sympy.floor,
    "ceil": sympy.ceiling,
    "sign": sympy.sign,
}
_RELATIONS = {"<": sympy.StrictLessThan, "<=": sympy.LessThan, ">": sympy.StrictGreaterThan, ">=": sympy.GreaterThan}


def solve(operator: str, left: Node, right: Node, name: str) -> Pieces:
    """The real values of a letter for which a relation holds."""
    x = sympy.Symbol(name, real=True)
    a, b = build(left, x), build(right, x)
    try:
        if operator in ("=", "!="):
            found = from_sympy(sympy.solveset(a - b, x, sympy.S.Reals))
            return found if operator == "=" else complement(found)
        if operator not in _RELATIONS:
            raise Undecided(operator)
        relation = _RELATIONS[operator](a, b)
        if relation in (sympy.true, sympy.false):
            return LINE if relation == sympy.true else ()
        return from_sympy(sympy.solve_univariate_inequality(relation, x, relational=False))
    except (NotImplementedError, TypeError, ValueError, AttributeError) as error:
        raise Undecided(f"sympy: {error}"[:120]) from None


def build(node: Node, x: Any) -> Any:
    """The sympy expression of a tree in one letter. Raises Undecided for what has none, TooLarge past the limits."""
    kind = node[0]
    if kind == "num":
        if bits(node[1]) > BITS:
            raise TooLarge("a number")
        return sympy.Rational(node[1].numerator, node[1].denominator)
    if kind == "sym":
        return x
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "inf": sympy.oo}[node[1]]
    if kind == "fn" and node[1] == "root":
        degree = exact(node[3], {})
        if degree is None or not 1 <= degree <= EXPONENT or degree.denominator != 1:
            raise Undecided("a root of unknown degree")
        inner = build(node[2], x)
        return sympy.real_root(inner, int(degree)) if degree % 2 else sympy.root(inner, int(degree))
    parts = [build(part, x) for part in node[(2 if kind == "fn" else 1) :] if isinstance(part, tuple)]
    if kind == "add":
        return sympy.Add(*parts)
    if kind == "mul":
        return sympy.Mul(*parts)
    if kind == "neg":
        return -parts[0]
    if kind == "div":
        return parts[0] / parts[1]
    if kind == "pow":
        return _power(node, parts)
    if kind == "fn" and node[1] == "log":
        return sympy.log(parts[0]) / sympy.log(parts[1] if len(parts) == 2 else 10)
    if kind == "fn" and node[1] in _FUNCTIONS:
        return _FUNCTIONS[node[1]](*parts)
    raise Undecided(f"{kind} in an inequality")


def _power(node: Node, parts: list[Any]) -> Any:
    exponent = exact(node[2], {})
    if exponent is not None and max(abs(exponent.numerator), exponent.denominator) > EXPONENT:
        raise TooLarge("an exponent")
    if exponent is None and parts[1].is_number and abs(sympy.N(parts[1], 5)) > EXPONENT:
        raise TooLarge("an exponent")
    return sympy.Pow(*parts)


def from_sympy(found: Any) -> Pieces:
    """A sympy set as pieces."""
    if found is sympy.S.EmptySet:
        return ()
    if found is sympy.S.Reals:
        return LINE
    if isinstance(found, sympy.Interval):
        low, high = _end(found.start), _end(found.end)
        return (Piece(low, not found.left_open, high, not found.right_open),)
    if isinstance(found, sympy.FiniteSet):
        return joined(tuple(Piece(value, True, value, True) for value in map(_end, found.args)))
    if isinstance(found, sympy.Union):
        return joined(tuple(piece for part in found.args for piece in from_sympy(part)))
    raise Undecided(f"a set of kind {type(found).__name__}")


def _end(value: Any) -> Any:
    if value is sympy.oo or value is -sympy.oo:
        return mpmath.inf if value is sympy.oo else -mpmath.inf
    number = sympy.N(value, DIGITS)
    if not number.is_real:
        raise Undecided("an end that is not real")
    with mpmath.workdps(DIGITS):
        if number.is_Rational:
            fraction = Fraction(int(number.p), int(number.q))
            return mpmath.mpf(fraction.numerator) / fraction.denominator
        return mpmath.mpf(number._mpf_)
