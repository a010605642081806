"""Crawls read back for the tests of the sample, with a WARC library and an HTTP parser that are not ours."""

from __future__ import annotations

import gzip
import io
import itertools
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import brotli
from fastwarc.warc import ArchiveIterator as FastIterator

Truth = dict[str, Any]


class Exchange:
    """A response record parsed by http.client: status, headers, the body as stored and with every coding undone."""

    def __init__(self, block: bytes) -> None:
        class Socket:
            def makefile(self, mode: str) -> io.BytesIO:
                return io.BytesIO(block)

        response = HTTPResponse(Socket())  # type: ignore[arg-type]
        response.begin()
        self.status, self.headers = response.status, response.headers
        self.stored = block.partition(b"\r\n\r\n")[2]
        undo: dict[str | None, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "br": brotli.decompress}
        self.body = undo.get(self.headers["Content-Encoding"], bytes)(response.read())


def read_records(path: Path) -> dict[str, tuple[Any, bytes]]:
    """WARC headers and block by record id; FastWARC without HTTP parsing leaves the block alone."""
    with path.open("rb") as file:
        found = [(record.headers.asdict(), record.reader.read()) for record in FastIterator(file, parse_http=False)]
    return {headers["WARC-Record-ID"]: (headers, block) for headers, block in found}


def read_exchanges(records: dict[str, tuple[Any, bytes]]) -> dict[str, Exchange]:
    """The responses among records, by record id."""
    return {key: Exchange(block) for key, (head, block) in records.items() if head["WARC-Type"] == "response"}


def members(path: Path) -> list[bytes]:
    """The gzip members of a WARC, one per record."""
    data = path.read_bytes()
    starts = [record.stream_pos for record in FastIterator(io.BytesIO(data), parse_http=False)]
    return [data[start:end] for start, end in itertools.pairwise([*starts, len(data)])]


def of_kind(truth: Truth, *kinds: str) -> list[Any]:
    """The cases of some kinds; there has to be one."""
    found = [case for case in truth["cases"] if case["kind"] in kinds]
    assert found, kinds
    return found
