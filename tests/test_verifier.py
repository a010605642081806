"""Verifiers: one verdict per row and in order, what could not be judged never counts, tasks are probed."""

from __future__ import annotations

import gzip
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task
from gristmill.flows.cli import main
from gristmill.verifiers import cases
from gristmill.verifiers.compose import all_of, any_of, gated, weighted
from gristmill.verifiers.over import verify
from gristmill.verifiers.probes import empty_must_fail, gold_must_pass, probed
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import Verifier, find, load, verifier

OWN = """
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

@verifier("own.echo", version=1, reference=lambda row: row["gold"])
def echo(prompt: str, response: str, gold: str, *, case: bool = True) -> Verdict:
    same = response == gold if case else response.lower() == gold.lower()
    return Verdict(float(same), "equal" if same else "different", {"gold": gold})
"""


@verifier("toy.says", version=1)
def says(prompt: str, response: str, word: str = "yes", *, loud: bool = False) -> Verdict:
    """Scores what the response spells: a number, "none", or whether it is the word."""
    if response == "boom":
        raise RuntimeError("out of order")
    if response == "none":
        return Verdict(None, "outage")
    try:
        return Verdict(float(response), "number")
    except ValueError:
        return Verdict(float(response == (word.upper() if loud else word)), "word")


@verifier("toy.fixed", version=1, empty_fails=False)
def fixed(rows: list[dict], *, column: str) -> list[Verdict]:
    """The score that stands in a column."""
    return [Verdict(row[column], "fixed") for row in rows]


def scores(*columns: str) -> list[Verifier]:
    return [fixed(column=column) for column in columns]


def judge(composed: Verifier, **columns: float | None) -> Verdict:
    return composed("p", "r", **columns)


def test_parameters_are_identity_and_context_is_not():
    assert says(loud=True).identity == {"name": "toy.says", "version": 1, "params": {"loud": True}}
    assert says()("p", "yes").score == 1.0 and says(loud=True)("p", "yes").score == 0.0
    assert says()("p", "no", word="no").score == 1.0
    with pytest.raises(TypeError):
        says(quiet=True)
    composed = gated(parts=[says(loud=True), fixed(column="a")])
    spelled = json.loads(json.dumps(composed.identity))
    assert load(spelled).identity == composed.identity
    with pytest.raises(InputError, match="version 2 was asked for"):
        load({**spelled, "version": 2})


def test_one_verdict_per_row_and_in_order_whatever_the_rows_hold():
    rows = [
        {"prompt": "p", "response": "1"},
        {"prompt": "p", "response": None},
        {"prompt": "p", "response": "boom"},
        {"response": "1"},
        {"prompt": "p", "response": "0.5"},
    ]
    told = says().rows(rows)
    assert [(said.score, said.reason) for said in told] == [
        (1.0, "number"),
        (None, "no_text"),
        (None, "verifier_failed"),
        (None, "no_text"),
        (0.5, "number"),
    ]
    assert "out of order" in told[2].evidence["error"]
    asked = [{"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r", "known": 1.0}]
    assert [said.reason for said in fixed(column="known").rows(asked)] == ["verifier_failed", "fixed"]


def test_two_verifiers_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"two verifiers are called toy\.says"):
        exec(
            "@verifier('toy.says', version=1)\ndef f(prompt, response): ...",
            {"verifier": verifier, "__name__": "elsewhere"},
        )


SCORE = st.sampled_from([None, 0.0, 0.25, 1.0])


@given(SCORE, SCORE, SCORE)
def test_what_was_not_judged_never_counts_as_wrong_or_right(a, b, c):
    told = [score for score in (a, b, c) if score is not None]
    whole = len(told) == 3
    parts = scores("a", "b", "c")
    least, greatest = judge(all_of(parts=parts), a=a, b=b, c=c), judge(any_of(parts=parts), a=a, b=b, c=c)
    assert least.score == (0.0 if 0.0 in told else min(told) if whole else None)
    assert greatest.score == (1.0 if 1.0 in told else max(told) if whole else None)
    mean = judge(weighted(parts=parts, weights=[1, 2, 1]), a=a, b=b, c=c).score
    assert mean == ((a + 2 * b + c) / 4 if whole else None)


@pytest.mark.parametrize(
    ("gate", "then", "score", "asked"),
    [(1.0, 0.5, 0.5, 2), (0.5, 1.0, 0.0, 1), (0.0, None, 0.0, 1), (None, 1.0, None, 1)],
)
def test_a_gate_decides_who_is_scored(gate, then, score, asked):
    said = judge(gated(parts=scores("gate", "then")), gate=gate, then=then)
    assert said.score == score and len(said.evidence["parts"]) == asked


