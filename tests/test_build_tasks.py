"""`gristmill build-tasks`: every row of the files is a task that its own verifier was tried on, or is told why not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from realdata import real
from tinychat import chat_tokenizer
from transformers import AutoTokenizer

from gristmill.dataops.demo.chats import write_chats
from gristmill.dataops.fsck import fsck
from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.training.online.tasks import open_tasks
from gristmill.training.scoring import Scorer, open_scorer

ADD = "def add(a, b):\n    return a + b\n"
TESTS = {"assertions": ["assert add(2, 3) == 5", "assert add(-1, 1) == 0"]}


@pytest.fixture
def build(tmp_path, capsys):
    """What the command says of these files, as JSON, or its one line of error."""

    def call(*arguments: str, status: int = 0) -> dict:
        given = ["build-tasks", *arguments, "--root", str(tmp_path / "root"), "--workers", "1", "--json"]
        assert main(given) == status, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def file(tmp_path):
    def write(*rows: dict | str, name: str = "tasks.jsonl") -> str:
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def tasks(tmp_path, name: str = "tasks"):
    return Store(tmp_path / "root").get(name).scan().collect()


def test_the_tasks_of_the_demo_all_stand_with_their_verifier(build, tmp_path):
    path = write_chats(tmp_path)["tasks"]
    told = build(str(path), "--verifier", "maths", "--set", "places=3")
    rows = tasks(tmp_path)
    assert told["rows"] == rows.height == len(path.read_text().splitlines()) == told["gold_passes"]
    assert rows["prompt"][0].to_list()[0]["role"] == "user"
    assert {"gold", "source", "verifier", "gold_passes"} <= {*rows.columns} and rows["source"][0] == "tasks.jsonl"
    (verifier,) = rows["verifier"].unique().to_list()
    assert json.loads(verifier) == told["verifier"]
    assert (told["verifier"]["name"], told["verifier"]["params"]["places"]) == ("maths", 3)
    assert told["scorer"]["settings"]["places"] == 3
    assert fsck(Store(tmp_path / "root"))[1] == []


def test_every_row_is_a_task_or_in_the_ledger_with_its_line(build, file, tmp_path):
    told = build(
        file(
            {"prompt": "1 + 1?", "gold": "2"},
            {"prompt": "2 + 2?", "gold": "\\frac{"},
            {"prompt": "3 + 3?"},
            "{",
            {"question": "4 + 4?", "gold": "8"},
            {"prompt": " ", "gold": "0"},
            {"prompt": "1  +  1? ", "gold": "2"},
            {"prompt": "5 + 5?", "gold": "10"},
            {"prompt": "5 + 5?", "gold": "11"},
        ),
        "--verifier", "maths",
    )  # fmt: skip
    assert tasks(tmp_path)["gold"].to_list() == ["2"]
    where = {one["reason"]: one["line"] for one in told["examples"]}
    assert where == {
        "empty_unjudged": 2, "no_gold": 3, "bad_json": 4, "missing_column": 5, "empty_prompt": 6, "duplicate": 7,
        "conflicting": 8,
    }  # fmt: skip
    assert told["reasons"]["conflicting"] == 2 and sum(told["reasons"].values()) == 8


def test_programs_whose_solution_fails_and_tests_that_nothing_fails_are_found(build, file, tmp_path):
    told = build(
        file(
            {"prompt": "Write add.", "tests": TESTS, "reference": ADD},
            {"prompt": "Add, please.", "tests": TESTS, "reference": ADD.replace("+", "-")},
            {"prompt": "Write add, if you like.", "tests": TESTS},
            {"prompt": "Write anything.", "tests": {"assertions": ["assert ("]}, "reference": ADD},
        ),
        "--verifier", "programs",
    )  # fmt: skip
    assert told["rows"] == 2 and told["gold_passes"] == 1
    assert tasks(tmp_path)["gold_passes"].to_list() == [True, None]
    assert told["reasons"] == {"gold_fails": 1, "gold_unjudged": 1}
    why = json.loads(next(one["why"] for one in told["examples"] if one["reason"] == "gold_fails"))
    assert (why["verifier"], why["score"]) == ("programs", 0.0)


#: Verifiers of one's own: one that silence passes, and one that cannot judge.
OWN = """
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier


@verifier("toy.short", version=3)
def short(prompt: str, response: str, limit: int) -> Verdict:
    return Verdict(float(len(response) <= limit), "counted")


@verifier("toy.lost", version=1)
def lost(prompt: str, response: str, reference: str) -> Verdict:
    if reference == "lost":
        raise ValueError("nothing is found")
    return Verdict(float(response == reference), "compared")
"""


def test_a_verifier_of_ones_own_is_tried_too(build, file, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    path = file({"prompt": "Be short.", "limit": 5, "reference": "a"})
    told = build(path, "--verifier", f"{tmp_path}/own.py:short", status=2)
    assert "empty_passes 1" in told["error"]
    path = file({"prompt": "Whole?", "reference": "a"}, {"prompt": "Lost?", "reference": "lost"})
    told = build(path, "--verifier", f"{tmp_path}/own.py:lost")
    assert told["reasons"] == {"gold_unjudged": 1} and told["rows"] == 1


def test_columns_have_other_names_elsewhere(build, file, tmp_path):
    path = file({"q": "1 + 1?", "a": 2, "prompt": "not this"}, {"q": "2 + 2?", "a": 4})
    told = build(path, "--verifier", "maths", "--column", "prompt=q", "--column", "gold=a")
    assert told["forms"] == {"columns": 2} and told["rows"] == 2
    assert [turn[0]["content"] for turn in tasks(tmp_path)["prompt"].to_list()] == ["1 + 1?", "2 + 2?"]
    assert tasks(tmp_path)["gold"].to_list() == [2, 4]


def test_several_golds_are_a_list_and_mixed_ones_text(build, file, tmp_path):
    build(file({"prompt": "x^2 = 4?", "gold": ["2", "-2"]}), "--verifier", "maths", "--name", "lists")
    assert tasks(tmp_path, "lists")["gold"].to_list() == [["2", "-2"]]
    build(file({"prompt": "a?", "gold": 7}, {"prompt": "b?", "gold": "x+1"}), "--verifier", "maths", "--name", "mixed")
    assert tasks(tmp_path, "mixed")["gold"].to_list() == ["7", "x+1"]


def test_benchmarks_are_kept_out(build, file, tmp_path):
    asked = "How many sacks of flour does the mill on the hill grind between dawn and noon?"
    path = file({"prompt": asked, "gold": "7"}, {"prompt": "How much is two and two, all in all?", "gold": "4"})
    bench = file({"question": asked, "answer": "7"}, name="bench.jsonl")
    told = build(path, "--verifier", "maths", "--against", f"bench={bench}")
    assert (told["rows"], told["reasons"]) == (1, {"bench": 1})
    assert [step["name"] for step in told["datasets"]] == [
        "tasks-read",
        "tasks-decontaminated",
        "tasks-probed",
        "tasks",
    ]


@pytest.mark.parametrize(
    ("row", "arguments", "said"),
    [
        ({"prompt": "1 + 1?"}, ["maths"], "maths needs the column gold, and the tasks have prompt, source"),
        ({"prompt": "1 + 1?", "gold": "2"}, ["mathz"], "no verifier is called 'mathz'"),
        ({"prompt": "1 + 1?", "gold": "2"}, ["maths", "--set", "place=3"], "place"),
        ({"prompt": "1 + 1?", "gold": "2"}, ["maths", "--set", "places=many"], "places"),
        ({"prompt": "1 + 1?", "gold": "2"}, ["maths", "--column", "gold"], "write NAME=COLUMN"),
        ({"prompt": "1 + 1?", "gold": "2"}, ["maths", "--column", "gold=answer"], "missing_column 1"),
        ({"prompt": "1 + 1?", "gold": None}, ["maths"], "needs the column gold"),
    ],
)
def test_what_cannot_be_built_says_what_to_do(build, file, row, arguments, said):
    assert said in build(file(row), "--verifier", *arguments, status=2)["error"]


def test_no_file_and_an_empty_one(build, file, tmp_path):
    assert "no" in build(str(tmp_path / "none.jsonl"), "--verifier", "maths", status=2)["error"]
    assert "the files are empty" in build(file(), "--verifier", "maths", status=2)["error"]


def test_workers_and_order_of_work_do_not_show(build, file, tmp_path, capsys):
    path = file(*({"prompt": f"{n} + 1?", "gold": str(n + 1)} for n in range(50)))
    one = build(path, "--verifier", "maths")
    given = ["build-tasks", path, "--verifier", "maths", "--root", str(tmp_path / "two"), "--workers", "2", "--json"]
    assert main(given) == 0
    two = json.loads(capsys.readouterr().out)
    assert (one["key"], one["digest"]) == (two["key"], two["digest"])


@pytest.mark.parametrize(
    ("name", "verifier", "form", "rows", "reasons"),
    [
        ("gsm8k-test.jsonl", "maths", "gsm8k", 1319, {}),
        ("math_oai-test.jsonl", "maths", "math", 500, {}),
        ("ifeval-en_input_data.jsonl", "instructions", "tasks", 541, {}),
        ("HumanEval.jsonl.gz", "programs", "humaneval", 164, {}),
    ],
)
def test_real_benchmarks_are_sound_tasks(build, name, verifier, form, rows, reasons):
    told = build(str(real(f"verify/{name}")), "--verifier", verifier)
    assert (told["rows"], told["forms"], told["reasons"]) == (rows, {form: rows}, reasons)
    assert told["gold_passes"] == (0 if verifier == "instructions" else rows)


def test_mbpp_asks_four_questions_with_two_sets_of_tests(build, tmp_path):
    """MBPP's tasks 76 and others have the same text as another one, and other tests."""
    whole = [json.loads(line) for line in real("verify/mbpp.jsonl").read_text().splitlines()]
    asked = [row["text"] for row in whole]
    twice = [row for row in whole if asked.count(row["text"]) > 1]
    path = tmp_path / "mbpp.jsonl.gz"
    with gzip.open(path, "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in [*twice, *whole[:20]])
    told = build(str(path), "--verifier", "programs")
    assert told["reasons"]["conflicting"] >= len(twice) == 8
    assert told["forms"] == {"mbpp": 28} and told["gold_passes"] == told["rows"] > 0


def test_reinforcement_learning_opens_them_and_each_is_scored_by_its_own_verifier(build, file, tmp_path):
    store = Store(tmp_path / "root")
    build(file({"prompt": "1 + 1?", "gold": "2"}, {"prompt": "2 + 2?", "gold": "4"}), "--verifier", "maths")
    build(file({"prompt": "Write add.", "tests": TESTS}), "--verifier", "programs", "--name", "code")
    tokenizer = AutoTokenizer.from_pretrained(chat_tokenizer(tmp_path).file(""))
    scoring = open_scorer(Scorer("own", "gristmill.flows.sets.scored:own"))
    for name, right in (("tasks", ["2", "4"]), ("code", [ADD])):
        opened = open_tasks(store.get(name), tokenizer, 64)
        rows = [opened.row(n) for n in range(len(opened.prompts))]
        assert [one.score for one in scoring(rows, right)] == [1.0] * len(rows)
        assert [one.score for one in scoring(rows, ["7"] * len(rows))] == [0.0] * len(rows)
    assert scoring([{"prompt": "1 + 1?", "gold": "2"}], ["2"])[0] == (None, "no_verifier", None)


def test_what_was_published_is_taken(build, file, tmp_path):
    path = file({"prompt": "1 + 1?", "gold": "2"})
    first = build(path, "--verifier", "maths")
    Path(path).rename(tmp_path / "moved.jsonl")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tasks.jsonl").write_bytes((tmp_path / "moved.jsonl").read_bytes())
    assert build(str(tmp_path / "sub" / "tasks.jsonl"), "--verifier", "maths")["key"] == first["key"]
