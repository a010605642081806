"""Input files: paths, globs, folders, list files and fsspec URLs become a sorted list of source files to read.

A file's name, its path below the common parent of all inputs, is its identity; where it is now is not. Its format comes
from its first bytes, and from its extension only where these say nothing, so a lying extension does no harm. The law:
what is listed is read, or the list is refused with a reason; nothing is left out but hidden files ("." and "_" first,
as Hadoop and Spark have it) below a folder.

`index` and `read` hand a source file to the reader of its format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import fsspec
from fsspec.implementations.local import LocalFileSystem

from gristmill.dataops.dataset import InputError
from gristmill.dataops.op import Split
from gristmill.dataops.readers import tables, warc
from gristmill.dataops.readers.headers import ARC
from gristmill.dataops.readers.members import codec, skip_padding, sniff_compression
from gristmill.dataops.readers.messages import reads_as_text
from gristmill.dataops.readers.page import PAGE, SEEK_BYTES, Batch, Drop, FileIndex, Limits, SourceFile
from gristmill.dataops.readers.streams import Damage, Raw, open_raw

__all__ = ["PAGE", "FileIndex", "Limits", "SourceFile", "find_files", "index", "read"]

_KINDS = {".warc": "warc", ".wet": "warc", ".wat": "warc", ".arc": "arc", ".csv": "csv", ".parquet": "parquet"} | {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".pq": "parquet"
}  # fmt: skip
_COMPRESSIONS = {".gz": "gz", ".zst": "zst", ".zstd": "zst", ".lz4": "lz4"}
_OBJECT = re.compile(rb"\{\s*[\"}]")
_LISTS = (".txt", ".list", ".txt.gz", ".list.gz")


def index(source: SourceFile, seek_bytes: int = SEEK_BYTES) -> FileIndex:
    """One pass over a file: how many records it has, and where reading may begin, about every `seek_bytes`.

    Survives any damage; raises InputError for a table without a text column. Row groups of Parquet are never cut.
    """
    if source.bytes == 0:
        return FileIndex(0, [(0, 0)], problems=[(0, "empty_file")])
    kind = source.format.partition(".")[0]
    if kind == "parquet":
        return tables.index_parquet(source)
    if kind == "csv":
        return tables.index_csv(source)
    return tables.index_jsonl(source, seek_bytes) if kind == "jsonl" else warc.index(source, seek_bytes)


def read(
    source: SourceFile,
    start: int = 0,
    stop: int | None = None,
    *,
    limits: Limits | None = None,
    revisits: Mapping[int, int] | None = None,
) -> Iterator[Split]:
    """Batches of the records that start in [start, stop): rows of PAGE, and a ledger row for each other record.

    `start` and `stop` are offsets out of `FileIndex.seeks` (None: to the end); `revisits` is the index's. An empty file
    has no records; the span from 0 says so in one ledger row with unit "bytes".
    """
    limits = Limits() if limits is None else limits
    kind = source.format.partition(".")[0]
    if source.bytes == 0:
        return _read_empty(source, start, limits)
    if kind == "parquet":
        return tables.read_parquet(source, start, stop, limits)
    if kind == "csv":
        return tables.read_csv(source, start, stop, limits)
    if kind == "jsonl":
        return tables.read_jsonl(source, start, stop, limits)
    return warc.read(source, start, stop, limits=limits, revisits={} if revisits is None else revisits)


def _read_empty(source: SourceFile, start: int, limits: Limits) -> Iterator[Split]:
    batch = Batch(source, limits)
    if start == 0:
        batch.drop(Drop("empty_file", 0), 0, unit="bytes")
    yield from batch.splits(last=True)


def find_files(paths: list[str]) -> list[SourceFile]:
    """The files that paths, globs, folders, list files ("@file", or *.txt and *.list) and URLs name, sorted by name.

    Raises InputError for what is missing, empty, unreadable or of no known format.
    """
    found: dict[str, list[str]] = {}
    parents: list[list[str]] = []
    for path in paths:
        for url, parent in _expand(path):
            found.setdefault(url, url.split("/"))
            parents.append(parent)
    if not found:
        raise InputError("no input files: name at least one file, folder, glob or list file")
    shared = len(os.path.commonprefix(parents))  # of lists: the parts that all begin with
    sources = [_source("/".join(parts[shared:]), url) for url, parts in found.items()]
    return sorted(sources, key=lambda source: source.name)


def _expand(path: str, listed_in: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """(URL, parts of the parent that its name is relative to) of all that one input names."""
    if path.startswith("@"):
        yield from _expand_list(path[1:], listed_in)
        return
    fs, inner = _filesystem(path)
    where = f" (listed in {listed_in})" if listed_in is not None else ""
    try:
        # Asking a web server for a folder would fetch the file.
        is_folder = not path.startswith(("http://", "https://")) and fs.isdir(inner)
        exists = is_folder or fs.exists(inner)
        if is_folder:
            names = [name for name in fs.find(inner) if not _is_hidden(name, inner)]
        elif not exists and any(mark in inner for mark in "*?["):
            names = [name for name in fs.glob(inner) if not fs.isdir(name)]
        else:
            names = None
    except OSError as error:
        raise InputError(f"cannot read {path}{where}: {error}") from None
    if names is not None:
        if not names:
            raise InputError(f"no files match {path}{where}")
        root = inner if is_folder else inner[: min(inner.index(mark) for mark in "*?[" if mark in inner)]
        parent = _url(fs, root).rstrip("/") if is_folder else _url(fs, root).rpartition("/")[0]
        for name in sorted(names):
            yield _url(fs, name), parent.split("/")
    elif not exists:
        raise InputError(f"no such file: {path}{where}")
    elif listed_in is None and path.lower().endswith(_LISTS) and _sniff(_url(fs, inner))[0] is None:
        yield from _expand_list(path, None)
    else:
        url = path if "::" in path else _url(fs, inner)
        yield url, url.split("/")[:-1]


def _expand_list(path: str, listed_in: str | None) -> Iterator[tuple[str, list[str]]]:
    """What a list file names; relative lines are looked for beside the list first."""
    if listed_in is not None:
        raise InputError(f"{listed_in} names another list, {path}: put its lines into one list")
    fs, inner = _filesystem(path)
    try:
        with fsspec.open(path, "rt", encoding="utf-8", compression="infer") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list file {path}: {error}") from None
    for line in lines:
        if line and not line.startswith("#"):
            beside = f"{inner.rpartition('/')[0]}/{line}"
            relative = "://" not in line and not line.startswith(("/", "@"))
            yield from _expand(_url(fs, beside) if relative and (fs.exists(beside) or fs.glob(beside)) else line, path)


def _source(name: str, url: str) -> SourceFile:
    try:
        kind, compression, size = _sniff(url)
    except OSError as error:
        raise InputError(f"cannot read {url}: {error}") from None
    if kind is None:
        raise InputError(
            f"{url} is of no known format: not WARC, ARC, JSON lines, Parquet or CSV by its first bytes or its "
            "extension; name the files to read by a glob or a list file"
        )
    return SourceFile(name, url, f"{kind}.{compression}" if compression is not None else kind, size)


def _sniff(url: str) -> tuple[str | None, str | None, int]:
    """(kind, compression, size in bytes) of a file; None for a kind that nothing tells."""
    *_, inner_suffix, suffix = ["", "", *PurePosixPath(url.lower()).suffixes]
    packed = _COMPRESSIONS.get(suffix)
    by_name = _KINDS.get(suffix if packed is None else inner_suffix)
    with open_raw(url) as raw:
        head = raw.read(0, 64 << 10)
        compression = sniff_compression(head)
        inner = _first_bytes(raw, compression) if compression is not None else head
        if inner.startswith(b"\xef\xbb\xbf"):
            inner = inner[3:]
        inner = inner.lstrip()
        kind = by_name
        if inner.startswith(b"WARC/"):
            kind = "warc"
        elif inner.startswith(b"filedesc:") or ARC.starts(inner):
            kind = "arc"
        elif inner.startswith(b"PAR1"):
            kind = "parquet"
        elif _OBJECT.match(inner):
            kind = "jsonl"
        elif inner.startswith(b"[") and suffix == ".json":
            kind = None  # one JSON array is not lines
        elif compression is None and not reads_as_text(head):
            compression = packed  # damaged at its very start: members behind the damage can still be read
        return kind, compression, raw.size


def _first_bytes(raw: Raw, compression: str) -> bytes:
    """At least the first 16 KiB of a compressed file, or what can be had of them."""
    data = b""
    packing = codec(compression, raw)
    try:
        for chunk in packing.chunks(raw, skip_padding(raw, 0)):
            data += chunk
            if len(data) >= 16 << 10:
                break
    except Damage:
        pass  # reading names the damage
    return data


def _filesystem(path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _url(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Where a file of a filesystem is: a plain path for local files, else with its protocol."""
    return path if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(path)


def _is_hidden(name: str, root: str) -> bool:
    return any(part[:1] in (".", "_") for part in name[len(root) :].split("/"))
