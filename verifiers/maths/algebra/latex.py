"""Tokens of a mathematical text: LaTeX in its usual spellings, plain text (`sqrt(2)/3`, `x^2`) and Unicode signs.

The idea: spelling ends here. `\\dfrac`, `\\tfrac` and `\\cfrac` are one token, so are `\\le` and `≤`; spaces, sizes and
dollar signs are none; `11,\\!111` is one number. What follows (grammar.py) sees tokens only.
The law: the work is linear in the text, and what is not mathematics is refused with `Unreadable`, never guessed.
Not covered: units, money, percentages, prose (`\\text{...}` is read where it is a letter, a number, the name of a
function, or "and" and "or").
"""

from __future__ import annotations

import re

from gristmill.verifiers.maths.algebra.spellings import COMMANDS, FUNCTIONS, LETTERS, PLAIN, RELATIONS, SIGNS, WORDS

#: Longest text that is read at all, in characters. The longest answer of the MATH test set has 81.
LONGEST = 5_000

#: A kind and a value.
Token = tuple[str, str]


class Unreadable(ValueError):
    """The text is not one of the forms that are read."""


_MATRIX = r"\{\s*(?:[pbBvV]?matrix|smallmatrix|array)\s*\}"
_PATTERNS = {
    "space": r"(?:\s|~|\$|\\[,;:!>\ /]|\\(?:q?quad|displaystyle|textstyle|(?:no)?limits|rm|bf|strut)(?![A-Za-z]))+",
    "row": r"\\\\(?:\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\])?|\\cr(?![A-Za-z])",
    "begin": rf"\\begin\s*{_MATRIX}(?:\s*\{{[lcr|\s]*\}})?",
    "end": rf"\\end\s*{_MATRIX}",
    "size": r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*(?:\||\.|\\[lr]?vert(?![A-Za-z]))?",
    "text": r"\\(?:text(?:rm|bf|it|normal)?|[mh]box|math(?:rm|bf|it|sf|cal)|boldsymbol|operatorname\*?)\s*\{[^{}]*\}",
    "set": r"\\mathbb\s*(?:\{\s*[A-Z]\s*\}|[A-Z])",
    "base": r"\d[0-9A-Z]*(?:\.[0-9A-Z]+)?\s*_\s*(?:\{\s*\d+\s*\}|\d+)",
    "repeating": r"\d*\.\d*\\(?:overline|bar|dot)\s*\{\d+\}",
    "scientific": r"\d+\.\d+[eE][+-]?\d+|\d+[eE]\+?\d+",
    "num": r"\d+(?:\.(?!\.)\d*)?|\.\d+",
    "rel": r"<=|>=|=<|=>|==|!=|~=|[<>=]",
    "command": r"\\[A-Za-z]+|\\[{}]",
    "pm": r"\+\s*/?\s*-",
    "dots": r"\.\.\.+",
    "letters": r"[A-Za-z]+",
    "power": r"\*\*|\^",
    "sign": r"[-+*/!_'()\[\]{}|,;:&]",
}
_TOKEN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
#: The same without numbers in a stated base: what `3x_2` or `2A_2` falls back to.
_NO_BASE = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items() if kind != "base"))
_LONGEST_NAME = max(map(len, PLAIN))
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\s*\\!\s*|\\,|\\!,|\\!)(?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<![\d.,_^])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])(?:\.\d+)?")


def tokens(text: str) -> list[Token]:
    """The tokens of a text. Raises Unreadable."""
    if len(text) > LONGEST:
        raise Unreadable(f"{len(text)} characters")
    text = _THOUSANDS.sub("", text.translate(SIGNS))
    found: list[Token] = []
    position = depth = 0
    while position < len(text):
        # Outside brackets `1,234` is one number; inside, a comma parts coordinates.
        if depth == 0 and (grouped := _GROUPED.match(text, position)):
            found.append(("num", grouped[0].replace(",", "")))
            position = grouped.end()
            continue
        match = _TOKEN.match(text, position)
        if match is not None and match.lastgroup == "base" and not _fits(match[0]):
            match = _NO_BASE.match(text, position)
        if match is None or match.lastgroup is None:
            raise Unreadable(f"{text[position : position + 20]!r}")
        new = _read(match.lastgroup, match[0])
        depth += sum((kind == "open") - (kind == "close") for kind, _ in new)
        found += new
        position = match.end()
    return found


