"""Judges on PandaLM's test set: agreement with the majority of three people, biases, pairs per second.

Ours is the pairwise judge over SmolLM2-135M by log-probabilities in both orders, a model too small to judge well: its
figures show what the bias report says of such a judge. Beside it, the verdicts that come with the set: PandaLM-7B's and
GPT-3.5's, each asked in one order, so that flips cannot be known.

usage: python -m tests.bench.judge [PAIRS]    PAIRS drawn by a seed (all 999 without), with the reports as tables
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.training.engines.local import TransformersEngine
from gristmill.verifiers.agreement.coefficients import fleiss_kappa
from gristmill.verifiers.judge.bias import Bias, padding, report, table
from gristmill.verifiers.judge.calibration import calibration_error, cross_fitted, platt
from gristmill.verifiers.judge.verify import pairwise
from gristmill.verifiers.verdict import Verdict
from tests.smollm2 import folder

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
PREFERENCE = {"1": 1.0, "2": 0.0, "0": 0.5, "Tie": 0.5}
PEERS = {
    "PandaLM-7B": ("pandalm-7b-judge.json", "pandalm_result"),
    "gpt-3.5-turbo": ("pandalm-gpt35-judge.json", "gpt_result"),
}


def pairs() -> list[dict[str, Any]]:
    """The 999 pairs; `human` is what two of three annotators say."""
    rows = []
    for item in json.loads((DATA / "pref/pandalm-testset-v1-3annotators.json").read_text()):
        (said, votes), *_ = Counter(item[f"annotator{k}"] for k in (1, 2, 3)).most_common(1)
        first, _, second = item["cmp_key"].partition("_")
        rows.append(
            {
                "prompt": f"{item['instruction']}\n\n{item['input']}".strip(),
                "response": str(item["response1"]),  # one of them is the boolean true
                "against": str(item["response2"]),
                "human": PREFERENCE[str(said)] if votes > 1 else None,
                "model": first,
                "against_model": second,
                "raters": [item[f"annotator{k}"] for k in (1, 2, 3)],
            }
        )
    return rows


def told(name: str, chosen: Sequence[int]) -> list[Verdict]:
    """A judge's verdicts that come with the set; what is neither a choice nor a tie was not judged."""
    file, key = PEERS[name]
    items = json.loads((DATA / "pref" / file).read_text())
    scores = [PREFERENCE.get(str(items[i][key])) for i in chosen]
    return [
        Verdict(None, "unreadable") if score is None else Verdict(score, "told", {"orders": [score]})
        for score in scores
    ]


def judging(most: int | None = None, tables: bool = False) -> Iterator[dict[str, Any]]:
    """One line per judge, and one for the probe with filler."""
    everything = pairs()
    chosen = sorted(random.Random(0).sample(range(len(everything)), most)) if most else list(range(len(everything)))
    rows = [everything[i] for i in chosen]
    engine = TransformersEngine(folder(), dtype="bfloat16")  # three times the speed of float32 on these cores
    judge = pairwise(engine, by="logprobs")
    judge.rows(rows[:2])  # the first call is slower than all others
    clock = time.perf_counter()
    verdicts = judge.rows(rows)
    seconds = time.perf_counter() - clock
    probe = padding(engine, rows[:30], by="logprobs")
    found = report(rows, verdicts, padded=probe)
    if tables:
        print(table(found), file=sys.stderr)
    asked = sum("orders" in verdict.evidence for verdict in verdicts)
    yield {
        "measure": "SmolLM2-135M (bfloat16) by log-probabilities, both orders",
        **_figures(found), **_calibration(rows, verdicts),
        "pairs_per_s": round(asked / seconds, 2), "seconds": round(seconds, 1),
        "raters_fleiss_kappa": round(fleiss_kappa([row["raters"] for row in rows]), 4),
    }  # fmt: skip
    for name in PEERS:
        other = report(rows, told(name, chosen), judge_model="llama-7b" if name == "PandaLM-7B" else None)
        if tables:
            print(name, table(other), sep="\n", file=sys.stderr)
        yield {"measure": f"{name}, as published, one order", **_figures(other)}


def _figures(found: Bias) -> dict[str, Any]:
    shares = {
        key: [round(share.value, 3), round(share.low or 0.0, 3), round(share.high or 0.0, 3)]
        for key, share in found.shares.items()
        if share.value is not None
    }
    slope = found.length_slope.value
    return {
        "pairs": found.rows, "unjudged": found.rows - found.judged,
        "kappa": None if found.kappa is None else round(found.kappa, 3), **shares,
        "length_slope": None if slope is None else round(slope, 3),
        **({} if found.padded is None or found.padded.value is None else {"padded_wins": round(found.padded.value, 3)}),
    }  # fmt: skip


def _calibration(rows: Sequence[dict[str, Any]], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The expected calibration error against people, as it comes and cross-fitted by Platt's curve."""
    known = [
        (verdict.score, row["human"])
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.score is not None and row["human"] is not None
    ]
    scores, labels = (np.array(column, dtype=float).tolist() for column in zip(*known, strict=True))
    fitted = cross_fitted(platt, scores, labels)
    return {
        "ece": round(calibration_error(scores, labels), 3),
        "ece_platt": round(calibration_error(fitted, labels), 3),
    }


if __name__ == "__main__":
    for line in judging(int(sys.argv[1]) if len(sys.argv) > 1 else None, tables=True):
        print(json.dumps(line), flush=True)
