"""Who may import whom, what is packaged, how files are named."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packed import chain, pack
from tinychat import base, chat_tokenizer, chats

from gristmill.flows.train import named

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


#: What a machine that trains lacks; and what, beside it, steps lack that do not train by TRL.
ABSENT = ("polars", "prefect", "sqlalchemy")
SLIM = (*ABSENT, "datasets", "trl", "peft", "accelerate", "fsspec")
STEPS = {
    **dict.fromkeys(("pretrain", "ppo", "merge", "evaluate", "generate", "logprobs", "describe"), SLIM),
    **dict.fromkeys(("sft", "reward", "preference", "rl"), ABSENT),
}
WITHOUT = """
import runpy, sys
module, absent, *arguments = sys.argv[1:]
for name in absent.split(","):
    sys.modules[name] = None  # importing it fails
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def without(absent: tuple[str, ...], step: str, *arguments: str) -> str:
    """What a step says on stdout where these cannot be imported."""
    command = [sys.executable, "-c", WITHOUT, f"gristmill.training.{step}", ",".join(absent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_reading_a_dataset_needs_pyarrow_alone():
    code = "import sys; import gristmill.dataops.dataset; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not set(loaded) & {*SLIM, "torch", "transformers"}


HELPS = """
import contextlib, json, runpy, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
ended = {}
for step in sys.argv[2:]:
    sys.argv = [step, "--help"]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            runpy.run_module(f"gristmill.training.{step}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        ended[step] = end.code
print(json.dumps(ended))
"""


@pytest.mark.parametrize("absent", [SLIM, ABSENT], ids=["slim", "trl"])
def test_steps_start_where_nothing_is_that_they_do_not_need(absent):
    steps = [step for step, known in STEPS.items() if known == absent]
    command = [sys.executable, "-c", HELPS, ",".join(absent), *steps]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == dict.fromkeys(steps, 0), done.stderr
    assert done.stderr.count("--dry-run") >= len(steps)


def test_every_step_is_held_to_that():
    from gristmill.flows.train import STEPS as known

    assert set(known) == set(STEPS)


def test_pretraining_runs_on_such_a_machine(tmp_path):
    data = pack(tmp_path, chain(8, 32, 16), seq_len=32, vocab_size=16)
    spec = {
        "data": [named(data)],
        "validation": [named(data)],
        "steps": 2,
        "root": str(tmp_path),
        "model": {"depth": 1},
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert json.loads(without(SLIM, "pretrain", "--spec", str(tmp_path / "spec.json")))["steps"] == 2


def test_sft_runs_on_such_a_machine(tmp_path):
    chat = chat_tokenizer(tmp_path, count=16)
    start, data = base(tmp_path, chat), chats(tmp_path, chat, [("w0 w1", "w0")] * 8)
    spec = {"data": [named(data)], "start": named(start), "tokenizer": named(chat), "validation": [named(data)]}
    spec |= {"steps": 2, "rows": 2, "root": str(tmp_path), "name": "tuned"}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert json.loads(without(ABSENT, "sft", "--spec", str(tmp_path / "spec.json")))["steps"] == 2


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
