"""What a training step logged of every step, as curves short enough to draw.

A checkpoint's metrics.jsonl has a JSON object per step with `step` and numbers; where it has none, loss_curve.json has
means of the loss. Steps fall into at most POINTS runs; each has the mean of its values, the lowest and the highest, so
that a single spike among a million steps is still seen. The law: a value that is no finite number is counted and left
out, a line that cannot be read is counted, and neither is drawn as something else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.fileio import read_bytes
from gristmill.dataops.report.bins import tidy

POINTS = 240
_PLACES = ("step", "cursor", "epoch", "tokens", "num_tokens", "num_input_tokens_seen", "seconds")  # where, not how well


def curves(dataset: Dataset) -> dict[str, Any]:
    """`steps`; `series`, {name: {step, mean, low, high, least, last, not_finite}}; `left_out`, steps that were not
    taken; `unread`, lines that are no JSON object with a step."""
    files = {entry["file"] for entry in dataset.manifest["files"]}
    if "files/metrics.jsonl" in files:
        logged, unread = _lines(read_bytes(dataset.file("metrics.jsonl")))
    elif "files/loss_curve.json" in files:
        logged, unread = _drawn(read_bytes(dataset.file("loss_curve.json")))
    else:
        logged, unread = [], 0
    names = dict.fromkeys(name for line in logged for name in line if name not in _PLACES)
    steps = np.array([line["step"] for line in logged], dtype=np.float64)
    series = {}
    for name in names:
        values = np.array([_number(line.get(name)) for line in logged])
        there = np.array([_is_number(line.get(name)) for line in logged], dtype=bool)
        if there.any():
            series[name] = _series(steps[there], values[there])
    left_out = [line["step"] for line in logged if line.get("taken") is False]
    return {"steps": int(steps.max()) if len(steps) else 0, "series": series, "left_out": left_out, "unread": unread}


def _series(steps: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    """One number over all steps, in runs."""
    fine = np.isfinite(values)
    told: dict[str, Any] = {"step": [], "mean": [], "low": [], "high": [], "not_finite": int((~fine).sum())}
    steps, values = steps[fine], values[fine]
    for run in np.array_split(np.arange(len(steps)), min(len(steps), POINTS)) if len(steps) else []:
        told["step"].append(tidy(float(steps[run[-1]])))
        for name, value in (("mean", values[run].mean()), ("low", values[run].min()), ("high", values[run].max())):
            told[name].append(tidy(float(value)))
    told["least"] = tidy(float(values.min())) if len(values) else None
    told["last"] = told["mean"][-1] if told["mean"] else None
    return told


def _lines(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The lines with a step, in the order of their steps; numbers one level down are named NAME/NAME."""
    found, unread = [], 0
    for text in data.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if isinstance(line, dict) and _is_number(line.get("step")) and math.isfinite(line["step"]):
            found.append(_flat(line))
        elif text.strip():
            unread += 1
    return sorted(found, key=lambda line: line["step"]), unread


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    """Of a line, what can be drawn: its numbers, and those of objects in it."""
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, Mapping) and name not in _PLACES:
            flat |= {f"{name}/{inner}": number for inner, number in value.items() if _is_number(number)}
        elif _is_number(value) or name == "taken":
            flat[str(name)] = value
    return flat


def _drawn(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Means of the loss over runs of steps, {step: [...], loss: [...], ...}, as lines."""
    try:
        drawn = json.loads(data)
    except ValueError:
        return [], 1
    lists = (
        {name: values for name, values in drawn.items() if isinstance(values, list)} if isinstance(drawn, dict) else {}
    )
    if "step" not in lists:
        return [], 1
    rows = zip(*lists.values(), strict=False)
    return [line for row in rows if _is_number((line := dict(zip(lists, row, strict=True)))["step"])], 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> float:
    try:
        return float(value) if _is_number(value) else math.nan
    except OverflowError:
        return math.inf
