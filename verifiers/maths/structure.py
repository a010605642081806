r"""The shape of an answer: number, tuple, set, interval, list, union, matrix, equation, inequality, ratio, words.

`read` takes a text apart into a `Form`, outermost first, down to numbers and expressions.

The law: reading knows nothing of the other side; where a text has two readings (`1,22`, and `5m`, whose letter is a
variable or a unit) the second one is kept as a spare. Not covered: what is equal to what, see ladder.py.
"""

from __future__ import annotations

import re
from dataclasses import replace

from gristmill.verifiers.maths.arithmetic import Decimal, Tree, Unclear, literal, parse, variables
from gristmill.verifiers.maths.forms import Form, split, whole
from gristmill.verifiers.maths.normal import tight
from gristmill.verifiers.maths.rational import Huge, exact
from gristmill.verifiers.maths.units import peel

_RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\in": "in", "\\approx": "~", "\\ne": "!="}
_LABEL = re.compile(
    r"(?:(?:\\angle|\\triangle|\\overline|\\text|m(?=\\angle))\s*)*"
    r"(?:[A-Za-z]|[A-Z]{2,4}|[A-Za-z]{3,}|\{[A-Z]{2,4}\}|\\(?!frac|sqrt|pi\b)[A-Za-z]+|[A-Za-z]+(?=\())"
    r"(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9,]+\}))?'*(?:\^\{?-1\}?)?(?:\((?:[A-Za-z0-9]|\\[A-Za-z]+|,)+\))?'*"
    r"|(?:\\mathbb\{[A-Z]\}|\\Pr|[PE]|\\(?:det|dim|gcd|deg))(?:\([^()]*\)|\[[^\[\]]*\]|\s?[A-Z])"
    r"|\|[A-Z](?:\\c[au]p\s?[A-Z])*\|"
    r"|\((?:[A-Za-z]|\\[a-z]+)(?:,(?:[A-Za-z]|\\[a-z]+))+\)"
)
_NAME = re.compile(r"(?:[A-Za-z]|\\(?!pi\b|infty)[a-z]+)(?:_(?:[A-Za-z0-9]|\{[A-Za-z0-9]+\}))?")
_MATRIX = re.compile(r"(?:[(\[]\s*)?\\begin\s*\{(p|b|B|small)?(?:matrix|array)\}(?:\s*\{[lcr| ]*\})?(?P<rows>.*)"
                     r"\\end\s*\{\1?(?:matrix|array)\}(?:\s*[)\]])?", re.DOTALL)  # fmt: skip
