"""`gristmill from-scores`: what a verifier, a judge or a rule says of samples becomes pairs, chats and a curriculum."""

from __future__ import annotations

import json

import polars as pl
import pytest
from chatting import PLAIN, chat
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real
from rltasks import named
from scoredrows import responses
from tinymodel import checkpoint

from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.fsck import fsck
from gristmill.dataops.preferences.pairs import make_pairs
from gristmill.dataops.preferences.trust import latest
from gristmill.dataops.store import Store
from gristmill.dataops.tasks.scored import accepted, best, judgements, rates, scores_add
from gristmill.flows.cli import main
from gristmill.training.generate import GenerateSpec
from gristmill.training.generate import run as generate

GOLDS = {"1 + 1?": "2", "2 + 2?": "4", "3 + 3?": "6", "4 + 4?": "8", "5 + 5?": "10"}
SAID = {
    "1 + 1?": ["It is 2.", "It is 3.", "2", "It is 2."],
    "2 + 2?": ["4", "It is 4.", "four: 4", "= 4"],
    "3 + 3?": ["It is 5.", "It is 9.", "7", "1"],
    "4 + 4?": [None, None, "It is 8.", "It is 9."],
    "5 + 5?": [("It is 7 and so", {"finish": "length"}), "It is 11.", "It is 10.", ""],
}
SCORER = {"name": "last", "call": "rltasks:last"}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def ask(root, capsys):
    def call(*arguments: str, status: int = 0) -> dict:
        given = ["from-scores", *arguments, "--root", str(root), "--workers", "1", "--json"]
        assert main(given) == status, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


def rows(root, name: str) -> pl.DataFrame:
    return Store(root).get(name).scan().collect()


def asked(frame: pl.DataFrame, column: str = "prompt") -> list[str]:
    return [turns[0]["content"] for turns in frame[column].to_list()]


def accounted(root, name: str) -> set[str]:
    """That each response is the source of a row or in the ledger, once; returns the reasons."""
    made = Store(root).get(name)
    used = made.scan().collect()["sources"].explode().to_list()
    gone = made.ledger().collect()
    whole = [*used, *gone["id"].to_list()]
    assert sorted(whole) == sorted(made.input(0).scan().collect()["id"].to_list())
    return set(gone["reason"])


def test_right_answers_are_paired_with_wrong_ones_of_the_same_prompt(root, ask):
    responses(root, SAID, golds=GOLDS)
    told = ask("responses", "--make", "judgements", "--verifier", "maths")
    assert (told["scored"]["responses"], told["scored"]["unjudged"]) == (20, 2)
    assert accounted(root, "responses-judgements") == {"no_response"}
    store = Store(root)
    judged = store.build("once", latest(), [store.get("responses-judgements")])
    rated = judged.scan().collect()
    assert set(rated["kind"]) == {"rating"} and set(rated["rater"]) == {"maths/1"}
    for policy in ("best_worst", "best_random", "all"):
        pairs = store.build(f"pairs-{policy}", make_pairs(policy=policy), [judged]).scan().collect()
        assert set(asked(pairs)) == {"1 + 1?", "4 + 4?", "5 + 5?"}  # the others are ties
        for row in pairs.iter_rows(named=True):
            gold = GOLDS[row["prompt"][0]["content"]]
            assert gold in row["chosen"][0]["content"] and gold not in row["rejected"][0]["content"]
            assert row["margin"] == 1.0
        assert (policy == "all") == (pairs.height > 3)
    assert fsck(store)[1] == []


