"""Pretraining: packed datasets in, one checkpoint out.

    python -m gristmill.training.pretrain --spec spec.json

The spec says everything that makes the model: the data by path, digest and weight, the shape or the checkpoint to go on
from, the batches, the budget, the optimiser, the seed. Where it runs is no part of it: float32 on a CPU, bfloat16
autocast on a GPU where there is one. Progress goes to stderr, one JSON object with the result to stdout. Exit 0:
published (or published before). 2: the spec or the data is refused. 143: stopped by SIGTERM.

The laws kept here: a checkpoint appears whole, by one rename, or not at all; a spec whose checkpoint stands is not
trained again; a run that was stopped, by SIGTERM or any other way, goes on from its last state, and on one CPU ends in
the bytes it would have ended in. Not covered: several devices.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Read when torch loads. Threads that spin while they wait for each other triple a step's time on cores that are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from transformers import PreTrainedModel

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, recipe_key, write_json
from gristmill.training import state
from gristmill.training.checkpoint import building, load_model, save_model, versions
from gristmill.training.loop import Budget, Kept, Metrics, Stopped, mean_loss, optimizer_of, train
from gristmill.training.model import Shape, build, configuration
from gristmill.training.plan import shape as plan_shape
from gristmill.training.plan.chips import chip
from gristmill.training.plan.flops import token_flops
from gristmill.training.plan.shape import read_config
from gristmill.training.schedule import Optimiser
from gristmill.training.shards import Shards
from gristmill.training.spec import Input, check_fields, check_name, open_input, read_spec
from gristmill.training.stream import Stream

OP, VERSION = "pretrain", 2
PLACES = ("data", "start", "validation", "root", "name", "save_seconds")  # not identity: digests enter as inputs
ENDS = 10  # steps at either end whose mean loss is told
CURVE = 200  # points of the loss curve at most
VALIDATION_ROWS = 256  # of each validation dataset, its first


@dataclass(frozen=True)
class Source(Input):
    """A packed dataset and its weight: its share of the rows, so of the tokens."""

    weight: float = 1.0


@dataclass(frozen=True)
class PretrainSpec:
    """What to train; the checkpoint is published as root/name/key. The budget is `steps`, or else about `seconds` of
    wall time (one of the two is given). `rows` in a step, taken in `accumulate` equal pieces.

    Weights are fresh, of `model` and `seed`, or those of the checkpoint `start` (then without `model`): a new schedule
    warms up again, and a source of the old data with a small weight is a replay against forgetting. The loss on every
    dataset of `validation` is told at the end. The state is kept every `save_seconds`.
    """

    data: tuple[Source, ...]
    root: str
    name: str = "base"
    model: Shape | None = None
    start: Input | None = None
    validation: tuple[Input, ...] = ()
    rows: int = 4
    accumulate: int = 1
    steps: int | None = None
    seconds: float | None = None
    optimiser: Optimiser = field(default_factory=Optimiser)
    seed: int = 0
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be trained with."""
        check_fields(self)
        check_name(self.name)
        if not self.data:
            raise InputError("spec: data names no dataset")
        if (self.steps is None) == (self.seconds is None):
            raise InputError("spec: give the budget as steps or as seconds, one of the two")
        for name in ("rows", "accumulate", "steps", "seconds", "save_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"spec: {name} is {value!r}; it must be above 0")
        if self.rows % self.accumulate:
            raise InputError(f"spec: {self.rows} rows do not divide into {self.accumulate} pieces")
        if self.model is not None and self.start is not None:
            raise InputError("spec: model is the shape of fresh weights; leave it out where start names a checkpoint")
        if not 0 <= self.seed < 1 << 63:
            raise InputError("spec: 0 <= seed < 2**63 must hold")

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the checkpoint's manifest."""
        params = {k: v for k, v in dataclasses.asdict(self).items() if k not in PLACES}
        weights = [source.weight for source in self.data]
        return {"name": OP, "version": VERSION, "params": params | {"weights": weights, "continued": bool(self.start)}}


def run(spec: PretrainSpec) -> Dataset:
    """Train and publish the checkpoint, or take the one that stands. Raises InputError where the data is refused,
    Stopped where SIGTERM came."""
    sources = [open_input(source.path, source.digest) for source in spec.data]
    before = None if spec.start is None else open_input(spec.start.path, spec.start.digest)
    held = [open_input(item.path, item.digest) for item in spec.validation]
    inputs = [*sources, *([] if before is None else [before]), *held]
    key = recipe_key([spec.identity], [item.digest for item in inputs])
    final = Path(spec.root) / spec.name / key[:12]
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not trained again", file=sys.stderr)
        return Dataset.load(final)
    stream = Stream([Shards(item) for item in sources], rows=spec.rows, seed=spec.seed, weights=_weights(spec))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(spec, before, stream.sources[0])
    model.to(device)  # type: ignore[arg-type]  # transformers wraps it and loses the signature
    parameters = sum(p.numel() for p in model.parameters())
    rows = sum(shards.rows for shards in stream.sources)
    print(
        f"{parameters:,} parameters on {device}, {rows:,} rows of {stream.sources[0].seq_len:,} tokens", file=sys.stderr
    )
    optimizer = optimizer_of(model, spec.optimiser)
    saved = state.place(spec.root, spec.name, key)
    kept = Kept.read(state.load_state(saved, model, optimizer), stream.sources[0].vocab_size)
    if kept.step:
        print(f"going on at step {kept.step:,} from {saved}", file=sys.stderr)
    kept = _train(spec, model, optimizer, stream, kept, saved)
    with building(spec.root, spec.name) as folder:
        curve = _curve(kept.metrics)
        lines = [json.dumps(dataclasses.asdict(item) | {"cursor": item.cursor.step}) for item in kept.metrics]
        (folder / "files" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        write_json(folder / "files" / "loss_curve.json", curve)
        save_model(model, folder / "files")
        made = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(kept.seconds, 3),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        shape = read_config(folder / "files" / "config.json")
        made |= speed(shape, stream.sources[0].seq_len, kept.tokens / kept.seconds, str(made["device"]))
        first, last = kept.metrics[:ENDS], kept.metrics[-ENDS:]
        stats = {
            "first_loss": sum(m.loss for m in first) / len(first),
            "last_loss": sum(m.loss for m in last) / len(last),
            "unigram_entropy": last[-1].unigram_entropy,
            "tokens": last[-1].tokens,
            "steps": last[-1].step,
            "skipped": kept.watch.skipped,
            "epochs": stream.epochs(last[-1].step),
            "cursor": dataclasses.asdict(last[-1].cursor),
            "validation": {
                f"{item.name}:{item.digest[:12]}": mean_loss(model, Shards(item), VALIDATION_ROWS) for item in held
            },
            "parameters": parameters,
            "seed": spec.seed,
            "data": sources[0].digest if len(sources) == 1 else [item.digest for item in sources],
            "loss_curve": curve,
            **{name: made[name] for name in ("seconds", "device", "versions")},
        }
        # On a CPU the same steps give the same bytes with the same versions, threads and processor; a clock never does.
        reproducible = spec.steps is not None and device.type == "cpu"
        published = publish_files(
            spec.root, spec.name, folder,
            ops=[spec.identity], inputs=inputs, made=made, stats=stats, reproducible=reproducible,
        )  # fmt: skip
    saved.unlink(missing_ok=True)
    return published


def speed(shape: plan_shape.Shape, seq_len: int, tokens_per_second: float, device: str) -> dict[str, Any]:
    """Tokens (padding not counted) and FLOPs a second, and the share of the device's published peak that these are,
    attention counted as by Chowdhery et al. (2022, appendix B); None for a device whose peak is not known."""
    flops = sum(token_flops(shape, seq_len).values()) * tokens_per_second
    try:
        mfu = flops / chip(device).peak
    except InputError:
        mfu = None
    return {"tokens_per_second": tokens_per_second, "flops_per_second": flops, "mfu": mfu}


def _weights(spec: PretrainSpec) -> list[float]:
    return [source.weight for source in spec.data]


def _model(spec: PretrainSpec, before: Dataset | None, shards: Shards) -> PreTrainedModel:
    """Fresh weights, or those of a checkpoint. Raises InputError where these do not fit the data."""
    if before is None:
        shape = Shape() if spec.model is None else spec.model
        return build(configuration(shape, shards.vocab_size, seq_len=shards.seq_len, eod=shards.eod), spec.seed)
    model = load_model(before).float()
    if model.config.vocab_size != shards.vocab_size:
        raise InputError(
            f"{before.path} has a vocabulary of {model.config.vocab_size}, the data one of {shards.vocab_size}: "
            "encode the data with the checkpoint's own tokenizer"
        )
    if model.config.max_position_embeddings < shards.seq_len:
        raise InputError(
            f"{before.path} was made for {model.config.max_position_embeddings} positions, rows have {shards.seq_len}: "
            "pack shorter rows"
        )
    return model


def _train(
    spec: PretrainSpec,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    kept: Kept,
    saved: Path,
) -> Kept:
    """All steps that are left, a line of progress about every second, the state every `save_seconds` and at SIGTERM."""
    stopping: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    told = written = time.monotonic()
    tokens, started = kept.tokens, told
    try:
        for metrics in train(
            model, optimizer, stream, spec.optimiser, Budget(spec.steps, spec.seconds), kept, spec.accumulate
        ):
            now = time.monotonic()
            if now - told >= 1 or metrics.step == 1:
                told = now
                speed = (metrics.tokens - tokens) / (now - started)
                print(_line(spec, metrics, kept, speed), file=sys.stderr, flush=True)
            if stopping or now - written >= spec.save_seconds:
                state.save_state(saved, model, optimizer, kept.as_json())
                written = now
            if stopping:
                raise Stopped(f"stopped at step {metrics.step:,}; the same spec goes on from there")
    finally:
        signal.signal(signal.SIGTERM, before)
    return kept


def _line(spec: PretrainSpec, metrics: Metrics, kept: Kept, speed: float) -> str:
    of = f"/{spec.steps}" if spec.steps is not None else ""
    used = f"{kept.seconds:.0f} s" + (f" of {spec.seconds:g} s" if spec.seconds is not None else "")
    left_out = f"  {kept.watch.skipped} steps left out" if kept.watch.skipped else ""
    return f"step {metrics.step}{of}  loss {metrics.loss:.4f}  {speed:,.0f} tokens/s  {used}{left_out}"


def _curve(steps: list[Metrics]) -> dict[str, list[float]]:
    """The metrics as at most CURVE points to draw: means of the loss over runs of steps, and where each run ends."""
    runs = np.array_split(np.arange(len(steps)), min(len(steps), CURVE))
    return {
        "step": [steps[run[-1]].step for run in runs],
        "tokens": [steps[run[-1]].tokens for run in runs],
        "loss": [float(np.mean([steps[i].loss for i in run])) for run in runs],
        "unigram_entropy": [steps[run[-1]].unigram_entropy for run in runs],
    }


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gristmill.training.pretrain", description="Pretrain on packed tokens."
    )
    parser.add_argument("--spec", required=True, help="a JSON file with the fields of PretrainSpec")
    try:
        checkpoint = run(read_spec(parser.parse_args(argv).spec, PretrainSpec))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 143
    told = ("first_loss", "last_loss", "unigram_entropy", "steps", "tokens", "seconds")
    stats = {name: checkpoint.manifest["stats"][name] for name in told}
    print(json.dumps({"path": os.fspath(checkpoint.path), "key": checkpoint.key, "digest": checkpoint.digest, **stats}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
