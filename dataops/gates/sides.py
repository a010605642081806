"""What a checkpoint is held against: its own evaluations, its parent's, its origin's, and those that gates name.

The parent is the model that training started from: the first of a checkpoint's inputs with weights, reward models left
out. The origin is the last one on the way back. Of either, each measure is taken from the newest evaluation that has
it and asked it alike. The law: an evaluation speaks for the weights that it was made of (their digest) and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.gates.conditions import Gate
from gristmill.dataops.gates.judge import CHECKPOINT, Readings, meant, numbers_of
from gristmill.dataops.gates.record import is_model
from gristmill.dataops.store import Store

EVALUATE = "evaluate"


@dataclass(frozen=True)
class Sides:
    """What to judge: the stage, the model, what it is held against by name, and all that this was read from, each with
    the part that it plays."""

    stage: str
    model: Readings
    others: Mapping[str, Readings | None]
    held: tuple[tuple[str, Dataset], ...]


def stage_of(model: Dataset) -> str:
    """The op that made a checkpoint."""
    ops = model.manifest["ops"]
    return str(ops[-1]["name"]) if ops else ""


def start_of(model: Dataset) -> Dataset | None:
    """The model that a checkpoint started from; None where it was trained from scratch.

    Raises InputError where that cannot be told, because an input is gone.
    """
    gone = []
    for entry, number in zip(model.manifest["inputs"], range(len(model.manifest["inputs"])), strict=True):
        try:
            item = model.input(number)
        except InputError:
            gone.append(f"{entry['name']}:{entry['key'][:12]}")
            continue
        if is_model(item) and stage_of(item) != "reward":
            return item
    if gone:
        raise InputError(
            f"{_title(model)} was made of {', '.join(gone)}, which is gone, so its parent is not known: name an "
            "evaluation to hold it against with --parent-evaluation"
        )
    return None


def evaluations_of(store: Store, model: Dataset) -> list[Dataset]:
    """The evaluations of these very weights, newest first."""
    found = [item for item in store.all() if is_evaluation(item) and _speaks_for(item, model)]
    return sorted(found, key=lambda item: (str(item.manifest["made"].get("at", "")), item.key), reverse=True)


def measured(store: Store, model: Dataset) -> dict[str, Any]:
    """All measures of these weights, each from the newest evaluation that has it, with what was `asked`."""
    found: dict[str, Any] = {}
    for item in evaluations_of(store, model):
        found = {**_measures(item), **found}
    return found


def sides(
    store: Store,
    model: Dataset,
    gates: Sequence[Gate],
    evaluations: Sequence[Dataset] = (),
    parents: Sequence[Dataset] = (),
) -> Sides:
    """Everything that the gates look at. Without `evaluations` the model's newest is taken, without `parents` those of
    the model that it started from. Raises InputError for an evaluation that is none, or is of another model."""
    evaluations = evaluations or evaluations_of(store, model)[:1]
    for item in evaluations:
        _check(item)
        if not _speaks_for(item, model):
            of = item.manifest["stats"]["model"]
            raise InputError(f"{_title(item)} is of {of.get('name')}:{str(of.get('key'))[:12]}, not of {_title(model)}")
    stage = stage_of(model)
    gates = [gate for gate in gates if not gate.stages or stage in gate.stages]
    held = [("evaluation", item) for item in evaluations]
    ours = Readings(_title(model), {**_once(evaluations), **numbers_of(model.manifest["stats"])})
    others: dict[str, Readings | None] = {}
    for against in sorted({gate.against for gate in gates} - {"none"}):
        if against in ("parent", "origin") and not (against == "parent" and parents):
            other = _ancestor(model, against)
            others[against] = None
            if other is not None:
                patterns = [pattern for gate in gates if gate.against == against for pattern in gate.measures]
                measures, used = _newest(evaluations_of(store, other), patterns, ours)
                others[against] = Readings(_title(other), {**measures, **numbers_of(other.manifest["stats"])})
                held += [(against, other), *((f"{against} evaluation", item) for item in used)]
            continue
        named = list(parents) if against == "parent" else [store.get(against)]
        for item in named:
            _check(item)
            if item.manifest["stats"]["model"].get("key") == model.key:
                raise InputError(f"{_title(item)} is of {_title(model)} itself; held against itself anything passes")
        others[against] = Readings(" and ".join(_title(item) for item in named), _once(named))
        held += [("parent evaluation" if against == "parent" else against, item) for item in named]
    return Sides(stage, ours, others, _parts(held))


def _parts(held: Sequence[tuple[str, Dataset]]) -> tuple[tuple[str, Dataset], ...]:
    """Each dataset once, with all the parts that it plays."""
    roles: dict[str, list[str]] = {}
    for role, item in held:
        roles.setdefault(item.path, []).append(role)
    items = {item.path: item for _, item in held}
    return tuple((", ".join(dict.fromkeys(roles[path])), item) for path, item in items.items())


def _ancestor(model: Dataset, which: str) -> Dataset | None:
    """The model that this one started from, or the one at the beginning of all; None where there is none."""
    found = start_of(model)
    while which == "origin" and found is not None and (before := start_of(found)) is not None:
        found = before
    return found


def _newest(
    evaluations: Sequence[Dataset], patterns: Sequence[str], ours: Readings
) -> tuple[dict[str, Any], list[Dataset]]:
    """The measures that patterns speak of, and the evaluations that they are from: all of the newest evaluation; what
    it has not, or asked otherwise than ours, from the newest one that has it and asked it so."""
    measures: dict[str, Any] = {}
    source: dict[str, Dataset] = {}
    for item in evaluations:
        for name, entry in _measures(item).items():
            if not any(meant(pattern, name) for pattern in patterns):
                continue
            alike = name in ours.measures and entry["asked"] == ours.measures[name].get("asked")
            worse = name not in measures or measures[name]["asked"] != entry["asked"]
            if item is evaluations[0] or (alike and worse):
                measures[name], source[name] = entry, item
    return measures, [item for item in evaluations if item in source.values()]


def _once(evaluations: Sequence[Dataset]) -> dict[str, Any]:
    """All measures. Raises InputError where two evaluations have one."""
    measures: dict[str, Any] = {}
    for item in evaluations:
        found = _measures(item)
        if twice := sorted(measures.keys() & found.keys()):
            raise InputError(f"{_title(item)} has {twice[0]}, as another one that was named has: name one of the two")
        measures |= found
    return measures


def _measures(evaluation: Dataset) -> dict[str, Any]:
    """Measures with what was asked for each, as the evaluation's op has it: data, limits, sampling, scorer."""
    op = next(op for op in evaluation.manifest["ops"] if op["name"] == EVALUATE)
    parts = [part for kind in ("slices", "pairs", "tasks") for part in op["params"].get(kind, [])]
    asked = {part["name"]: part for part in parts}
    found = evaluation.manifest["stats"]["measures"]
    if reserved := [name for name in found if name.startswith(CHECKPOINT)]:
        raise InputError(f"{_title(evaluation)} has {reserved[0]}: names under {CHECKPOINT} are the checkpoint's own")
    return {
        name: {**(entry if isinstance(entry, dict) else {"value": entry}), "asked": asked.get(name.split("/")[0])}
        for name, entry in found.items()
    }


def is_evaluation(dataset: Dataset) -> bool:
    """Whether a dataset holds measures of a model."""
    stats = dataset.manifest.get("stats") or {}
    made = any(op["name"] == EVALUATE for op in dataset.manifest["ops"])
    return made and isinstance(stats.get("measures"), dict) and isinstance(stats.get("model"), dict)


def _check(dataset: Dataset) -> None:
    if not is_evaluation(dataset):
        raise InputError(f"{_title(dataset)} is no evaluation: `gristmill train evaluate` makes one")


def _speaks_for(evaluation: Dataset, model: Dataset) -> bool:
    return evaluation.manifest["stats"]["model"].get("digest") == model.digest


def _title(dataset: Dataset) -> str:
    return f"{dataset.name}:{dataset.key[:12]}"
