"""The candidate's side, inside the sandbox: the response's code as a module, and its answers to calls.

The law kept here: this process knows nothing worth stealing. It holds the response, the names and the arguments that
were asked for, and no test, no expected value and no verdict; what it answers is plain data (wire.py), committed before
anybody compares it. Whatever the code does to its own interpreter changes its own answers and nothing else.

A request is a nonce of 16 bytes and JSON: an operation, what it is done on (a name, the number of a handle, null for
the entry point) and arguments; the answer bears the same nonce. `each` holds several, each with a nonce of its own and
an answer of its own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import operator
import random
import sys
import types
from collections.abc import Callable
from typing import Any

from gristmill.verifiers.programs.wire import decode, dumps, encode, loads

#: What may be done with something that stays here.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": lambda on, *args, **named: on(*args, **named),
    "get": getattr,
    "set": setattr,
    "iter": iter,
    "next": next,
    "len": len,
    "bool": bool,
    "str": str,
    "item": operator.getitem,
    "put": operator.setitem,
    "in": operator.contains,
}

#: What LeetCode's own judge imports before a solution; `class Solution` tasks count on it.
IMPLIED = (
    *(f"from {name} import *" for name in ("typing", "collections", "itertools", "functools", "heapq", "bisect")),
    "import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, typing",
)


class Kept:
    """What stays here and is known outside by a number; the same thing keeps its number."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self.numbers: dict[int, int] = {}

    def number(self, thing: Any) -> list[Any]:
        """The handle of a thing; of an exception class with its name and the built-in class it derives from."""
        if id(thing) not in self.numbers:
            self.numbers[id(thing)] = len(self.things)
            self.things.append(thing)
        number = self.numbers[id(thing)]
        if isinstance(thing, type) and issubclass(thing, BaseException):
            return ["x", number, thing.__name__, _built_in(thing)]
        return ["h", number, _own_eq(type(thing))]

    def thing(self, handle: list[Any]) -> Any:
        """What a handle stands for."""
        return self.things[handle[1]]


def serve(channel: Any) -> None:
    """Load a program and answer until the channel closes."""
    nonce, setup = _request(channel)
    random.seed(setup["seed"])
    parts, entry = choose(setup["code"], setup["prompt"], setup["entry"])
    if not parts:
        channel.send(nonce + dumps({"failed": "no_code"}))
        return
    kept, names = Kept(), _module("candidate", setup["implied"])
    try:
        for part in parts:
            if part is parts[-1] and entry is not None:
                names.pop(entry, None)  # the stub of the prompt is not the response's
            exec(part, names)
    except BaseException as error:
        channel.send(nonce + dumps({"failed": "failed_to_load", **_told(error)}))
        return
    try:
        start = None if entry is None else find(names, entry)
    except LookupError:
        channel.send(nonce + dumps({"failed": "no_entry_point"}))
        return
    channel.send(nonce + dumps({"ready": entry}))
    while (asked := channel.receive()) is not None:
        request = loads(asked[16:])
        for nonce, one in request["each"] if "each" in request else [(asked[:16].decode(), request)]:
            try:
                frame = dumps({"ok": _answer(one, names, start, kept)})
            except BaseException as error:
                frame = dumps(_told(error))
            channel.send(nonce.encode() + frame)


def script(channel: Any) -> None:
    """Run the code as a program of its own; what it prints is the answer, and its errors rise."""
    nonce, setup = _request(channel)
    parts, _ = choose(setup["code"], "", None)
    channel.send(nonce + dumps({"ready": None} if parts else {"failed": "no_code"}))
    random.seed(setup["seed"])
    names = _module("__main__", False)
    for part in parts:
        exec(part, names)


def choose(code: str, prompt: str, entry: str | None) -> tuple[list[types.CodeType], str | None]:
    """What to run, in order, and its entry point: the code, after the prompt where that is code that declares the entry
    point (imports and helpers come from there); or both as one where the code goes on with the prompt's body."""
    declares = entry is not None and f"def {entry}" in prompt
    alone = _compiled(code) if code.strip() else None
    if declares and code.strip() and (alone is None or entry not in _defined(code)):
        for text in (prompt + code, prompt + "    " + code):  # models lose the first line's indentation
            whole = _compiled(text)
            if whole is not None:
                return [whole], entry
    if alone is None:
        return [], entry
    if entry is None:
        entry = next((name for name, callable_ in reversed(_defined(code).items()) if callable_), None)
    stub = _compiled(prompt) if declares else None
    return ([alone] if stub is None else [stub, alone]), entry


def find(names: dict[str, Any], name: str) -> Any:
    """A name of the program: global, else a method of a fresh `Solution` for each call. Raises LookupError."""
    if name in names:
        return names[name]
    solution = names.get("Solution")
    if isinstance(solution, type) and hasattr(solution, name):
        return lambda *args, **named: getattr(solution(), name)(*args, **named)
    raise LookupError(name)


def _answer(request: dict[str, Any], names: dict[str, Any], start: Any, kept: Kept) -> Any:
    operation, on = request["op"], request["on"]
    if operation == "names":
        found: list[Any] = ["l"]
        for name in on:
            with contextlib.suppress(LookupError):
                found.append(["t", name, encode(find(names, name), kept.number)])
        return found
    if isinstance(on, str):
        try:
            thing = find(names, on)
        except LookupError:
            raise NameError(f"name {on!r} is not defined") from None
    else:
        thing = start if on is None else kept.things[on]
    args = [decode(value, kept.thing) for value in request["args"]]
    named = {name: decode(value, kept.thing) for name, value in request["named"].items()}
    return encode(OPERATIONS[operation](thing, *args, **named), kept.number)


def _request(channel: Any) -> tuple[bytes, dict[str, Any]]:
    frame = channel.receive()
    return frame[:16], loads(frame[16:])


def _module(name: str, implied: bool) -> dict[str, Any]:
    """The names of a fresh module; dataclasses and pickle look it up in sys.modules."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # `site` makes them elsewhere
    if implied:
        for line in IMPLIED:
            exec(line, module.__dict__)
    return module.__dict__


def _compiled(text: str) -> types.CodeType | None:
    try:
        return compile(text, "candidate.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _defined(code: str) -> dict[str, bool]:
    """The names that code binds at its top level, with the methods of a class Solution, and which are functions."""
    found: dict[str, bool] = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.ClassDef) and node.name == "Solution":
            found.update({item.name: True for item in node.body if isinstance(item, ast.FunctionDef)})
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = isinstance(node, ast.FunctionDef)
        elif isinstance(node, ast.Assign | ast.Import | ast.ImportFrom):
            for item in ast.walk(node):
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
                    found[item.id] = False
                elif isinstance(item, ast.alias):
                    found[item.asname or item.name] = False
    return found


def _told(error: BaseException) -> dict[str, Any]:
    """An error as plain data: its built-in class, its own name, its text, and what it was raised with."""
    try:
        text = str(error)[:500]
    except BaseException:
        text = ""
    return {"raise": _built_in(type(error)), "name": type(error).__name__[:100], "text": text}


def _built_in(kind: type[BaseException]) -> str:
    return next(base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base)


def _own_eq(kind: type) -> bool:
    """Whether a class has its own idea of being equal (an attack where a plain value was due)."""
    return kind.__eq__ is not object.__eq__ and kind.__module__ == "candidate"
