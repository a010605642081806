"""HTTP messages as servers sent them: the head, and the body freed of its transfer and content encodings.

The law: a body is never lost in silence. It is decoded whole, or taken as it stands, or named as undecodable; and no
more than the limit is ever held of what it inflates to.

What is decided about wrong bodies:
- Content-Length is not believed: all bytes of the record are the body (as warcio and FastWARC have it).
- "chunked" that was never chunked is taken as it stands (many writers store bodies dechunked); after damage between
  chunks the remainder is appended as it stands; a body cut inside a chunk or without the last chunk is what it is.
- A named content encoding whose decoding yields nothing, over a body that reads as text, is taken as it stands
  (writers store decoded bodies under the old header). Unknown encoding names are treated alike.
- A compressed body that is cut or damaged is "bad_encoding", unless its record says that it was truncated: then what
  decodes is kept. A deflate stream that ends as it should, before a wrong or missing gzip trailer, counts as whole.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import brotli

from gristmill.dataops.readers.headers import MAX_HEADER, parse_fields
from gristmill.dataops.readers.members import GZIP, ZSTD, gzip_chunks, zstd_chunks
from gristmill.dataops.readers.page import Drop
from gristmill.dataops.readers.streams import Damage, Raw


@dataclass(frozen=True, slots=True)
class Message:
    """An HTTP response: status, fields by lower-case name (repeated ones joined by ", "), and the bytes behind them."""

    status: int
    fields: dict[str, str]
    body: memoryview


def parse_message(content: memoryview) -> Message | None:
    """The response in a record's content; None where no status line stands at its start."""
    head = bytes(content[:4096])
    match = _STATUS.match(head)
    if match is None:
        return None
    end, width = _head_end(head)
    if end < 0 and len(content) > len(head):
        head = bytes(content[:MAX_HEADER])
        end, width = _head_end(head)
    if end < 0:
        end, width = len(head), 0
    return Message(int(match[1]), parse_fields(head[:end]), content[end + width :])


def decode_body(message: Message, limit: int, truncated: bool = False) -> bytes | memoryview | Drop:
    """The body without transfer and content encodings, or why there is none: "bad_encoding", "payload_too_large".

    `limit` is in bytes; `truncated` says that the record declares its content cut.
    """
    body: bytes | memoryview = message.body
    transfer = _tokens(message.fields.get("transfer-encoding"))
    codings = _tokens(message.fields.get("content-encoding"))
    if "chunked" in transfer:
        transfer = [token for token in transfer if token != "chunked"]
        body = dechunk(body)
    for coding in reversed(codings + transfer):
        decoded = _decode(coding, body, limit, truncated)
        if isinstance(decoded, Drop):
            return decoded
        body = decoded
    return Drop("payload_too_large", len(body), limit) if len(body) > limit else body


def dechunk(body: bytes | memoryview) -> bytes | memoryview:
    """The data of a chunked body; `body` itself where it is not chunked, and a damaged remainder as it stands."""
    data = bytes(body)
    parts, at = [], 0
    while at < len(data):
        line = _CHUNK.match(data, at)
        if line is None:
            if at == 0:
                return body
            parts.append(data[at:])
            break
        size = int(line[1], 16)
        if size == 0:
            if at == 0 and _TRAILER.fullmatch(data, line.end()) is None:
                return body
            break  # only trailer fields may follow
        parts.append(data[line.end() : line.end() + size])
        at = line.end() + size
        if data.startswith(b"\r\n", at):
            at += 2
        elif data.startswith(b"\n", at):
            at += 1
        elif len(parts) == 1 and at < len(data):
            return body  # a first line that only looked like a chunk size
    return b"".join(parts)


