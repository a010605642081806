"""Exports: a published dataset as a folder that other tools read, with its lineage beside it.

Written to a folder next to the target and renamed at the end, so a reader never sees half of it. `gristmill.json` names
the dataset, its key and digest, the tokenizer, and every file with its SHA-256: lineage does not end at the border.

The laws: what is read back is what went in, in the same order; views leave out what they leave out; how the dataset is
cut into shards does not show in a single byte. Memory holds one shard.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fileio import file_sha256, write_json
from gristmill.dataops.tokens import token_facts

NOTE = "gristmill.json"

#: Formats and the function that writes each: (dataset, folder, columns, progress) to numbers for the note.
FORMATS = {
    "megatron": "gristmill.dataops.export.megatron:write",
    "datatrove": "gristmill.dataops.export.ds:write",
    "hf": "gristmill.dataops.export.huggingface:write",
    "parquet": "gristmill.dataops.export.tables:write_parquet",
    "jsonl": "gristmill.dataops.export.tables:write_jsonl",
}

Progress = Callable[[str, int, int, int], None]


def export(
    dataset: Dataset,
    to: str | Path,
    form: str,
    columns: Sequence[str] | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Write `dataset` into the folder `to` in a form of FORMATS; returns the note, with "already" where it was there.

    An empty folder is filled; one that holds this very export is left as it is; any other is refused. Raises
    InputError for that, for columns that are not there, and for a dataset that the form cannot hold.
    """
    target = Path(to)
    if form not in FORMATS:
        raise InputError(f"no format {form!r}; there are: {', '.join(FORMATS)}")
    if dataset.kind == "checkpoint":
        raise InputError(f"{dataset.name} is a checkpoint: its files stand ready under {dataset.path}/files")
    wanted = _checked(dataset, form, columns)
    head = {
        "gristmill": 1, "dataset": dataset.name, "key": dataset.key, "digest": dataset.digest, "format": form,
        "columns": wanted,
    }  # fmt: skip

    def fill(scratch: Path) -> dict[str, Any]:
        module, _, name = FORMATS[form].partition(":")
        numbers = getattr(importlib.import_module(module), name)(dataset, scratch, wanted, progress)
        files = [
            {"file": str(path.relative_to(scratch)), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in sorted(scratch.rglob("*"))
            if path.is_file()
        ]
        return {**numbers, "files": files}

    return whole(target, head, fill)


def whole(target: Path, head: Mapping[str, Any], fill: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """A folder that `fill` writes, with a note of `head` and what it returns: there as a whole, or not at all."""
    there = _already(target, head)
    if there is not None:
        return {**there, "already": True}
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    scratch.mkdir()
    try:
        note = {**head, **fill(scratch)}
        write_json(scratch / NOTE, note)
        if target.exists():
            target.rmdir()  # empty, as was checked; where something came in meanwhile this raises
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return {**note, "already": False}


def _checked(dataset: Dataset, form: str, columns: Sequence[str] | None) -> list[str]:
    """The columns to write, `id` always among them."""
    there = dataset.schema().names
    if form in ("megatron", "datatrove"):
        if columns is not None:
            raise InputError(f"{form} holds tokens and nothing else: it takes no columns")
        if "tokens" not in there:
            raise InputError(
                f"{dataset.name} holds no tokens, which is all that {form} can hold: export `encoded` or `packed`"
            )
        token_facts(dataset)  # raises where the tokenizer is not known
        return ["tokens"]
    missing = [name for name in columns or () if name not in there]
    if missing:
        raise InputError(f"{dataset.name} has no column {', '.join(missing)}; it has: {', '.join(there)}")
    return there if columns is None else list(dict.fromkeys(["id", *columns]))


def _already(target: Path, head: Mapping[str, Any]) -> dict[str, Any] | None:
    """The note of this very export, proved file by file; None where nothing is there. Raises InputError."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return None
    if not target.is_dir():
        raise InputError(f"{target} is a file: name a folder that is not there yet")
    try:
        note = json.loads((target / NOTE).read_bytes())
        same = {name: note.get(name) for name in head} == dict(head)
    except (OSError, ValueError):
        same = False
    if not same:
        raise InputError(f"{target} exists and holds something else: name a folder that is not there yet, or empty it")
    for entry in note["files"]:
        path = target / entry["file"]
        if not path.is_file() or file_sha256(path) != entry["sha256"]:
            raise InputError(f"{path} is missing or damaged: remove {target} and export again")
    return note
