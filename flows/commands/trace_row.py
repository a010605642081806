"""From a row, or from a model, back to the record it came from; from a response that was trained on, to its task; from
a preference, or from a step of a model that learned them, to its judgements."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store
from gristmill.flows.commands.common import CUT, REFERENCE, Result, open_store, table

HELP = (
    "Go from a row (and a token in it), or from a model, back to the page and its WARC record, read again; from one of "
    "a model's rollouts to its scores and its task; from a pair or a thumb, or from a training step of a model that "
    "learned them, to the judgements, their raters and the responses."
)


def arguments(command: argparse.ArgumentParser) -> None:
    """Which row, and which token in it."""
    command.add_argument("name", help=REFERENCE)
    command.add_argument(
        "row",
        type=int,
        help="row number, from 0; of a model, the sample that pretraining read so, "
        "or of one by `preference` or `reward` the training step, from 1",
    )
    command.add_argument(
        "position", type=int, nargs="?", help="token in a packed row, or row of a training step, from 0"
    )


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """From a row back to its source."""
    from gristmill.flows import preferred, rollouts, stepped
    from gristmill.flows.models import is_model

    store = open_store(settings)
    dataset = store.get(options.name)
    if rollouts.is_rollouts(dataset):
        story = rollouts.rollout(dataset, options.row)
        return story, rollouts.told(story)
    if is_model(dataset):
        if stepped.tells(dataset):
            story = stepped.step(dataset, options.row, options.position or 0)
            return story, stepped.told(story)
    elif preferred.is_preferred(dataset) or (dataset.kind != "checkpoint" and not preferred.from_pages(dataset)):
        if options.position is not None:
            raise InputError(f"{dataset.name} does not go back to a crawl: there is no page of a token")
        story = preferred.row(dataset, options.row)
        return story, preferred.told(story)
    story = traced(store, dataset, options.row, options.position)
    return story, told(story)


def traced(store: Store, dataset: Dataset, row: int, position: int | None = None) -> dict[str, Any]:
    """The way back from a row, or from a model's sample: models, dataset, page and record."""
    from gristmill.dataops.catalogue import Index
    from gristmill.dataops.lineage import trace as go
    from gristmill.flows.models import is_model, pretrained, sample

    if not is_model(dataset):
        return go(Index.open(store), dataset, row, position)
    chain, base = pretrained(dataset)
    models = [{"name": item.name, "key": item.key, "op": item.manifest["ops"][-1]["name"]} for item in chain]
    story = go(Index.open(store), *sample(base, row), position)
    return {"models": models, "sample": row, **story}


def told(story: dict[str, Any]) -> str:
    """As lines for a terminal."""
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
