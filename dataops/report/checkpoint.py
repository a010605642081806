"""The page of a checkpoint as one HTML file: how training went, what it came to, what judged it, what it was made of.

In the dress of the quality report: inert, small, nothing loaded, readable on a phone and in the dark. The law: every
number is one of `trained`'s, and a page links only to reports that stand beside it. The one attribute that is made of
data is the address of such a report, percent-encoded.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.draw import count_of, human, human_bytes, human_time, percent
from gristmill.dataops.report.lines import Line, lines_svg, number
from gristmill.dataops.report.markup import Numbers, cards, document, panel, table, text, write_pair
from gristmill.dataops.report.trained import trained

_OWN = {
    "reward": "Mean reward",
    "rewards/accuracies": "Share of the pairs told right",
    "rewards/margins": "Margin of the rewards",
    "kl": "KL to the start, nats",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm before clipping",
}
_MAIN = ("loss", "unigram_entropy", *_OWN)  # curves with a place of their own
_CURVES, _LISTED, _FILES = 24, 300, 40  # other curves, rows of a table, files


def write_checkpoint(dataset: Dataset, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write report.html and report.json into a folder, each by one rename; returns their paths. Reports of other
    datasets that stand in folders NAME-KEY beside it are linked to."""
    numbers = trained(dataset)
    beside = {path.parent.name for path in Path(folder).absolute().parent.glob("*/report.html")}
    return write_pair(folder, "report", render(numbers, beside), numbers)


def render(numbers: Numbers, beside: Collection[str] = ()) -> str:
    """The page of the numbers of `trained`; `beside` are folders of reports that may be linked to."""
    made = [
        ("training", "Training", "How training went", _training(numbers)),
        ("held-out", "Held out", "Held-out data", _held_out(numbers)),
        ("gates", "Gates", "What the gates say", _gates(numbers)),
        ("evaluation", "Evaluation", "What was measured", _evaluation(numbers, beside)),
        ("numbers", "Numbers", "All numbers", _figures(numbers)),
        ("settings", "Settings", "Settings", _settings(numbers)),
        ("inputs", "Inputs", "What it was made of", _inputs(numbers, beside)),
        ("files", "Files", "Files", _files(numbers)),
    ]
    name = text(numbers["dataset"]["name"])
    about = f"Made by gristmill from the manifests and metrics of {name}. The same numbers are in report.json."
    return document(f"{name}: checkpoint", _head(numbers), made, about)


def _head(numbers: Numbers) -> str:
    dataset, made = numbers["dataset"], numbers["made"]
    stamp = [
        f"made {text(dataset['at'] or 'at an unknown time')} in {human_time(dataset['seconds'])}",
        f"on {text(made['device'])}" if made.get("device") else "",
        "reproducible" if dataset["reproducible"] else "not reproducible",
    ]
    return (
        f'<header class="top"><p class="eyebrow">gristmill checkpoint</p><h1>{text(dataset["name"])}</h1>'
        f'<p class="lead">{_summary(numbers)}</p>'
        f'<p class="meta">key <code>{text(dataset["key"])}</code><br>digest <code>{text(dataset["digest"])}</code><br>'
        f"{' · '.join(part for part in stamp if part)}</p>{cards(_cards(numbers))}{_notices(numbers)}</header>"
    )


def _summary(numbers: Numbers) -> str:
    """What made it of what, how far the loss came, and where it stands."""
    dataset, parent, figures = numbers["dataset"], numbers["parent"], numbers["figures"]
    told = f"Made by {text(dataset['op'] or 'an unknown step')}"
    told += f" from {text(parent['name'])}:{text(parent['key'][:12])}" if parent else ""
    steps, first, last = (figures.get(name) for name in ("steps", "first_loss", "last_loss"))
    if _is_number(steps):
        told += f" in {count_of(int(steps), 'step')}"
    if _is_number(first) and _is_number(last):
        told += f": training loss {human(first)} at first, {human(last)} at last"
    state = numbers["state"]
    if state is None:
        return f"{told}."
    verdict = {
        "passed": "It passed its gates.", "blocked": "It is blocked by its gates.",
        "candidate": "It was put up to be judged, and has not been.", "not judged": "No gate has judged it.",
    }[state["state"]]  # fmt: skip
    return f"{told}. {verdict}{' It is the promoted one of its name.' if state['promoted'] else ''}"


def _cards(numbers: Numbers) -> list[tuple[str, str]]:
    figures, made = numbers["figures"], numbers["made"]
    found = [
        (figures.get("parameters"), human, "parameters"), (figures.get("tokens"), human, "tokens read"),
        (figures.get("steps"), human, "steps"), (figures.get("last_loss"), human, "training loss at last"),
        (made.get("tokens_per_second"), human, "tokens a second"),
        (made.get("mfu"), lambda share: percent(share, 1), "of the device's peak (MFU)"),
    ]  # fmt: skip
    shown = [(say(value), what) for value, say, what in found if _is_number(value)]
    losses = [row for row in numbers["held_out"] if row["measure"] == "loss" and row["after"]]
    shown += [(human(row["after"]["value"]), f"loss on {_short(row['data'])}") for row in losses[:3]]
    return [*shown, (human_bytes(numbers["dataset"]["bytes"]), f"in {count_of(len(numbers['files']), 'file')}")]


