"""Progress on stderr: one line per stage that is rewritten on a terminal and printed at its milestones elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field

_WIDTH = 24
_QUIET = 2.0  # seconds between lines where stderr is no terminal


@dataclass
class _Bar:
    """The stage being drawn, when it began, and when its last line was written."""

    stage: str = ""
    began: float = 0.0
    written: float = field(default=0.0)


_BAR = _Bar()


def draw(stage: str, done: int, total: int, rows: int) -> None:
    """Show how far a stage is; `total` 0 for a note without a measure."""
    now = time.monotonic()
    if stage != _BAR.stage:
        _BAR.stage, _BAR.began, _BAR.written = stage, now, 0.0
    if total == 0:
        print(f"  {stage}", file=sys.stderr, flush=True)
        return
    finished = done >= total
    terminal = sys.stderr.isatty()
    if not terminal and not finished and now - _BAR.written < _QUIET:
        return
    _BAR.written = now
    filled = _WIDTH * done // total
    seconds = now - _BAR.began
    rate = f"{rows / seconds:,.0f} rows/s" if seconds > 0.5 else ""
    line = (
        f"  {stage:<10} {'█' * filled}{'·' * (_WIDTH - filled)} {done}/{total}  {rows:,} rows  {seconds:.1f} s  {rate}"
    )
    end = "\n" if finished or not terminal else ""
    print(f"\r{line:<90}" if terminal else line, end=end, file=sys.stderr, flush=True)