def base_parts(text: str) -> tuple[str, int]:
    """Digits and base of `12A_{11}`."""
    digits, _, base = text.partition("_")
    return digits.strip(), int(base.strip(" {}")[:9])


def _fits(text: str) -> bool:
    digits, base = base_parts(text)
    return 2 <= base <= 36 and all(int(digit, 36) < base for digit in digits if digit != ".")


def _read(kind: str, value: str) -> list[Token]:
    if kind in ("num", "base", "repeating"):
        return [(kind, value)]
    if kind == "space":
        return []
    if kind == "sign":
        return [_sign(value)]
    if kind == "letters":
        return _letters(value)
    if kind == "command":
        return [_command(value)]
    if kind == "rel":
        return [("rel", RELATIONS[value])]
    if kind == "text":
        return _text(value.partition("{")[2].rstrip("}").strip())
    if kind == "size":
        return _sized(value)
    if kind == "set":
        return [("set", value.rstrip(" }")[-1])]
    if kind == "begin":
        return [("begin", re.sub(r"\\begin|[\s{}]", "", value.partition("}")[0]))]
    if kind == "scientific":
        mantissa, exponent = re.split("[eE]", value)
        return [("num", mantissa), ("op", "*"), ("num", "10"), ("op", "^"), *_read_exponent(exponent)]
    if kind == "pm":
        return [("pm", "+")]
    return [("op", "^")] if kind == "power" else [(kind, "")]


def _read_exponent(text: str) -> list[Token]:
    return [("op", text[0]), ("num", text[1:])] if text[0] in "+-" else [("num", text)]


def _sized(value: str) -> list[Token]:
    """`\\left` and its like: nothing, but for a bar, where it says which side this is."""
    if not value.endswith(("|", "vert")):
        return []
    return [("open" if "left" in value else "close" if "right" in value else "bar", "|")]


def _sign(value: str) -> Token:
    if value in "([{":
        return ("open", value)
    if value in ")]}":
        return ("close", value)
    if value in ",;":
        return ("sep", ",")
    return {"'": ("prime", ""), "|": ("bar", "|")}.get(value, ("op", value))


def _command(value: str) -> Token:
    name = value[1:]
    if value in COMMANDS:
        return COMMANDS[value]
    if value in RELATIONS:
        return ("rel", RELATIONS[value])
    if name in FUNCTIONS:
        return ("fn", FUNCTIONS[name])
    if name in LETTERS:
        return ("sym", LETTERS[name])
    raise Unreadable(value)


def _text(inside: str) -> list[Token]:
    if not inside:
        return []
    word = inside.strip(" ,").lower()
    if word in ("and", "or"):
        return [("sep", word)]
    if len(inside) == 1 and inside.isascii() and inside.isalpha():
        return _letters(inside)
    if inside in FUNCTIONS:
        return [("fn", FUNCTIONS[inside])]
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", inside):
        return [("num", inside)]
    raise Unreadable(f"the words {inside[:40]!r}")


def _letters(run: str) -> list[Token]:
    """Letters that touch: names of functions and constants where they begin there, else single letters."""
    low = run.lower()
    if low in ("and", "or"):
        return [("sep", low)]
    if low in ("oo", "inf", "infinity", "infty"):
        return [("const", "inf")]
    found: list[Token] = []
    position = letters = 0
    while position < len(run):
        starts = (run[position : position + length] for length in range(_LONGEST_NAME, 1, -1))
        name = next((start for start in starts if start in PLAIN), "")
        if name:
            found.append(("const", "pi") if name == "pi" else ("fn", FUNCTIONS[name]))
            position += len(name)
            continue
        letter = run[position]
        found.append(("const" if letter in "ei" else "sym", letter))
        letters += 1
        position += 1
    if letters > 4 or (letters > 3 and not run.isupper()) or low in WORDS:
        raise Unreadable(f"the word {run[:40]!r}")
    return found
