"""Pretraining on a GPU: attention and loss against the plain way, and the share of the chip's peak that a step uses."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from packed import chain, pack

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.model import Objective, Piece, Shape, build, configuration, logits, losses
from gristmill.training.plan.chips import chip
from gristmill.training.plan.shape import Shape as PlanShape
from gristmill.training.pretraining.attention import attend, boundaries
from gristmill.training.pretraining.loop import Budget, Kept, optimizer_of, speed, train
from gristmill.training.pretraining.parallel import Peers
from gristmill.training.schedule import Optimiser
from gristmill.training.shards import Shards
from gristmill.training.stream import Stream, World

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available()")
CUDA = torch.device("cuda", 0)
SEQ_LEN, VOCABULARY = 4096, 32_768
#: 407M parameters: heads of 128 in pairs that share keys, a wide SwiGLU and an output of its own.
ABOUT_400M = Shape(depth=24, width=1024, heads=8, kv_heads=4, hidden=3584, tied=False)


def documents(rows: int, seq_len: int) -> torch.Tensor:
    """Positions of rows cut into documents of very different lengths, one of them a single token."""
    rng = np.random.default_rng(0)
    positions = np.zeros((rows, seq_len), dtype=np.int64)
    for row in positions:
        cuts = np.sort(rng.choice(np.arange(2, seq_len), 6, replace=False))
        for start, stop in itertools.pairwise([0, 1, *cuts, seq_len]):
            row[start:stop] = np.arange(stop - start)
    return torch.from_numpy(positions)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(8, 8, 64), (8, 2, 64), (4, 2, 128)])
def test_attention_is_that_of_sdpa_with_a_mask(heads, kv_heads, width):
    """Forwards and backwards, against float32 scores under a mask of every pair of tokens."""
    torch.manual_seed(0)
    rows, length = 3, 300
    positions = documents(rows, length)
    ends, longest = boundaries(positions)
    numbers = (positions == 0).cumsum(1).to(CUDA)
    mask = (numbers[:, :, None] == numbers[:, None, :]).tril()[:, None]
    sizes = [(rows, heads, length, width), *[(rows, kv_heads, length, width)] * 2]
    parts = [torch.randn(size, device=CUDA).bfloat16().requires_grad_() for size in sizes]
    weight = torch.randn(rows, length, heads, width, device=CUDA)
    found, _ = attend(
        torch.nn.Module(), *parts, None, scaling=width**-0.5, cu_seq_lens_q=ends.to(CUDA), max_length_q=longest
    )
    exact = [part.detach().float().requires_grad_() for part in parts]
    right = F.scaled_dot_product_attention(*exact, attn_mask=mask, scale=width**-0.5, enable_gqa=True).transpose(1, 2)
    torch.testing.assert_close(found.float(), right, rtol=2e-2, atol=2e-2)
    (found.float() * weight).sum().backward()
    (right * weight).sum().backward()
    for part, other in zip(parts, exact, strict=True):
        assert (part.grad.float() - other.grad).norm() < 0.02 * other.grad.norm()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_are_those_of_the_plain_way(tmp_path, compiled, checkpointing):
    data = pack(tmp_path, chain(8, 256, 512), seq_len=256, vocab_size=512)
    batch = Shards(data).gather(np.arange(8))
    there = batch.to(CUDA)
    found = []
    for plain in (True, False):
        model = build(configuration(Shape(depth=4, kv_heads=2), 512), 0).to(CUDA).train()
        if plain:  # float32, transformers' mask, all logits at once
            loss, squares = losses(logits(model, there.tokens, there.positions), there.labels)
            total = loss + 1e-3 * squares
        else:
            objective = Objective(model, checkpointing=checkpointing, compiled=compiled)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                total, _ = objective(Piece.of(batch, CUDA), 1e-3)
        total.backward()
        found.append((total.item(), torch.cat([p.grad.float().flatten() for p in model.parameters()])))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-3)
    assert (found[1][1] - found[0][1]).norm() < 0.03 * found[0][1].norm()


def packed(folder: Path, rows: int) -> Dataset:
    """Web-like: documents of a few hundred tokens and some long ones."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(rows):
        lengths = np.clip(rng.lognormal(6.2, 1.1, 40).astype(int), 2, SEQ_LEN)
        ends = np.minimum(np.cumsum(lengths), SEQ_LEN)
        parts = np.diff(np.concatenate([[0], np.unique(ends)]))
        made.append([rng.integers(1, VOCABULARY, length).tolist() for length in parts])
    return pack(folder, made, seq_len=SEQ_LEN, vocab_size=VOCABULARY)


