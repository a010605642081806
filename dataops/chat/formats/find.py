"""The files of chat data: what `find_files` finds, and what only chat data comes in.

That is JSON arrays and Arrow files, alone, by a glob or in a folder, and folders that `datasets` saved (`data-*.arrow`
beside a state.json). The law: a file is listed or refused with a reason, and its name, its place below the common
parent of all, is its identity.

Not covered: JSON arrays and Arrow files by a list file or by a glob over URLs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from gristmill.dataops.chat.formats.rows import BOM
from gristmill.dataops.dataset import InputError
from gristmill.dataops.readers.files import SourceFile, find_files
from gristmill.dataops.readers.lines import decompressed
from gristmill.dataops.readers.members import sniff_compression
from gristmill.dataops.readers.streams import Damage, open_raw

_JSON = re.compile(r"\.(json|jsonl|ndjson)(\.(gz|zst|zstd|lz4))?$", re.IGNORECASE)
_ARRAY = re.compile(rb"\s*\[\s*[{\]]")


def find(paths: list[str]) -> list[SourceFile]:
    """The files that paths name, sorted by name; formats "json" (an array) and "arrow" beside those of `find_files`.

    Raises InputError for what is missing or of no format that chat data is read from.
    """
    ours: dict[str, SourceFile] = {}
    others: list[str] = []
    for path in paths:
        found = [(file, _own(file)) for file in _expanded(path)]
        if any(kind is not None for _, kind in found):
            ours |= {file: SourceFile(file, file, kind, Path(file).stat().st_size) for file, kind in found if kind}
            others += [file for file, kind in found if kind is None]
        elif (kind := _own(path) if "://" in path and not any(mark in path for mark in "*?[") else None) is not None:
            with open_raw(path) as raw:
                ours[path] = SourceFile(path.rpartition("/")[2], path, kind, raw.size)
        else:
            others.append(path)
    files = list(ours.values())
    if others or not ours:
        files += [file for file in find_files(others) if file.url not in ours]
    wrong = next((f for f in files if f.format.partition(".")[0] not in ("jsonl", "json", "parquet", "arrow")), None)
    if wrong is not None:
        raise InputError(
            f"{wrong.url} is {wrong.format}: chat data is read from JSON lines and Parquet, JSON arrays and Arrow"
        )
    return sorted(_named(files) if ours else files, key=lambda file: file.name)


def _named(files: list[SourceFile]) -> list[SourceFile]:
    """Local files with their names below the parent that all share."""
    local = {file.url: Path(file.url) for file in files if "://" not in file.url}
    if not local:
        return files
    shared = os.path.commonpath([path.parent for path in local.values()])
    return [
        dataclasses.replace(file, name=str(local[file.url].relative_to(shared))) if file.url in local else file
        for file in files
    ]


def _expanded(path: str) -> list[str]:
    """The local files that a path, a glob or a folder names; none for anything else."""
    where = Path(path)
    if where.is_dir():
        where = Path(os.path.normpath(where.absolute()))
        return [str(file) for file in _saved(where) or _below(where)]
    if where.is_file() or "://" in path:
        return [os.path.normpath(where.absolute())] if where.is_file() else []
    return sorted(found for found in LocalFileSystem().glob(path) if Path(found).is_file())


def _below(folder: Path) -> list[Path]:
    """Files below a folder, without hidden ones, as `find_files` has it; of folders that `datasets` saved, the rows."""
    found: list[Path] = []
    for item in sorted(folder.iterdir()):
        if item.name[0] not in "._":
            found += (_saved(item) or _below(item)) if item.is_dir() else [item]
    return found


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `datasets` saved; none if it is no such folder. Raises InputError for several
    splits: which one is meant has to be said."""
    splits = folder / "dataset_dict.json"
    if splits.is_file():
        names = _loaded(splits)["splits"]
        if len(names) != 1:
            raise InputError(f"{folder} holds the splits {', '.join(names)}: name one, as in {folder / names[0]}")
        return _saved(folder / names[0])
    state = folder / "state.json"
    if not state.is_file():
        return []
    return [folder / item["filename"] for item in _loaded(state).get("_data_files", ())]


def _loaded(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is no JSON, so the data set beside it cannot be read: {error}") from None


def _own(url: str) -> str | None:
    """ "arrow", or "json" (with its compression) for an array; None for what `find_files` knows, or what is missing."""
    if url.lower().endswith(".arrow"):
        return "arrow"
    if not _JSON.search(url):
        return None
    try:
        with open_raw(url) as raw:
            head = raw.read(0, 1 << 10)
            packing = sniff_compression(head)
            kind = "json" if packing is None else f"json.{packing}"
            if packing is not None:
                head = next((chunk for chunk in decompressed(raw, kind, 0) if chunk.strip()), b"")
    except (OSError, Damage, ValueError, ImportError):  # what is wrong with it, `find_files` says
        return None
    head = head.removeprefix(BOM)
    array = _ARRAY.match(head) or (re.search(r"\.json(\.\w+)?$", url.lower()) and head.lstrip().startswith(b"["))
    return kind if array else None
