"""Fixtures that several files share: a small crawl with known truth, and the recipe built on it once.

`make test` runs the files in two processes (pytest-xdist): what both need is made by the first that asks, in a folder
of both, and is only read.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

with contextlib.suppress(ImportError):  # a machine that runs tests/gpu alone may be without it
    import hypothesis

    # No example is timed by the clock: a machine may be busy.
    hypothesis.settings.register_profile("untimed", deadline=None)
    hypothesis.settings.load_profile("untimed")
# Read when torch loads: threads that spin while they wait for each other make a busy machine several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:  # each process has its core
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing here may reach for a network, nor write into the home of whoever runs the tests.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", PREFECT_SERVER_ANALYTICS_ENABLED="false")


@pytest.fixture(scope="session", autouse=True)
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prefect's database of runs in a folder of the tests."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))


@pytest.fixture(scope="session")
def prefect_server(prefect_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(URL of its API, its folder) of the one server of this process, started when first asked for. Whoever counts what
    it holds counts their own: others use it too."""
    from prefected import server

    home = tmp_path_factory.mktemp("server")
    with server(home) as url:
        yield url, home


@pytest.fixture
def prefect(prefect_server: tuple[str, Path]) -> Iterator[str]:
    """The URL of that server's API, which flows run in while the test does."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server[0]}):
        yield prefect_server[0]


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines behind a server try again at once."""
    from gristmill.training.engines import wire

    monkeypatch.setattr(wire, "FIRST_WAIT", 0.01)


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name` of this run of the tests, which the first process to ask fills by `make`."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        whole = folder.with_suffix(".whole")
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A crawl of 120 documentation pages and all planted cases, with its truth."""
    from gristmill.dataops.sample import write_sample

    def make(folder: Path) -> None:
        (folder / "truth.json").write_text(json.dumps(write_sample(folder / "sample.warc.gz", pages=120)))

    folder = _once(tmp_path_factory, "crawl", make)
    return folder / "sample.warc.gz", json.loads((folder / "truth.json").read_text())


@pytest.fixture(scope="session")
def built(sample: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """(root, datasets by name) of the recipe on the sample, built in one process. To be read only: see `own`."""
    from chain import build

    from gristmill.dataops.dataset import Dataset

    def make(folder: Path) -> None:
        paths = {name: item.path for name, item in build(folder / "root", sample[0]).items()}
        (folder / "paths.json").write_text(json.dumps(paths))

    folder = _once(tmp_path_factory, "recipe", make)
    paths = json.loads((folder / "paths.json").read_text())
    return folder / "root", {name: Dataset.load(path) for name, path in paths.items()}


@pytest.fixture
def own(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of `built`, for tests that publish something beside it."""
    from gristmill.dataops.dataset import Dataset

    root = tmp_path / "own"
    shutil.copytree(built[0], root)
    return root, {name: Dataset.load(root / name / item.key[:12]) for name, item in built[1].items()}
