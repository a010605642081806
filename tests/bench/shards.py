"""Reading packed rows in random order, from page cache to int64 tensors, against what else reads the same rows.

All sides give batches of 16 rows of 4,096 tokens in one process and one thread, until every row has come once. Ours
gives tokens, positions and labels; `datasets` tokens and positions of the same rows; Megatron's indexed dataset,
through the DataLoader of torch, tokens alone, one document of 4,096 tokens per row.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.export.folder import export
from gristmill.dataops.pack import best_fit
from gristmill.dataops.store import Store
from tests.bench.crawl import WORKERS
from tests.bench.mix import FACTS, SEQ_LEN, encode_random

ROWS, BAR = 16, 20_000_000  # tokens a second of one process, from page cache


def reading_shards(tokens: int = 100_000_000) -> Iterator[dict[str, Any]]:
    """Tokens a second, padding counted, on all sides; the best of three turns each."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work, LocalPool(int(WORKERS)) as pool:
        store = Store(Path(work) / "root", pool)
        encoded = store.build("encoded", encode_random("web", tokens), [])
        fit = best_fit(seq_len=SEQ_LEN, eod=FACTS["eod"], vocab_size=FACTS["vocab_size"], tokenizer="t")
        packed = store.build("packed", fit, [encoded])
        sides: dict[str, Callable[[], int]] = {
            "ours": _ours(packed),
            "datasets 5.2, torch format, shuffled": _datasets(packed, Path(work) / "hf"),
            "megatron-core 0.16, IndexedDataset in a DataLoader": _megatron(packed, Path(work) / "megatron"),
        }
        best = dict.fromkeys(sides, 0.0)
        for _ in range(3):  # in turns, so that a busy moment does not hit one side alone
            for name, read in sides.items():
                started = time.perf_counter()
                rows = read()
                best[name] = max(best[name], rows * SEQ_LEN / (time.perf_counter() - started))
        for name in list(sides)[1:]:
            yield {
                "peer": name, "measure": "tokens a second read in random order, one process", "rows": packed.rows,
                "ours": round(best["ours"]), "peer_value": round(best[name]),
                "ratio": round(best["ours"] / best[name], 1), "bar": BAR, "met": best["ours"] >= BAR,
            }  # fmt: skip
    torch.set_num_threads(threads)


def _ours(packed: Dataset) -> Callable[[], int]:
    from gristmill.training.shards import Shards
    from gristmill.training.stream import Stream

    stream = Stream([Shards(packed)], rows=ROWS, seed=1)

    def read() -> int:
        batches = itertools.islice(stream.read(), packed.rows // ROWS)
        return sum(len(batch.tokens) for batch, _ in batches)

    return read


def _datasets(packed: Dataset, folder: Path) -> Callable[[], int]:
    from datasets import load_from_disk

    export(packed, folder, "hf")
    rows = load_from_disk(str(folder)).select_columns(["tokens", "positions"]).shuffle(seed=1).with_format("torch")

    def read() -> int:
        return sum(len(batch["tokens"]) for batch in rows.iter(ROWS, drop_last_batch=True))

    return read


def _megatron(packed: Dataset, folder: Path) -> Callable[[], int]:
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    folder.mkdir()
    builder = IndexedDatasetBuilder(str(folder / "tokens.bin"), dtype=np.uint16)
    for batch in packed.batches(1_000):
        for row in batch.column("tokens").flatten().to_numpy().reshape(-1, SEQ_LEN):
            builder.add_document(row, [SEQ_LEN])
    builder.finalize(str(folder / "tokens.idx"))
    rows: Any = IndexedDataset(str(folder / "tokens"))

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.from_numpy(rows[index].astype(np.int64))

    loader = torch.utils.data.DataLoader(Rows(), batch_size=ROWS, shuffle=True, drop_last=True)
    return lambda: sum(len(batch) for batch in loader)
