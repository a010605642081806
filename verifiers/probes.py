"""Probes: a task may be used only if its gold answer passes its own verifier and an empty answer fails it.

A task that its own gold fails punishes the right answer; one that nothing fails rewards silence. Both are common in
published sets. The law: a row whose task fails a probe is not judged, with the probe as the reason; it is never scored.

A gold that could not be judged (an outage, a time-out) fails the probe too: what cannot be judged once cannot be relied
on. Composed verifiers are probed part by part, since a gold answer need not have the form that a gate asks for. A task
without any gold is probed by the empty answer alone. Not covered: a gold that passes and is wrong.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from gristmill.dataops.identity import canonical_json
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier

_NOT_JUDGED = "gold_not_judged"


def gold_must_pass(verifier: Verifier, rows: Sequence[Row]) -> list[Verdict | None]:
    """What the verifier says of each row's gold answer: a score of 1 passes. None where the row has no gold answer."""
    golds = [verifier.gold(row) for row in rows]
    there = [i for i, gold in enumerate(golds) if isinstance(gold, str)]
    told = [gold if isinstance(gold, Verdict) else None for gold in golds]
    verdicts = verifier.rows([{**rows[i], "response": golds[i]} for i in there])
    for i, verdict in zip(there, verdicts, strict=True):
        told[i] = verdict
    return told


def empty_must_fail(verifier: Verifier, rows: Sequence[Row]) -> list[Verdict]:
    """What the verifier says of an empty answer to each row: anything above 0 is a task that rewards silence."""
    return verifier.rows([{**row, "response": ""} for row in rows])


@functools.cache
def _found(verifier: str) -> dict[bytes, Verdict | None]:
    """What was found of tasks, by a hash of their columns: a process meets the same ones in later batches. Some 150
    bytes a task; nothing of the verifier is kept, whose pool may be closed by then."""
    return {}


def probed(verifier: Verifier, rows: Sequence[Row]) -> list[Verdict]:
    """Verdicts in order, each task probed once before it is used; rows whose task fails a probe are not judged.

    A gold that could not be judged is asked about again in the next batch: an outage may be over.
    """
    known = _found(f"{verifier.origin} {verifier.identity}")
    tasks = [_task(row) for row in rows]
    new = {task: row for task, row in zip(tasks, rows, strict=True) if task not in known}
    found = dict(zip(new, troubles(verifier, list(new.values())), strict=True))
    known |= {task: said for task, said in found.items() if said is None or said.reason != _NOT_JUDGED}
    said_of = [found[task] if task in found else known[task] for task in tasks]
    judged = iter(verifier.rows([row for row, said in zip(rows, said_of, strict=True) if said is None]))
    return [next(judged) if said is None else said for said in said_of]


def _task(row: Row) -> bytes:
    seen = {name: value for name, value in row.items() if name not in ("id", "response")}
    try:
        spelled = canonical_json(seen)
    except (TypeError, ValueError):  # a value without a stable spelling, such as bytes
        spelled = repr(sorted(seen.items()))
    return blake2b(spelled.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def troubles(verifier: Verifier, rows: Sequence[Row]) -> list[Verdict | None]:
    """Why each row's task may not be used, as the verdict its responses get; None for a sound one."""
    found: list[Verdict | None] = [None] * len(rows)
    for leaf in _leaves(verifier):
        left = [i for i, said in enumerate(found) if said is None]
        asked = [rows[i] for i in left]
        for i, gold in zip(left, gold_must_pass(leaf, asked), strict=True):
            if gold is not None and gold.score != 1.0:
                found[i] = _trouble("gold_fails" if gold.score is not None else _NOT_JUDGED, leaf, gold)
        if leaf.empty_fails:
            for i, empty in zip(left, empty_must_fail(leaf, asked), strict=True):
                if found[i] is None and empty.score is not None and empty.score > 0:
                    found[i] = _trouble("empty_passes", leaf, empty)
    return found


def _trouble(reason: str, leaf: Verifier, said: Verdict) -> Verdict:
    evidence: dict[str, Any] = {"verifier": leaf.name, "reason": said.reason, "evidence": dict(said.evidence)}
    return Verdict(None, reason, evidence)


def _leaves(verifier: Verifier) -> Iterator[Verifier]:
    if not verifier.parts:
        yield verifier
    for part in verifier.parts:
        yield from _leaves(part)
