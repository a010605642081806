"""What each command does: takes options and settings, returns its result as JSON-able data and as text to print."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store
from gristmill.flows import wording
from gristmill.flows.checks import check_pretrain_data

Result = tuple[dict[str, Any], str]


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The flow under Prefect, ephemeral unless a server is configured."""
    result = _pretrain_data(list(options.crawl), settings)
    return result, wording.run(result)


def demo(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The main job end to end on a crawl made on the spot, with a tiny model trained on the tokens."""
    from gristmill.dataops.sample import write_sample
    from gristmill.flows.train import pretrain

    root = Path(settings["root"])
    root.mkdir(parents=True, exist_ok=True)
    path = root / "sample.warc.gz"
    started = time.perf_counter()
    print("  making a crawl of this Python's own documentation", file=sys.stderr, flush=True)
    truth = write_sample(path)
    made = round(time.perf_counter() - started, 1)
    print(
        f"  {truth['pages']:,} pages in {path} ({path.stat().st_size / 1e6:.1f} MB), {made} s",
        file=sys.stderr,
        flush=True,
    )
    # A small vocabulary and short rows, so that a model of a few million weights learns something in a minute.
    settings = {"vocab_size": 4_096, "seq_len": 512, **settings}
    result = _pretrain_data([str(path)], settings)
    result["sample"] = {"path": str(path), "pages": truth["pages"], "seconds": made}
    print(f"  pretraining a tiny transformer for {options.train_seconds} s", file=sys.stderr, flush=True)
    result["checkpoint"] = pretrain(
        Store(root).get("packed"), root, seconds=options.train_seconds, depth=2, rows=2, learning_rate=2e-3
    )
    result["try"] = wording.try_next(root, truth)
    return result, wording.demo(result)


def ls(_: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """All published versions."""
    store = _store(settings)
    latest = {name: store.get(name).key for name in store.names()}
    rows = [
        {
            "name": item.name, "key": item.key, "digest": item.digest, "kind": item.kind, "rows": item.rows,
            "made_at": item.manifest["made"].get("at"), "latest": latest[item.name] == item.key,
        }
        for item in store.all()
    ]  # fmt: skip
    return {"root": str(store.root), "datasets": rows}, wording.ls(rows, store.root)


def show(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """A manifest in words, with the first rows."""
    dataset = _store(settings).get(options.name)
    rows = _head(dataset, 3)
    manifest = {name: value for name, value in dataset.manifest.items() if name not in ("shards", "ledger", "files")}
    return {**manifest, "path": dataset.path, "head": rows}, wording.show(dataset, rows)


def report(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The quality report."""
    from gristmill.dataops.report.page import write_report

    store = _store(settings)
    dataset = store.get(options.name)
    folder = Path(options.out) if options.out else store.root / "reports" / f"{dataset.name}-{dataset.key[:12]}"
    html, numbers = write_report(dataset, folder)
    size = Path(html).stat().st_size
    return {"html": str(html), "numbers": str(numbers), "bytes": size}, f"{html}  ({size / 1e6:.2f} MB)\n{numbers}"


def why(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """A page's story."""
    from gristmill.dataops.catalogue import Index
    from gristmill.dataops.lineage import why as tell

    store = _store(settings)
    stories = tell(Index.open(store), options.page)
    result: dict[str, Any] = {"page": options.page, "rows": stories}
    if not stories:
        result["status"] = 1
        return result, f"nothing is known of {options.page} under {store.root}: no crawl that was read held it"
    return result, wording.why(stories)


def trace(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """From a row back to its source."""
    from gristmill.dataops.catalogue import Index
    from gristmill.dataops.lineage import trace as go

    store = _store(settings)
    story = go(Index.open(store), store.get(options.name), options.row, options.position)
    return story, wording.trace(story)


def fsck(_: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """Everything read again."""
    from gristmill.dataops.fsck import fsck as check

    store = _store(settings)
    files, problems = check(store)
    result = {"root": str(store.root), "files": files, "problems": problems, "status": int(bool(problems))}
    lines = [f"{item['file']}: {item['problem']}" for item in problems]
    return result, "\n".join([*lines, f"{files} files read, {len(problems)} problems"])


def reindex(_: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The lineage index from the manifests alone."""
    from gristmill.dataops.catalogue import Index

    store = _store(settings)
    index = Index.open(store, anew=True)
    versions = len(store.all())
    path = index.engine.url.database
    return {"index": path, "versions": versions}, f"{path}: {versions} versions"


COMMANDS: dict[str, Callable[[argparse.Namespace, dict[str, Any]], Result]] = {
    "demo": demo, "run": run, "ls": ls, "show": show, "report": report,
    "why": why, "trace": trace, "fsck": fsck, "reindex": reindex,
}  # fmt: skip


def _store(settings: dict[str, Any]) -> Store:
    """A root to read from; one that is not there is a mistake, not an empty answer."""
    root = Path(settings["root"])
    if not root.is_dir():
        raise InputError(f"no root at {root}: run something first, or give --root")
    return Store(root)


def _pretrain_data(crawl: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Import and start Prefect, run the flow, and state apart what the orchestration took to start."""
    started = time.perf_counter()
    checked = {name: settings[name] for name in ("tokenizer", "vocab_size", "seq_len") if name in settings}
    check_pretrain_data(crawl, settings["root"], **checked)
    # Progress is ours; Prefect's own lines would double it. They still reach a configured server.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    from gristmill.flows.pretrain import pretrain_data

    logging.getLogger("prefect").propagate = False
    names = ("root", "tokenizer", "vocab_size", "seq_len", "languages", "extractor", "workers")
    result = pretrain_data(crawl, **{name: settings[name] for name in names if name in settings})
    total = time.perf_counter() - started
    result["orchestration"]["total"] = round(total - sum(result["seconds"].values()), 3)
    return result


def _head(dataset: Dataset, rows: int) -> list[dict[str, Any]]:
    """The first rows as data that prints: ids in hex, long values cut."""
    if dataset.kind == "checkpoint":
        return []
    return [
        {name: wording.plain(value) for name, value in row.items()} for row in next(dataset.batches(rows)).to_pylist()
    ] if dataset.rows else []  # fmt: skip
