"""Safetensors as files of numbers: read block by block at an offset, written the same way.

The format is 8 bytes with the length of a JSON header (little-endian), the header, and the tensors' bytes without gaps;
a model is one `model.safetensors`, or shards with a `model.safetensors.index.json` that says which tensor is where. The
files are read at offsets and not mapped, so that no page of them counts as this process's memory; what is written has
its place before it has its values, so that blocks may come in any order from any thread.

The law kept here: no number is taken from a file whose header is not true to it, and none that is not finite is read or
written. Every InputError names the file and the tensor. Not covered: the formats of pickled checkpoints.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.dataops.dataset import InputError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MERGED: Mapping[str, torch.dtype] = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
#: Bytes per element of the dtypes that the format knows; sub-byte ones are packed and never merged.
SIZES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
HEADER = 100_000_000  # bytes at most, the limit of the format's own reader


@dataclass(frozen=True)
class Entry:
    """One tensor: its dtype in the format's words, its shape, and the bytes [start, stop) of the file that holds it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Bytes per element."""
        return SIZES[self.dtype]

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return self.size * self.width


def read_weights(folder: Path) -> dict[str, Entry]:
    """All tensors of a model's folder by name. Raises InputError for damaged files and for a folder without weights."""
    single, index = folder / WEIGHTS, folder / INDEX
    if single.exists() and index.exists():
        raise InputError(f"{folder} holds both {WEIGHTS} and {INDEX}: remove the one that is not the model")
    if single.exists():
        return read_header(single)
    if not index.exists():
        adapter = (folder / "adapter_config.json").exists()
        advice = "it is an adapter: merge it into its base first" if adapter else "convert the model to safetensors"
        raise InputError(f"{folder} holds neither {WEIGHTS} nor {INDEX}: {advice}")
    places = json_object(index, index.read_bytes()).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(v, str) and Path(v).name == v for v in places.values()):
        raise InputError(f"{index}: its weight_map does not name files of the folder: fetch the file again")
    found: dict[str, Entry] = {}
    for file in sorted(set(places.values())):
        if not (folder / file).exists():
            raise InputError(f"{index} names {file}, which is not there: fetch that shard again")
        for name, entry in read_header(folder / file).items():
            if places.get(name) != file:
                raise InputError(f"{folder / file} holds {name}, which {INDEX} places in {places.get(name, 'no file')}")
            found[name] = entry
    if missing := sorted(set(places) - set(found)):
        raise InputError(f"{index} places {missing[0]} in {places[missing[0]]}, which does not hold it")
    return found


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one file by name, from a header that has been held against the file's length."""
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > min(total - 8, HEADER):
            raise InputError(
                f"{path}: {total} bytes with a header said to be {length} long: no safetensors file, or cut"
            )
        header = json_object(path, file.read(length))
    header.pop("__metadata__", None)
    entries = []
    for name, said in header.items():
        try:
            dtype, shape, (begin, end) = said["dtype"], tuple(said["shape"]), said["data_offsets"]
            sound = isinstance(dtype, str) and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            sound = False
        if not sound:
            raise InputError(f"{path}: the header's entry for {name} cannot be read: fetch the file again")
        if dtype not in SIZES:
            raise InputError(f"{path}: {name} has the dtype {dtype!r}; dequantise the model first")
        entry = Entry(name, dtype, shape, path, 8 + length + begin)
        if end - begin != entry.bytes:
            raise InputError(
                f"{path}: the header gives {name} {end - begin} bytes, {dtype} of shape {list(shape)} takes "
                f"{entry.bytes}: fetch the file again"
            )
        entries.append(entry)
    place = 8 + length
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.bytes)):
        if entry.start != place:
            raise InputError(f"{path}: {entry.name} starts at byte {entry.start}, the one before it ends at {place}")
        place += entry.bytes
        if place > total:
            raise InputError(
                f"{path}: {entry.name} ends at byte {place}, the file has {total}: fetch it again, it is cut"
            )
    if place != total:
        raise InputError(f"{path}: {total - place} bytes stand behind the last tensor: fetch the file again")
    return {entry.name: entry for entry in entries}


