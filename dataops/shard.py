"""One file of a dataset's rows, and what the views over it leave out.

Knows pyarrow alone. The law: what a view left out is never read back as a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.ipc as ipc

from gristmill.dataops.fileio import open_arrow


@dataclass(frozen=True)
class Shard:
    """One file of rows, the rows in it, and the positions that the views over it leave out (sorted)."""

    path: str
    rows: int
    left_out: pa.Array | None = None

    @property
    def kept(self) -> int:
        """Rows that remain."""
        return self.rows - (0 if self.left_out is None else len(self.left_out))

    def mask(self) -> pa.Array | None:
        """bool[rows], true where a row stays; None where all stay."""
        if self.left_out is None or not len(self.left_out):
            return None
        import numpy as np

        keep = np.ones(self.rows, dtype=bool)
        keep[self.left_out.to_numpy()] = False
        return pa.array(keep)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows that stay, with the columns named (all by default)."""
        with open_arrow(self.path) as source:
            options = ipc.IpcReadOptions()
            if columns is not None:
                with ipc.open_file(source) as reader:
                    options.included_fields = [reader.schema.get_field_index(name) for name in columns]
            reader = ipc.open_file(source, options=options)
            table = reader.read_all()
        mask = self.mask()
        table = table if mask is None else table.filter(mask)
        return table if columns is None else table.select(list(columns))


def read_ledger(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One ledger file."""
    return Shard(path, 0).read(columns)