def test_parts_that_cannot_change_the_verdict_are_not_asked():
    parts = [fixed(column="a"), fixed(column="b")]
    assert len(judge(all_of(parts=parts), a=0.0, b=1.0).evidence["parts"]) == 1
    assert len(judge(any_of(parts=parts), a=1.0, b=1.0).evidence["parts"]) == 1
    assert judge(all_of(parts=parts), a=0.0, b=1.0).reason == "toy.fixed:fixed"
    with pytest.raises(InputError, match="weights"):
        judge(weighted(parts=parts, weights=[1]), a=1.0, b=1.0)
    with pytest.raises(InputError, match="gate"):
        judge(gated(parts=parts[:1]), a=1.0)


def test_tasks_whose_gold_fails_or_whose_empty_answer_passes_are_not_judged():
    rows = [
        {"prompt": "p", "response": "yes", "reference": "yes"},
        {"prompt": "q", "response": "yes", "reference": "no"},
        {"prompt": "r", "response": "yes", "reference": "none"},
        {"prompt": "s", "response": "yes", "word": ""},
        {"prompt": "t", "response": "no"},
    ]
    assert [said and said.score for said in gold_must_pass(says(), rows)] == [1.0, 0.0, None, None, None]
    assert [said.score for said in empty_must_fail(says(), rows)] == [0.0, 0.0, 0.0, 1.0, 0.0]
    told = probed(says(), rows)
    assert [(said.score, said.reason) for said in told] == [
        (1.0, "word"),
        (None, "gold_fails"),
        (None, "gold_not_judged"),
        (None, "empty_passes"),
        (0.0, "word"),
    ]
    composed = probed(all_of(parts=[fixed(column="one"), says()]), [{**row, "one": 1.0} for row in rows])
    assert [said.score for said in composed] == [1.0, None, None, None, 0.0]
    assert composed[1].evidence["verifier"] == "toy.says"


def test_each_task_is_probed_once():
    counted: list[str] = []

    @verifier("toy.counted", version=1)
    def count(prompt: str, response: str) -> Verdict:
        counted.append(response)
        return Verdict(float(response != ""), "said")

    for _ in range(3):
        probed(count(), [{"prompt": "p", "response": "a", "id": len(counted)}] * 4)
    assert counted.count("") == 1 and counted.count("a") == 12


def test_an_outage_while_a_task_is_probed_is_not_held_against_it_for_good():
    down = [True]

    @verifier("toy.down", version=1)
    def answers_when_up(prompt: str, response: str) -> Verdict:
        return Verdict(None, "outage") if down[0] else Verdict(float(response == "yes"), "word")

    rows = [{"prompt": "p", "response": "yes", "reference": "yes"}]
    assert probed(answers_when_up(), rows)[0].reason == "gold_not_judged"
    down[0] = False
    assert probed(answers_when_up(), rows)[0].score == 1.0


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return f"{path}:echo"


def write(path: Path, lines: list[object]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_a_verifier_of_ones_own_judges_a_file(own, tmp_path, capsys):
    file = write(
        tmp_path / "cases.jsonl",
        [
            {"id": "a", "prompt": "p", "response": "x", "gold": "x"},
            "{torn",
            "",
            {"prompt": "p", "response": "y", "gold": "x"},
            [1, 2],
            {"id": 7, "prompt": "p", "response": "X", "gold": "x"},
            {"id": 8, "prompt": "p", "response": "x"},
            {"id": 9, "prompt": "p", "response": "x", "gold": ""},
        ],
    )
    out = tmp_path / "verdicts.jsonl"
    assert main(["verify", str(file), "--verifier", own, "--out", str(out), "--set", "case=false", "--json"]) == 0
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert [list(item) for item in told] == [["id", "score", "reason", "evidence"]] * 7
    assert [(item["id"], item["score"], item["reason"]) for item in told] == [
        ("a", 1.0, "equal"),
        (2, None, "unreadable_row"),
        (3, 0.0, "different"),
        (4, None, "unreadable_row"),
        (7, 1.0, "equal"),
        (8, None, "no_column"),
        (9, None, "empty_passes"),
    ]
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["unjudged"], summary["mean"]) == (7, 4, pytest.approx(2 / 3))
    assert summary["reasons"]["equal"] == 2 and summary["seconds"] >= 0
    assert not list(tmp_path.glob("*.tmp"))


