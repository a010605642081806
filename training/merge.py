"""Merging: several checkpoints of one architecture in, one checkpoint out, without training.

    python -m gristmill.training.merge --spec spec.json [--dry-run]

Methods: linear (model soup), slerp, task_arithmetic, ties, dare, dare_ties; training/merging/methods.py says what each
computes and where it comes from. The tensors are read, merged and written in blocks: memory does not grow with the
model, only with cores and the number of models, by a few megabytes each. Command line and exit statuses are those of
every step (training/step.py).

The law kept here: equal models, weights and seed give equal bytes, whatever the order in which the models are listed,
their shards and the threads; a checkpoint appears whole, by one rename, or not at all. A merge takes minutes and is not
resumed: a stopped one is run again. Not covered: adapters, quantised models, and models of different shapes.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gristmill.training.step import main  # isort: skip  # before torch: it sets how torch waits

from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, is_remote, publish_files, recipe_key
from gristmill.training.checkpoint import building, versions
from gristmill.training.merging.match import COPIED, Candidate, check_configs, check_tensors, check_tokenizers
from gristmill.training.merging.stream import BLOCK, WORKERS, Part, merge_tensors
from gristmill.training.merging.tensors import Files, read_weights
from gristmill.training.merging.weights import weights_by_tensor
from gristmill.training.spec import Input, check_fields, check_name, open_input

OP, VERSION = "merge", 1
SHARES = ("linear", "slerp", "ties", "dare_ties")  # weights are taken relative to each other


@dataclass(frozen=True)
class Weighted:
    """A model to merge, a checkpoint by path and digest, and its weight: a number, or an object of name patterns with
    a number or a gradient of numbers over the layers each (training/merging/weights.py)."""

    path: str
    digest: str
    weight: float | dict[str, float | tuple[float, ...]] = 1.0

    def __post_init__(self) -> None:
        check_fields(self, "model")
        if isinstance(self.weight, dict) and any(isinstance(v, tuple) and len(v) < 2 for v in self.weight.values()):
            raise InputError("model: a gradient of weights has at least two numbers")

    @property
    def numbers(self) -> list[float]:
        """All numbers of the weight."""
        values = [self.weight] if isinstance(self.weight, float) else list(self.weight.values())
        return [n for value in values for n in (value if isinstance(value, tuple) else (value,))]

    @property
    def identity(self) -> Any:
        """The weight with its patterns in their order, which decides."""
        return self.weight if isinstance(self.weight, float) else [[k, v] for k, v in self.weight.items()]


@dataclass(frozen=True)
class MergeSpec:
    """What to merge; the checkpoint is published as root/name/key.

    `base` is what the models were trained from, for all methods but linear and slerp. The weights of task_arithmetic
    and dare multiply task vectors; those of the others are relative to each other, from 0 on (slerp goes to the second
    model's share of the way). `density` is the share of a task vector that ties and dare keep (for dare 1 - p), `scale`
    is the lambda of ties, `seed` draws for dare. Names, config, tokenizer, generation config and dtypes are those of
    the model `like` (its place in `models`), by default of the base, or else of the first model. Files of at most
    `shard_bytes` bytes.
    """

    method: Literal["linear", "slerp", "task_arithmetic", "ties", "dare", "dare_ties"]
    models: tuple[Weighted, ...]
    root: str
    base: Input | None = None
    density: float | None = None
    scale: float | None = None
    seed: int | None = None
    like: int | None = None
    shard_bytes: int = 5_000_000_000
    name: str = "merged"

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be merged with."""
        check_fields(self)
        check_name(self.name)
        wanted = {
            "base": self.method not in ("linear", "slerp"),
            "density": self.method in ("ties", "dare", "dare_ties"),
            "seed": self.method in ("dare", "dare_ties"),
        }
        for name, needed in wanted.items():
            if (getattr(self, name) is not None) != needed:
                raise InputError(f"spec: {self.method} {'needs' if needed else 'takes no'} {name}")
        if self.scale is not None and not self.method.endswith("ties"):
            raise InputError(f"spec: {self.method} takes no scale; use the weights")
        least = 1 if self.base is not None else 2
        if len(self.models) < least or (self.method == "slerp" and len(self.models) != 2):
            many = "two models" if self.method == "slerp" else f"at least {least} of models"
            raise InputError(f"spec: models has {len(self.models)}; {self.method} takes {many}")
        if self.density is not None and not 0 < self.density <= 1:
            raise InputError(f"spec: density is {self.density!r}; it is above 0 and at most 1")
        if self.method in SHARES and any(n < 0 for model in self.models for n in model.numbers):
            raise InputError(f"spec: {self.method} takes no weights below 0; task_arithmetic subtracts")
        if self.like is not None and not 0 <= self.like < len(self.models):
            raise InputError(f"spec: like is {self.like}; there are models 0 to {len(self.models) - 1}")
        if self.shard_bytes < 1 or (self.seed is not None and not 0 <= self.seed < 1 << 63):
            raise InputError("spec: shard_bytes is above 0 and 0 <= seed < 2**63")

    @property
    def ordered(self) -> tuple[Weighted, ...]:
        """The models by digest: their order in the spec is no part of what comes out, nor of its key."""
        return tuple(sorted(self.models, key=lambda model: (model.digest, json.dumps(model.identity))))

    @property
    def template(self) -> str:
        """The digest of the model that the merged one is like in all but the values."""
        if self.like is None and self.base is not None:
            return self.base.digest
        return self.models[self.like or 0].digest

    @property
    def inputs(self) -> list[Input]:
        """Everything that is read: the base, then the models in order."""
        return [*([self.base] if self.base else []), *(Input(model.path, model.digest) for model in self.ordered)]

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the checkpoint's manifest."""
        params = {
            "method": self.method,
            "weights": [model.identity for model in self.ordered],
            "like": self.template,
            "scale": 1.0 if self.scale is None else self.scale,
            **{name: getattr(self, name) for name in ("density", "seed", "shard_bytes")},
        }
        return {"name": OP, "version": VERSION, "params": params}


@dataclass(frozen=True)
class _Opened:
    """The models of a spec, whose architectures go together. `candidates` are by digest (equal models are the same
    files), first the one that the merged model is like, whose configuration `config` is."""

    inputs: list[Dataset]
    key: str
    config: dict[str, Any]
    candidates: dict[str, Candidate]

    @classmethod
    def of(cls, spec: MergeSpec) -> _Opened:
        inputs = [open_input(item.path, item.digest) for item in spec.inputs]
        for item in inputs:
            if item.kind != "checkpoint" or is_remote(item.path):
                what = "copy it to a local folder first" if is_remote(item.path) else f"it is a dataset of {item.kind}"
                raise InputError(f"{item.path} cannot be merged: {what}")
        folders = {item.digest: Path(item.path) / "files" for item in inputs}
        digests = [spec.template, *(digest for digest in folders if digest != spec.template)]
        config = check_configs([folders[digest] for digest in digests])
        for note in check_tokenizers([folders[digest] for digest in digests]):
            print(note, file=sys.stderr)
        candidates = {digest: Candidate(folders[digest], read_weights(folders[digest])) for digest in digests}
        return cls(inputs, recipe_key([spec.identity], [item.digest for item in inputs]), config, candidates)

    def names(self, files: Files) -> list[str]:
        """The tensors to merge, with all files of the models opened."""
        for path in {entry.path for model in self.candidates.values() for entry in model.tensors.values()}:
            files.open(path)
        return check_tensors(list(self.candidates.values()), files, tied=bool(self.config.get("tie_word_embeddings")))


def run(spec: MergeSpec) -> Dataset:
    """Merge and publish, or take the checkpoint that stands. Raises InputError where the models do not go together,
    DamagedError where one is not what its manifest says."""
    opened = _Opened.of(spec)
    final = Path(spec.root) / spec.name / opened.key[:12]
    if (final / MANIFEST).exists():
        print(f"{final} stands already: not merged again", file=sys.stderr)
        return Dataset.load(final)
    candidates = opened.candidates
    verify({item.digest: item for item in opened.inputs}.values())
    started = time.monotonic()
    with building(spec.root, spec.name) as folder, Files() as files:
        names = opened.names(files)
        parts = [Part(candidates[m.digest], _weights(spec, m, names)) for m in spec.ordered]
        if spec.base is None:
            for name in names:
                if not any(part.weights[name] for part in parts):
                    raise InputError(f"spec: {name} has the weight 0 in every model; give it one in some model")
        like = [candidates[spec.template].tensors[name] for name in names]
        base = None if spec.base is None else candidates[spec.base.digest]
        recipe = {name: getattr(spec, name) for name in ("density", "scale", "seed") if getattr(spec, name) is not None}
        counts = merge_tensors(
            folder / "files", like, base, parts, files, shard_bytes=spec.shard_bytes, method=spec.method, **recipe
        )
        template = candidates[spec.template].folder
        for name in COPIED:
            if (template / name).exists():
                shutil.copyfile(template / name, folder / "files" / name)
        made = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.monotonic() - started, 3),
            "device": "cpu",
            "versions": versions(),
        }
        known = next(item for item in opened.inputs if item.digest == spec.template).manifest["stats"]
        stats = {**counts, "method": spec.method, "models": len(parts)}
        stats |= {
            name: known[name] for name in ("tokenizer", "template", "vocab_size", "eod", "eos", "pad") if name in known
        }
        return publish_files(
            spec.root, spec.name, folder, ops=[spec.identity], inputs=opened.inputs, made=made, stats=stats
        )


