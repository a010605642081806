"""Packed datasets and a tiny language to train on, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.dataops.dataset import publish
from gristmill.dataops.identity import Fingerprint, recipe_key, row_id
from gristmill.dataops.rowfile import RowWriter

SEGMENTS = pa.list_(pa.struct([("id", pa.binary(16)), ("start", pa.uint32()), ("length", pa.uint32())]))
EOD = 0


def pack(
    root: Path,
    rows: list[list[list[int]]],
    *,
    seq_len: int,
    vocab_size: int,
    dtype=np.uint16,
    compression=None,
    tokenizer="t",
    targets=None,
    params=None,
    name="packed",
):
    """Publish rows of documents (lists of tokens) as a packed dataset: two shards, record batches of two rows.

    `targets` are lists of 0 and 1 like `rows`; `params` are more of the op's parameters.
    """
    columns: dict[str, list] = {name: [] for name in ("id", "tokens", "positions", "segments", "length")}
    if targets is not None:
        columns["targets"] = [
            [mark for document in row for mark in document] + [0] * (seq_len - sum(map(len, row))) for row in targets
        ]
    for number, documents in enumerate(rows):
        tokens = [token for document in documents for token in document]
        positions = [place for document in documents for place in range(len(document))]
        padding = seq_len - len(tokens)
        columns["id"].append(row_id(str(number)))
        columns["tokens"].append(tokens + [EOD] * padding)
        columns["positions"].append(positions + list(range(padding)))
        columns["segments"].append([{"id": row_id("d"), "start": 0, "length": len(d)} for d in documents])
        columns["length"].append(len(tokens))
    types = {"tokens": pa.list_(pa.from_numpy_dtype(dtype), seq_len), "id": pa.binary(16), "segments": SEGMENTS}
    types |= {"positions": types["tokens"], "length": pa.uint32(), "targets": pa.list_(pa.uint8(), seq_len)}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    building = root / ".building" / name
    (building / "shards").mkdir(parents=True)
    half = -(-len(rows) // 2)
    parts = []
    for index, piece in enumerate((table.slice(0, half), table.slice(half))):
        writer = RowWriter(building, index, compression)
        writer.write(piece.slice(0, 0))
        for start in range(0, piece.num_rows, 2):
            writer.write(piece.slice(start, 2))
        parts.append(writer.close())
    ops = [
        {
            "name": "pack",
            "version": 1,
            "params": {
                "seq_len": seq_len,
                "eod": EOD,
                "vocab_size": vocab_size,
                "tokenizer": tokenizer,
                **(params or {}),
            },
        }
    ]
    key = recipe_key(ops, [])
    total = sum((Fingerprint(part["rows"], tuple(part["lanes"])) for part in parts), Fingerprint())
    manifest = {
        "gristmill": 1, "name": name, "key": key, "kind": "tokens", "ops": ops, "inputs": [], "rows": total.rows,
        "shards": [{**part["shard"], "hashes": part["hashes"]} for part in parts], "ledger": [],
        "made": {}, "counts": {}, "schema": parts[0]["schema"], "digest": total.digest(parts[0]["schema"]),
    }  # fmt: skip
    return publish(building, root / name / key[:12], manifest)


def chain(rows: int, seq_len: int, vocab_size: int, seed: int = 0) -> list[list[list[int]]]:
    """Documents in which a token settles the next one nine times out of ten, while all tokens are equally frequent."""
    rng = np.random.default_rng(seed)
    follows = rng.permutation(vocab_size)
    out = []
    for _ in range(rows):
        tokens = [int(rng.integers(vocab_size))]
        while len(tokens) < seq_len - 1:
            tokens.append(int(follows[tokens[-1]] if rng.random() < 0.9 else rng.integers(vocab_size)))
        cut = int(rng.integers(1, seq_len - 2))
        out.append([tokens[:cut], tokens[cut:]])
    return out
