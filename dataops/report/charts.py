"""The charts of the report as SVG text: the funnel, histograms with thresholds, bars and columns.

No script, no fonts or files from elsewhere; colours are the page's CSS classes. Widths are in pixels at which the text
has its right size. Labels that would overlap are left out or moved, never printed over each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.dataops.report.draw import as_file, box, fit, human, label, percent, picture, standing, ticks, width_of
from gristmill.dataops.report.funnel import main_run

Place = Callable[[float], float]
_SIGNS = {"below": "<", "above": ">", "from": "≥"}
_BLOCKS = 12  # reasons that get a piece of a funnel bar of their own


def histogram_svg(found: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], title: str, width: float = 340) -> str:
    """All values (pale) and those of kept rows (strong) over common bins; what thresholds drop is shaded.

    `rules` give threshold and side: "below" and "above" say what is dropped, "from" what counts, without a shade.

    Heights are square roots of counts, so that a rare value beside a frequent one can be seen.
    """
    edges, log = found["edges"], found["scale"] == "log"
    if len(edges) < 2:
        return ""
    lines = sorted({(rule["threshold"], rule["side"]) for rule in rules})
    left, right, top = 6.0, width - 6.0, 6.0 + 15 * min(2, len(lines))
    base = top + 88
    place = _placer(edges, log, left, right)
    most = math.sqrt(max(found["all"]) or 1)
    body = []
    for threshold, side in lines:
        x = place(_boundary(threshold, side, found["whole"]))
        start, stop = {"below": (left, x), "above": (x, right)}.get(side, (x, x))
        if stop - start > 0.5:
            body.append(f'<path class="out" d="M{start:.1f} {base:.1f}H{stop:.1f}V{top:.1f}H{start:.1f}z"/>')
    for name, cls in (("all", "b0"), ("kept", "b1")):
        bars = []
        for low, high, n in zip(edges[:-1], edges[1:], found[name], strict=True):
            x, span = place(low), place(high) - place(low)
            bars.append((x, span - (0.8 if span > 2.5 else 0), max(1.5, 80 * math.sqrt(n) / most) if n else 0))
        body.append(standing(bars, base, cls))
    body.append(f'<path class="ax" d="M{left:g} {base:.1f}H{right:g}"/>')
    body += _axis(edges, log, found["whole"], place, base, left, right)
    for k, (threshold, side) in enumerate(lines):
        x = place(_boundary(threshold, side, found["whole"]))
        body += _threshold(x, 11 + 15 * (k % 2), base, threshold, side, width)
    return picture(width, base + 22, title, body)


def _placer(edges: Sequence[float], log: bool, left: float, right: float) -> Place:
    """Where a value stands between `left` and `right`."""

    def scaled(value: float) -> float:
        return math.log10(1 + max(value, -0.9)) if log else value

    low, high = scaled(edges[0]), scaled(edges[-1])
    return lambda value: left + (right - left) * (scaled(value) - low) / (high - low)


def overlay_svg(
    found: Mapping[str, Any], rules: Mapping[str, Sequence[Mapping[str, Any]]], title: str, width: float = 340
) -> str:
    """Two distributions over common bins, A filled and B as an outline, each in shares of its own values.

    `found` has `a` and `b` instead of the counts of `histogram`; `rules` give threshold and side, by version. A
    threshold of both is drawn once. Heights are square roots of shares.
    """
    edges, log = found["edges"], found["scale"] == "log"
    if len(edges) < 2:
        return ""
    sides = {side: {(rule["threshold"], rule["side"]) for rule in rules[side]} for side in "ab"}
    lines = sorted(sides["a"] | sides["b"])
    left, right, top = 6.0, width - 6.0, 6.0 + 15 * min(3, len(lines))
    base = top + 88
    place = _placer(edges, log, left, right)
    shares = {side: [n / (sum(found[side]) or 1) for n in found[side]] for side in "ab"}
    most = math.sqrt(max(*shares["a"], *shares["b"]) or 1)
    heights = {side: [max(1.5, 80 * math.sqrt(n) / most) if n else 0.0 for n in shares[side]] for side in "ab"}
    bars = [
        (place(low), place(high) - place(low), height)
        for low, high, height in zip(edges[:-1], edges[1:], heights["a"], strict=True)
    ]
    outline = "".join(
        f"V{base - height:.1f}H{place(high):.1f}" for high, height in zip(edges[1:], heights["b"], strict=True)
    )
    body = [standing(bars, base, "sa"), f'<path class="sb" d="M{left:.1f} {base:.1f}{outline}V{base:.1f}"/>']
    body.append(f'<path class="ax" d="M{left:g} {base:.1f}H{right:g}"/>')
    body += _axis(edges, log, found["whole"], place, base, left, right)
    for k, line in enumerate(lines):
        x = place(_boundary(*line, found["whole"]))
        whose = "" if line in sides["a"] & sides["b"] else "a" if line in sides["a"] else "b"
        body += _threshold(x, 11 + 15 * (k % 3), base, *line, width, whose)
    return picture(width, base + 22, title, body)


def _boundary(threshold: float, side: str, whole: bool) -> float:
    """Where a threshold parts the bins: between two whole numbers where all values are whole."""
    if not whole:
        return threshold
    return math.floor(threshold) + 0.5 if side == "above" else math.ceil(threshold) - 0.5


def _threshold(
    x: float, y: float, base: float, threshold: float, side: str, width: float, whose: str = ""
) -> list[str]:
    """A line with its label on the dropped side of it, or on the other where there is no room; `whose` is "a" or "b"
    where it is the threshold of one of two versions."""
    text = f"{_SIGNS[side]} {human(threshold)}"
    room = width_of(text, 10.5) + 5
    leftward = x >= room if side == "below" else x + room > width
    line = f'<path class="th{whose}" d="M{x:.1f} {base:.1f}V{y - 9:.1f}"/>'
    return [line, label(x + (-4 if leftward else 4), y, text, f"tl{whose}", 10.5, "end" if leftward else "start")]


def _axis(
    edges: Sequence[float], log: bool, whole: bool, place: Place, base: float, left: float, right: float
) -> list[str]:
    low, high = edges[0], edges[-1]
    names = {mark: human(mark, 1e4) for mark in ticks(low, high)}
    if log:
        names = {mark: human(mark, 1e4) for mark in (0, *(10**k for k in range(16)))}
    elif whole:
        names = {mark: name for mark, name in names.items() if mark == round(mark)}
    body, end = [], -math.inf
    for mark, name in names.items():
        if low <= mark <= high:
            half = width_of(name, 10) / 2
            at = min(max(place(mark), left + half), right - half)
            if at - half >= end + 6:
                body.append(f'<path class="ax" d="M{place(mark):.1f} {base:.1f}v4"/>')
                body.append(label(at, base + 16, name, "tk", 10, "middle"))
                end = at + half
    return body


def bars_svg(rows: Sequence[tuple[str, float, float, str]], title: str, width: float = 340) -> str:
    """Lying bars (name, all, kept, value as text), each under its name."""
    most = max((whole for _, whole, _, _ in rows), default=0) or 1
    body = []
    for i, (name, whole, kept, value) in enumerate(rows):
        y = 32 * i
        body.append(label(0, y + 13, fit(name, 12, width - width_of(value, 11) - 10), "nm", 12))
        body.append(label(width, y + 13, value, "tk", 11, "end"))
        body += [box(0, y + 18, width * n / most, 6, cls) for n, cls in ((whole, "b0"), (kept, "b1")) if n]
    return picture(width, max(1, 32 * len(rows) - 4), title, body)


def columns_svg(columns: Sequence[tuple[str, float, float]], title: str, width: float = 340) -> str:
    """Standing bars (label, all, kept), with as many labels as fit and the highest count named."""
    if not columns:
        return ""
    most = max(whole for _, whole, _ in columns) or 1
    base, step = 112.0, (width - 12) / len(columns)
    wide = min(step - min(4.0, 0.25 * step), 56.0)
    body = []
    for at, cls in ((1, "b0"), (2, "b1")):
        heights = [max(1.5, 86 * float(row[at]) / most) if row[at] else 0.0 for row in columns]
        bars = [(6 + (i + 0.5) * step - wide / 2, wide, height) for i, height in enumerate(heights)]
        body.append(standing(bars, base, cls))
    body.append(f'<path class="ax" d="M6 {base}H{width - 6:g}"/>')
    highest = max(range(len(columns)), key=lambda i: columns[i][1])
    body.append(_beneath(6 + (highest + 0.5) * step, 18, human(columns[highest][1]), width))
    end = -math.inf
    for i, (name, _, _) in enumerate(columns):
        x, half = 6 + (i + 0.5) * step, width_of(name, 10) / 2
        if max(x - half, 0) >= end + 7 and (i == 0 or x + half <= width):
            body.append(_beneath(x, base + 16, name, width))
            end = max(x + half, 2 * half)
    return picture(width, base + 22, title, body)


def _beneath(x: float, y: float, text: str, width: float) -> str:
    """A small label centred on a column, moved into the picture at its ends."""
    half = width_of(text, 10) / 2
    return label(min(max(x, half), width - half), y, text, "tk", 10, "middle")


def funnel_svg(numbers: Mapping[str, Any], width: float = 900, standalone: bool = False) -> str:
    """What each op kept (strong) and dropped (warm) of the rows, with the main reasons.

    Below a width of 600 names stand above their bars. `standalone` makes a picture of its own: a heading, and colours
    and a ground for light and dark; such a file can be shown by an <img>.
    """
    pad = 24.0 if standalone else 0.0
    body = _funnel_head(numbers, pad, width) if standalone else []
    y = 84.0 if standalone else 2.0
    run = main_run(numbers["funnel"])
    most = max((stage["in"] for stage in run), default=0) or 1
    for before, stage in zip([None, *run], run, strict=False):
        same = before is not None and before["dataset"] == stage["dataset"]
        drawn, y = _funnel_stage(stage, same, pad, y, width - pad, most)
        body += drawn
    if not run:
        body.append(label(pad, y + 14, "No rows have gone through any op yet.", "tk", 12))
        y += 28
    if not standalone:
        return picture(width, y, "Rows kept and dropped by each op", body)
    height = y + pad - 12
    title = f"{numbers['dataset']['name']}: rows kept and dropped by each op"
    return as_file(width, height, title, body)


def _funnel_head(numbers: Mapping[str, Any], pad: float, width: float) -> list[str]:
    totals, dataset = numbers["totals"], numbers["dataset"]
    heading = f"{human(totals['in'])} rows in, {human(totals['kept'])} kept"
    known = [
        f"{human(totals[name])} {word}"
        for name, word in (("chars", "characters"), ("tokens", "tokens"))
        if totals[name]
    ]
    told = " · ".join([f"{dataset['name']} {dataset['key'][:12]}", *known])
    room = width - 2 * pad
    return [label(pad, 38, fit(heading, 19, room), "hd", 19), label(pad, 60, fit(told, 12, room), "tk", 12)]


def _funnel_stage(
    stage: Mapping[str, Any], same: bool, x: float, y: float, right: float, most: int
) -> tuple[list[str], float]:
    """One op's bar from x to `right`, and where the next begins; `same` dataset as the one before."""
    wide = right - x >= 560
    names, values = (190.0, 120.0) if wide else (0.0, 0.0)
    left, room = x + names, right - x - names - values
    kept = f"{human(stage['kept'])} kept"
    loss = f"−{percent(stage['dropped'], stage['in'])}" if stage["dropped"] else ""
    top = y if wide else y + 19
    body = []
    if wide:
        body.append(label(x, y + 15, fit(stage["op"], 13, names - 12), "nm", 13))
        body.append(label(right, y + 15, kept, "nm", 12.5, "end"))
        body.append(label(right, y + 31, loss, "dr", 11.5, "end"))
        body.append(label(x, y + 31, "" if same else fit(stage["dataset"], 11, names - 12), "tk", 11))
    else:
        value = f"{kept} · {loss}" if loss else kept
        body.append(label(x, y + 13, fit(stage["op"], 12.5, room - width_of(value, 11.5) - 8), "nm", 12.5))
        body.append(label(right, y + 13, value, "tk", 11.5, "end"))
    if stage["in"]:
        body.append(box(left, top, room * stage["in"] / most, 20, "d1" if stage["dropped"] else "b1"))
    if stage["kept"]:
        body.append(box(left, top, room * stage["kept"] / most, 20, "b1"))
    start = left + room * stage["kept"] / most
    blocks = [entry["rows"] for entry in stage["reasons"][:_BLOCKS]]
    for k, rows in enumerate([*blocks, stage["dropped"] - sum(blocks)]):
        span = room * rows / most
        if span >= 1.5:
            body.append(box(start + 0.8, top, span - 0.8, 20, f"d{k % 2}"))
        start += span
    told = _reasons(stage["reasons"], room + (values if wide else 0))
    if told:
        body.append(label(left, top + 35, told, "tk", 11))
    return body, top + (52 if told else 42 if wide and not same else 34)


def _reasons(reasons: Sequence[Mapping[str, Any]], room: float) -> str:
    """The main reasons with their rows, as many as fit, and how many more there are."""
    told = ""
    for k, entry in enumerate(reasons):
        rest = f" · {len(reasons) - k} more" if told else ""
        longer = (
            f"{told} · {entry['reason']} {human(entry['rows'])}"
            if told
            else f"{entry['reason']} {human(entry['rows'])}"
        )
        more = f" · {len(reasons) - k - 1} more" if k < len(reasons) - 1 else ""
        if width_of(longer + more, 11) > room:
            return told + rest if told else fit(longer, 11, room)
        told = longer
    return told
