"""All published versions under a root, or its models and where they stand."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gristmill.dataops.store import Store
from gristmill.flows.commands.common import Result, open_store, table

HELP = "List the datasets under a root; `ls models`: its models, and which passed their gates."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which of them."""
    command.add_argument(
        "what", nargs="?", choices=("datasets", "models"), default="datasets",
        help="datasets (the default), or models: checkpoints and whether they passed their gates",
    )  # fmt: skip


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """All published versions, or all models."""
    store = open_store(settings)
    return _models(store) if options.what == "models" else _datasets(store)


def _datasets(store: Store) -> Result:
    latest = {name: store.get(name).key for name in store.names()}
    rows = [
        {
            "name": item.name, "key": item.key, "digest": item.digest, "kind": item.kind, "rows": item.rows,
            "made_at": item.manifest["made"].get("at"), "latest": latest[item.name] == item.key,
        }
        for item in store.all()
    ]  # fmt: skip
    return {"root": str(store.root), "datasets": rows}, _text(rows, store.root)


def _models(store: Store) -> Result:
    from gristmill.dataops.gates.record import model_states

    rows = [state.as_row() for state in model_states(store)]
    head = [["name", "key", "state", "", "judged", "by", "because"]]
    body = [
        [
            row["name"],
            row["key"][:12],
            row["state"],
            "promoted" if row["promoted"] else "",
            row["judged_at"] or "",
            row["judgement"] or "",
            _because(row["reasons"]),
        ]
        for row in rows
    ]
    return {"root": str(store.root), "models": rows}, table(head + body) if rows else f"no models under {store.root}"


def _because(reasons: list[str]) -> str:
    """The first reason, and how many more there are."""
    if not reasons:
        return ""
    return reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")


def _text(rows: list[dict[str, Any]], root: Path) -> str:
    if not rows:
        return f"no datasets under {root}"
    head = [["name", "key", "kind", "rows", "made", ""]]
    body = [
        [
            row["name"],
            row["key"][:12],
            row["kind"],
            f"{row['rows']:,}",
            row["made_at"] or "",
            "latest" if row["latest"] else "",
        ]
        for row in rows
    ]
    return table(head + body, right=(3,))
