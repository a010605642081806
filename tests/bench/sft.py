"""Near-duplicates among prompts, against datasketch's MinHashLSH as its own documentation uses it.

Both go down the same prompts with the same number of permutations and the same word n-grams, each in a process of its
own, whose peak of resident memory is its own. The prompts are made, the same in every run: real ones of exercises, and
copies of them with a few words changed. The peer believes its index; ours asks for the true similarity of what the
index finds, and so also counts what the peer lost without cause.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PROMPTS = int(os.environ.get("GRISTMILL_BENCH_PROMPTS", 100_000))
_SECONDS, _BYTES = 60, 10**9
_THRESHOLD, _NGRAM = 0.8, 3


def near_prompts() -> Iterator[dict[str, Any]]:
    """Seconds and memory for 100,000 prompts."""
    sys.path.append(str(Path(__file__).parents[1]))
    import polars as pl
    from sftchats import dataset, rows

    with tempfile.TemporaryDirectory() as folder:
        prompts = _prompts(PROMPTS)
        frame = rows([[] for _ in prompts], prompt=prompts)
        dataset(Path(folder) / "root", frame.drop("messages"))
        (Path(folder) / "prompts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in prompts))
        ours, peer = (_alone(side, folder) for side in ("ours", "datasketch"))
        place = {id: at for at, id in enumerate(frame["id"].to_list())}
        kept = pl.read_parquet(Path(folder) / "ours.parquet")["id"].to_list()
    lost = {*range(len(prompts))} - {place[id] for id in kept}
    theirs = dict(peer.pop("lost"))
    wrong = sum(max(_alike(prompts[at], prompts[twin]) for twin in found) < _THRESHOLD for at, found in theirs.items())
    yield {
        "peer": "datasketch 2.0", "prompts": len(prompts), "ours_seconds": ours["seconds"],
        "peer_seconds": peer["seconds"], "ratio": round(peer["seconds"] / ours["seconds"], 1),
        "ours_peak_mb": ours["peak"] >> 20, "peer_peak_mb": peer["peak"] >> 20, "bar_seconds": _SECONDS,
        "bar_peak_mb": _BYTES >> 20, "ours_lost": len(lost), "peer_lost": len(theirs),
        "peer_lost_of_less_than_threshold": wrong, "lost_by_both": len(lost & theirs.keys()),
        "met": ours["seconds"] < _SECONDS and ours["peak"] < _BYTES,
    }  # fmt: skip


def _alone(side: str, folder: str) -> dict[str, Any]:
    """What one side says, run from this file in a process of its own."""
    command = [sys.executable, "-P", __file__, side, folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _ours(folder: str) -> dict[str, Any]:
    from gristmill.dataops.dedup.small import small
    from gristmill.dataops.sft.recipe import PERMUTATIONS
    from gristmill.dataops.store import Store

    started = time.perf_counter()
    store = Store(Path(folder) / "root")
    op = small(column="prompt", ngram=_NGRAM, threshold=_THRESHOLD, num_perm=PERMUTATIONS)
    unique = store.build("unique", op, [store.get("chats")])
    seconds = time.perf_counter() - started
    peak = _peak()
    unique.scan().select("id").collect().write_parquet(Path(folder) / "ours.parquet")
    return {"seconds": round(seconds, 1), "peak": peak}


def _datasketch(folder: str) -> dict[str, Any]:
    """A prompt goes where the index finds one that stayed."""
    from datasketch import MinHash, MinHashLSH

    from gristmill.dataops.sft.recipe import PERMUTATIONS

    started = time.perf_counter()
    index = MinHashLSH(threshold=_THRESHOLD, num_perm=PERMUTATIONS)
    lost = []
    with (Path(folder) / "prompts.jsonl").open() as lines:
        for at, line in enumerate(lines):
            sketch = MinHash(num_perm=PERMUTATIONS)
            sketch.update_batch([gram.encode() for gram in _grams(json.loads(line))])
            found = index.query(sketch)
            if found:
                lost.append((at, found))
            else:
                index.insert(at, sketch)
    seconds = time.perf_counter() - started
    peak = _peak()
    return {"seconds": round(seconds, 1), "peak": peak, "lost": lost}


def _peak() -> int:
    """The most resident memory of this process in bytes. (What getrusage says begins with that of who started it.)"""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found.group(1))


def _grams(text: str) -> set[str]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {" ".join(words[at : at + _NGRAM]) for at in range(max(1, len(words) - _NGRAM + 1))}


def _alike(one: str, other: str) -> float:
    a, b = _grams(one), _grams(other)
    return len(a & b) / len(a | b)


def _prompts(count: int) -> list[str]:
    """Real questions of exercises, and until there are so many, copies with one word in 3, 6, 12 or 40 changed."""
    real = []
    for name in ("gsm8k-train", "gsm8k-test", "math-test", "mbpp"):
        for line in (DATA / "verify" / f"{name}.jsonl").read_text().splitlines():
            row = json.loads(line)
            real.append(next(row[key] for key in ("question", "problem", "text") if key in row))
    words = " ".join(real).split()
    rng = random.Random(1)
    made = list(real)
    while len(made) < count:
        parts = rng.choice(real).split()
        for _ in range(max(1, len(parts) // rng.choice((3, 6, 12, 40)))):
            parts[rng.randrange(len(parts))] = rng.choice(words)
        made.append(" ".join(parts))
    return made[:count]


if __name__ == "__main__":
    print(json.dumps({"ours": _ours, "datasketch": _datasketch}[sys.argv[1]](sys.argv[2])))
