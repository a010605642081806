"""Who may import whom, what is packaged, how files are named."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("dataops", "verifiers", "training", "flows")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    folder = path.relative_to(ROOT).parts[0]
    found = imports(path)
    ours = {name for name in found if name.startswith("gristmill.")}
    outside = {name.split(".")[0] for name in found - ours}
    if folder == "dataops":
        assert all(name.startswith("gristmill.dataops") for name in ours)
        assert not outside & {"prefect", "torch", "transformers"}
    if folder == "verifiers":
        assert all(name.startswith(("gristmill.verifiers", "gristmill.dataops")) for name in ours)
        assert not outside & {"prefect", "torch"}
    if folder == "training":
        assert all(name.startswith(("gristmill.training", "gristmill.dataops.dataset")) for name in ours)
        assert not outside & {"prefect", "polars", "sqlalchemy"}
    if folder != "flows":
        assert "prefect" not in outside


def test_reading_a_dataset_needs_no_polars_and_training_no_prefect():
    code = """
import sys
for name in ("polars", "prefect", "sqlalchemy", "fsspec", "datasets"):
    sys.modules[name] = None  # importing it fails
import gristmill.dataops.dataset, gristmill.training.pretrain
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_folder_is_packaged():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    there = {".".join(("gristmill", *path.parent.relative_to(ROOT).parts)) for path in FILES}
    assert there == listed


def test_names_and_sizes():
    for path in FILES:
        assert path.stem not in sys.stdlib_module_names, f"{path} bears the name of a standard module"
        lines = len(path.read_text().splitlines())
        assert lines <= 320, f"{path} has {lines} lines: it holds two ideas"
    assert not list(ROOT.glob("*/**/__init__.py")) or not any(f in FOLDERS for f in ROOT.glob("*/__init__.py"))
    for folder in FOLDERS:
        assert len(list((ROOT / folder).glob("*.py"))) <= 22


def test_every_module_says_what_it_is_for():
    for path in FILES:
        assert (ast.get_docstring(ast.parse(path.read_text())) or "").strip(), f"{path} has no docstring"
