"""Proximal policy optimisation: tasks, a checkpoint and scorers in, a checkpoint and its rollouts out.

    python -m gristmill.training.ppo --spec spec.json

In turns, the policy responds to tasks, what scores and the KL to the reference say becomes advantages (GAE), and some
epochs of clipped steps follow, for the policy and for a value model (Schulman et al. 2017; Ouyang et al. 2022). Every
response is published with its scores, reasons and log-probabilities, as a dataset that the checkpoint's manifest names.

The laws kept here: a response that could not be judged changes nothing; a run that was stopped, by SIGTERM or any other
way and also in the middle of an iteration, goes on from its last state, and on one CPU ends in the bytes it would have
ended in. Not covered: several devices, LoRA, a serving engine for the rollouts.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# First: it sets what torch reads when it loads.
from gristmill.training.step import Stopped, main  # isort: skip

import torch

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, publish_rows, write_json
from gristmill.training import state
from gristmill.training.checkpoint import building, save_model, versions
from gristmill.training.online.tasks import Tasks
from gristmill.training.plan.flops import STAGES, kv_bytes
from gristmill.training.plan.memory import row_bytes, states
from gristmill.training.plan.shape import read_config
from gristmill.training.pretraining.parallel import Peers, joined
from gristmill.training.proximal import judging, record
from gristmill.training.proximal.job import Job, Models, open_job, open_models, tasks_of
from gristmill.training.proximal.losses import adapted
from gristmill.training.proximal.measures import averages, curve, line, measured
from gristmill.training.proximal.models import optimizer_of
from gristmill.training.proximal.respond import asked, respond
from gristmill.training.proximal.settings import OP, ROLLOUTS, PPOSpec
from gristmill.training.proximal.update import Kept, targets, update


def run(spec: PPOSpec) -> Dataset:
    """Train and publish the checkpoint, or take the one that stands. Raises InputError where the spec or the data is
    refused, Stopped where SIGTERM came."""
    with joined() as peers:
        if peers.world.size > 1:
            raise InputError("PPO runs on one device: start one process (leave out --processes)")
        return _run(spec, peers)


def _run(spec: PPOSpec, peers: Peers) -> Dataset:
    job = open_job(spec)
    if (job.final / MANIFEST).exists():
        print(f"{job.final} stands already: not trained again", file=sys.stderr)
        return Dataset.load(job.final)
    judges = judging.open_judges(spec)
    for dataset in job.inputs[1:]:  # the first are the tasks, which are checked where they are opened
        dataset.check_files()
    tasks = tasks_of(job)
    given = open_models(job, peers.device)
    optimizer = optimizer_of(given.both, spec.optimiser, spec.value_optimiser)
    saved = state.place(spec.root, spec.name, job.key)
    kept = Kept.read(state.load_state(saved, given.both, optimizer), spec)
    if kept.iteration or kept.sampled:
        print(f"going on at iteration {kept.iteration + 1:,} from {saved}", file=sys.stderr)
    _train(job, given, optimizer, tasks, judges, kept, saved, peers)
    published = _publish(job, given, tasks, kept, saved)
    shutil.rmtree(_folder(saved), ignore_errors=True)
    saved.unlink(missing_ok=True)
    return published


def dry(spec: PPOSpec) -> dict[str, Any]:
    """What the run would need: counts, and bytes of memory by part. Weights, gradients and moments of policy and value
    model, frozen models as they are kept, and the larger of one piece's activations and the sampler's keys and values
    (training/plan/memory.py; on a CPU, where nothing is in bfloat16, activations take about twice as much)."""
    job = open_job(spec)
    judging.open_judges(spec)
    tasks = tasks_of(job)
    shape = read_config(Path(job.start.file("config.json")))
    cuda = torch.cuda.is_available()
    size = {name: 2 * part for name, part in states(float(shape.parameters), 1, "ddp", "autocast").items()}
    size["working"] = 2 * 2.0 * shape.parameters if cuda else 0.0
    size["frozen"] = (2.0 if cuda else 4.0) * shape.parameters * (2 if job.reward is not None else 1)
    longest = max(map(len, tasks.prompts)) + spec.max_new_tokens
    one = dataclasses.replace(STAGES["ppo"], trained=1)  # one after the other
    piece = max(longest, min(spec.batch_tokens, -(-spec.rollouts // spec.minibatches) * longest))
    batch = max(longest, min(spec.rollout_tokens, spec.rollouts * longest))
    activations = row_bytes(shape, piece, one, spec.checkpointing, "autocast")
    cache = float(kv_bytes(shape) * batch * (1 if cuda else 2))
    size["activations"] = max(activations, cache)
    memory = {name: round(part) for name, part in size.items()}
    responses = spec.iterations * spec.rollouts
    return {
        "parameters": shape.parameters,
        "iterations": spec.iterations,
        "steps": spec.steps,
        "responses": responses,
        "most_tokens": responses * longest,
        "prompts": len(tasks.prompts),
        "too_long": tasks.too_long,
        "epochs": responses / len(tasks.prompts),
        "memory": memory | {"total": sum(memory.values())},
        "standing": (job.final / MANIFEST).exists(),
    }


def _train(
    job: Job,
    given: Models,
    optimizer: torch.optim.Optimizer,
    tasks: Tasks,
    judges: Sequence[judging.Judge],
    kept: Kept,
    saved: Path,
    peers: Peers,
) -> None:
    """All iterations that are left. The state is kept every `save_seconds` and at SIGTERM, between tokens while
    sampling and between optimiser steps."""
    spec, folder = job.spec, _folder(saved)
    stopping: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    written = resumed = time.monotonic()
    trained = kept.seconds

    def keep() -> None:
        nonlocal written
        kept.seconds = trained + time.monotonic() - resumed
        state.save_state(saved, given.both, optimizer, kept.as_json(), peers)
        written = time.monotonic()

    def between() -> None:
        if stopping:
            keep()
            raise Stopped(f"stopped in iteration {kept.iteration + 1:,}; the same spec goes on from there")

    def after() -> None:
        if time.monotonic() - written >= spec.save_seconds:
            keep()
        between()

    try:
        while kept.iteration < spec.iterations:
            if kept.sampled:
                rollouts = record.read(
                    folder, kept.iteration, [tasks.row(int(i)) for i in asked(tasks, spec, kept.iteration)[0]]
                )
                wanted = targets(rollouts, spec, kept.coefficient)
            else:
                rollouts = respond(job, given, tasks, judges, kept.iteration, between)
                wanted = targets(rollouts, spec, kept.coefficient)
                record.write(folder, kept.iteration, rollouts, None if wanted is None else wanted.advantages)
                kept.sampled = True
                after()
            if wanted is not None:
                update(given.both, optimizer, wanted, spec, kept, after)
            told = measured(rollouts, wanted, spec, kept)
            kept.metrics.append(told)
            kept.tokens = told["tokens"]
            if wanted is not None:
                kept.coefficient = adapted(kept.coefficient, spec.kl, told["kl"], len(rollouts.judged))
            kept.unjudged = kept.unjudged + 1 if wanted is None else 0
            kept.iteration, kept.sampled, kept.done, kept.parts = kept.iteration + 1, False, 0, []
            print(line(spec, told, time.monotonic() - resumed), file=sys.stderr, flush=True)
            if kept.unjudged == judging.PATIENCE:
                kept.unjudged = 0
                keep()
                raise judging.give_up(rollouts.kinds)
            after()
        keep()
    finally:
        signal.signal(signal.SIGTERM, before)


def _folder(saved: Path) -> Path:
    """Where the rollouts of a run that goes on lie."""
    return saved.with_suffix(".rollouts")


def _publish(job: Job, given: Models, tasks: Tasks, kept: Kept, saved: Path) -> Dataset:
    """The rollouts, then the checkpoint that names them."""
    spec, reproducible = job.spec, given.device.type == "cpu"
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(kept.seconds, 3),
        "device": torch.cuda.get_device_name(given.device) if given.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    summary = averages(kept.metrics)
    chat = job.chat.stats
    engine = {
        "engine": "transformers",
        "temperature": spec.temperature,
        "versions": made["versions"],
    }
    with building(spec.root, f"{spec.name}-rollouts") as folder:
        rollouts = publish_rows(
            spec.root, f"{spec.name}-rollouts", folder, record.tables(_folder(saved), spec.iterations),
            ops=[spec.op(ROLLOUTS)], inputs=job.inputs, made=made,
            stats={**chat, **engine, **summary, "seed": spec.seed}, reproducible=reproducible,
        )  # fmt: skip
    with building(spec.root, spec.name) as folder:
        files = folder / "files"
        policy: Any = given.both["policy"]
        policy.generation_config.eos_token_id = job.chat.tokenizer.eos_token_id
        policy.generation_config.pad_token_id = job.chat.tokenizer.pad_token_id
        save_model(policy, files)
        job.chat.save(files)
        (files / "metrics.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in kept.metrics))
        write_json(files / "loss_curve.json", curve(kept.metrics))
        stats = {
            **chat,
            **summary,
            "steps": kept.steps,
            "skipped": {"policy": kept.policy_watch.skipped, "value": kept.value_watch.skipped},
            "coefficient": kept.coefficient,
            "too_long": tasks.too_long,
            "epochs": spec.iterations * spec.rollouts / len(tasks.prompts),
            "parameters": sum(p.numel() for p in policy.parameters()),
            "seed": spec.seed,
            "rollouts": {"name": rollouts.name, "key": rollouts.key, "digest": rollouts.digest},
            **{name: made[name] for name in ("seconds", "device", "versions")},
        }
        return publish_files(
            spec.root, spec.name, folder, ops=[spec.op(OP)], inputs=job.inputs, made=made, stats=stats,
            reproducible=reproducible,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(PPOSpec, run, dry))
