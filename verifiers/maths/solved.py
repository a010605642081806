r"""Inequalities that say which numbers they allow: `-2 \le x \le 7`, `|z| < 3`, `x < 1 or x > 3`, as intervals.

The law: only an inequality in one name that stands alone between numbers is taken for its solution; everything else
(`x^2 < 4`, `-x > -1`) is left as it is, for algebra.
"""

from __future__ import annotations

import re
from dataclasses import replace

from gristmill.verifiers.maths.arithmetic import variables
from gristmill.verifiers.maths.forms import Form

_NAME = re.compile(r"(?:[A-Za-z]|\\(?!pi\b|infty)[a-z]+)(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?(?:\([a-z]\))?")
_SIZE = re.compile(r"\|(.+)\|")
_FLIP = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "!=": "!="}
_NEGATIVE, _POSITIVE = Form("expression", "-\\infty"), Form("expression", "\\infty")


def interval(low: Form, high: Form, ends: str) -> Form:
    """An interval, open where it is infinite."""
    left = "(" if low == _NEGATIVE else ends[0]
    right = ")" if high == _POSITIVE else ends[1]
    return Form("interval", f"{left}{low.text},{high.text}{right}", (low, high), mark=left + right)


def solution(form: Form) -> Form:
    """The interval or union that an inequality (or several with `or`) says, labelled; the form itself otherwise."""
    if form.kind == "relation":
        return _one(form) or form
    if form.kind == "list" and form.mark in ("or", "and") and all(item.kind == "relation" for item in form.items):
        parts = [_one(item) for item in form.items]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or len({part.label for part in known}) > 1:
            return form
        if form.mark == "or":
            pieces = tuple(piece for part in known for piece in (part.items if part.kind == "union" else (part,)))
            return Form("union", form.text, pieces, label=known[0].label)
        rays = sorted(known, key=lambda part: part.items[0] == _NEGATIVE)
        if len(rays) == 2 and rays[0].items[1] == _POSITIVE and rays[1].items[0] == _NEGATIVE:
            both = interval(rays[0].items[0], rays[1].items[1], rays[0].mark[0] + rays[1].mark[1])
            return replace(both, label=rays[0].label)
    return form


def _constant(form: Form) -> bool:
    return form.kind in ("number", "expression") and (
        form in (_NEGATIVE, _POSITIVE) or (form.tree is not None and not variables(form.tree))
    )


def _one(form: Form) -> Form | None:
    signs = form.mark.split()
    if len(signs) == 2 and signs[0] in ("<", "<=", ">", ">=") and signs[1] in ("<", "<=", ">", ">="):
        low, middle, high = form.items
        if signs[0][0] != signs[1][0]:
            return None
        if signs[0][0] == ">":
            low, high, signs = high, low, [_FLIP[signs[1]], _FLIP[signs[0]]]
        return _between(low, middle, high, ("[" if signs[0] == "<=" else "(") + ("]" if signs[1] == "<=" else ")"))
    if len(signs) != 1 or signs[0] not in _FLIP:
        return None
    (left, right), sign = form.items, signs[0]
    if _constant(left) and not _constant(right):
        left, right, sign = right, left, _FLIP[sign]
    if not _constant(right):
        return None
    if sign == "!=":
        if not _NAME.fullmatch(left.text):
            return None
        pieces = (interval(_NEGATIVE, right, "()"), interval(right, _POSITIVE, "()"))
        return Form("union", form.text, pieces, label=left.text)
    size = _SIZE.fullmatch(left.text)
    if size is None:
        low, high = (_NEGATIVE, right) if sign[0] == "<" else (right, _POSITIVE)
        return _between(low, left, high, "[]" if sign.endswith("=") else "()")
    if not _NAME.fullmatch(size[1]) or right.number is None or right.number.value <= 0:
        return None
    ends = "[]" if sign.endswith("=") else "()"
    if sign[0] == "<":
        return replace(interval(_negated(right), right, ends), label=size[1])
    pieces = (interval(_NEGATIVE, _negated(right), ends), interval(right, _POSITIVE, ends))
    return Form("union", form.text, pieces, label=size[1])


def _between(low: Form, middle: Form, high: Form, ends: str) -> Form | None:
    if not _constant(low) or not _constant(high):
        return None
    if _NAME.fullmatch(middle.text):
        return replace(interval(low, high, ends), label=middle.text)
    size = _SIZE.fullmatch(middle.text)
    if size is None or not _NAME.fullmatch(size[1]) or low.number is None or high.number is None:
        return None
    if low.number.value < 0:
        return None
    pieces = (interval(_negated(high), _negated(low), ends[::-1].translate(_MIRROR)), interval(low, high, ends))
    return Form("union", f"{middle.text}", pieces, label=size[1])


_MIRROR = str.maketrans("()[]", ")(][")


def _negated(form: Form) -> Form:
    assert form.number is not None
    number = replace(form.number, value=-form.number.value)
    return replace(form, text=f"-{form.text}", number=number, tree=("neg", form.tree))
