"""Where a trained model comes from, step by step: the rows that a step read, and the models and datasets before it.

Which rows a step read is a pure function of its manifest and its datasets (training/post/data.py), so nothing had to be
logged. The law: the rows told are those that the trainer was handed, in their order. What is not there any more is
named under `missing`. Not covered: steps that make their rows themselves, as `rl` does, whose rollouts are a dataset.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.flows import preferred
from gristmill.flows.commands.common import table
from gristmill.flows.models import is_model
from gristmill.flows.preferred import behind, inputs, named, row, version, version_line

#: Steps whose rows follow from their manifest, in the order of training/post/data.py.
PLANNED = ("preference", "reward", "sft")


def tells(model: Dataset) -> bool:
    """Whether a model is told by its steps: it learned preferences, or no pretraining stands before it here."""
    if model.manifest["ops"][-1]["name"] in ("preference", "reward"):
        return True
    here: Dataset | None = model
    while here is not None:
        if here.manifest["ops"][-1]["name"] == "pretrain":
            return False
        here = start(here)
    return True


def start(model: Dataset) -> Dataset | None:
    """The model that a model's training started from; None of fresh weights, and where it is gone."""
    return next((item for item in inputs(model)[0] if item is not None and is_model(item)), None)


def step(model: Dataset, number: int, which: int = 0) -> dict[str, Any]:
    """The story of training step `number` of a model, from 1 as its metrics count: the models from it on back, with the
    datasets of each; the rows that the step read, and the story of the `which`-th of them, from 0. Where the rows of a
    step do not follow from the manifest, `missing` says so. Raises InputError where there is no such step or row."""
    models, missing = _chain(model)
    story: dict[str, Any] = {**named(model), "models": models}
    op = model.manifest["ops"][-1]
    if op["name"] not in PLANNED:
        if rollouts := model.manifest.get("stats", {}).get("rollouts"):
            at = f"{model.name}-rollouts:{rollouts['key'][:12]}"
            missing.append(f"the rows of a step of {op['name']} are its rollouts: gristmill trace {at} ROW")
        else:
            missing.append(f"the rows of a step: {op['name']} has none that follow from its manifest")
        return story | {"missing": missing}
    steps = model.manifest["stats"]["steps"]
    if not 1 <= number <= steps:
        raise InputError(f"{model.name} was trained for steps 1 to {steps:,}; there is no step {number:,}")
    if not 0 <= which < op["params"]["rows"]:
        raise InputError(f"a step of {model.name} reads rows 0 to {op['params']['rows'] - 1:,}; not {which:,}")
    story |= {"step": number, "steps": steps}
    read = _read(model, number, missing)
    if read:
        story["rows"] = [{**named(item), "row": at} for item, at in read]
        story |= {"which": which, "first": row(*read[which])}
    return story | {"missing": missing}


def _read(model: Dataset, number: int, missing: list[str]) -> list[tuple[Dataset, int]]:
    """The rows that a step read, in their order; none where they cannot be told, with why in `missing`."""
    from gristmill.training.post.data import plan

    op, stats = model.manifest["ops"][-1], model.manifest["stats"]
    weights, rows = op["params"]["weights"], op["params"]["rows"]
    sources = [item for item in inputs(model)[0][: len(weights)] if item is not None]
    if len(sources) < len(weights):
        missing.append(f"the rows of step {number}: a dataset that {model.name} was trained on is gone")
        return []
    kept = [None if op["name"] == "sft" else _fitting(item, model) for item in sources]
    counts = [item.rows if fits is None else len(fits) for item, fits in zip(sources, kept, strict=True)]
    for item, count in zip(sources, counts, strict=True):
        if item.rows - count != stats.get("too_long", {}).get(f"{item.name}:{item.digest[:12]}", 0):
            missing.append(f"the rows of step {number}: other rows of {item.name} were left out than fit the model now")
            return []
    source, at = plan(counts, weights, op["params"]["seed"], number * rows)
    found = []
    for k, n in zip(source[-rows:].tolist(), at[-rows:].tolist(), strict=True):
        fits = kept[k]
        found.append((sources[k], n if fits is None else int(fits[n])))
    return found


def _fitting(dataset: Dataset, model: Dataset) -> np.ndarray:
    """The numbers of the rows that fit the model's window: what a step over preferences reads."""
    window = json.loads(Path(model.file("config.json")).read_text()).get("max_position_embeddings")
    frame = dataset.scan()
    sides = [side for side in ("chosen_ids", "rejected_ids", "completion_ids") if side in frame.collect_schema()]
    tokens = pl.col("prompt_ids").list.len() + pl.max_horizontal(pl.col(side).list.len() for side in sides)
    lengths = frame.select(tokens.alias("tokens")).collect()["tokens"].to_numpy()
    return np.arange(len(lengths)) if window is None else np.flatnonzero(lengths <= window)


def _chain(model: Dataset) -> tuple[list[dict[str, Any]], list[str]]:
    """A model, the one that its training started from, and so on, each with its datasets, of preferences also with what
    these were made from; and what is missing."""
    told: list[dict[str, Any]] = []
    missing: list[str] = []
    here: Dataset | None = model
    while here is not None:
        found, gone = inputs(here)
        weights = here.manifest["ops"][-1]["params"].get("weights")
        many = len(weights) if isinstance(weights, list) else len(found)
        data: dict[str, Dataset] = {}
        for item in found[:many]:
            if item is not None and item.base.kind in ("rows", "tokens"):
                others, lost = behind(item) if preferred.is_preferred(item) else ([], [])
                data |= {one.path: one for one in [item, *others] if one.base.kind in ("rows", "tokens")}
                gone += lost
        told.append({**version(here), "data": [version(item) for item in data.values()]})
        missing += [line for name in gone if (line := f"{name} is not under this root any more") not in missing]
        here = start(here)
    return told, missing


def told(story: dict[str, Any]) -> str:
    """As lines for a terminal."""
    found: list[list[str]] = []
    for item in story["models"]:
        found.append(["model", version_line(item)])
        found += [["", f"of {version_line(one)}"] for one in item["data"]]
    if "step" in story:
        found.append(["step", f"{story['step']:,} of {story['steps']:,}"])
    by: dict[str, list[str]] = {}
    for item in story.get("rows", []):
        by.setdefault(f"{item['dataset']}:{item['key'][:12]}", []).append(str(item["row"]))
    found += [["read", f"{name} rows {', '.join(rows)}"] for name, rows in by.items()]
    if "first" in story:
        held = {item["digest"] for one in story["models"] for item in one["data"]}
        made_from = [item for item in story["first"]["made_from"] if item["digest"] not in held]
        found.append(["", f"row {story['which']} of the step:"])
        found += preferred.lines(story["first"] | {"made_from": made_from})
    return table(found + [["missing", item] for item in story["missing"]])
