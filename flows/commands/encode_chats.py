"""Chats, preference pairs and judged replies out of files, encoded for training."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.flows.commands.common import REFERENCE, Result, folder_name, funnel, open_store, plain, positive, table
from gristmill.flows.models import is_model

HELP = "Encode chats (packed, with what the loss counts), preference pairs or thumbs from files, for training."
#: What each kind of data trains.
_STEPS = {"chats": "sft", "pairs": "preference", "thumbs": "preference --set loss=kto"}


def arguments(command: argparse.ArgumentParser) -> None:
    """Which files, for which model, and how long a row may be."""
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="JSON lines, JSON arrays, Parquet or what datasets saved: files, globs, folders, URLs",
    )
    command.add_argument(
        "--tokenizer", required=True, metavar="REF", help=f"a chat tokenizer, a model or a tokenizer: {REFERENCE}"
    )
    command.add_argument(
        "--template",
        metavar="NAME|FILE",
        help="of one that has none: chatml, gemma, llama2, llama3, mistral, qwen, or a .jinja file (default: the "
        "tokenizer's own, else chatml)",
    )
    command.add_argument(
        "--format",
        metavar="NAME",
        help="what the chats are in: messages, sharegpt, alpaca, dolly, self-instruct, flan, completion, lima, hh, "
        "oasst (best path), oasst-all (all paths), chatgpt (its export), mt-bench (default: detected file by file, "
        "and said)",
    )
    command.add_argument("--name", required=True, type=folder_name, help="what to call the result")
    command.add_argument(
        "--kind",
        choices=list(_STEPS),
        default="chats",
        help="conversations (default); or pairs: prompt chosen rejected [margin]; or thumbs: prompt response label",
    )
    command.add_argument(
        "--seq-len", type=int, help="tokens of a packed row, and of a conversation or a pair at most (default 4096)"
    )
    command.add_argument(
        "--loss",
        choices=["assistant", "completion"],
        default="assistant",
        help="of chats: all that the assistant says (default), or its last turn",
    )
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The steps of dataops/chat/recipe.py; status 2 where no row is left."""
    from gristmill.dataops.chat import recipe
    from gristmill.dataops.chat.detect import detect
    from gristmill.dataops.chat.formats.find import find
    from gristmill.dataops.executor import InProcess, LocalPool
    from gristmill.flows.progress import draw

    of_chats = {"--loss": options.loss if options.loss != "assistant" else None, "--format": options.format}
    if options.kind != "chats" and any(of_chats.values()):
        said = " ".join(f"{name} {value}" for name, value in of_chats.items() if value is not None)
        raise InputError(f"{said} is of chats: leave it out for {options.kind}")
    store, name, most = open_store(settings), options.name, settings.get("seq_len", 4096)
    with LocalPool(settings.get("workers")) as pool, store.tags_kept():
        store.executor, store.progress = InProcess() if pool.workers == 1 else pool, draw
        given = store.get(options.tokenizer)
        chat = recipe.speaker(store, options.tokenizer, options.template)
        if options.kind == "chats":
            formats = [vars(item) for item in detect(find(options.files), options.format)]
            made = recipe.sft(
                store, options.files, chat, seq_len=most, loss=options.loss, format=options.format, name=name
            )
            steps = [made.input(0).input(0), made.input(0), made]
        else:
            formats = []
            build = recipe.pairs if options.kind == "pairs" else recipe.thumbs
            made = build(store, options.files, chat, max_tokens=most, name=name)
            steps = [made.input(0), made]
        counts = {op: tally for step in steps for op, tally in step.manifest["counts"].items() if op != "pack.best_fit"}
        examples = [example for step in steps for example in examples_of(step, steps[0])]
        if not made.rows:
            raise InputError(
                f"{name}: no row is left to train on\n{formats_told(formats)}{funnel(counts)}\n{dropped_told(examples)}"
            )
    start = start_of(given, chat, options.tokenizer)
    result = {
        "name": made.name,
        "key": made.key,
        "digest": made.digest,
        "rows": made.rows,
        "datasets": [step_told(step) for step in steps],
        "chat": {"name": chat.name, "key": chat.key, "template": chat.manifest["stats"]["template"]},
        "formats": formats,
        "counts": counts,
        "examples": examples,
        **(_packed(made) if options.kind == "chats" else _pairs(made)),
        "train": " ".join(["gristmill train", _STEPS[options.kind], f"--data {name}@latest", start]),
    }
    return result, _text(result)


