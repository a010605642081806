"""Evaluation: a checkpoint, held-out text and tasks in; measures with intervals and every scored response out.

    python -m gristmill.training.evaluate --spec spec.json [--dry-run]

Slices of held-out text give perplexity, entropy and KL to a reference; held-out pairs, how many the model tells apart;
tasks give what their scorers say (pass@1,
pass@k, maj@k), win rates by a judge, and what the texts show by themselves: diversity, length, refusals, openers. The
modules of training/evaluation/ say what each is. The result is a dataset: a row per response and per held-out row, and
`stats["measures"]`: {"<slice or task>/<measure>": {"value", "low", "high", "n"}}.

The laws kept here: on one CPU an evaluation gives the same rows and measures again, in whatever order data stands; one
that stands is not run again; nothing unjudged counts as wrong. Float32 on a CPU, bfloat16 on a GPU. Not covered:
several devices, models whose responses come from a server.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.training.step import main  # isort: skip  # sets the environment before torch loads

import torch

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_rows, recipe_key
from gristmill.training.chat import Chat, chat_of
from gristmill.training.checkpoint import building, load_model, versions
from gristmill.training.engines.prompts import Prompts
from gristmill.training.engines.settings import open_engine
from gristmill.training.evaluation import comparing, harness, pairs, record, slices, tasks
from gristmill.training.evaluation.asking import Asked, ask, encoded, ended, likelihoods, read_task, score
from gristmill.training.evaluation.intervals import Measure
from gristmill.training.evaluation.likelihood import Reader
from gristmill.training.evaluation.needs import config_of, needs
from gristmill.training.evaluation.spec import HARNESS, EvaluateSpec, Task
from gristmill.training.merge import verify
from gristmill.training.scoring import Score, open_scorer
from gristmill.training.shards import Shards
from gristmill.training.spec import open_input


@dataclass(frozen=True)
class Opened:
    """The inputs of a spec, checked against each other; `reads`: the reference is of the model's tokenizer, so that
    both can be asked about the same tokens."""

    model: Dataset
    reference: Dataset | None
    parent: Dataset | None
    chat: Chat | None
    reference_chat: Chat | None
    slices: list[Dataset]
    pairs: list[Dataset]
    tasks: list[Dataset]
    inputs: list[Dataset]
    reads: bool


def run(spec: EvaluateSpec) -> Dataset:
    """Evaluate and publish, or take what stands. Raises InputError where model and data do not fit, DamagedError where
    a model is not what its manifest says."""
    opened = open_spec(spec)
    external = harness.files(spec.lm_eval)
    key = recipe_key([spec.identity], [*external, *(item.digest for item in opened.inputs)])
    final = Path(spec.root) / spec.name / key[:12]
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not evaluated again", file=sys.stderr)
        return Dataset.load(final)
    verify([item for item in (opened.model, opened.reference) if item is not None])
    started = time.monotonic()
    asked = _answers(spec, opened.model, opened.chat, spec.tasks, opened.tasks)
    compared = {comparison.task for comparison in spec.comparisons}
    again = [(task, data) for task, data in zip(spec.tasks, opened.tasks, strict=True) if task.name in compared]
    theirs = {}
    if opened.reference is not None and again:
        theirs = _answers(spec, opened.reference, opened.reference_chat, *zip(*again, strict=True))
    model = Reader(_loaded(opened.model))
    reference = None if opened.reference is None or not opened.reads else Reader(_loaded(opened.reference))
    measures, rows, stats = _measured(spec, opened, asked, theirs, model, reference)
    device = model.device
    if spec.lm_eval:
        assert opened.chat is not None
        found = harness.run(spec.lm_eval, model.model, opened.chat.tokenizer, spec.lm_eval_limit, spec.seed)
        measures |= _under(HARNESS, found)
    if opened.parent is not None:
        changed, notes = comparing.changes(spec, rows, opened.parent)
        measures |= changed
        stats["notes"] += notes
    for note in stats["notes"]:
        print(note, file=sys.stderr)
    made = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(time.monotonic() - started, 3),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": versions(*(["lm_eval"] if spec.lm_eval else [])),
    }
    stats = {
        "measures": {name: measures[name].as_json() for name in sorted(measures)},
        "model": _named(opened.model),
        "reference": None if opened.reference is None else _named(opened.reference),
        "parent": None if opened.parent is None else _named(opened.parent),
        "tokenizer": opened.model.manifest["stats"].get("tokenizer"),
        "template": None if opened.chat is None else opened.chat.template,
        **stats,
    }
    with building(spec.root, spec.name) as folder:
        return publish_rows(
            spec.root, spec.name, folder, [record.table(rows)],
            ops=[spec.identity], inputs=opened.inputs, external=external, made=made, stats=stats,
            reproducible=device.type == "cpu" and not spec.lm_eval,
        )  # fmt: skip


def dry(spec: EvaluateSpec) -> Mapping[str, Any]:
    """Tokens to read and to write, and memory; nothing is loaded."""
    opened = open_spec(spec)
    return needs(spec, opened.model, opened.reference, opened.slices, opened.pairs, opened.tasks)


def open_spec(spec: EvaluateSpec) -> Opened:
    """Open all that a spec names. Raises InputError naming what does not fit."""
    harness.check(spec.lm_eval)
    inputs = [open_input(item.path, item.digest) for item in spec.inputs]
    there = iter(inputs)
    model = next(there)
    reference = None if spec.reference is None else next(there)
    given = None if spec.tokenizer is None else next(there)
    parent = None if spec.parent is None else next(there)
    packed = [next(there) for _ in spec.slices]
    preferred = [next(there) for _ in spec.pairs]
    asked = list(there)
    if parent is not None:
        comparing.check_parent(parent)
    for which in (model, reference):
        if which is not None and which.kind != "checkpoint":
            raise InputError(f"{which.path} is a dataset of {which.kind}; what is evaluated is a checkpoint")
    chat = chat_of(model, given) if spec.pairs or spec.tasks or spec.lm_eval else None
    for item, data in zip(spec.slices, packed, strict=True):
        _check_slice(item.name, Shards(data), model)
    for task, data in zip(spec.tasks, asked, strict=True):
        read_task(task, data)
        if task.scorer is not None:
            open_scorer(task.scorer)
    for comparison in spec.comparisons:
        open_scorer(comparison.judge)
    reference_chat, reads = None, False
    if reference is not None:
        own, other = (item.manifest["stats"].get("tokenizer") for item in (model, reference))
        reads = own == other
        if not reads and not spec.comparisons:
            raise InputError(
                f"{reference.path} is of tokenizer {str(other)[:12]}, the model of {str(own)[:12]}: KL needs one "
                "tokenizer; take another reference, or compare responses"
            )
        if spec.comparisons:
            # A base model as reference speaks with the tokenizer that was given, if it is of that vocabulary.
            reference_chat = chat_of(reference, given if reads else None)
    return Opened(model, reference, parent, chat, reference_chat, packed, preferred, asked, inputs, reads)


def _check_slice(name: str, shards: Shards, model: Dataset) -> None:
    known, config = model.manifest["stats"].get("tokenizer"), config_of(model)
    window, entries = config.get("max_position_embeddings"), config.get("vocab_size", shards.vocab_size)
    if shards.vocab_size > entries:
        raise InputError(f"slice {name}: its vocabulary has {shards.vocab_size:,} tokens, the model's {entries:,}")
    if window is not None and shards.seq_len > window:
        raise InputError(
            f"slice {name}: rows have {shards.seq_len:,} tokens, the model's window is {window:,}: pack shorter rows"
        )
    if known is not None and known != shards.tokenizer:
        raise InputError(
            f"slice {name}: packed with tokenizer {shards.tokenizer[:12]}, the model's is {known[:12]}: encode it anew"
        )


def _loaded(dataset: Dataset) -> Any:
    """A model on its device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model: Any = load_model(dataset)
    return model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)


