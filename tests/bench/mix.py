"""Mixing and shuffling packed rows against Hugging Face `datasets`, from rows on disk to rows on disk.

Three sources of 60, 30 and 10 parts are drawn by these shares and shuffled, so that nearly every row is used. The peer
interleaves, shuffles and saves. Its `shuffle` alone makes an index of rows and moves none of them: that takes no time
worth naming, and the reading that follows pays for it row by row. What is compared is the mixture laid out on disk in
its order, which is what training reads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import pyarrow as pa

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.export.folder import export
from gristmill.dataops.mix.mixture import mix
from gristmill.dataops.op import Op, Split, ledger
from gristmill.dataops.pack import best_fit
from gristmill.dataops.store import Store, Task
from tests.bench.crawl import WORKERS

PARTS = {"web": 0.6, "code": 0.3, "books": 0.1}
FACTS = {"tokenizer": "0" * 64, "eod": 0, "vocab_size": 50_000}
SEQ_LEN = 4_096
_CHUNK = 4_000_000  # tokens to a shard


def encode_random(name: str, tokens: int) -> Op:
    """A source of documents of web-like lengths made of random ids, under the name whose facts the others ask for."""
    return Op("text.encode", 1, {**FACTS, "name": name, "count": tokens}, _documents, "source", {}, _plan)


def _plan(inputs: Sequence[Dataset], building: Path, workers: int, *, name: str, count: int, **_: Any) -> list[Task]:
    return [Task((crc32(name.encode()), at, min(_CHUNK, count - at))) for at in range(0, count, _CHUNK)]


def _documents(task: tuple[int, int, int], *, eod: int, vocab_size: int, **_: Any) -> Iterator[Split]:
    rng = np.random.default_rng(task[:2])
    lengths = np.clip(rng.lognormal(6.2, 1.1, task[2] // 500), 2, SEQ_LEN).astype(np.int64)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), task[2])]
    ends = np.cumsum(lengths)
    tokens = rng.integers(1, vocab_size, ends[-1], dtype=np.uint16)
    tokens[ends - 1] = eod
    lists = pa.LargeListArray.from_arrays(np.concatenate([[0], ends]), tokens)
    ids = rng.bytes(16 * len(lengths))
    columns = {
        "id": pl.Series([ids[i : i + 16] for i in range(0, len(ids), 16)], dtype=pl.Binary),
        "tokens": pl.Series("tokens", lists),
        "n_tokens": pl.Series(lengths, dtype=pl.UInt32),
    }
    yield Split(pl.DataFrame(columns), ledger())


def mixing(tokens: int = 100_000_000) -> Iterator[dict[str, Any]]:
    """Megabytes of rows a second, all columns counted; ours is the mean of a run before the peer's and one after."""
    with tempfile.TemporaryDirectory() as work, LocalPool(int(WORKERS)) as pool:
        pool.warm(["gristmill.dataops.mix.mixture", "gristmill.dataops.pack"])
        store = Store(Path(work) / "root", pool)
        sources: dict[str, Dataset] = {}
        fit = best_fit(seq_len=SEQ_LEN, eod=FACTS["eod"], vocab_size=FACTS["vocab_size"], tokenizer="t")
        for name, share in PARTS.items():
            made = store.build(f"encoded-{name}", encode_random(name, round(tokens * share)), [])
            sources[name] = store.build(name, fit, [made])
        stage = {"tokens": None, "weights": PARTS}
        before = mix(store, "before", sources, [stage])
        for name, source in sources.items():
            export(source, Path(work) / "hf" / name, "hf")
        peer = _datasets(Path(work))
        after = mix(store, "after", sources, [stage])
        assert before.digest == after.digest
        seconds = (store.seconds["before"] + store.seconds["after"]) / 2
        size = sum(batch.nbytes for source in sources.values() for batch in source.batches(1_000))
        row = size / sum(source.rows for source in sources.values())
        ours, theirs = (rows * row / 1e6 for rows in (after.rows, peer["rows"]))
        yield {
            "peer": "datasets 5.2", "measure": "MB a second, mixed and laid out", "rows": after.rows,
            "peer_rows": peer["rows"], "megabytes": round(ours), "of_tokens": round(after.rows * SEQ_LEN * 2 / 1e6),
            "ours": round(ours / seconds), "peer_value": round(theirs / peer["seconds"]),
            "ratio": round(ours / seconds / (theirs / peer["seconds"]), 1), "ours_seconds": round(seconds, 2),
            "peer_seconds": round(peer["seconds"], 2), "peer_parts": peer["parts"],
        }  # fmt: skip


def _datasets(work: Path) -> dict[str, Any]:
    """Interleaved by the same shares until one source is used up, shuffled, and written by as many processes."""
    from datasets import disable_progress_bars, interleave_datasets, load_from_disk

    disable_progress_bars()
    sources = [load_from_disk(str(work / "hf" / name)) for name in PARTS]
    clock = [time.perf_counter()]
    mixed = interleave_datasets(sources, probabilities=list(PARTS.values()), seed=1)
    clock.append(time.perf_counter())
    mixed = mixed.shuffle(seed=1)
    clock.append(time.perf_counter())
    mixed.save_to_disk(str(work / "mixed"), num_proc=int(WORKERS))
    clock.append(time.perf_counter())
    parts = dict(zip(("interleave", "shuffle", "save"), np.diff(clock).round(2).tolist(), strict=True))
    return {"rows": len(mixed), "seconds": clock[-1] - clock[0], "parts": parts}
