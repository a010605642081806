"""Specs: the JSON file that says everything a training step does, read into a frozen dataclass.

A step declares a dataclass and calls `check_fields(self)` first in its `__post_init__`; the annotations are the schema.
JSON has one kind of list and of object, so where the annotation says so a list becomes a tuple, an object a nested
dataclass and a whole number a float: one spelling, hence one key, for 1 and 1.0.

The law kept here: what a spec does not say exactly is refused, naming the field; nothing is guessed or passed over.
Not covered: what values mean together, which the step checks itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gristmill.dataops.dataset import Dataset, InputError

Spec = TypeVar("Spec")
_PLAIN: Mapping[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


@dataclass(frozen=True)
class Input:
    """A dataset that a step reads: its folder, and the digest of the content that the spec was made for."""

    path: str
    digest: str

    def __post_init__(self) -> None:
        check_fields(self, "input")


def read_spec(path: str | Path, kind: type[Spec]) -> Spec:
    """A `kind` (a dataclass) from a JSON file. Raises InputError for what is no such spec, naming the field."""
    try:
        values = json.loads(Path(path).read_bytes(), object_pairs_hook=_object)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no spec can be read: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a spec is a JSON object, this is a {type(values).__name__}")
    _check_names(values, kind, str(path))
    return kind(**values)


def check_fields(spec: Any, where: str = "spec") -> None:
    """Hold a dataclass instance to its annotations (str, bool, int, finite float, Literal, None, tuple[T, ...],
    dict[str, T], dataclasses, Any, and unions of these), putting values into their one spelling in place. Raises
    InputError naming the field and what it may be."""
    hints = typing.get_type_hints(type(spec))
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        fitted = _fit(value, hints[field.name], f"{where}: {field.name}", str(field.type))
        object.__setattr__(spec, field.name, fitted)  # frozen for everyone else


def check_name(name: str) -> None:
    """Raises InputError unless a published dataset's name is one folder under the root."""
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise InputError(f"spec: name is {name!r}; it names a folder under root")


def open_input(path: str, digest: str) -> Dataset:
    """The dataset at `path`; raises InputError where there is none or where its digest is another."""
    dataset = Dataset.load(path)
    if dataset.digest != digest:
        raise InputError(
            f"{path} has digest {dataset.digest}, the spec was made for {digest}: "
            "give the data it was made for, or put the new digest into the spec"
        )
    return dataset


class _Misfit(Exception):
    """A value is not of the annotated type."""


def _fit(value: Any, hint: Any, where: str, told: str) -> Any:
    try:
        return _fitted(value, hint, where)
    except _Misfit:
        raise InputError(f"{where} is {_short(value)}, not of type {told}") from None


def _fitted(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _fitted(value, option, where)
            except _Misfit:
                continue
        raise _Misfit
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise InputError(f"{where} is {_short(value)}; it is one of {', '.join(map(str, args))}")
        return value
    if hint is type(None):
        if value is None:
            return None
    elif hint in _PLAIN:
        if isinstance(value, _PLAIN[hint]) and (hint is bool or not isinstance(value, bool)):
            return _finite(value, where) if hint is float else value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(_fit(v, args[0], f"{where}[{n}]", _name(args[0])) for n, v in enumerate(value))
    elif origin is dict and isinstance(value, Mapping):
        items = ((k, _fit(v, args[1], f"{where}[{k!r}]", _name(args[1]))) for k, v in value.items())
        return {_fitted(k, args[0], where): v for k, v in items}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            _check_names(value, hint, where)
            try:
                return hint(**value)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
    raise _Misfit


def _finite(value: Any, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{where} is {_short(value)}; it must be a finite number")
    return number


def _check_names(values: Mapping[str, Any], kind: type, where: str) -> None:
    fields = [field for field in dataclasses.fields(kind) if field.init]
    unknown = sorted(set(values) - {field.name for field in fields})
    missing = [
        f.name
        for f in fields
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in values
    ]
    if unknown or missing:
        wrong = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(missing)
        has = ", ".join(field.name for field in fields)
        raise InputError(f"{where}: fields {'; '.join(wrong)}; a {_name(kind)} has {has}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names differ: of two values for one name, Python's reader would take the last in silence."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is given twice")
    return values


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 100 else f"{told[:100]}…"
