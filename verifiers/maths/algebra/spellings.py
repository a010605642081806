"""The tables of the lexer: which signs, commands and names mean the same.

The idea: every spelling has one row here, written as words, so that latex.py holds no vocabulary.
Source of the names: the LaTeX and amsmath command lists, and the ways the MATH and GSM8K answers are written.
"""

from __future__ import annotations


def _all(names: str, value: str) -> dict[str, str]:
    """Every name of a list, with one value."""
    return dict.fromkeys(names.split(), value)


def _each(pairs: str) -> dict[str, str]:
    """`name=value` pairs."""
    return dict(pair.split("=", 1) for pair in pairs.split())


def _same(names: str) -> dict[str, str]:
    """Names that stand for themselves."""
    return {name: name for name in names.split()}


def _kind(kind: str, pairs: str) -> dict[str, tuple[str, str]]:
    """Tokens of one kind, from `name=value` pairs."""
    return {name: (kind, value) for name, value in _each(pairs).items()}


_GREEK_SIGNS = dict(
    zip(
        "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        _same(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi"
            " omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
        ),
        strict=True,
    )
)
_COMMAND_SIGNS = _each(
    "×=cdot ·=cdot ⋅=cdot ∙=cdot ⨯=cdot ≤=le ⩽=le ≥=ge ⩾=ge ≠=ne ≈=approx ∞=infty ∪=cup ∩=cap ∈=in ∅=emptyset √=sqrt"
    " ±=pm ∓=mp …=dots ⋯=dots ⌊=lfloor ⌋=rfloor ⌈=lceil ⌉=rceil π=pi ∖=setminus ∧=land ∨=lor ∑=sum ∏=prod ≡=equiv"
)
_TEXT_SIGNS = _each(
    "−=- –=- —=- ‐=- ‑=- ﹣=- －=- ÷=/ ∕=/ ⁄=/ °=^\\circ ′=' ’=' ℝ=\\mathbb{R} ∛=\\sqrt[3] （=( ）=) ，=, ；=; ：=:"
    " ［=[ ］=] ½=\\frac{1}{2} ⅓=\\frac{1}{3} ⅔=\\frac{2}{3} ¼=\\frac{1}{4} ¾=\\frac{3}{4} ＝=="
)

#: Unicode signs to LaTeX, for str.translate.
SIGNS = str.maketrans(
    {
        **{sign: f"\\{name} " for sign, name in (_GREEK_SIGNS | _COMMAND_SIGNS).items()},
        **_TEXT_SIGNS,
        **{digit: f"^{{{value}}}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
        **{digit: f"_{{{value}}}" for value, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    }
)

#: Names that take an argument, in all their spellings, to one.
FUNCTIONS = {
    **_same("sin cos tan cot sec csc sinh cosh tanh coth sech csch exp ln log max min gcd lcm sqrt cbrt abs floor"),
    **_same("ceil arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh arctanh binom factorial"),
    **_each("asin=arcsin acos=arccos atan=arctan acot=arccot asec=arcsec acsc=arccsc asinh=arcsinh acosh=arccosh"),
    **_each("atanh=arctanh arsinh=arcsinh arcosh=arccosh artanh=arctanh cosec=csc tg=tan ctg=cot arctg=arctan lg=log"),
    **_each("ceiling=ceil sgn=sign sign=sign"),
}

#: What letters that touch may begin with, without a backslash.
PLAIN = frozenset(FUNCTIONS) - {"tg", "lg", "sign", "sgn"} | {"pi"}

#: Relations, in plain text and by command.
RELATIONS = {
    **_same("= < > <= >= !="),
    "=<": "<=",
    "=>": ">=",
    "==": "=",
    "~=": "~",
    **_all("\\le \\leq \\leqslant \\leqq", "<="),
    **_all("\\ge \\geq \\geqslant \\geqq", ">="),
    **_all("\\ne \\neq", "!="),
    **_all("\\approx \\simeq \\doteq", "~"),
    **_each("\\lt=< \\gt=> \\in=in \\equiv=equiv"),
}

#: Commands by what they are to the grammar: the kind of token and its value.
COMMANDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(_same("\\frac \\dfrac \\tfrac \\cfrac \\sfrac \\nicefrac"), ("frac", "")),
    **dict.fromkeys(_same("\\binom \\dbinom \\tbinom"), ("binom", "")),
    **dict.fromkeys(_same("\\dots \\ldots \\cdots \\dotsc \\dotsb \\dotso"), ("dots", "")),
    **dict.fromkeys(_same("\\overline \\bar \\vec \\hat \\overrightarrow \\widehat \\tilde"), ("over", "")),
    **dict.fromkeys(_same("\\pmod \\bmod \\mod"), ("mod", "")),
    **dict.fromkeys(_same("\\circ \\degree"), ("degree", "")),
    **dict.fromkeys(_same("\\vert \\mid"), ("bar", "|")),
    **dict.fromkeys(_same("\\emptyset \\varnothing"), ("set", "empty")),
    **_kind(
        "op", "\\cdot=* \\times=* \\ast=* \\div=/ \\cup=cup \\cap=cap \\setminus=minus \\backslash=minus \\colon=:"
    ),
    **_kind("pm", "\\pm=+ \\mp=-"),
    **_kind("sep", "\\land=and \\wedge=and \\lor=or \\vee=or"),
    **_kind("const", "\\pi=pi \\infty=inf \\imath=i"),
    **_kind("big", "\\sum=sum \\prod=prod"),
    **_kind("open", "\\lvert=| \\lfloor=floor \\lceil=ceil \\{={} \\lbrace={}"),
    **_kind("close", "\\rvert=| \\rfloor=floor \\rceil=ceil \\}={} \\rbrace={}"),
    "\\lbrack": ("open", "["),
    "\\rbrack": ("close", "]"),
    "\\sqrt": ("sqrt", ""),
    "\\prime": ("prime", ""),
    "\\ell": ("sym", "ell"),
}

#: Commands that are letters, each with the name it goes by.
LETTERS = {
    **{name: name for name in _GREEK_SIGNS.values()},
    **_same("angle triangle"),
    **_each("varepsilon=epsilon vartheta=theta varphi=phi varrho=rho varsigma=sigma"),
}

#: Short words that are no product of letters.
WORDS = frozenset(_same("yes odd all the not any one two six ten are for non nor but was has its"))
