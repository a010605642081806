"""What stayed with the candidate, as the tests see it: handles that ask, and the conversation they ask through.

The law kept here: a thing of the candidate's is equal to itself alone. What a function returned in place of a plain
value cannot pose as one (no operators, no methods named as those of built-in types); an instance of a class that the
tests named (upper case first) answers to all its methods, and to `len`, `in`, `[]` and `str` besides. An error of the
candidate's is raised here as the built-in class of the same name.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Any

from gristmill.verifiers.programs.wire import Malformed, Unfit, decode, dumps, encode, loads

#: Public names of the plain types, which a thing in the place of a plain value does not get to answer.
PLAIN = {name for kind in (int, float, str, list, tuple, dict, set, bytes) for name in dir(kind) if name[0] != "_"}

HERE: dict[str, Any] = {}  # the one conversation of this process


class Broken(BaseException):
    """Tests that cannot judge anything; no `except Exception` of theirs catches it."""


class Gone(BaseException):
    """The candidate will not answer again."""


def begin(channel: Any) -> None:
    """Start the conversation over a channel."""
    HERE.update(channel=channel, classes=set(), things={}, kinds={}, theirs=[], last=None, calls=0, malformed=None)


class Handle:
    """Something that stayed with the candidate."""

    __slots__ = ("_number",)
    _made = False

    def __init__(self, number: int) -> None:
        object.__setattr__(self, "_number", number)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return ask("call", self._number, args, named, made=self._number in HERE["classes"])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (name in PLAIN and not self._made):
            raise AttributeError(f"a thing of the candidate's has no {name!r} here")
        return ask("get", self._number, (name,), made=self._made)

    def __setattr__(self, name: str, value: Any) -> None:
        ask("set", self._number, (name, value))

    def __iter__(self) -> Any:
        return ask("iter", self._number)

    def __next__(self) -> Any:
        return ask("next", self._number)

    def __bool__(self) -> bool:
        return ask("bool", self._number) is True


class Instance(Handle):
    """What a class of the candidate's made for the tests."""

    __slots__ = ()
    _made = True

    def __len__(self) -> Any:
        return ask("len", self._number)

    def __str__(self) -> Any:
        return ask("str", self._number)

    def __contains__(self, item: Any) -> bool:
        return ask("in", self._number, (item,)) is True

    def __getitem__(self, key: Any) -> Any:
        return ask("item", self._number, (key,))

    def __setitem__(self, key: Any, value: Any) -> None:
        ask("put", self._number, (key, value))


def ask(
    operation: str, on: Any, args: Iterable[Any] = (), named: dict[str, Any] | None = None, made: bool = False
) -> Any:
    """Have the candidate do something, and return or raise what came of it."""
    try:
        values = [encode(item, _handle) for item in args]
        by_name = {name: encode(item, _handle) for name, item in (named or {}).items()}
    except Unfit as error:
        raise Broken(f"an argument cannot be sent: {error}") from None
    channel, HERE["last"] = HERE["channel"], None
    channel.send(b"?" + dumps({"op": operation, "on": on, "args": values, "named": by_name}))
    frame = channel.receive()
    if not frame:
        raise Gone
    HERE["calls"] += operation != "names"
    try:
        answer = loads(frame)
        if type(answer) is not dict:
            raise Malformed("an answer that is no object")
        if "ok" in answer:
            HERE["last"] = decode(answer["ok"], lambda handle: _thing(handle, made))
            return HERE["last"]
        raised = _error(answer)
    except Malformed as error:
        HERE["malformed"] = str(error)
        raise
    if operation == "names":
        raise Malformed("names that cannot be told")
    HERE["theirs"].append(raised)
    raise raised


def _handle(value: Any) -> list[Any]:
    """A handle on its way back; nothing else of the tests' own leaves them."""
    if isinstance(value, Handle):
        return ["h", value._number]
    if isinstance(value, type) and value in HERE["kinds"].values():
        return ["h", next(number for number, kind in HERE["kinds"].items() if kind is value)]
    raise Unfit(f"a {type(value).__name__} is no plain data")


def _thing(handle: list[Any], made: bool) -> Any:
    """The one Handle of a number; a local class for an exception class."""
    number = handle[1]
    if type(number) is not int:
        raise Malformed("a handle without a number")
    if handle[0] == "x":
        name, base = handle[2:]
        if number not in HERE["kinds"]:
            HERE["kinds"][number] = type(str(name), (_exception(base),), {})
        return HERE["kinds"][number]
    things = HERE["things"]
    if number not in things:
        things[number] = (Instance if made else Handle)(number)
    return things[number]


def _exception(name: Any) -> type[BaseException]:
    kind = getattr(builtins, name, None) if type(name) is str else None
    if not (isinstance(kind, type) and issubclass(kind, BaseException)) or issubclass(kind, BaseExceptionGroup):
        return Exception
    return kind


def _error(answer: dict[str, Any]) -> BaseException:
    """The error an answer tells of: the tests' own class of that name, else the built-in one."""
    name, text = answer.get("name"), answer.get("text")
    kind = next((kind for kind in HERE["kinds"].values() if kind.__name__ == name), _exception(answer.get("raise")))
    error = kind.__new__(kind)
    error.args = (text,) if type(text) is str else ()
    return error
