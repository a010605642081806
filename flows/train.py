"""Hand datasets to a training step: a process of its own, with a spec file in and one line of JSON out.

Where a spec names data, it may say {"dataset": "NAME@TAG"}: the path and the digest are filled in, so what was read is
part of what is published. The laws: a step's own words reach the user, not a traceback of ours; Ctrl-C stops the step
as SIGTERM does, with its state kept, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store

#: The steps, and what each is for.
STEPS = {
    "pretrain": "packed tokens to a base model",
    "sft": "packed chats to a model that answers",
    "reward": "preference pairs to a reward model",
    "preference": "pairs or thumbs to a preferred model: DPO and its family, KTO, ORPO, SimPO",
    "logprobs": "a reference model's log-probabilities of pairs, as a dataset",
    "rl": "tasks with verifiers to a better model: GRPO, RLOO",
    "ppo": "the same by PPO, with a value model",
    "merge": "several checkpoints to one",
    "generate": "prompts to responses, as a dataset",
    "evaluate": "a checkpoint to its measures, as a dataset",
}
STOPPED = 143


def train(step: str, store: Store, spec: Mapping[str, Any], *, processes: int = 1, dry: bool = False) -> dict[str, Any]:
    """Run a step under `store` and tag what it publishes `latest`; returns what the step printed.

    `spec` holds the step's fields, without `root`; `processes` are started by torchrun where they are several. Raises
    InputError where the step refuses the data or the spec, OSError where the machine could not do it (a disk, memory),
    RuntimeError where it fails, KeyboardInterrupt where it was stopped.
    """
    if step not in STEPS:
        raise InputError(f"no step {step!r}; there are: {', '.join(STEPS)}")
    wanted = {**resolved(store, spec), "root": str(store.root)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(wanted))
        launch = ["-m"]
        if processes > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        command = [sys.executable, *launch, f"gristmill.training.{step}", "--spec", str(path)]
        status, out, error = _run([*command, "--dry-run"] if dry else command)
    if status == 2:
        raise InputError(f"{step}: {error}")
    if status == STOPPED:
        raise KeyboardInterrupt
    if status == 1 and error:
        raise OSError(f"{step}: {error}")
    if status != 0:
        raise RuntimeError(f"{step} ended with status {status}: its reason stands above")
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    if not dry:
        store.tag(told["name"], "latest", told["key"])
    return told


def named(dataset: Dataset, **more: Any) -> dict[str, Any]:
    """A dataset as specs name it."""
    return {"path": dataset.path, "digest": dataset.digest, **more}


def resolved(store: Store, value: Any) -> Any:
    """A spec in which every {"dataset": REFERENCE, ...} names the path and digest of that version."""
    if isinstance(value, Mapping):
        if "dataset" in value:
            rest = {key: resolved(store, item) for key, item in value.items() if key != "dataset"}
            return named(store.get(str(value["dataset"])), **rest)
        return {key: resolved(store, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolved(store, item) for item in value]
    return value


def _run(command: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, stdout, and the error that a step told; the rest of its stderr is passed on as it comes. A signal to
    us is one SIGTERM to it, and then its own end is awaited."""
    # A session of its own: Ctrl-C in a terminal would else reach the step too, in the middle of whatever it does.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    told: list[str] = []
    listener = threading.Thread(target=_pass_on, args=(process.stderr, told), daemon=True)
    listener.start()

    def stop(*_: object) -> None:
        process.terminate()

    assert process.stdout is not None
    with _handling(stop):
        out = process.stdout.read()
        status = process.wait()
    listener.join()
    return status if status >= 0 else 128 - status, out, told[-1] if told else ""


def _pass_on(lines: Any, told: list[str]) -> None:
    for line in lines:
        if line.startswith("error: "):
            told.append(line.removeprefix("error: ").strip())
        else:
            print(line, end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _handling(handler: Callable[..., None]) -> Iterator[None]:
    """SIGTERM and SIGINT go to `handler` for a while. Only the main thread may say so: elsewhere (a flow's worker)
    they stay with whoever runs it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
