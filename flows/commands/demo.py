"""The whole way on a crawl made on the spot: pages, tokens, a tiny model, and what post-training makes of it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.dataops.store import Store
from gristmill.flows.commands.common import Result, positive, table
from gristmill.flows.commands.run import run_pretrain_data
from gristmill.flows.commands.run import told as run_told
from gristmill.flows.commands.trace_row import told as trace_told
from gristmill.flows.commands.trace_row import traced

if TYPE_CHECKING:
    from gristmill.flows.stages import Stage

HELP = "Make a crawl on the spot, clean it, pretrain a tiny model on it, post-train, gate and promote that."

#: What is told of a stage: of its step, and of its evaluation with the way to print it.
_TOLD = (
    "name", "key", "path", "steps", "tokens", "first_loss", "last_loss", "unigram_entropy", "rewards", "validation",
)  # fmt: skip
_SHOWN = {"text/loss": ".3f", "sums/pass@1": ".0%"}


def arguments(command: argparse.ArgumentParser) -> None:
    """How long to train."""
    command.add_argument("--train-seconds", type=positive, default=60, help="how long to pretrain (default 60)")
    command.add_argument(
        "--until",
        choices=["pretrain", "rl", "feedback"],
        default="rl",
        help="a base model; what SFT, DPO and GRPO make of it (default); or three rounds of feedback besides",
    )
    command.add_argument("--workers", type=positive, help="worker processes (default: one per core)")


def run(options: argparse.Namespace, settings: dict[str, Any]) -> Result:
    """The main job end to end; status 1 where a model is blocked."""
    from gristmill.dataops.sample import write_sample
    from gristmill.flows.demo import SEQ_LEN, post_train
    from gristmill.flows.stages import Blocked

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
    settings = {"vocab_size": 4_096, "seq_len": SEQ_LEN, **settings}
    leak = next(case for case in truth["cases"] if case["kind"] == "benchmark_leak")
    benchmark = root / "bakery.jsonl"
    benchmark.write_text(json.dumps({"prompt": leak["prompt"], "answer": leak["answer"]}) + "\n")
    _write_answers(root)
    settings |= {"redact": [], "benchmarks": [str(benchmark)], "holdout": ("page", 0.05)}
    result = run_pretrain_data([str(path)], settings)
    result["sample"] = {"path": str(path), "pages": truth["pages"], "seconds": made}
    store = Store(root)
    try:
        stages = post_train(store, options.train_seconds, "pretrain" if options.until == "pretrain" else "rl")
    except Blocked as blocked:
        return {**result, "blocked": str(blocked), "status": 1}, f"{run_told(result)}\n\n{blocked}"
    result["gates"] = str(root / "gates.yaml")
    result["stages"] = [_row(item) for item in stages]
    result["trace"] = traced(store, stages[-1].model, 0)
    if options.until == "feedback":
        result["rounds"] = _rounds(store)
    result["try"] = _try_next(root, truth, stages[-1].model.name)
    result["seconds_in_all"] = round(time.perf_counter() - started, 1)
    return result, _text(result)


def _row(item: Stage) -> dict[str, Any]:
    """A stage as data."""
    told = {name: value for name, value in item.told.items() if name in _TOLD}
    by = item.model.manifest["ops"][-1]["name"]
    return {**told, "by": by, **{name: item.value(name) for name in _SHOWN}, "seconds": round(item.seconds, 1)}


def _rounds(store: Store) -> dict[str, Any]:
    """Three rounds of feedback: what each made of the model, and their picture."""
    from gristmill.flows import rounds

    played = rounds.play(store)
    picture = store.root / "reports" / "rounds.svg"
    picture.write_text(rounds.plot(played))
    told = [
        {
            "round": one.number, "verdict": one.result["verdict"], "reasons": one.result["reasons"],
            "model": one.result["promoted"], "report": one.result["report"],
            **{name: one.value(name) for name in (rounds.ACCURACY, rounds.SUMS)},
        }
        for one in played
    ]  # fmt: skip
    before = {name: played[0].value(name, "before") for name in (rounds.ACCURACY, rounds.SUMS)} if played else {}
    return {"before": before, "rounds": told, "picture": str(picture)}


def _write_answers(root: Path) -> None:
    """Two files of responses for `gristmill verify`."""
    from gristmill.dataops.demo.answers import PROGRAMS, SUMS

    for name, cases in (("sums", SUMS), ("programs", PROGRAMS)):
        (root / f"{name}.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases))


def _try_next(root: Path, truth: dict[str, Any], model: str) -> list[str]:
    """Three commands that show something on the demo's data."""
    twin = next(case for case in truth["cases"] if case["kind"].startswith("near"))
    at = f" --root {shlex.quote(str(root))}"
    me = "gristmill" if shutil.which("gristmill") else shlex.quote(os.path.relpath(sys.argv[0]))
    return [f"{me} why {twin['uri']}{at}", f"{me} report {model}{at}", f"{me} show clean{at}"]


def _text(result: dict[str, Any]) -> str:
    base, last = result["stages"][0], result["stages"][-1]
    rows = [["model", "by", "loss on held-out text", "held-out sums right", "seconds"]]
    for row in result["stages"]:
        shown = ["" if row[name] is None else f"{row[name]:{form}}" for name, form in _SHOWN.items()]
        rows.append([f"{row['name']}:{row['key'][:12]}", row["by"], *shown, f"{row['seconds']:.0f}"])
    lines = [
        run_told(result),
        f"Model: loss {base['first_loss']:.2f} -> {base['last_loss']:.2f} in {base['steps']:,} steps of pretraining "
        f"({base['tokens']:,} tokens; knowing only how frequent each token is gives {base['unigram_entropy']:.2f})",
        f"Each model passed {result['gates']} before the next was made of it:\n{table(rows, right=(2, 3, 4))}",
        f"Promoted: {last['name']}@promoted in {last['path']}" if last is not base else f"Published: {base['path']}",
        *([_rounds_text(result["rounds"])] if "rounds" in result else []),
        f"Where its first sample of pretraining comes from:\n{trace_told(result['trace'])}",
        "Try next:\n" + "\n".join(f"  {command}" for command in result["try"]),
        f"{result['seconds_in_all']:.0f} s in all",
    ]
    return "\n\n".join(lines)


def _rounds_text(told: dict[str, Any]) -> str:
    rows = [["round", "verdict", "held-out pairs told apart", "held-out sums right"]]
    for one in ({"round": "before", "verdict": "", **told["before"]}, *told["rounds"]):
        values = [one[name] for name in list(one) if "/" in name]
        rows.append(
            [str(one["round"]), one["verdict"], *("" if item is None else f"{item['value']:.1%}" for item in values)]
        )
    return f"Three rounds of feedback by four simulated raters ({told['picture']}):\n{table(rows, right=(2, 3))}"
