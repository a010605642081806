"""Pretraining: packed datasets in, one checkpoint out.

    python -m gristmill.training.pretrain --spec spec.json
    torchrun --nproc-per-node 8 -m gristmill.training.pretrain --spec spec.json

The spec says everything that makes the model: the data by path, digest and weight, the shape or the checkpoint to go on
from, the batches, the budget, the optimiser, the seed. Where and how it runs is no part of that: float32 on CPUs,
bfloat16 autocast on GPUs, one process or several.

The laws kept here: a checkpoint appears whole, by one rename, or not at all; a spec whose checkpoint stands is not
trained again; the loss does not depend, but for rounding, on the number of processes; a run that was stopped, by
SIGTERM or any other way, goes on from its last state with as many processes, and alone on a CPU ends in the bytes it
would have ended in. Not covered: a number of processes that changes during a run.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.training.step import Stopped, main  # isort: skip  # before torch: it sets how torch waits

import torch
from transformers import PreTrainedModel

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, write_json
from gristmill.training import state
from gristmill.training.checkpoint import building, load_model, save_model, versions
from gristmill.training.model import Objective, Shape, build, configuration
from gristmill.training.plan.flops import STAGES
from gristmill.training.plan.memory import loss_bytes, row_bytes, states
from gristmill.training.plan.shape import read_config
from gristmill.training.pretraining.loop import Budget, Kept, curve, line, mean_loss, optimizer_of, speed, train
from gristmill.training.pretraining.parallel import Peers, joined, spread, whole
from gristmill.training.pretraining.spec import RUNNING, Opened, PretrainSpec
from gristmill.training.shards import Shards
from gristmill.training.stream import Stream

ENDS = 10  # steps at either end whose mean loss is told
VALIDATION_ROWS = 256  # of each validation dataset, its first


def run(spec: PretrainSpec) -> Dataset:
    """Train and publish the checkpoint, or take the one that stands. Raises InputError where the data is refused,
    Stopped where SIGTERM came."""
    with joined() as peers:
        return _run(spec, peers)


def _run(spec: PretrainSpec, peers: Peers) -> Dataset:
    opened = Opened.of(spec)
    final = Path(spec.root) / spec.name / opened.key[:12]
    if any(peers.any((final / MANIFEST).exists())):
        _say(peers, f"{final} stands already: not trained again")
        return Dataset.load(final)
    if spec.rows % (spec.accumulate * peers.world.size):
        raise InputError(
            f"spec: {spec.rows} rows do not divide among {peers.world.size} processes in {spec.accumulate} pieces"
        )
    weights = [source.weight for source in spec.data]
    stream = Stream(opened.shards, rows=spec.rows, seed=spec.seed, weights=weights, world=peers.world)
    model = _model(spec, opened)
    config, parameters = model.config, sum(p.numel() for p in model.parameters())
    objective = Objective(model, checkpointing=spec.checkpointing, compiled=spec.compile)
    module = spread(objective, spec.parallel, peers)
    rows, first = sum(shards.rows for shards in opened.shards), opened.shards[0]
    _say(peers, f"{parameters:,} parameters on {peers.world.size} x {peers.device.type}, {rows:,} rows of "
                f"{first.seq_len:,} tokens")  # fmt: skip
    optimizer = optimizer_of(module, spec.optimiser)
    saved = state.place(spec.root, spec.name, opened.key)
    kept = Kept.read(state.load_state(saved, objective, optimizer), first.vocab_size)
    if kept.step:
        _say(peers, f"going on at step {kept.step:,} from {saved}")

    def save() -> None:
        state.save_state(saved, objective, optimizer, kept.as_json(), peers)

    _train(spec, module, optimizer, stream, kept, save, peers)
    losses = {
        f"{item.name}:{item.digest[:12]}": mean_loss(objective, Shards(item), VALIDATION_ROWS) for item in opened.held
    }
    trained = whole(model.state_dict(), peers.first)
    if peers.first:
        if spec.parallel == "fsdp" and peers.world.size > 1:
            model = build(config, spec.seed)
            model.load_state_dict(trained)
        stats = _stats(spec, opened, kept, stream) | {"validation": losses, "parameters": parameters}
        _publish(spec, opened, model, kept, stats, peers)
        saved.unlink(missing_ok=True)
    peers.wait()
    return Dataset.load(final)


def dry(spec: PretrainSpec) -> dict[str, Any]:
    """What `run` would take: tokens, steps or seconds, and bytes of memory of each process by plan/memory.py, which
    counts mixed precision; on a CPU activations are up to twice as much."""
    with joined() as peers:
        opened = Opened.of(spec)
        seq_len, size = opened.shards[0].seq_len, peers.world.size
        with tempfile.TemporaryDirectory() as folder:
            config = _fresh(spec, opened.shards[0]) if opened.before is None else _model(spec, opened).config
            config.save_pretrained(folder)
            shape = read_config(Path(folder) / "config.json")
        rows = spec.rows // size // spec.accumulate
        memory = states(shape.parameters, size, spec.parallel, "autocast")
        memory["activations"] = rows * row_bytes(shape, seq_len, STAGES["pretrain"], spec.checkpointing, "autocast")
        memory["loss"] = loss_bytes(shape, STAGES["pretrain"], rows * seq_len)
        told = {name: round(value) for name, value in memory.items()}
        return {
            "parameters": shape.parameters,
            "tokens_per_step": spec.rows * seq_len,
            "steps": spec.steps,
            "seconds": spec.seconds,
            "processes": size,
            "memory": {**told, "total": sum(told.values())},
        }


def _stats(spec: PretrainSpec, opened: Opened, kept: Kept, stream: Stream) -> dict[str, Any]:
    """What the manifest tells of the run that is the same wherever it runs."""
    first, last = kept.metrics[:ENDS], kept.metrics[-ENDS:]
    return {
        "first_loss": sum(m.loss for m in first) / len(first),
        "last_loss": sum(m.loss for m in last) / len(last),
        "unigram_entropy": last[-1].unigram_entropy,
        "tokens": last[-1].tokens,
        "steps": last[-1].step,
        "skipped": kept.watch.skipped,
        "epochs": stream.epochs(last[-1].step),
        "cursor": dataclasses.asdict(last[-1].cursor),
        "seed": spec.seed,
        "data": opened.sources[0].digest if len(opened.sources) == 1 else [item.digest for item in opened.sources],
        "tokenizer": opened.shards[0].tokenizer,
        "template": None if opened.before is None else opened.before.manifest["stats"].get("template"),
    }


def _publish(
    spec: PretrainSpec, opened: Opened, model: PreTrainedModel, kept: Kept, stats: dict[str, Any], peers: Peers
) -> None:
    """The checkpoint, with the metrics of every step beside the weights."""
    cpu, size = peers.device.type == "cpu", peers.world.size
    with building(spec.root, spec.name) as folder:
        lines = [json.dumps(dataclasses.asdict(item) | {"cursor": item.cursor.step}) for item in kept.metrics]
        (folder / "files" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
        write_json(folder / "files" / "loss_curve.json", curve(kept.metrics))
        save_model(model, folder / "files")
        made = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(kept.seconds, 3),
            "device": "cpu" if cpu else torch.cuda.get_device_name(peers.device),
            "processes": size,
            **{name: getattr(spec, name) for name in RUNNING},
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        shape = read_config(folder / "files" / "config.json")
        made |= speed(shape, opened.shards[0].seq_len, kept.tokens / kept.seconds, str(made["device"]), size)
        # On a CPU the same steps give the same bytes with the same versions, threads and processor; a clock never does,
        # nor do sums that are cut otherwise.
        publish_files(
            spec.root, spec.name, folder,
            ops=[spec.identity], inputs=opened.inputs, made=made,
            stats=stats | {name: made[name] for name in ("seconds", "device", "versions")},
            reproducible=spec.steps is not None and cpu and size == 1 and not spec.compile,
        )  # fmt: skip


def _model(spec: PretrainSpec, opened: Opened) -> PreTrainedModel:
    """Fresh weights, or those of a checkpoint. Raises InputError where these do not fit the data."""
    before, shards = opened.before, opened.shards[0]
    if before is None:
        return build(_fresh(spec, shards), spec.seed)
    known = before.manifest["stats"].get("tokenizer", shards.tokenizer)
    if known != shards.tokenizer:
        raise InputError(
            f"{before.path} was trained on tokenizer {known}, the data was encoded with {shards.tokenizer}: "
            "encode the data with the checkpoint's own tokenizer"
        )
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


def _fresh(spec: PretrainSpec, shards: Shards) -> Any:
    shape = Shape() if spec.model is None else spec.model
    return configuration(shape, shards.vocab_size, seq_len=shards.seq_len, eod=shards.eod)


def _train(
    spec: PretrainSpec,
    module: Any,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    kept: Kept,
    save: Callable[[], None],
    peers: Peers,
) -> None:
    """All steps that are left, a line of progress about every second, the state every `save_seconds` and where SIGTERM
    came to any process."""
    stopping: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    told = written = time.monotonic()
    tokens, started = kept.tokens, told
    budget = Budget(spec.steps, spec.seconds)
    try:
        for metrics in train(module, optimizer, stream, spec.optimiser, budget, kept, peers, spec.accumulate):
            now = time.monotonic()
            if peers.first and (now - told >= 1 or metrics.step == 1):
                told = now
                _say(peers, line(kept, budget, (metrics.tokens - tokens) / (now - started)))
            stopped, due = peers.any(bool(stopping), peers.first and now - written >= spec.save_seconds)
            if stopped or due:
                save()
                written = now
            if stopped:
                raise Stopped(f"stopped at step {metrics.step:,}; the same spec goes on from there")
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(peers: Peers, line: str) -> None:
    if peers.first:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(PretrainSpec, run, dry))