def test_scores_that_are_none_make_no_pair_and_equal_replies_are_one(root, ask):
    (tmp := root.parent / "scorer.json").write_text(json.dumps({**SCORER, "settings": {"unread": "w9"}}))
    said = {
        "w0 w1": ["w1", "w9", "w9"],
        "w2 w3": ["w3", "w3", "w9"],
        "w4 w5": ["w9", "w9"],
        "w6 w7": ["w7", "w0", "w9"],
    }
    responses(root, said)
    told = ask("responses", "--make", "judgements", "--scorer", str(tmp))
    assert told["rows"] == 1 and told["scored"]["unjudged"] == 6
    assert accounted(root, "responses-judgements") == {"one_reply", "unjudged"}
    (row,) = rows(root, "responses-judgements").iter_rows(named=True)
    assert row["value"] == [1.0, 0.0, None] and len(row["replies"]) == 3
    store = Store(root)
    (pair,) = (
        store.build("pairs", make_pairs(policy="all"), [store.get("responses-judgements")])
        .scan()
        .collect()
        .rows(named=True)
    )
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("w7", "w0")


def test_the_best_of_n_is_right_whole_and_the_shortest(root, ask):
    responses(root, SAID, golds=GOLDS, source="sums", licence="CC0")
    told = ask("responses", "--make", "best", "--verifier", "maths")
    made = rows(root, "responses-best")
    assert told["at_least"] == 1.0
    assert {turns[0]["content"]: turns[1]["content"] for turns in made["messages"].to_list()} == {
        "1 + 1?": "2", "2 + 2?": "4", "4 + 4?": "It is 8.", "5 + 5?": "It is 10.",
    }  # fmt: skip
    assert accounted(root, "responses-best") == {"no_response", "truncated", "below", "not_best"}
    assert set(made["source"]) == {"sums"} and set(made["licence"]) == {"CC0"} and set(made["score"]) == {1.0}


def test_rejection_takes_every_different_right_answer_or_the_best_few(root, ask):
    responses(root, SAID, golds=GOLDS)
    ask("responses", "--make", "rejection", "--verifier", "maths")
    assert accounted(root, "responses-rejection") == {"no_response", "truncated", "below", "duplicate"}
    every = rows(root, "responses-rejection")
    assert sorted(asked(every, "messages")) == ["1 + 1?"] * 2 + ["2 + 2?"] * 4 + ["4 + 4?", "5 + 5?"]
    ask("responses", "--make", "rejection", "--verifier", "maths", "--most", "1", "--name", "few")
    assert rows(root, "few")["messages"].to_list() == [
        turns for turns in rows(root, "few")["messages"].to_list() if len(turns) == 2
    ]
    assert sorted(asked(rows(root, "few"), "messages")) == sorted({*asked(every, "messages")})
    assert "over_most" in accounted(root, "few")


def test_chats_made_of_scores_are_encoded_as_they_are_and_from_their_export(root, ask, capsys):
    folder = root.parent / "chat"
    speaker = chat(folder, PLAIN)
    root = folder / "byte-bpe"
    responses(root, SAID, golds=GOLDS)
    to = root.parent / "exported"
    base = ["--root", str(root)]
    assert main(["from-scores", "responses", "--make", "best", "--verifier", "maths", "--name", "good", *base]) == 0
    store = Store(root)
    direct = store.build("direct", encode_chats(speaker, max_tokens=256), [store.get("good")])
    assert main(["export", "good", "--to", str(to), "--format", "jsonl", *base]) == 0
    assert main(["encode-chats", str(to), "--tokenizer", "chat", "--seq-len", "256", "--name", "sft", *base]) == 0
    read = store.get("sft-encoded")
    assert direct.rows == read.rows == 4
    tokens = [sorted(map(tuple, item.scan().collect()["tokens"].to_list())) for item in (direct, read)]
    assert tokens[0] == tokens[1]


def test_the_curriculum_has_the_tasks_that_are_solved_sometimes(root, ask):
    responses(root, SAID, golds=GOLDS, verifier=json.dumps({"name": "maths", "version": 1, "params": {}}))
    told = ask("responses", "--make", "rates", "--name", "curriculum")  # by the verifier that each row names
    assert told["scorer"] == {"rows": "verifier"} and told["at_least"] == 1.0
    made = rows(root, "curriculum").sort("pass_rate")
    assert list(zip(asked(made), made["pass_rate"], made["difficulty"], made["samples"], strict=True)) == [
        ("5 + 5?", 0.25, 0.75, 4), ("4 + 4?", 0.5, 0.5, 2), ("1 + 1?", 0.75, 0.25, 4),
    ]  # fmt: skip
    assert accounted(root, "curriculum") == {"no_response", "always_solved", "never_solved"}
    assert made["gold"].to_list() == ["10", "8", "2"] and "verifier" in made.columns and "response" not in made.columns
    assert set(made["id"]) <= set(rows(root, "responses")["sources"].explode())  # the tasks' own ids
    assert told["pass_rates"] == {"0.2": 1, "0.5": 1, "0.7": 1}


