"""A dataset as a folder that other tools read."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.dataops.export.hosted_forms import FORMS
from gristmill.flows.commands.common import REFERENCE, Result, open_store

HELP = "Export a dataset: Megatron, Hugging Face datasets, datatrove, JSON lines, Parquet, or for managed fine-tuning."
FOLDERS = ["megatron", "hf", "datatrove", "jsonl", "parquet"]


def arguments(command: argparse.ArgumentParser) -> None:
    """What, where to, and in which form."""
    command.add_argument("name", help=REFERENCE)
    command.add_argument("--to", required=True, metavar="FOLDER", help="a folder that is not there yet, or empty")
    command.add_argument(
        "--format",
        required=True,
        choices=[*FOLDERS, *FORMS],
        metavar="FORMAT",
        help=f"what to write: {', '.join(FOLDERS)}; for managed fine-tuning {', '.join(FORMS)}",
    )
    command.add_argument(
        "--columns",
        metavar="A,B",
        help="columns to write (default all; ids always); of an -rft form those of its grader",
    )
    command.add_argument(
        "--tokenizer", metavar="FILE", help="a tokenizer.json to count the tokens of hosted forms with"
    )


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Write it, or find that it is there."""
    from gristmill.dataops.export.folder import export
    from gristmill.dataops.export.hosted import export_hosted
    from gristmill.flows.progress import draw

    dataset = open_store(settings).get(options.name)
    columns = None if options.columns is None else [name.strip() for name in options.columns.split(",") if name.strip()]
    if options.format in FORMS:
        note = export_hosted(dataset, options.to, options.format, columns, options.tokenizer, draw)
    elif options.tokenizer is None:
        note = export(dataset, options.to, options.format, columns, draw)
    else:
        raise InputError(f"{options.format} counts no tokens: leave out --tokenizer")
    size = sum(entry["bytes"] for entry in note["files"])
    amount = f"{note['tokens']:,} tokens" if "tokens" in note else f"{note['rows']:,} rows"
    if note.get("refused"):
        why = ", ".join(f"{reason} {number:,}" for reason, number in note["reasons"].items())
        amount += f", {note['refused']:,} of {note['read']:,} refused ({why}: see ledger.ndjson)"
    said = "is there already" if note["already"] else "written"
    text = f"{options.to}: {dataset.name}:{dataset.key[:12]} as {options.format}, {amount}, {size / 1e6:.1f} MB, {said}"
    return note, text
