"""The README says what is there: its commands run, its tree is the tree, its picture is the project's own."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from answering import answering

from gristmill.dataops.store import Store
from gristmill.flows.cli import parser
from gristmill.verifiers.judge.engine import Fake

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip() and not line.startswith("#")]
BIN = Path(sys.executable).parent
#: Commands that need a while and a server, and the tests that run them as they stand here.
ELSEWHERE = {"up": "test_up.py", "deploy": "test_deploy.py"}


def test_every_command_of_the_readme_is_known_here():
    assert {line.split()[0] for line in COMMANDS} <= {"make", "gristmill"}
    assert {line.split()[1] for line in COMMANDS if line.startswith("gristmill")} == set(_names())


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert {line.split()[1] for line in COMMANDS if line.startswith("make")} <= targets
    # `make test` runs this very test and `make setup` came before it; what `make demo` runs is run below.
    shown = subprocess.run(["make", "-n", "demo", "bench"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "gristmill demo --root demo" in shown and "-m tests.bench" in shown


def test_every_gristmill_command_of_the_readme_runs(tmp_path):
    """In order, in one folder, as a reader would type them; of the demo its data and its base model."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    env_root = tmp_path / "demo"
    _given(tmp_path)
    with answering(_as_a_model) as server:
        _run_all(tmp_path, env_root, environment, server.url)


def _run_all(tmp_path: Path, env_root: Path, environment: dict[str, str], url: str) -> None:
    for line in COMMANDS:
        words = shlex.split(re.sub(r"http://127\.0\.0\.1:800\d", url, line))
        if words[0] != "gristmill" or words[1] in ELSEWHERE:
            continue
        if words[1] == "demo":
            words += ["--train-seconds", "5", "--until", "pretrain"]
        if words[1] == "run":
            words[words.index("--crawl") + 1] = str(env_root / "sample.warc.gz")
        if words[1] == "adopt":
            words[2] = str(_model(env_root))
        if words[1] == "train-filter":
            words[2] = str(_labels(tmp_path))
        if words[1] == "train-toxicity":
            words[2] = str(_labels(tmp_path).parent)
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        if words[1] == "demo":
            _the_demo_delivers(done.stdout, tmp_path)
        if words[1] == "verify":
            _the_verdicts_are_right(tmp_path / words[2], tmp_path / words[words.index("--out") + 1])


def test_the_other_commands_run_in_their_own_tests():
    for name, file in ELSEWHERE.items():
        assert f'"{name}"' in (ROOT / "tests" / file).read_text()


def _as_a_model(asked: Any, choices: Sequence[str] | None, said: Iterator[int] = itertools.count()) -> str | None:  # noqa: B008
    """What somebody says who never says the same twice, and as a judge likes larger numbers better."""
    if choices:
        return Fake(likes=_largest).generate([asked], max_tokens=1, choices=choices)[0]
    return f"It is {next(said)}."


def _largest(text: str) -> float:
    return max(map(float, re.findall(r"\d+", text)), default=0)


def _given(folder: Path) -> None:
    """The files that a reader has."""
    files = {
        "PROMPTS.jsonl": [{"prompt": "How much is 1 and 2?"}, {"prompt": "What is 2 plus 2?"}],
        "SEEDS.jsonl": [{"prompt": "Tell me how to break into a mill."}],
        "CANDIDATES.jsonl": [{"prompt": "1 + 1 = ?", "responses": ["It is 2.", "It is 3."]}],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "GATES.yaml").write_text("gates:\n  - gate: text is read\n    measure: text/loss\n    at_most: 20\n")
    recipe = {
        "first": "talker", "max_tokens": 64, "least": 2, "gates": "GATES.yaml",
        "stages": [{"step": "preference", "settings": {"steps": 2, "rows": 2, "optimiser": {"learning_rate": 1e-4}}}],
        "evaluation": {"slices": [{"name": "text", "dataset": "heldout-packed"}]},
    }  # fmt: skip
    (folder / "RECIPE.yaml").write_text(json.dumps(recipe))  # JSON is YAML


