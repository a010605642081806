r"""One spelling for one thing: LaTeX, Unicode and Markdown written in a hundred ways become one text.

`tidy` gives every symbol one name (`\dfrac` and `\tfrac` are `\frac`, U+2212 is `-`, `\left` goes) and keeps spaces,
which still tell `32, 349` from `32,349`; `tight` then takes the spaces out and braces every argument, so that two
spellings of one formula are the same string.

The law: none of these changes a value, and all are linear in the text. Not covered: arithmetic, and the order of terms.
"""

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ"
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\phi ",
    "ω": r"\omega ", "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ",
    "∀": r"\forall ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", 
    "º": r"^\circ ", "˚": r"^\circ ", "∶": ":", "…": r"\ldots ", "⋯": r"\ldots ", "′": "'",
    "∠": r"\angle ", "△": r"\triangle ", "ℝ": r"\mathbb{R}", "⟨": r"\langle ", "⟩": r"\rangle ", "∨": " or ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}",
    "⅛": r"\frac{1}{8}", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2007": " ", "\u3000": " ",
}  # fmt: skip
_TRANSLATE = {ord(key): value for key, value in _SYMBOLS.items()}

_FONTS = "mathrm mbox hbox textbf textit textrm textnormal textsf texttt mathbf mathit mathsf operatorname text"
_NOTHING = (
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits nolimits "
    "large Large LARGE huge Huge normalsize small therefore implies Rightarrow Longrightarrow"
)
_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "frac", "nicefrac", "sfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom", "binom"), r"\binom"),
    **dict.fromkeys(_FONTS.split(), r"\text"),
    **dict.fromkeys(_NOTHING.split(), ""),
    **dict.fromkeys(("quad", "qquad", "thinspace", "enspace", "space", "newline"), " "),
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), r"\le "),
    **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), r"\ge "),
    **dict.fromkeys(("ne", "neq"), r"\ne "),
    **dict.fromkeys(("cdot", "times", "ast"), r"\cdot "),
    **dict.fromkeys(("ldots", "cdots", "dots", "dotsc", "dotsb", "dotsm"), r"\ldots "),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("lor", "vee"), " or "),
    **dict.fromkeys(("land", "wedge"), " and "),
    **dict.fromkeys(("emptyset", "varnothing"), r"\emptyset "),
    **dict.fromkeys(("approx", "thickapprox", "simeq", "doteq"), r"\approx "),
    "lt": "<", "gt": ">", "div": "/", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "colon": ":",
    "mathdollar": "$", "textdollar": "$", "pounds": "£", "surd": r"\sqrt ",
    "degree": r"^\circ ", "infin": r"\infty ", "prime": "'", "backslash": r"\setminus ", "smallsetminus": r"\setminus ",
    "triangle": r"\triangle ", "bigcup": r"\cup ", "varphi": r"\phi ", "R": r"\mathbb{R}",
}  # fmt: skip
_SIGNS = {
    "!": "", ",": " ", ";": " ", ":": " ", " ": " ", "\n": " ", "%": "%", "$": "$", "(": "", ")": "", "[": "", "]": "",
    "|": "|", "&": "&", "#": "#", "_": "_",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:([A-Za-z]+)|(.))\s*", re.DOTALL)
