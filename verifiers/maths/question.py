r"""What the prompt has to do with the answer: the echo of a question, the value of what was asked, the chosen letter.

The law: a formula that the prompt already holds is no answer to it, unless it is a plain number or says the gold answer
in the gold's own words (which is settled before). Not covered: questions restated in words.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from gristmill.verifiers.maths.forms import Form
from gristmill.verifiers.maths.normal import tidy, tight

_LETTER = re.compile(r"\(?([A-Z])\)?")
_DRESS = re.compile(r"\\text\s*\{|[{}$]|\\[a-z]*quad\b|\\[,;: ]")
_CALLED = r"(?:[A-Za-z' ,]{0,40}?\b(?i:answer|option|choice)\b(?:\s+(?:is|must be|should be))?\s*:?\s*)"
_CHOICE = re.compile(
    rf"\s*(?:{_CALLED}\(?\s*([A-Z])\b\s*[).:]?(?=\W|$)|[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])(?:\s*\)|[.:](?=\s|$)|(?=\s*=)|"
    r"(?=,\s*[a-z])))(?P<rest>.*)",
    re.DOTALL,
)
_ANOTHER = re.compile(
    r"\(([A-Z])\)|(?<![A-Za-z\\])([A-J])\s*[).:](?=\s+\S)|(?:\b(?:or|and|not)\b|,|^|=)\s*\(?([A-J])\b(?=[).,]|\s*$|\s+(?:or|and)\b)"
)


def choice(want: Form, answer: str) -> bool | None:
    """Whether an answer such as `(C) 12` or `option C` chooses the gold letter and no other; None for no choice."""
    if not _LETTER.fullmatch(want.text) or want.kind != "expression":
        return None
    plain = _DRESS.sub(" ", answer)
    chosen = _CHOICE.fullmatch(plain)
    if chosen is None:
        return None
    letter = want.text.strip("()")
    others = {found[1] or found[2] or found[3] for found in _ANOTHER.finditer(chosen["rest"].strip())}
    return (chosen[1] or chosen[2] or chosen[3]).upper() == letter and others <= {letter}


def value_asked(prompt: str, want: Form, got: Form) -> Form:
    """`a + b = 5` is 5 where the prompt asks for a + b and does not itself say that it is 5."""
    if got.kind != "equation" or want.kind in ("equation", "relation") or want.label or len(got.items) != 2:
        return got
    formulas = _formulas(prompt)
    return got.items[1] if got.items[0].text in formulas and got.text not in formulas else got


def restated(prompt: str, want: Form, got: Form) -> bool:
    """Whether an answer only says the question again: a whole formula of the prompt that is not yet worked out.

    An inequality for a gold interval may be the question too; it counts where the prompt shows that it is not.
    """
    if got.kind in ("number", "words") and (got.tree is None or got.tree[0] == "num" or _reduced(got)):
        return False
    if got.kind == "relation" and want.kind in ("interval", "union") and not prompt:
        return True
    if not prompt or len(got.text) < 3:
        return False
    return got.text in _formulas(prompt)


def _reduced(form: Form) -> bool:
    tree = form.tree
    while tree is not None and tree[0] == "neg":
        tree = tree[1]
    if tree is None or tree[0] != "/" or tree[1][0] != "num" or tree[2][0] != "num":
        return False
    return math.gcd(tree[1][1].numerator, tree[2][1].numerator) == 1


_FORMULA = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)


@lru_cache(maxsize=64)
def _formulas(prompt: str) -> frozenset[str]:
    """Every formula of a prompt as a tight text."""
    found = _FORMULA.finditer(prompt[-20_000:])
    return frozenset(tight(tidy(next(group for group in one.groups() if group is not None))) for one in found)
