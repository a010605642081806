r"""Whether two forms are the same: text, exact numbers, structure, decimals within a stated tolerance, algebra.

`same` climbs only as far as it must; each rung says yes, no, or that it cannot tell (None).

The law: no rung says yes on the strength of a part: every member of a list, a tuple or a matrix has its match, and a
stated unit, label or base is never another one. A tuple keeps its order, also against a set; a list and a set do not.
Decimals that are written as such count to `places` places and to half as many significant digits; without one, numbers
are equal or they are not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.maths.arithmetic import Decimal, Unclear, variables
from gristmill.verifiers.maths.floating import differ, floating
from gristmill.verifiers.maths.forms import Form
from gristmill.verifiers.maths.rational import Huge, Undefined, exact
from gristmill.verifiers.maths.solved import solution

#: Asks algebra about two texts; None where it cannot tell.
Ask = Callable[[str, str], bool | None]


@dataclass(frozen=True)
class Policy:
    """`percent`: "same" (10% is 10) or "ratio" (10% is 0.1). `places` after the point. `names`: "kept" (a label that
    the gold answer has must be there), "droppable" (it may be missing) or "free" (it may also be another)."""

    percent: str = "same"
    places: int = 6
    names: str = "droppable"

    def __post_init__(self) -> None:
        if self.percent not in ("same", "ratio") or self.names not in ("kept", "droppable", "free") or self.places < 0:
            raise InputError(
                f"maths takes percent same or ratio, names kept, droppable or free, places from 0; given: {self}"
            )


_VALUES = frozenset(("number", "expression"))
_BUNCHES = frozenset(("list", "set", "tuple"))
_SETS = frozenset(("relation", "interval", "union", "set", "list"))
_SET_SIGNS = re.compile(r"\\(?:setminus|cap|cup|mathbb|in\b|\{|forall)|[|<>]")
_SHORT_LABEL = re.compile(r"[A-Za-z](?:_\w|_\{\w+\})?'*|[A-Z]{2,4}|\\[a-z]+")
_FUNCTION = re.compile(r"[A-Za-z]'*(?:\^\{-1\})?\([a-z]+\)")


def same(gold: Form, answer: Form, policy: Policy, ask: Ask) -> bool | None:
    """Whether an answer is the gold answer; None where nothing can tell."""
    if gold.spare is not None and gold.kind == "list" and answer.number is not None and answer.number.places:
        gold = gold.spare  # 0,4 is 0.4; a gold letter is a variable
    if answer.spare is not None and gold.kind == "number" and (answer.kind != "list" or not _whole(gold)):
        answer = answer.spare  # 3,5 is 3.5, but nobody writes 5,0 for 5
    if not _labels_agree(gold, answer, policy):
        return False
    if gold.unit and answer.unit and gold.unit != answer.unit:
        return False
    if gold.kind == answer.kind and gold.text == answer.text and (policy.percent == "same" or gold.unit == answer.unit):
        return True
    if "contradiction" in (gold.kind, answer.kind):
        return False
    gold, answer = _alone(gold, answer), _alone(answer, gold)
    if gold.kind == "union" and answer.kind == "list" and answer.mark != "pm":
        answer = replace(answer, kind="union")
    if gold.kind in _VALUES and (
        (answer.kind == "list" and answer.mark == "or") or (answer.kind == "equation" and not gold.label)
    ):
        return _each(gold, answer.items, policy, ask)
    if policy.percent == "ratio":
        gold, answer = _as_ratio(gold), _as_ratio(answer)
    written = (full(gold), full(answer))
    gold, answer = solution(gold), solution(answer)
    if gold.kind in _VALUES and answer.kind in _VALUES:
        return _values(gold, answer, policy, ask)
    structured = _structures(gold, answer, policy, ask)
    if structured is not None or gold.kind == answer.kind or "matrix" in (gold.kind, answer.kind):
        return structured
    return ask(*written) if _algebraic(gold, answer) else False


def _whole(form: Form) -> bool:
    return form.number is not None and form.number.value.denominator == 1


def _alone(form: Form, other: Form) -> Form:
    """The one member of a set, where the other side is no set."""
    single = form.kind == "set" and len(form.items) == 1 and other.kind in ("number", "expression", "words", "tuple")
    return form.items[0] if single else form


def _each(gold: Form, said: Sequence[Form], policy: Policy, ask: Ask) -> bool | None:
    """Whether the same value is said several times over: `7/2 or 3.5`, `(x+1)^2 = x^2+2x+1`."""
    told = [same(gold, one, policy, ask) for one in said]
    return False if False in told else None if None in told else True


def _algebraic(gold: Form, answer: Form) -> bool:
    """Whether two forms of different kinds can be the same thing, said in another way."""
    kinds = {gold.kind, answer.kind}
    if "equation" in kinds:
        value = gold if answer.kind == "equation" else answer
        return value.kind == "expression" and value.label != ""
    if "expression" in kinds:
        expression = gold if gold.kind == "expression" else answer
        return kinds & _SETS != set() and _SET_SIGNS.search(expression.text) is not None
    return kinds <= _SETS and kinds != {"set", "list"}


def full(form: Form) -> str:
    """The whole text, with its label, as algebra wants it."""
    sign = "\\in " if form.kind in ("interval", "union", "set") else "="
    return f"{form.label}{sign}{form.text}" if form.label else form.text


def _labels_agree(gold: Form, answer: Form, policy: Policy) -> bool:
    if not gold.label or policy.names == "free":
        return True
    if not answer.label:
        return policy.names != "kept" or answer.kind in ("equation", "relation")
    labels = {gold.label, answer.label}
    if len(labels) == 1 or ("y" in labels and _FUNCTION.fullmatch(next(iter(labels - {"y"})))):
        return True
    return not all(_SHORT_LABEL.fullmatch(label) or _FUNCTION.fullmatch(label) for label in labels)


def _as_ratio(form: Form) -> Form:
    if form.unit != "%" or form.kind not in _VALUES:
        return form
    tree = ("/", form.tree, ("num", Fraction(100))) if form.tree is not None else None
    number = form.number
    if number is not None:
        number = Decimal(number.value / 100, None if number.places is None else number.places + 2)
    return replace(form, text=f"\\frac{{{form.text}}}{{100}}", number=number, tree=tree, unit="")


def _values(gold: Form, answer: Form, policy: Policy, ask: Ask) -> bool | None:
    one, other = gold.number, answer.number
    if one is not None and other is not None:
        if gold.mark or answer.mark:
            return not gold.unit and not answer.unit and _bases(gold, answer)
        if one.value == other.value:
            return True
        if one.places is None and other.places is None:
            return False
        return _close(one.value, other.value, max(one.places or 0, other.places or 0), policy.places)
    if gold.tree is not None and answer.tree is not None:
        if (one is not None and _beyond(answer)) or (other is not None and _beyond(gold)):
            return False
        written = one if one is not None and one.places is not None else other
        if written is not None and written.places is not None:
            irrational = answer if written is one else gold
            assert irrational.tree is not None
            return False if variables(irrational.tree) else _near(written, irrational, policy.places)
        if differ(gold.tree, answer.tree):
            return False
    return ask(gold.text, answer.text)


def _bases(gold: Form, answer: Form) -> bool:
    """A base left out is taken to be the other's; an expression in numbers of a base is compared by its value."""
    if gold.mark and answer.mark:
        return gold.mark == answer.mark and gold.number == answer.number
    if "_" in (answer.text if gold.mark else gold.text):
        return gold.number == answer.number
    return gold.text.partition("_")[0] == answer.text.partition("_")[0]


