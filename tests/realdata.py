"""Real files for tests: found beside the repository or by GRISTMILL_TEST_DATA; without them tests skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real(name: str) -> Path:
    """A file of the test data; skips the calling test where it is missing."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"real data not found: {path} (set GRISTMILL_TEST_DATA to the folder that holds it)")
    return path
