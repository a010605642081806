"""Held-out preferences in an evaluation: how many pairs a model tells apart by its own likelihood."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from evaluated import evaluate, named
from preferred import one_thread, pairs, replies
from tinychat import base, chat_tokenizer

from gristmill.dataops.gates.sides import sides
from gristmill.dataops.store import Store
from gristmill.training.checkpoint import load_model
from gristmill.training.evaluation.pairs import Told, measures


@pytest.fixture
def toys(tmp_path):
    chat = chat_tokenizer(tmp_path)
    with one_thread():
        yield chat, base(tmp_path, chat)


def by_hand(model, found):
    """Mean log-probability per token of both replies, one sequence at a time."""
    network, told = load_model(model).eval(), []
    for prompt, *both in found:
        for reply in both:
            with torch.no_grad():
                logits = network(torch.tensor([[*prompt, *reply]])).logits[0].double().log_softmax(-1)
            places = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
            told.append(np.mean([logits[place, token] for place, token in zip(places, reply, strict=True)]))
    return np.array(told).reshape(-1, 2)


def test_a_pair_is_told_apart_by_log_probability_per_token(toys, tmp_path, capsys):
    chat, model = toys
    found = replies(30)
    data = pairs(tmp_path, chat, found)
    spec = {"model": named(model), "tokenizer": named(chat)}
    made = evaluate(tmp_path, capsys, pairs=[named(data, name="p")], **spec)
    chosen, rejected = by_hand(model, found).T
    got = made.manifest["stats"]["measures"]
    assert set(got) == {"p/accuracy", "p/margin"} and got["p/accuracy"]["n"] == 30
    assert got["p/accuracy"]["value"] == pytest.approx(np.mean(chosen > rejected))
    assert got["p/margin"]["value"] == pytest.approx(np.mean(chosen - rejected), abs=1e-5)
    rows = made.scan().collect()
    assert set(rows["part"]) == {"pairs"}
    by_pair = dict(
        zip(rows["sources"].list.first(), zip(rows["score"], rows["loss"], rows["tokens"], strict=True), strict=True)
    )
    for name, first, second, (_, reply, _) in zip(data.scan().collect()["id"], chosen, rejected, found, strict=True):
        assert by_pair[name] == pytest.approx((first - second, -first, len(reply)), abs=1e-5)


def test_pairs_of_one_prompt_are_one_unit_and_a_tie_is_half():
    told = Told(
        [b"1", b"2", b"3", b"4"], [b"p", b"p", b"q", b"r"], np.array([1.0, -3.0, 0.0, 2.0]), np.zeros(4), np.ones(4)
    )
    found = measures(told, seed=0)
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx((0.5 + 0.5 + 1) / 3), 3)
    assert found["margin"].value == pytest.approx((-1 + 0 + 2) / 3)
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high


def test_the_same_pairs_in_another_order_are_the_same_and_a_limit_takes_those_with_the_lowest_ids(
    toys, tmp_path, capsys
):
    chat, model = toys
    found = replies(12)
    data = pairs(tmp_path, chat, found)
    spec = {"model": named(model), "tokenizer": named(chat)}
    whole = evaluate(tmp_path, capsys, pairs=[named(data, name="p")], **spec)
    some = evaluate(tmp_path, capsys, pairs=[named(data, name="p", limit=5)], **spec)
    lowest = sorted(pc.cast(data.scan().collect()["id"].to_arrow(), "binary").to_pylist())[:5]
    assert sorted(some.scan().collect()["sources"].list.first().to_list()) == lowest
    assert some.manifest["stats"]["measures"]["p/accuracy"]["n"] == 5 and some.key != whole.key
    changed = evaluate(tmp_path, capsys, pairs=[named(data, name="p")], parent=named(whole), name="again", **spec)
    assert changed.manifest["stats"]["measures"]["p/margin_change"]["value"] == 0


def test_pairs_for_another_template_or_a_model_without_chat_are_refused(toys, tmp_path, capsys):
    chat, model = toys
    data = pairs(tmp_path, chat, replies(4))
    assert "chat" in evaluate(tmp_path, capsys, 2, model=named(model), pairs=[named(data, name="p")])
    other = chat_tokenizer(tmp_path, template="{{ messages }}{# another #}")
    told = evaluate(tmp_path, capsys, 2, model=named(model), tokenizer=named(other), pairs=[named(data, name="p")])
    assert "template" in told
    twice = [named(data, name="p"), named(data, name="p")]
    assert "'p' names several" in evaluate(tmp_path, capsys, 2, model=named(model), pairs=twice)


def test_gates_hold_a_measure_against_one_of_the_same_pairs_alone(toys, tmp_path, capsys):
    chat, model = toys
    data, other = pairs(tmp_path, chat, replies(4)), pairs(tmp_path, chat, replies(4, start=9), name="other")
    made = evaluate(tmp_path, capsys, model=named(model), tokenizer=named(chat), pairs=[named(data, name="p")])
    asked = sides(Store(tmp_path), model, [], [made]).model.measures["p/accuracy"]["asked"]
    assert asked == {"name": "p", "digest": data.digest, "limit": None} and asked["digest"] != other.digest
