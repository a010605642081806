"""Perplexity of a real model over real text, against the plain loop over documents.

The peer is how it is written by hand with transformers: one document at a time through the model, with its own loss.
Where the package lm_eval is installed, its `loglikelihood_rolling` reads the same documents too. Ours reads packed rows
with documents kept apart, and tells entropy besides. All in float32 on the same threads, in turns; the losses of all
must agree to a thousandth.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gristmill.training.evaluation.likelihood import Reader
from gristmill.training.evaluation.slices import read_slice
from tests.packed import pack
from tests.realdata import real
from tests.smollm2 import folder

DOCUMENTS, SEQ_LEN, TURNS = 8, 1024, 2


def perplexity() -> Iterator[dict[str, Any]]:
    """Tokens predicted per second, the best of two turns each."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = folder()
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    with real("text/lf-c4_demo.jsonl").open() as lines:
        texts = [json.loads(line)["text"] for line in lines][:DOCUMENTS]
    documents = [ids[:SEQ_LEN] for ids in tokenizer(texts).input_ids if len(ids) > 1]
    targets = sum(len(ids) - 1 for ids in documents)
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        packed = pack(Path(scratch), _rows(documents), seq_len=SEQ_LEN, vocab_size=len(tokenizer))
        reader = Reader(model)

        def ours() -> float:
            return float(read_slice("bench", packed, None, reader, None).sums.columns["loss"].sum())

        runs: dict[str, Callable[[], float]] = {"ours": ours, "plain loop": lambda: _loop(model, documents)}
        if importlib.util.find_spec("lm_eval") is not None:
            runs["lm_eval"] = _harness(model, tokenizer, [tokenizer.decode(ids) for ids in documents])
        best = dict.fromkeys(runs, float("inf"))
        for _ in range(TURNS):  # in turns, so that a busy moment does not hit one side alone
            for name, run in runs.items():
                started = time.perf_counter()
                losses[name] = run() / targets
                best[name] = min(best[name], time.perf_counter() - started)
    for peer in set(runs) - {"ours"}:
        ratio = round(best[peer] / best["ours"], 2)
        agree = peer == "lm_eval" or abs(losses[peer] - losses["ours"]) < 1e-3 * losses[peer]
        yield {
            "peer": f"{peer}, transformers", "measure": "tokens/s of perplexity", "tokens": targets,
            "ours": round(targets / best["ours"]), "peer_value": round(targets / best[peer]), "ratio": ratio,
            "loss": round(losses["ours"], 4), "peer_loss": round(losses[peer], 4), "bar": 1.0,
            "met": ratio >= 1.0 and agree,
        }  # fmt: skip


def _rows(documents: list[list[int]]) -> list[list[list[int]]]:
    """Documents into rows, each into the first that has room, the longest first."""
    rows: list[list[list[int]]] = []
    for ids in sorted(documents, key=len, reverse=True):
        place = next((row for row in rows if sum(map(len, row)) + len(ids) <= SEQ_LEN), None)
        if place is None:
            rows.append([ids])
        else:
            place.append(ids)
    return rows


@torch.no_grad()
def _loop(model: Any, documents: list[list[int]]) -> float:
    total = 0.0
    for ids in documents:
        tokens = torch.tensor([ids])
        total += model(input_ids=tokens, labels=tokens).loss.item() * (len(ids) - 1)
    return total


def _harness(model: Any, tokenizer: Any, texts: list[str]) -> Callable[[], float]:
    """lm_eval also predicts each document's first token, from its prefix token."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=SEQ_LEN)
    requests = [Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)]
    return lambda: -float(np.sum(wrapped.loglikelihood_rolling(requests, disable_tqdm=True)))
