"""The alarm for collapse: a round that says less and less is told; what cannot be compared raises none."""

from __future__ import annotations

import json

import pytest
from scoredrows import responses

from gristmill.dataops.store import Store
from gristmill.dataops.tasks.collapse import compare
from gristmill.flows.cli import main
from gristmill.training.evaluation.texts import distinct, words


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def ask(root, capsys):
    def call(*arguments: str) -> dict:
        assert main(["from-scores", *arguments, "--root", str(root), "--workers", "1", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


def different(texts, n):
    """distinct-n of texts."""
    return distinct([words(text) for text in texts], n)


def test_a_round_that_says_less_raises_the_alarm(root, ask, capsys):
    golds = {f"{n} + 1?": str(n + 1) for n in range(6)}
    wide = {asked: [f"Well, {word} it is {n}." for n, word in enumerate(("so", "thus", "then", gold))]
            for asked, gold in golds.items()}  # fmt: skip
    narrow = {asked: [f"{gold}.", *["so it is so it is"] * 3] for asked, gold in golds.items()}
    responses(root, wide, golds=golds, name="one")
    responses(root, {asked: [(text, {"logprob": -0.1}) for text in said] for asked, said in narrow.items()},
              golds=golds, name="two")  # fmt: skip
    told = ask("two", "--make", "rates", "--verifier", "maths", "--previous", "one")["collapse"]
    assert set(told["alarms"]) == {"entropy", "distinct_1", "distinct_2"} and told["shared"] == 6
    assert told["fell"]["entropy"] > 0.5 and told["limit"] == 0.2
    assert Store(root).get("two-rates-collapse").manifest["stats"]["alarms"] == told["alarms"]
    assert ask("one", "--make", "rates", "--verifier", "maths", "--previous", "two")["collapse"]["alarms"] == []
    given = ["from-scores", "two", "--make", "rates", "--verifier", "maths", "--root", str(root)]
    assert main([*given, "--previous", "one"]) == 0
    assert "COLLAPSE: entropy, distinct_1, distinct_2 fell by more than 20%" in capsys.readouterr().out
    assert main(given) == 0
    assert "no --previous round" in capsys.readouterr().out


def test_rounds_are_held_to_what_both_have():
    one = {"a": [{"response": "x y"}, {"response": "x z"}], "b": [{"response": "x"}]}
    two = {"a": [{"response": "x y"}], "c": [{"response": "q"}]}
    told = compare(one, two, 0.2, different)
    assert told["shared"] == 1 and told["now"] == told["before"]
    assert told["now"]["samples"] == 1 and told["now"]["entropy"] is None and told["fell"]["entropy"] is None
    assert compare(one, {"d": one["a"]}, 0.2, different)["shared"] == 0
