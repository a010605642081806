"""Gates: the conditions that a checkpoint has to meet, read from a YAML file.

    gates:
      - gate: base text is not forgotten
        measure: base/loss            # or a pattern in quotes: "*/loss"; * stands for any characters
        rises_at_most: 2 %            # with %, of the value it is held against; without, in the measure's own unit

A gate names a measure of the evaluation ("SLICE/MEASURE"), or a number of the checkpoint itself ("checkpoint/NAME"),
and has one of `at_most`, `at_least`, `rises_at_most`, `falls_at_most`, `not_below_interval`, `not_above_interval`,
or `hacked: {proxy: MEASURE, gold: MEASURE}`. Beside these: `against` (parent, origin, an evaluation's NAME, NAME@TAG or
NAME:KEY), `end` (low or high: an end of the measure's interval instead of its value), `least` (rows that a value must
rest on), `stages` (which checkpoints it is for; all by default), `if_measured: true` (the gate does not apply where
neither side has such a measure; by default it blocks).

The law: a file that says anything unknown, twice, or in another unit than can be told is refused with its line, so that
a slip is never a gate less. Patterns are matched in linear time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast

from gristmill.dataops.dataset import InputError
from gristmill.dataops.gates.document import Node, parse, read_document

#: What a checkpoint can be, by the op that made it.
STAGES = ("pretrain", "sft", "reward", "preference", "rl", "ppo", "merge")
#: Conditions on a value alone, on its distance to another, and on the other's interval.
BOUNDS, MOVES, INTERVALS = (
    ("at_most", "at_least"),
    ("rises_at_most", "falls_at_most"),
    ("not_below_interval", "not_above_interval"),
)
CONDITIONS = (*BOUNDS, *MOVES, *INTERVALS, "hacked")
_KEYS = ("gate", "measure", *CONDITIONS, "against", "end", "least", "stages", "if_measured")
_NUMBER = re.compile(r"([+-]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][+-]?\d{1,2})?)(?: ?(%))?")

Condition = Literal[
    "at_most", "at_least", "rises_at_most", "falls_at_most", "not_below_interval", "not_above_interval", "hacked"
]
End = Literal["value", "low", "high"]


@dataclass(frozen=True)
class Amount:
    """A bound as written: "2 %" is 0.02 with `percent`, "0.02" is 0.02 without."""

    number: float
    percent: bool
    written: str


@dataclass(frozen=True)
class Gate:
    """One condition. `measures` are its one pattern, or of `hacked` the proxy's and the gold one's; `amount` is None
    for conditions on intervals and `hacked`; `against` is "none" for a bound on the value alone; no `stages`: all."""

    name: str
    measures: tuple[str, ...]
    condition: Condition
    amount: Amount | None
    against: str
    end: End = "value"
    least: int = 1
    stages: tuple[str, ...] = ()
    if_measured: bool = False

    @property
    def told(self) -> str:
        """The condition as a reader would write it."""
        if self.condition == "hacked":
            return f"not hacked: {self.measures[0]} up while {self.measures[1]} down, against {self.against}"
        end = "" if self.end == "value" else f"{self.end} end of its interval "
        amount = "" if self.amount is None else f" {self.amount.written}"
        against = "" if self.against == "none" else f", against {self.against}"
        return f"{end}{self.condition.replace('_', ' ')}{amount}{against}"

    @property
    def identity(self) -> dict[str, Any]:
        """What the gate is, for a manifest."""
        return {
            "gate": self.name, "measures": list(self.measures), "condition": self.condition,
            "amount": None if self.amount is None else [self.amount.number, self.amount.percent],
            "against": self.against, "end": self.end, "least": self.least, "stages": list(self.stages),
            "if_measured": self.if_measured,
        }  # fmt: skip


def read_gates(path: str | Path) -> tuple[Gate, ...]:
    """The gates of a YAML file, in its order. Raises InputError naming the file, the line and what is wrong."""
    return _gates(read_document(path), str(path))


def parse_gates(text: str, where: str = "gates") -> tuple[Gate, ...]:
    """The gates of a YAML text."""
    return _gates(parse(text, where), where)


def matches(pattern: str, name: str) -> bool:
    """Whether a name is what a pattern says; `*` stands for any characters, also none and also a slash."""
    head, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    if not name.startswith(head):
        return False
    at = len(head)
    for piece in rest[:-1]:  # the first place of each piece leaves the most room to those after it
        found = name.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(name) - at >= len(rest[-1]) and name.endswith(rest[-1])


def amount(text: str) -> Amount | None:
    """ "2 %", "2%" or "0.02"; None for anything else, also for what is no finite number."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    number, percent = Decimal(found[1]), found[2] is not None
    return Amount(float(number / 100 if percent else number), percent, f"{found[1]} %" if percent else found[1])


def _gates(document: Node, where: str) -> tuple[Gate, ...]:
    value = document.value
    if not isinstance(value, dict) or value.keys() != {"gates"}:
        raise InputError(f"{where}: a file of gates has the one key `gates`, a list of conditions")
    items = value["gates"]
    if not isinstance(items.value, list) or not items.value:
        raise InputError(f"{where}, line {items.line}: `gates` is a list with at least one condition")
    found: dict[str, int] = {}
    gates = []
    for item in items.value:
        gate = _gate(item, where)
        if gate.name in found:
            before = found[gate.name]
            raise InputError(f"{where}, line {item.line}: a gate on line {before} is called {gate.name!r} too")
        found[gate.name] = item.line
        gates.append(gate)
    return tuple(gates)


