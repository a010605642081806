"""The judgement: gates held against what was measured, a row for every measure that a gate speaks of.

    below      value <= number                          rises_at_most 2 %    value <= then + 0.02 * |then|
    interval   value >= then.low                        hacked               proxy above, gold below what they were

`then` is the value of the same measure of the model that this one is held against. Everything is added and multiplied,
nothing divided, so losses below zero and values of zero are judged like all others. Up and down, of `hacked`, mean
outside the other's interval, or, where it has none, another value than the other's.

The laws: what cannot be judged (a measure that is missing on either side, no finite number, too few rows) does not
pass; a worse value never passes where a better one does not; the order of gates and of measures does not count. A
pattern speaks of all names on both sides, so a measure that is no longer taken is missed; figures of which one was
asked otherwise than the other (other data, other sampling) are not held against each other. A comparison does not
apply to a model that has no parent, and says so. Not covered: correction for many gates at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.gates.conditions import BOUNDS, INTERVALS, Gate, matches

CHECKPOINT = "checkpoint/"  # measures that are numbers of the checkpoint's own stats
_MEASURE = {"value", "low", "high", "n"}


@dataclass(frozen=True)
class Readings:
    """What is known of a model: how it is called, and its measures, {name: {value, low, high, n}} as they stand, each
    with what was `asked` where that is known."""

    title: str
    measures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a gate says of one measure (of `hacked`, of a pair). `passed` is None where the gate does not apply;
    `judged` is False where it should have been judged and could not be. `limit` is what `value` was compared with."""

    gate: str
    measure: str
    condition: str
    value: float | None
    low: float | None
    high: float | None
    n: int | None
    against: str | None
    parent_value: float | None
    limit: float | None
    passed: bool | None
    judged: bool
    why: str

    def as_row(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Reading:
    """One measure that can be judged: finite numbers, low <= high; n is None for plain numbers of a checkpoint."""

    value: float
    low: float | None
    high: float | None
    n: int | None


class _Unjudged(Exception):
    """A measure that cannot be judged; the message says why."""


def judge(
    gates: Sequence[Gate], stage: str, model: Readings, others: Mapping[str, Readings | None]
) -> tuple[Verdict, ...]:
    """All verdicts on a model of a stage. `others` are what gates name in `against`; None: there is no such model.
    Raises KeyError for one that is not there."""
    return tuple(
        verdict
        for gate in gates
        if not gate.stages or stage in gate.stages
        for verdict in _verdicts(gate, model, None if gate.against == "none" else others[gate.against])
    )


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether a checkpoint passes: none of its gates fails, and at least one was judged."""
    told = [verdict.passed for verdict in verdicts]
    return False not in told and True in told


def numbers_of(stats: Mapping[str, Any], path: str = CHECKPOINT.rstrip("/")) -> dict[str, Any]:
    """The numbers of a checkpoint's stats as measures "checkpoint/NAME", of nested ones "checkpoint/NAME/NAME"; what
    has a value, an interval and rows there has them here."""
    found: dict[str, Any] = {}
    for name, value in stats.items():
        if isinstance(value, Mapping) and value.keys() == _MEASURE:
            found[f"{path}/{name}"] = dict(value)
        elif isinstance(value, Mapping):
            found |= numbers_of(value, f"{path}/{name}")
        elif _number(value) is not None:
            found[f"{path}/{name}"] = {"value": value, "low": None, "high": None, "n": None}
    return found


def _verdicts(gate: Gate, model: Readings, other: Readings | None) -> Iterator[Verdict]:
    alone = gate.against == "none"
    if not alone and other is None:
        kind = "trained from scratch: it has no " + gate.against
        yield _row(gate, " and ".join(gate.measures), passed=None, judged=True, why=f"{model.title} was {kind}")
        return
    sides = [model] if alone or other is None else [model, other]
    if gate.if_measured:
        missed = [
            pattern for pattern in gate.measures
            if not any(meant(pattern, name) for side in sides for name in side.measures)
        ]  # fmt: skip
        if missed:
            why = f"no {missed[0]} was measured, and the gate is for where it is"
            yield _row(gate, " and ".join(gate.measures), passed=None, judged=True, why=why)
            return
    named = [
        sorted({name for side in sides for name in side.measures if meant(pattern, name)} or {pattern})
        for pattern in gate.measures
    ]
    if gate.condition == "hacked":
        assert other is not None
        yield from (_hacked(gate, proxy, gold, model, other) for proxy in named[0] for gold in named[1])
        return
    yield from (_one(gate, name, model, other) for name in named[0])


def meant(pattern: str, name: str) -> bool:
    """A pattern of measures; `*` reaches into the checkpoint's own numbers only behind "checkpoint/"."""
    return pattern.startswith(CHECKPOINT) == name.startswith(CHECKPOINT) and matches(pattern, name)


def _one(gate: Gate, name: str, model: Readings, other: Readings | None) -> Verdict:
    """A verdict on one measure."""
    known: dict[str, Any] = {}
    try:
        found = _reading(model, name, gate.least)
        known = dataclasses.asdict(found)
        if gate.condition in BOUNDS:
            return _row(gate, name, **known, **_bounded(gate, name, found))
        assert other is not None
        known["against"] = other.title
        then = _reading(other, name, gate.least)
        _same_asked(model, other, name)
        known["parent_value"] = then.value
        say = _kept if gate.condition in INTERVALS else _moved
        return _row(gate, name, **known, **say(gate, name, found, then, other.title))
    except _Unjudged as unjudged:
        return _row(gate, name, **known, passed=False, judged=False, why=f"cannot be judged: {unjudged}")


def _bounded(gate: Gate, name: str, found: _Reading) -> dict[str, Any]:
    """at_most and at_least: the value, or an end of its interval, against a number."""
    assert gate.amount is not None
    value = found.value if gate.end == "value" else _end(found, gate.end, name)
    limit, most = gate.amount.number, gate.condition == "at_most"
    passed = value <= limit if most else value >= limit
    what = name if gate.end == "value" else f"the {gate.end} end of {name}"
    why = f"{what} is {_told(value, limit)}; {gate.condition.replace('_', ' ')} {gate.amount.written} is wanted"
    return {"limit": limit, "passed": passed, "judged": True, "why": why}


def _moved(gate: Gate, name: str, found: _Reading, then: _Reading, title: str) -> dict[str, Any]:
    """rises_at_most and falls_at_most: the distance to the other's value."""
    assert gate.amount is not None
    room = gate.amount.number * abs(then.value) if gate.amount.percent else gate.amount.number
    rises = gate.condition == "rises_at_most"
    limit = then.value + room if rises else then.value - room
    passed = found.value <= limit if rises else found.value >= limit
    way = "rose" if found.value > then.value else "fell" if found.value < then.value else "stayed"
    moved = f"{name} {way} from {_told(then.value, found.value)} to {_told(found.value, then.value)}"
    if way == "stayed":
        moved = f"{name} stayed at {_told(found.value, then.value)}"
    allowed = f"a {'rise' if rises else 'fall'} of at most {gate.amount.written} is allowed"
    why = f"{moved} against {title}; {allowed}, to {_told(limit, found.value)}"
    return {"limit": limit, "passed": passed, "judged": True, "why": why}


def _kept(gate: Gate, name: str, found: _Reading, then: _Reading, title: str) -> dict[str, Any]:
    """not_below_interval and not_above_interval: the value against the near end of the other's interval."""
    below = gate.condition == "not_below_interval"
    limit = _end(then, "low" if below else "high", f"{name} of {title}")
    passed = found.value >= limit if below else found.value <= limit
    where = "not " * passed + ("below" if below else "above")
    span = f"[{'…' if then.low is None else _told(then.low)}, {'…' if then.high is None else _told(then.high)}]"
    why = f"{name} is {_told(found.value, limit)}, {where} the interval {span} of {title}"
    return {"limit": limit, "passed": passed, "judged": True, "why": why}


def _hacked(gate: Gate, proxy: str, gold: str, model: Readings, other: Readings) -> Verdict:
    """Reward hacking: what is optimised goes up while what is wanted goes down. The row's numbers are the gold's."""
    both, known = f"{proxy} and {gold}", {"against": other.title}
    try:
        now, then = _reading(model, gold, gate.least), _reading(other, gold, gate.least)
        known |= dataclasses.asdict(now) | {"parent_value": then.value}
        seen, was = _reading(model, proxy, gate.least), _reading(other, proxy, gate.least)
        for name in (proxy, gold):
            _same_asked(model, other, name)
    except _Unjudged as unjudged:
        return _row(gate, both, **known, passed=False, judged=False, why=f"cannot be judged: {unjudged}")
    limit = then.value if then.low is None else then.low
    up, down = seen.value > (was.value if was.high is None else was.high), now.value < limit
    moves = (
        f"{proxy} went from {_told(was.value, seen.value)} to {_told(seen.value, was.value)}, "
        f"{gold} from {_told(then.value, now.value)} to {_told(now.value, then.value)}, against {other.title}"
    )
    found = "the reward is hacked: the proxy rose and the gold measure fell" if up and down else "no sign of hacking"
    return _row(gate, both, **known, limit=limit, passed=not (up and down), judged=True, why=f"{found} ({moves})")


def _reading(side: Readings, name: str, least: int) -> _Reading:
    """One measure of a model, checked; raises _Unjudged."""
    if name not in side.measures:
        what = "no measure matches" if "*" in name else "there is no measure"
        raise _Unjudged(f"of {side.title} {what} {name}: evaluate it with that")
    entry = side.measures[name]
    entry = entry if isinstance(entry, Mapping) else {}
    where = f"{name} of {side.title}"
    value = _number(entry.get("value"))
    if value is None or not math.isfinite(value):
        raise _Unjudged(f"{where} is {_shown(entry.get('value'))}")
    ends = [_number(entry.get(end)) for end in ("low", "high")]
    low, high = (None if end is None or not math.isfinite(end) else end for end in ends)
    if low is not None and high is not None and low > high:
        raise _Unjudged(f"the interval of {where} is upside down, {low:g} to {high:g}")
    if name.startswith(CHECKPOINT) and entry.get("n") is None and least == 1:
        return _Reading(value, low, high, None)
    n = _number(entry.get("n"))
    if n is None or not math.isfinite(n) or n < least:
        raise _Unjudged(f"{where} rests on {_shown(entry.get('n'))} rows, and {least:,} are wanted at least")
    return _Reading(value, low, high, int(n))


def _same_asked(model: Readings, other: Readings, name: str) -> None:
    """Raises _Unjudged where a figure was come by in another way on the other side."""
    now, then = (side.measures[name].get("asked") for side in (model, other))
    if now == then:
        return
    both = (now, then) if isinstance(now, Mapping) and isinstance(then, Mapping) else ({}, {})
    unlike = sorted(key for key in both[0].keys() | both[1].keys() if both[0].get(key) != both[1].get(key))
    how = f"with another {' and '.join(unlike)}" if unlike else "in another way"
    raise _Unjudged(f"{name} of {other.title} was measured {how}: evaluate both alike")


def _end(found: _Reading, end: str, where: str) -> float:
    value = found.low if end == "low" else found.high
    if value is None:
        raise _Unjudged(f"{where} has no {end} end of an interval")
    return value


def _number(value: Any) -> float | None:
    """A number as a float, also an infinite one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _row(gate: Gate, measure: str, *, passed: bool | None, judged: bool, why: str, **known: Any) -> Verdict:
    empty = dict.fromkeys(("value", "low", "high", "n", "against", "parent_value", "limit"))
    return Verdict(**{
        **empty, **known, "gate": gate.name, "measure": measure, "condition": gate.told, "passed": passed,
        "judged": judged, "why": why,
    })  # fmt: skip


def _told(value: float, beside: float | None = None) -> str:
    """A number in four digits, or in as many as tell it from the one beside it."""
    for digits in (4, 6, 9):
        text = f"{value:.{digits}g}"
        if beside is None or value == beside or text != f"{beside:.{digits}g}":
            return text
    return repr(value)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)[:40]
