"""Function calls: did the response call the right tools with the right arguments, and only them?

    tools()("What is 3! ?", '[{"name": "factorial", "arguments": {"n": 3}}]', tools=[...], calls=[...])

`tools` is a list of function schemas (BFCL's or OpenAI's), `calls` the expected calls: BFCL's possible answers
(`[{"factorial": {"n": [3]}}]`) or plain ones (`[{"name": "factorial", "arguments": {"n": 3}}]`, where a declared
default may be said or left out); both may be JSON text. How calls are read is in toolcalls/reading.py, how they are
compared in toolcalls/matching.py. Several calls match in any order (`ordered=False`) by a maximum matching, so that an
answer cannot fail because a loose expectation took the call that a strict one needs. No expected call (`[]`): prose
passes, any call or attempt at one fails.

The law kept here: an answer passes whole or not at all; expected calls that no answer can meet are not judged.
Not covered: calls that are run (their effects, several turns), and Java or JavaScript syntax.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.verifiers.toolcalls.matching import (
    Difference,
    Expected,
    GoldError,
    difference,
    expected_calls,
    schemas_of,
)
from gristmill.verifiers.toolcalls.reading import Call, UnreadableError, answer_of, read_calls
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, verifier

_SHOWN = 8  # calls in the evidence
#: What a text may be that is no call but an answer: prose, data, a program.
_PROSE = frozenset(("no_call", "not_json", "not_a_call", "several_answers", "positional_argument", "not_a_literal"))


def _reference(row: Row) -> str | None:
    """The first allowed value of every argument, as JSON calls; None where the gold is unreadable."""
    try:
        wanted = expected_calls(row.get("calls"), schemas_of(row.get("tools")))
    except GoldError:
        return None
    made = [{"name": want.name, "arguments": _first(want)} for want in wanted]
    return json.dumps(made) if made else "None of the tools fits this request."


def _first(want: Expected) -> dict[str, Any]:
    firsts = {key: next((item for item in items if item != ""), "") for key, items in want.allowed.items()}
    return {
        key: _chosen(value) if want.choices else value
        for key, value in firsts.items()
        if value != "" or key not in want.optional
    }


def _chosen(value: Any) -> Any:
    if isinstance(value, list):
        return [_chosen(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    firsts = {
        key: next((item for item in items if item != ""), "") if isinstance(items, list) else items
        for key, items in value.items()
    }
    return {key: item for key, item in firsts.items() if item != ""}


@verifier("tools", version=1, reference=_reference)
def tools(prompt: str, response: str, tools: Any, calls: Any, *, ordered: bool = False) -> Verdict:
    """1 where the response makes exactly the expected calls, else 0 with the first thing wrong; None for a bad gold.

    `ordered`: the calls must come in the expected order.
    """
    try:
        schemas = schemas_of(tools)
        wanted = expected_calls(calls, schemas)
    except GoldError as error:
        return Verdict(None, "bad_gold", {"problem": _cut(str(error))})
    if not response.strip():
        return Verdict(0.0, "empty_response")
    try:
        made = read_calls(response)
    except UnreadableError as error:
        evidence = {"detail": _cut(error.detail)}
        if wanted or error.reason not in _PROSE:
            return Verdict(0.0, error.reason, evidence)
        return Verdict(0.0, "unexpected_call", evidence) if _attempt(response, schemas) else Verdict(1.0, "no_call")
    if not wanted:
        return Verdict(0.0, "unexpected_call", {"calls": _shown(made)}) if made else Verdict(1.0, "no_call")
    if len(made) != len(wanted):
        counts = {"expected": len(wanted), "got": len(made), "calls": _shown(made)}
        return Verdict(0.0, "no_call" if not made else "wrong_count", counts)
    return _compared(made, wanted, frozenset(schemas), ordered)


def _compared(made: Sequence[Call], wanted: Sequence[Expected], names: frozenset[str], ordered: bool) -> Verdict:
    found = [[difference(call, want, names) for call in made] for want in wanted]
    right = [[i for i, item in enumerate(row) if item is None] for row in found]
    taken = {i: i for i, row in enumerate(right) if i in row} if ordered else _matching(right)
    if len(taken) == len(wanted):
        return Verdict(1.0, "calls_match", {"calls": _shown(made)})
    if ordered and len(_matching(right)) == len(wanted):
        return Verdict(0.0, "wrong_order", {"calls": _shown(made)})
    told = []
    free = [i for i in range(len(made)) if i not in taken.values()]
    for n, want in enumerate(wanted):
        if n in taken:
            told.append({"expected": want.name, "match": taken[n]})
            continue
        at = n if ordered else next((i for i in free if made[i].name == want.name), free[0])
        if not ordered:
            free.remove(at)
        told.append({"expected": want.name, "match": None, **_told(made[at], found[n][at])})
    first = next(item for item in told if item["match"] is None)
    return Verdict(0.0, str(first["reason"]), {"calls": told[:_SHOWN]})


def _matching(right: Sequence[Sequence[int]]) -> dict[int, int]:
    """A largest assignment of expectations to calls that satisfy them (augmenting paths, breadth first)."""
    owner: dict[int, int] = {}
    for start in range(len(right)):
        came: dict[int, int] = {}  # call -> the expectation that reached it
        queue, end = [start], None
        while queue and end is None:
            want = queue.pop(0)
            for call in right[want]:
                if call in came:
                    continue
                came[call] = want
                if call not in owner:
                    end = call
                    break
                queue.append(owner[call])
        held = {want: call for call, want in owner.items()}
        while end is not None:
            want = came[end]
            owner[end], end = want, held.get(want)
    return {want: call for call, want in owner.items()}


def _told(call: Call, wrong: Difference | None) -> dict[str, Any]:
    if wrong is None:  # a call that is right for another expectation too, which took it
        return {"got": _cut(call.name), "reason": "taken"}
    evidence: dict[str, Any] = {"got": _cut(call.name), "reason": wrong.reason}
    if wrong.argument is not None:
        evidence["argument"] = _cut(wrong.argument)
    if wrong.reason in ("wrong_value", "wrong_type"):
        evidence |= {"value": _cut(wrong.got), "allowed": _cut(list(wrong.allowed))}
    return evidence


def _attempt(response: str, schemas: Mapping[str, Any]) -> bool:
    """Whether an answer holds a call block, or a tool's name before arguments or in JSON."""
    text = answer_of(response)
    if "<tool_call>" in text:
        return True
    names = "|".join(re.escape(form) for name in schemas for form in {name, name.replace(".", "_")})
    if not names:
        return False
    called = rf"(?<![\w.])(?:{names})\((?!\s*\))"
    quoted = rf"""["']name["']\s*:\s*["'](?:{names})["']|["'](?:{names})["']\s*:\s*{{|"(?:{names})"\s*[:}},]"""
    return re.search(f"{called}|{quoted}", text) is not None


def _shown(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [{"name": _cut(call.name), "arguments": _cut(call.arguments)} for call in calls[:_SHOWN]]


def _cut(value: Any, limit: int = 200) -> str:
    """At most `limit` characters that any encoder takes."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text[:limit].encode("utf-8", "replace").decode()