_ALL_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}\.?")
_BASED = re.compile(r"-?[0-9A-F.]+_(?:(\d)|\{(\d{1,2})\})")
_WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z][A-Za-z'’-]{2,}")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_LETTERS_RATIO = re.compile(r"[A-Za-z_0-9']+(?:\s*:\s*[A-Za-z_0-9']+)+")
_TIME = re.compile(r"\d{1,2}:[0-5]\d(?!\d)")
_LAST_GROUP = re.compile(r"\d{3}(?:\.\d+)?(?:\D.{0,40})?", re.DOTALL)
_FIRST_GROUP = re.compile(r"(?<![\d.])\d{1,3}(?:\d{3})*$")
MAX_ITEMS, MAX_NESTED = 64, 12
NO_SOLUTION = frozenset(
    ("nosolution", "nosolutions", "nosolutionexists", "thereisnosolution", "norealsolution", "norealsolutions", "none")
) | {"\\emptyset"}
#: Short words that would else be products of letters, with the word that is kept for them.
_SHORT_WORDS = {
    **{word: word for word in ("yes", "no", "odd", "even", "true", "false", "dne")},
    "doesnotexist": "dne",
    "d.n.e": "dne",
}
_NAME_OF_SOMEBODY = re.compile(r"[A-Z][a-z]{2,}")
_ARTICLE = re.compile(r"\s*(?:\\text\s*\{)?\s*(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_CASES = re.compile(
    r"(?:\\\{\s*)?\\begin\s*\{(cases|array)\}(?:\s*\{l\})?(?P<rows>[^&]*)\\end\s*\{\1\}\s*\.?", re.DOTALL
)
_ALL_REALS = frozenset({"\\mathbb{R}", "allrealnumbers", "allreals", "allrealx"})


def read(text: str, level: int = 0) -> Form:
    """The form of a tidied text. Too many members or too deep a nest is left to algebra as one expression."""
    text = text.strip()
    plain = literal(text)
    if plain is not None:
        return Form("number", _shown(plain), number=plain, tree=("num", plain.value))
    if level > MAX_NESTED:
        return Form("expression", tight(text))
    if "\\begin" in text and (found := _CASES.fullmatch(text)) and "\\begin" not in found["rows"]:
        return read(", ".join(row for row in found["rows"].split("\\\\") if row.strip()), level + 1)
    if text.startswith("\\text") and (found := _ALL_TEXT.fullmatch(text)):
        return read(found[1], level + 1)
    for reader in (_list, _relation, _union, _matrix, _bracketed, _plus_minus, _ratio):
        form = reader(text, level)
        if form is not None:
            return form
    return _leaf(text)


def _shown(number: Decimal) -> str:
    value = number.value
    return str(value.numerator) if value.denominator == 1 else f"{value.numerator}/{value.denominator}"


def _list(text: str, level: int) -> Form | None:
    if "," not in text and ";" not in text and "or" not in text and "and" not in text:
        return None
    parts = split(text, lambda sign: sign in (",", ";", "and", "or"))
    if len(parts) == 1 or len(parts) > MAX_ITEMS:
        return None
    texts = _thousands(parts)
    signs = {sign for _, sign in parts[:-1]}
    kept = [part.strip() for part in texts if part.strip()]
    if len(kept) == 1:
        return read(kept[0], level + 1) if kept[0] != text else None
    if not kept:
        return None
    items = [read(part, level + 1) for part in kept]
    if items[0].label and items[0].kind != "interval" and not any(item.label for item in items[1:]):
        items = [replace(item, label=items[0].label) for item in items]
    spare = None
    if _DECIMAL_COMMA.fullmatch(text):
        number = literal(text.replace(",", "."))
        spare = Form("number", text, number=number, tree=("num", number.value)) if number else None
    mark = "or" if "or" in signs else "and" if "and" in signs else ","
    return Form("list", tight(text), _spread(items), mark=mark, spare=spare)


def _thousands(parts: list[tuple[str, str]]) -> list[str]:
    """Parts with `1,000` made one number again; the commas of a list have spaces after them: `1,000, 2,000`."""
    out: list[str] = []
    glue = ""
    for part, sign in parts:
        if glue and _LAST_GROUP.fullmatch(part) and _FIRST_GROUP.search(out[-1]):
            out[-1] += part
        else:
            out.append(part)
        glue = sign if sign == "," else ""
    return out


def _spread(items: list[Form]) -> tuple[Form, ...]:
    """Members, with the two of each plus-minus in its place."""
    out: list[Form] = []
    for item in items:
        out.extend(item.items if item.kind == "list" and item.mark == "pm" else [item])
    return tuple(out)


def _relation(text: str, level: int) -> Form | None:
    parts = split(text, lambda sign: sign in _RELATIONS)
    if len(parts) == 1:
        return None
    sides = [part.strip() for part, _ in parts]
    signs = [_RELATIONS[sign] for _, sign in parts[:-1]]
    if set(signs) == {"in"} and len(sides) == 2:
        return replace(read(sides[1], level + 1), label=tight(sides[0]))
    if set(signs) <= {"=", "~"}:
        return _equation(text, sides, signs, level)
    items = tuple(read(side, level + 1) for side in sides)
    return Form("relation", tight(text), items, mark=" ".join(signs))


def _equation(text: str, sides: list[str], signs: list[str], level: int) -> Form:
    r"""`x = 3`, `x = 1/3 \approx 0.3`, `2 + 3 = 5`: the last exact value, labelled; `2x + z = 1`: an equation."""
    parts = [read(side, level + 1) for side in sides]
    first = tight(sides[0])
    named = bool(_LABEL.fullmatch(first)) or _LETTERS_RATIO.fullmatch(sides[0]) is not None
    if not named and len(parts) == 2 and _NAME.fullmatch(tight(sides[1])) and parts[0].number is not None:
        return replace(parts[0], label=tight(sides[1]))  # 11 = x
    exactly = [part for part, sign in zip(parts[1:], signs, strict=True) if sign == "="]
    values = exactly or (parts[1:] if named else parts[:1])  # what stands after \approx only rounds what is before it
    if not named:
        values = [parts[0], *exactly]
    stated = [part.number.value for part in values if part.number is not None]
    if any(value != stated[0] for value in stated) or _far(parts):
        return Form("contradiction", tight(text), tuple(parts))
    last = values[-1]
    if named:
        inside = last.tree is not None and first in variables(last.tree)
    else:
        inside = len(values) > 1 and len(stated) < len(values)
    if inside:
        return Form("equation", tight(text), tuple(parts))
    label = first if named else ""
    if last.kind == "list" and label:  # x = \pm 3
        return replace(last, items=tuple(replace(item, label=label) for item in last.items), label=label)
    return replace(last, label=label)


def _far(parts: list[Form]) -> bool:
    """Whether whole numbers are called about equal that are not: `5 \\approx 6`."""
    if any(part.number is None or part.number.places is not None for part in parts):
        return False
    values = [part.number.value for part in parts if part.number is not None]
    if any(value.denominator != 1 for value in values):
        return False
    return max(values) - min(values) > max(map(abs, values)) / 20


def _union(text: str, level: int) -> Form | None:
    if "\\cup" not in text:
        return None
    parts = split(text, lambda sign: sign == "\\cup")
    if len(parts) == 1 or len(parts) > MAX_ITEMS:
        return None
    return Form("union", tight(text), tuple(read(part, level + 1) for part, _ in parts))


def _matrix(text: str, level: int) -> Form | None:
    found = _MATRIX.fullmatch(text) if "\\begin" in text else None
    if found is None or "\\begin" in found["rows"]:
        return None
    rows = [row for row in found["rows"].replace("\\hline", "").split("\\\\") if row.strip()]
    cells = [[part for part, _ in split(row, lambda sign: sign == "&")] for row in rows]
    width = max((len(row) for row in cells), default=0)
    if any(len(row) != width for row in cells):
        return None
    items = tuple(read(cell, level + 1) for row in cells for cell in row)
    return Form("matrix", tight(text), items, mark=f"{len(cells)}x{width}")


def _bracketed(text: str, level: int) -> Form | None:
    for opens, closes in (("\\{", "\\}"), ("\\langle", "\\rangle")):
        if text.startswith(opens) and text.endswith(closes) and whole(text, len(opens), len(closes)):
            return _members("set" if opens == "\\{" else "tuple", text, text[len(opens) : -len(closes)], level)
    if text[:1] == "{" and text[-1:] == "}" and whole(text, 1, 1):
        inside = text[1:-1]
        found = len(split(inside, lambda sign: sign == ",")) > 1
        return _members("set", text, inside, level) if found else read(inside, level + 1)
    if text[:1] not in ("(", "[", "]") or text[-1:] not in (")", "]", "[") or len(text) < 2:
        return None
    if not whole(text, 1, 1) and text[0] != "]":
        return None
    return _members("tuple", text, text[1:-1], level, text[0] + text[-1])


def _members(kind: str, text: str, inside: str, level: int, brackets: str = "") -> Form | None:
    parts = [part for part, _ in split(inside, lambda sign: sign in (",", ";"))]
    if len(parts) > MAX_ITEMS:
        return None
    if kind == "set" and not inside.strip():
        return Form("words", "\\emptyset")
    if kind == "set" and (len(split(inside, lambda sign: sign in ("|", ":"))) > 1):
        return Form("expression", tight(text))
    items = [read(part, level + 1) for part in parts]
    if len(parts) == 1 and kind == "tuple":
        return items[0] if brackets == "()" or (brackets == "[]" and items[0].kind != "list") else None
    if len(parts) == 2 and brackets and brackets != "()":
        ends = {"]": "(", "[": "["}.get(brackets[0], "(") + {"[": ")", "]": "]"}.get(brackets[1], ")")
        return Form("interval", tight(text), tuple(items), mark=ends)
    if kind == "tuple" and any(item.kind == "list" and item.mark == "pm" for item in items):
        both = [tuple(item.items[n] if item.mark == "pm" else item for item in items) for n in (0, 1)]
        return Form("list", tight(text), tuple(Form("tuple", tight(text), pair) for pair in both), mark="pm")
    return Form(kind, tight(text), _spread(items) if kind == "set" else tuple(items), mark=brackets)


def _plus_minus(text: str, level: int) -> Form | None:
    if "\\pm" not in text and "\\mp" not in text:
        return None
    both = (text.replace("\\pm", "+").replace("\\mp", "-"), text.replace("\\pm", "-").replace("\\mp", "+"))
    items = tuple(read(part.lstrip(" +"), level + 1) for part in both)
    return Form("list", tight(text), items, mark="pm")


def _ratio(text: str, level: int) -> Form | None:
    parts = [part.strip() for part, _ in split(text, lambda sign: sign == ":")]
    if not 1 < len(parts) <= MAX_ITEMS or not all(parts):
        return None
    items = tuple(read(part, level + 1) for part in parts)
    time = _TIME.match(text) is not None
    return Form("ratio", tight(text), items, mark="time" if time else "", unit=items[-1].unit)


def _leaf(text: str) -> Form:
    complete = tight(text)
    said = complete.casefold().rstrip(".")
    if said in NO_SOLUTION:
        return Form("words", "\\emptyset")
    if said in _SHORT_WORDS:
        return Form("words", _SHORT_WORDS[said])
    if complete in _ALL_REALS:
        ends = (Form("expression", "-\\infty"), Form("expression", "\\infty"))
        return Form("interval", "(-\\infty,\\infty)", ends, mark="()")
    value, unit = peel(text, letters=False)
    form = _value(tight(value) if unit or value != text else complete, value, unit)
    if form.kind == "expression" and not unit:
        value, unit = peel(text, letters=True)
        if unit:
            return replace(form, spare=_value(tight(value), value, unit))
    return form


def _value(short: str, value: str, unit: str) -> Form:
    """A number, an expression or words, without its unit."""
    found = _BASED.fullmatch(short)
    number = literal(value.strip())
    tree: Tree | None = ("num", number.value) if number is not None else parse(short)
    if number is None and tree is not None:
        number = _valued(tree)
    if number is not None:
        base = next((group for group in found.groups() if group), "") if found else ""
        return Form("number", short, number=number, tree=tree, unit=unit, mark=base)
    said = _WORDS.findall(re.sub(r"\\text\s*\{|\}", " ", value)) if "=" not in value else []
    if said and (tree is None or max(map(len, said)) > 3 or _NAME_OF_SOMEBODY.fullmatch(short)):
        value = _ARTICLE.sub("", value, count=1) if _ARTICLE.match(value) else value
        return Form("words", re.sub(r"\\text|[\s{}()$\\.,]", "", value).casefold(), unit=unit)
    return Form("expression", short, tree=tree, unit=unit)


def _valued(tree: Tree) -> Decimal | None:
    """The exact value of an expression, where it has one."""
    try:
        return Decimal(exact(tree), None)
    except (Unclear, Huge):
        return None
