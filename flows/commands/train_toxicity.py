"""One classifier of toxic text from all the labelled sets of a folder, published with its model card.

Several sets together judge ordinary text better than any one of them: each knows its own forum, and what is harmless
there. The law of reading is that of labels.py, every row of a set is used; files that are no labelled set are named.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands import train_filter
from gristmill.flows.commands.common import Result

_HEAD = 1 << 16  # bytes of a file in which its fields are looked for

HELP = (
    "Train a classifier of toxic text on the labelled sets of a folder, for the verifiers safety and safety.toxicity."
)

#: The fields of text and label of public sets, and the labels that mean toxic (none: 1 or true): hate speech and
#: offensive language of Davidson et al. (2017); Lilac's concepts; the Jigsaw comments.
SHAPES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tweet", "class", ("0", "1")),
    ("text", "label", ()),
    ("comment_text", "toxic", ()),
)


def arguments(command: argparse.ArgumentParser) -> None:
    """The folder and the name."""
    fields = ", ".join(f"{text}/{label}" for text, label, _ in SHAPES)
    command.add_argument("folder", metavar="FOLDER", help=f"JSON, JSON lines, CSV or Parquet with the fields {fields}")
    command.add_argument("--name", default="toxicity", help="what to publish it as (default toxicity)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Train it, or find that it stands already."""
    folder = Path(options.folder)
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        merged = Path(scratch, "labels.jsonl")
        used, left_out = _merge(folder, merged)
        again = argparse.Namespace(
            labels=str(merged),
            name=options.name,
            text="text",
            label="label",
            positive=None,
            at_least=None,
            signals=False,
        )
        made, text = train_filter.run(again, settings)
    told = [f"{name}: {rows:,} texts" for name, rows in used.items()]
    told += [f"{name}: left out, {why}" for name, why in left_out.items()]
    return {**made, "sets": used, "left_out": left_out}, "\n".join(told) + f"\n\n{text}"


def _merge(folder: Path, merged: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Write the rows of every labelled set as text and label; (rows by file, why by file left out)."""
    from gristmill.dataops.learned.labels import Meaning, read_labels

    used: dict[str, int] = {}
    left_out: dict[str, str] = {}
    with merged.open("w") as out:
        for path in sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith(".")):
            shape = _shape(path)
            if shape is None:
                left_out[path.name] = "no labelled set of a known shape"
                continue
            used[path.name] = 0
            for frame in read_labels(path, Meaning(*shape)):
                used[path.name] += frame.height
                for text, label in zip(frame["text"], frame["label"], strict=True):
                    out.write(json.dumps({"text": text, "label": int(label)}) + "\n")
    if not used:
        fields = "; ".join(f"{text} and {label}" for text, label, _ in SHAPES)
        raise InputError(f"{folder} holds no labelled set; a row of one has the fields {fields}")
    return used, left_out


def _shape(path: Path) -> tuple[str, str, tuple[str, ...]] | None:
    """How to read a file: the first shape whose fields stand in its head, or None."""
    import pyarrow as pa

    try:
        fields = _fields(path)
    except (pa.ArrowException, OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}; mend it or take it out of the folder") from None
    return next((shape for shape in SHAPES if {*shape[:2]} <= fields), None)


def _fields(path: Path) -> set[str]:
    import fsspec
    import pyarrow.parquet as pq

    if path.suffix.lower() in (".parquet", ".pq"):
        return set(pq.read_schema(path).names)
    with fsspec.open(path, "rb", compression="infer") as file:
        head = file.read(_HEAD).decode("utf-8-sig", errors="replace")
    if head.lstrip()[:1] in ("{", "["):
        return set(re.findall(r'"(\w+)"\s*:', head))
    line = next(iter(head.splitlines()), "")
    return set(next(csv.reader([line], delimiter="\t" if "\t" in line else ","), []))
