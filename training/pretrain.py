"""Pretraining: one packed dataset in, one checkpoint out.

    python -m gristmill.training.pretrain --spec spec.json

The spec says everything that makes the model: the data by path and digest, its depth, the batches, the budget, the
schedule, the seed. Where it runs is no part of it: float32 on a CPU, bfloat16 autocast on a GPU where there is one.
Progress goes to stderr, one JSON object with the result to stdout. Exit 0: published (or published before). 2: the spec
or the data is refused. 143: stopped by SIGTERM.

The law kept here: a checkpoint appears whole, by one rename, or not at all; a spec whose checkpoint stands is not
trained again. Not covered: several devices, and going on from a stopped run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

# Read when torch loads. Threads that spin while they wait for each other triple a step's time on cores that are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from transformers import LlamaForCausalLM

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, recipe_key, write_json
from gristmill.training.checkpoint import building, save_model, versions
from gristmill.training.model import build, llama, logits, masked_cross_entropy
from gristmill.training.shards import IGNORED, Shards
from gristmill.training.stream import Cursor, Stream

OP, VERSION = "pretrain", 2
PLACES = ("data", "digest", "root", "name")  # of the spec, not of the identity: the digest enters as an input's
ENDS = 10  # steps at either end whose mean loss is told
CURVE = 200  # points of the loss curve at most


@dataclass(frozen=True)
class PretrainSpec:
    """What to train. `data` is the folder of a packed dataset and `digest` its digest; the checkpoint is published as
    root/name/key. The budget is `steps`, or else about `seconds` of wall time (one of the two is given).

    The learning rate rises from a tenth of `learning_rate` over the fraction `warmup` of the budget, and falls by a
    cosine to a tenth at its end. `rows` per step; `grad_clip` is the largest norm of a step's gradients.
    """

    data: str
    digest: str
    root: str
    name: str = "base"
    depth: int = 4
    rows: int = 4
    steps: int | None = None
    seconds: float | None = None
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be trained with."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), str(field.type)
            kinds = {"str": (str,), "int": (int,), "float": (int, float)}[kind.removesuffix(" | None")]
            if (value is not None or not kind.endswith("None")) and (
                not isinstance(value, kinds) or isinstance(value, bool)
            ):
                raise InputError(f"spec: {field.name} is {value!r}, not of type {kind}")
        if (self.steps is None) == (self.seconds is None):
            raise InputError("spec: give the budget as steps or as seconds, one of the two")
        for name in ("depth", "rows", "steps", "seconds", "learning_rate", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"spec: {name} is {value!r}; it must be above 0")
        if not 0 <= self.warmup < 1 or not 0 <= self.weight_decay < math.inf or not 0 <= self.seed < 1 << 63:
            raise InputError("spec: 0 <= warmup < 1, 0 <= weight_decay and 0 <= seed < 2**63 must hold")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise InputError(f"spec: name is {self.name!r}; it names a folder under root")

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the checkpoint's manifest."""
        params = {k: v for k, v in dataclasses.asdict(self).items() if k not in PLACES}
        return {"name": OP, "version": VERSION, "params": params}


@dataclass(frozen=True)
class Metrics:
    """After one step: its mean `loss` (nats per target) and the gradients' norm before clipping; `tokens` read so far
    (padding not counted); the `unigram_entropy` of the targets so far, in nats: the least loss of a model that knows
    only how frequent each token is; and the cursor that gives the next batch."""

    step: int
    tokens: int
    loss: float
    unigram_entropy: float
    grad_norm: float
    learning_rate: float
    cursor: Cursor


def read_spec(path: str | Path) -> PretrainSpec:
    """A spec from a JSON file. Raises InputError for what is no spec, naming the field."""
    try:
        values = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no spec can be read: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: a spec is a JSON object, this is a {type(values).__name__}")
    fields = dataclasses.fields(PretrainSpec)
    unknown = sorted(set(values) - {field.name for field in fields})
    missing = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in values]
    if unknown or missing:
        wrong = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(missing)
        raise InputError(f"{path}: fields {'; '.join(wrong)}; a spec has {', '.join(f.name for f in fields)}")
    return PretrainSpec(**values)


def schedule(done: float, warmup: float) -> float:
    """The factor on the learning rate when the fraction `done` of the budget is used (0 to 1)."""
    if done < warmup:
        return 0.1 + 0.9 * done / warmup
    rest = min((done - warmup) / (1 - warmup), 1.0)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * rest)) / 2