def test_a_verifier_of_ones_own_travels_to_other_processes(own):
    mine = find(own)(case=False)
    code = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read())('p', 'X', gold='x').score)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(mine), capture_output=True, check=True)
    assert done.stdout == b"1.0\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_chunks_workers_and_compression_do_not_show(own, tmp_path, monkeypatch, workers):
    rows = [{"id": i, "prompt": "p", "response": str(i % 7), "gold": "3"} for i in range(60)]
    plain = write(tmp_path / "cases.jsonl", rows)
    packed = tmp_path / "cases.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    monkeypatch.setattr(cases, "CHUNK", 7)
    mine = find(own)()
    with LocalPool(workers) as pool:
        told = cases.verify_file(packed, tmp_path / "a.jsonl", mine, executor=pool)
    cases.verify_file(plain, tmp_path / "b.jsonl", mine)
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    assert told.summary.rows == 60 and told.summary.mean == pytest.approx(9 / 60)
    packed.write_bytes(packed.read_bytes()[:-20])
    torn = cases.verify_file(packed, tmp_path / "a.jsonl", mine)
    last = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])
    assert last["reason"] == "unreadable_row" and "damaged" in last["evidence"]["why"]
    assert torn.summary.unjudged == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--verifier", "nonsense", "--out", "o"], "no verifier is called 'nonsense'; there are: all, any"),
        (["--verifier", "nowhere.py:f", "--out", "o"], "nowhere.py"),
        (["--verifier", "maths"], "--out"),
        (["--verifier", "maths", "--out", "o", "--set", "percent"], "PARAMETER=VALUE"),
        (["--verifier", "maths", "--out", "o", "--set", "colour=1"], "colour"),
        (["--verifier", "maths", "--out", "no/such/folder"], "no/such"),
    ],
)
def test_bad_usage_is_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cases.jsonl", [{"prompt": "p", "response": "r", "gold": "1"}])
    assert main(["verify", "cases.jsonl", *arguments]) in (1, 2)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("gristmill: ") and told in line


def test_a_file_that_nothing_could_be_judged_of_is_not_done(own, tmp_path, capsys):
    file = write(tmp_path / "cases.jsonl", [{"prompt": "p", "response": "r"}])
    assert main(["verify", str(file), "--verifier", own, "--out", str(tmp_path / "o")]) == 1
    text = capsys.readouterr().out
    assert "none could be judged" in text and "no_column" in text
    assert main(["verify", str(file), "--verifier", own, "--out", str(file)]) == 2


def test_over_a_dataset_every_row_stays_with_its_verdict(own):
    frame = pl.DataFrame(
        {
            "prompt": ["p"] * 4,
            "answer": ["x", "y", None, "x"],
            "gold": ["x", "x", "x", ""],
            "id": [b"%16d" % i for i in range(4)],
        }
    )
    made = verify(find(own)(), response="answer")
    split = made(frame)
    told = split.kept["verdict"].struct.unnest()
    assert told["score"].to_list() == [1.0, 0.0, None, None]
    assert told["reason"].to_list() == ["equal", "different", "no_text", "empty_passes"]
    assert made.params["verifier"] == find(own)().identity and split.drops.is_empty()
    with pytest.raises(InputError, match="needs the columns response"):
        verify(find(own)())(frame)
    assert math.isnan(cases.added([]).mean)


def _answers_plan(inputs, building, workers, **_):
    return [Task(range(3), 3), Task(range(3, 5), 2)]


@op("toy.answers", version=1, kind="source", plan=_answers_plan)
def answers(task, *, gold: str):
    rows = [{"id": row_id(str(n)), "prompt": "p", "response": "xxyyx"[n], "gold": gold} for n in task]
    yield Split(pl.DataFrame(rows), ledger(), len(task))


def test_a_dataset_is_judged_by_the_command(own, tmp_path, capsys):
    Store(tmp_path).build("answers", answers(gold="x"), [])
    command = ["verify", "answers", "--verifier", own, "--root", str(tmp_path)]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["mean"], told["reasons"]) == (5, 0.6, {"equal": 3, "different": 2})
    made = Store(tmp_path).get("answers-verified")
    assert made.key == told["dataset"]["key"]
    assert made.scan().collect()["verdict"].struct.field("score").to_list() == [1, 1, 0, 0, 1]
    assert made.manifest["ops"][0]["params"]["verifier"]["name"] == "own.echo"
    assert main([*command, "--name", "again"]) == 0
    assert "Published: again:" in capsys.readouterr().out
