"""Safety verifiers over real conversations: rows judged per processor second, and what they say of them.

No peer publishes verdicts per second for such rules; the bar is a floor that keeps them out of the way of training.
Processor seconds count every thread.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.dataops.store import Store
from gristmill.flows.commands import train_toxicity
from gristmill.verifiers.safety.verify import classifier
from gristmill.verifiers.verifier import find

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
BAR = 1_000  # rows per processor second


def safety() -> Iterator[dict[str, Any]]:
    """Each verifier over the 4,624 answers of hh-rlhf's harmless test set; the classifier trained in the same run."""
    with gzip.open(DATA / "pref" / "hh-rlhf-harmless-base-test.jsonl.gz", "rt") as lines:
        pairs = [json.loads(line) for line in lines]
    parted = [pair[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected") for pair in pairs]
    rows = [{"prompt": prompt, "response": response.strip()} for prompt, _, response in parted]
    with tempfile.TemporaryDirectory() as root:
        started = time.process_time()
        told, _ = train_toxicity.run(argparse.Namespace(folder=str(DATA / "safety"), name="toxicity"), {"root": root})
        seconds = round(time.process_time() - started, 1)
        yield {
            "measure": "AUC, toxicity",
            "texts": told["card"]["rows"],
            "ours": told["card"]["auc"],
            "train_s": seconds,
        }
        model = classifier(Store(Path(root)).get("toxicity"))
        for name in ("pii", "toxicity", "dangerous", "refusal", "over_refusal", ""):
            judge = find(f"safety.{name}".rstrip("."))(**(model if name in ("", "toxicity") else {}))
            best = float("inf")
            for _ in range(3):
                clock = time.process_time()
                verdicts = judge.rows(rows)
                best = min(best, time.process_time() - clock)
            half = len(rows) // 2
            low = [
                sum(v.score is not None and v.score < 0.5 for v in part) for part in (verdicts[:half], verdicts[half:])
            ]
            speed = round(len(rows) / best)
            yield {
                "measure": f"rows/s, {judge.name}", "rows": len(rows), "ours": speed, "bar": BAR, "met": speed >= BAR,
                "below_half": {"chosen": low[0], "rejected": low[1]},
                "unjudged": sum(verdict.score is None for verdict in verdicts),
            }  # fmt: skip
