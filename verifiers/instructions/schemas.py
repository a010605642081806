"""JSON Schema under bounds: the jsonschema package with the draft that a schema names, and nothing fetched.

Five keywords are replaced, because what they cost is in the hands of whoever writes the instance: `$ref` looks at each
value once (a schema of expressions that asks for itself in two branches looks 2^depth times otherwise); `pattern`,
`patternProperties` and `additionalProperties` search by a regular expression that is stopped at a deadline, and
`uniqueItems` compares by hash (the package compares all pairs where values of several types meet).

The laws: what is wrong with a schema is BadSchema or an unjudged row, never a score; a value of more than `MAX_VALUES`
parts is refused with a score of 0. Not covered: `unevaluatedProperties` beside `patternProperties`, where the package
searches by itself: such a schema is refused.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import regex

from gristmill.verifiers.verdict import Verdict

MAX_VALUES = 50_000

_DEADLINE: ContextVar[float] = ContextVar("deadline")
#: What references found: the errors by the place of the reference in the schema and the value, both by their id().
_SEEN: ContextVar[dict[tuple[int, int], list[Any]]] = ContextVar("seen")


class BadSchema(ValueError):
    """A schema that is none: not JSON, not of its draft, or out of bounds."""


def compiled(schema: Any) -> Any:
    """A validator of a schema: a mapping, a boolean, or JSON text of one. Raises BadSchema."""
    if isinstance(schema, str):
        return _compiled(schema)
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except (TypeError, RecursionError) as error:
        raise BadSchema(str(error)) from None


def verdict(check: Any, value: Any, seconds: float) -> Verdict:
    """Judge a JSON value; searches for patterns end together after `seconds`."""
    from referencing.exceptions import Unresolvable

    if _large(value):
        return Verdict(0.0, "too_large", {"limit": MAX_VALUES, "attack": "huge_value"})
    _DEADLINE.set(time.monotonic() + seconds)
    _SEEN.set({})
    try:
        errors = list(itertools.islice(check.iter_errors(value), 3))
    except TimeoutError:
        return Verdict(None, "timed_out", {"seconds": seconds})
    except (Unresolvable, RecursionError, regex.error) as error:
        return Verdict(None, "bad_schema", {"error": f"{type(error).__name__}: {error}"[:200]})
    if not errors:
        return Verdict(1.0, "valid")
    places = [{"at": error.json_path[:80], "error": error.message[:120]} for error in errors]
    return Verdict(0.0, "schema_violated", {"errors": places})


def _large(value: Any) -> bool:
    level, count = [value], 0
    while level:
        count += len(level)
        if count > MAX_VALUES:
            return True
        boxes = [item for item in level if isinstance(item, dict | list)]
        level = [item for box in boxes for item in (box.values() if isinstance(box, dict) else box)]
    return False


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY

    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSchema(f"not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise BadSchema(f"a schema is an object or a boolean, not {type(schema).__name__}")
    named = schema.get("$schema") if isinstance(schema, dict) else None
    kind = validator_for(schema, default=Draft202012Validator if named is None else None)
    if kind is None:
        raise BadSchema(f"unknown draft: $schema is {str(named)[:80]!r}")
    if '"unevaluatedProperties"' in text and '"patternProperties"' in text:
        raise BadSchema("unevaluatedProperties beside patternProperties is not supported")
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise BadSchema(f"{error.json_path}: {error.message}") from None
    # What a dynamic reference means depends on the way to it, so that nothing may be remembered beside one.
    return _bounded(kind, '"$dynamicRef"' not in text and '"$recursiveRef"' not in text)(schema, registry=REGISTRY)


@functools.cache
def _bounded(kind: Any, static: bool) -> Any:
    from jsonschema.validators import extend

    own = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    if static:
        own["$ref"] = _remembering(kind.VALIDATORS["$ref"])
    return extend(kind, {name: rule for name, rule in own.items() if name in kind.VALIDATORS})


def _searched(pattern: str, text: str) -> bool:
    left = _DEADLINE.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return regex.search(pattern, text, timeout=left) is not None


def _remembering(rule: Any) -> Any:
    """The rule of `$ref` that looks at a value once; where it failed, later looks find one error and no details."""

    def ref(validator: Any, ref: Any, value: Any, schema: Any) -> Iterator[Any]:
        seen, key = _SEEN.get(), (id(schema), id(value))
        if key not in seen:
            seen[key] = list(rule(validator, ref, value, schema) or ())
            yield from seen[key]
        elif seen[key]:
            yield _error(f"not valid under {ref[:80]}")

    return ref


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(value, "string") and not _searched(pattern, value):
        yield _error(f"{value[:80]!r} does not match {pattern[:80]!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], value: Any, schema: Any) -> Iterator[Any]:
    if validator.is_type(value, "object"):
        for pattern, below in patterns.items():
            for name, item in value.items():
                if _searched(pattern, name):
                    yield from validator.descend(item, below, path=name, schema_path=pattern)


def _additional_properties(validator: Any, below: Any, value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, item in value.items():
        if name in known or any(_searched(pattern, name) for pattern in patterns):
            continue
        if below is False:
            yield _error(f"{name[:80]!r} is not among the properties")
        else:
            yield from validator.descend(item, below, path=name)


def _unique_items(validator: Any, asked: bool, value: Any, schema: Any) -> Iterator[Any]:
    if asked and validator.is_type(value, "array") and len({_frozen(item) for item in value}) < len(value):
        yield _error("items are not unique")


def _frozen(value: Any) -> Any:
    """A value as JSON Schema compares it: 1 equals 1.0 and not true."""
    if isinstance(value, dict):
        return "object", frozenset((name, _frozen(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(_frozen(item) for item in value)
    return ("boolean", value) if isinstance(value, bool) else ("other", value)


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)
