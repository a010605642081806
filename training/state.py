"""The state of a training run on disk, so that a run that was stopped goes on to the same bytes.

A state is weights, optimiser moments and what the step itself remembers, in one file that is replaced by one rename.
The law: a state is whole or not there, and is found only by the key that wrote it. Not covered: states of another world
size, which `Stream` refuses by its cursor.
"""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from gristmill.dataops.dataset import InputError


def place(root: str | Path, name: str, key: str) -> Path:
    """Where the state of a run lies."""
    return Path(root) / ".training" / f"{name}-{key[:12]}.pt"


def save_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, kept: dict[str, Any]) -> None:
    """Write a state over the one before it; `kept` is JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "kept": json.dumps(kept)}
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def load_state(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Put a state into model and optimiser and return what the step remembered; None where there is none.

    Raises InputError for a damaged one.
    """
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
        kept: dict[str, Any] = json.loads(found["kept"])
        model.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
    except (OSError, ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} holds a state that cannot be read ({error}): remove it to start anew") from None
    return kept