def _beyond(form: Form) -> bool:
    """Whether a value is greater than any worked out here, or none at all."""
    try:
        exact(form.tree)  # type: ignore[arg-type]
    except (Huge, Undefined):
        return True
    except Unclear:
        return False
    return False


def _close(one: Fraction, other: Fraction, written: int, places: int) -> bool:
    """To `places` places and half as many significant digits; or to 14 digits, where 15 and more were written."""
    gap, size = abs(one - other), max(abs(one), abs(other))
    if gap * 10**places < 1 and gap * 10 ** (places // 2) <= size:
        return True
    return written >= 1 and len(str(int(size))) + written > 15 and gap * 10**14 < size


def _near(written: Decimal, irrational: Form, places: int) -> bool | None:
    peak = [1e-300]
    try:
        value = floating(irrational.tree, {}, peak)  # type: ignore[arg-type]
    except Unclear:
        return None
    if abs(value.imag) > 1e-9 * peak[0]:
        return False
    if peak[0] > 1e6 * max(abs(value.real), 1e-300):
        return None  # digits were lost on the way
    return _close(written.value, Fraction(value.real), written.places or 0, places)


def _structures(gold: Form, answer: Form, policy: Policy, ask: Ask) -> bool | None:
    kinds = (gold.kind, answer.kind)
    if kinds == ("words", "words"):
        return gold.text == answer.text
    if "ratio" in kinds:
        return _ratios(gold, answer, policy, ask)
    if "matrix" in kinds:
        return _matrices(gold, answer, policy, ask)
    if "interval" in kinds and all(_pair(form) for form in (gold, answer)):
        if (gold.mark or "()") != (answer.mark or "()") or "set" in kinds:
            return False
        return _ordered(gold.items, answer.items, policy, ask)
    if kinds == ("union", "union"):
        return _unordered(gold.items, answer.items, policy, ask)
    if set(kinds) <= _BUNCHES:
        if "tuple" in kinds and ("list" in kinds or "set" in kinds):
            return _ordered(gold.items, answer.items, policy, ask)
        if kinds == ("tuple", "tuple"):
            return {gold.mark[:1] or "(", answer.mark[:1] or "("} != {"(", "["} and _ordered(
                gold.items, answer.items, policy, ask
            )
        if _by_label(gold) != _by_label(answer):
            return _ordered(gold.items, answer.items, policy, ask)
        return _unordered(gold.items, answer.items, policy, ask)
    if gold.kind == answer.kind and gold.kind in ("relation", "equation"):
        return ask(full(gold), full(answer))
    return None


def _pair(form: Form) -> bool:
    return form.kind == "interval" or (form.kind == "tuple" and len(form.items) == 2 and form.mark == "()")


def _by_label(form: Form) -> bool:
    labels = {item.label for item in form.items}
    return len(labels) == len(form.items) > 1 and "" not in labels


def _ratios(gold: Form, answer: Form, policy: Policy, ask: Ask) -> bool | None:
    if gold.kind != answer.kind:
        ratio, value = (gold, answer) if gold.kind == "ratio" else (answer, gold)
        terms = [item.number.value for item in ratio.items if item.number is not None]
        if ratio.mark or value.number is None or len(terms) != 2 or len(ratio.items) != 2 or not terms[1]:
            return False
        return terms[0] / terms[1] == value.number.value
    pairwise = _ordered(gold.items, answer.items, policy, ask)
    if pairwise is not False or (gold.mark and answer.mark) or _clock(gold) or len(gold.items) != len(answer.items):
        return pairwise
    one, other = ([item.number.value for item in form.items if item.number is not None] for form in (gold, answer))
    if len(one) != len(gold.items) or len(other) != len(answer.items):
        return False
    return all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True)) and bool(one[0]) and bool(other[0])


