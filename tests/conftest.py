"""Fixtures that several files share: a small crawl with known truth, and the recipe built on it once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

# Read when torch loads: threads that spin while they wait for each other make a busy machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nothing here may reach for a network, nor write into the home of whoever runs the tests.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")


@pytest.fixture(scope="session", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prefect's database of runs in a folder of the tests."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A crawl of 120 documentation pages and all planted cases, with its truth."""
    from gristmill.dataops.sample import write_sample

    path = tmp_path_factory.mktemp("crawl") / "sample.warc.gz"
    return path, write_sample(path, pages=120)


@pytest.fixture(scope="session")
def built(sample: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(root, datasets by name) of the recipe on the sample, built in this process."""
    from chain import build

    root = tmp_path_factory.mktemp("root")
    return root, build(root, sample[0])


@pytest.fixture
def own(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of `built`, for tests that publish something beside it."""
    from gristmill.dataops.dataset import Dataset

    root = tmp_path / "own"
    shutil.copytree(built[0], root)
    return root, {name: Dataset.load(root / name / item.key[:12]) for name, item in built[1].items()}
