"""Expected calls and how a given call differs from one: BFCL's `ast_checker` (bfcl-eval 2026.3.23), made stricter.

A call matches when its name is the expected one (dots may be underscores), no argument is missing or unexpected, and
every value is one of those allowed. As in BFCL: an allowed `""` makes an argument optional; strings are compared
without case, spaces and `,./-_*^`; a dict among the allowed values holds lists of allowed values itself, deeper ones
are plain; an integer stands for a float, but not a float for an integer, nor a bool for a number.

Stricter than BFCL, where its rule lets wrong answers through: separators between digits keep them apart (2024-1-11 is
not 2024-11-1, 3.5 is not 35, x^2-4 is not x^24), a leading minus counts, a string of punctuation alone is not "", and
bool, integer and string are told apart at every depth. Wider: integers stand for floats inside lists too.
Not covered: whether a value fits an `enum`, a pattern or a range of the schema (the allowed values decide).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.verifiers.toolcalls.reading import Call, Symbol

_INTEGERS = ("integer", "int", "long", "short", "byte", "bigint")
_KINDS = {
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("string", "str", "char"), "string"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("array", "list", "tuple", "arraylist", "set", "queue", "stack"), "array"),
    **dict.fromkeys(("object", "dict", "hashmap", "hashtable"), "object"),
    **dict.fromkeys(("null", "none"), "null"),
}
_SIGN = re.compile(r"(^|[(\[{,=:<>*/^])\s*-(?=\.?\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[ ,/_-]+(?=\d)")


class GoldError(ValueError):
    """The expected calls or the tools cannot be what was meant; the message says why."""


@dataclass(frozen=True)
class Expected:
    """One expected call: per argument its allowed values; `choices` where a dict among them lists allowed values."""

    name: str
    allowed: Mapping[str, Sequence[Any]]
    optional: frozenset[str]
    required: frozenset[str]
    schemas: Mapping[str, Any]
    choices: bool


@dataclass(frozen=True)
class Difference:
    """The first thing wrong with a call."""

    reason: str
    argument: str | None = None
    got: Any = None
    allowed: Sequence[Any] = ()


def schemas_of(tools: Any) -> dict[str, Mapping[str, Any]]:
    """The parameters' schema by function name, of BFCL's or OpenAI's lists (or their JSON). Raises GoldError."""
    made: dict[str, Mapping[str, Any]] = {}
    for tool in _listed(tools, "tools"):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise GoldError("a tool is an object with a name and parameters")
        parameters = function.get("parameters") or {}
        if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties") or {}, Mapping):
            raise GoldError(f"the parameters of {function['name']} are no schema")
        made[function["name"]] = parameters
    return made


def expected_calls(calls: Any, schemas: Mapping[str, Mapping[str, Any]]) -> list[Expected]:
    """The expected calls of BFCL's possible answers or of plain calls (or their JSON). Raises GoldError."""
    return [_expected(call, schemas) for call in _listed(calls, "calls")]


def _listed(value: Any, what: str) -> list[Any]:
    if isinstance(value, str):
        value = _parsed(value, what)
    if isinstance(value, Mapping):
        return [value]
    if not isinstance(value, Sequence):
        raise GoldError(f"{what} is no list")
    return list(value)


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GoldError(f"{what}: no JSON ({error})") from None


def _expected(call: Any, schemas: Mapping[str, Mapping[str, Any]]) -> Expected:
    if not isinstance(call, Mapping):
        raise GoldError("an expected call is an object")
    plain = isinstance(call.get("name"), str)
    if not plain and len(call) != 1:
        raise GoldError("an expected call names one function")
    name, given = (call["name"], call.get("arguments", {})) if plain else next(iter(call.items()))
    if isinstance(given, str) and plain:
        given = _parsed(given, f"the arguments of {name}")
    if name not in schemas:
        raise GoldError(f"{name} is not among the tools")
    if not isinstance(given, Mapping):
        raise GoldError(f"the arguments of {name} are no object")
    properties, required = schemas[name].get("properties") or {}, frozenset(schemas[name].get("required") or ())
    if plain:
        allowed, optional = _plainly(given, properties, required)
    else:
        if not all(isinstance(values, list | tuple) and values for values in given.values()):
            raise GoldError(f"an argument of {name} has no list of allowed values")
        allowed = {key: list(values) for key, values in given.items()}
        optional = frozenset(key for key, values in allowed.items() if "" in values) - required
    unknown = allowed.keys() - properties.keys() if properties else set()
    lost = (required - allowed.keys()) | (unknown - optional)
    if lost:
        raise GoldError(f"no call of {name} can be right: {', '.join(sorted(lost))}")
    allowed = {key: values for key, values in allowed.items() if key not in unknown}
    return Expected(name, allowed, optional, required, properties, choices=not plain)


