"""An evaluation as one HTML file: measures with their intervals, beside an earlier evaluation's, and responses to read.

In the dress of the quality report: inert, small, nothing loaded. The law: every number on the page is the evaluation's
own, from its `stats` and its rows; what was not judged is told beside every score. Not covered: whether a difference
matters; `gristmill gate` judges by conditions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.report.bins import histogram, tidy
from gristmill.dataops.report.charts import histogram_svg
from gristmill.dataops.report.draw import box, count_of, human, human_time, percent, picture
from gristmill.dataops.report.markup import Numbers, cards, document, panel, table, text, write_pair
from gristmill.dataops.report.samples import plain

SAMPLES = 8  # responses shown for each reason to look at them
SHOWN = 900  # characters of a prompt or response
_WIDE, _HIGH = 240.0, 30.0  # pixels of an interval's picture

#: Measures in the order in which they are read; others follow by name.
ORDER = (
    "pass@1", "pass@", "maj@", "score", "score_change", "win_rate", "win_rate_length_controlled", "ties",
    "consistency", "first_seat", "unjudged", "win_rate_unjudged", "perplexity", "loss", "loss_change",
    "parent_loss_change", "kl", "entropy", "refusal", "over_refusal", "length", "length_", "cut", "distinct_",
    "self_bleu", "opener", "list", "markdown",
)  # fmt: skip

#: What the names do not say by themselves.
MEANS = {
    "score": "mean of what the scorer gave", "unjudged": "responses without a score: in no other figure",
    "loss": "nats per token", "loss_change": "loss less the reference's", "parent_loss_change": "less the parent's",
    "kl": "to the reference, nats per token", "entropy": "of the next token, nats",
    "win_rate": "against the reference, both orders; a tie is a half",
    "win_rate_length_controlled": "as if responses were equally long",
    "consistency": "pairs on which both orders agree", "first_seat": "0.5: no seat is favoured",
    "win_rate_unjudged": "pairs without a verdict", "length": "tokens", "cut": "ended by max_tokens",
    "refusal": "responses that decline", "over_refusal": "harmless prompts declined",
    "self_bleu": "1: all say the same", "opener": "begin with the commonest three words",
    "list": "responses with a list", "markdown": "responses with Markdown",
}  # fmt: skip
_SHARES = ("pass@", "maj@", "win_rate", "ties", "consistency", "first_seat", "unjudged", "refusal", "over_refusal",
           "cut", "distinct_", "self_bleu", "opener", "list", "markdown")  # fmt: skip


def write_evaluation(
    dataset: Dataset, folder: str | os.PathLike[str], parent: Dataset | None = None
) -> tuple[Path, Path]:
    """Write report.html and report.json into a folder; returns their paths. `parent` is the evaluation that it is held
    against, by default the one that it was made with, where that still stands."""
    numbers = numbers_of(dataset, _parent(dataset) if parent is None else parent)
    return write_pair(folder, "report", render(numbers), numbers)


def numbers_of(dataset: Dataset, parent: Dataset | None = None) -> dict[str, Any]:
    """All that is on the page. Raises InputError for datasets that are no evaluations."""
    stats = _stats(dataset)
    before = {} if parent is None else _stats(parent)["measures"]
    rows = dataset.scan().collect()
    groups = []
    for name in dict.fromkeys(key.partition("/")[0] for key in stats["measures"]):
        own = {key.partition("/")[2]: value for key, value in stats["measures"].items() if key.startswith(f"{name}/")}
        measures = [{"name": key, **own[key], "parent": before.get(f"{name}/{key}")} for key in sorted(own, key=_place)]
        groups.append({"name": name, "measures": measures, **_texts(rows.filter(pl.col("task") == name), stats, name)})
    responses = rows.filter(pl.col("part") == "task")
    manifest = dataset.manifest
    return {
        "dataset": {"name": dataset.name, "key": dataset.key, "digest": dataset.digest},
        "model": stats["model"],
        "reference": stats.get("reference"),
        "parent": None
        if parent is None
        else {"name": parent.name, "key": parent.key, "model": _stats(parent)["model"]},
        "at": manifest["made"].get("at"),
        "seconds": manifest["made"].get("seconds"),
        "device": manifest["made"].get("device"),
        "versions": manifest["made"].get("versions", {}),
        "reproducible": manifest["reproducible"],
        "notes": stats.get("notes", []),
        "responses": responses.height,
        "scored": responses.filter(pl.col("reason") != "no_scorer").height,
        "unjudged": responses.filter((pl.col("reason") != "no_scorer") & pl.col("score").is_null()).height,
        "tokens": int(responses["tokens"].sum()),
        "groups": groups,
    }


def _parent(dataset: Dataset) -> Dataset | None:
    told = _stats(dataset).get("parent")
    if told is None:
        return None
    try:
        return Dataset.load(f"{dataset.root}/{told['name']}/{told['key'][:12]}")
    except InputError:
        return None  # of another root, or removed


def _stats(dataset: Dataset) -> dict[str, Any]:
    stats: dict[str, Any] = dataset.manifest["stats"]
    if dataset.kind != "rows" or "measures" not in stats:
        raise InputError(f"{dataset.name} at {dataset.path} is no evaluation: it has no measures")
    return stats


def _place(name: str) -> tuple[int, int, str]:
    found = [n for n, known in enumerate(ORDER) if name == known]
    found = found or [n for n, known in enumerate(ORDER) if known[-1] in "@_" and name.startswith(known)]
    digits = "".join(char for char in name if char.isdigit())
    return (found[0] if found else len(ORDER), int(digits or 0), name)


def _texts(rows: pl.DataFrame, stats: Numbers, name: str) -> dict[str, Any]:
    """Lengths and responses to look at of one task, why some were not judged; empty for held-out text."""
    tasks = rows.filter((pl.col("part") == "task") & pl.col("response").is_not_null())
    if not tasks.height:
        return {"lengths": None, "opener": None, "unjudged": {}, "samples": [], "scorer": False}
    lengths = tasks["tokens"].to_numpy().astype(np.float64)
    scored = tasks.filter(pl.col("score").is_not_null())
    lost = tasks.filter(pl.col("preference") < 0.5).sort("preference", "id")
    chosen = [
        ("Lowest scores", "", scored.sort("score", "id")),
        ("Highest scores", "", scored.sort(["score", "id"], descending=[True, False])),
        ("Not judged", "", tasks.filter(pl.col("score").is_null() & (pl.col("reason") != "no_scorer")).sort("id")),
        ("The reference's response was preferred", "against", lost),
        ("Declined", "", tasks.filter(pl.col("refused")).sort("id")),
        ("Without a scorer, by lowest ids", "", tasks.filter(pl.col("reason") == "no_scorer").sort("id")),
    ]
    samples = [
        {"title": title, "of": found.height, "rows": [_sample(row, with_) for row in found.head(SAMPLES).to_dicts()]}
        for title, with_, found in chosen
        if found.height
    ]
    return {
        "lengths": histogram(lengths, ~tasks["cut"].fill_null(False).to_numpy()),
        "opener": stats.get("openers", {}).get(name),
        "unjudged": stats.get("unjudged", {}).get(name, {}),
        "samples": samples,
        "scorer": name in stats.get("unjudged", {}),
    }


def _sample(row: Mapping[str, Any], with_: str) -> dict[str, Any]:
    said = [f"{message['role']}: {message['content']}" for message in row["prompt"] or []]
    return {
        "id": row["id"].hex(),
        "source": row["sources"][0].hex(),
        "sample": row["sample"],
        "prompt": plain("\n".join(said[-2:]), SHOWN),
        "response": plain(row["response"], SHOWN),
        "against": plain(row["against"], SHOWN) if with_ else None,
        "score": tidy(row["score"]) if row["score"] is not None else None,
        "preference": row["preference"] if with_ else None,
        "reason": plain(row["judged"] if with_ else row["reason"], 200),
        "tokens": row["tokens"],
    }


def render(numbers: Numbers) -> str:
    """The page of the numbers of `numbers_of`."""
    sections = [
        (f"g{n}", text(group["name"], 40), text(group["name"]), _group(group, numbers))
        for n, group in enumerate(numbers["groups"])
    ]
    model = text(numbers["model"]["name"])
    about = f"Made by gristmill from {text(numbers['dataset']['name'])}. The same numbers are in report.json."
    return document(f"{model}: evaluation", _head(numbers), sections, about)


def _head(numbers: Numbers) -> str:
    model, parent, reference = numbers["model"], numbers["parent"], numbers["reference"]
    lead = f"{count_of(len(numbers['groups']), 'part')}, {count_of(numbers['responses'], 'response')}."
    beside = [f"reference {text(reference['name'])} <code>{text(reference['key'][:12])}</code>"] if reference else []
    if parent:
        beside.append(f"held against {text(parent['model']['name'])} <code>{text(parent['model']['key'][:12])}</code>")
    figures = [(human(numbers["responses"]), "responses"), (human(numbers["tokens"]), "tokens in them")]
    if numbers["scored"]:
        share = percent(numbers["unjudged"], numbers["scored"])
        figures.append((human(numbers["unjudged"]), f"not judged, {share} of those with a scorer"))
    figures.append((human_time(numbers["seconds"]), f"on {numbers['device']}"))
    stamp = [f"made {text(numbers['at'] or 'at an unknown time')}", *beside]
    stamp.append("reproducible" if numbers["reproducible"] else "not reproducible")
    stamp += [f"{text(name)} {text(version)}" for name, version in numbers["versions"].items()]
    notes = [f"<li>{text(note)}</li>" for note in numbers["notes"]]
    if numbers["unjudged"]:
        notes.append(f"<li>{count_of(numbers['unjudged'], 'response')} could not be judged: in no score.</li>")
    return (
        f'<header class="top"><p class="eyebrow">gristmill evaluation</p><h1>{text(model["name"])}</h1>'
        f'<p class="lead">{lead}</p><p class="meta">model <code>{text(model["key"])}</code><br>'
        f"evaluation <code>{text(numbers['dataset']['key'])}</code><br>{' · '.join(stamp)}</p>"
        f'{cards(figures)}<ul class="notices">{"".join(notes)}</ul></header>'
    )


def _group(group: Numbers, numbers: Numbers) -> str:
    parent = numbers["parent"] is not None and any(item["parent"] for item in group["measures"])
    colours = '<span class="key"><i class="k1"></i>this model, with its 95 % interval</span>'
    other = '<span class="key"><i class="ka"></i>the one it is held against; bold: outside each other</span>'
    colours += other if parent else ""
    rows = []
    for item in group["measures"]:
        name = f'{text(item["name"])}<br><span class="note">{text(_meaning(item["name"]))}</span>'
        row = [name, _number(item["value"]), _limits(item), interval_svg(item, item["parent"])]
        if parent:
            row += ["–", "–"] if item["parent"] is None else [_number(item["parent"]["value"]), _change(item)]
        rows.append([*row, human(item["n"])])
    heads = ["measure", "value", "interval", "", *(["parent", "change"] if parent else []), "n"]
    made = f'<p class="note">{colours}</p>{table(heads, rows, "wnnw" + ("nn" if parent else "") + "n")}'
    return made + _about_texts(group)


def _about_texts(group: Numbers) -> str:
    if group["lengths"] is None:
        return ""
    chart = histogram_svg(group["lengths"], (), f"Tokens in the responses to {group['name']}")
    note = "Heights are square roots. Pale: cut at max_tokens." if chart else ""
    panels = panel("Tokens in a response", note, chart)
    if opener := group["opener"]:
        said = f"{human(opener['responses'])} of {human(opener['of'])} begin with <code>{text(opener['words'])}</code>."
        panels += f'<div class="panel"><h3>Commonest opener</h3><p class="facts">{said}</p></div>'
    if group["scorer"]:
        why = [[text(reason), human(count)] for reason, count in group["unjudged"].items()]
        inner = (
            table(("not judged because", "responses"), why, ".n") if why else '<p class="facts">All were judged.</p>'
        )
        panels += f'<div class="panel"><h3>Not judged</h3>{inner}</div>'
    folds = []
    for kind in group["samples"]:
        inside = "".join(_shown(sample) for sample in kind["rows"])
        of = f'<span class="note">{len(kind["rows"])} of {human(kind["of"])}</span>'
        folds.append(f"<details><summary>{text(kind['title'])} {of}</summary>{inside}</details>")
    return f'<div class="grid">{panels}</div><div class="folds">{"".join(folds)}</div>'


def _shown(sample: Numbers) -> str:
    """A prompt with its response, and what was said of it."""
    facts = [] if sample["score"] is None else [f"score {human(sample['score'])}"]
    facts += [] if sample["preference"] is None else [f"preference {human(sample['preference'])}"]
    facts += [sample["reason"]] if sample["reason"] else []
    why = f'<span class="why">{text(" · ".join(facts))}</span>' if facts else ""
    about = f"{human(sample['tokens'])} tokens · sample {sample['sample']} · row {sample['source'][:12]}"
    sides = [("prompt", sample["prompt"]), ("response", sample["response"]), ("reference", sample["against"])]
    quotes = ((side, text(said, SHOWN) or "(empty)") for side, said in sides if said is not None)
    told = "".join(
        f'<div><span class="side">{side}</span><blockquote dir="auto">{said}</blockquote></div>'
        for side, said in quotes
    )
    return f'<div class="sample"><div class="pair">{told}</div>{why}<span class="note">{text(about)}</span></div>'


def interval_svg(ours: Numbers, theirs: Numbers | None) -> str:
    """Intervals over one axis: 0 to 1 for shares, else from the lowest limit to the highest; for one alone from 0."""
    both = [item for item in (ours, theirs) if item is not None]
    ends = [item[name] for item in both for name in ("value", "low", "high") if item[name] is not None]
    change = ours["name"].endswith("_change")
    share = ours["name"].startswith(_SHARES) and not change
    if theirs is None or change:
        ends.append(0.0)  # alone, an interval is read by its distance from nothing
    low, high = (0.0, 1.0) if share else (min(ends), max(ends))
    pad = 8.0
    if high <= low or (theirs is None and ours["low"] is None and not share):
        return ""

    def at(value: float) -> float:
        return pad + (_WIDE - 2 * pad) * (min(max(value, low), high) - low) / (high - low)

    axis = f'<path class="ax" d="M{pad:g} {_HIGH / 2:g}H{_WIDE - pad:g}"/>'
    zero = f'<path class="ax" d="M{at(0):.1f} 4V{_HIGH - 4:g}"/>' if low <= 0 <= high and not share else ""
    body = [axis, zero]
    for item, y, band, dot in ((theirs, 17.5, "sa", "va"), (ours, 4.5, "b1", "b1")):
        if item is None:
            continue
        if item["low"] is not None and item["high"] is not None:
            body.append(box(at(item["low"]), y + 2.5, at(item["high"]) - at(item["low"]), 3, band))
        body.append(f'<circle class="{dot}" cx="{at(item["value"]):.1f}" cy="{y + 4:g}" r="4"/>')
    told = f"{ours['name']}: {_number(ours['value'])}" + (f", parent {_number(theirs['value'])}" if theirs else "")
    return picture(_WIDE, _HIGH, told, body)


def _meaning(name: str) -> str:
    if name.endswith("_change") and name not in MEANS:
        return "less the parent's, over the same prompts"
    return MEANS.get(name, "")


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1_000 else human(value)


def _limits(item: Numbers) -> str:
    return "–" if item["low"] is None else f"{_number(item['low'])} to {_number(item['high'])}"


def _change(item: Numbers) -> str:
    """The difference; marked where neither value lies in the other's interval."""
    parent: Sequence[Any] = (item["parent"]["low"], item["parent"]["value"], item["parent"]["high"])
    change = item["value"] - parent[1]
    told = f"{change:+.4g}"
    limits = (item["low"], item["high"], parent[0], parent[2])
    if any(limit is None for limit in limits):
        return told
    apart = not item["low"] <= parent[1] <= item["high"] and not parent[0] <= item["value"] <= parent[2]
    return f"<b>{told}</b>" if apart else told
