"""Run a flow under Prefect, ephemeral unless a server is configured."""

from __future__ import annotations

import argparse
import logging
import os
import time
from typing import Any

from gristmill.flows.checks import check_pretrain_data
from gristmill.flows.commands.common import Result, funnel, positive, table

#: Settings of this command alone; the others have defaults elsewhere.
_OWN = ("rules", "classifier", "redact", "blocklists", "benchmarks", "after", "holdout")

HELP = "Run a flow: pretrain-data goes from crawl files to packed token shards."


def arguments(command: argparse.ArgumentParser) -> None:
    """Which flow, on what, and its settings."""
    command.add_argument("flow", choices=["pretrain-data"])
    command.add_argument(
        "--crawl", nargs="+", required=True, metavar="PATH", help="files, globs, folders, list files or URLs"
    )
    tokens = command.add_mutually_exclusive_group()
    tokens.add_argument("--tokenizer", metavar="FOLDER_OR_JSON", help="use this tokenizer")
    tokens.add_argument("--vocab-size", type=positive, help="train a byte-level BPE of this size (default 32000)")
    command.add_argument("--seq-len", type=positive, help="tokens per packed row (default 2048)")
    command.add_argument("--languages", nargs="*", metavar="CODE", help="languages to keep (default en; none: all)")
    command.add_argument("--extractor", choices=["resiliparse", "trafilatura"], help="HTML to text")
    command.add_argument(
        "--rules", choices=["fineweb", "multilingual", "refinedweb"], help="which filters (default fineweb)"
    )
    command.add_argument(
        "--classifier", metavar="NAME=SCORE", type=_scored, help="keep pages that this filter of train-filter scores so"
    )
    command.add_argument("--redact", nargs="*", metavar="TYPE", help="replace personal data (no TYPE: all but ids)")
    command.add_argument("--benchmarks", nargs="+", metavar="FILE", help="drop pages that hold items of these")
    command.add_argument("--after", metavar="UNIQUE", help="a version of `unique`: drop what it and its batches hold")
    command.add_argument(
        "--holdout", metavar="BY=SHARE", type=_share, help="keep pages out of training, whole hosts or pages: host=0.01"
    )
    command.add_argument("--blocklists", nargs="+", metavar="FILE", help="hosts, domains, URLs, substrings to refuse")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def _scored(text: str) -> tuple[str, float]:
    name, _, least = text.rpartition("=")
    try:
        return name, float(least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SCORE") from None


def _share(text: str) -> tuple[str, float]:
    by, _, share = text.partition("=")
    try:
        if by in ("host", "page") and 0 < float(share) < 1:
            return by, float(share)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not host=SHARE or page=SHARE, a share between 0 and 1")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The flow under Prefect, ephemeral unless a server is configured."""
    own = {name: value for name in _OWN if (value := getattr(options, name)) is not None}
    result = run_pretrain_data(list(options.crawl), {**settings, **own})
    return result, told(result)


def run_pretrain_data(crawl: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Import and start Prefect, run the flow, and state apart what the orchestration took to start."""
    started = time.perf_counter()
    checked = {name: settings[name] for name in ("tokenizer", "vocab_size", "seq_len") if name in settings}
    check_pretrain_data(crawl, settings["root"], **checked)
    # Progress is ours; Prefect's own lines would double it. They still reach a configured server.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")  # a busy machine takes minutes
    from gristmill.flows.pretrain import pretrain_data

    logging.getLogger("prefect").propagate = False
    names = ("root", "tokenizer", "vocab_size", "seq_len", "languages", "extractor", *_OWN, "workers")
    result = pretrain_data(crawl, **{name: settings[name] for name in names if name in settings})
    total = time.perf_counter() - started
    result["orchestration"]["total"] = round(total - sum(result["seconds"].values()), 3)
    return result


def told(result: dict[str, Any]) -> str:
    """What a flow made, where rows went, and how long it took."""
    rows = [["dataset", "key", "rows", "tokens", "seconds"]]
    for name, item in result["datasets"].items():
        tokens = "" if item["tokens"] is None else f"{item['tokens']:,}"
        rows.append([name, item["key"][:12], f"{item['rows']:,}", tokens, f"{result['seconds'].get(name, 0):.2f}"])
    total = sum(result["seconds"].values())
    start = result["orchestration"]["total"]
    times = f"{total:.1f} s of work, {start:.1f} s to start Prefect and the workers"
    return "\n\n".join(
        [funnel(result["counts"]), table(rows, right=(2, 3, 4)), times, f"Quality report: {result['report']}"]
    )
