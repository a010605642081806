"""Better models out of closed batches of feedback, without a Prefect server."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.flows.commands.common import Result, open_store

HELP = "Align a model by closed batches of feedback: train, evaluate, gate, promote or say why not, ask anew."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which batch, and by which recipe."""
    command.add_argument(
        "batch", nargs="?", type=int, metavar="BATCH", help="a closed batch's id (default: all that are not aligned)"
    )
    command.add_argument("--recipe", metavar="FILE", help="JSON or YAML (default: see README)")
    command.add_argument("--database", metavar="URL", help="of the feedback (default: feedback.db in the root)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """What flows/posttrain.py does; a model that is blocked is a result and not an error."""
    from gristmill.dataops.feedback.database import open_database
    from gristmill.flows.wheel.claims import unaligned
    from gristmill.flows.wheel.page import markdown
    from gristmill.flows.wheel.recipe import Recipe, read_recipe
    from gristmill.flows.wheel.turn import align_batch

    store = open_store(settings)
    db = open_database(options.database or store.root)
    recipe = Recipe() if options.recipe is None else read_recipe(options.recipe)
    batches = [options.batch] if options.batch is not None else unaligned(db)
    found = {}
    for batch in batches:
        result = align_batch(store, db, batch, recipe)
        found[result["alignment"]] = result
    told = [markdown(result) for result in found.values()]
    return {"alignments": list(found.values())}, "\n".join(told) or "every closed batch is aligned"
