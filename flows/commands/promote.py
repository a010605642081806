"""Make a checkpoint that passed its gates the promoted one of its name."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.flows.commands.common import REFERENCE, Result, open_store

HELP = "Promote a checkpoint that passed its gates; one that is blocked or was never judged is refused."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which one."""
    command.add_argument("model", metavar="MODEL", help=f"the checkpoint: {REFERENCE}, such as NAME@passed")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Move the tag and keep a record; doing it again changes nothing."""
    from gristmill.dataops.gates.record import promote, promotions

    store = open_store(settings)
    model = store.get(options.model)
    record, new = promote(store, model)
    history = [
        {"key": item.manifest["stats"]["model"]["key"], "at": item.manifest["made"]["at"],
         "judgement": item.manifest["stats"]["judgement"]["key"]}
        for item in promotions(store, model.name)
    ]  # fmt: skip
    judgement = record.manifest["stats"]["judgement"]
    result = {
        "model": {"name": model.name, "key": model.key, "digest": model.digest},
        "judgement": judgement,
        "promotion": {"name": record.name, "key": record.key, "digest": record.digest},
        "already": not new,
        "history": history,
    }
    said = "is the promoted one now" if new else "is the promoted one already"
    lines = [
        f"{model.name}:{model.key[:12]} {said}: {model.name}@promoted, by {judgement['name']}:{judgement['key'][:12]}"
    ]
    if len(history) > 1:
        lines.append(f"before it {model.name}:{history[-2]['key'][:12]}, since {history[-2]['at']}")
    return result, "\n".join(lines)
