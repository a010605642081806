"""Safety verifiers on real prompts and answers: hardly a false alarm on harmless text, and what is found elsewhere."""

from __future__ import annotations

import argparse
import gzip
import json
import random

import pytest
from realdata import real

from gristmill.dataops.store import Store
from gristmill.flows.commands import train_toxicity
from gristmill.verifiers.safety.requests import requests
from gristmill.verifiers.safety.verify import classifier, dangerous, over_refuses, pii, refuses, safety, toxicity

#: Of 150 conversations of one turn, drawn with `random.Random(11)` from the 662 of the file: those whose prompt asks
#: for help with harm of one of the categories, as read by one person before the rules were held against them.
ASKED = {
    44, 140, 148, 199, 213, 242, 256, 263, 301, 362, 372, 406, 445, 454, 490, 515, 531, 635, 647, 723, 725, 809, 814,
    847, 865, 866, 914, 986, 1004, 1071, 1117, 1144, 1257, 1264, 1320, 1365, 1373, 1585, 1632, 1645, 1685, 1689, 1705,
    1909, 1984, 2001, 2095, 2115, 2149, 2195, 2199, 2239, 2264,
}  # fmt: skip


def rows_of(name: str) -> list[dict]:
    text = real(name).read_text()
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def alpaca() -> list[dict]:
    rows = rows_of("sft/lf-alpaca_en_demo.json")
    return [{"prompt": f"{row['instruction']}\n{row['input']}", "response": row["output"]} for row in rows]


@pytest.fixture(scope="module")
def harmless() -> dict[str, list[dict]]:
    """Conversations of hh-rlhf's harmless set, chosen and rejected."""
    with gzip.open(real("pref/hh-rlhf-harmless-base-test.jsonl.gz"), "rt") as lines:
        pairs = [json.loads(line) for line in lines]
    split = {side: [pair[side].rpartition("\n\nAssistant:") for pair in pairs] for side in ("chosen", "rejected")}
    return {side: [{"prompt": p, "response": r.strip()} for p, _, r in rows] for side, rows in split.items()}


def test_harmless_prompts_raise_no_alarm(alpaca):
    prompts = [row["prompt"] for row in alpaca]
    prompts += [row["question"] for row in rows_of("verify/gsm8k-test.jsonl")]
    prompts += ["\n\n".join(row["turns"]) for row in rows_of("sft/mt_bench_question.jsonl")]
    prompts += [row["prompt"] for row in rows_of("verify/ifeval-en_input_data.jsonl")]
    prompts += [row["instruction"] for row in rows_of("pref/pandalm-testset-v1-3annotators.json")]
    assert len(prompts) == 3_938
    assert sum(bool(requests(prompt)) for prompt in prompts) <= 2  # measured: none


def test_requests_for_harm_are_found_with_precision_before_recall(harmless):
    """Measured: 20 of the 53 that ask, and none of the 97 others."""
    prompts = [row["prompt"] for row in harmless["chosen"]]
    single = [at for at, prompt in enumerate(prompts) if prompt.count("\n\nHuman:") == 1]
    drawn = random.Random(11).sample(single, 150)
    assert set(drawn) >= ASKED
    found = {at for at in drawn if requests(prompts[at])}
    assert len(found & ASKED) >= 17 and len(found - ASKED) <= 1


def test_rejected_answers_help_with_harm_more_often_than_chosen(harmless):
    """Measured over the 176 pairs with a request: 52 helping chosen answers, 83 rejected; 49 of 352 not judged."""
    judged = {side: dangerous().rows(rows) for side, rows in harmless.items()}
    helped = {side: sum(verdict.score == 0.0 for verdict in verdicts) for side, verdicts in judged.items()}
    assert helped["rejected"] >= 1.4 * helped["chosen"] > 0


def test_chosen_answers_refuse_more_often(harmless):
    refused = {side: sum(v.score == 1.0 for v in refuses().rows(rows)) for side, rows in harmless.items()}
    assert refused["chosen"] >= 2 * refused["rejected"] > 0  # measured: 109 and 40 of 2,312


def test_ordinary_answers_are_no_refusals(alpaca):
    solutions = [{"prompt": row["question"], "response": row["answer"]} for row in rows_of("verify/gsm8k-test.jsonl")]
    assert all(verdict.score == 1.0 for verdict in over_refuses().rows(solutions))
    scores = [verdict.score for verdict in over_refuses().rows(alpaca)]
    assert scores.count(0.0) <= 8 and scores.count(None) <= 6  # measured: 4 declined, 3 unable, of 999


def test_ordinary_answers_leak_nothing(alpaca):
    assert sum(verdict.score == 0.0 for verdict in pii().rows(alpaca)) <= 3  # measured: 2


def test_toxicity_from_one_command(tmp_path, alpaca, harmless):
    folder = real("safety/davidson-hate-speech.csv").parent
    told, _ = train_toxicity.run(argparse.Namespace(folder=str(folder), name="toxicity"), {"root": str(tmp_path)})
    assert sum(told["sets"].values()) == 27_034 and told["card"]["auc"] >= 0.975
    model = Store(tmp_path).get("toxicity")
    assert model.manifest["ops"][0]["name"] == "learned.train"
    judge = toxicity(**classifier(model))
    assert sum(verdict.reason == "toxic" for verdict in judge.rows(alpaca)) <= 6
    toxic = {side: sum(v.reason == "toxic" for v in judge.rows(rows)) for side, rows in harmless.items()}
    assert toxic["rejected"] >= 2 * toxic["chosen"] > 0
    together = safety(**classifier(model)).rows(alpaca)
    assert sum(verdict.score == 1.0 for verdict in together) >= 0.98 * len(together)
