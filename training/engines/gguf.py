"""GGUF files as ordinary checkpoints, once and for all: weights in float32, tokenizer and chat template.

The law: the folder is whole or not there. Not covered: architectures whose GGUF transformers cannot read.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from gristmill.dataops.dataset import InputError


def from_gguf(file: str | Path, folder: str | Path) -> Path:
    """A GGUF file as an ordinary checkpoint (float32, with tokenizer and chat template) in `folder`, which is returned;
    one that stands there already is kept. Needs the packages gguf and accelerate. Raises InputError for other files."""
    from transformers import GgufConfig

    path, out = Path(file), Path(folder)
    if (out / "config.json").is_file():
        return out
    if not path.is_file() or path.read_bytes()[:4] != b"GGUF":
        raise InputError(f"{path} is no GGUF file")
    disable_progress_bar()
    # Without `dequantize` the model could not be saved.
    config = GgufConfig(gguf_file=path.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=config
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    building = out.parent / f".{out.name}-{uuid.uuid4().hex[:12]}"
    try:
        model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        building.rename(out)
    except OSError:
        if not (out / "config.json").is_file():  # else another process was first
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out