def start_of(given: Dataset, chat: Dataset, reference: str) -> str:
    """How a training step is told the model and, where the model does not know it, the chat tokenizer."""
    start = f"--start {reference if is_model(given) else 'MODEL'}"
    known = is_model(given) and given.manifest["stats"].get("template") is not None
    return start if known else f"{start} --tokenizer {chat.name}@latest"


def step_told(made: Dataset) -> dict[str, Any]:
    dropped = sum(tally["dropped"] for tally in made.manifest["counts"].values())
    return {"name": made.name, "key": made.key, "rows": made.rows, "dropped": dropped}


def examples_of(step: Dataset, read: Dataset) -> list[dict[str, Any]]:
    """Of each reason the first row that a step dropped: its file, its line and what was seen."""
    first = step.ledger().collect().unique("reason", keep="first", maintain_order=True)
    places = read.scan().select("id", "source_file", "source_line").join(first.lazy().select("id"), on="id", how="semi")
    found = []
    for row in first.join(places.collect(), on="id", how="left", maintain_order="left").iter_rows(named=True):
        why, line = row["evidence"], row["source_line"]
        if row["warc"] is not None:  # found as it was read: "line 7: what was seen"
            at, _, why = why.removeprefix("line ").partition(": ")
            line = int(at)
        if why is None:
            why = _measured(row["reason"], row["value"], row["threshold"])
        found.append({"reason": row["reason"], "file": row["source_file"] or row["warc"], "line": line, "why": why})
    return found


def _measured(reason: str, value: float | None, threshold: float | None) -> str:
    """What was held against what."""
    if value is None:
        return ""
    if reason == "too_long":
        return f"{value:,.0f} tokens, the most is {threshold:,.0f}"
    return f"{value:.4g}" if threshold is None else f"{value:.4g}, against {threshold:.4g}"


def _packed(made: Dataset) -> dict[str, Any]:
    """Tokens, those that the loss counts, and the share of rows that is padding."""
    stats = made.manifest["stats"]
    return {
        "seq_len": made.manifest["ops"][-1]["params"]["seq_len"],
        "conversations": stats["documents"],
        "tokens": stats["tokens"],
        "loss_tokens": stats["targets"],
        "loss_share": stats["targets"] / stats["tokens"],
        "padding_share": stats["padding"] / (stats["padding"] + stats["tokens"]),
    }


def _pairs(made: Dataset) -> dict[str, Any]:
    """Tokens as a model reads them, the prompt with each reply, and those of replies."""
    import polars as pl

    replies = [name for name in ("chosen_ids", "rejected_ids", "completion_ids") if name in made.schema().names]
    sums = [pl.col(column).list.len().cast(pl.Int64).sum().alias(column) for column in ("prompt_ids", *replies)]
    found = made.scan().select(sums).collect().row(0, named=True)
    said = sum(found[column] for column in replies)
    tokens = said + len(replies) * found["prompt_ids"]
    return {"tokens": tokens, "loss_tokens": said, "loss_share": said / tokens}


def _text(result: dict[str, Any]) -> str:
    chat = result["chat"]
    amount = f"{result['tokens']:,} tokens, {result['loss_share']:.1%} of them with loss"
    if "seq_len" in result:
        amount = (
            f"{result['conversations']:,} conversations in {result['rows']:,} rows of {result['seq_len']:,}; {amount}; "
            f"{result['padding_share']:.1%} padding"
        )
    else:
        amount = f"{result['rows']:,} rows; {amount}"
    lines = [formats_told(result["formats"]) + funnel(result["counts"]), ""]
    lines += [
        f"{result['name']}:{result['key'][:12]}  {amount}",
        f"for {chat['name']}:{chat['key'][:12]}, template {chat['template'][:12]}",
    ]
    if result["examples"]:
        lines += ["", dropped_told(result["examples"])]
    return "\n".join([*lines, "", result["train"]])


def formats_told(formats: list[dict[str, Any]]) -> str:
    """How many files are in which format, and by what."""
    found = Counter((item["format"], item["why"]) for item in formats)
    rows = [[name, f"{files:,} file{'s' * (files > 1)}", plain(why)] for (name, why), files in found.items()]
    return f"read as:\n{table(rows)}\n\n" if rows else ""


def dropped_told(examples: list[dict[str, Any]]) -> str:
    rows = [[one["reason"], f"{one['file']}:{one['line']}", str(plain(one["why"]))] for one in examples]
    return "dropped, one of each reason:\n" + table(rows)
