"""Check every published byte against its manifest, and say which file is damaged.

Everything is read again: sizes and SHA-256 of all files, the row hashes recomputed from the rows, the digest from the
row hashes, the key from the ops and inputs, the counts against the rows. A damaged file is named with what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.dataset import MANIFEST, Dataset
from gristmill.dataops.fileio import file_sha256, open_arrow
from gristmill.dataops.identity import Fingerprint, recipe_key, row_hashes
from gristmill.dataops.store import Store


def fsck(store: Store) -> tuple[int, list[dict[str, str]]]:
    """(files read, problems) over all published versions; a problem is {dataset, file, problem}."""
    files, problems = 0, []
    for path in sorted(store.root.glob(f"*/*/{MANIFEST}")):
        name = f"{path.parent.parent.name}:{path.parent.name}"
        try:
            manifest = json.loads(path.read_bytes())
            entries = _entries(manifest)
            dataset = Dataset.load(path.parent)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            problems.append({"dataset": name, "file": str(path), "problem": f"the manifest cannot be read: {error}"})
            continue
        files += 1 + len(entries)
        damaged = [
            (path.parent / entry["file"], problem) for entry in entries if (problem := _file(path.parent, entry))
        ]
        problems += [{"dataset": name, "file": str(file), "problem": problem} for file, problem in damaged]
        if not damaged:
            problems += [
                {"dataset": name, "file": str(file), "problem": text} for file, text in _content(dataset, manifest)
            ]
        stray = {str(item.relative_to(path.parent)) for item in path.parent.rglob("*") if item.is_file()}
        for file in sorted(stray - {entry["file"] for entry in entries} - {MANIFEST}):
            problems.append({"dataset": name, "file": str(path.parent / file), "problem": "not named by the manifest"})
    return files, problems


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    hashes = [entry["hashes"] for entry in manifest["shards"]]
    return [*manifest["shards"], *hashes, *manifest["ledger"], *manifest.get("files", [])]


def _file(folder: Path, entry: dict[str, Any]) -> str | None:
    path = folder / entry["file"]
    if not path.is_file():
        return "missing"
    if path.stat().st_size != entry["bytes"]:
        return f"{path.stat().st_size} bytes, the manifest says {entry['bytes']}"
    return None if file_sha256(path) == entry["sha256"] else "its bytes have changed (SHA-256 differs)"


def _content(dataset: Dataset, manifest: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """What the hashes of the files cannot show: that the files agree with each other and with the manifest."""
    folder = Path(dataset.path)
    key = recipe_key(manifest["ops"], [*manifest["external"], *(item["digest"] for item in manifest["inputs"])])
    if key != manifest["key"]:
        yield folder / MANIFEST, "its key does not follow from its ops and inputs"
    if dataset.kind == "checkpoint":
        return
    total = Fingerprint()
    try:
        shards = dataset.shards()
    except (OSError, RuntimeError, ValueError) as error:
        yield folder / MANIFEST, f"its parent cannot be read: {error}"
        return
    for shard in shards:
        stored = np.fromfile(shard.path.removesuffix(".arrow") + ".hash", dtype="<u8").reshape(-1, 2)
        if dataset.kind != "view" and not np.array_equal(stored, _hashes(shard.path)):
            yield Path(shard.path), "its rows do not have the hashes stored beside it"
        mask = shard.mask()
        total += Fingerprint.of(stored if mask is None else stored[mask.to_numpy(zero_copy_only=False)])
    if total.rows != manifest["rows"]:
        yield folder / MANIFEST, f"it says {manifest['rows']} rows, there are {total.rows}"
    if total.digest(dataset.base.manifest["schema"]) != manifest["digest"]:
        yield folder / MANIFEST, "its digest does not follow from its rows"


def _hashes(path: str) -> np.ndarray:
    with open_arrow(path) as source, ipc.open_file(source) as reader:
        batches = [row_hashes(pa.table(reader.get_batch(i))) for i in range(reader.num_record_batches)]
    return np.concatenate(batches) if batches else np.zeros((0, 2), dtype=np.uint64)