def _notices(numbers: Numbers) -> str:
    """What a reader should know before using it."""
    state, curves = numbers["state"], numbers["curves"]
    found = [] if state is None else [f"Blocked: {text(reason)}." for reason in state["reasons"][:8]]
    if state and state["promoted"] and state["state"] == "blocked":
        found.append("It is promoted, and a later judgement blocks it: promote another one that passed.")
    if curves["left_out"]:
        found.append(f"{count_of(len(curves['left_out']), 'step')} could not be taken; red ticks show where.")
    broken = [
        f"{text(name)} {human(told['not_finite'])}" for name, told in curves["series"].items() if told["not_finite"]
    ]
    if broken:
        found.append(f"Values that are no finite numbers are not drawn: {', '.join(broken[:8])}.")
    if curves["unread"]:
        found.append(f"{count_of(curves['unread'], 'line')} of the metrics cannot be read.")
    if numbers["parent_gone"]:
        found.append(f"{text(numbers['parent_gone'])}.")
    gone = [text(item["name"]) for item in numbers["lineage"] if item["gone"]]
    if gone:
        found.append(f"Gone from the root, with all that they were made of: {', '.join(gone[:8])}.")
    return f'<ul class="notices">{"".join(f"<li>{notice}</li>" for notice in found)}</ul>' if found else ""


