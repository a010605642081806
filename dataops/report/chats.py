"""The style of chat data as one HTML file: what a model will pick up from the answers besides what they say.

In the dress of the quality report: inert, small, nothing loaded. The law: every number on the page is one of
`sft.style.measure`, which stand beside it as JSON. Not covered: whether a habit is wanted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.report.charts import bars_svg, histogram_svg
from gristmill.dataops.report.draw import count_of, human, percent
from gristmill.dataops.report.markup import Numbers, cards, document, panel, table, text, write_pair
from gristmill.dataops.report.samples import plain
from gristmill.dataops.sft.style import FEWEST, FORMS, HEDGED, LIMITS, SAMPLED, SHOWN, measure

_NAME, _TEXT, _NOTE = 60, 80, 300  # characters of a source's name, of words and of a warning
_PAIRS = 60  # rows of the table of overlaps
_HEADS = {"markdown": "Markdown", "exclamation": "!", "asks back": "? at the end", "first person": "I, my"}


def write_style(
    datasets: Sequence[Dataset], folder: str | os.PathLike[str], column: str | None = None
) -> tuple[Path, Path]:
    """Write style.html and style.json into a folder; returns their paths. `column` names the sources, see `measure`,
    which also says what is refused."""
    numbers = measure(datasets, column)
    return write_pair(folder, "style", render(numbers), numbers)


def render(numbers: Numbers) -> str:
    """The page of the numbers of `measure`."""
    sources = numbers["sources"]
    made = [
        ("sources", "Sources", "Sources and lengths", _sources(sources)),
        ("openers", "Openers", "How answers begin, and how they end", _habits(numbers)),
        ("forms", "Forms", "Lists, Markdown, hedges", _forms(numbers)),
        ("words", "Words", "Words that sources share, and their own", _words(numbers)),
    ]
    name = ", ".join(text(item["name"], _NAME) for item in numbers["datasets"])
    about = f"Made by gristmill from the answers in {name}. The same numbers are in style.json."
    return document(f"{name}: style report", _head(numbers, name), made, about)


def _head(numbers: Numbers, name: str) -> str:
    whole, sources = numbers["all"], numbers["sources"]
    lead = (
        f"{count_of(whole['answers'], 'answer')} of {count_of(len(sources), 'source')}: "
        "what a model will pick up from them besides what they say."
    )
    first = whole["openers"][0] if whole["openers"] else None
    figures = [
        (human(whole["answers"]), f"answers in {count_of(numbers['conversations'], 'conversation')}"),
        (human(whole["words"]), f"words, {human(whole['length']['p50'])} in the median answer"),
        (_share(whole["forms"]["markdown"]), "have Markdown"),
        (_share(first["share"]) if first else "–", f"begin “{_said(first['text'])}”" if first else "begin alike"),
        (human(whole["hedges_per_1000"]), "hedges in 1,000 words"),
    ]
    notes = "".join(f"<li>{text(plain(note, _NOTE))}</li>" for note in numbers["warnings"])
    few = f"Fewer than {FEWEST} answers: too few to call anything uniform."
    notes = notes or f'<li class="good">{few if whole["answers"] < FEWEST else "Nothing is near uniform."}</li>'
    keys = "<br>".join(f"{text(item['name'], _NAME)} <code>{text(item['key'])}</code>" for item in numbers["datasets"])
    return (
        f'<header class="top"><p class="eyebrow">gristmill style report</p><h1>{name}</h1>'
        f'<p class="lead">{lead}</p><p class="meta">{keys}</p>{cards(figures)}<ul class="notices">{notes}</ul></header>'
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    words = sum(item["words"] for item in sources)
    rows = [
        [
            _name(item["source"]),
            human(item["conversations"]),
            human(item["answers"]),
            human(item["words"]),
            percent(item["words"], words),
            *(human(item["length"].get(name)) for name in ("p5", "p25", "p50", "p75", "p95")),
        ]
        for item in sources
    ]
    heads = (
        "source",
        "conversations",
        "answers",
        "words",
        "of all",
        "5% of answers below",
        "25%",
        "median",
        "75%",
        "95%",
    )
    charts = [
        panel(
            plain(item["source"], _NAME) or "",
            f"words in an answer; mean {human(item['length']['mean'])}",
            histogram_svg(item["lengths"], (), f"Words in an answer of {plain(item['source'], _NAME)}"),
        )
        for item in sources
    ]
    return f'{table(heads, rows, ".nnnnnnnnn")}<div class="grid">{"".join(charts)}</div>'


def _habits(numbers: Numbers) -> str:
    """Openers, closers and phrases by source, and of all where there are several."""
    parts = []
    told = [numbers["all"], *numbers["sources"]] if len(numbers["sources"]) > 1 else numbers["sources"]
    for item in told:
        name = "All answers" if item is numbers["all"] else plain(item["source"], _NAME) or ""
        charts = [
            panel(title, note, bars_svg([_bar(found, item) for found in item[kind]], f"{title} of {name}"))
            for kind, title, note in (
                ("openers", "First three words", f"{_share(item['different_openers'])} of openers are different ones"),
                ("closers", "Last four words", "of answers of seven words and more"),
                ("phrases", "Four words in a row", "by the answers that hold them"),
            )
            if item[kind]
        ]
        if charts:
            parts.append(f'<h4>{text(name)}</h4><div class="grid">{"".join(charts)}</div>')
    note = (
        f'<p class="note">The {SHOWN} commonest, by the share of answers. From {_share(LIMITS["opener"])} on of one '
        f"opener or closer, and {_share(LIMITS['phrase'])} of one phrase, there is a warning above.</p>"
    )
    return note + "".join(parts) if parts else ""


def _bar(found: Mapping[str, Any], item: Mapping[str, Any]) -> tuple[str, float, float, str]:
    return (
        _said(found["text"]),
        item["answers"],
        found["answers"],
        f"{human(found['answers'])} · {_share(found['share'])}",
    )


def _forms(numbers: Numbers) -> str:
    names = ("markdown", *FORMS)
    sources = numbers["sources"]
    told = [*sources, numbers["all"]] if len(sources) > 1 else sources
    rows = [
        [
            "all" if item is numbers["all"] else _name(item["source"]),
            *(_flagged(item["forms"][name], LIMITS.get(name)) for name in names),
            _flagged(item["hedges_per_1000"], HEDGED, human),
        ]
        for item in told
    ]
    note = (
        '<p class="note">The share of answers that have each, and hedges (perhaps, generally, may, it depends) per '
        "1,000 words. What is near uniform is in colour.</p>"
    )
    heads = ("source", *(_HEADS.get(name, name) for name in names), "hedges")
    return note + table(heads, rows, "." + "n" * (len(names) + 1))


def _flagged(value: float, limit: float | None, show: Any = None) -> str:
    shown = text((show or _share)(value))
    return f'<b class="down">{shown}</b>' if limit is not None and value >= limit else shown


def _words(numbers: Numbers) -> str:
    if not numbers["overlap"]:
        return ""
    pairs = sorted(numbers["overlap"], key=lambda row: (-row["overlap"], row["a"], row["b"]))
    rows = [[_name(row["a"]), _name(row["b"]), _share(row["overlap"]), human(row["words"])] for row in pairs[:_PAIRS]]
    more = f" The {_PAIRS} nearest of {len(pairs)} pairs." if len(pairs) > _PAIRS else ""
    own = [
        [
            _name(name),
            ", ".join(f"{_escaped(item['word'])} <span class='note'>{human(item['count'])}</span>" for item in found),
        ]
        for name, found in numbers["own_words"].items()
    ]
    return (
        f'<p class="note">Words of up to {human(SAMPLED)} conversations of each source. 100%: both use the same words '
        f"as often; the fewer the answers, the lower.{more}</p>"
        f"{table(('source', 'and', 'in common', 'words of both'), rows, '..nn')}"
        '<h4>Their own words</h4><p class="note">Said more than by the others, by log odds, with how often.</p>'
        f"{table(('source', 'words'), own, '.w')}"
    )


def _name(source: str) -> str:
    return text(plain(source, _NAME))


def _said(words: str) -> str:
    return plain(words, _TEXT) or ""


def _escaped(word: str) -> str:
    return text(_said(word), _TEXT)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value, 1)
