"""maths on published tasks: labelled model solutions, and gold answers against themselves, respelled and each other."""

from __future__ import annotations

import json
import random
import re

import pytest
from realdata import real

from gristmill.verifiers.maths.answer import top_boxes
from gristmill.verifiers.maths.verify import maths

MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")

#: Reference solutions of MATH's test set, by row, whose boxes hold more than one answer; a row's gold is all of them.
SEVERAL = 14


def lines(name):
    return [json.loads(line) for line in real(f"verify/{name}").read_text().splitlines()]


def golds() -> list[str]:
    """The answers of MATH's test set: the boxes of the reference solutions, and the answer column of the 500."""
    rows = [*lines("math-test.jsonl"), *lines("math_oai-test.jsonl")]
    references = [maths().reference({"gold": row.get("answer", row["solution"])}) for row in rows]
    return [reference[len("\\boxed{") : -1] for reference in references if reference is not None]


def test_every_labelled_solution_gets_its_label():
    """5,276 solutions of four models to GSM8K's test set, labelled by their authors: all labels are met."""
    rows, labels = [], []
    for row, task in zip(lines("gsm8k-example_model_solutions.jsonl"), lines("gsm8k-test.jsonl"), strict=True):
        for model in MODELS:
            rows.append({"prompt": row["question"], "response": row[model]["solution"], "gold": task["answer"]})
            labels.append(float(row[model]["is_correct"]))
    assert len(rows) == 5276
    assert [verdict.score for verdict in maths().rows(rows)] == labels


def test_reference_solutions_meet_the_answer_they_were_written_for():
    """MATH's solutions hold their answer in boxes. Those that box something else besides are the only ones not to pass:
    intermediate results, both signs, the same value in other words far apart."""
    verdicts = []
    for row in lines("math-test.jsonl"):
        boxes = [text for *_, text in top_boxes(row["solution"])]
        verdicts.append((maths()(row["problem"], row["solution"], gold=boxes[-1]), boxes))
    wrong = [(verdict, boxes) for verdict, boxes in verdicts if verdict.score != 1.0]
    assert len(verdicts) == 5000 and len(wrong) <= SEVERAL
    assert all(len(set(boxes)) > 1 for _, boxes in wrong)
    for row in lines("math_oai-test.jsonl"):
        assert maths()(row["problem"], row["solution"], gold=row["answer"]).score == 1.0, row["unique_id"]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("gsm8k-test.jsonl", "answer"),
        ("gsm8k-train.jsonl", "answer"),
        ("svamp-test.jsonl", "Answer"),
        ("gsm_hard-test.jsonl", "target"),
        ("sat_math-test.jsonl", "Answer"),
        ("math_oai-test.jsonl", "answer"),
        ("math-test.jsonl", "solution"),
    ],
)
def test_gold_answers_pass_themselves_and_silence_fails(name, column):
    judge = maths()
    rows = [{"prompt": "", "gold": row[column]} for row in lines(name)]
    assert all(judge.rows([{**row, "response": judge.reference(row)}])[0].score == 1.0 for row in rows)
    assert all(judge.rows([{**row, "response": ""}])[0].score == 0.0 for row in rows)


RESPELL = {
    "sizes": lambda text: re.sub(r"\\left|\\right", "", text),
    "dfrac": lambda text: text.replace("\\frac", "\\dfrac"),
    "spaces": lambda text: re.sub(r"([+=<>])", r" \1 ", text),
    "dollars": lambda text: f"${text}$",
    "display": lambda text: f"\\displaystyle {text}.",
    "short": lambda text: re.sub(r"\\frac\{(\d)\}\{(\d)\}", r"\\frac\1\2", text),
    "times": lambda text: text.replace("\\cdot", "\\times"),
    "unicode": lambda text: re.sub(r"\\pi(?![a-zA-Z])", "\u03c0", text).replace("-", "\u2212") + "\u200b",
    "bold": lambda text: f"**{text.strip()}**",
}


@pytest.mark.parametrize("name", RESPELL)
def test_a_respelled_answer_is_the_same(name):
    judge = maths()
    told = {gold: judge("", f"\\boxed{{{RESPELL[name](gold)}}}", gold=gold).score for gold in dict.fromkeys(golds())}
    assert {gold: score for gold, score in told.items() if score != 1.0} == {}


def test_another_answer_is_another():
    """Answers of MATH against 20 others each. Those that agree are one value in two spellings, or lack a unit."""
    distinct = list(dict.fromkeys(golds()))
    judge, pick = maths(), random.Random(7)
    same = []
    for gold in distinct:
        for other in pick.sample(distinct, 20):
            if other != gold and judge("", f"\\boxed{{{other}}}", gold=gold).score != 0.0:
                same.append((gold, other))
    assert len(same) <= 10, same
