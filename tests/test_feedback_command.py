"""`gristmill feedback` as a user meets it: import, queue, close and status, and what it says of bad input."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from feedbackdb import url, work
from realdata import real

from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.feedback.queues import add_rater
from gristmill.dataops.preferences.imports import Format
from gristmill.dataops.store import Store
from gristmill.flows.cli import main


@pytest.fixture
def ask(tmp_path, capsys):
    """The object that the command prints, after checking its status."""

    def asked(*words: str, status: int = 0) -> dict:
        code = main(["feedback", *words, "--root", str(tmp_path / "root"), "--json"])
        out, err = capsys.readouterr()
        assert code == status, err
        assert out.count("\n") == 1
        return json.loads(out)

    return asked


@pytest.fixture
def say(tmp_path, capsys):
    """What the command prints for people."""

    def said(*words: str) -> str:
        assert main(["feedback", *words, "--root", str(tmp_path / "root")]) == 0
        return capsys.readouterr().out

    return said


def _file(tmp_path, name, rows):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _judgement(prompt, rater, value, **more):
    return {"prompt": prompt, "responses": ["a", "b"], "kind": "pairwise", "value": value, "rater": rater, **more}


def test_import_tells_items_raters_judgements_and_agreement(ask, say):
    path = str(real("pref/pandalm-testset-v1-3annotators.json"))
    found = ask("import", path, "--format", "pandalm", "--queue", "panda")
    assert (found["items"], found["raters"], found["judgements"], found["added"]) == (999, 3, 2997, 2997)
    assert {name: round(found["agreement"][name], 4) for name in ("percent", "fleiss_kappa", "krippendorff_alpha")} == {
        "percent": 0.9199, "fleiss_kappa": 0.8642, "krippendorff_alpha": 0.8642,
    }  # fmt: skip
    again = ask("import", path, "--format", "pandalm", "--queue", "panda")
    assert (again["added"], again["known"], again["agreement"]) == (0, 2997, found["agreement"])
    text = say("import", path, "--format", "pandalm", "--queue", "panda")
    assert "999 items, 3 raters, 2,997 judgements" in text and "0.8642" in text


def test_one_rater_and_ties_everywhere_have_no_agreement_and_the_reason(ask, say, tmp_path):
    one = ask("import", _file(tmp_path, "one.jsonl", [_judgement(f"p{n}", "ann", [1, 0]) for n in range(3)]))
    assert one["queue"] == "one" and one["agreement"]["fleiss_kappa"] is None
    assert one["agreement"]["undefined"]["percent"] == "no_item_rated_twice"
    ties = [_judgement(f"p{n}", rater, [0, 0]) for n in range(3) for rater in ("ann", "bob")]
    told = ask("import", _file(tmp_path, "ties.jsonl", ties))["agreement"]
    assert told["percent"] == 1 and told["undefined"]["fleiss_kappa"] == "one_category_only"
    assert "no_item_rated_twice" in say("status", "one") and "one_category_only" in say("status", "ties")


def test_ratings_agree_by_aspect_and_edits_not_at_all(ask, tmp_path):
    rated = {"prompt": "p", "responses": ["a"], "kind": "rating"}
    rows = [
        rated | {"rater": rater, "aspect": aspect, "value": [score], "prompt": f"p{score}"}
        for rater in ("ann", "bob") for aspect in ("clear", "true") for score in (1, 5)
    ]  # fmt: skip
    found = ask("import", _file(tmp_path, "rated.jsonl", rows))["agreement"]
    assert {name: one["krippendorff_alpha"] for name, one in found.items()} == {"clear": 1, "true": 1}
    edit = {"prompt": "p", "responses": ["a", "A"], "kind": "edit", "value": [0, 1], "rater": "ann"}
    assert ask("import", _file(tmp_path, "edits.jsonl", [edit]))["agreement"] == {}


def test_from_candidates_to_a_closed_batch(ask, say, tmp_path):
    rows = [
        {"prompt": f"p{n}", "responses": [{"text": "yes", "scores": [n / 10]}, {"text": "no", "scores": [0.35]}]}
        for n in range(10)
    ]
    path = _file(tmp_path, "candidates.jsonl", [*rows, rows[0] | {"responses": ["same", "same"]}])
    options = ("--strategy", "uncertainty", "--most", "4", "--wanted", "2", "--threshold", "5")
    found = ask("queue", "help", path, *options)
    assert (found["kind"], found["added"], found["left"], found["same_responses"]) == ("pairwise", 4, 6, 1)
    assert "6 were there" not in say("queue", "help") and ask("queue", "help", path, *options)["known"] == 4
    assert ask("close", "help", status=1) == {"batches": [], "status": 1}
    db = open_database(tmp_path / "root")
    for rater in ("ann", "bob"):
        add_rater(db, rater)
        work(db, rater, 3, queue="help")
    assert "due by threshold" in say("status")
    [batch] = ask("close", "--due")["batches"]
    assert (batch["judgements"], batch["reason"]) == (6, "threshold") and ask("close", "--due")["batches"] == []
    assert Store(tmp_path / "root").get("feedback-help").key == batch["key"]
    [shown] = ask("status", "help")["queues"]
    assert (shown["judgements"], shown["waiting"], shown["open"]) == (6, 0, 1 if shown["open"] == 1 else 2)
    assert "not announced yet" in say("status")


def test_another_database_holds_the_queues_and_the_root_the_data(ask, tmp_path):
    where = url("postgresql", tmp_path)
    path = _file(tmp_path, "said.jsonl", [_judgement("p", "ann", [1, 0])])
    assert ask("import", path, "--database", where)["added"] == 1
    [batch] = ask("close", "said", "--database", where)["batches"]
    assert batch["judgements"] == 1 and ask("status")["queues"] == []
    assert Store(tmp_path / "root").get("feedback-said").digest == batch["digest"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["import", "{nowhere}"], "nowhere"),
        (["import", "{mixed}"], "several kinds: pairwise, thumbs"),
        (["import", "{nobody}"], "record 1: nobody is named"),
        (["import", "{bad}"], "no judgement in"),
        (["import", "{mixed}", "--kind", "pairwise", "--database", "mysql://here/x"], "SQLite or PostgreSQL"),
        (["queue", "q", "{mixed}", "--strategy", "uncertainty"], "needs `scores`"),
        (["queue", "q", "{bad}"], "bad.jsonl, record 1"),
        (["queue", "q", "--gold-share", "2"], "gold_share"),
        (["close", "q"], "no root at"),
        (["status"], "no root at"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(ask, tmp_path, words, told):
    thumb = {"prompt": "p", "responses": ["a"], "kind": "thumbs", "value": [1], "rater": "ann"}
    files = {
        "{mixed}": _file(tmp_path, "mixed.jsonl", [_judgement("p", "ann", [1, 0]), thumb]),
        "{nobody}": _file(tmp_path, "nobody.jsonl", [_judgement("p", None, [1, 0])]),
        "{bad}": _file(tmp_path, "bad.jsonl", [{"prompt": 1}]),
        "{nowhere}": str(tmp_path / "nowhere.jsonl"),
    }
    assert told in ask(*(files.get(word, word) for word in words), status=2)["error"]


def test_the_help_names_every_format(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["feedback", "import", "--help"])
    told = capsys.readouterr().out.replace("\n", " ")
    assert all(name in told for name in get_args(Format))


def test_closing_wants_a_queue_or_all_that_are_due(ask):
    ask("queue", "q")
    for words in ((), ("q", "--due")):
        assert "--due" in ask("close", *words, status=2)["error"]
    assert "no queue 'other'; there are: q" in ask("close", "other", status=2)["error"]
    assert "no queue 'other'" in ask("status", "other", status=2)["error"]
