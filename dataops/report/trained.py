"""The numbers of a checkpoint's page: what it was made of and how, how training went, what was measured and judged.

All is read from manifests, the metrics beside the weights, evaluations and judgements of these weights under the same
root. The law: what is gone is named as gone, and figures that were not asked alike are not set side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fileio import is_remote
from gristmill.dataops.gates.record import is_model, promotions, state_of
from gristmill.dataops.gates.sides import evaluations_of, measured, stage_of, start_of
from gristmill.dataops.report.curves import curves
from gristmill.dataops.store import Store

_ELSEWHERE = ("validation", "loss_curve", "versions", "cursor")  # of the stats: told in another place, or no figures
_SETTINGS = 400  # that are listed


def trained(dataset: Dataset) -> dict[str, Any]:
    """All that the page shows. Raises InputError where the dataset is no checkpoint."""
    if dataset.kind != "checkpoint":
        raise InputError(f"{dataset.name} holds {dataset.kind}, and is no checkpoint")
    manifest = dataset.manifest
    stats, made = manifest["stats"], manifest["made"]
    store = None if is_remote(dataset.path) else Store(Path(dataset.root))
    model = is_model(dataset)
    judged = state_of(store, dataset) if model and store is not None else None
    parent, parent_gone = _parent(dataset) if model else (None, None)
    return {
        "dataset": {
            "name": dataset.name, "key": dataset.key, "digest": dataset.digest, "at": made.get("at"),
            "seconds": made.get("seconds"), "reproducible": manifest["reproducible"], "op": stage_of(dataset),
            "version": manifest["ops"][-1]["version"] if manifest["ops"] else None,
            "bytes": sum(entry["bytes"] for entry in manifest["files"]), "model": model,
        },
        "parent": None if parent is None else _named(parent),
        "parent_gone": parent_gone,
        "curves": curves(dataset),
        "held_out": _held_out(stats.get("validation")),
        "figures": _figures({name: value for name, value in stats.items() if name not in _ELSEWHERE}),
        "settings": [
            {"op": op["name"], "name": name, "value": value}
            for op in manifest["ops"]
            for name, value in _figures(op["params"]).items()
        ][:_SETTINGS],
        "made": {
            name: value for name, value in _figures(made).items() if name not in ("at", "seconds")
        },
        "inputs": _inputs(dataset),
        "lineage": _lineage(dataset),
        "state": None if judged is None else judged.as_row(),
        "verdicts": [] if judged is None or judged.judgement is None else _verdicts(judged.judgement),
        "promotions": [] if store is None else [
            {"key": item.manifest["stats"]["model"]["key"], "at": item.manifest["made"].get("at")}
            for item in promotions(store, dataset.name)
        ],
        "evaluations": [] if store is None else [_named(item) for item in evaluations_of(store, dataset)],
        "measures": [] if store is None or not model else _measures(store, dataset, parent),
        "files": [
            {"file": entry["file"], "bytes": entry["bytes"], "sha256": entry["sha256"]} for entry in manifest["files"]
        ],
    }  # fmt: skip


def _parent(dataset: Dataset) -> tuple[Dataset | None, str | None]:
    """The model that training started from, or why that cannot be told."""
    try:
        return start_of(dataset), None
    except InputError as error:
        return None, str(error).split(", so ")[0]


def _held_out(validation: Any) -> list[dict[str, Any]]:
    """Each number of each held-out dataset after training, and before it where that was measured."""
    found = validation.items() if isinstance(validation, Mapping) else ()
    return [{"data": name, **row} for name, told in found for row in _sides(told, "")]


def _sides(told: Any, path: str) -> list[dict[str, Any]]:
    """Measures on both sides of training, wherever `before` and `after` stand; a bare number is a loss after it."""
    if isinstance(told, Mapping) and told and not {"before", "after", "value"} & told.keys():
        return [row for name, inner in told.items() for row in _sides(inner, f"{path}{name}/")]
    told = told if isinstance(told, Mapping) and "value" not in told else {"after": told}
    name = path.rstrip("/") or "loss"
    before, after = (
        _measures_of({name: side}) if _is_leaf(side) else _measures_of(side, path)
        for side in (told.get("before"), told.get("after"))
    )
    rest = {key: value for key, value in told.items() if key not in ("before", "after", "change")}
    after |= {key: value for key, value in _measures_of(rest, path).items() if key not in after}
    return [
        {"measure": key, "before": before.get(key), "after": after.get(key)} for key in dict.fromkeys([*after, *before])
    ]


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, Mapping) or "value" in value


def _measures_of(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Numbers by name, a measure with an interval as it is."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and "value" in value:
            found[f"{path}{name}"] = {end: _finite(value.get(end)) for end in ("value", "low", "high")}
        elif isinstance(value, Mapping):
            found |= _measures_of(value, f"{path}{name}/")
        elif _finite(value) is not None:
            found[f"{path}{name}"] = {"value": _finite(value), "low": None, "high": None}
    return found


def _figures(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Everything in it by its path; lists as they are."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= _figures(value, f"{path}{name}.")
        else:
            found[f"{path}{name}"] = value
    return found


def _inputs(dataset: Dataset) -> list[dict[str, Any]]:
    """What it was made of, by the manifest, with what is still there of it."""
    out = []
    for number, entry in enumerate(dataset.manifest["inputs"]):
        told = {name: entry[name] for name in ("name", "key", "digest")}
        try:
            item = dataset.input(number)
            told |= {"kind": item.kind, "op": stage_of(item), "rows": item.rows, "gone": False,
                     "tokens": item.manifest["stats"].get("tokens")}  # fmt: skip
        except InputError:
            told |= {"kind": None, "op": None, "rows": None, "gone": True, "tokens": None}
        out.append(told)
    return out


def _lineage(dataset: Dataset) -> list[dict[str, Any]]:
    """All that went into it, nearest first, each once."""
    out: list[dict[str, Any]] = []
    seen: set[str] = {dataset.key}
    edge = [dataset]
    while edge:
        item = edge.pop(0)
        for number, entry in enumerate(item.manifest["inputs"]):
            if entry["key"] in seen:
                continue
            seen.add(entry["key"])
            told = {"name": entry["name"], "key": entry["key"], "digest": entry["digest"], "for": item.name}
            try:
                source = item.input(number)
                edge.append(source)
                ops = [op["name"] for op in source.manifest["ops"]]
                told |= {"kind": source.kind, "ops": ops, "rows": source.rows, "gone": False,
                         "at": source.manifest["made"].get("at")}  # fmt: skip
            except InputError:
                told |= {"kind": None, "ops": [], "rows": None, "gone": True, "at": None}
            out.append(told)
    return out


def _verdicts(judgement: Dataset) -> list[dict[str, Any]]:
    """The rows of a judgement, what blocks first."""
    rows = [row for batch in judgement.batches() for row in batch.to_pylist()]
    for row in rows:
        row["id"] = row["id"].hex()
    return sorted(rows, key=lambda row: (row["passed"] is not False, row["passed"] is None))


def _measures(store: Store, dataset: Dataset, parent: Dataset | None) -> list[dict[str, Any]]:
    """Measures of these weights, with the parent's where they were asked alike."""
    before = {} if parent is None else measured(store, parent)
    out = []
    for name, entry in sorted(measured(store, dataset).items()):
        then = before.get(name)
        alike = then is not None and then["asked"] == entry["asked"]
        told = {end: _finite(entry.get(end)) for end in ("value", "low", "high", "n")}
        out.append({"measure": name, **told, "parent": _finite(then.get("value")) if then and alike else None})
    return out


def _named(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "key": dataset.key, "digest": dataset.digest,
            "at": dataset.manifest["made"].get("at")}  # fmt: skip


def _finite(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 and math.isfinite(value) else None
