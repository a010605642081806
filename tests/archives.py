"""Small archives for the tests of the readers: records of WARC files, and what reading them gives."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import polars as pl

from gristmill.dataops.op import ledger
from gristmill.dataops.readers.files import PAGE, FileIndex, Limits, SourceFile, find_files, index, read


def http(body: bytes, status: str = "200 OK", **fields: str) -> bytes:
    """An HTTP response; field names with underscores for hyphens."""
    values = {"Content_Type": "text/html"} | fields
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in values.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def record(content: bytes, number: int = 0, type: str = "response", length: int | None = None, **fields: str) -> bytes:
    """A WARC record whose id and URI follow from its number."""
    kind = {"response": "application/http; msgtype=response", "conversion": "text/plain"}.get(type, "text/html")
    values = {
        "WARC-Type": type,
        "WARC-Record-ID": f"<urn:uuid:{uuid.UUID(int=number)}>",
        "WARC-Target-URI": f"http://example.com/{number}",
        "WARC-Date": "2024-02-29T23:59:59Z",
        "Content-Type": kind,
    } | {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in values.items())
    size = len(content) if length is None else length
    return f"WARC/1.1\r\n{head}Content-Length: {size}\r\n\r\n".encode() + content + b"\r\n\r\n"


def pages(count: int, size: int = 400) -> list[bytes]:
    """Records of pages that differ, as bytes."""
    bodies = [f"<html><p>page {n} ".encode() + bytes((n * k * k) % 251 for k in range(size)) for n in range(count)]
    return [record(http(body), n) for n, body in enumerate(bodies)]


def member(data: bytes) -> bytes:
    """A gzip member."""
    return gzip.compress(data, mtime=0)


def write(folder: Path, data: bytes, name: str = "crawl.warc.gz") -> SourceFile:
    """A source file with this content."""
    path = folder / name
    path.write_bytes(data)
    return find_files([str(path)])[0]


def read_all(
    source: SourceFile, found: FileIndex | None = None, cuts: list[int] | None = None, limits: Limits | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(kept, drops) of all spans between cuts, each in the order of the file."""
    found = index(source) if found is None else found
    bounds = [0, *sorted(set(cuts or []) - {0}), None]
    splits = [
        split
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
        for split in read(source, start, stop, limits=limits, revisits=found.revisits)
    ]
    kept = pl.concat([pl.DataFrame(schema=PAGE), *(split.kept for split in splits)])
    drops = pl.concat([ledger(), *(split.drops for split in splits)])
    assert kept.height + drops.filter(unit="row").height == found.records
    assert drops["reason"].null_count() == 0
    assert kept.schema == pl.Schema(PAGE)
    return kept, drops


def reasons(drops: pl.DataFrame) -> list[str]:
    """The ledger's reasons in the order of the file."""
    return drops["reason"].to_list()


def bodies(kept: pl.DataFrame) -> list[bytes]:
    """The payloads in the order of the file."""
    return kept["payload"].to_list()
