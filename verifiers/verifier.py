"""Verifiers: functions with a name and a version that say how good a response is.

A verifier is declared as a function; its parameters decide what it sees:

    @verifier("mine.short", version=1)
    def short(prompt: str, response: str, limit: int, *, unit: str = "words") -> Verdict: ...

`limit` is a column of the row; one with a default may be missing. Keyword-only parameters are bound when the verifier
is made (`short(unit="chars")`) and are its identity with name and version, except those ending in `_context`: an
engine, a pool, a path. A function whose first parameter is called `rows` judges many rows at once; its columns stand in
`needs`.

The laws: verdicts come back one per row and in order; a row without a column that is needed is not judged; an error
inside a verifier is a row not judged, with the error in its evidence, and never a score. Only InputError rises: it says
what the caller has to put right (a parameter, a missing sandbox) before any row can be judged.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.verdict import Verdict

Row = Mapping[str, Any]

#: The modules that declare the shipped verifiers, by the first part of their names.
MODULES = {
    "all": "compose",
    "any": "compose",
    "weighted": "compose",
    "gated": "compose",
    "maths": "maths.verify",
    "programs": "programs.verify",
    "instructions": "instructions.verify",
    "format": "instructions.formats",
    "tools": "tools",
    "facts": "facts",
    "safety": "safety.verify",
    "judge": "judge.verify",
}

#: Factories of verifiers by name, filled by the decorator.
REGISTRY: dict[str, Any] = {}


@dataclass(frozen=True)
class Verifier:
    """A function with its parameters bound. `needs` are columns a row must have, None in `takes` for all columns.

    `reference` makes, of a row, a response that must pass (None: this row has none); `empty_fails` says whether an
    empty response must fail: true of all that check a task, not of those that look for harm (see probes.py). `origin`
    is how `find` found it, for other processes.
    """

    name: str
    version: int
    params: Mapping[str, Any]
    function: Callable[..., Any]
    many: bool
    needs: tuple[str, ...]
    takes: tuple[str, ...] | None
    reference: Callable[[Row], str | None]
    empty_fails: bool
    context: Mapping[str, Any] = field(default_factory=dict)
    origin: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its verdicts, as JSON; verifiers among the parameters by their own identity."""
        return {"name": self.name, "version": self.version, "params": _plain(dict(self.params))}

    @property
    def parts(self) -> list[Verifier]:
        """The verifiers that a composed one asks; empty for the others."""
        return [part for part in self.params.get("parts", ()) if isinstance(part, Verifier)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.origin or self.name, dict(self.params), dict(self.context))

    def __call__(self, prompt: str, response: str, **columns: Any) -> Verdict:
        """Judge one response."""
        return self.rows([{**columns, "prompt": prompt, "response": response}])[0]

    def rows(self, rows: Sequence[Row]) -> list[Verdict]:
        """Judge rows with at least `prompt` and `response`; one verdict per row, in order."""
        verdicts: list[Verdict | None] = [self._unfit(row) for row in rows]
        fit = [i for i, verdict in enumerate(verdicts) if verdict is None]
        if self.many and fit:
            try:
                judged = self.function([rows[i] for i in fit], **self.params, **self.context)
            except InputError:
                raise
            except Exception as error:
                # One row's trouble is not its neighbours': each is asked about alone, unless what failed is outside.
                alone = len(fit) > 1 and not isinstance(error, OSError)
                judged = [self.rows([rows[i]])[0] for i in fit] if alone else [_failed(error)] * len(fit)
            if len(judged) != len(fit):
                raise ValueError(f"{self.name} returned {len(judged)} verdicts for {len(fit)} rows")
            for i, verdict in zip(fit, judged, strict=True):
                verdicts[i] = verdict
        else:
            for i in fit:
                verdicts[i] = self._one(rows[i])
        return [verdict for verdict in verdicts if verdict is not None]

    def gold(self, row: Row) -> str | Verdict | None:
        """The response of a row that must pass, or None; a verdict without a score where it cannot be made."""
        if self._unfit({**row, "response": ""}) is not None:
            return None
        try:
            return self.reference(row)
        except Exception as error:
            return _failed(error)

    def _one(self, row: Row) -> Verdict:
        names = row.keys() - {"prompt", "response"} if self.takes is None else (*self.needs, *self.takes)
        columns = {name: row[name] for name in names if row.get(name) is not None}
        try:
            return self.function(row["prompt"], row["response"], **columns, **self.params, **self.context)
        except InputError:
            raise
        except Exception as error:
            return _failed(error)

    def _unfit(self, row: Row) -> Verdict | None:
        """Why a row cannot be judged at all."""
        for name in ("prompt", "response"):
            if not isinstance(row.get(name), str):
                return Verdict(None, "no_text", {"column": name, "found": type(row.get(name)).__name__})
        lacking = [name for name in self.needs if row.get(name) is None]
        return Verdict(None, "no_column", {"columns": lacking}) if lacking else None


