"""The commands of the grammar: brackets, functions, roots, sums, matrices and names; and `parse`, the way in.

The idea: each kind of token that can begin a factor has one reader here; grammar.py puts the factors together and
states the tree, its law and its conventions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

from gristmill.verifiers.maths.algebra.grammar import (
    READERS,
    Cursor,
    Node,
    argument,
    factor_node,
    list_,
    primary,
    statement,
    sum_,
    term,
)
from gristmill.verifiers.maths.algebra.latex import Unreadable, base_parts, tokens

_APPLIED = frozenset("fghFG")
_INVERTED = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
#: Fewest and most arguments, where that is not one.
_ARGUMENTS = {**dict.fromkeys(("max", "min", "gcd", "lcm"), (1, 99)), "binom": (2, 2), "log": (1, 2)}
_CLOSING = {"(": (")", "]"), "[": ("]", ")"), "{": ("}", "{}")}


def parse(text: str) -> Node:
    """The tree of a text. Raises Unreadable."""
    return _short(text) if len(text) <= _KEPT else _parsed(text)


def _parsed(text: str) -> Node:
    cursor = Cursor(tokens(text.strip().rstrip(".,;")))
    if not cursor.items:
        raise Unreadable("nothing there")
    node = list_(cursor)
    if cursor.at < len(cursor.items):
        raise Unreadable(f"{cursor.kind} {cursor.value!r} in the wrong place")
    return node


#: One gold is compared with many answers, so trees of short texts (in characters) are kept.
_KEPT = 300
_short = lru_cache(maxsize=2048)(_parsed)


def _reads(kind: str) -> Callable[[Callable[[Cursor], Node]], Callable[[Cursor], Node]]:
    def register(function: Callable[[Cursor], Node]) -> Callable[[Cursor], Node]:
        READERS[kind] = function
        return function

    return register


@_reads("num")
def _number(c: Cursor) -> Node:
    value = c.must("num")
    return ("num", Fraction(value + "0" if value.endswith(".") else value))


@_reads("base")
def _based(c: Cursor) -> Node:
    digits, base = base_parts(c.must("base"))
    return ("based", digits.lstrip("0") or "0", base)


@_reads("repeating")
def _repeating(c: Cursor) -> Node:
    whole, shown, again = re.fullmatch(r"(\d*)\.(\d*)\\\w+\s*\{(\d+)\}", c.must("repeating")).groups()  # type: ignore[union-attr]
    tail = Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(shown))
    return ("num", Fraction(int((whole + shown) or 0), 10 ** len(shown)) + tail)


@_reads("const")
def _constant(c: Cursor) -> Node:
    return ("const", c.must("const"))


@_reads("set")
def _known_set(c: Cursor) -> Node:
    return ("known", c.must("set"))


@_reads("dots")
def _dots(c: Cursor) -> Node:
    c.must("dots")
    return ("dots",)


@_reads("sym")
def _symbol(c: Cursor) -> Node:
    name = c.must("sym") + _subscript(c)
    while c.take("prime"):
        name += "'"
    if name[0] not in _APPLIED or len(name.rstrip("'")) > 1:
        return ("sym", name)
    if c.kind == "open" and c.value == "(":
        return ("app", name, *_arguments(c))
    if c.kind == "op" and c.value == "^":  # f^{-1}(x) and f^2(x), but not f^2 alone
        start = c.at
        c.at += 1
        power = argument(c)
        if c.kind == "open" and c.value == "(":
            label = "-1" if power == ("neg", ("num", Fraction(1))) else ""
            applied = ("app", name + label, *_arguments(c))
            return applied if label else ("pow", applied, power)
        c.at = start
    return ("sym", name)


def _subscript(c: Cursor) -> str:
    """`_1`, `_{n+1}`: part of a name, as written."""
    if not c.take("op", "_"):
        return ""
    if c.kind == "open":
        c.at += 1
        parts = []
        while c.kind in ("num", "sym", "const", "op", "sep"):
            parts.append(c.value)
            c.at += 1
        c.must("close")
        return "_" + "".join(parts)
    if c.kind not in ("num", "sym", "const"):
        raise Unreadable("a subscript")
    c.at += 1
    return "_" + c.items[c.at - 1][1]


@_reads("over")
def _decorated(c: Cursor) -> Node:
    """A segment or a vector: a name of its own."""
    c.must("over")
    inner = argument(c)
    parts = inner[1:] if inner[0] == "mul" else (inner,)
    if not all(part[0] in ("sym", "const") for part in parts):
        raise Unreadable("a bar over an expression")
    return ("sym", "over " + "".join(str(part[1]) for part in parts))


@_reads("frac")
def _fraction(c: Cursor) -> Node:
    c.must("frac")
    above = argument(c)
    return ("div", above, argument(c))


@_reads("binom")
def _binomial(c: Cursor) -> Node:
    c.must("binom")
    above = argument(c)
    return ("fn", "binom", above, argument(c))


@_reads("sqrt")
def _root(c: Cursor) -> Node:
    c.must("sqrt")
    degree: Node = ("num", Fraction(2))
    if c.kind == "open" and c.value == "[":
        c.at += 1
        degree = sum_(c)
        c.must("close", "]")
    inner = argument(c, whole=True)
    return ("fn", "root", inner, degree)


@_reads("big")
def _summed(c: Cursor) -> Node:
    """A sum or product with a running letter, over the next term."""
    kind = c.must("big")
    lower = upper = None
    for _ in range(2):
        if c.take("op", "_"):
            c.must("open", "{")
            lower = statement(c)
            c.must("close", "}")
        elif c.take("op", "^"):
            upper = argument(c, whole=True)
    if lower is None or upper is None or lower[0] != "rel" or lower[1] != ("=",) or lower[2][0][0] != "sym":
        raise Unreadable(f"a {kind} without its bounds")
    return (kind, lower[2][0][1], lower[2][1], upper, term(c))


@_reads("fn")
def _function(c: Cursor) -> Node:
    name = c.must("fn")
    power: Node | None = None
    base: Node | None = None
    while c.kind == "op" and c.value in "^_":
        if c.must("op") == "^":
            power = argument(c, whole=True)
        else:
            base = argument(c, whole=True)
    if base is not None and name != "log":
        raise Unreadable(f"a subscript of {name}")
    if power == ("neg", ("num", Fraction(1))) and name in _INVERTED:
        name, power = "arc" + name, None
    given = _arguments(c) if c.kind == "open" else (_implied(c),)
    node = _named(name, given if base is None else (*given, base))
    return node if power is None else ("pow", node, power)


def _named(name: str, given: tuple[Node, ...]) -> Node:
    fewest, most = _ARGUMENTS.get(name, (1, 1))
    if not fewest <= len(given) <= most:
        raise Unreadable(f"{name} of {len(given)} arguments")
    if name in ("sqrt", "cbrt"):
        return ("fn", "root", *given, ("num", Fraction(2 if name == "sqrt" else 3)))
    if name == "ln" or (name == "log" and len(given) == 2 and given[1] == ("const", "e")):
        return ("fn", "ln", given[0])
    if name == "exp":
        return ("pow", ("const", "e"), *given)
    return ("fn", name, *given)


def _arguments(c: Cursor) -> tuple[Node, ...]:
    """What stands in the brackets after a name."""
    node = primary(c)
    return node[2:] if node[0] == "group" and node[1] == "()" else (node,)


def _implied(c: Cursor) -> Node:
    """The argument of a name without brackets: the factors up to the next sign, bracket or function."""
    if c.kind == "fn":
        return primary(c)
    factors: list[Node] = []
    while c.kind in ("num", "sym", "const", "frac", "sqrt", "over", "binom") or (not factors and c.kind == "bar"):
        factors.append(factor_node(c))
    if not factors:
        raise Unreadable("a function without an argument")
    return factors[0] if len(factors) == 1 else ("mul", *factors)


@_reads("open")
def _bracketed(c: Cursor) -> Node:
    opening = c.must("open")
    if opening in ("|", "floor", "ceil"):
        inner = _inside(c, 0, True)
        c.must("close", opening)
        return ("fn", "abs" if opening == "|" else opening, inner)
    if opening == "{}":
        return _braces(c)
    inner = _inside(c, 0, True)
    closing = c.value
    if c.kind != "close" or closing not in _CLOSING[opening]:
        raise Unreadable(f"{opening} without its end")
    c.at += 1
    if inner[0] != "list":
        if opening + closing in ("(]", "[)"):
            raise Unreadable("half a bracket")
        return ("group", "[]", inner) if opening == "[" and inner[0] == "group" else inner
    if opening == "{":
        return ("set", *inner[2:])
    return ("group", opening + closing, *inner[2:])


def _braces(c: Cursor) -> Node:
    """A set by its elements, or by a condition."""
    if c.take("close", "{}"):
        return ("known", "empty")
    inner = _inside(c, 1, False)
    if c.take("bar") or c.take("op", ":") or c.take("rel", ":"):
        node = ("where", inner, _inside(c, 0, False))
    else:
        node = ("set", *(inner[2:] if inner[0] == "list" else (inner,)))
    if not (c.take("close", "{}") or c.take("close", "}")):
        raise Unreadable("{ without its end")
    return node


def _inside(c: Cursor, bars: int, colons: bool) -> Node:
    """A list inside brackets, where bars and colons mean what they do there."""
    kept = c.bars, c.colons
    c.bars, c.colons = bars, colons
    node = list_(c)
    c.bars, c.colons = kept
    return node


@_reads("bar")
def _absolute(c: Cursor) -> Node:
    c.must("bar")
    inner = _inside(c, 1, True)
    c.must("bar")
    return ("fn", "abs", inner)


@_reads("begin")
def _matrix(c: Cursor) -> Node:
    name = c.must("begin")
    if name in ("vmatrix", "Vmatrix"):
        raise Unreadable("a determinant")
    rows: list[list[Node]] = [[]]
    kept = c.bars, c.colons
    c.bars, c.colons = 0, True
    while c.kind != "end":
        rows[-1].append(sum_(c))
        if c.take("row"):
            if c.kind != "end":
                rows.append([])
        elif not c.take("op", "&") and c.kind != "end":
            raise Unreadable(f"{c.kind} {c.value!r} in a matrix")
    c.must("end")
    c.bars, c.colons = kept
    if not rows[0] or len({len(row) for row in rows}) > 1:
        raise Unreadable("a matrix with rows of several lengths")
    return ("matrix", *(tuple(row) for row in rows))