_GROUP = r"(?:,\\!\s*|\{,\}|\\[,;: ]|[ ~'])"
_GROUPED = re.compile(rf"(?<![\d.])\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)")
_GROUP_SIGN = re.compile(_GROUP)
_PLAIN_FUNCTIONS = re.compile(
    r"(?<![\\A-Za-z])(?:(pi|infinity|inf|theta)(?![A-Za-z])|(sqrt|sin|cos|tan|sec|csc|cot|ln|log|exp|arcsin|arccos|arctan)"
    r"(?=\s*(?:[({^\\|\d]|[A-Za-z](?![A-Za-z])|pi|theta)))"  # and not `5 sec`
)
_MIXED = re.compile(r"(?<![\d./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d/])")
_WRAPPED = re.compile(
    r"\s*(?:\$\$?(?P<dollars>(?:[^$\\]|\\.)*)\$\$?|`(?P<code>[^`]*)`|\"(?P<quoted>[^\"]*)\"|'(?P<single>[^']*)'"
    r"|\*(?P<star>[^*\s](?:[^*]*[^*\s])?)\*)\s*[.,;]?\s*",
    re.DOTALL,
)
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_COUNTED = re.compile(r"(?<=\d)\s*(\\text\s*\{)?\s*(hundred|thousand|million|billion|trillion)s?\b")
_CONJUNCTION = re.compile(r"\\text\s*\{[\s,]*(and|or)[\s,]*\}")
_INVISIBLE = re.compile(r"\\[hv]?(?:space|phantom|skip)\*?\s*\{[^{}]*\}")
_DRESSED = re.compile(
    r"\\(?:(?:text)?color\s*\{[^{}]*\}|underline(?=\s*\{)|boldsymbol(?=\s*\{)|boxed(?=\s*\{)|fbox(?=\s*\{))"
)
_MATHS_IN_FONT = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|rm|it|sf)|bm)\s*(?=\{[^{}]*\\(?:d?frac|sqrt|pi)\b)")
_OLD_FONT = re.compile(r"\{\s*\\(?:rm|bf|it|sf)(?![A-Za-z])([^{}]*)\}")
_OVER = re.compile(r"\{([^{}]*)\\(over|choose)(?![A-Za-z])([^{}]*)\}")
_END = re.compile(r"(?:\s|\\\\|\\(?=\s*$)|\\(?:black)?square|\\qed|\\checkmark|[∎✓✅■□])+$")
_START = re.compile(r"^(?:=|\\approx\b|\\sim\b)\s*")
_LONE_SIGN = re.compile(r"\{([-+:=<>])\}")
_ROMAN = re.compile(r"\\text\s*\{\s*(sin|cos|tan|sec|csc|cot|ln|log|exp|arcsin|arccos|arctan|gcd|lcm|max|min|det)\s*\}")
_RANK = r"(?:st|nd|rd|th)"
_ORDINAL = re.compile(
    rf"(?<=\d)\s*(?:\^\s*(?:\{{\s*\\text\s*\{{{_RANK}\}}\s*\}}|\{{{_RANK}\}}|{_RANK}(?![A-Za-z]))|"
    rf"\^?\s*\\text\s*\{{{_RANK}\}}|{_RANK}(?![A-Za-z]))"
)
_SCIENTIFIC = re.compile(r"(?<=\d)\s*x\s*(?=10\s*\^)")
_DEGREES = re.compile(r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z])|\\text\s*\{\s*o\s*\})|(?<=\d)\{\}(?=\^)")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d{1,40})\}|"
                        r"(?<![\d.])(\d*)\.(\d*?)(\d{1,6}?)\6{2,}\s*\\ldots\s*$")  # fmt: skip
_STACKED = {"over": "frac", "choose": "binom"}
_NOT_EQUAL = re.compile(r"(?<![\d)])!=")  # 5!=120 is an equation
_UNION = re.compile(r"(?<=[)\]])\s*U\s*(?=[(\[])")
_MARKDOWN = re.compile(r"(\*\*|__)(?=\S)(.*?\S)\1", re.DOTALL)


def tidy(text: str) -> str:
    """One name for every symbol, wrappers taken off, spaces kept."""
    if not text.isascii():
        text = _from_unicode(text)
    text = text.strip()
    while found := _WRAPPED.fullmatch(text):
        inner = found[found.lastgroup or 0].strip()
        if not inner:
            break
        text = inner
    if "*" in text or "__" in text:
        text = _MARKDOWN.sub(r"\2", text)
        text = text.replace("**", "^") if re.search(r"[\w)]\*\*[\w(-]", text) else text
    if "\\" in text:
        text = _undressed(text)
    if "{" in text:
        text = _LONE_SIGN.sub(r"\1", text)
    if any(sign in text for sign in " \\{~'"):
        text = _GROUPED.sub(lambda found: _GROUP_SIGN.sub("", found[0]), text)
        text = _MIXED.sub(_mixed, text)
    if "\\" in text:
        text = _COMMAND.sub(_command, text)
        text = _CONJUNCTION.sub(r" \1 ", text)
        text = _ROMAN.sub(r"\\\1 ", text)
    text = _END.sub("", text) if not text[-1:].isalnum() or "\\" in text else text
    text = _START.sub("", text) if text[:1] in ("=", "\\") else text
    if "th" in text or "nd" in text or "st" in text or "rd" in text:
        text = _ORDINAL.sub("", text)
    if "x" in text or "^" in text or "U" in text:
        text = _SCIENTIFIC.sub(r"\\cdot ", text)
        text = _DEGREES.sub(lambda found: "" if found[0] == "{}" else r"^\circ ", text)
        text = _UNION.sub(r"\\cup ", text)
    text = text.replace("+/-", r"\pm ").replace("~", " ") if "/" in text or "~" in text else text
    if "illion" in text or "thousand" in text or "hundred" in text:
        text = _COUNTED.sub(lambda found: f"\\cdot {10 ** _POWERS[found[2]]} {found[1] or ''}", text)
    text = _PLAIN_FUNCTIONS.sub(_function, text)
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ")
    text = _NOT_EQUAL.sub(r"\\ne ", text).replace("...", r"\ldots ")
    if "." in text and "\\" in text:
        text = _REPEATING.sub(_repeating, text)
    return text.strip().rstrip(".;,").strip() if text[-1:] in ".;, " or text[:1] == " " else text


