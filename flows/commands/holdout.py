"""Carve a held-out slice."""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.flows.commands.common import REFERENCE, Result, open_store

HELP = "Carve a held-out slice by host, page or prompt: two views, one to train on and one never to."


def arguments(command: argparse.ArgumentParser) -> None:
    """Of what, how much, and what stays together."""
    command.add_argument("name", help=REFERENCE)
    command.add_argument("--fraction", type=float, default=0.01, help="share of the groups to hold out (default 0.01)")
    command.add_argument(
        "--by", choices=["host", "page", "prompt"], default="host", help="what stays together (default host)"
    )
    command.add_argument("--seed", type=int, default=1, help="which groups (default 1)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Both sides."""
    from gristmill.dataops.mix.holdout import holdout

    store = open_store(settings)
    sides = holdout(store, store.get(options.name), fraction=options.fraction, by=options.by, seed=options.seed)
    result = {side.name: {"key": side.key, "digest": side.digest, "rows": side.rows} for side in sides}
    return result, "\n".join(f"{side.name}:{side.key[:12]}  {side.rows:,} rows" for side in sides)