def _failed(error: Exception) -> Verdict:
    """The named boundary at which an error in a verifier becomes a row that was not judged."""
    return Verdict(None, "verifier_failed", {"error": f"{type(error).__name__}: {error}"[:500]})


def _no_reference(row: Row) -> str | None:
    found = row.get("reference")
    return found if isinstance(found, str) else None


def verifier(
    name: str,
    version: int,
    *,
    needs: Sequence[str] = (),
    reference: Callable[[Row], str | None] = _no_reference,
    empty_fails: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Verifier]]:
    """Make a factory of verifiers from a function (see the module). Without `reference`, a row's column of that name
    is the response that must pass. Raises ValueError where two verifiers bear one name."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Verifier]:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        many = parameters[0].name == "rows"
        columns = [] if many else [item for item in parameters[2:] if item.kind is item.POSITIONAL_OR_KEYWORD]
        required = tuple(item.name for item in columns if item.default is item.empty)
        takes = tuple(item.name for item in columns if item.default is not item.empty)
        everything = any(item.kind is item.VAR_KEYWORD for item in parameters)
        bound_by = signature.replace(parameters=[item for item in parameters if item.kind is item.KEYWORD_ONLY])

        @functools.wraps(function)
        def factory(**params: Any) -> Verifier:
            bound = bound_by.bind(**params)
            bound.apply_defaults()
            context = {key: value for key, value in bound.arguments.items() if key.endswith("_context")}
            identity = {key: value for key, value in bound.arguments.items() if key not in context}
            return Verifier(
                name,
                version,
                identity,
                function,
                many,
                (*needs, *required),
                None if everything else takes,
                reference,
                empty_fails,
                context,
                origin=getattr(factory, "origin", ""),
            )

        known = REGISTRY.get(name)
        if known is not None and getattr(known, "__module__", None) != function.__module__:
            raise ValueError(f"two verifiers are called {name}: {known.__module__} and {function.__module__}")
        vars(factory)["version"] = version
        REGISTRY[name] = factory
        return factory

    return decorate


def find(name: str) -> Any:
    """The factory of a verifier, with its `version`, by its name; FILE.py:FUNCTION or MODULE:FUNCTION for your own.

    Raises InputError naming what there is.
    """
    place, _, function = name.partition(":")
    if function:
        return _own(place, function)
    family = name.partition(".")[0]
    if family in MODULES:
        importlib.import_module(f"gristmill.verifiers.{MODULES[family]}")
    if name not in REGISTRY:
        raise InputError(f"no verifier is called {name!r}; there are: {', '.join(names())}; or give FILE.py:FUNCTION")
    return REGISTRY[name]


def names() -> list[str]:
    """All shipped verifiers."""
    for module in sorted(set(MODULES.values())):
        importlib.import_module(f"gristmill.verifiers.{module}")
    return sorted(REGISTRY)


def load(identity: Mapping[str, Any]) -> Verifier:
    """The verifier of an identity. Raises InputError where its version is another one now."""
    made = find(identity["name"])(**{key: _loaded(value) for key, value in identity["params"].items()})
    if made.version != identity["version"]:
        raise InputError(f"{made.name} is at version {made.version}; version {identity['version']} was asked for")
    return made


def _own(place: str, function: str) -> Callable[..., Verifier]:
    module: Any
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except Exception as error:  # whatever is wrong in a file of the caller's own
        raise InputError(f"{place}: {type(error).__name__}: {error}") from None
    found: Any = getattr(module, function, None)
    if not any(found is factory for factory in REGISTRY.values()):
        raise InputError(f"{place} has no verifier {function!r}: a function under @verifier(NAME, version=...)")
    vars(found)["origin"] = f"{place}:{function}"
    return found


def _again(name: str, params: dict[str, Any], context: dict[str, Any]) -> Verifier:
    return find(name)(**params, **context)


def _plain(value: Any) -> Any:
    if isinstance(value, Verifier):
        return {"verifier": value.identity}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _loaded(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"verifier"}:
        return load(value["verifier"])
    return [_loaded(item) for item in value] if isinstance(value, list) else value
