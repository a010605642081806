"""What came of an alignment: its result as plain data, and one page of it.

The law: everything on the page is in the result, and everything in the result stands in a manifest or the database.
Times of day are left out, so that the same alignment gives the same page, but for the seconds that it took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.preferences.standing import standing
from gristmill.flows.models import ancestry
from gristmill.flows.wheel.claims import Alignment, Verdict

if TYPE_CHECKING:
    from gristmill.flows.wheel.turn import Made

_SAID = {
    "promoted": "{model} is the promoted one now.",
    "blocked": "{start} stays the promoted one: what was trained did not pass.",
    "nothing": "{start} stays the promoted one: there was nothing to train on.",
}


def folder(root: Path, number: int) -> Path:
    """Where the page of an alignment stands."""
    return root / "reports" / f"align-{number}"


def result(
    root: Path,
    found: Alignment,
    made: Made,
    verdict: Verdict,
    now: Dataset,
    asked: Mapping[str, Any] | None,
    seconds: float,
) -> dict[str, Any]:
    """The result as JSON-able data: `measures` are {name: {before, after}}, each {value, low, high, n} or None."""
    last = made.stages[-1][1] if made.stages else None
    before = {} if made.before is None else made.before.manifest["stats"]["measures"]
    after = {} if last is None else last.evaluation.manifest["stats"]["measures"]
    names = sorted(before.keys() | after.keys())
    told = {
        "alignment": found.id,
        "queue": found.queue,
        "batches": [
            {"id": one.id, "number": one.number, "judgements": one.judgements, "dataset": one.dataset, "key": one.key}
            for one in found.batches
        ],
        "verdict": verdict,
        "reasons": list(made.reasons),
        "start": _named(made.start),
        "promoted": _named(now),
        "judgements": _judgements(found, made.sets),
        "data": [
            {"part": part, **_named(item), "rows": item.rows, "dropped": _dropped(item)}
            for part, item in made.sets.items()
        ],
        "stages": [
            {
                "step": step, "model": _named(stage.model), "evaluation": _named(stage.evaluation),
                "judgement": _named(stage.judgement), "verdict": stage.judgement.manifest["stats"]["verdict"],
                "seconds": round(stage.seconds, 1), "gates": _gates(stage.judgement),
            }
            for step, stage in made.stages
        ],
        "measures": {name: {"before": before.get(name), "after": after.get(name)} for name in names},
        "lineage": [_named(item) for item in ancestry(made.start if last is None else last.model)],
        "asked": None if asked is None else dict(asked),
        "seconds": round(seconds, 1),
        "report": str(folder(root, found.id) / "result.md"),
    }  # fmt: skip
    plain: dict[str, Any] = _finite(told)
    return plain


def write(root: Path, told: Mapping[str, Any]) -> Path:
    """The page, as a file in Markdown."""
    path = folder(root, told["alignment"]) / "result.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(told))
    return path


def markdown(told: Mapping[str, Any]) -> str:
    """The page."""
    start, now = _short(told["start"]), _short(told["promoted"])
    batches = ", ".join(f"{one['number']} ({one['judgements']:,} judgements)" for one in told["batches"])
    lines = [
        f"# Alignment {told['alignment']}: {told['verdict']}",
        _SAID[told["verdict"]].format(model=now, start=start),
        *(f"- {_cell(reason)}" for reason in told["reasons"]),
        "## Feedback",
        f"Queue {told['queue']}, batch{'es' * (len(told['batches']) > 1)} {batches}.",
        *_feedback(told["judgements"]),
    ]
    if told["data"]:
        rows = [
            [
                item["part"],
                _short(item),
                f"{item['rows']:,}",
                ", ".join(f"{why} {n:,}" for why, n in sorted(item["dropped"].items())),
            ]
            for item in told["data"]
        ]
        lines += ["## Data", _table(["", "dataset", "rows", "dropped"], rows)]
    if told["measures"]:
        rows = [
            [name, _measure(both["before"]), _measure(both["after"])] for name, both in sorted(told["measures"].items())
        ]
        lines += ["## Before and after", _table(["measure", start, _after(told)], rows)]
    for stage in told["stages"]:
        lines += [f"## Gates of {stage['step']}: {_short(stage['model'])} {stage['verdict']}"]
        shown = {True: "passed", False: "**blocked**", None: "does not apply"}
        rows = [
            [one["gate"], shown[one["passed"]], _number(one["value"]), _number(one["parent_value"]),
             _number(one["limit"]), one["why"]]
            for one in stage["gates"]
        ]  # fmt: skip
        lines += [_table(["gate", "", "value", "of the parent", "limit", "why"], rows)]
    lines += ["## Lineage", " ← ".join(_short(item) for item in told["lineage"])]
    asked = told["asked"]
    if asked is not None:
        lines += [
            "## Asked next",
            f"{asked['items']:,} items of {asked['prompts']:,} prompts into queue {asked['queue']}, by "
            f"{asked['policy']} ({_short(asked['responses'])}); of {asked['same_responses']:,} prompts all responses "
            "were the same.",
        ]
    return "\n\n".join([*lines, f"It took {told['seconds']:,.1f} s."]) + "\n"


def _judgements(found: Alignment, sets: Mapping[str, Dataset]) -> dict[str, Any]:
    """How many there were, how many count, and how the raters stand by family of votes."""
    given = sum(one.judgements for one in found.batches)
    if "latest" not in sets:
        return {"given": given, "counted": None, "standing": {}}
    return {"given": given, "counted": sets["latest"].rows, "standing": standing(sets["latest"])}


def _dropped(item: Dataset) -> dict[str, int]:
    """Rows that the op of a dataset dropped, by reason."""
    counts = item.manifest.get("counts") or {}
    return {} if not counts else dict(counts[item.manifest["ops"][-1]["name"]]["reasons"])


def _gates(judgement: Dataset) -> list[dict[str, Any]]:
    columns = ("gate", "measure", "condition", "value", "low", "high", "n", "against", "parent_value", "limit",
               "passed", "judged", "why")  # fmt: skip
    rows: list[dict[str, Any]] = judgement.scan().select(columns).collect().to_dicts()
    return rows


def _feedback(told: Mapping[str, Any]) -> list[str]:
    lines = [] if told["counted"] is None else [f"{told['counted']:,} judgements count."]
    for family, found in sorted(told["standing"].items()):
        agree = found["agreement"]
        numbers = ", ".join(
            f"{name} {_number(agree[key])}"
            for name, key in (("agreement", "percent"), ("Fleiss' kappa", "fleiss_kappa"),
                              ("Krippendorff's alpha", "krippendorff_alpha"))
        )  # fmt: skip
        lines.append(f"Of {family}: {numbers if agree['why_not'] is None else agree['why_not']}.")
        rows = [
            [one["rater"], f"{one['votes']:,}", _number(one["accuracy"]), ", ".join(one["flags"] or [])]
            for one in found["raters"]
        ]
        if rows:
            lines.append(_table(["rater", "votes", "accuracy (estimated)", ""], rows))
    return lines


def _after(told: Mapping[str, Any]) -> str:
    return _short(told["stages"][-1]["model"]) if told["stages"] else "nothing trained"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that no table and no list breaks at, and that says nothing in HTML."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _measure(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "–"
    interval = "" if one["low"] is None or one["high"] is None else f" [{one['low']:.4g}, {one['high']:.4g}]"
    return f"{_number(one['value'])}{interval}, n {one['n']:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _named(dataset: Dataset) -> dict[str, Any]:
    return {"name": dataset.name, "key": dataset.key}


def _short(item: Mapping[str, Any]) -> str:
    return f"{item['name']}:{item['key'][:12]}"


def _finite(value: Any) -> Any:
    """JSON has no word for what is not finite: None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
