"""Numbers and text as a reader sees them, and the few SVG pieces that charts are made of.

Text is measured by a table of widths that errs on the wide side, so that labels can be cut and kept apart without a
browser. Whatever ends up in markup is escaped here.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence

from gristmill.dataops.report.bins import nice_step
from gristmill.dataops.report.style import STANDALONE

_THIN, _BROAD = set("fijlrtI.,:;'|!()[]/ "), set("mwMW@%")
_UNITS = ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"))


def human(value: float | None, exact_below: float = 1e5) -> str:
    """A number for people: 12,345, then 123 k, 1.23 M, 4.56 B; three digits of a fraction; a dash for null."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= exact_below:
        factor, unit = next(((factor, unit) for factor, unit in _UNITS if size >= 0.9995 * factor), (1, ""))
        return f"{_digits(value / factor)}{unit}"
    return f"{int(value):,}" if size == int(size) else _digits(value)


def count_of(number: int, noun: str) -> str:
    """A count with its noun, which takes an s unless there is one."""
    return f"{human(number)} {noun if number == 1 else noun + 's'}"


def human_bytes(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return "–"
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= 0.9995 * factor:
            return f"{_digits(value / factor)} {unit}"
    return f"{value:.0f} B"


def human_time(seconds: float | None) -> str:
    """Seconds as "73 ms", "2.9 s", "2 min 5 s" or "3 h 20 min"."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{_digits(seconds, 2 if seconds < 10 else 3)} s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _digits(value: float, digits: int = 3) -> str:
    if not value:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(part: float, whole: float) -> str:
    """A share with one decimal; 0% and 100% only where it is exactly that."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if share in (0, 100):
        return f"{share:.0f}%"
    return "<0.1%" if share < 0.1 else ">99.9%" if share > 99.9 else f"{share:.1f}%"


def width_of(text: str, size: float) -> float:
    """About how wide a text is at a font size, in the same unit."""
    total = 0.0
    for char in text:
        wide = unicodedata.east_asian_width(char) in "WF"
        total += 1.05 if wide else 0.34 if char in _THIN else 0.9 if char in _BROAD else 0.6
    return total * size


def fit(text: str, size: float, room: float) -> str:
    """A text cut to a width."""
    if width_of(text, size) <= room:
        return text
    while text and width_of(text + "…", size) > room:
        text = text[:-1]
    return text + "…" if text else ""


def label(x: float, y: float, text: str, cls: str, size: float, anchor: str = "start") -> str:
    """One line of text at its baseline."""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" class="{cls}"{anchored}>{html.escape(text)}</text>'


def box(x: float, y: float, width: float, height: float, cls: str) -> str:
    """A bar; one pixel wide at least, so that little is not nothing."""
    return f'<rect class="{cls}" x="{x:.1f}" y="{y:.1f}" width="{max(1.0, width):.1f}" height="{height:g}" rx="1.5"/>'


def standing(bars: Sequence[tuple[float, float, float]], base: float, cls: str) -> str:
    """Bars (x, width, height) that stand on a line, as one path."""
    path = "".join(f"M{x:.1f} {base:.1f}v{-h:.1f}h{w:.1f}v{h:.1f}z" for x, w, h in bars if h > 0)
    return f'<path class="{cls}" d="{path}"/>' if path else ""


def picture(width: float, height: float, title: str, body: Sequence[str]) -> str:
    """An SVG that fills its container up to a quarter more than its own width."""
    name = html.escape(title)
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{1.25 * width:g}px"'
    return f'<svg {size} role="img" aria-label="{name}">{"".join(body)}</svg>'


def as_file(width: float, height: float, title: str, body: Sequence[str]) -> str:
    """An SVG that is a file of its own, with colours and a ground for light and dark: an <img> can show it."""
    name = html.escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{name}"><title>{name}</title>'
        f'<style>{STANDALONE}</style><rect class="bg" width="{width:g}" height="{height:g}" rx="12"/>'
        f"{''.join(body)}</svg>\n"
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from low to high, about `count` of them."""
    if high <= low:
        return [low]
    step = nice_step((high - low) / count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]
