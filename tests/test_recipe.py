"""The recipe's choices: each changes what it says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from chain import build

from gristmill.dataops.dataset import InputError
from gristmill.dataops.learned.train import train
from gristmill.dataops.report.page import write_report
from gristmill.dataops.store import Store


@pytest.mark.parametrize("rules", ["multilingual", "refinedweb"])
def test_other_rules_over_other_signals(sample, built, tmp_path, rules):
    datasets = build(tmp_path / "root", sample[0], rules=rules, languages=[])
    ops = [op["name"] for op in datasets["clean"].manifest["ops"]]
    assert ("web.by_language" in ops) == (rules == "multilingual")
    assert (
        ("web.refinedweb" in ops)
        == ("web.line_rules" in datasets["pages"].manifest["counts"])
        == (rules == "refinedweb")
    )
    assert 0 < datasets["unique"].rows <= datasets["pages"].rows
    assert {"reading_ease", "n_own_stop_words"} & set(datasets["pages"].schema().names)
    assert write_report(datasets["packed"], tmp_path / "report")[0].stat().st_size > 10_000


def cases(sample, kind: str) -> list[dict]:
    found = [case for case in sample[1]["cases"] if case["kind"] == kind]
    assert found
    return found


def test_redaction_takes_the_planted_values_and_no_decoy(sample, built, tmp_path):
    pages = build(tmp_path, sample[0], redact=[])["pages"]
    before = built[1]["pages"]
    assert pages.rows == before.rows and pages.key != before.key
    rows = {row["uri"]: row for row in pages.scan().select("id", "uri", "text").collect().iter_rows(named=True)}
    ledger = pages.ledger().filter(pl.col("op") == "pii.redact").collect()
    for case in cases(sample, "personal_data"):
        row = rows[case["uri"]]
        assert not [item for item in case["found"] if item["value"] in row["text"]]
        assert [decoy for decoy in case["decoys"] if decoy not in row["text"]] == []
        lost = ledger.filter(pl.col("id") == row["id"])
        assert sorted(lost["reason"]) == sorted(item["type"] for item in case["found"])
        assert sorted(lost["lost"]) == sorted(len(item["value"]) for item in case["found"])
    assert set(ledger["unit"]) == {"chars"} and not ledger["evidence"].str.contains("@").any()
    only = build(tmp_path, sample[0], redact=["ip"])["pages"].ledger().filter(pl.col("op") == "pii.redact").collect()
    assert set(only["reason"]) == {"ip"}
    with pytest.raises(InputError, match="nose"):
        build(tmp_path, sample[0], redact=["nose"])


def test_opt_outs_are_obeyed_and_opt_ins_are_not(sample, built):
    clean = built[1]["clean"]
    uris = dict(built[1]["pages"].scan().select("id", "uri").collect().iter_rows())
    reasons = clean.ledger().filter(pl.col("op") == "consent.opt_out").select("id", "reason").collect()
    asked = {uris[id]: reason for id, reason in reasons.iter_rows()}
    for case in cases(sample, "opt_out"):
        assert (case["uri"] in asked) == ("noindex" not in case["value"]), case
    for case in cases(sample, "opt_in"):
        assert case["uri"] not in asked


def test_no_leak_of_a_benchmark_gets_through(sample, built, tmp_path):
    leaks = cases(sample, "benchmark_leak")
    path = tmp_path / "bakery.jsonl"
    path.write_text(json.dumps({"prompt": leaks[0]["prompt"], "answer": leaks[0]["answer"]}) + "\n")
    datasets = build(tmp_path / "root", sample[0], benchmarks=[str(path)])
    unique, kept = (set(datasets[name].scan().collect()["uri"]) for name in ("unique", "decontaminated"))
    there = {case["uri"] for case in leaks} & unique
    assert there and unique - kept == there
    lost = datasets["decontaminated"].ledger().collect()
    assert set(lost["reason"]) == {"bakery"} and datasets["encoded"].rows == len(kept)
    bill = Store(tmp_path / "root").get("clean-bill").manifest
    assert {"name": "decontaminated", "key": datasets["decontaminated"].key}.items() <= bill["inputs"][0].items()


def test_a_classifier_of_ones_own_filters(sample, built, tmp_path):
    """Labels from the pages themselves: those that speak of classes are wanted."""
    rows = built[1]["pages"].scan().select("text").collect()["text"]
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        "\n".join(json.dumps({"text": text, "label": "class" in text.lower()}) for text in rows if text) + "\n"
    )
    store = Store(tmp_path / "root")
    model = store.build("wanted", train(path_context=str(labels)), [], external=["labels"])
    assert json.loads(Path(model.file("card.json")).read_text())
    datasets = build(tmp_path / "root", sample[0], classifier=("wanted", 0.5))
    scores = datasets["pages"].scan().select("wanted").collect()["wanted"]
    low = int((scores < 0.5).sum())
    tally = datasets["clean"].manifest["counts"]["learned.at_least"]
    assert 0 < tally["dropped"] <= low and tally["reasons"] == {"low_score": tally["dropped"]}
    with pytest.raises(InputError, match="is no classifier"):
        build(tmp_path / "root", sample[0], classifier=("tokenizer", 0.5))


def test_held_out_pages_are_packed_apart_and_nothing_is_learned_of_them(sample, built, tmp_path):
    whole = {**built[1]}["unique"]
    found = build(tmp_path, sample[0], holdout=("page", 0.2))
    sides = [set(found[name].scan().select("id").collect()["id"]) for name in ("train", "heldout")]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == whole.rows and all(sides)
    assert found["tokenizer"].inputs[0].digest == found["encoded"].inputs[0].digest == found["train"].digest
    assert found["heldout-packed"].input(0).inputs[0].digest == found["heldout"].digest
    assert found["heldout-packed"].manifest["stats"]["tokens"] + found["packed"].manifest["stats"]["tokens"] > 0
    with pytest.raises(InputError, match=r"holding out .* leaves nothing in (train|heldout): .*hold out by page"):
        build(tmp_path, sample[0], holdout=("host", 1e-6))
