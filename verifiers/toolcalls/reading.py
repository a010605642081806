"""Function calls read out of a response: JSON, `<tool_call>` blocks, or Python call syntax.

What is read: after a leading think block, (1) the JSON of all `<tool_call>` blocks where there are any (Hermes, Qwen);
else the one fenced block, else the whole text, as (2) a JSON object or array of `{"name", "arguments"}` (or
`"parameters"`), OpenAI `tool_calls`, or `{"function": {"argument": value}}`; or (3) Python calls, `[f(a=1), g(b="x")]`.

The law kept here: nothing is evaluated, and an unclear answer is no answer. A key given twice, a number that is no JSON
number, a positional argument or an expression is refused by name, not guessed at. Not covered: other markups of calls
(`<function=...>`, special tokens of single model families), JavaScript and Java calls.
"""

from __future__ import annotations

import ast
import json
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: Longest answer that is read, in characters, its think block apart; the deepest nesting, in levels; the largest
#: integer, in bits.
MAX_CHARS, MAX_DEPTH, MAX_BITS = 100_000, 64, 4_096

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_JSON_NAMES = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Call:
    """One call of a function by name with named arguments (JSON values; a bare Python name is a `Symbol`)."""

    name: str
    arguments: dict[str, Any]


class Symbol(str):
    """A variable that stands where a value could: `data`, `data['sales']`."""


class UnreadableError(ValueError):
    """`reason` is the short name of what stands in the way of reading calls."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_calls(response: str) -> list[Call]:
    """The calls of a response in order; [] where it says `[]`. Raises UnreadableError, `no_call` where it is prose."""
    text = answer_of(response)
    if len(text) > MAX_CHARS:
        raise UnreadableError("too_long", f"{len(text)} characters, {MAX_CHARS} are read")
    if text[:1] in ("[", "{"):  # whole, whatever its strings hold
        return _of_text(text)
    if _OPEN in text:
        return [call for block in _blocks(text) for call in _of_json(_json(block))]
    return _of_text(_unfenced(text))


def answer_of(response: str) -> str:
    """What follows a think block that opens the response (or was opened by the prompt). Raises UnreadableError."""
    text = response.strip()
    if text.startswith("<think>") and "</think>" not in text:
        raise UnreadableError("unclosed_think")
    if "</think>" not in text or text[:1] in ("[", "{"):
        return text
    return text.partition("</think>")[2].strip()


def _blocks(text: str) -> Iterator[str]:
    for part in text.split(_OPEN)[1:]:
        block, close, _ = part.partition(_CLOSE)
        if not close:
            raise UnreadableError("unclosed_tool_call")
        yield block.strip()


def _unfenced(text: str) -> str:
    parts = text.split("```")
    if len(parts) == 1:
        return text.strip("`").strip()
    if len(parts) != 3:
        raise UnreadableError("several_answers", f"{len(parts) // 2} fenced blocks")
    label, newline, body = parts[1].partition("\n")
    return body.strip() if newline and label.strip().isidentifier() else parts[1].strip()


def _of_text(text: str) -> list[Call]:
    if text[:1] in ("{", "["):
        try:
            return _of_json(_json(text))
        except UnreadableError as error:
            if text[0] == "{" or error.reason != "not_json":
                raise
    return _of_python(text)


def _json(text: str) -> Any:
    """Strict JSON: no key twice, no NaN or Infinity, nothing that overflows, at most MAX_DEPTH levels."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError("too_deep") from None
    except ValueError as error:
        raise UnreadableError("not_json", str(error)) from None
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise UnreadableError("duplicate_key", _repeated([key for key, _ in pairs]))
    return made