def _clock(ratio: Form) -> bool:
    """12:30 is a time, as a ratio would be 2:5; 7:32 may be either."""
    values = [item.number.value for item in ratio.items if item.number is not None]
    return ratio.mark == "time" and len(values) == 2 and math.gcd(int(values[0]), int(values[1])) > 1


def _matrices(gold: Form, answer: Form, policy: Policy, ask: Ask) -> bool | None:
    """By entry; a tuple is as good as a matrix of one row or one column."""
    if gold.kind == answer.kind and gold.mark != answer.mark:
        return False
    matrix, other = (gold, answer) if gold.kind == "matrix" else (answer, gold)
    if gold.kind != answer.kind and (other.kind != "tuple" or "1" not in matrix.mark.split("x")):
        return False
    return _ordered(gold.items, answer.items, policy, ask)


def _ordered(gold: Sequence[Form], answer: Sequence[Form], policy: Policy, ask: Ask) -> bool | None:
    if len(gold) != len(answer):
        return False
    told = [same(*pair, policy, _cannot) for pair in zip(gold, answer, strict=True)]
    if False in told:
        return False
    open_pairs = [pair for pair, known in zip(zip(gold, answer, strict=True), told, strict=True) if known is None]
    verdict: bool | None = True
    for one, other in open_pairs:
        found = same(one, other, policy, ask)
        if found is False:
            return False
        verdict = None if found is None else verdict
    return verdict


def _unordered(gold: Sequence[Form], answer: Sequence[Form], policy: Policy, ask: Ask) -> bool | None:
    """One to one in any order. Pairs that cheap rungs can match go first; algebra is asked about the rest."""
    if len(gold) != len(answer):
        return False
    left, verdict = list(answer), True
    open_items: list[Form] = []
    for one in gold:
        match = next((n for n, other in enumerate(left) if same(one, other, policy, _cannot) is True), None)
        if match is None:
            open_items.append(one)
        else:
            del left[match]
    unsure = False
    for one in open_items:
        told = []
        for n, other in enumerate(left):
            told.append(same(one, other, policy, ask))
            if told[-1]:
                del left[n]
                break
        else:
            if None not in told:
                return False
            unsure = True
    return None if unsure else verdict


def _cannot(gold: str, answer: str) -> bool | None:
    return None
