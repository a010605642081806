"""The open registry of constraints: what an instruction's id and keyword arguments ask of a text.

A constraint is a function under one line:

    @constraint("length_constraints:number_words")
    def number_words(text: str, *, num_words: int, relation: Relation) -> Finding: ...

Its keyword-only parameters are the instruction's arguments, and their annotations say what is read: `int` a count from
0 (an integral float counts, as Arrow and pandas make one of an int beside nulls), `str` a text that is not blank,
`list[str]` one or more of them, `Relation` IFEval's two comparisons.

The laws: arguments that do not fit are an error of the data set (`BadArguments`) and never a score, and never guessed,
as IFEval's own code draws a random number where one is missing; null arguments count as not given. A check reads the
text in time linear in its length, whatever the text is. Not covered: which constraints contradict each other.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Relation = Literal["less than", "at least"]

#: What releases of IFEval in several languages put before the family in the English part.
PREFIX = "en:"


class BadArguments(ValueError):
    """An instruction's arguments do not fit its constraint: the data set is wrong, not the response."""


@dataclass(frozen=True)
class Finding:
    """Whether a text keeps a constraint, `found` (JSON: the count or the reason), and the attack it looks like."""

    ok: bool
    found: Any = None
    attack: str | None = None


@dataclass(frozen=True)
class Constraint:
    """A check with the kinds of its arguments by name; those in `optional` may be missing."""

    id: str
    check: Callable[..., Finding]
    kinds: Mapping[str, Any]
    optional: frozenset[str]

    def arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments read; raises BadArguments for missing, unknown and unfit ones."""
        given = {name: value for name, value in kwargs.items() if value is not None}
        unknown = sorted(given.keys() - self.kinds.keys())
        lacking = sorted(self.kinds.keys() - given.keys() - self.optional)
        for what, names in (("unknown", unknown), ("missing", lacking)):
            if names:
                raise BadArguments(f"{self.id}: arguments {what}: {', '.join(names)}"[:200])
        return {name: _read(self.id, name, self.kinds[name], value) for name, value in given.items()}


#: Constraints by id, filled by the decorator.
CONSTRAINTS: dict[str, Constraint] = {}


def constraint(name: str) -> Callable[[Callable[..., Finding]], Callable[..., Finding]]:
    """Register a check under an instruction's id. Raises ValueError where two checks of different modules share it."""

    def decorate(check: Callable[..., Finding]) -> Callable[..., Finding]:
        known = CONSTRAINTS.get(name)
        if known is not None and known.check.__module__ != check.__module__:
            raise ValueError(f"two constraints are called {name}: {known.check.__module__} and {check.__module__}")
        asked = [item for item in inspect.signature(check).parameters.values() if item.kind is item.KEYWORD_ONLY]
        hints = typing.get_type_hints(check)
        kinds = {item.name: hints[item.name] for item in asked}
        CONSTRAINTS[name] = Constraint(
            name, check, kinds, frozenset(item.name for item in asked if item.default is not item.empty)
        )
        return check

    return decorate


def find(name: str) -> Constraint | None:
    """The constraint of an id, with or without `PREFIX`; None where there is none."""
    return CONSTRAINTS.get(name.removeprefix(PREFIX))


def compare(count: int, relation: Relation, limit: int) -> Finding:
    """IFEval's comparison: "less than" is strict, "at least" is not."""
    return Finding(count < limit if relation == "less than" else count >= limit, count)


def _read(where: str, name: str, kind: Any, value: Any) -> Any:
    if kind is int and not isinstance(value, bool):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and value >= 0:
            return value
    elif kind is str:
        if isinstance(value, str) and value.strip():
            return value
    elif kind == list[str]:
        if isinstance(value, list | tuple) and value and all(isinstance(item, str) and item.strip() for item in value):
            return list(value)
    elif isinstance(value, str) and value in typing.get_args(kind):
        return value
    raise BadArguments(f"{where}: {name} is {str(value)[:80]!r}, which is no {_NAMES.get(str(kind), str(kind))}")


_NAMES = {
    str(int): "count from 0",
    str(str): "text",
    str(list[str]): "list of texts",
    str(Relation): '"less than" or "at least"',
}
