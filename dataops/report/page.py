"""The quality report as one HTML file: nothing to install, nothing loaded, no script, readable on a phone and in the dark.

The law: the page is inert and small. Text from pages is shown as text, its content-security policy forbids
everything but the page's own style, and the caps of `measure` and of the samples hold it under 3 MB.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, write_json
from gristmill.dataops.report import sections
from gristmill.dataops.report.charts import funnel_svg
from gristmill.dataops.report.draw import human, human_bytes, human_time, percent
from gristmill.dataops.report.funnel import main_run
from gristmill.dataops.report.measure import measure
from gristmill.dataops.report.sections import Numbers, cards_of, text
from gristmill.dataops.report.style import PAGE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(dataset: Dataset, folder: str | os.PathLike[str], samples_per_reason: int = 5) -> tuple[Path, Path]:
    """Write report.html and report.json into a folder, each by one rename; returns their paths."""
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    numbers = measure(dataset, samples_per_reason)
    page, data = where / "report.html", where / "report.json"
    scratch = page.with_name(f"{page.name}.{os.getpid()}.tmp")
    scratch.write_text(render(numbers), encoding="utf-8")
    write_json(data, numbers)
    os.replace(scratch, page)
    return page, data


def render(numbers: Mapping[str, Any]) -> str:
    """The page of the numbers of `measure`."""
    made = [
        ("funnel", "Funnel", "What each op took, kept and dropped", _funnel(numbers)),
        ("signals", "Signals", "Signals and thresholds", sections.signals(numbers)),
        ("corpus", "Corpus", "What the corpus consists of", sections.corpus(numbers)),
        ("duplicates", "Duplicates", "Duplicates", sections.duplicates(numbers)),
        ("tokens", "Tokens", "Tokens and packing", sections.tokens(numbers)),
        ("losses", "Losses", "Losses inside rows that stay", sections.losses(numbers)),
        ("opt-outs", "Opt-outs", "Opt-out signals", sections.opt_outs(numbers)),
        ("rows", "Rows", "Rows to look at", sections.samples(numbers)),
        ("making", "Making", "How it was made", sections.making(numbers)),
    ]
    shown = [entry for entry in made if entry[3]]
    links = "".join(f'<a href="#{place}">{short}</a>' for place, short, _, _ in shown)
    body = "".join(f'<section id="{place}"><h2>{title}</h2>{inner}</section>' for place, _, title, inner in shown)
    name = text(numbers["dataset"]["name"])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{name}: quality report</title><style>{PAGE}</style></head><body>"
        f"{_head(numbers)}<nav><div>{links}</div></nav><main>{body}</main>"
        f"<footer>Made by gristmill from the manifests, ledgers and rows of {name}. "
        "The same numbers are in report.json.</footer></body></html>\n"
    )


def _head(numbers: Numbers) -> str:
    dataset, totals = numbers["dataset"], numbers["totals"]
    stamp = [f"made {text(dataset['at'])}"] if dataset["at"] else []
    spent = sum(item["seconds"] or 0 for item in numbers["chain"])
    stamp += [f"in {human_time(dataset['seconds'])} ({human_time(spent)} with all it is made of)"]
    stamp += ["reproducible" if all(item["reproducible"] for item in numbers["chain"]) else "not reproducible"]
    cards = [
        (human(totals["in"]), f"{'rows' if totals['unit'] == 'rows' else totals['unit']} went in"),
        (human(totals["kept"]), f"stay: {percent(totals['kept'], totals['in'])}"),
    ]
    if totals["bytes"] is not None:
        cards.append((human_bytes(totals["bytes"]), f"of text, {human(totals['chars'])} characters"))
    if totals["tokens"] is not None:
        cards.append((human(totals["tokens"]), "tokens"))
    if numbers["duplicates"]["groups"]:
        cards.append((human(numbers["duplicates"]["rows"]), "duplicates removed"))
    if (packed := numbers["packing"]) and packed["sequences"]:
        cards.append((percent(packed["padding"], packed["padding"] + packed["tokens"]), "padding in the sequences"))
    return (
        f'<header class="top"><p class="eyebrow">gristmill quality report</p><h1>{text(dataset["name"])}</h1>'
        f'<p class="lead">{_summary(numbers)}</p>'
        f'<p class="meta">key <code>{text(dataset["key"])}</code><br>digest <code>{text(dataset["digest"])}</code><br>'
        f"{' · '.join(stamp)}</p>{cards_of(cards)}{_notices(numbers)}</header>"
    )


def _summary(numbers: Numbers) -> str:
    """The funnel in two sentences."""
    run = main_run(numbers["funnel"])
    totals = numbers["totals"]
    if not run:
        return f"{human(totals['kept'])} {text(totals['unit'])}."
    told = f"Of {human(totals['in'])} rows, {human(totals['kept'])} stay ({percent(totals['kept'], totals['in'])})."
    worst = max(
        ((entry["rows"], entry["reason"], stage["op"]) for stage in run for entry in stage["reasons"]), default=None
    )
    if worst is None:
        return f"{told} Nothing was dropped."
    share = percent(worst[0], totals["in"] - totals["kept"])
    return f"{told} The most frequent reason for dropping one was {text(worst[1])} ({text(worst[2])}): {human(worst[0])} rows, {share} of the dropped."


def _notices(numbers: Numbers) -> str:
    """What a reader should know before trusting or using the dataset."""
    found, checked = [], numbers["accounting"]
    if checked["problems"]:
        found.append("The accounting does not add up: " + "; ".join(map(text, checked["problems"][:5])))
    asked = next((row for row in numbers["opt_outs"] if row["signal"] == "any"), None)
    if asked and asked["kept"]:
        found.append(
            f"{human(asked['kept'])} rows that stay carry an opt-out signal of their publisher, of {human(asked['rows'])} at first."
        )
    if numbers["rules_not_drawn"]:
        names = ", ".join(map(text, numbers["rules_not_drawn"]))
        found.append(
            f"Thresholds of these ops are not drawn, because their versions differ from the installed ones: {names}"
        )
    if not all(item["reproducible"] for item in numbers["chain"]):
        found.append(
            "A step of the chain cannot be reproduced bit for bit; the manifests name its versions and device."
        )
    if not numbers["totals"]["kept"]:
        found.append("No row stays.")
    items = [f"<li>{notice}</li>" for notice in found]
    if not checked["problems"]:
        items.append(
            f'<li class="good">Every row is accounted for: {human(checked["ops"])} ops, '
            f"{human(checked['ledger_rows'])} dropped rows in the ledgers, each with a reason.</li>"
        )
    return f'<ul class="notices">{"".join(items)}</ul>'


def _funnel(numbers: Numbers) -> str:
    """The picture at two widths, and the table."""
    others = [stage for stage in numbers["funnel"] if stage not in main_run(numbers["funnel"])]
    told = "".join(f'<p class="note">{_other(stage)}</p>' for stage in others)
    key = (
        '<p class="note"><span class="key"><i class="k1"></i>kept</span>'
        '<span class="key"><i class="kd"></i>dropped, by reason</span></p>'
    )
    pictures = f'<div class="panel"><div class="wide">{funnel_svg(numbers)}</div><div class="narrow">{funnel_svg(numbers, 350)}</div></div>'
    return f"{key}{pictures}{told}{_funnel_table(numbers)}"


def _other(stage: Numbers) -> str:
    if stage["reshapes"]:
        return f"<b>{text(stage['op'])}</b> makes {human(stage['kept'])} sequences of {human(stage['in'])} documents."
    return (
        f"<b>{text(stage['op'])}</b> takes {human(stage['in'])} {text(stage['unit'])} and keeps {human(stage['kept'])}."
    )


def _funnel_table(numbers: Numbers) -> str:
    """All ops with all reasons, in rows, characters, bytes and tokens."""
    rows = []
    for stage in numbers["funnel"]:
        reasons = stage["reasons"][:30]
        cells = [
            human(stage["in"]),
            human(stage["kept"]),
            human(stage["dropped"]),
            percent(stage["dropped"], stage["in"]),
        ]
        cells += [human(stage["chars"]["kept"]), human_bytes(stage["bytes"]["kept"]), human(stage["tokens"]["kept"])]
        name = f'{text(stage["op"])} <span class="note">{text(stage["dataset"])}</span>'
        rows.append(_line("op", name, cells))
        for entry in reasons:
            gone = ["", "", human(entry["rows"]), percent(entry["rows"], stage["in"])]
            gone += [f"−{human(entry['chars'])}" if entry["chars"] is not None else "–"]
            gone += [f"−{human_bytes(entry['bytes'])}" if entry["bytes"] is not None else "–"]
            gone += [f"−{human(entry['tokens'])}" if entry["tokens"] is not None else "–"]
            rows.append(_line("sub", text(entry["reason"]), gone))
        if len(stage["reasons"]) > len(reasons):
            rest = stage["reasons"][len(reasons) :]
            gone = ["", "", human(sum(entry["rows"] for entry in rest)), "", "", "", ""]
            rows.append(_line("sub", f"{len(rest)} rarer reasons", gone))
    heads = ("op and reason", "rows in", "kept", "dropped", "share", "characters", "bytes of text", "tokens")
    head = "".join(f'<th class="{"n" if i else "name"}">{name}</th>' for i, name in enumerate(heads))
    note = (
        '<p class="note" style="margin-top:10px">Characters, bytes and tokens are those of rows kept, and with a minus those of rows '
        "dropped. A dash: not known, because no text was stored at that point or no tokenizer had seen it.</p>"
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'
    )


def _line(cls: str, name: str, cells: list[str]) -> str:
    return (
        f'<tr class="{cls}"><td class="name">{name}</td>'
        + "".join(f'<td class="n">{cell}</td>' for cell in cells)
        + "</tr>"
    )
