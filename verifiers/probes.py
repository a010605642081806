"""Probes: a task may be used only if its gold answer passes its own verifier and an empty answer fails it.

A task that its own gold fails punishes the right answer; one that nothing fails rewards silence. Both are common in
published sets. The law: a row whose task fails a probe is not judged, with the probe as the reason; it is never scored.

A gold that could not be judged (an outage, a time-out) fails the probe too: what cannot be judged once cannot be relied
on. Composed verifiers are probed part by part, since a gold answer need not have the form that a gate asks for. A task
without any gold is probed by the empty answer alone. Not covered: a gold that passes and is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from gristmill.dataops.identity import canonical_json
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Row, Verifier


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


class Probed:
    """A verifier whose tasks are probed once each before it judges. Tasks are remembered by a hash of their columns,
    some 150 bytes for each different one."""

    def __init__(self, verifier: Verifier) -> None:
        self.verifier = verifier
        self._trouble: dict[bytes, Verdict | None] = {}

    def rows(self, rows: Sequence[Row]) -> list[Verdict]:
        """Verdicts in order; rows whose task fails a probe are not judged."""
        tasks = [self._task(row) for row in rows]
        new = {task: row for task, row in zip(tasks, rows, strict=True) if task not in self._trouble}
        self._trouble |= dict(zip(new, troubles(self.verifier, list(new.values())), strict=True))
        sound = [i for i, task in enumerate(tasks) if self._trouble[task] is None]
        judged = iter(self.verifier.rows([rows[i] for i in sound]))
        return [next(judged) if said is None else said for said in (self._trouble[task] for task in tasks)]

    def _task(self, row: Row) -> bytes:
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
                found[i] = _trouble("gold_fails" if gold.score is not None else "gold_not_judged", leaf, gold)
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
