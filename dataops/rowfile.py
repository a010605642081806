"""One shard of rows on disk: Arrow IPC, with a hash per row in a file beside it.

Knows pyarrow alone, so that what trains can write rows too. The law: a shard stands under its final name only when it
is whole, and its hashes are those of its rows.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.fileio import HashedFile
from gristmill.dataops.identity import Fingerprint, row_hashes


class RowWriter:
    """Writes shard number `index` into `folder`/shards, which exists."""

    def __init__(self, folder: Path, index: int, compression: str | None) -> None:
        self._folder, self._compression = folder, compression
        self._names = (f"shards/{index:05d}.arrow", f"shards/{index:05d}.hash")
        self._scratch = [folder / f"{name}.{os.getpid()}.tmp" for name in self._names]
        self._rows_file, self._hash_file = (HashedFile(path) for path in self._scratch)
        self._writer: ipc.RecordBatchFileWriter | None = None
        self._schema: pa.Schema | None = None
        self._fingerprint = Fingerprint()
        self.hash_seconds = 0.0

    def write(self, table: pa.Table) -> None:
        """Append rows; the first call sets the schema."""
        if self._writer is None:
            self._schema = table.schema
            options = ipc.IpcWriteOptions(compression=self._compression)
            self._writer = ipc.new_file(self._rows_file, table.schema, options=options)
        elif table.num_rows == 0:
            return
        self._writer.write_table(table)
        clock = time.process_time()
        hashes = row_hashes(table)
        self._hash_file.write(np.ascontiguousarray(hashes, dtype="<u8").tobytes())
        self._fingerprint += Fingerprint.of(hashes)
        self.hash_seconds += time.process_time() - clock

    def close(self) -> dict[str, Any]:
        """Finish the files under their final names; returns what the manifest says of them."""
        assert self._writer is not None and self._schema is not None, "a source yields at least one batch"
        self._writer.close()
        self._rows_file.close()
        self._hash_file.close()
        for scratch, name in zip(self._scratch, self._names, strict=True):
            scratch.replace(self._folder / name)
        rows, lanes = self._fingerprint.rows, list(self._fingerprint.lanes)
        return {
            "shard": self._rows_file.entry(self._names[0], rows=rows),
            "hashes": self._hash_file.entry(self._names[1]),
            "schema": [[field.name, str(field.type)] for field in self._schema],
            "rows": rows,
            "lanes": lanes,
        }
