"""What a step that asks a model about row after row has so far, chunk by chunk in files: none of it is asked again.

A file is named by the number of its first prompt (or row) and of the one after its last, so that chunks of another size
go on from those that stand. The law: a chunk is whole or not there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.dataset import open_arrow


def write(file: Path, table: pa.Table) -> None:
    """A chunk, by one rename."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as stream:
            with ipc.new_file(stream, table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
                writer.write_table(table)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def read(file: Path) -> pa.Table:
    """The rows of a chunk."""
    with open_arrow(str(file)) as source, ipc.open_file(source) as reader:
        return reader.read_all()


def span(file: Path) -> tuple[int, int]:
    """The number of a chunk's first prompt, and of the one after its last."""
    start, until = file.stem.split("-")
    return int(start), int(until)


def kept(folder: Path, samples: int) -> dict[int, Path]:
    """The chunks that stand, by their first prompt. One that cannot be read is removed, and so made again."""
    found: dict[int, Path] = {}
    for file in sorted(folder.glob("*.arrow")):
        start, until = span(file)
        try:
            whole = read(file).num_rows == (until - start) * samples
        except (OSError, pa.ArrowInvalid):
            whole = False
        if whole:
            found[start] = file
        else:
            file.unlink()
    return found


def prompts(folder: Path) -> int:
    """How many prompts the chunks that stand are of."""
    return sum(until - start for start, until in map(span, folder.glob("*.arrow")))
