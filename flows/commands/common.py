"""What the commands share: opening a root, and rows as text for a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.dataops.store import Store

#: A command's answer: as JSON-able data ("status" is the exit status where it is not 0), and as text to print.
Result = tuple[dict[str, Any], str]

#: How a dataset is named on the command line.
REFERENCE = "NAME, NAME@TAG or NAME:KEY"

CUT = 100  # characters of a value that are shown


def open_store(settings: dict[str, Any]) -> Store:
    """A root to read from; one that is not there is a mistake, not an empty answer."""
    root = Path(settings["root"])
    if not root.is_dir():
        raise InputError(f"no root at {root}: run something first, or give --root")
    return Store(root)


def positive(text: str) -> int:
    """A whole number from 1 on, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


def folder_name(text: str) -> str:
    """What a dataset may be called, for argparse: one folder under the root."""
    if not text or text.startswith(".") or set(text) & set("/@:\0"):
        raise argparse.ArgumentTypeError(f"{text!r} cannot name a dataset: no /, @ or :, and no dot in front")
    return text


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Columns lined up; those in `right` are numbers."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    cells = (
        [cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    )
    return "\n".join("  ".join(row).rstrip() for row in cells)


def plain(value: Any) -> Any:
    """A value of a row as JSON that can be read: bytes in hex, long texts and lists cut with their length."""
    if isinstance(value, bytes):
        return value.hex() if len(value) <= 16 else f"{value[:16].hex()}… ({len(value):,} bytes)"
    if isinstance(value, str):
        return value if len(value) <= CUT else f"{value[:CUT]}… ({len(value):,} characters)"
    if isinstance(value, list):
        head = [plain(item) for item in value[:8]]
        return head if len(value) <= 8 else [*head, f"… ({len(value):,} items)"]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return value


def funnel(counts: dict[str, Any]) -> str:
    """Rows in, kept and dropped by op, with the commonest reasons."""
    rows = [["op", "in", "kept", "dropped", "why"]]
    for op, tally in counts.items():
        reasons = sorted(tally["reasons"].items(), key=lambda item: -item[1])
        told = ", ".join(f"{name} {number:,}" for name, number in reasons[:4]) + (", …" if len(reasons) > 4 else "")
        rows.append([op, f"{tally['in']:,}", f"{tally['kept']:,}", f"{tally['dropped']:,}", told])
    return table(rows, right=(1, 2, 3))
