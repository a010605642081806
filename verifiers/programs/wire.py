"""Plain data between processes: values as JSON that says their exact types, rebuilt on the other side as themselves.

The law kept here: what is rebuilt is of an exact built-in or standard type, so the sender wrote none of its
methods; `==` on it is Python's own. Serialising also copies, so that nobody can change another's arguments.
Runs inside the sandbox as well as in the grader, so it imports the standard library alone.

A value of a subclass that keeps its base's `__eq__` (a named tuple, an IntEnum) goes over as its base; anything else
becomes a handle, a number for a thing that stays where it is. Views of a dict come back as views, iterators as handles.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

#: How deep a value may nest, and how many of a set's members may share a hash (chosen hashes make sets quadratic).
DEPTH, SAME_HASH = 100, 50

_SMALL = 2**63
_SEQUENCES: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}
_MAPPINGS: dict[type, str] = {dict: "d", Counter: "C", OrderedDict: "O", defaultdict: "D"}
_VIEWS: dict[type, str] = {type({}.keys()): "dk", type({}.values()): "dv", type({}.items()): "di"}
_BASES: tuple[type, ...] = (int, float, str, bytes, tuple, list, dict, set, frozenset)
_TYPES = {kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict, set, frozenset, bytes, complex)}


class Malformed(ValueError):
    """A frame that no honest sender writes."""


class Unfit(ValueError):
    """A value that cannot be sent."""


def dumps(value: Any) -> bytes:
    """JSON as bytes, pure ASCII, so that lone surrogates survive."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def loads(frame: bytes) -> Any:
    """JSON from bytes. Raises Malformed, for nesting too deep as well."""
    try:
        return json.loads(frame)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None


def encode(value: Any, other: Callable[[Any], list[Any]], depth: int = 0) -> Any:
    """A value as JSON; `other` encodes what is no plain data. Raises Unfit where it nests deeper than DEPTH."""
    kind: Any = type(value)
    if value is None or kind is str or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -_SMALL < value < _SMALL else ["i", hex(value)]
    if depth > DEPTH:
        raise Unfit(f"nested more than {DEPTH} deep")
    if (tag := _SEQUENCES.get(kind)) is not None:
        return [tag, *[encode(item, other, depth + 1) for item in value]]
    if (tag := _MAPPINGS.get(kind)) is not None:
        return [tag, *_pairs(dict.items(value), other, depth)]
    if kind is deque:
        return ["q", value.maxlen, *[encode(item, other, depth + 1) for item in value]]
    if (tag := _VIEWS.get(kind)) is not None:
        return [tag, *(_pairs(value, other, depth) if tag == "di" else [encode(x, other, depth + 1) for x in value])]
    if kind is bytes or kind is bytearray:
        return ["b" if kind is bytes else "ba", value.hex()]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is Decimal:
        return ["De", str(value)]
    if kind is Fraction:
        return ["Fr", hex(value.numerator), hex(value.denominator)]
    if kind is range:
        return ["r", hex(value.start), hex(value.stop), hex(value.step)]
    if kind is datetime.timedelta:
        return ["td", value.days, value.seconds, value.microseconds]
    if kind is datetime.date or (kind in (datetime.datetime, datetime.time) and value.tzinfo is None):
        return [kind.__name__, value.isoformat()]
    if kind is type and value in _TYPES.values():
        return ["y", value.__name__]
    for base in _BASES:
        if isinstance(value, base) and kind.__eq__ is base.__eq__ and kind.__ne__ is base.__ne__:
            return encode(_as_base(value, base), other, depth)
    return other(value)


def decode(value: Any, handle: Callable[[list[Any]], Any], depth: int = 0) -> Any:
    """The value of what `encode` made; `handle` resolves a handle. Raises Malformed for anything else."""
    if type(value) is not list:
        if type(value) is dict:
            raise Malformed("a bare object")
        return value
    if depth > DEPTH + 1:
        raise Malformed(f"nested more than {DEPTH} deep")
    try:
        tag, rest = value[0], value[1:]
        if tag in ("h", "x"):
            return handle(value)
        if tag in _READERS:
            return _READERS[tag](*rest)
        items = [decode(item, handle, depth + 1) for item in rest]
        return _BUILDERS[tag](items)
    except Malformed:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise Malformed(f"{type(error).__name__}: {error}"[:200]) from None


def _pairs(items: Iterable[tuple[Any, Any]], other: Callable[[Any], list[Any]], depth: int) -> list[Any]:
    return [encode(part, other, depth + 1) for pair in items for part in pair]


def _as_base(value: Any, base: Any) -> Any:
    """The base's own part of a value, by the base's methods, whatever its class overrides."""
    if base is int:
        return int.__index__(value)
    if base is float:
        return float.__float__(value)
    if base is str:
        return str.__str__(value)
    if base is bytes:
        return bytes.__add__(value, b"")
    return dict(dict.items(value)) if base is dict else base(base.__iter__(value))


def _hashed(items: list[Any]) -> list[Any]:
    """The items, where they can be hashed without being made to collide."""
    if len(items) > SAME_HASH and max(Counter(map(hash, items)).values()) > SAME_HASH:
        raise Malformed(f"more than {SAME_HASH} members with one hash")
    return items


def _dict(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise Malformed("a key without a value")
    return dict(zip(_hashed(items[::2]), items[1::2], strict=True))


def _counter(items: list[Any]) -> Counter[Any]:
    made: Counter[Any] = Counter()
    dict.update(made, _dict(items))
    return made


def _whole(digits: str) -> int:
    return int(digits, 16)


def _fraction(over: str, under: str) -> Fraction:
    if len(over) + len(under) > 10_000:  # reducing it takes time that grows with the square of its digits
        raise Malformed("a fraction of too many digits")
    return Fraction(_whole(over), _whole(under))


_BUILDERS: dict[str, Callable[[list[Any]], Any]] = {
    "l": list,
    "t": tuple,
    "s": lambda items: set(_hashed(items)),
    "f": lambda items: frozenset(_hashed(items)),
    "q": lambda items: deque(items[1:], items[0]),
    "d": _dict,
    "C": _counter,
    "O": lambda items: OrderedDict(_dict(items)),
    "D": lambda items: defaultdict(None, _dict(items)),
    "dk": lambda items: dict.fromkeys(_hashed(items)).keys(),
    "dv": lambda items: dict(enumerate(items)).values(),
    "di": lambda items: _dict(items).items(),
}

_READERS: dict[str, Callable[..., Any]] = {
    "i": _whole,
    "b": bytes.fromhex,
    "ba": bytearray.fromhex,
    "c": complex,
    "De": Decimal,
    "Fr": _fraction,
    "r": lambda start, stop, step: range(_whole(start), _whole(stop), _whole(step)),
    "td": datetime.timedelta,
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "datetime": datetime.datetime.fromisoformat,
    "y": _TYPES.__getitem__,
}