def test_a_task_whose_gold_is_wrong_is_not_judged(root, ask):
    responses(root, {"1 + 1?": ["2", "3"], "2 + 2?": ["4", "5"]}, golds={"1 + 1?": "2", "2 + 2?": "\\frac{"})
    told = ask("responses", "--make", "rates", "--verifier", "maths")
    assert told["rows"] == 1 and told["scored"]["unjudged"] == 2
    assert accounted(root, "responses-rates") == {"unjudged"}


def test_programs_are_run_and_only_what_passes_is_taught(root, ask):
    right, wrong = (f"```python\ndef add(a, b):\n    return a {sign} b\n```" for sign in "+-")
    tests = json.dumps({"assertions": ["assert add(2, 3) == 5"]})
    responses(root, {"Write add.": [wrong, right, "I will not."]}, tests=tests, reference="def add(a, b): return a + b")
    ask("responses", "--make", "rejection", "--verifier", "programs", "--set", "timeout=5")
    (row,) = rows(root, "responses-rejection").iter_rows(named=True)
    assert [turn["content"] for turn in row["messages"]] == ["Write add.", right]


def test_a_judge_takes_the_best_whatever_its_score(root, ask):
    responses(root, {"w0 w1": ["w0", "w1"], "w2 w3": ["w2 w4", "w2"]})
    told = ask("responses", "--make", "best", "--scorer", json.dumps(SCORER))
    assert told["at_least"] is None
    made = rows(root, "responses-best")
    assert sorted(turns[1]["content"] for turns in made["messages"].to_list()) == ["w1", "w2"]
    told = ask("responses", "--make", "best", "--scorer", json.dumps(SCORER), "--at-least", "0.5", "--name", "good")
    assert told["rows"] == 1 and told["scored"]["key"] == Store(root).get("responses-scored").key


def test_a_model_that_scores_is_named_by_its_content(root, ask, tmp_path):
    model = responses(root, {"w0 w1": ["w1", "w0"]})
    scorer = {**SCORER, "settings": {"dataset": "responses"}}
    told = ask("responses", "--make", "rates", "--scorer", json.dumps(scorer), "--at-least", "1")
    assert told["scorer"]["scorer"]["settings"] == {"digest": model.digest}


def test_real_solutions_of_four_models_become_what_their_labels_say(root, ask):
    """GSM8K's 1,319 questions, answered by four models, each answer labelled by the authors."""
    files = [real(f"verify/gsm8k-{name}.jsonl") for name in ("example_model_solutions", "test")]
    solved, gold = ([json.loads(line) for line in path.read_text().splitlines()] for path in files)
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    said = {row["question"]: [row[model]["solution"] for model in models] for row in solved}
    labels = {row["question"]: [row[model]["is_correct"] for model in models] for row in solved}
    responses(root, said, golds={row["question"]: row["answer"] for row in gold})
    rated = ask("responses", "--make", "rates", "--verifier", "maths")
    assert (rated["scored"]["responses"], rated["scored"]["unjudged"]) == (5276, 0)
    made = rows(root, "responses-rates")
    shares = {question: sum(right) / 4 for question, right in labels.items()}
    assert dict(zip(asked(made), made["pass_rate"], strict=True)) == {
        question: rate for question, rate in shares.items() if 0 < rate < 1
    }
    ask("responses", "--make", "judgements", "--verifier", "maths")
    store = Store(root)
    pairs = store.build("pairs", make_pairs(policy="all"), [store.get("responses-judgements")]).scan().collect()
    right = {(question, text.strip()): label for question, texts in said.items()
             for text, label in zip(texts, labels[question], strict=True)}  # fmt: skip
    for side, label in (("chosen", True), ("rejected", False)):
        texts = [turns[0]["content"].strip() for turns in pairs[side].to_list()]
        assert {right[key] for key in zip(asked(pairs), texts, strict=True)} == {label}
    assert pairs["prompt"].n_unique() == made.height


