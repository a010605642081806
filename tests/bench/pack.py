"""Best-fit packing against TRL's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from gristmill.dataops.pack import best_fit_decreasing


def packing() -> Iterator[dict[str, Any]]:
    """Bins found for the same lengths, and how long it takes: web-like lengths, 200,000 documents, rows of 4,096."""
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.lognormal(6.2, 1.1, 200_000).astype(np.int64) + 1, 4_096)
    started = time.perf_counter()
    bins = best_fit_decreasing(lengths, 4_096)
    seconds = time.perf_counter() - started
    count = int(bins.max()) + 1
    bound = int(np.ceil(lengths.sum() / 4_096))
    yield {"measure": "rows over the least that could hold the tokens", "value": round(count / bound, 5), "rows": count}
    yield {"measure": "documents packed a second", "value": int(len(lengths) / seconds)}
