"""The main job end to end on a crawl made on the spot, with a tiny model trained on the tokens."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from gristmill.dataops.store import Store
from gristmill.flows.commands.common import Result, positive
from gristmill.flows.commands.run import run_pretrain_data, told

HELP = "Make a crawl on the spot, run the whole flow on it and pretrain a tiny model on the tokens."


def arguments(command: argparse.ArgumentParser) -> None:
    """How long to train."""
    command.add_argument("--train-seconds", type=positive, default=60, help="how long to pretrain (default 60)")
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The main job end to end on a crawl made on the spot, with a tiny model trained on the tokens."""
    from gristmill.dataops.sample import write_sample
    from gristmill.flows.train import named, train

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
    leak = next(case for case in truth["cases"] if case["kind"] == "benchmark_leak")
    benchmark = root / "bakery.jsonl"
    benchmark.write_text(json.dumps({"prompt": leak["prompt"], "answer": leak["answer"]}) + "\n")
    _write_answers(root)
    settings |= {"redact": [], "benchmarks": [str(benchmark)]}
    result = run_pretrain_data([str(path)], settings)
    result["sample"] = {"path": str(path), "pages": truth["pages"], "seconds": made}
    print(f"  pretraining a tiny transformer for {options.train_seconds} s", file=sys.stderr, flush=True)
    store = Store(root)
    spec = {
        "data": [named(store.get("packed"))], "seconds": options.train_seconds, "model": {"depth": 2}, "rows": 2,
        "optimiser": {"learning_rate": 2e-3},
    }  # fmt: skip
    result["checkpoint"] = train("pretrain", store, spec)
    result["try"] = _try_next(root, truth)
    return result, _text(result)


def _write_answers(root: Path) -> None:
    """Two files of responses for `gristmill verify`."""
    from gristmill.dataops.demo.answers import PROGRAMS, SUMS

    for name, cases in (("sums", SUMS), ("programs", PROGRAMS)):
        (root / f"{name}.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases))


def _try_next(root: Path, truth: dict[str, Any]) -> list[str]:
    """Three commands that show something on the demo's data."""
    twin = next(case for case in truth["cases"] if case["kind"].startswith("near"))
    at = f" --root {shlex.quote(str(root))}"
    me = "gristmill" if shutil.which("gristmill") else shlex.quote(os.path.relpath(sys.argv[0]))
    return [f"{me} why {twin['uri']}{at}", f"{me} trace packed 0 100{at}", f"{me} show clean{at}"]


def _text(result: dict[str, Any]) -> str:
    model = result["checkpoint"]
    lines = [
        told(result),
        f"Model: loss {model['first_loss']:.2f} -> {model['last_loss']:.2f} in {model['steps']:,} steps "
        f"({model['tokens']:,} tokens; knowing only how frequent each token is gives {model['unigram_entropy']:.2f})\n"
        f"       {model['path']}",
        "Try next:\n" + "\n".join(f"  {command}" for command in result["try"]),
    ]
    return "\n\n".join(lines)