def pretrain(
    spec: PretrainSpec, model: LlamaForCausalLM, shards: Shards, clock: Callable[[], float] = time.monotonic
) -> Iterator[Metrics]:
    """One optimiser step per yield, on the model's device, until the budget is used; at least one step.

    Raises RuntimeError where a gradient is not finite.
    """
    device = model.device
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    gains = [p for p in model.parameters() if p.ndim < 2]  # of the norms: decay would pull them to zero
    groups = [{"params": matrices, "weight_decay": spec.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=spec.learning_rate, betas=(0.9, 0.95), fused=True)
    counts = np.zeros(shards.vocab_size, dtype=np.int64)
    tokens, done, started = 0, 0.0, clock()
    model.train()
    for batch, cursor in Stream([shards], rows=spec.rows, seed=spec.seed).read():
        tokens += int(batch.length.sum())
        counts += np.bincount(batch.labels[batch.labels != IGNORED].numpy(), minlength=len(counts))
        rate = spec.learning_rate * schedule(done, spec.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = batch.to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            predicted = logits(model, batch.tokens, batch.positions)
        loss = masked_cross_entropy(predicted, batch.labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), spec.grad_clip, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield Metrics(cursor.step, tokens, loss.item(), entropy(counts), norm.item(), rate, cursor)
        if spec.steps is not None:
            done = cursor.step / spec.steps
        else:
            assert spec.seconds is not None
            done = (clock() - started) / spec.seconds
        if done >= 1:
            return


def entropy(counts: np.ndarray) -> float:
    """Of a distribution given by counts, in nats; 0 where nothing was counted."""
    seen = counts[counts > 0]
    shares = seen / max(seen.sum(), 1)
    return float(-(shares * np.log(shares)).sum())


def run(spec: PretrainSpec) -> Dataset:
    """Train and publish the checkpoint, or take the one that stands. Raises InputError where the data is refused."""
    dataset = Dataset.load(spec.data)
    if dataset.digest != spec.digest:
        raise InputError(
            f"{spec.data} has digest {dataset.digest}, the spec was made for {spec.digest}: "
            "give the data it was made for, or put the new digest into the spec"
        )
    key = recipe_key([spec.identity], [dataset.digest])
    final = Path(spec.root) / spec.name / key[:12]
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not trained again", file=sys.stderr)
        return Dataset.load(final)
    shards = Shards(dataset)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(llama(shards.vocab_size, spec.depth, seq_len=shards.seq_len, eod=shards.eod), spec.seed)
    model.to(device)  # type: ignore[arg-type]  # transformers wraps it and loses the signature
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters on {device}, {shards.rows:,} rows of {shards.seq_len:,} tokens", file=sys.stderr)
    with building(spec.root, spec.name) as folder:
        started = time.monotonic()
        first, last = _train(spec, model, shards, folder / "files" / "metrics.jsonl")
        seconds = round(time.monotonic() - started, 3)
        curve = _curve(folder / "files" / "metrics.jsonl")
        write_json(folder / "files" / "loss_curve.json", curve)
        save_model(model, folder / "files")
        made = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": seconds,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        stats = {
            "first_loss": sum(m.loss for m in first) / len(first),
            "last_loss": sum(m.loss for m in last) / len(last),
            "unigram_entropy": last[-1].unigram_entropy,
            "tokens": last[-1].tokens,
            "steps": last[-1].step,
            "cursor": dataclasses.asdict(last[-1].cursor),
            "parameters": parameters,
            "seed": spec.seed,
            "data": dataset.digest,
            "loss_curve": curve,
            **{name: made[name] for name in ("seconds", "device", "versions")},
        }
        # On a CPU the same steps give the same bytes with the same versions, threads and processor; a clock never does.
        reproducible = spec.steps is not None and device.type == "cpu"
        return publish_files(
            spec.root, spec.name, folder,
            ops=[spec.identity], inputs=[dataset], made=made, stats=stats, reproducible=reproducible,
        )  # fmt: skip


def _train(
    spec: PretrainSpec, model: LlamaForCausalLM, shards: Shards, path: Path
) -> tuple[list[Metrics], deque[Metrics]]:
    """Run all steps: metrics into a file, a line of progress about every second; the steps at both ends."""
    first: list[Metrics] = []
    last: deque[Metrics] = deque(maxlen=ENDS)
    started = told = time.monotonic()
    with path.open("w") as file:
        for metrics in pretrain(spec, model, shards):
            # No times in here: what is published has the same bytes whenever it was trained.
            file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")
            if len(first) < ENDS:
                first.append(metrics)
            last.append(metrics)
            now = time.monotonic()
            if now - told >= 1 or metrics.step == 1:
                told = now
                of = f"/{spec.steps}" if spec.steps is not None else ""
                speed = metrics.tokens / (now - started)
                used = f"{now - started:.0f} s" + (f" of {spec.seconds:g} s" if spec.seconds is not None else "")
                line = f"step {metrics.step}{of}  loss {metrics.loss:.4f}  {speed:,.0f} tokens/s  {used}"
                print(line, file=sys.stderr, flush=True)
    return first, last


def _curve(path: Path) -> dict[str, list[float]]:
    """The metrics as at most CURVE points to draw: means of the loss over runs of steps, and where each run ends."""
    steps = [json.loads(line) for line in path.open()]
    runs = np.array_split(np.arange(len(steps)), min(len(steps), CURVE))
    return {
        "step": [steps[run[-1]]["step"] for run in runs],
        "tokens": [steps[run[-1]]["tokens"] for run in runs],
        "loss": [float(np.mean([steps[i]["loss"] for i in run])) for run in runs],
        "unigram_entropy": [steps[run[-1]]["unigram_entropy"] for run in runs],
    }


def _stop(number: int, frame: Any) -> NoReturn:
    """SIGTERM as an exception, so that what is being built is removed on the way out."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(143)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gristmill.training.pretrain", description="Pretrain on packed tokens."
    )
    parser.add_argument("--spec", required=True, help="a JSON file with the fields of PretrainSpec")
    try:
        checkpoint = run(read_spec(parser.parse_args(argv).spec))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    told = ("first_loss", "last_loss", "unigram_entropy", "steps", "tokens", "seconds")
    stats = {name: checkpoint.manifest["stats"][name] for name in told}
    print(json.dumps({"path": os.fspath(checkpoint.path), "key": checkpoint.key, "digest": checkpoint.digest, **stats}))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(main())
