"""Reinforcement learning: tasks, a checkpoint and scorers in, a checkpoint that scores better and its rollouts out.

    python -m gristmill.training.rl --spec spec.json [--dry-run]

TRL samples, weighs and updates, by GRPO or RLOO; who judges is named in `rewards` (training/scoring.py): verifiers, and
models, which are inputs of the checkpoint like its tasks. Samples come from transformers, or from vLLM beside the
training or as a server. Every sample is published with its scores, reasons, log-probabilities and advantage as a
dataset of rows, `NAME-rollouts`, that the checkpoint's statistics name.

The laws kept here: a response that could not be judged gives no gradient and is no part of its group; the order of
tasks is a pure function of the spec; a run that was stopped goes on to the same bytes, and its rollouts are neither
lost nor doubled. Not covered: several processes, tools and turns after the first response, images.
"""

from __future__ import annotations

import dataclasses
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gristmill.training.step import main  # isort: skip  # sets the environment before torch loads

import json
import os
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError, publish_rows
from gristmill.training import checkpoint
from gristmill.training.online import rollouts
from gristmill.training.online.rewards import Outage, check_scorers, identity, judges, open_scorers
from gristmill.training.online.tasks import Tasks, open_tasks
from gristmill.training.plan.shape import read_config
from gristmill.training.post.data import epochs, plan
from gristmill.training.post.dry import needs
from gristmill.training.post.harness import Job, open_job
from gristmill.training.post.keep import whole_states
from gristmill.training.post.spec import PostSpec
from gristmill.training.schedule import Optimiser
from gristmill.training.scoring import Scorer

if TYPE_CHECKING:
    import datasets

OP, VERSION = "rl", 1
GRPO_ONLY = ("loss_type", "scale_rewards", "importance_sampling_level")