class Files:
    """Open files, and tensors in them by blocks. Safe for threads: every access says its offset."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._numbers: dict[Path, int] = {}

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def open(self, path: Path, mode: str = "rb", size: int | None = None) -> None:
        """Open one file; with `size`, give it that length."""
        file = self._open.enter_context(path.open(mode))
        if size is not None:
            file.truncate(size)
        self._numbers[path] = file.fileno()

    def raw(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        """Elements [start, stop) as uint8[bytes]."""
        buffer = np.empty((stop - start) * entry.width, dtype=np.uint8)
        view, offset = buffer.data, entry.start + start * entry.width
        while len(view):
            got = os.preadv(self._numbers[entry.path], [view], offset)
            if not got:
                raise InputError(f"{entry.path} ends within {entry.name}: it was cut while it was read")
            view, offset = view[got:], offset + got
        return buffer

    def sound(self, entry: Entry, start: int, stop: int) -> np.ndarray:
        """Elements [start, stop) as uint8[bytes]. Raises InputError for a number that is not finite."""
        data = self.raw(entry, start, stop)
        values = torch.from_numpy(data).view(MERGED[entry.dtype])
        if not _finite(values):
            place = start + int(torch.isfinite(values).logical_not().nonzero()[0])
            where = [int(n) for n in np.unravel_index(place, entry.shape)]
            raise InputError(
                f"{entry.path}: {entry.name} is {values[place - start].item()} at {where}: the model is damaged or its "
                "training went wrong; leave it out, or take an earlier checkpoint"
            )
        return data

    def read(self, entry: Entry, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) as float32. Raises InputError for a number that is not finite."""
        return torch.from_numpy(self.sound(entry, start, stop)).view(MERGED[entry.dtype]).float()

    def write(self, entry: Entry, start: int, data: np.ndarray) -> None:
        """Put uint8 data where the tensor's element `start` is."""
        view, offset = data.data, entry.start + start * entry.width
        while len(view):
            done = os.pwrite(self._numbers[entry.path], view, offset)
            view, offset = view[done:], offset + done


def encode(values: torch.Tensor, entry: Entry) -> np.ndarray:
    """Float32 values in the tensor's dtype, uint8. Raises InputError where they are too large for it."""
    out = values.to(MERGED[entry.dtype])
    if not _finite(out):
        raise InputError(
            f"{entry.name}: the merged values do not fit into {entry.dtype}; lower the weights or the scale"
        )
    return out.contiguous().view(torch.uint8).numpy()


def lay_out(tensors: Iterable[Entry], folder: Path, shard_bytes: int) -> list[list[Entry]]:
    """Where tensors will stand, in files of at most `shard_bytes` bytes of tensors (one that is larger stands alone).

    Widest elements first and then by name, as safetensors writes them, so that all are aligned and the order of what
    was read does not matter. Headers are not counted.
    """
    shards: list[list[Entry]] = [[]]
    filled = 0
    for tensor in sorted(tensors, key=lambda entry: (-entry.width, entry.name)):
        if shards[-1] and filled + tensor.bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.bytes
    placed = []
    for number, shard in enumerate(shards, 1):
        path = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors")
        start, entries = len(_header(shard)), []
        for tensor in shard:
            entries.append(Entry(tensor.name, tensor.dtype, tensor.shape, path, start))
            start += tensor.bytes
        placed.append(entries)
    return placed


def create(files: Files, shards: Sequence[Sequence[Entry]]) -> None:
    """The files of a layout with their headers, open to be written to, and their index where there are several."""
    for shard in shards:
        header = _header(shard)
        path = shard[0].path
        path.write_bytes(header)
        files.open(path, "r+b", len(header) + sum(entry.bytes for entry in shard))
    if len(shards) > 1:
        entries = [entry for shard in shards for entry in shard]
        index = {
            "metadata": {"total_size": sum(entry.bytes for entry in entries)},
            "weight_map": {entry.name: entry.path.name for entry in sorted(entries, key=lambda entry: entry.name)},
        }
        (shards[0][0].path.parent / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _header(shard: Sequence[Entry]) -> bytes:
    """The 8 bytes and the header, padded with spaces to a multiple of 8; `format` tells transformers whose tensors."""
    said: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for entry in shard:
        offsets = [place, place + entry.bytes]
        said[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
        place += entry.bytes
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _finite(values: torch.Tensor) -> bool:
    """Whether all are finite: NaN and infinity show in the least and the greatest."""
    return not len(values) or all(math.isfinite(bound.item()) for bound in torch.aminmax(values))


def json_object(path: Path, data: bytes) -> dict[str, Any]:
    """What a JSON file, or the header of another one, says. Raises InputError for anything but an object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON where it should be: {error}; fetch the file again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: no JSON object where it should be; fetch the file again")
    return value