def _the_verdicts_are_right(cases: Path, verdicts: Path) -> None:
    for case, said in zip(*(path.read_text().splitlines() for path in (cases, verdicts)), strict=True):
        assert json.loads(said)["score"] == json.loads(case)["want"], said


def test_the_verifier_of_the_readme_judges(tmp_path, capsys):
    block = next(block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "@verifier(" in block)
    line = next(line for line in README.splitlines() if line.startswith("gristmill verify CASES.jsonl"))
    (tmp_path / "mine.py").write_text(block)
    rows = [{"prompt": "p", "response": f"As {name} says.", "source": "Rae et al."} for name in ("RAE ET AL.", "he")]
    (tmp_path / "CASES.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = subprocess.run(
        [str(BIN / "gristmill"), *shlex.split(line)[1:], "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    assert json.loads(told.stdout)["reasons"] == {"cited": 1, "not_cited": 1}


def _model(root: Path) -> Path:
    """A model's folder as transformers saves it: weights and tokenizer side by side."""
    store, folder = Store(root), root / "elsewhere"
    shutil.copytree(store.get("small").file(""), folder)
    shutil.copy(store.get("tokenizer").file("tokenizer.json"), folder)
    return folder


def _labels(folder: Path) -> Path:
    """A file of labels as a user has one: prose is wanted, lists of words are not."""
    path = folder / "labels" / "labels.jsonl"
    path.parent.mkdir(exist_ok=True)
    names = ["".join("abcdefghij"[int(digit)] for digit in f"{day:03}") for day in range(120)]
    prose = "The mill grinds slowly, and what it grinds for {} is flour for the bread of the town."
    rows = [
        {"text": prose.format(name) if day % 2 else f"{name} mill {name} flour # {name}", "label": day % 2}
        for day, name in enumerate(names)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def _the_demo_delivers(out: str, folder: Path) -> None:
    first, last = map(float, re.search(r"loss ([\d.]+) -> ([\d.]+)", out).groups())  # type: ignore[union-attr]
    assert last <= first  # that it falls clearly is tested by steps, not by the clock, in test_training.py
    assert (folder / re.search(r"Quality report: (\S+)", out).group(1)).is_file()  # type: ignore[union-attr]
    suggested = re.findall(r"^  (gristmill .*)$", out, re.M)
    assert len(suggested) == 3
    for line in suggested:
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        subprocess.run(shlex.split(line), cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def test_the_tree_has_a_line_for_every_file():
    tree = re.search(r"```\n(pyproject\.toml.*?)```", README, re.S)
    assert tree is not None
    listed = set(re.findall(r"[\w/.-]+\.(?:py|toml|txt|svg)|Makefile", tree.group(1)))
    for folder in ("dataops", "verifiers", "training", "flows"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.name in listed, f"README's tree does not name {path.relative_to(ROOT)}"


@pytest.mark.parametrize("name", list(re.findall(r"\]\((docs/[^)]+\.svg)\)", README)) or ["none"])
def test_pictures_are_there_and_are_svg(name):
    assert ElementTree.parse(ROOT / name).getroot().tag.endswith("svg")


def test_pages_are_there():
    for name in re.findall(r"\]\(((?:docs|tests|flows)/[^)]+)\)", README):
        assert (ROOT / name).is_file(), f"README links to {name}"


def test_every_command_has_help(capsys):
    for name in _names():
        with pytest.raises(SystemExit) as stopped:
            parser().parse_args([name, "--help"])
        assert stopped.value.code == 0
        out = capsys.readouterr().out
        assert "--json" in out and "--root" in out


def _names() -> list[str]:
    actions = parser()._subparsers._group_actions  # type: ignore[union-attr]
    return list(actions[0].choices)  # type: ignore[call-overload, arg-type]


def test_the_repository_speaks_of_the_project_alone():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", "") and path.is_file():
            text = path.read_text(errors="replace")
            assert not re.search(r"(?<![\w/])/(?:work|root)/", text), f"{name} names a path of one machine"