def _plainly(
    given: Mapping[str, Any], properties: Mapping[str, Any], required: frozenset[str]
) -> tuple[dict[str, list[Any]], frozenset[str]]:
    """One value per argument; saying a default and leaving it out are the same."""
    defaults = {
        key: schema["default"]
        for key, schema in properties.items()
        if isinstance(schema, Mapping) and "default" in schema and key not in required
    }
    allowed = {key: [value] for key, value in {**defaults, **given}.items()}
    same = (key for key, value in defaults.items() if matches(allowed[key][0], value, properties[key], choices=False))
    return allowed, frozenset(same)


def difference(call: Call, want: Expected, names: frozenset[str]) -> Difference | None:
    """The first thing wrong with a call, in BFCL's order; None where it matches. `names` are those of the tools."""
    if call.name != want.name and (call.name in names or call.name != want.name.replace(".", "_")):
        return Difference("wrong_function" if call.name in names else "unknown_function", got=call.name)
    for key in sorted(want.required - call.arguments.keys()):
        return Difference("missing_argument", key)
    for key, value in call.arguments.items():
        if key not in want.allowed:
            return Difference("unexpected_argument", key, value)
        schema, allowed = want.schemas.get(key, {}), want.allowed[key]
        if not any(matches(value, item, schema, want.choices) for item in allowed):
            kinds = _kinds(schema) | {_kind(item) for item in allowed if item != ""}
            fits = not _kinds(schema) or _kind(value) in kinds or (_kind(value) == "integer" and "number" in kinds)
            return Difference("wrong_value" if fits else "wrong_type", key, value, allowed)
    for key in sorted(want.allowed.keys() - want.optional - call.arguments.keys()):
        return Difference("missing_argument", key, allowed=want.allowed[key])
    return None


def matches(value: Any, gold: Any, schema: Any, choices: bool) -> bool:
    """Whether a value is the gold one; the depth is the gold's."""
    if isinstance(gold, Mapping):
        return isinstance(value, dict) and _matches_dict(value, gold, _inside(schema, "properties"), choices)
    if isinstance(gold, list | tuple):
        inner = _inside(schema, "items")
        return (
            isinstance(value, list)
            and len(value) == len(gold)
            and all(matches(mine, item, inner, choices) for mine, item in zip(value, gold, strict=True))
        )
    if isinstance(gold, str):
        if isinstance(value, Symbol):  # a variable: right where the gold names one, not where it is a text
            return "string" not in _kinds(schema) and value == gold.replace('"', "'")
        return isinstance(value, str) and (value == gold or _folded(value) == _folded(gold) != "")
    if type(gold) in (int, float) and type(value) in (int, float):
        loose = type(value) is type(gold) or type(value) is int or "integer" not in _kinds(schema)
        return loose and value == gold
    return type(value) is type(gold) and value == gold


def _matches_dict(value: dict[str, Any], gold: Mapping[str, Any], schemas: Mapping[str, Any], choices: bool) -> bool:
    lists = {key: items if choices and isinstance(items, list) else [items] for key, items in gold.items()}
    return all(key in lists for key in value) and all(
        any(matches(value[key], item, schemas.get(key, {}), choices=False) for item in items)
        if key in value
        else choices and "" in items
        for key, items in lists.items()
    )


def _folded(text: str) -> str:
    """BFCL's normal form, except that digits stay apart and a leading minus stays."""
    text = _SIGN.sub(r"\1~", text.strip().lower().replace("**", "^"))
    text = _BETWEEN_DIGITS.sub("|", _THOUSANDS.sub("", text))
    text = re.sub(r"(?<=\d)([.*^])(?=\d)", lambda found: {".": ":", "*": "×", "^": "↑"}[found[1]], text)
    return re.sub(r"[ ,./\-_*^]", "", text).replace("'", '"')


def _inside(schema: Any, part: str) -> Mapping[str, Any]:
    found = schema.get(part) if isinstance(schema, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _kinds(schema: Any) -> set[str]:
    """The JSON kinds that a schema's `type` names; empty for any."""
    types = schema.get("type") if isinstance(schema, Mapping) else None
    return {
        _KINDS[item.lower()] for item in ([types] if isinstance(types, str) else types or ()) if item.lower() in _KINDS
    }


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", Symbol: "variable", list: "array"}
    return kinds.get(type(value), "object")
