"""The loop of a merge: tensor after tensor, block after block, a few blocks at a time on all cores.

Blocks are of fixed size and each is read, merged and written by one thread with one-threaded arithmetic, so the bytes
do not depend on how many threads there are. Models are taken in the order of what their tensors hold, because float32
sums depend on the order, so the bytes do not depend on how the models are listed or cut into files either. What is
alive at once is a few blocks per thread, not a tensor.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from gristmill.dataops.dataset import InputError
from gristmill.training.merging.match import Candidate, same_bytes
from gristmill.training.merging.methods import Each, Read, merged
from gristmill.training.merging.tensors import MERGED, Entry, Files, create, encode, lay_out

BLOCK = 1 << 18  # elements: a few blocks fit into a core's cache. A multiple of 8, as `dare` wants; part of the results
WORKERS = 16  # at most: beyond that the disk decides

T = TypeVar("T")
_ODD = np.arange(1, BLOCK, 2, dtype=np.uint64)  # for every 8 bytes of a block of float32 another factor


@dataclass(frozen=True)
class Part:
    """One model's part in a merge: its tensors, and its weight in each of them."""

    model: Candidate
    weights: Mapping[str, float]


def merge_tensors(
    folder: Path,
    like: Sequence[Entry],
    base: Candidate | None,
    parts: Sequence[Part],
    files: Files,
    *,
    shard_bytes: int,
    workers: int | None = None,
    **recipe: Any,
) -> dict[str, int]:
    """Write the merged tensors, with the names, shapes and dtypes of `like`, into `folder`; counts for the manifest.

    `recipe` is the method, density, scale and seed of `methods.merged`. `files` has all models' files open. `workers`
    are threads, by default as many as this process has cores. Raises InputError for numbers that are not finite, and
    for tensors that cannot be mixed (whole numbers, bits) and differ.
    """
    layout = lay_out(like, folder, shard_bytes)
    outputs = [entry for shard in layout for entry in shard]
    total, done = sum(entry.bytes for entry in outputs), 0
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < total:
        raise InputError(
            f"{folder} has room for {free.f_bavail * free.f_frsize:,} bytes, the merged model takes {total:,}"
        )
    create(files, layout)
    threads = workers if workers is not None else min(len(os.sched_getaffinity(0)), WORKERS)
    started = told = time.monotonic()
    with ThreadPoolExecutor(threads) as pool, _one_threaded():
        for number, out in enumerate(outputs, 1):
            _merge_one(out, base, parts, files, pool, 2 * threads, recipe)
            done += out.bytes
            now = time.monotonic()
            if now - told >= 1 or number == len(outputs):
                told = now
                speed = done / 1e6 / max(now - started, 1e-9)
                line = f"tensor {number}/{len(outputs)}  {done / 1e6:,.0f} of {total / 1e6:,.0f} MB  {speed:,.0f} MB/s"
                print(line, file=sys.stderr, flush=True)
    return {"tensors": len(outputs), "parameters": sum(entry.size for entry in outputs), "shards": len(layout)}


def _merge_one(
    out: Entry,
    base: Candidate | None,
    parts: Sequence[Part],
    files: Files,
    pool: ThreadPoolExecutor,
    ahead: int,
    recipe: Mapping[str, Any],
) -> None:
    """One tensor from all models into its place."""
    if not out.size:
        return
    weighted = [(part.model.tensors[out.name], part.weights[out.name]) for part in parts]
    models = [model for model, _ in weighted]
    origin = None if base is None else base.tensors[out.name]
    if out.dtype not in MERGED:
        first, *others = models if origin is None else [origin, *models]
        for other in others:
            if not same_bytes(files, first, other):
                raise InputError(
                    f"{out.name} is {out.dtype}, which cannot be mixed, and differs between {first.path} and "
                    f"{other.path}: give both the same values, or dequantise the models first"
                )
        for start, stop in _ranges(out.size):
            files.write(out, start, files.raw(first, start, stop))
        return

    def reader(entry: Entry) -> Read:
        return lambda start, stop: files.read(entry, start, stop)

    def each(call: Callable[[int, int], T]) -> Iterator[T]:
        return _each(pool, call, out.size, ahead)

    ranked = sorted(
        ((fingerprint(files, model, each), weight, model) for model, weight in weighted), key=lambda r: r[:2]
    )
    read = merged(
        tensor=out.name,
        size=out.size,
        base=None if origin is None else reader(origin),
        models=[reader(model) for _, _, model in ranked],
        weights=[weight for _, weight, _ in ranked],
        each=each,
        keys=[name for name, _, _ in ranked],
        **recipe,
    )

    def write(start: int, stop: int) -> None:
        files.write(out, start, encode(read(start, stop), out))

    for _ in each(write):
        pass


def fingerprint(files: Files, entry: Entry, each: Each) -> str:
    """What names a tensor's values wherever they stand: SHA-256 (hex) over sums of each block's 64-bit words, each with
    its own odd factor. It tells models apart; it is no proof against forgery, for which files have their SHA-256.
    Raises InputError for a number that is not finite."""

    def total(start: int, stop: int) -> int:
        data = files.sound(entry, start, stop)
        words = np.pad(data, (0, -len(data) % 8)).view(np.uint64) if len(data) % 8 else data.view(np.uint64)
        return int((words * _ODD[: len(words)]).sum(dtype=np.uint64))

    state = hashlib.sha256()
    for number in each(total):
        state.update(number.to_bytes(8, "little"))
    return state.hexdigest()


def _ranges(size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def _each(pool: ThreadPoolExecutor, call: Callable[[int, int], T], size: int, ahead: int) -> Iterator[T]:
    """Results in order, with at most `ahead` blocks under way or waiting to be taken."""
    if size <= BLOCK:  # norms and biases: handing them over costs more than they do
        yield call(0, size)
        return
    waiting: deque[Future[T]] = deque()
    try:
        for start, stop in _ranges(size):
            if len(waiting) == ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(call, start, stop))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@contextmanager
def _one_threaded() -> Iterator[None]:
    """torch's own threads off: the blocks are the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
