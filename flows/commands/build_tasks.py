"""Tasks for reinforcement learning out of files, each probed by its own verifier."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.flows.commands.common import Result, folder_name, funnel, open_store, plain, positive, table
from gristmill.flows.commands.verify import open_verifier, verifier_arguments

HELP = "Build tasks for rl, ppo and evaluate out of files: each gold answer must pass its verifier, an empty one fail."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which files, judged by what, and what is kept out."""
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="prompts with gold answers or tests: JSON lines, JSON arrays, Parquet; files, globs, folders, URLs",
    )
    verifier_arguments(command, required=True)
    command.add_argument("--name", type=folder_name, default="tasks", help="what to call the result (default tasks)")
    command.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="which column of the files is prompt, gold, tests, ...; repeatable (default: GSM8K, MATH, HumanEval and "
        "MBPP are known, else prompt is prompt)",
    )
    command.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="[NAME=]PATH[:FIELDS]",
        help="a benchmark file whose items are kept out, as for decontaminate; repeatable",
    )
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of flows/sets/tasks.py; status 2 where no task is left."""
    from pathlib import Path

    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.dataops.store import Store
    from gristmill.flows.progress import draw
    from gristmill.flows.sets.tasks import reasons, task_set

    columns = dict(_column(text) for text in options.column)
    if options.model is not None:
        open_store(settings)  # the classifier stands in a root that is there
    verifier = open_verifier(options, settings)
    with LocalPool(settings.get("workers")) as pool:
        executor = InProcess() if pool.workers == 1 else pool
        store = Store(Path(settings["root"]), executor, draw)
        made = task_set(store, options.files, verifier, name=options.name, columns=columns, against=options.against)
    tasks = made["tasks"]
    import polars as pl

    golds = tasks.scan().select(pl.col("gold_passes").sum()).collect().item()
    counts = {op: tally for step in made.values() for op, tally in step.manifest["counts"].items()}
    scorer = {
        "name": verifier.name,
        "call": "gristmill.flows.scoring:verifier",
        "settings": {"verifier": verifier.origin or verifier.name, **verifier.identity["params"]},
    }
    result = {
        "name": tasks.name,
        "key": tasks.key,
        "digest": tasks.digest,
        "rows": tasks.rows,
        "gold_passes": golds,
        "verifier": verifier.identity,
        "forms": {name.removeprefix("rows_"): rows for name, rows in made["read"].manifest["stats"].items()},
        "datasets": [{"name": step.name, "key": step.key, "rows": step.rows} for step in made.values()],
        "counts": counts,
        "reasons": reasons(made),
        "examples": _examples(made),
        "scorer": scorer,
        "train": f"gristmill train rl --data {tasks.name}@latest --start MODEL --set 'rewards={json.dumps([scorer])}'",
    }
    return result, _text(result)


def _column(text: str) -> tuple[str, str]:
    name, equals, column = text.partition("=")
    if not equals or not name or not column:
        raise InputError(f"--column {text}: write NAME=COLUMN, such as gold=answer")
    return name, column


def _examples(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each reason the first row that went, with its file and line."""
    places = made["read"].scan().select("id", "source_file", "source_line")
    found = []
    for step in made.values():
        first = step.ledger().collect().unique("reason", keep="first", maintain_order=True)
        near = first.join(places.join(first.lazy().select("id"), on="id", how="semi").collect(), on="id", how="left")
        for row in near.iter_rows(named=True):
            why, file, line = row["evidence"] or "", row["source_file"], row["source_line"]
            if file is None:  # found as it was read: "line 7: what was seen"
                at, _, why = why.removeprefix("line ").partition(": ")
                file, line = row["warc"], int(at)
            found.append({"reason": row["reason"], "file": file, "line": line, "why": why})
    return found


def _text(result: dict[str, Any]) -> str:
    forms = ", ".join(f"{name} {rows:,}" for name, rows in result["forms"].items())
    without = result["rows"] - result["gold_passes"]
    probed = f"{result['gold_passes']:,} with a gold answer that passes"
    probed += f", {without:,} without one (of these it is only known that an empty answer fails)" if without else ""
    lines = [f"read as: {forms}", "", funnel(result["counts"]), ""]
    lines.append(f"{result['name']}:{result['key'][:12]}  {result['rows']:,} tasks for {result['verifier']['name']}")
    lines.append(probed)
    if result["examples"]:
        rows = [[one["reason"], f"{one['file']}:{one['line']}", str(plain(one["why"]))] for one in result["examples"]]
        lines += ["", "dropped, one of each reason:\n" + table(rows)]
    return "\n".join([*lines, "", result["train"]])