def _constant(name: str) -> None:
    raise UnreadableError("not_finite", name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise UnreadableError("not_finite", text)
    return value


def _check_depth(value: Any) -> None:
    """Level by level, so that a deep value cannot exhaust the stack of what looks at it later."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise UnreadableError("too_deep")
        level = [
            item
            for node in level
            if isinstance(node, dict | list)
            for item in (node.values() if isinstance(node, dict) else node)
        ]
        depth += 1


def _of_json(value: Any) -> list[Call]:
    if isinstance(value, dict) and isinstance(value.get("tool_calls", 0), list | None):
        value = value["tool_calls"] or []
    return [_call(item) for item in (value if isinstance(value, list) else [value])]


def _call(item: Any) -> Call:
    if (
        isinstance(item, dict)
        and isinstance(item.get("function"), dict)
        and (item.get("type") == "function" or "name" in item["function"])
    ):
        item = item["function"]
    if not isinstance(item, dict):
        raise UnreadableError("not_a_call", type(item).__name__)
    if isinstance(item.get("name"), str):
        given = [key for key in ("arguments", "parameters") if key in item]
        if len(given) == 2:
            raise UnreadableError("not_a_call", "arguments and parameters")
        arguments = item[given[0]] if given else {}
        if isinstance(arguments, str):  # OpenAI sends the arguments as JSON inside JSON
            arguments = _json(arguments) if arguments.strip() else {}
        name = item["name"]
    elif len(item) == 1:
        name, arguments = next(iter(item.items()))
    else:
        raise UnreadableError("not_a_call", "neither a name with arguments nor one function")
    if not isinstance(arguments, dict):
        raise UnreadableError("not_a_call", f"the arguments of {name} are no object")
    return Call(name, arguments)


def _of_python(text: str) -> list[Call]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and digits in a response, which nobody is to mend
            body = ast.parse(text, mode="eval").body
    except (RecursionError, MemoryError):
        raise UnreadableError("too_deep") from None
    except (SyntaxError, ValueError) as error:
        raise UnreadableError("not_a_call" if text[:1] in ("{", "[") else "no_call", str(error)) from None
    nodes = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
    if not all(isinstance(node, ast.Call) for node in nodes):
        raise UnreadableError("no_call")
    return [_python_call(node) for node in nodes if isinstance(node, ast.Call)]


def _python_call(node: ast.Call) -> Call:
    names = [keyword.arg for keyword in node.keywords]
    name = _dotted(node.func)
    if name is None:
        raise UnreadableError("not_a_call", "the function is no name")
    if node.args or None in names:
        raise UnreadableError("positional_argument", name)
    if len(set(names)) != len(names):
        raise UnreadableError("duplicate_key", _repeated(names))
    return Call(name, {str(keyword.arg): _literal(keyword.value, 0) for keyword in node.keywords})


def _literal(node: ast.expr, depth: int) -> Any:
    """The JSON value of a literal; tuples are lists, a bare variable is a Symbol."""
    if depth > MAX_DEPTH:
        raise UnreadableError("too_deep")
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise UnreadableError("not_a_literal", "a key that is no string")
        values = [_literal(item, depth + 1) for item in node.values]
        return _object(list(zip([str(key) for key in keys], values, strict=True)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = node.operand.value if isinstance(node.operand, ast.Constant) else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _checked(-value if isinstance(node.op, ast.USub) else value)
    if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (str, bool, int, float)):
        return _checked(node.value)
    if isinstance(node, ast.Name) and node.id in _JSON_NAMES:
        return _JSON_NAMES[node.id]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and _dotted(node.value) is not None:
        return Symbol(f"{_dotted(node.value)}[{str(_checked(node.slice.value))[:200]!r}]")
    name = _dotted(node)
    if name is None:
        raise UnreadableError("not_a_literal", type(node).__name__)
    return Symbol(name)


def _checked(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableError("not_finite", str(value))
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise UnreadableError("too_long", f"an integer of {value.bit_length()} bits")
    return value


def _dotted(node: ast.expr) -> str | None:
    """`a.b.c` of attributes of a name."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _repeated(names: list[Any]) -> str:
    seen: set[Any] = set()
    return str(next(name for name in names if name in seen or seen.add(name)))[:200]  # type: ignore[func-returns-value]
