r"""What an answer says as arithmetic: a small grammar from a tight text to a tree, for the rungs before algebra.

Numbers, decimals, fractions, mixed numbers, powers, roots, factorials, variables, the common functions. A tree is a
tuple: a kind and its branches. The full grammar, with everything that only algebra can judge, is grammar.py.

The law: what can be read in two ways (`1/2x`, `f(x)`, `\sin 2x y`) is not read at all, so that nothing rests on a
guess, and nothing is evaluated. Not covered: relations, sets, units.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

#: The longest text read, and the deepest nesting.
MAX_TEXT, MAX_DEPTH = 2000, 40

Tree = tuple[Any, ...]

CONSTANTS = frozenset({"\\pi", "e", "i"})
FUNCTIONS = frozenset(
    ("\\sin", "\\cos", "\\tan", "\\sec", "\\csc", "\\cot", "\\sinh", "\\cosh", "\\tanh", "\\ln", "\\exp")
)
_GREEK_NAMES = "alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi omega"
_GREEK = frozenset(f"\\{name}" for name in _GREEK_NAMES.split())
_OPENERS = frozenset({"\\frac", "\\sqrt", "\\binom", "\\pi", *FUNCTIONS, *_GREEK})
_TOKEN = re.compile(r"\d+(?:\.\d*)?|\.\d+|\\[A-Za-z]+|\\.|\S")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?", re.ASCII)
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d*)?", re.ASCII)
_EUROPEAN = re.compile(r"[-+]?\d{1,3}(?:\.\d{3})+,\d+", re.ASCII)


class Unclear(Exception):
    """Not read, because it means nothing here or more than one thing; or no value of the kind asked for."""


@dataclass(frozen=True)
class Decimal:
    """A number: its exact value, and the places after the point as it was written (None: without a point)."""

    value: Fraction
    places: int | None


def literal(text: str) -> Decimal | None:
    """A plain number (`-3`, `.5`, `1,234.5`, `1.234,5`, `1e-3`), or None."""
    if len(text) > MAX_TEXT:
        return None
    if _NUMBER.fullmatch(text):
        pass
    elif "," not in text:
        return None
    elif _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    elif _EUROPEAN.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    else:
        return None
    if "." not in text and "e" not in text and "E" not in text:
        return Decimal(Fraction(int(text)), None)
    digits, _, exponent = text.lower().partition("e")
    decimals = digits.partition(".")[2]
    return Decimal(Fraction(text.replace(".e", "e").rstrip(".")), max(0, len(decimals) - int(exponent or 0)))


@dataclass
class _Reader:
    """Tokens and a place in them: the state of one parse."""

    tokens: list[str]
    at: int = 0
    depth: int = 0

    @property
    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek
        if not token or (wanted and token != wanted):
            raise Unclear(wanted or "end")
        self.at += 1
        return token


@lru_cache(maxsize=4096)
def parse(text: str) -> Tree | None:
    """The tree of a tight text, or None where this grammar does not read all of it."""
    if len(text) > MAX_TEXT:
        return None
    reader = _Reader(_TOKEN.findall(text))
    try:
        tree = _sum(reader)
    except Unclear:
        return None
    return tree if reader.at == len(reader.tokens) else None


def variables(tree: Tree) -> frozenset[str]:
    """The names of the variables in a tree."""
    if tree[0] == "var":
        return frozenset({tree[1]})
    branches = [branch for branch in tree[1:] if isinstance(branch, tuple)]
    return frozenset().union(*(variables(branch) for branch in branches)) if branches else frozenset()


def _sum(reader: _Reader) -> Tree:
    reader.depth += 1
    if reader.depth > MAX_DEPTH:
        raise Unclear("depth")
    tree, terms = _product(reader), 0
    while reader.peek in ("+", "-"):
        sign, terms = reader.take(), terms + 1
        if terms > 200:
            raise Unclear("a very long sum")
        tree = (sign, tree, _product(reader))
    reader.depth -= 1
    return tree


def _sign(reader: _Reader) -> bool:
    """Whether the signs that come next make a minus."""
    negative = False
    while reader.peek in ("+", "-"):
        negative ^= reader.take() == "-"
    return negative


def _signed(reader: _Reader) -> Tree:
    negative = _sign(reader)
    tree = _power(reader)
    return ("neg", tree) if negative else tree


def _product(reader: _Reader) -> Tree:
    negative = _sign(reader)
    tree, slash, factors = _power(reader), False, 0
    while True:
        token, factors = reader.peek, factors + 1
        if factors > 200:
            raise Unclear("a very long product")
        if token in ("*", "\\cdot"):
            reader.take()
            tree = ("*", tree, _signed(reader))
        elif token == "/":
            reader.take()
            tree, slash = ("/", tree, _signed(reader)), True
        elif not _starts(token):
            break
        elif slash or token[0].isdigit() or token[0] == ".":
            raise Unclear("a product without a sign after a slash, or two numbers side by side")
        else:
            tree = ("*", tree, _power(reader))
    return ("neg", tree) if negative else tree


def _starts(token: str) -> bool:
    return bool(token) and (token[0].isalnum() or token[0] in "({." or token in _OPENERS)


def _power(reader: _Reader) -> Tree:
    tree = _atom(reader)
    if reader.peek == "^":
        reader.take()
        tree = ("^", tree, _signed(reader) if reader.peek == "-" else _atom(reader))
    while reader.peek == "!":
        reader.take()
        tree = ("!", tree)
    if reader.peek == "^":
        raise Unclear("a power of a power without braces")
    return tree


def _group(reader: _Reader) -> Tree:
    reader.take("{")
    tree = _sum(reader)
    reader.take("}")
    return tree


def _atom(reader: _Reader) -> Tree:
    token = reader.take()
    if token[0].isdigit() or token[0] == ".":
        return _numeral(reader, token)
    if token in ("(", "{", "|"):
        tree = _sum(reader)
        reader.take({"(": ")", "{": "}", "|": "|"}[token])
        return ("abs", tree) if token == "|" else tree
    if token in ("\\frac", "\\binom"):
        return ("/" if token == "\\frac" else "choose", _group(reader), _group(reader))
    if token == "\\sqrt":
        index: Tree = ("num", Fraction(2))
        if reader.peek == "[":
            reader.take()
            index = _sum(reader)
            reader.take("]")
        return ("root", _group(reader) if reader.peek == "{" else _atom(reader), index)
    if token in FUNCTIONS:
        return _applied(reader, token)
    if token in CONSTANTS:
        return ("const", token)
    if token in _GREEK or (len(token) == 1 and token.isalpha() and token.isascii()):
        if reader.peek == "(" and token in "fghFGHP":
            raise Unclear("a function")
        return ("var", token + _subscript(reader))
    raise Unclear(token)


def _numeral(reader: _Reader, token: str) -> Tree:
    if not token.isascii() or token == ".":
        raise Unclear(token)
    value = Fraction(token.rstrip("."))
    if reader.peek == "_":
        return ("num", _in_base(token, _subscript(reader)[1:].strip("{}")))
    if reader.peek == "\\frac" and token.isdigit():
        start = reader.at
        _, top, bottom = _atom(reader)
        if top[0] == "num" and bottom[0] == "num" and top[1] < bottom[1] and top[1].denominator == 1:
            return ("num", value + top[1] / bottom[1])  # a mixed number
        reader.at = start
    return ("num", value)


def _in_base(digits: str, base: str) -> Fraction:
    if not base.isdigit() or len(base) > 2 or not 2 <= int(base) <= 36 or len(digits) > 500:
        raise Unclear("base")
    whole, _, after = digits.partition(".")
    try:
        return Fraction(int(whole + after, int(base)), int(base) ** len(after))
    except ValueError:
        raise Unclear("digit") from None


def _subscript(reader: _Reader) -> str:
    if reader.peek != "_":
        return ""
    reader.take()
    name = reader.take()
    if name == "{":
        while name[-1] != "}":
            name += reader.take()
    return f"_{name}"


def _applied(reader: _Reader, name: str) -> Tree:
    power: Tree | None = None
    if reader.peek == "^":
        reader.take()
        power = _atom(reader)
        if power[0] != "num" or power[1] <= 0:
            raise Unclear("inverse")
    if reader.peek in ("(", "{"):
        tree: Tree = ("call", name, _atom(reader))
        if reader.peek in ("^", "!"):
            raise Unclear("what the power is of")
    else:
        tree = ("call", name, _power(reader))
        if _starts(reader.peek):
            raise Unclear("how far the argument goes")
    return tree if power is None else ("^", tree, power)