@pytest.mark.parametrize(
    "make", [judgements(), best(at_least=1.0), accepted(at_least=1.0, most=2), rates(at_least=1.0)]
)
def test_how_the_work_is_cut_does_not_show(root, ask, monkeypatch, make):
    responses(root, SAID, golds=GOLDS)
    ask("responses", "--make", "rates", "--verifier", "maths")
    store = Store(root)
    scores = store.get("responses-scored")
    whole = store.build("whole", make, [scores])
    monkeypatch.setattr("gristmill.dataops.tasks.scored._ROWS", 4)
    cut = Store(root.parent / "other").build("cut", make, [scores])
    assert len(cut.manifest["shards"]) == 5 > len(whole.manifest["shards"])
    assert cut.scan().collect().sort("id").equals(whole.scan().collect().sort("id"))
    assert cut.manifest["counts"] == whole.manifest["counts"]


def test_a_judgement_holds_sixty_four_replies(root, ask):
    responses(root, {"7 + 0?": [str(n) for n in range(70)]}, golds={"7 + 0?": "7"})
    ask("responses", "--make", "judgements", "--verifier", "maths")
    assert accounted(root, "responses-judgements") == {"too_many"}
    assert rows(root, "responses-judgements")["replies"].list.len().to_list() == [64]


def test_what_a_model_generates_is_scored_by_the_verifier_that_its_tasks_name(tmp_path, capsys):
    """From tasks to a curriculum without a dataset made by hand."""
    root = tmp_path / "root"
    own = tmp_path / "own.py"
    own.write_text(OWN)
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps({"prompt": f"say {n}"}) + "\n" for n in range(6)))
    base = ["--root", str(root), "--workers", "1"]
    assert main(["build-tasks", str(tmp_path / "tasks.jsonl"), "--verifier", f"{own}:odd", *base]) == 0
    data, model = Store(root).get("tasks"), checkpoint(root, window=512)
    spec = {"data": named(data), "model": named(model), "samples": 4, "max_tokens": 5, "root": str(root)}
    generate(GenerateSpec(**spec))
    for make, status in {"judgements": 0, "rates": 0, "best": 2}.items():
        assert main(["from-scores", "responses", "--make", make, *base]) == status
    assert "truncated 24" in capsys.readouterr().err  # this model never ends a turn, which is not to be learned
    tasks, scores = rows(root, "responses-rates"), rows(root, "responses-scored")
    assert scores.height == 24 and set(scores["scorer"]) == {"toy.odd/1"}
    rated = {"sources", "pass_rate", "difficulty", "samples"}
    assert {*tasks.columns} == {*data.schema().names} | rated
    mean = scores.group_by("task").agg(pl.col("score").mean()).rows()
    assert dict(tasks.select("id", "pass_rate").rows()) == {id: rate for id, rate in mean if 0 < rate < 1}
    stats = Store(root).get("responses-rates-collapse").manifest["stats"]["now"]
    assert stats["entropy"] > 0 and stats["samples"] == 4


OWN = """
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier


@verifier("toy.odd", version=1)
def odd(prompt: str, response: str) -> Verdict:
    return Verdict(float(len(response) % 2), "counted")
"""


