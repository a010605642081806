"""Names that follow from content: canonical JSON, keys, row ids and content digests.

The law: equal parameters and equal inputs give equal keys; equal rows in equal order give equal digests, however
the rows are cut into shards. Workers, shard counts, roots and times never enter.

A digest is built from row hashes. Each value is hashed to 128 bits (two 64-bit lanes); a row hash sums its columns'
salted hashes; rows combine as the polynomial sum(h[i] * G**i) modulo 2**64 in each lane, which two shards can merge
without reading each other. It detects change, not malice: damage on disk is found by the SHA-256 of each file.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

_MASK = (1 << 64) - 1
_G = (0x9E3779B97F4A7C15 | 1, 0xD1B54A32D192ED03 | 1)  # odd, so that powers can be inverted modulo 2**64
_G_INVERSE = tuple(pow(g, -1, 1 << 64) for g in _G)
_NULL = (0x6A09E667F3BCC908, 0xBB67AE8584CAA73B)  # SHA-512's first initial values, as arbitrary constants


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces. Raises TypeError on what has no stable spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def recipe_key(ops: Iterable[Mapping[str, Any]], input_digests: Iterable[str]) -> str:
    """The address of a dataset: ops as {name, version, params} in order, and the digests of what they read."""
    return sha256_json({"ops": list(ops), "inputs": list(input_digests)})


def row_id(*parts: str | bytes) -> bytes:
    """16 bytes from parts that identify a row; each part is length-prefixed, so ("ab", "c") is not ("a", "bc")."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def mix64(x: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser (Steele et al. 2014) on a uint64 array."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def powers(base: int, n: int) -> np.ndarray:
    """base**0 .. base**(n-1) modulo 2**64, uint64[n]."""
    out = np.full(n, base & _MASK, dtype=np.uint64)
    if n:
        out[0] = 1
        np.multiply.accumulate(out, out=out)
    return out


@dataclass(frozen=True)
class Fingerprint:
    """What a run of rows hashes to: how many there are, and the polynomial of their hashes in two lanes."""

    rows: int = 0
    lanes: tuple[int, int] = (0, 0)

    def __add__(self, after: Fingerprint) -> Fingerprint:
        """The fingerprint of these rows followed by those."""
        lanes = [(self.lanes[k] + after.lanes[k] * pow(_G[k], self.rows, 1 << 64)) & _MASK for k in (0, 1)]
        return Fingerprint(self.rows + after.rows, (lanes[0], lanes[1]))

    @staticmethod
    def of(hashes: np.ndarray) -> Fingerprint:
        """Of row hashes, uint64[n, 2]."""
        with np.errstate(over="ignore"):
            lanes = [int((hashes[:, k] * powers(_G[k], len(hashes))).sum(dtype=np.uint64)) for k in (0, 1)]
        return Fingerprint(len(hashes), (lanes[0], lanes[1]))

    def digest(self, schema: Iterable[Sequence[str]]) -> str:
        """Hex digest of these rows under a schema, (name, type) pairs; names, types and the row count take part."""
        fields = sorted([name, _type_name(kind)] for name, kind in schema)
        return sha256_json({"fields": fields, "rows": self.rows, "lanes": [f"{lane:016x}" for lane in self.lanes]})


def row_hashes(batch: pa.RecordBatch | pa.Table) -> np.ndarray:
    """One 128-bit hash per row, uint64[n, 2]; the order of the columns does not count."""
    total = np.zeros((batch.num_rows, 2), dtype=np.uint64)
    numbers: list[tuple[np.ndarray, np.ndarray]] = []
    for name in batch.schema.names:
        column = batch.column(name)
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        if _is_number(column.type) and not column.null_count:
            numbers.append((_bits(column), _salt(name)))
        else:
            total += mix64(_value_hashes(column) ^ _salt(name))
    # All plain numbers at once: a wide table of short batches would else cost a dozen small calls per column.
    if numbers and batch.num_rows:
        bits = np.stack([bits for bits, _ in numbers])
        salts = np.stack([salt for _, salt in numbers])
        for lane, hashes in enumerate(_number_lanes(bits)):
            total[:, lane] += mix64(hashes ^ salts[:, lane, None]).sum(axis=0, dtype=np.uint64)
    return total


@functools.cache
def _salt(name: str) -> np.ndarray:
    """Two lanes that keep columns and fields apart, uint64[2]."""
    return np.frombuffer(hashlib.blake2b(name.encode(), digest_size=16).digest(), dtype="<u8")


def _type_name(kind: str) -> str:
    """Large and small variants of one logical type are the same content."""
    return kind.replace("large_", "").replace("_view", "")