def test_the_share_of_the_peak(tmp_path, capsys):
    """The bar is 50 % on an H200, with attention counted over the full square as everywhere in plan; the figure is
    printed for any chip whose peak is known, beside the one that leaves attention out (6 FLOPs per parameter)."""
    rows, accumulate, warm, measured = 32, 2, 8, 16
    data = packed(tmp_path, 64)
    torch.cuda.reset_peak_memory_stats()
    peers = Peers(World(), CUDA)
    model = build(configuration(ABOUT_400M, VOCABULARY, seq_len=SEQ_LEN), 0).to(CUDA)
    parameters = sum(p.numel() for p in model.parameters())
    objective = Objective(model, compiled=True)
    settings, kept = Optimiser(warmup=0.0, learning_rate=1e-4), Kept.read(None, VOCABULARY)
    stream = Stream([Shards(data)], rows=rows, seed=0)
    budget = Budget(warm + measured, None)
    optimizer = optimizer_of(objective, settings)
    steps = train(objective, optimizer, stream, settings, budget, kept, peers, accumulate)
    clocks, tokens = [], []
    for metrics in steps:  # a yield stands behind the numbers of its step, so behind the device's work on it
        clocks.append(time.perf_counter())
        tokens.append(metrics.tokens)
    rate = (tokens[-1] - tokens[warm - 1]) / (clocks[-1] - clocks[warm - 1])
    shape = PlanShape(24, 1024, 8, 4, 128, 3584, VOCABULARY)
    assert shape.parameters == parameters
    name = torch.cuda.get_device_name(CUDA)
    told = speed(shape, SEQ_LEN, rate, name)
    read = _reading(stream, rows)
    without = None if told["mfu"] is None else told["mfu"] * 6 * parameters * rate / told["flops_per_second"]
    figures = {
        "device": name, "parameters": parameters, "tokens_per_second": round(rate), "mfu": told["mfu"],
        "mfu_without_attention": without,
        "gigabytes": round(torch.cuda.max_memory_allocated() / 1e9, 1), "read_tokens_per_second": round(read),
    }  # fmt: skip
    with capsys.disabled():
        print(f"\n{json.dumps(figures)}")
    assert kept.watch.skipped == 0 and kept.metrics[-1].loss < 1.1 * np.log(VOCABULARY)
    assert read > 5 * rate  # data never limits the step
    try:
        known = chip(name)
    except InputError:
        return
    if known.name == "h200":
        assert told["mfu"] >= 0.5


def _reading(stream: Stream, rows: int) -> float:
    """Tokens a second of the reader alone."""
    batches = stream.read()
    next(batches)
    started = time.perf_counter()
    for _ in range(8):
        next(batches)
    return 8 * rows * SEQ_LEN / (time.perf_counter() - started)


@pytest.mark.parametrize("more", [{}, {"compile": True, "checkpointing": True}])
def test_the_command_trains_on_a_gpu(tmp_path, more):
    data = pack(tmp_path, chain(96, 64, 32), seq_len=64, vocab_size=32)
    spec = {
        "data": [{"path": data.path, "digest": data.digest}], "root": str(tmp_path / "root"), "rows": 8, "steps": 120,
        "model": {"depth": 2}, "validation": [{"path": data.path, "digest": data.digest}], **more,
    }  # fmt: skip
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "gristmill.training.pretrain", "--spec", str(tmp_path / "spec.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["last_loss"] < 1.5 < told["first_loss"] and told["validation"].popitem()[1] < 1.5


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_gpus_learn_what_one_does(tmp_path, kind):
    data = pack(tmp_path, chain(96, 64, 32), seq_len=64, vocab_size=32)
    found = []
    for processes in (1, 2):
        root = tmp_path / f"root-{processes}"
        spec = {
            "data": [{"path": data.path, "digest": data.digest}], "root": str(root), "rows": 8, "steps": 40,
            "model": {"depth": 2}, "parallel": kind, "compile": True, "checkpointing": True,
        }  # fmt: skip
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        launch = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        command = [sys.executable, "-m", *launch, "gristmill.training.pretrain", "--spec", str(tmp_path / "spec.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        made = Dataset.load(json.loads(done.stdout)["path"])
        found.append(json.loads(Path(made.file("loss_curve.json")).read_text())["loss"])
    np.testing.assert_allclose(found[1], found[0], rtol=3e-2)
