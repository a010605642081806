"""Jinja as chat templates are written for it, in bounded work.

A template comes with a model from somewhere, so it is a program by a stranger. It runs in Jinja's immutable sandbox,
with what transformers gives it (trim_blocks, lstrip_blocks, loop controls, `tojson` that leaves characters as they are,
`raise_exception`, `{% generation %}`), and it is counted: each turn of a loop, each call of a macro and each character
that it makes takes from a budget that grows with what it is given. So what is refused is the same on every machine.
Only names on a list can be called: what chat templates use, and nothing whose cost a small argument decides.

Two names are left out although transformers has them: `strftime_now`, since a day would show in the data (templates
that ask whether it is defined take their fixed date), and `str.format`. No other template can be included.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import defaults, nodes, pass_environment
from jinja2.ext import loopcontrols
from jinja2.runtime import LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace

from gristmill.dataops.chat.syntax import Counting, Generation

#: Characters of a template's source; the longest in use have some 20,000.
LONGEST = 200_000
#: Work that any rendering may do, and that for each character it is given; a character made is 1, a turn of a loop
#: `_TURN`, an item of a list that is written out `_ITEM`.
_BASE, _PER_CHARACTER, _TURN, _ITEM = 20_000_000, 200, 50, 10
#: Seconds after which a rendering within its budget is given up nevertheless: an error, never a result.
_SECONDS = 60.0
_LOOK = 16  # charges from one look at the clock to the next
_WIDEST = 64  # spaces of an indent
_INTEGER = 1 << 63

_METHODS: dict[type, tuple[str, ...]] = {
    str: (
        "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "isspace", "lower",
        "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition", "rsplit",
        "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    ),
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
    int: (),
    float: ("is_integer",),
}  # fmt: skip
_FILTERS = (
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "safe", "select",
    "selectattr", "sort", "string", "title", "trim", "unique", "upper",
)  # fmt: skip
_TEXTUAL = ("capitalize", "e", "escape", "int", "float", "lower", "safe", "string", "title", "trim", "upper")
_GLOBALS = ("dict", "namespace", "range")
_OF_DICTS = frozenset(dir(dict))  # Jinja finds these before a key of that name


class TooMuch(RuntimeError):
    """A template that does more work than its input can ask for."""


class Bounded(ImmutableSandboxedEnvironment):
    """The environment of one template. `begin` before each rendering; one rendering at a time."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], finalize=self._made
        )
        self._left, self._until, self._charges = _BASE, time.monotonic() + _SECONDS, 0
        self.spans: list[tuple[int, str]] = []
        self.at = 0
        self.generates = False
        self.filters = {name: self._charged(defaults.DEFAULT_FILTERS[name], name in _TEXTUAL) for name in _FILTERS}
        self.filters |= {"tojson": self._tojson, "join": self._join, "replace": self._replace, "indent": self._indent}
        self.filters["round"] = self._round
        self.globals = {name: self.globals[name] for name in _GLOBALS} | {"raise_exception": _raise}

    def begin(self, size: int) -> None:
        """Before a rendering of something with `size` characters."""
        self._left = _BASE + _PER_CHARACTER * size
        self._until = time.monotonic() + _SECONDS
        self.spans = []
        self.at = 0

    def program(self, source: str) -> jinja2.Template:
        """The template, compiled with its loops and macros counted. Raises TemplateError or TooMuch."""
        if len(source) > LONGEST:
            raise TooMuch(f"it has {len(source):,} characters; the most is {LONGEST:,}")
        self.begin(len(source))
        tree = self.parse(source)
        kinds = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.EvalContextModifier)
        for node in tree.find_all(kinds):
            raise SecurityError(f"line {node.lineno} asks for another template, or for escaping")
        return self.from_string(Counting().visit(tree))

    def turn(self) -> None:
        """One turn of a loop, or one call of a macro."""
        self.charge(_TURN)

    def joined(self, *values: Any) -> str:
        """What `~` makes."""
        texts = [str(self._made(value)) for value in values]
        self.charge(sum(map(len, texts)))
        return "".join(texts)

    def held(self, value: Any) -> Any:
        """A copy of a part, or a new list or dictionary, counted with all that it holds."""
        self._weigh(value)
        return value

    def charge(self, units: int) -> None:
        """Take from the budget. Raises TooMuch where it is used up."""
        self._left -= units
        if self._left < 0:
            raise TooMuch("it makes more text, or takes more turns, than its input can ask for")
        self._charges += 1
        if not self._charges % _LOOK and time.monotonic() > self._until:
            raise TooMuch(f"it runs for more than {_SECONDS:.0f} seconds")

    def _weigh(self, value: Any) -> None:
        """Charge for a value as if it were written out: lists that hold one list twice count it twice."""
        left = [value]
        while left:
            item = left.pop()
            if isinstance(item, dict):
                left += (*item.keys(), *item.values())
            elif isinstance(item, (list, tuple)):
                left += item
            self.charge(_ITEM + (len(item) if isinstance(item, str) else 0))

    def _made(self, value: Any) -> Any:
        """What is written out. Raises for things whose text holds an address in memory."""
        if isinstance(value, str):
            self._left -= len(value)
            if self._left < 0:
                self.charge(0)
        elif isinstance(value, (list, dict, tuple)):
            self._weigh(value)
        elif not isinstance(value, (int, float, Undefined)) and value is not None:
            raise SecurityError(f"writes out a {type(value).__name__}")
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums and products with the size of what comes out; `%` only of numbers, and no powers."""
        if operator == "+":
            value = left + right
            if isinstance(value, (str, list, tuple)):
                self.charge(len(value))
            elif isinstance(value, int) and abs(value) > _INTEGER:
                raise TooMuch("it computes with numbers of more than 64 bits")
            return value
        if isinstance(left, (int, float)) and isinstance(right, (int, float)) and operator != "**":
            value = left * right if operator == "*" else left % right
            if isinstance(value, int) and abs(value) > _INTEGER:
                raise TooMuch("it computes with numbers of more than 64 bits")
            return value
        if operator == "*" and isinstance(left, str) and isinstance(right, int):
            self.charge(len(left) * max(0, right))
            return left * right
        raise SecurityError(f"{type(left).__name__} {operator} {type(right).__name__} is not for templates")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """What is on the lists above; of loops and namespaces what does not begin with an underscore."""
        for kind, names in _METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return isinstance(obj, (LoopContext, Namespace)) and not attr.startswith("_")

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As the sandbox has it; a field of a message is looked up at once."""
        if type(obj) is dict and attribute not in _OF_DICTS and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refused at once, not where the value is used."""
        raise SecurityError(f"asks for {attribute!r} of a {type(obj).__name__}")

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """No formatting: a width is a small argument that makes a large text."""
        return None

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        """Call what a template may call, and count what comes out."""
        if getattr(__obj, "__func__", None) in _COUNTERS:
            return __obj(*args)
        if getattr(__obj, "__name__", "") == "replace" and isinstance(getattr(__obj, "__self__", None), str):
            return __self._replace(__obj.__self__, *args)
        value = super().call(__context, __obj, *args, **kwargs)
        if isinstance(value, dict):
            __self._weigh(value)
        __self.charge(len(value) if isinstance(value, (str, list, tuple, range)) else 1)
        return value

    def _charged(self, function: Callable[..., Any], textual: bool) -> Callable[..., Any]:
        """A filter of Jinja's own, counted by what comes out; `textual` ones write out what they are given first."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            if textual:
                for value in args:
                    if not isinstance(value, str):
                        self._made(value)
            value = function(*args, **kwargs)
            self.charge(len(value) if isinstance(value, (str, list, tuple)) else 1)
            return value

        if hasattr(function, "jinja_pass_arg"):  # says what Jinja passes first
            counted.jinja_pass_arg = function.jinja_pass_arg  # type: ignore[attr-defined]
        return counted

    def _round(self, value: float, precision: int = 0, method: str = "common") -> float:
        return defaults.DEFAULT_FILTERS["round"](value, max(-_WIDEST, min(int(precision), _WIDEST)), method)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as transformers writes it for templates: nothing is escaped for HTML."""
        if indent is not None and not 0 <= int(indent) <= _WIDEST:
            raise SecurityError(f"an indent of {indent}")
        self._weigh(value)
        text = json.dumps(
            value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_plain
        )
        self.charge(len(text))
        return text

    @pass_environment
    def _join(self, _: Any, value: Any, d: str = "", attribute: str | int | None = None) -> str:
        items = list(value)
        if attribute is not None:
            items = [self.getitem(item, attribute) for item in items]
        texts = [str(self._made(item)) for item in items]
        self.charge(sum(map(len, texts)) + len(d) * len(texts))
        return d.join(texts)

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(text)
        times = text.count(old) if count is None else min(count, text.count(old))
        self.charge(len(text) + max(0, times) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _indent(self, text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        space = " " * width if isinstance(width, int) and 0 <= width <= _WIDEST else width
        if not isinstance(space, str) or len(space) > _WIDEST:
            raise SecurityError(f"an indent of {width}")
        self.charge(len(text) + (text.count("\n") + 1) * len(space))
        return defaults.DEFAULT_FILTERS["indent"](text, space, first, blank)


_COUNTERS = (Bounded.turn, Bounded.joined, Bounded.held)


def _raise(message: str) -> str:
    """What a template calls to refuse a conversation."""
    raise jinja2.TemplateError(str(message))


def _plain(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} is no JSON")
