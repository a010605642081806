"""Lines over steps as SVG text: means with the span of what they are means of, held-out values, marks.

The axis of values is logarithmic where all are above 0 and the highest is SPREAD times the lowest, so that the first
steps of a run do not press all others flat. The law: every point that is given is inside the picture, and no name
stands on a line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gristmill.dataops.report.draw import fit, human, label, picture, ticks, width_of

SPREAD = 30
_CLASSES = ("sb", "th", "tha")  # of the first, second and third line


@dataclass(frozen=True)
class Line:
    """Values at steps, joined; `low` and `high` are the span around each, where there is one. `dots` draws the points
    themselves, not a line of its own colour."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    dots: bool = False


def lines_svg(
    lines: Sequence[Line], title: str, marks: Sequence[float] = (), width: float = 340, height: float = 150
) -> str:
    """All lines over one axis of steps; `marks` are steps with something amiss, as ticks from the bottom. Names are
    told beside the lines' ends where there are several. Empty where there is nothing to draw."""
    lines = [line for line in lines if line.steps]
    if not lines:
        return ""
    every = [value for line in lines for value in (*line.values, *line.low, *line.high)]
    low, high, log = _range(min(every), max(every))
    first, last = (end(step for line in lines for step in line.steps) for end in (min, max))
    marked = _value_ticks(low, high, log)
    left = 10 + max(width_of(number(value, 0), 10) for value in marked)
    several = len(lines) > 1
    room = min(0.27 * width, 12 + max(width_of(line.name, 10.5) for line in lines)) if several else 8.0
    right, top, base = width - room, 10.0, height - 24.0

    def across(step: float) -> float:
        return left + (right - left) * ((step - first) / (last - first) if last > first else 0.5)

    def up(value: float) -> float:
        spot = math.log(value / low) / math.log(high / low) if log else (value - low) / (high - low)
        return base - (base - top) * spot

    body = [f'<path class="ax" d="M{left:.1f} {top:g}V{base:g}H{right:g}"/>']
    body += [label(left - 5, up(value) + 3.5, number(value, 0), "tk", 10, "end") for value in marked]
    body += _step_ticks(first, last, across, base, left, right)
    body += [f'<path class="th" d="M{across(step):.1f} {base:g}v-7"/>' for step in marks if first <= step <= last]
    plain = [line for line in lines if not line.dots]
    for line in plain:
        if line.low and line.high:
            points = [(across(step), up(value)) for step, value in zip(line.steps, line.high, strict=True)]
            points += reversed([(across(step), up(value)) for step, value in zip(line.steps, line.low, strict=True)])
            body.append(f'<path class="b0" opacity=".6" d="{_path(points)}z"/>')
    for k, line in enumerate(plain):
        points = [(across(step), up(value)) for step, value in zip(line.steps, line.values, strict=True)]
        cls = _CLASSES[k % len(_CLASSES)]
        if len(points) > 1:
            body.append(f'<path class="{cls}" d="{_path(points)}" stroke-linejoin="round"/>')
        else:
            body.append(f'<circle class="{cls}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2.5"/>')
    for line in lines:
        if line.dots:
            points = [(across(step), up(value)) for step, value in zip(line.steps, line.values, strict=True)]
            body.append(f'<path class="tha" d="{_path(points)}"/>' if len(points) > 1 else "")
            body += [f'<circle class="va" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>' for x, y in points]
    if several:
        body += _names(lines, up, right + 7, base, width)
    return picture(width, height, title, body)


def number(value: float | None, places: int = 2) -> str:
    """A number for people; one far below 1, such as a learning rate, or beyond trillions by its power of ten."""
    if value is not None and value and not 1e-3 <= abs(value) < 1e15:
        return f"{value:.{places}e}"
    return human(value, 1e4)


def _range(low: float, high: float) -> tuple[float, float, bool]:
    """A little more than the values' own, and whether the axis is logarithmic."""
    if low > 0 and high >= SPREAD * low:
        return low / 1.1, high * 1.1, True
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - (room if low < 0 or low > room else low), high + room, False


def _value_ticks(low: float, high: float, log: bool) -> list[float]:
    if not log:
        return ticks(low, high, 4)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**k for k in powers if low <= 10.0**k <= high]
    if len(tens) > 5:
        return tens[:: math.ceil(len(tens) / 5)]
    if len(tens) > 1:
        return tens
    return [n * 10.0**k for k in powers for n in (1, 2, 5) if low <= n * 10.0**k <= high]


def _step_ticks(
    first: float, last: float, across: Callable[[float], float], base: float, left: float, right: float
) -> list[str]:
    """Round steps below the axis, as many as do not meet."""
    body, end = [], -math.inf
    for step in ticks(first, last, 6):
        half = width_of(human(step, 1e4), 10) / 2
        at = min(max(across(step), left + half), right - half)
        if step == round(step) and at - half >= end + 8:
            body.append(f'<path class="ax" d="M{across(step):.1f} {base:g}v4"/>')
            body.append(label(at, base + 16, human(step, 1e4), "tk", 10, "middle"))
            end = at + half
    return body


def _names(lines: Sequence[Line], up: Callable[[float], float], x: float, base: float, width: float) -> list[str]:
    """The lines' names beside their last values, moved apart where they would meet."""
    body = []
    plain = [line for line in lines if not line.dots]
    ranked = sorted(lines, key=lambda line: up(line.values[-1]))
    places = [up(line.values[-1]) + 3.5 for line in ranked]
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + 12)
    over = max(0.0, places[-1] - base)
    for line, y in zip(ranked, places, strict=True):
        cls = "tla" if line.dots else ("tlb", "tl", "tla")[plain.index(line) % 3]
        body.append(label(x, max(y - over, 9.0), fit(line.name, 10.5, width - x), cls, 10.5))
    return body


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
