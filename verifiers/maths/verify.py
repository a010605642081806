r"""maths: is the final answer of a response the gold answer?

One answer is taken from the response (answer.py), taken apart (structure.py) and compared rung by rung (ladder.py),
algebra last, in workers that can be killed (symbolic.py).

The laws: a response that hedges between different answers is wrong; a gold answer that nobody can read and algebra that
ran out of time are not judged; anything else that is not the gold answer is wrong, however long, deep or hostile.
Not covered: proofs, whether the way to the answer is right, conversion of units, numbers in words.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from gristmill.verifiers.maths.answer import EMPTY, Answer, final, stated, top_boxes
from gristmill.verifiers.maths.arithmetic import literal
from gristmill.verifiers.maths.forms import Form
from gristmill.verifiers.maths.ladder import Policy, same
from gristmill.verifiers.maths.normal import tidy
from gristmill.verifiers.maths.question import choice, restated, value_asked
from gristmill.verifiers.maths.structure import read
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

#: The longest answer read, in characters; the deepest braces; the most different boxes compared.
MAX_ANSWER, MAX_BRACES, MAX_BOXES = 4000, 50, 4
_SHOWN = 200


def _reference(row: Mapping[str, Any]) -> str | None:
    gold = row.get("gold")
    text = _written(gold[0] if isinstance(gold, list) and gold else gold)
    return None if text is None else f"\\boxed{{{text}}}"


@verifier("maths", version=1, reference=_reference)
def maths(
    prompt: str,
    response: str,
    gold: str | Sequence[str],
    *,
    percent: Literal["same", "ratio"] = "same",
    places: int = 6,
    names: Literal["kept", "droppable", "free"] = "droppable",
    seconds: float = 5.0,
) -> Verdict:
    """1 where the response's one final answer is the gold answer (or one of several accepted), else 0.

    `percent`: whether 10% is 10 or 0.1. `places`: how far a decimal, on either side, has to agree. `names`: whether the
    gold's labels (`x = 3`) have to be there, may be missing, or may be others. `seconds`: for all algebra of one row.
    None: "gold_unreadable", or "timeout", "failed" and "undecided" where algebra could not tell, though the answer is
    no monster of powers (which is wrong).
    """
    accepted = list(gold) if isinstance(gold, list | tuple) else [gold]
    texts = [_written(one) for one in accepted]
    found = final(prompt, response)
    shown = {"gold": str(accepted[0] if len(accepted) == 1 else accepted)[:_SHOWN]}
    readable = [text for text in texts if text is not None]
    if not readable:
        return Verdict(None, "gold_unreadable", shown)
    if found is None:
        return Verdict(0.0, "no_answer", shown)
    last = found.groups[-1]
    shown = {"answer": (last[0] if len(last) == 1 else ", ".join(last))[:_SHOWN], "gold": readable[0][:_SHOWN]}
    shown["found"] = found.how
    if any(sum(map(len, group)) > MAX_ANSWER for group in found.groups):
        return Verdict(0.0, "answer_too_long", shown)
    policy = Policy(percent, places, names)
    return _judged(prompt, found, readable, policy, seconds, shown, complete=len(readable) == len(texts))


def _judged(
    prompt: str, found: Answer, golds: list[str], policy: Policy, seconds: float, shown: dict[str, Any], complete: bool
) -> Verdict:
    deadline, groups = time.monotonic() + seconds, found.groups
    told = [_grouped(prompt, group, golds, policy, deadline) for group in groups[: MAX_BOXES + 1]]
    if len(told) > MAX_BOXES or (len(told) > 1 and any(one.right is False for one in told)):
        answers = [", ".join(group)[:40] for group in groups[:MAX_BOXES]]
        return Verdict(0.0, "several_answers", {**shown, "answers": answers})
    worst = next((one for one in told if one.right is None), told[0])
    evidence = {**shown, "rung": worst.rung}
    if worst.right is False and not complete and worst.reason == "different":
        return Verdict(None, "gold_unreadable", evidence)
    return Verdict(None if worst.right is None else float(worst.right), worst.reason, evidence)


@dataclass(frozen=True)
class Told:
    """Whether an answer is right (None: nobody can say), the rung that said so, and the reason it gave."""

    right: bool | None
    rung: str
    reason: str


def _grouped(prompt: str, group: tuple[str, ...], golds: list[str], policy: Policy, deadline: float) -> Told:
    """A box, or boxes side by side: together the gold list, or each of them the gold answer in other words."""
    told = _any_gold(prompt, ", ".join(group), golds, policy, deadline)
    if told.right or len(group) == 1 or len(group) > MAX_BOXES:
        return told
    each = [_any_gold(prompt, text, golds, policy, deadline) for text in group]
    return each[0] if all(one.right for one in each) else told


def _any_gold(prompt: str, text: str, golds: list[str], policy: Policy, deadline: float) -> Told:
    told = []
    for gold in golds:
        told.append(_compared(prompt, text, gold, policy, deadline))
        if told[-1].right:
            return told[-1]
    return next((one for one in told if one.right is None), told[0])


def _compared(prompt: str, text: str, gold: str, policy: Policy, deadline: float) -> Told:
    """One answer and one gold answer."""
    if text == gold and policy.percent == "same":
        return Told(True, "text", "equal")
    want = _gold_form(gold, policy.names == "free")
    plain, tidied = literal(text), text
    if plain is None:
        if not 0 <= _depth(text) <= MAX_BRACES:
            return Told(False, "text", "unreadable_answer")
        tidied = tidy(text)
    got = read(_renamed(tidied) if policy.names == "free" else tidied)
    if want.text == got.text and want.kind == got.kind and want.label == got.label and want.unit == got.unit:
        return Told(True, "text", "equal")
    letter = choice(want, tidied)
    if letter is not None:
        return Told(letter, "text", "equal" if letter else "different")
    got = value_asked(prompt, want, got)
    if plain is None and restated(prompt, want, got):
        return Told(False, "text", "restated_question")
    said: list[str] = []

    def ask(one: str, other: str) -> bool | None:
        from gristmill.verifiers.maths.algebra.symbolic import outcome

        left = deadline - time.monotonic()
        said.append(outcome(one, other, seconds=left) if left > 0 else "timeout")
        return _OUTCOMES.get(said[-1])

    right = same(want, got, policy, ask)
    if right is None and said and said[-1] != "timeout" and _OUTSIZED.search(tidied) and not _OUTSIZED.search(gold):
        return Told(False, "symbolic", "answer_too_large")  # made so that nobody can say, and not by the gold answer
    if right is None:
        return Told(None, "symbolic", _UNSAID.get(said[-1], said[-1]) if said else "undecided")
    if right is False and said and said[-1] in _UNREADABLE:
        return Told(False, "symbolic", "unreadable_answer")
    return Told(right, "symbolic" if said else _rung(want, got), "equal" if right else "different")


#: What algebra says (symbolic.outcome). An answer that it cannot read or that is too long for it is wrong.
_UNREADABLE = ("answer_unreadable", "answer_too_large", "answer_undefined")
_OUTCOMES = {"equal": True, "different": False, **dict.fromkeys(_UNREADABLE, False)}
_UNSAID = {"gold_too_large": "gold_unreadable", "gold_undefined": "gold_unreadable"}


def _rung(want: Form, got: Form) -> str:
    if {want.kind, got.kind} - {"number", "expression"}:
        return "structure"
    exactly = all(form.number is not None and form.number.places is None for form in (want, got))
    return "exact" if exactly else "numeric"


@lru_cache(maxsize=4096)
def _gold_form(gold: str, free: bool) -> Form:
    tidied = tidy(gold)
    return read(_renamed(tidied) if free else tidied)


def _written(gold: Any) -> str | None:
    """A gold answer as a text; None where it is none."""
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = repr(gold)
    return _gold_text(gold) if isinstance(gold, str) else None


@lru_cache(maxsize=4096)
def _gold_text(gold: str) -> str | None:
    """The answer in a gold column: itself, or what a worked solution ends with; None where there is none to read."""
    if "####" in gold:
        gold = gold.rpartition("####")[2]
    elif "\\boxed" in gold or "\\fbox" in gold:
        gold = ", ".join(dict.fromkeys(text for *_, text in top_boxes(gold) if not EMPTY.fullmatch(text)))
    elif "\n" in gold.strip() and (found := stated(gold)) is not None:
        gold = found.groups[0][0]
    gold = gold.strip().rstrip("\\").strip()
    if not gold or len(gold) > MAX_ANSWER or not 0 <= _depth(gold) <= MAX_BRACES:
        return None
    return None if EMPTY.fullmatch(gold) or not tidy(gold) else gold


#: Powers in which algebra gets lost: an exponent of three digits, or with an exponent of its own.
_OUTSIZED = re.compile(r"\^\s*\{?\s*-?(?:\d{3}|\d+\s*\^)|\d{4}\s*!|!\s*!")
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)
_FREE_NAME = re.compile(r"(\\[A-Za-z]+)|(?<![A-Za-z])([A-DF-HJ-Za-df-hj-z])(?![A-Za-z])")


def _depth(text: str) -> int:
    """How deep the braces go; -1 where they do not pair."""
    depth = deepest = 0
    for found in _BRACES.finditer(text):
        depth += (found[0] == "{") - (found[0] == "}")
        deepest = max(deepest, depth)
        if depth < 0:
            return -1
    return deepest if depth == 0 else -1


def _renamed(text: str) -> str:
    """Single letters by their order of appearance."""
    known: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return found[1] or known.setdefault(found[2], "abcdfghjklmnopqrstuvwxyz"[min(len(known), 23)])

    return _FREE_NAME.sub(name, text)
