"""From a row, or from a model, back to the record it came from."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.flows.commands.common import CUT, REFERENCE, Result, open_store, table

HELP = "Go from a row (and a token in it), or from a model, back to the page and its WARC record, read again."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which row, and which token in it."""
    command.add_argument("name", help=REFERENCE)
    command.add_argument("row", type=int, help="row number, from 0; of a model, the sample that pretraining read so")
    command.add_argument("position", type=int, nargs="?", help="token in a packed row, from 0")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """From a row back to its source."""
    from gristmill.dataops.catalogue import Index
    from gristmill.dataops.lineage import trace as go
    from gristmill.flows.models import is_model, pretrained, sample

    store = open_store(settings)
    dataset, row = store.get(options.name), options.row
    models = []
    if is_model(dataset):
        chain, base = pretrained(dataset)
        models = [{"name": item.name, "key": item.key, "op": item.manifest["ops"][-1]["name"]} for item in chain]
        dataset, row = sample(base, row)
    story = go(Index.open(store), dataset, row, options.position)
    if models:
        story = {"models": models, "sample": options.row, **story}
    return story, _text(story)


def _text(story: dict[str, Any]) -> str:
    page, record = story["page"], story["record"]
    token = (
        f", position {story['position']} = token {story['token_in_document']:,} of the document"
        if "position" in story
        else ""
    )
    lines = []
    for model in story.get("models", []):
        lines.append(["model", f"{model['name']}:{model['key'][:12]} by {model['op']}"])
    if lines:
        lines.append(["sample", f"{story['sample']:,} of pretraining"])
    lines += [
        ["row", f"{story['dataset']}:{story['key'][:12]} row {story['row']}{token}"],
        ["page", f"{page['uri']}  id {story['id']}"],
        ["title", page["title"] or ""],
        ["record", f"{page['record_id'] or ''} of {page['date'] or 'no date'}"],
        ["file", f"{record['file']} at {page['offset']:,}, {page['length']:,} bytes"],
    ]
    if "problem" in record:
        lines.append(["re-read", record["problem"]])
    else:
        lines.append(["re-read", f"{record['bytes']:,} bytes of {record['mime']}, and they give the same id"])
        lines.append(["", record["head"].strip().replace("\n", " ")[:CUT]])
    return table(lines)