def _decode(coding: str, body: bytes | memoryview, limit: int, truncated: bool) -> bytes | memoryview | Drop:
    """One encoding taken off."""
    if coding in _IDENTITY or not len(body):
        return body
    data = bytes(body)
    failures = []
    for chunks in _DECODERS.get(coding, (_unknown,)):
        parts: list[bytes] = []
        total = 0
        try:
            for chunk in chunks(data):
                total += len(chunk)
                if total > limit:
                    return Drop("payload_too_large", total, limit, coding)
                parts.append(chunk)
        except Damage as damage:
            failures.append(f"{coding}: {damage}")
            if not (truncated and total):
                continue
        return b"".join(parts)
    return body if reads_as_text(data) else Drop("bad_encoding", evidence=failures[0])


def reads_as_text(data: bytes) -> bool:
    """True where the first KiB holds no byte that is in no text (controls other than white space and escape)."""
    return not data[:1024].translate(None, _TEXT_BYTES)


def _gzip(data: bytes) -> Iterator[bytes]:
    """All gzip members; what follows the last is no part of the body."""
    raw = Raw(io.BytesIO(data))
    at = 0
    while at == 0 or raw.read(at, 3) == GZIP:
        at = yield from gzip_chunks(raw, at)


def _gzip_without_trailer(data: bytes) -> Iterator[bytes]:
    """The deflate stream behind a gzip head without options, as servers write it."""
    if not data.startswith(GZIP + b"\0"):
        raise Damage("bad_encoding", "no gzip head")
    raw = Raw(io.BytesIO(data))
    end = yield from gzip_chunks(raw, 10, wbits=-15)
    if raw.read(end + 8, 3) == GZIP:
        raise Damage("bad_encoding", "a later gzip member is damaged")


def _zlib(data: bytes) -> Iterator[bytes]:
    yield from gzip_chunks(Raw(io.BytesIO(data)), 0, wbits=15)


def _deflate(data: bytes) -> Iterator[bytes]:
    yield from gzip_chunks(Raw(io.BytesIO(data)), 0, wbits=-15)


def _zstd(data: bytes) -> Iterator[bytes]:
    raw = Raw(io.BytesIO(data))
    at = 0
    while at == 0 or raw.read(at, 4) == ZSTD:
        at = yield from zstd_chunks(raw, at)


def _brotli(data: bytes) -> Iterator[bytes]:
    inflater = brotli.Decompressor()
    pending = data
    while not inflater.is_finished():
        try:
            out = inflater.process(pending, output_buffer_limit=256 << 10)
        except brotli.error as error:
            raise Damage("bad_encoding", str(error)) from None
        if not out and not pending and inflater.can_accept_more_data():
            raise Damage("bad_encoding", "the brotli stream is cut")
        pending = b""
        yield out


def _unknown(data: bytes) -> Iterator[bytes]:
    raise Damage("bad_encoding", "no known content encoding")
    yield data


def _tokens(value: str | None) -> list[str]:
    return [token.strip().strip("\"'").lower() for token in (value or "").split(",")]


def _head_end(head: bytes) -> tuple[int, int]:
    """(offset, width) of the empty line behind the head; offset -1 without one."""
    end = head.find(b"\r\n\r\n")
    bare = head.find(b"\n\n", 0, len(head) if end < 0 else end)
    return (bare, 2) if bare >= 0 else (end, 4)


_STATUS = re.compile(rb"HTTP(?:/\d(?:\.\d)?)?[ \t]+(\d{3})\b")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]{0,4096})?\r?\n")
_TRAILER = re.compile(rb"(?:[!-9;-~]+:[^\r\n]*\r?\n)*\s*")
_IDENTITY = {"", "identity", "none", "binary", "8bit", "7bit"}
_DECODERS: dict[str, tuple[Callable[[bytes], Iterator[bytes]], ...]] = {
    "gzip": (_gzip, _gzip_without_trailer),
    "x-gzip": (_gzip, _gzip_without_trailer),
    "deflate": (_zlib, _deflate, _gzip),  # RFC 9110 means zlib; servers have sent all three
    "x-deflate": (_zlib, _deflate, _gzip),
    "br": (_brotli,),
    "zstd": (_zstd,),
}
_TEXT_BYTES = bytes([9, 10, 12, 13, 27, *range(32, 256)])
