"""From tokens to a tree: what a mathematical text says, before anything is computed. (Commands: phrases.py.)

A node is a tuple with its kind first; numbers are exact fractions. Values: `("num", Fraction)`, `("sym", name)`,
`("const", "pi" | "e" | "i" | "inf")`, `("add" | "mul", *nodes)`, `("neg", node)`, `("div", a, b)`, `("pow", a, b)`,
`("fn", name, *arguments)`, `("app", name, *arguments)`, `("based", digits, base)`, `("pm", "+" | "-", node)`,
`("sum" | "prod", letter, from, to, term)`. Statements: `("rel", operators, nodes)`, `("mod", node, modulus)`.
Collections: `("list", word, *items)` with the word that joins them, `("group", brackets, *items)` (tuples, intervals),
`("set", *items)`, `("cup" | "cap" | "minus", a, b)`, `("known", "empty" | "R" | ...)`, `("where", element, condition)`,
`("matrix", *rows)`, `("ratio", *items)`, `("dots",)`.

The law: reading never computes, takes time linear in the text and nests at most `DEEPEST` brackets; a text that says
nothing definite (two numbers side by side, a word) is refused. Conventions: `1/2x` is (1/2)x; `\\sin 2x` takes the
factors up to the next sign or function; `3\\frac{1}{8}` is a mixed number; `f(x)` applies f, g, h, F and G, and
`a(x)` multiplies; i and e are the constants; in `a = b \\approx c` what follows the sign is a remark.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from gristmill.verifiers.maths.algebra.latex import Token, Unreadable

Node = tuple[Any, ...]

#: Brackets, fractions and powers inside one another. Answers of the MATH test set have at most 3; more are attacks.
DEEPEST = 50
#: What reads a factor, by the kind of its first token. Filled by phrases.py.
READERS: dict[str, Callable[[Cursor], Node]] = {}


class Cursor:
    """A place in the tokens; the only state of a parse."""

    def __init__(self, items: list[Token]) -> None:
        self.items, self.at, self.depth, self.bars, self.colons = items, 0, 0, 0, True

    @property
    def kind(self) -> str:
        return self.items[self.at][0] if self.at < len(self.items) else "end of text"

    @property
    def value(self) -> str:
        return self.items[self.at][1] if self.at < len(self.items) else ""

    def take(self, kind: str, value: str | None = None) -> bool:
        """Step over a token of this kind, if it is the next one."""
        if self.kind == kind and (value is None or self.value == value):
            self.at += 1
            return True
        return False

    def must(self, kind: str, value: str | None = None) -> str:
        found = self.value
        if not self.take(kind, value):
            raise Unreadable(f"{self.kind} {self.value!r} where {value or kind} was due")
        return found

    def sees(self, ahead: int, kind: str, value: str | None = None) -> bool:
        """Whether the token `ahead` places on is of this kind."""
        at = self.at + ahead
        return at < len(self.items) and self.items[at][0] == kind and value in (None, self.items[at][1])

    def digit(self) -> None:
        """Split `12` into `1` and `2` where a command takes one token: `\\frac12`."""
        if self.kind == "num" and len(self.value) > 1 and self.value.isdigit():
            self.items[self.at : self.at + 1] = [("num", self.value[0]), ("num", self.value[1:])]


def list_(c: Cursor) -> Node:
    items, word = [statement(c)], ","
    while c.kind == "sep":
        while c.kind == "sep":
            word = c.value if c.value != "," else word
            c.at += 1
        items.append(statement(c))
    return items[0] if len(items) == 1 else ("list", word, *items)


def statement(c: Cursor) -> Node:
    terms, operators = [_ratio(c)], []
    while c.kind == "rel" and c.value != ":":
        operators.append(c.must("rel"))
        terms.append(_ratio(c))
    if "~" in operators:
        cut = operators.index("~")
        named = cut == 0 and is_name(terms[0])
        operators = ["=", *operators[1:]] if named else operators[:cut]
        terms = terms if named else terms[: cut + 1]
        if "~" in operators:
            raise Unreadable("a chain of approximations")
    node = ("rel", tuple(operators), tuple(terms)) if operators else terms[0]
    bracketed = c.kind == "open" and c.sees(1, "mod")
    if bracketed:
        c.at += 1
    if c.take("mod"):
        node = ("mod", node, argument(c) if c.kind == "open" else sum_(c))
        if bracketed:
            c.must("close")
    return node


def parts(node: Node) -> list[Node]:
    """The nodes inside a node, those of rows and relations too."""
    if node[0] == "rel":
        return list(node[2])
    if node[0] == "matrix":
        return [entry for row in node[1:] for entry in row]
    return [part for part in node[1:] if isinstance(part, tuple)]


def is_name(node: Node) -> bool:
    """A letter, a function or a ratio of letters, or letters that name a segment: what may stand before `=`."""
    if node[0] == "ratio":
        return all(part[0] == "sym" for part in node[1:])
    if node[0] == "mul":
        return all(part[0] == "sym" and part[1].isupper() for part in node[1:])
    return node[0] == "sym" or (node[0] == "app" and all(part[0] == "sym" for part in node[2:]))


def _ratio(c: Cursor) -> Node:
    items = [_sets(c)]
    while c.colons and (c.take("op", ":") or c.take("rel", ":")):
        items.append(_sets(c))
    return items[0] if len(items) == 1 else ("ratio", *items)


def _sets(c: Cursor) -> Node:
    node = sum_(c)
    while c.kind == "op" and c.value in ("cup", "cap", "minus"):
        kind = c.must("op")
        node = (kind, node, sum_(c))
    return node


def sum_(c: Cursor) -> Node:
    terms = [signed(c, term)]
    while c.kind == "pm" or (c.kind == "op" and c.value in "+-"):
        terms.append(signed(c, term))
    return terms[0] if len(terms) == 1 else ("add", *terms)


def signed(c: Cursor, read: Any) -> Node:
    """Signs, then what `read` reads. Many signs in a row are no nesting."""
    negative, doubtful = False, ""
    while True:
        if c.kind == "pm" and not doubtful:
            doubtful = c.must("pm")
        elif c.take("op", "-"):
            negative = not negative
        elif not c.take("op", "+"):
            break
    node = read(c)
    if doubtful:
        node = ("pm", doubtful, node)
    return ("neg", node) if negative else node


def term(c: Cursor) -> Node:
    node, last = _factor(c)
    while True:
        if c.take("op", "*"):
            right, last = signed(c, factor_node), "signed"
            node = _times(node, right)
        elif c.take("op", "/"):
            node, last = ("div", node, signed(c, factor_node)), "signed"
        elif _begins_factor(c):
            raw = c.kind == "num"
            if raw and last in ("num", "letter"):
                raise Unreadable("two numbers side by side" if last == "num" else "a number after a letter")
            whole = node if last == "num" and node[0] == "num" and node[1].denominator == 1 else None
            mixed = whole is not None and c.kind == "frac"
            right, last = _factor(c)
            if mixed and _is_proper(right):
                node = ("add", node, right)
                last = "mixed"
            else:
                node = _times(node, right)
        else:
            return node


def _times(a: Node, b: Node) -> Node:
    return (*a, b) if a[0] == "mul" else ("mul", a, b)


def _is_proper(node: Node) -> bool:
    """A fraction of two whole numbers below 1: what follows the whole part of a mixed number."""
    if node[0] != "div" or node[1][0] != "num" or node[2][0] != "num":
        return False
    return 0 < node[1][1] < node[2][1] and node[1][1].denominator == node[2][1].denominator == 1


def _begins_factor(c: Cursor) -> bool:
    if c.kind == "bar":
        return c.bars == 0
    if c.kind == "open":
        return not c.sees(1, "mod")
    return c.kind in ("num", "base", "repeating", "sym", "const", "fn", "frac", "sqrt", "binom", "big", "begin", "over")


def factor_node(c: Cursor) -> Node:
    return _factor(c)[0]


def _factor(c: Cursor) -> tuple[Node, str]:
    """A factor with its powers and factorials, and what it was: `num`, `letter` or something else."""
    start, kind = c.at, c.kind
    node = primary(c)
    what = "num" if kind == "num" and c.at == start + 1 else "letter" if c.at == start + 1 and _is_letter(c) else ""
    while True:
        if c.kind == "op" and c.value == "^":
            c.at += 1
            if c.take("degree") or _braced_degree(c):
                node = ("mul", node, ("div", ("const", "pi"), ("num", Fraction(180))))
            elif c.take("prime"):
                raise Unreadable("a prime after an expression")
            else:
                node = ("pow", node, _exponent(c))
        elif c.take("op", "!"):
            if c.kind == "op" and c.value == "!":
                raise Unreadable("a double factorial")
            node = ("fn", "factorial", node)
        elif c.take("degree"):
            node = ("mul", node, ("div", ("const", "pi"), ("num", Fraction(180))))
        else:
            return node, what
        what = ""


def _is_letter(c: Cursor) -> bool:
    """Whether the last token was a single letter."""
    kind, value = c.items[c.at - 1]
    return kind in ("sym", "const") and value not in ("pi", "inf")


def _braced_degree(c: Cursor) -> bool:
    if c.kind == "open" and c.sees(1, "degree") and c.sees(2, "close"):
        c.at += 3
        return True
    return False


def _exponent(c: Cursor) -> Node:
    """`{...}`, or one signed thing, with what is raised again (`2^3^2` is 2^9)."""
    _deeper(c)
    node = argument(c) if c.kind == "open" and c.value == "{" else signed(c, primary)
    if c.take("op", "^"):
        node = ("pow", node, _exponent(c))
    c.depth -= 1
    return node


def argument(c: Cursor, *, whole: bool = False) -> Node:
    """What a command takes: `{...}`, or the next token alone: one digit, or the `whole` number."""
    if c.kind == "open" and c.value == "{":
        c.at += 1
        bars, c.bars = c.bars, 0
        node = list_(c)
        c.bars = bars
        c.must("close", "}")
        return node
    if not whole:
        c.digit()
    if c.kind in ("fn", "end of text"):
        raise Unreadable("an argument is missing")
    return primary(c)


def primary(c: Cursor) -> Node:
    if c.kind not in READERS:
        raise Unreadable(f"{c.kind} {c.value!r} in the wrong place")
    _deeper(c)
    node = READERS[c.kind](c)
    c.depth -= 1
    return node


def _deeper(c: Cursor) -> None:
    c.depth += 1
    if c.depth > DEEPEST:
        raise Unreadable("nested too deeply")