def _gate(item: Node, where: str) -> Gate:
    at = f"{where}, line {item.line}"
    if not isinstance(item.value, dict):
        raise InputError(f"{at}: a gate is an object with `gate`, `measure` and a condition; there is {item.kind}")
    entries = item.value
    for key, node in entries.items():
        if key not in _KEYS:
            raise InputError(f"{where}, line {node.line}: no key {key[:40]!r}; a gate has {', '.join(_KEYS)}")
    name = _word(entries, "gate", at, where)
    said = [key for key in CONDITIONS if key in entries]
    if len(said) != 1:
        there = " and ".join(said) if said else "none"
        raise InputError(f"{at}: gate {name!r} has {there}; one condition is wanted, of {', '.join(CONDITIONS)}")
    condition = cast(Condition, said[0])
    node = entries[condition]
    if condition == "hacked":
        if "measure" in entries or "end" in entries:
            raise InputError(f"{at}: `hacked` names its own measures and looks at values: leave out measure and end")
        measures = _hacked(node, where)
    else:
        measures = (_word(entries, "measure", at, where),)
    for measure in measures:
        if "/" not in measure:
            raise InputError(f"{at}: {measure[:60]!r} is no measure: SLICE/MEASURE or checkpoint/NAME is wanted")
    return Gate(
        name, measures, condition, _bound(node, condition, where), _against(entries, condition, where),
        _end(entries, condition, where), _least(entries, where), _stages(entries, where),
        _flag(entries, "if_measured", where),
    )  # fmt: skip


def _word(entries: Mapping[str, Node], key: str, at: str, where: str) -> str:
    if key not in entries:
        raise InputError(f"{at}: a gate without `{key}`")
    node = entries[key]
    if not isinstance(node.value, str) or not node.value or len(node.value) > 200:
        raise InputError(f"{where}, line {node.line}: `{key}` is a text of 1 to 200 characters; there is {_told(node)}")
    return node.value


def _hacked(node: Node, where: str) -> tuple[str, ...]:
    if not isinstance(node.value, dict) or node.value.keys() != {"proxy", "gold"}:
        raise InputError(f"{where}, line {node.line}: write `hacked: {{proxy: MEASURE, gold: MEASURE}}`")
    return tuple(_word(node.value, key, f"{where}, line {node.line}", where) for key in ("proxy", "gold"))


def _bound(node: Node, condition: Condition, where: str) -> Amount | None:
    at = f"{where}, line {node.line}"
    if condition == "hacked":
        return None
    if condition in INTERVALS:
        _flag({condition: node}, condition, where)
        return None
    bound = amount(node.value) if isinstance(node.value, str) else None
    if bound is None:
        raise InputError(f"{at}: `{condition}` is a number such as 0.02 or 2 %; there is {_told(node)}")
    return bound


def _against(entries: Mapping[str, Node], condition: Condition, where: str) -> str:
    alone = condition in BOUNDS
    if "against" not in entries:
        return "none" if alone else "parent"
    node = entries["against"]
    told = _word(entries, "against", where, where)
    if alone != (told == "none"):
        which = "looks at the value alone: leave out against" if alone else "compares: name what against"
        raise InputError(f"{where}, line {node.line}: {condition} {which}")
    return told


def _end(entries: Mapping[str, Node], condition: Condition, where: str) -> End:
    if "end" not in entries:
        return "value"
    node = entries["end"]
    if condition not in BOUNDS or node.value not in ("low", "high"):
        raise InputError(
            f"{where}, line {node.line}: `end` is low or high, the end of the interval that at_most or at_least bounds"
        )
    return cast(End, node.value)


def _least(entries: Mapping[str, Node], where: str) -> int:
    if "least" not in entries:
        return 1
    node = entries["least"]
    if not isinstance(node.value, str) or not re.fullmatch(r"[1-9]\d{0,11}", node.value):
        raise InputError(f"{where}, line {node.line}: `least` is a whole number of rows; there is {_told(node)}")
    return int(node.value)


def _stages(entries: Mapping[str, Node], where: str) -> tuple[str, ...]:
    if "stages" not in entries:
        return ()
    node = entries["stages"]
    named = [item.value for item in node.value] if isinstance(node.value, list) else [None]
    if not named or any(name not in STAGES for name in named) or len(set(map(str, named))) < len(named):
        raise InputError(
            f"{where}, line {node.line}: `stages` is a list of some of {', '.join(STAGES)}; there is {_told(node)}"
        )
    return tuple(stage for stage in STAGES if stage in named)


def _flag(entries: Mapping[str, Node], key: str, where: str) -> bool:
    """`true`, or not there at all: a `false` that does nothing is a mistake."""
    if key in entries and entries[key].value != "true":
        node = entries[key]
        raise InputError(f"{where}, line {node.line}: write `{key}: true`, or leave it out; there is {_told(node)}")
    return key in entries


def _told(node: Node) -> str:
    if isinstance(node.value, str):
        return repr(node.value[:40])
    return node.kind if isinstance(node.value, dict) else f"a list of {len(node.value)}"
