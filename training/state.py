"""The state of a training run on disk, so that a run that was stopped goes on to the same bytes.

A state is weights, optimiser moments and what the step itself remembers, in one file that is replaced by one rename.
Weights are whole in it, however many devices they are spread over.

The law: a state is whole or not there, and is found only by the key that wrote it. Not covered: states of another world
size, which `Stream` refuses by its cursor; processes that do not see one folder.
"""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from gristmill.dataops.dataset import InputError
from gristmill.training.pretraining.parallel import Peers, like, whole


def place(root: str | Path, name: str, key: str) -> Path:
    """Where the state of a run lies."""
    return Path(root) / ".training" / f"{name}-{key[:12]}.pt"


def save_state(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, kept: dict[str, Any], peers: Peers
) -> None:
    """Write a state over the one before it; `kept` is JSON. All processes call it, the first one writes, and none goes
    on before it has."""
    state = whole({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, peers.first)
    if peers.first:
        _write(path, {**state, "kept": json.dumps(kept)})
    peers.wait()


def _write(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put a state into model and optimiser and return what the step remembered; None where there is none. Every process
    reads all of it, and keeps its part.

    Raises InputError for a damaged one.
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:  # torch reads without looking at checksums
                raise ValueError(f"{damaged} does not have its checksum")
        found = torch.load(path, map_location="cpu", weights_only=True)
        kept: dict[str, Any] = json.loads(found["kept"])
        there = model.state_dict()
        model.load_state_dict({name: like(value, there[name]) for name, value in found["model"].items()})
        optimizer.load_state_dict(_like(found["optimizer"], optimizer))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds a state that cannot be read ({error}): remove it to start anew") from None
    return kept


def _like(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's state with its moments spread as the parameters that they belong to."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        number: {
            name: like(value, parameters[number]) if value.shape == parameters[number].shape else value
            for name, value in of.items()
        }
        for number, of in state["state"].items()
    }
    return {**state, "state": moments}
