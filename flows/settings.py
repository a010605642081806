"""Where defaults come from: flags, then the environment (GRISTMILL_ROOT, ...), then gristmill.toml, then the code."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError

#: What may be set outside the command line, and how a text from the environment is read.
SETTINGS: dict[str, Any] = {
    "root": str,
    "tokenizer": str,
    "vocab_size": int,
    "seq_len": int,
    "workers": int,
    "languages": lambda text: [code.strip() for code in text.split(",") if code.strip()],
    "extractor": str,
}


def defaults(environment: Mapping[str, str] | None = None, file: Path = Path("gristmill.toml")) -> dict[str, Any]:
    """Settings from the environment over those of a file. Raises InputError for one that is unknown or unreadable."""
    environment = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    if file.is_file():
        try:
            stated = tomllib.loads(file.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: {error}") from None
        for name, value in stated.items():
            if name not in SETTINGS:
                raise InputError(f"{file}: no setting {name!r}; there are: {', '.join(SETTINGS)}")
            kind = {int: int, str: str}.get(SETTINGS[name], list)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise InputError(f"{file}: {name} = {value!r} is no {kind.__name__}")
        found |= stated
    for name, read in SETTINGS.items():
        text = environment.get(f"GRISTMILL_{name.upper()}")
        if text is not None:
            try:
                found[name] = read(text)
            except ValueError:
                raise InputError(f"GRISTMILL_{name.upper()}={text!r} is no number") from None
    return found
