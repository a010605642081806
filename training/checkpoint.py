"""Models as datasets: where a training step builds one, and how the next step loads it.

The law kept here: a step that fails or is stopped leaves nothing behind but what it has published.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from gristmill.dataops.dataset import Dataset, InputError, is_remote


@contextlib.contextmanager
def building(root: str | Path, name: str) -> Iterator[Path]:
    """A folder to build a checkpoint in, on the file system of `root` so that publishing is one rename.

    It holds an empty `files/`; when the block is left, whatever was not published is removed.
    """
    folder = Path(root) / ".building" / f"{name}-{uuid.uuid4().hex[:12]}"
    try:
        (folder / "files").mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Weights and configuration into `folder`, as transformers reads them."""
    disable_progress_bar()
    model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # safetensors makes files that only their owner can read


def load_model(dataset: Dataset) -> PreTrainedModel:
    """The causal language model of a checkpoint, on the CPU. Raises InputError where the dataset holds no model,
    DamagedError where a byte of it has changed."""
    names = {entry["file"] for entry in dataset.manifest.get("files", [])}
    weights = {"files/model.safetensors", "files/model.safetensors.index.json"}  # whole, or cut into several files
    if "files/config.json" not in names or not weights & names:
        raise InputError(f"{dataset.name} at {dataset.path} holds no model (config.json and model.safetensors)")
    if is_remote(dataset.path):
        raise InputError(f"{dataset.path}: copy the checkpoint to a local folder first")
    disable_progress_bar()
    dataset.check_files()
    return AutoModelForCausalLM.from_pretrained(dataset.file(""), local_files_only=True)


def versions(*more: str) -> dict[str, str]:
    """What a training step runs on, with the packages that it names: recorded, never part of the identity."""
    names = ("torch", "transformers", "numpy", "pyarrow", *more)
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