def _undressed(text: str) -> str:
    """Colours, sizes, blanks and old-style fonts off; `{a \\over b}` as a fraction."""
    text = _INVISIBLE.sub(" ", text)
    text = _MATHS_IN_FONT.sub("", _DRESSED.sub("", text))
    text = _OLD_FONT.sub(r"\\text{\1}", text)
    if "\\over" in text or "\\choose" in text:
        text = f"{{{text}}}" if _OVER.fullmatch(f"{{{text}}}") else text
        text = _OVER.sub(lambda found: f"\\{_STACKED[found[2]]}{{{found[1].strip()}}}{{{found[3].strip()}}}", text)
    return text


def _repeating(found: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, once, again = found.groups()[:3] if found[3] else found.groups()[3:]
    top = int(f"{whole}{once}{again}") - int(f"0{whole}{once}")
    return f"\\frac{{{top}}}{{{10 ** len(once) * (10 ** len(again) - 1)}}}"


def _from_unicode(text: str) -> str:
    text = re.sub(f"[{_SUPERSCRIPTS}]+", _superscript, text)
    text = re.sub(f"[{_SUBSCRIPTS}]+", lambda found: f"_{{{unicodedata.normalize('NFKC', found[0])}}}", text)
    text = text.translate(_TRANSLATE)
    text = unicodedata.normalize("NFKC", text).translate(_TRANSLATE)
    return "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Cc") or char in "\n\t")


def _superscript(found: re.Match[str]) -> str:
    digits = "".join("0123456789-n"[_SUPERSCRIPTS.index(char)] for char in found[0])
    return f"^{digits}" if len(digits) == 1 else f"^{{{digits}}}"


def _command(found: re.Match[str]) -> str:
    name, sign = found[1], found[2]
    if name is None:
        return _SIGNS.get(sign, f"\\{sign}")
    known = _COMMANDS.get(name)
    if known is not None:
        return known
    return f"\\{name} "


def _function(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return r"\infty " if name.startswith("inf") else f"\\{name} "


def _mixed(found: re.Match[str]) -> str:
    whole, top, bottom = found.groups()
    return f"{whole}\\frac{{{top}}}{{{bottom}}}" if int(top[:9]) < int(bottom[:9]) else found[0]


_ATOM = re.compile(r"\s*(\\[A-Za-z]+|[^\s{}\\])")
_SHORT_GROUP = re.compile(r"([\^_])\{([A-Za-z0-9])\}(?![\d.])")  # x^{2}3 is not x^23
_SPACES = re.compile(r"(?<!\d)\s+|\s+(?!\s|\d)")  # two numbers side by side stay two
_NEEDED_SPACE = re.compile(r"(\\[A-Za-z]+)\s+(?=[A-Za-z])")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ROOT_OF_PARENS = re.compile(r"\\sqrt\(([^()]*)\)")


def tight(text: str) -> str:
    """A tidied text without spaces, its arguments braced: equal strings for equal spellings."""
    if "\\" not in text and "{" not in text:
        return _SPACES.sub("", text)
    text = _TEXT.sub(r"\1", text)
    text = _braced(text)
    text = _NEEDED_SPACE.sub("\\1\0", text)
    text = _SPACES.sub("", text).replace("\0", " ")
    text = _SHORT_GROUP.sub(r"\1\2", text)
    text = _ROOT_OF_PARENS.sub(r"\\sqrt{\1}", text)
    return text[1:] if text[:1] == "+" else text


def _braced(text: str) -> str:
    """`\\frac12`, `\\frac\\pi4`, `\\frac{1}2` and `\\sqrt3` with their braces."""
    out, at = [], 0
    for found in re.finditer(r"\\(frac|binom|sqrt)(?![A-Za-z])\s*", text):
        if found.start() < at:
            continue
        out.append(text[at : found.start()])
        at = found.end()
        out.append(f"\\{found[1]}")
        if found[1] == "sqrt" and (index := re.compile(r"\[([^\[\]]*)\]\s*").match(text, at)):
            out.append(f"[{index[1]}]")
            at = index.end()
        for _ in range(1 if found[1] == "sqrt" else 2):
            if text[at : at + 1] == "{":
                end = closing(text, at)
                if end < 0:
                    break
                out.append(f"{{{_braced(text[at + 1 : end])}}}")
                at = end + 1
            elif (atom := _ATOM.match(text, at)) and atom[1] not in "()[]+-=,":
                out.append(f"{{{atom[1]}}}")
                at = atom.end()
            else:
                break
            at += len(text[at:]) - len(text[at:].lstrip()) if text[at : at + 1].isspace() else 0
    out.append(text[at:])
    return "".join(out)


def closing(text: str, start: int) -> int:
    """Where the brace that opens at `start` closes, or -1. An escaped brace is no brace."""
    depth = 0
    for found in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            depth -= 1
            if depth == 0:
                return found.start()
    return -1
