"""The command line of every training step, and how a step ends.

    python -m gristmill.training.STEP --spec spec.json [--dry-run]

Progress goes to stderr, one JSON object with the result to stdout. Exit 0: published (or published before). 1: a file
is damaged, a disk is full, a device has too little memory. 2: the spec or the data is refused. 143: stopped by SIGTERM,
with the state kept. With --dry-run nothing is trained: the JSON says how many steps there are and what they need.

The law kept here: whatever a user can put right ends in one line that says what to do, without a traceback; what is
left is a mistake of ours and rises.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

# Read when torch loads. Threads that spin while they wait for each other triple a step's time on cores that are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A training step talks to nobody but its data and its engine.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from gristmill.dataops.dataset import DamagedError, Dataset, InputError
from gristmill.training.spec import read_spec

Spec = TypeVar("Spec")
STOPPED = 143  # what a shell reports for SIGTERM
PARENT = "GRISTMILL_PARENT"  # the process without which a step is not to go on


class Stopped(Exception):
    """Training was asked to stop, and its state is kept."""


def main(
    kind: type[Spec],
    run: Callable[[Spec], Dataset],
    dry: Callable[[Spec], Mapping[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a step from its command line; returns the exit status. `run` publishes what `kind` (a dataclass) says, `dry`
    says what that would need. Both raise InputError for what cannot be done."""
    step = sys.modules[run.__module__]
    name = (getattr(step, "__spec__", None) or step).__dict__.get("name", step.__name__)
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=(step.__doc__ or "").split("\n")[0])
    parser.add_argument("--spec", required=True, help=f"a JSON file with the fields of {kind.__name__}")
    parser.add_argument("--dry-run", action="store_true", help="say what it needs, and do nothing")
    options = parser.parse_args(argv)
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _terminate)  # while data is opened and models load; a loop takes its own
    try:
        _tether()
        spec = read_spec(options.spec, kind)
        told = dict(dry(spec)) if options.dry_run else summary(run(spec))
    except InputError as error:
        return _fail(f"error: {error}", 2)
    except Stopped as stopped:
        return _fail(str(stopped), STOPPED)
    except (DamagedError, OSError) as error:
        return _fail(f"error: {error}", 1)
    except Exception as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which a step without torch does not load
            raise
        return _fail(f"error: {out_of_memory(str(error), kind)}", 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(told))
    return 0


def _tether() -> None:
    """SIGTERM for us when whoever started us is killed (on Linux): we would go on unseen, beside the next try."""
    parent = os.environ.get(PARENT)
    if parent is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):
        raise Stopped("whoever started this step is gone")


def summary(dataset: Dataset) -> dict[str, Any]:
    """What is told of a published dataset."""
    told = {"path": os.fspath(dataset.path), "name": dataset.name, "key": dataset.key, "digest": dataset.digest}
    return told | dataset.manifest["stats"]


#: What takes less memory, by the field of a spec that says so, what changes the result least first.
LESS = {
    "accumulate": "raise `accumulate` (pieces of a step; the result stays the same)",
    "checkpointing": "set `checkpointing`",
    "parallel": 'set `parallel` to "fsdp" and take more processes',
    "batch_tokens": "lower `batch_tokens`",
    "rollout_tokens": "lower `rollout_tokens`",
    "tokens": "lower `tokens`",
    "vllm_memory": "lower `vllm_memory`",
    "engine": "give `engine` a smaller `window` or `memory`",
    "rows": "lower `rows`",
    "group": "lower `group`",
    "lora": "train a `lora`",
}


def out_of_memory(error: str, kind: type) -> str:
    """Which settings of a spec's class to change, with the device's own first words."""
    fields = {field.name for field in dataclasses.fields(kind)}
    known = [advice for name, advice in LESS.items() if name in fields]
    *most, last = [*known, "take shorter rows"]
    advice = f"{', '.join(most)} or {last}" if most else last
    return f"the device has too little memory ({error.split('. ')[0]}): {advice}; --dry-run tells what a setting needs"


def _terminate(*_: object) -> NoReturn:
    raise Stopped("stopped before the first step; the same spec starts anew")


def _fail(message: str, status: int) -> int:
    print(message, file=sys.stderr, flush=True)
    return status