def _answers(
    spec: EvaluateSpec, model: Dataset, chat: Chat | None, tasks: Sequence[Task], data: Sequence[Dataset]
) -> dict[str, Asked]:
    """What a model responds to each task, by name; the engine is closed before anything else is loaded."""
    if not tasks:
        return {}
    assert chat is not None
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _link(Path(model.file("")), folder)
        if chat.source.digest != model.digest:  # a tokenizer that was given, beside the weights
            _link(Path(chat.source.file("")), folder)
        engine = open_engine(spec.engine, folder)
        try:
            return {task.name: ask(task, item, engine, spec.seed) for task, item in zip(tasks, data, strict=True)}
        finally:
            engine.close()


def _link(files: Path, folder: Path) -> None:
    """Links to files, over those that stand there."""
    for path in files.iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path.resolve())


def _measured(
    spec: EvaluateSpec,
    opened: Opened,
    answers: Mapping[str, Asked],
    theirs: Mapping[str, Asked],
    model: Reader,
    reference: Reader | None,
) -> tuple[dict[str, Measure], list[dict[str, Any]], dict[str, Any]]:
    """Measures by name, all rows, and what else is told."""
    measures: dict[str, Measure] = {}
    rows: list[dict[str, Any]] = []
    stats: dict[str, Any] = {"unjudged": {}, "openers": {}, "notes": []}
    if opened.reference is not None and reference is None:
        stats["notes"].append("the reference has another tokenizer: no KL, no change of loss")
    for item, data in zip(spec.slices, opened.slices, strict=True):
        told = slices.read_slice(item.name, data, item.limit, model, reference)
        measures |= _under(item.name, slices.measures(told, seed=spec.seed))
        rows += record.slice_rows(item.name, told)
    for chosen, data in zip(spec.pairs, opened.pairs, strict=True):
        assert opened.chat is not None
        apart = pairs.read_pairs(data, chosen.limit, model, opened.chat)
        measures |= _under(chosen.name, pairs.measures(apart, seed=spec.seed))
        rows += record.pair_rows(chosen.name, apart)
    judges = {comparison.task: comparison.judge for comparison in spec.comparisons}
    prompts = None if opened.chat is None else Prompts(opened.chat.source.file(""))
    for task in spec.tasks:
        assert prompts is not None
        asked = answers[task.name]
        rendered, ids = encoded(prompts, asked)
        sizes = [[None if tokens is None else len(tokens) for tokens in prompt] for prompt in ids]
        whole = ended(ids, asked.cut, prompts.tokenizer.eos_token_id)
        sums = likelihoods(rendered, whole, model, reference)
        found = tasks.style(task, asked, sizes, seed=spec.seed) | tasks.per_token(sums, seed=spec.seed)
        scores = compared = None
        if task.scorer is not None:
            scores = _scores(task, asked)
            found |= tasks.accuracy(task, asked.responses, scores, seed=spec.seed)
            stats["unjudged"][task.name] = tasks.reasons(scores)
        if task.name in judges:
            compared = comparing.compare(open_scorer(judges[task.name]), asked, theirs[task.name].responses)
            found |= comparing.comparison_measures(asked, compared, seed=spec.seed)
        stats["openers"][task.name] = tasks.commonest_opener(asked.responses)
        measures |= _under(task.name, found)
        rows += record.task_rows(task, asked, scores, sizes, sums, compared)
    return measures, rows, stats


def _scores(task: Task, asked: Asked) -> list[list[Score]]:
    """By prompt and sample."""
    assert task.scorer is not None
    rows = [row for row, prompt in zip(asked.rows, asked.responses, strict=True) for _ in prompt]
    flat = iter(score(open_scorer(task.scorer), rows, [text for prompt in asked.responses for text in prompt]))
    return [[next(flat) for _ in prompt] for prompt in asked.responses]


def _under(name: str, found: Mapping[str, Measure]) -> dict[str, Measure]:
    return {f"{name}/{measure}": value for measure, value in found.items()}


def _named(dataset: Dataset) -> dict[str, str]:
    return {"name": dataset.name, "key": dataset.key, "digest": dataset.digest}


if __name__ == "__main__":
    sys.exit(main(EvaluateSpec, run, dry))
