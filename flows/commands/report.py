"""The report of a dataset: of its quality, or the page of a checkpoint, an evaluation or a set of preferences."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset
from gristmill.flows.commands.common import REFERENCE, Result, open_store

HELP = "Write the report of a dataset, pairs, a checkpoint or an evaluation: one HTML file and its numbers as JSON."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which dataset, and where to."""
    command.add_argument("name", help=REFERENCE)
    command.add_argument("--out", metavar="FOLDER", help="where to (default ROOT/reports/NAME-KEY)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The page that fits what it is."""
    store = open_store(settings)
    dataset = store.get(options.name)
    folder = Path(options.out) if options.out else store.root / "reports" / f"{dataset.name}-{dataset.key[:12]}"
    write = _writer(dataset)
    html, numbers = write(dataset, folder)
    size = Path(html).stat().st_size
    return {"html": str(html), "numbers": str(numbers), "bytes": size}, f"{html}  ({size / 1e6:.2f} MB)\n{numbers}"


def _writer(dataset: Dataset) -> Callable[[Dataset, Path], tuple[Path, Path]]:
    """What writes the page of a dataset of its kind."""
    from gristmill.dataops.gates.sides import is_evaluation
    from gristmill.dataops.noise.pairs import is_pairs
    from gristmill.dataops.report.checkpoint import write_checkpoint
    from gristmill.dataops.report.evaluation import write_evaluation
    from gristmill.dataops.report.page import write_report
    from gristmill.dataops.report.preferences import write_preferences

    if dataset.kind == "checkpoint":
        return write_checkpoint
    if is_evaluation(dataset):
        return write_evaluation
    return write_preferences if is_pairs(dataset) else write_report
