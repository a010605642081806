"""A file that is one JSON array, element by element, in bounded memory.

The buffer holds what is read and not yet parsed, and is doubled as long as an element does not end in it: the memory is
that of the longest element, and the work grows as the file does. The law: an element is yielded, or once the rest of
the file is, as a fault: behind an element that is no JSON nobody knows where the next one begins.

Not covered: rows inside an object, as in {"data": [...]}.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.readers.lines import decompressed
from gristmill.dataops.readers.page import SourceFile
from gristmill.dataops.readers.streams import Damage, open_raw

_FIRST = 1 << 18  # characters of the buffer before it is doubled
_NEAR = 16  # an error so near to the end of the buffer may be of what is not read yet
_SPACE = re.compile(r"[ \t\n\r]*")


class _Rest(Fault):
    """Of all that follows: where the next element begins is not known."""


class _Buffer:
    """Characters that wait to be parsed. A byte that is no UTF-8 is half a surrogate pair, and fails its element."""

    def __init__(self, file: SourceFile, raw: Any) -> None:
        self._chunks = decompressed(raw, file.format, 0)
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self.text, self.at, self.byte = "", 0, 0
        self.ended = False
        self.damage: Damage | None = None

    def more(self) -> bool:
        """Reads as much again as there is; False at the end."""
        if self.ended:
            return False
        parts = [self.text[self.at :]]
        wanted = max(_FIRST, len(parts[0]))
        while wanted > 0 and not self.ended:
            try:
                data = next(self._chunks, None)
            except Damage as damage:
                self.damage, data = damage, None
            self.ended = data is None
            parts.append(self._decode(data or b"", self.ended))
            wanted -= len(parts[-1])
        self.text, self.at = "".join(parts), 0
        return True

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            self.skip(_SPACE.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def skip(self, to: int) -> None:
        """Goes on to a place in the buffer."""
        piece = self.text[self.at : to]
        self.byte += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogateescape"))
        self.at = to


def elements(file: SourceFile, longest: int) -> Iterator[tuple[int, int, Any]]:
    """(number from 1, byte of the decompressed file, element or Fault) of an array's elements, the longest of `longest`
    characters. Faults: "bad_json", "too_large", "corrupt_member"."""
    number = 0
    with open_raw(file.url) as raw:
        buffer = _Buffer(file, raw)
        if buffer.peek() == "\ufeff":
            buffer.skip(buffer.at + 1)
        sign = buffer.peek()
        while sign == ("," if number else "["):
            buffer.skip(buffer.at + 1)
            if buffer.peek() == "]" and not number:
                break
            number += 1
            start = buffer.byte
            value = _element(buffer, longest)
            yield number, start, value
            if isinstance(value, _Rest):
                return
            sign = buffer.peek()
        if buffer.peek() == "]":
            buffer.skip(buffer.at + 1)
            if not buffer.peek() and buffer.damage is None:
                return
        yield number + 1, buffer.byte, _unended(buffer)


def _unended(buffer: _Buffer) -> Fault:
    if buffer.damage is not None:
        return _Rest("corrupt_member", str(buffer.damage))
    found = buffer.text[buffer.at : buffer.at + 40]
    return _Rest("bad_json", f"{found!r} behind an element" if found else "the array has no end")


def _element(buffer: _Buffer, longest: int) -> Any:
    while True:
        try:
            value, end = _DECODER.raw_decode(buffer.text, buffer.at)
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated string") or error.pos >= len(buffer.text) - _NEAR
            if not cut or buffer.ended:
                return (
                    _unended(buffer) if cut and buffer.damage else _Rest("bad_json", f"{error}; the rest is not read")
                )
        except (ValueError, RecursionError) as error:
            return _Rest("bad_json", f"{type(error).__name__}: {error}; the rest is not read")
        else:
            if end < len(buffer.text) or buffer.ended:  # else it may be a number that goes on
                text = buffer.text[buffer.at : end]
                buffer.skip(end)
                if len(text) > longest:
                    return Fault("too_large", f"{len(text)} characters; the most is {longest}")
                return _unicode(text, value)
        if len(buffer.text) - buffer.at > longest:
            return _Rest("too_large", f"an element of more than {longest} characters; the rest is not read")
        buffer.more()


def _unicode(text: str, value: Any) -> Any:
    """The value, or a fault where it holds half a surrogate pair, written so or by bytes that are no UTF-8."""
    try:
        text.encode()
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        return Fault("bad_json", f"{type(error).__name__}: {error}")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