def _value_hashes(array: pa.Array) -> np.ndarray:
    """uint64[n, 2] for any Arrow array."""
    n = len(array)
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _value_hashes(array.dictionary_decode())
    if pa.types.is_null(kind):
        return np.tile(np.array(_NULL, dtype=np.uint64), (n, 1))
    if _is_list(kind) and pa.types.is_integer(kind.value_type):
        out = _integer_lists(array)
    elif pa.types.is_struct(kind):
        out = np.zeros((n, 2), dtype=np.uint64)
        for index in range(kind.num_fields):
            out += mix64(_value_hashes(array.field(index)) ^ _salt(kind.field(index).name))
    elif _is_list(kind):
        out = _list_hashes(array)
    elif _is_text(kind):
        out = _bytes_hashes(array)
    else:
        out = np.stack(_number_lanes(_bits(array)), axis=1)
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        out[~valid] = _NULL
    return out


def _is_text(kind: pa.DataType) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    views = (pa.types.is_string_view, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests + views)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _integer_lists(array: pa.Array) -> np.ndarray:
    """Lists of integers, tokens above all: a row is one run of bytes, unless it holds a null (decided row by row, so
    that the cut does not show)."""
    out = _bytes_hashes(array)
    if array.values.null_count:
        nulls = np.concatenate([[0], np.cumsum(array.values.is_null().to_numpy(zero_copy_only=False))])
        bounds = _bounds(array)
        mixed = nulls[bounds[1:]] > nulls[bounds[:-1]]
        out[mixed] = _list_hashes(array)[mixed]
    return out


def _bytes_hashes(array: pa.Array) -> np.ndarray:
    """Two lanes of BLAKE2b per value: the only loop over rows, about a microsecond each."""
    if _is_list(array.type):
        flat = array.values.fill_null(0).to_numpy(zero_copy_only=True)
        bounds = (_bounds(array) * flat.itemsize).tolist()
        view = np.ascontiguousarray(flat).view(np.uint8).data
    else:
        raw = array if pa.types.is_large_binary(array.type) else array.cast(pa.large_binary())
        _, offsets, data = raw.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[raw.offset : raw.offset + len(raw) + 1].tolist()
        view = memoryview(data).cast("B") if data is not None else memoryview(b"")
    blake2b = hashlib.blake2b
    joined = b"".join(
        blake2b(view[start:end], digest_size=16).digest() for start, end in zip(bounds[:-1], bounds[1:], strict=True)
    )
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2).copy()


def _bounds(array: pa.Array) -> np.ndarray:
    """Where each list begins in `array.values`, and where the last one ends, int64[n + 1]."""
    if pa.types.is_fixed_size_list(array.type):
        return (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * array.type.list_size
    return array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_temporal)
    return any(test(kind) for test in tests)


def _bits(array: pa.Array) -> np.ndarray:
    """Numbers, booleans and times as 64 bits, uint64[n]; the type stands in the schema, not here."""
    kind = array.type
    if pa.types.is_boolean(kind):
        return array.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
    if pa.types.is_floating(kind):
        values = array.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        values = np.where(values == 0.0, 0.0, np.where(np.isnan(values), np.nan, values))  # one zero, one NaN
        return values.view(np.uint64)
    plain = array if pa.types.is_integer(kind) else array.view(pa.int64() if kind.bit_width == 64 else pa.int32())
    return plain.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64, copy=False)


def _number_lanes(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mix64(bits + np.uint64(0x632BE59BD9B4E019)), mix64(bits ^ np.uint64(0xD6E8FEB86659FD93))


def _list_hashes(array: pa.Array) -> np.ndarray:
    """Lists as polynomials of their items, from prefix sums: no loop over rows."""
    n = len(array)
    bounds, items = _bounds(array), array.values
    start, end = (int(bounds[0]), int(bounds[-1])) if n else (0, 0)
    hashes = _value_hashes(items.slice(start, end - start))
    bounds = bounds - start
    out = np.empty((n, 2), dtype=np.uint64)
    for lane in (0, 1):
        prefix = np.zeros(len(hashes) + 1, dtype=np.uint64)
        np.cumsum(hashes[:, lane] * powers(_G[lane], len(hashes)), out=prefix[1:])
        back = powers(_G_INVERSE[lane], len(hashes) + 1)[bounds[:-1]] if n else np.empty(0, np.uint64)
        sums = (prefix[bounds[1:]] - prefix[bounds[:-1]]) * back
        out[:, lane] = mix64(sums + np.diff(bounds).astype(np.uint64))
    return out