@pytest.mark.parametrize(
    ("said", "arguments", "why"),
    [
        ({"1 + 1?": ["2", "It is 2."]}, ["--make", "rates"], "always_solved 2. Every prompt is solved always"),
        ({"1 + 1?": ["3", "4"]}, ["--make", "rates"], "never_solved 2. No prompt is ever solved"),
        ({"1 + 1?": ["3", "4"]}, ["--make", "best"], "below 2"),
        ({"1 + 1?": ["2"]}, ["--make", "judgements"], "one_reply 1"),
        ({"1 + 1?": [None]}, ["--make", "rates"], "none of 1 responses could be judged (no_response 1)"),
        ({"1 + 1?": ["2"]}, ["--make", "best", "--most", "2"], "it is of rejection"),
        ({"1 + 1?": ["2"]}, ["--make", "judgements", "--at-least", "1"], "a margin of their own"),
        ({"1 + 1?": ["2"]}, ["--make", "best", "--collapse-limit", "0.1"], "name it with --previous"),
        ({"1 + 1?": ["2"]}, ["--make", "best", "--previous", "responses", "--collapse-limit", "1"], "it is a share"),
        ({"1 + 1?": ["2"]}, ["--make", "best", "--scorer", "{}"], "both who scores"),
        ({"1 + 1?": ["2"]}, ["--make", "best", "--set", "place=1"], "place"),
    ],
)
def test_what_cannot_be_made_says_why(root, ask, said, arguments, why):
    responses(root, said, golds=GOLDS)
    assert why in ask("responses", "--verifier", "maths", *arguments, status=2)["error"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--make", "rates"], "no column 'verifier'"),
        (["--make", "rates", "--verifier", "maths"], "none of 2 responses could be judged (no_column 2)"),
        (["--make", "rates", "--verifier", "mathz"], "no verifier is called"),
        (["--make", "rates", "--set", "places=2"], "name it with --verifier"),
        (["--make", "rates", "--scorer", "{"], "neither JSON nor a file"),
        (["--make", "rates", "--scorer", '{"nam": 1}'], "MODULE:FUNCTION"),
        (["--make", "rates", "--scorer", '{"name": "a", "call": "rltasks:none"}'], "cannot be found"),
        (["--make", "rates", "--scorer", json.dumps(SCORER)], "rates needs at_least"),
    ],
)
def test_scorers_that_cannot_score_are_named(root, ask, arguments, why):
    responses(root, {"w0 w1": ["w1", "w0"]})
    assert why in ask("responses", *arguments, status=2)["error"]


def test_a_scorer_that_is_gone_leaves_nothing_behind(root, ask):
    responses(root, {"w0 w1": ["w1", "w0"]})
    switch = root / "switch"
    switch.touch()
    scorer = json.dumps({**SCORER, "settings": {"switch": str(switch)}})
    arguments = ("responses", "--make", "rates", "--scorer", scorer, "--at-least", "1")
    assert "is gone" in ask(*arguments, status=1)["error"]
    switch.unlink()
    assert ask(*arguments)["rows"] == 1


@given(scores=st.lists(st.sampled_from([None, 0.0, 0.5, 1.0]), min_size=1, max_size=8), same=st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_pair_is_of_equals_or_of_the_unjudged(tmp_path_factory, scores, same):
    """Whatever was scored how: chosen is better than rejected, differs from it, and both were judged."""
    root = tmp_path_factory.mktemp("law")
    texts = [f"reply {n % (same + 1)}" for n in range(len(scores))]
    given_ = responses(root, {"p": texts})
    store = Store(root)
    frame = given_.scan().collect()
    known: dict[str, list[float]] = {}
    for text, score in zip(texts, scores, strict=True):
        known.setdefault(text, []).extend([] if score is None else [score])
    adding = scores_add(scorer={"toy": 1}, scoring_context=_Fixed(scores))
    scored = store.build("scored", adding, [given_])
    judged = store.build("judged", judgements(), [scored])
    assert frame.height == len(scores)
    for policy in ("all", "best_worst"):
        for pair in store.build(f"p-{policy}", make_pairs(policy=policy), [judged]).scan().collect().rows(named=True):
            better, worse = (pair[side][0]["content"] for side in ("chosen", "rejected"))
            means = [sum(known[text]) / len(known[text]) for text in (better, worse)]
            assert better != worse and means[0] > means[1]


class _Fixed:
    """Scores in order."""

    def __init__(self, scores):
        self.scores = scores

    def __call__(self, rows, said):
        return [(score, "fixed", "toy") for score in self.scores]
