"""YAML as a tree of texts, lists and objects, each with its line; whatever a file of settings does not need is refused.

Plain YAML has more in it than its readers expect: tags that call code, aliases that unfold to gigabytes, keys given
twice of which the last one wins, words such as `no` that turn into something else. The law kept here: what is read is
what stands there, every value as its text, and a hostile file is refused with its line, in time linear in its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError

MAX_BYTES = 32_768  # a file that somebody wrote; much longer ones would take more than a second to refuse
MAX_DEPTH = 6
_STAR = "a text that begins with * stands in quotes"


@dataclass(frozen=True)
class Node:
    """A text, a list or an object, and the line that it begins on (of a value in an object: its key's)."""

    value: str | list[Node] | dict[str, Node]
    line: int

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        return {str: "a text", list: "a list", dict: "an object"}[type(self.value)]


def read_document(path: str | Path) -> Node:
    """The one document of a YAML file. Raises InputError naming the file and the line."""
    where = Path(path)
    try:
        with where.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES:,} bytes: a file of gates is short")
    try:
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def parse(text: str, where: str) -> Node:
    """The tree of a YAML text; `where` stands before messages. Raises InputError."""
    import yaml

    try:
        events = _Events(yaml.parse(text, Loader=yaml.SafeLoader), where)
        node = _node(events, events.next(), 0)
        if not isinstance(events.next(), yaml.DocumentEndEvent) or not isinstance(events.next(), yaml.StreamEndEvent):
            raise InputError(f"{where}: there is more than one document in it")
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = "" if mark is None else f", line {mark.line + 1}"
        problem = error.problem or error.context
        hint = f" ({_STAR})" if "alias" in str(error.context) else ""
        raise InputError(f"{where}{at} is no YAML: {problem}{hint}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # control characters; escapes beyond Unicode
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is no YAML: {' '.join(str(error).split())[:200]}") from None


@dataclass
class _Events:
    """PyYAML's events after those that open stream and document; anchors, aliases and tags do not pass."""

    stream: Any
    where: str

    def __post_init__(self) -> None:
        import yaml

        next(self.stream)
        if not isinstance(next(self.stream), yaml.DocumentStartEvent):
            raise InputError(f"{self.where} is empty: write `gates:` and a list")

    def next(self) -> Any:
        import yaml

        event = next(self.stream)
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise InputError(f"{self.where}, line {line}: aliases (*{event.anchor[:40]}) are not read; {_STAR}")
        if getattr(event, "anchor", None) is not None:
            raise InputError(f"{self.where}, line {line}: anchors (&{event.anchor[:40]}) are not read")
        if getattr(event, "tag", None) is not None:
            raise InputError(f"{self.where}, line {line}: tags ({event.tag[:80]}) are not read")
        return event


def _node(events: _Events, event: Any, depth: int) -> Node:
    import yaml

    line = event.start_mark.line + 1
    if depth > MAX_DEPTH:
        raise InputError(f"{events.where}, line {line}: nested more than {MAX_DEPTH} deep")
    if isinstance(event, yaml.ScalarEvent):
        return Node(_text(event.value, events.where, line), line)
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(event := events.next(), yaml.SequenceEndEvent):
            items.append(_node(events, event, depth + 1))
        return Node(items, line)
    entries: dict[str, Node] = {}
    while not isinstance(event := events.next(), yaml.MappingEndEvent):
        at = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            raise InputError(f"{events.where}, line {at}: a key is a word, not a list or an object")
        name = _text(event.value, events.where, at)
        if name in entries:
            raise InputError(
                f"{events.where}, line {at}: {name[:40]!r} is given twice, first on line {entries[name].line}"
            )
        entries[name] = Node(_node(events, events.next(), depth + 1).value, at)
    return Node(entries, line)


def _text(value: str, where: str, line: int) -> str:
    """A text on one line; raises InputError for characters that cannot be shown or stored."""
    told = " ".join(value.split())
    if not told.isprintable():
        raise InputError(f"{where}, line {line}: {told[:40]!r} holds characters that cannot be printed")
    return told