def _training(numbers: Numbers) -> str:
    """The loss at full width, learning rate and gradient norm below it, everything else folded away."""
    series, marks = numbers["curves"]["series"], numbers["curves"]["left_out"]
    lines = []
    if "loss" in series:
        lines.append(_line("training loss", series["loss"]))
    if "unigram_entropy" in series and lines:
        lines.append(Line("unigram entropy", *_points(series["unigram_entropy"])))
    last = numbers["curves"]["steps"]
    held = [row for row in numbers["held_out"] if row["measure"] == "loss"]
    for row in held if lines else []:
        sides = [(step, row[side]["value"]) for step, side in ((0, "before"), (last, "after"))
                 if row[side] and row[side]["value"] is not None]  # fmt: skip
        if sides:
            steps, values = zip(*sides, strict=True)
            lines.append(Line(_short(row["data"]), steps, values, dots=True))
    out = ""
    if wide := lines_svg(lines, "Loss by step", marks, 900, 300):
        note = "Mean of each run of steps, in nats; the pale span is from its lowest to its highest."
        note += " Dots: loss on held-out data." if any(line.dots for line in lines) else ""
        narrow = lines_svg(lines, "Loss by step", marks, 350, 240)
        out += panel("Loss", note, f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>')
    out += _grid([(name, title) for name, title in _OWN.items() if name in series], numbers)
    rest = [(name, name) for name in series if name not in _MAIN]
    if rest:
        more = f", {len(rest) - _CURVES} more are in report.json" if len(rest) > _CURVES else ""
        opened = "" if out else " open"
        out += f"<details{opened}><summary>Other metrics ({len(rest)}{more})</summary>"
        out += f"{_grid(rest[:_CURVES], numbers)}</details>"
    return out


def _grid(named: Sequence[tuple[str, str]], numbers: Numbers) -> str:
    panels = ""
    for name, title in named:
        about = f"{title} by step" if name in _MAIN else "A metric by step"  # no attribute is made of a metric's name
        told = numbers["curves"]["series"][name]
        chart = lines_svg([_line(title, told)], about, numbers["curves"]["left_out"])
        panels += panel(title, f"last {number(told['last'])} · least {number(told['least'])}", chart)
    return f'<div class="grid">{panels}</div>' if panels else ""


def _line(name: str, told: Numbers) -> Line:
    spans = told["low"] != told["high"]
    return Line(name, *_points(told), *((told["low"], told["high"]) if spans else ()))


def _points(told: Numbers) -> tuple[list[float], list[float]]:
    return told["step"], told["mean"]


def _held_out(numbers: Numbers) -> str:
    """All measures of held-out data, before and after."""
    rows = [
        (text(_short(row["data"])), text(row["measure"]), _measure(row["before"]), _measure(row["after"]), _change(row))
        for row in numbers["held_out"][:_LISTED]
    ]
    return table(("data", "measure", "before", "after", "change"), rows, "..nnn") if rows else ""


def _change(row: Numbers) -> str:
    return _gained(*(None if row[side] is None else row[side]["value"] for side in ("before", "after")))


def _gained(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return f"{'+' if after > before else ''}{human(after - before)}"


def _measure(told: Numbers | None) -> str:
    """A value with its interval."""
    if told is None or told["value"] is None:
        return "–"
    span = "" if told["low"] is None or told["high"] is None else f" [{human(told['low'])}, {human(told['high'])}]"
    return f'{human(told["value"])}<span class="note">{span}</span>'


def _gates(numbers: Numbers) -> str:
    """Each verdict with what it was held against, and the history of promotions."""
    state, rows = numbers["state"], []
    if state is None or state["judgement"] is None:
        return ""
    for row in numbers["verdicts"][:_LISTED]:
        mark = ("blocks" if row["judged"] else "not judged") if row["passed"] is False else "passes"
        mark = "does not apply" if row["passed"] is None else mark
        colour = "note" if row["passed"] is None else "up" if row["passed"] else "down"
        numbers_ = [human(row[name]) for name in ("value", "parent_value", "limit")]
        rows.append(
            (f'<span class="{colour}">{mark}</span>', f"<b>{text(row['gate'])}</b>", *numbers_, text(row["why"]))
        )
    note = f'<p class="note">Judged {text(state["judged_at"])} by {text(state["judgement"])}. '
    note += "Limit: what the value was compared with.</p>"
    heads = ("", "gate", "value", "of the parent", "limit", "why")
    return note + table(heads, rows, "..nnnw") + _promotions(numbers)


def _promotions(numbers: Numbers) -> str:
    rows = [(f"<code>{text(item['key'][:12])}</code>", text(item["at"])) for item in reversed(numbers["promotions"])]
    return (
        f"<h4>Promoted under this name, the last first</h4>{table(('key', 'at'), rows[:_LISTED], '..')}" if rows else ""
    )


def _evaluation(numbers: Numbers, beside: Collection[str]) -> str:
    if not numbers["measures"]:
        return ""
    rows = [
        (text(row["measure"]), _measure(row), human(row["parent"]), _gained(row["parent"], row["value"]),
         human(row["n"]))
        for row in numbers["measures"][:_LISTED]
    ]  # fmt: skip
    named = ", ".join(f"{_link(item, beside)} ({text(item['at'])})" for item in numbers["evaluations"][:10])
    note = f'<p class="note">By {named}; the parent\'s where it was asked alike.</p>'
    return note + table(("measure", "value", "of the parent", "change", "rows"), rows, ".nnnn")


def _figures(numbers: Numbers) -> str:
    rows = [(text(name), _value(value)) for name, value in numbers["figures"].items()]
    rows += [(f'{text(name)} <span class="note">of the run</span>', _value(value))
             for name, value in numbers["made"].items()]  # fmt: skip
    folded = table(("number", "value"), rows[:_LISTED], ".w")
    return f"<details><summary>{len(rows)} numbers of its manifest</summary>{folded}</details>" if rows else ""


def _settings(numbers: Numbers) -> str:
    rows = [(text(item["name"]), _value(item["value"]), text(item["op"])) for item in numbers["settings"]]
    return table(("setting", "value", "op"), rows, ".w.") if rows else ""


def _inputs(numbers: Numbers, beside: Collection[str]) -> str:
    """The inputs themselves, and everything behind them."""
    if not numbers["inputs"]:
        return '<p class="note">It was made of no dataset.</p>'
    rows = [
        (_link(item, beside), text(item["kind"] or "gone"), text(item["op"] or "–"), human(item["rows"] or None),
         f"<code>{text(item['digest'])}</code>")
        for item in numbers["inputs"][:_LISTED]
    ]  # fmt: skip
    behind = [
        (_link(item, beside), text(item["for"]), text(", ".join(item["ops"][:8]) or "gone"), text(item["at"] or "–"))
        for item in numbers["lineage"][:_LISTED]
    ]
    chain = table(("dataset", "for", "made by", "at"), behind, "..w.")
    folded = (
        f"<details><summary>Everything behind it, nearest first ({len(numbers['lineage'])})</summary>{chain}</details>"
    )
    return table(("dataset", "kind", "made by", "rows", "digest"), rows, "...nw") + folded


def _link(item: Numbers, beside: Collection[str]) -> str:
    """A dataset by name and key, with a link to its report where that stands beside this one."""
    shown, place = f"{item['name']}:{item['key'][:12]}", f"{item['name']}-{item['key'][:12]}"
    if place not in beside:
        return text(shown)
    return f'<a href="../{quote(place, safe="")}/report.html">{text(shown)}</a>'


def _files(numbers: Numbers) -> str:
    rows = [
        (text(item["file"]), human_bytes(item["bytes"]), f"<code>{text(item['sha256'])}</code>")
        for item in numbers["files"][:_FILES]
    ]
    more = len(numbers["files"]) - len(rows)
    note = f'<p class="note after">{more} more are in report.json.</p>' if more else ""
    return table(("file", "size", "SHA-256"), rows, ".nw") + note


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if _is_number(value):
        return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return f"<code>{text(value)}</code>" if isinstance(value, str | list) else text(value)


def _short(data: Any) -> str:
    """NAME:DIGEST without the digest's tail."""
    name, _, digest = str(data).rpartition(":")
    return f"{name}:{digest[:6]}" if name else str(data)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
