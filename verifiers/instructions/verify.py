"""The verifier "instructions": does a response keep every constraint of its row?

A row's `instructions` is a list of `{"id": "length_constraints:number_words", "kwargs": {...}}`, or the row has the two
columns of IFEval's own file, `instruction_id_list` and `kwargs`. Each may be a JSON string, as datasets keep it. The
ids are those of `ifeval`, of `ifbench` and of what else is registered with `@constraint`.

The laws: all constraints hold or the score is 0.0 (`partial=True` gives the share instead); an empty response, and one
without a letter or a digit, keeps none; an unknown id or arguments that do not fit make the row unjudged, with what is
wrong, because the response is not to blame. Not covered: a response's reasoning in <think> tags is text like any other
here; take it off before, or gate with `format.think`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gristmill.verifiers.instructions import ifbench, ifeval, texts
from gristmill.verifiers.instructions.constraint import BadArguments, Constraint, Finding, find
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

__all__ = ["ifbench", "ifeval", "instructions", "variants"]


@verifier("instructions", version=2)
def instructions(
    prompt: str,
    response: str,
    instructions: Sequence[Mapping[str, Any]] | None = None,
    instruction_id_list: Sequence[str] | None = None,
    kwargs: Sequence[Mapping[str, Any] | None] | None = None,
    *,
    mode: Literal["strict", "loose"] = "strict",
    partial: bool = False,
) -> Verdict:
    """1.0 ("followed") where all constraints hold, else 0.0 ("not_followed"), or with `partial` the share that hold.

    In `mode` "loose" a constraint holds where one of the response's eight `variants` keeps it, as IFEval counts.
    Other reasons: "empty" (0.0); "no_instructions", "unknown_instruction", "bad_kwargs", "bad_mode" (None). The
    evidence has for each constraint its id, whether it is `ok`, and what was found: the count, or what is lacking.
    """
    if mode not in ("strict", "loose"):
        return Verdict(None, "bad_mode", {"mode": str(mode)[:80]})
    try:
        asked = _asked(instructions, instruction_id_list, kwargs)
        unknown = [name for name, _ in asked if find(name) is None]
        if not asked:
            return Verdict(None, "no_instructions")
        if unknown:
            return Verdict(None, "unknown_instruction", {"ids": [name[:80] for name in unknown[:5]]})
        checks = [(name, known, known.arguments(given)) for name, given in asked if (known := find(name)) is not None]
        if not texts.says_something(response):
            return Verdict(0.0, "empty")
        said = variants(response) if mode == "loose" else [response]
        found = [(name, _kept(known, said, given)) for name, known, given in checks]
    except BadArguments as error:
        return Verdict(None, "bad_kwargs", {"error": str(error)[:200]})
    return _verdict(found, partial)


def variants(response: str) -> list[str]:
    """The response, without its first, last, and first and last line, and each of them without asterisks: IFEval's
    eight, without the same text twice and without those that say nothing."""
    lines = response.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    each = [response, response.replace("*", ""), *cut, *(text.replace("*", "") for text in cut)]
    return [text for text in dict.fromkeys(each) if texts.says_something(text)]


def _asked(
    instructions: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str] | None,
    kwargs: Sequence[Mapping[str, Any] | None] | None,
) -> list[tuple[str, Mapping[str, Any]]]:
    """The row's instructions: ids and arguments."""
    instructions, ids, kwargs = _parsed(instructions), _parsed(ids), _parsed(kwargs)
    if instructions is None and ids is not None:
        if not _is_list(ids) or not (kwargs is None or _is_list(kwargs)):
            raise BadArguments("instruction_id_list and kwargs are lists")
        arguments = [{}] * len(ids) if kwargs is None else kwargs
        if len(arguments) != len(ids):
            raise BadArguments(f"{len(ids)} ids in instruction_id_list and {len(arguments)} kwargs")
        instructions = [{"id": name, "kwargs": given} for name, given in zip(ids, arguments, strict=True)]
    if not (instructions is None or _is_list(instructions)):
        raise BadArguments("instructions is no list of {id, kwargs}")
    asked = []
    for item in instructions or ():
        name = item.get("id") if isinstance(item, Mapping) else None
        given = (item.get("kwargs") or {}) if isinstance(item, Mapping) else {}
        if not isinstance(name, str) or not isinstance(given, Mapping):
            raise BadArguments(f"an instruction is {{id: text, kwargs: mapping}}, not {str(item)[:80]!r}")
        asked.append((name, given))
    return asked


def _parsed(value: Any) -> Any:
    """JSON text as what it says, all else as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _kept(known: Constraint, said: Sequence[str], given: Mapping[str, Any]) -> Finding:
    """What the first text that keeps the constraint shows, else what the response itself does."""
    first = known.check(said[0], **given)
    if first.ok:
        return first
    return next((found for text in said[1:] if (found := known.check(text, **given)).ok), first)


def _verdict(found: Sequence[tuple[str, Finding]], partial: bool) -> Verdict:
    kept = sum(finding.ok for _, finding in found)
    score = kept / len(found) if partial else float(kept == len(found))
    each: list[dict[str, Any]] = []
    for name, finding in found:
        each.append({"id": name, "ok": finding.ok})
        if finding.found is not None:
            each[-1]["found"] = finding.found
    evidence: dict[str, Any] = {"constraints": each}
    attack = next((finding.attack for _, finding in found if finding.attack is not None), None)
    if attack is not None:
        evidence["attack"] = attack
    return Verdict(score, "followed" if kept == len(found) else "not_followed", evidence)