def dry(spec: MergeSpec) -> dict[str, Any]:
    """What `run` would write, and bytes of memory: of every model and of the result a block of float32 per thread, and
    as many read ahead."""
    opened = _Opened.of(spec)
    with Files() as files:
        like = opened.candidates[spec.template].tensors
        entries = [like[name] for name in opened.names(files)]
    threads = min(len(os.sched_getaffinity(0)), WORKERS)
    blocks = 2 * threads * (len(opened.candidates) + 1) * BLOCK * 4
    return {
        "method": spec.method,
        "models": len(spec.models),
        "tensors": len(entries),
        "parameters": sum(entry.size for entry in entries),
        "bytes": sum(entry.bytes for entry in entries),
        "memory": {"blocks": blocks, "total": blocks},
    }


def verify(checkpoints: Iterable[Dataset]) -> None:
    """Hold every file of some checkpoints to its SHA-256, all at once. Raises DamagedError naming one that differs."""
    datasets = list(checkpoints)
    size = sum(entry["bytes"] for dataset in datasets for entry in dataset.manifest["files"])
    print(f"checking {size / 1e6:,.0f} MB of input", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 16)) as pool:
        for _ in pool.map(Dataset.check_files, datasets):
            pass


def _weights(spec: MergeSpec, model: Weighted, names: list[str]) -> dict[str, float]:
    place = next(n for n, listed in enumerate(spec.models) if listed is model)
    return weights_by_tensor(model.weight, names, f"spec: models[{place}].weight")


if __name__ == "__main__":
    sys.exit(main(MergeSpec, run, dry))