@dataclass(frozen=True)
class RlSpec(PostSpec):
    """A batch is `rows` tasks of `data` with `group` responses each, of at most `max_tokens` tokens at `temperature`;
    it is used for `iterations` steps. `beta` weighs the divergence from the start, in GRPO's loss or RLOO's reward.

    A ratio of probabilities is clipped to 1 - `epsilon` .. 1 + `epsilon_high` (None: `epsilon`); it differs from 1 only
    where `iterations` is above 1 or vLLM samples. `loss_type`, `scale_rewards` (what advantages are divided by) and
    `importance_sampling_level` are GRPO's and as in TRL. `mask_truncated`: a response cut at `max_tokens` gives no
    gradient. `vllm_url` is the server's, `vllm_memory` the share of the GPU's memory for vLLM beside the training.
    """

    name: str = "rl"
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-6, warmup=0.03, weight_decay=0.0))
    rewards: tuple[Scorer, ...] = ()
    method: Literal["grpo", "rloo"] = "grpo"
    group: int = 8
    max_tokens: int = 256
    temperature: float = 1.0
    iterations: int = 1
    beta: float = 0.0
    epsilon: float = 0.2
    epsilon_high: float | None = None
    loss_type: Literal["dapo", "grpo", "dr_grpo", "bnpo", "cispo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    importance_sampling_level: Literal["token", "sequence"] = "token"
    mask_truncated: bool = False
    vllm: Literal["none", "colocate", "server"] = "none"
    vllm_url: str = "http://127.0.0.1:8000"
    vllm_memory: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_scorers(self.rewards)
        if self.group < 2:
            raise InputError(f"spec: group is {self.group}; a response is compared with others to its task: 2 or more")
        for name in ("max_tokens", "temperature", "iterations", "epsilon"):
            if getattr(self, name) <= 0:
                raise InputError(f"spec: {name} is {getattr(self, name)!r}; it must be above 0")
        if self.beta < 0 or (self.epsilon_high is not None and self.epsilon_high <= 0):
            raise InputError("spec: beta from 0 on, epsilon_high above 0")
        if not 0 < self.vllm_memory < 1:
            raise InputError(f"spec: vllm_memory is {self.vllm_memory}; it is a share, between 0 and 1")
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        foreign = [name for name in GRPO_ONLY if self.method == "rloo" and getattr(self, name) != defaults[name]]
        if foreign:
            raise InputError(f"spec: {', '.join(foreign)} is GRPO's; leave it out for rloo")
        if self.lora is not None and self.lora.dropout:
            raise InputError("spec: lora.dropout would train another policy than the one that was sampled; leave it 0")

    @property
    def params(self) -> dict[str, Any]:
        """Without where a server listens, how a GPU is shared, and where the models that judge lie."""
        own = {name: value for name, value in super().params.items() if name not in ("vllm_url", "vllm_memory")}
        return own | {"rewards": identity(self.rewards)}


def run(spec: RlSpec) -> Dataset:
    """Train and publish, or take what stands. Raises InputError where something is refused, Outage (an OSError) where
    a scorer or the server is gone, Stopped at SIGTERM; what was trained until then is kept."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("rl runs in one process: leave out --processes")
    job = open_job(spec, OP, VERSION, judges(spec.rewards))
    if job.standing is not None:
        return job.standing
    scorings = open_scorers(spec.rewards)
    engine = _engine(job)
    tasks, held = _tasks(job)
    from gristmill.training.online import heldout
    from gristmill.training.online import trainer as traced

    trainer = _trainer(job, tasks)
    folder = job.folder / "rollouts"
    trainer.trace(traced.Setting(tasks, spec.rewards, scorings, folder, engine, spec.mask_truncated))

    def values() -> heldout.Values:
        return heldout.values(trainer, held, spec.rewards, scorings, spec.group)

    before = heldout.remembered(job.folder / "before.json", values)
    states = whole_states(job.folder)
    trainer.go_on(states[-1] if states else None)
    try:
        logged = job.fit(trainer)
    except (Outage, InputError):  # what can be put right; the same spec goes on
        trainer.keep()
        raise
    after = values()
    published = _publish_rollouts(job, engine)
    names = [item.name for item in tasks]
    weights = [source.weight for source in spec.data]
    stats = {
        "rollouts": {"name": published.name, "key": published.key, "digest": published.digest},
        "samples": published.rows,
        "unjudged": published.manifest["stats"]["unjudged"],
        "too_long": {item.name: item.too_long for item in [*tasks, *held]},
        "epochs": epochs([len(t.prompts) for t in tasks], weights, _batches(spec) * spec.rows, names),
        "validation": heldout.compare(before, after),
        "engine": engine,
    }
    return job.finish(trainer, logged, stats)


def dry(spec: RlSpec) -> Mapping[str, Any]:
    """Steps, responses and memory."""
    job = open_job(spec, OP, VERSION, judges(spec.rewards))
    _engine(job)
    tasks, held = _tasks(job)
    longest = max(len(ids) for item in tasks for ids in item.prompts) + spec.max_tokens
    answers = dataclasses.replace(job, spec=dataclasses.replace(spec, rows=spec.rows * spec.group))
    told = needs(answers, seq_len=longest, stage="grpo")
    if spec.beta and spec.lora is None:
        reference = round(4.0 * read_config(_config(job)).parameters)
        told["memory"] |= {"reference": reference, "total": told["memory"]["total"] + reference}
    samples = _batches(spec) * spec.rows * spec.group
    return told | {"samples": samples, "too_long": {item.name: item.too_long for item in [*tasks, *held]}}


def _config(job: Job) -> Path:
    path = Path(job.start.file("config.json"))
    if not path.is_file():
        raise InputError(f"{job.start.name} at {job.start.path} holds no model (config.json): start from a checkpoint")
    return path


def _tasks(job: Job) -> tuple[list[Tasks], list[Tasks]]:
    """The tasks to train on and those held out, with what was left out told on stderr."""
    spec = job.spec
    assert isinstance(spec, RlSpec)
    window = json.loads(_config(job).read_bytes()).get("max_position_embeddings") or sys.maxsize
    room = window - spec.max_tokens
    if room < 1:
        raise InputError(
            f"spec: max_tokens is {spec.max_tokens:,}, the model's window {window:,}: no room for a prompt"
        )
    tasks = [open_tasks(data, job.chat.tokenizer, room) for data in job.data]
    held = [open_tasks(data, job.chat.tokenizer, room) for data in job.validation]
    for item in (*tasks, *held):
        if item.too_long:
            print(f"{item.name}: {item.too_long:,} prompts of more than {room:,} tokens are left out", file=sys.stderr)
    return tasks, held


def _batches(spec: RlSpec) -> int:
    """How many batches of samples are drawn."""
    return -(-spec.steps // spec.iterations)


def _order(spec: RlSpec, tasks: Sequence[Tasks]) -> datasets.Dataset:
    """The tasks of the whole run, one after another, as TRL walks them."""
    import datasets

    counts, weights = [len(item.prompts) for item in tasks], [source.weight for source in spec.data]
    source, row = plan(counts, weights, spec.seed, _batches(spec) * spec.rows)
    prompts = [tasks[s].conversations[r] for s, r in zip(source.tolist(), row.tolist(), strict=True)]
    return datasets.Dataset(pa.table({"prompt": prompts, "source": source, "row": row}))


def _trainer(job: Job, tasks: Sequence[Tasks]) -> Any:
    from trl import GRPOConfig, RLOOConfig

    from gristmill.training.online import trainer as traced

    spec = job.spec
    assert isinstance(spec, RlSpec)
    kind, trainer = (GRPOConfig, traced.TracedGRPO) if spec.method == "grpo" else (RLOOConfig, traced.TracedRLOO)
    own: dict[str, Any] = {
        "per_device_train_batch_size": spec.rows * spec.group // spec.accumulate,
        "num_generations": spec.group,
        "num_generations_eval": 1,
        "max_completion_length": spec.max_tokens,
        "temperature": spec.temperature,
        "num_iterations": spec.iterations,
        "beta": spec.beta,
        "epsilon": spec.epsilon,
        "epsilon_high": spec.epsilon_high,
        "shuffle_dataset": False,
        "use_vllm": spec.vllm != "none",
        "vllm_mode": "colocate" if spec.vllm == "none" else spec.vllm,
        "vllm_server_base_url": spec.vllm_url if spec.vllm == "server" else None,
        "vllm_gpu_memory_utilization": spec.vllm_memory,
    }
    if spec.method == "grpo":
        own |= {name: getattr(spec, name) for name in GRPO_ONLY}
    model = job.model()
    return trainer(
        model=model,
        reward_funcs=traced.unused,
        args=job.arguments(lambda **common: kind(**(common | own))),  # type: ignore[arg-type]
        train_dataset=_order(spec, tasks),
        processing_class=job.chat.tokenizer,
        callbacks=[traced.LastState(spec.steps)],
        optimizers=job.optimizers(model),
    )


def _engine(job: Job) -> str:
    """Who samples, with its version. Raises InputError where vLLM is wanted and is not there, is one that TRL does not
    work with, or would not find a tokenizer."""
    spec = job.spec
    assert isinstance(spec, RlSpec)
    if spec.vllm == "none":
        return f"transformers {version('transformers')}"
    from trl.import_utils import is_vllm_available

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        there = is_vllm_available()
    if not there:
        raise InputError(f"spec: vllm is {spec.vllm!r}, but vLLM is not installed: install it, or leave `vllm` out")
    if told:
        raise InputError(f"spec: vllm is {spec.vllm!r}, but {told[0].message}")
    if job.chat.source.digest != job.start.digest:
        raise InputError(
            f"{job.start.name} at {job.start.path} has no tokenizer of its own, and vLLM reads the one beside the "
            "weights: start from a checkpoint that was trained to chat"
        )
    return f"vllm {version('vllm')} ({spec.vllm})"


def _publish_rollouts(job: Job, engine: str) -> Dataset:
    unjudged = 0
    rows = 0
    for table in rollouts.tables(job.folder / "rollouts"):
        unjudged += table["total"].null_count
        rows += table.num_rows
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": checkpoint.versions("trl", "peft", "accelerate"),
        "engine": engine,
    }
    op = {"name": rollouts.OP, "version": rollouts.VERSION, "params": job.op}
    with checkpoint.building(job.spec.root, f"{job.spec.name}-rollouts") as building:
        return publish_rows(
            job.spec.root, f"{job.spec.name}-rollouts", building, rollouts.tables(job.folder / "rollouts"),
            ops=[op], inputs=job.inputs, made=made, stats={"unjudged": unjudged}, reproducible=False,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(RlSpec, run, dry))
