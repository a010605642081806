"""Preference optimisation: every loss learns a preference, settings do what they say, nothing is cut or passed over."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from preferred import FIRST, one_thread, pairs, replies, thumbs
from tinychat import base, chat_tokenizer

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.checkpoint import load_model
from gristmill.training.preference import dry, run
from gristmill.training.preferences.held import area, fell_at, share, wins
from gristmill.training.preferences.logprobs import score
from gristmill.training.preferences.spec import KTO, PreferenceSpec

LONG = 30  # steps that are enough to learn, and are measured
LEARN = {"learning_rate": 3e-3, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("preference")
    chat = chat_tokenizer(root)
    train, held = replies(256), replies(64, start=512)
    assert not {str(p) for p, _, _ in train} & {str(p) for p, _, _ in held}
    with one_thread():
        yield {
            "root": root, "chat": chat, "start": base(root, chat),
            "pairs": (pairs(root, chat, train), pairs(root, chat, held, name="held")),
            "thumbs": (thumbs(root, chat, train), thumbs(root, chat, held, name="held-thumbs")),
        }  # fmt: skip


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def spec_of(world, **more) -> PreferenceSpec:
    data, held = world["thumbs" if more.get("loss") in KTO else "pairs"]
    given = {
        "data": [named(data)], "start": named(world["start"]), "tokenizer": named(world["chat"]), "steps": 3, "rows": 8,
        "validation": [named(held)] if more.get("steps") == LONG else [], "root": str(world["root"]),
        "optimiser": LEARN,
    }  # fmt: skip
    return PreferenceSpec(**given | more)


def made(world, **more) -> Dataset:
    return run(spec_of(world, **more))


def told(model: Dataset) -> dict:
    (found,) = model.manifest["stats"]["validation"].values()
    return found


def same(one: Dataset, other: Dataset, atol: float = 2e-5) -> bool:
    a, b = load_model(one).state_dict(), load_model(other).state_dict()
    return all(torch.allclose(a[name], b[name], atol=atol) for name in a)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "sigmoid_norm", "kto", "orpo", "simpo"])
def test_a_preference_is_learned_on_prompts_never_seen(world, loss):
    model = made(world, loss=loss, steps=LONG)
    found = told(model)
    before, after = found["before"], found["after"]
    assert before["accuracy"]["value"] == 0.5, "at the start nothing has moved"
    assert 0.3 < before["likelihood"]["value"] < 0.7
    assert after["accuracy"]["low"] > 0.9 and after["likelihood"]["low"] > 0.9
    assert after["loss"] < before["loss"] and after["margin"] > before["margin"] == 0
    assert found["kl"] > 0.01
    stats = model.manifest["stats"]
    assert stats["steps"] == LONG and stats["rows"] == 8 * LONG and stats["chosen_fell_at"] is None
    assert set(stats["too_long"].values()) == {0}
    lines = [json.loads(line) for line in Path(model.file("metrics.jsonl")).read_text().splitlines()]
    watched = "likelihood/margins" if loss in ("orpo", "simpo") else "rewards/margins"
    assert len(lines) == LONG and np.mean([line.get(watched, 0) for line in lines[-5:]]) > 0
    assert all("logps/chosen" in line or loss == "kto" for line in lines)


def test_the_held_out_numbers_are_those_of_the_published_weights(world):
    """Nothing is told of a model but what whoever loads it will find."""
    model = made(world, loss="sigmoid", steps=LONG)
    found = told(model)
    given = replies(64, start=512)
    rewards = {}
    for side in (1, 2):
        examples = [(row[0], row[side]) for row in given]
        logps = [score(load_model(which), examples, 0) for which in (world["start"], model)]
        rewards[side] = logps[1] - logps[0]
        tokens = sum(len(reply) for _, reply in examples)
        name = ("chosen", "rejected")[side - 1]
        assert found["before"][f"{name}_logp"] == pytest.approx(logps[0].sum() / tokens, rel=1e-4)
        assert found["after"][f"{name}_logp"] == pytest.approx(logps[1].sum() / tokens, rel=1e-4)
    margin = rewards[1] - rewards[2]
    assert found["after"]["margin"] == pytest.approx(margin.mean(), rel=1e-4)
    assert found["after"]["loss"] == pytest.approx(np.logaddexp(0, -0.1 * margin).mean(), rel=1e-4)
    assert found["before"]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_kl_is_exact_over_the_vocabulary(world):
    model = made(world, loss="sigmoid", steps=LONG)
    total, positions = 0.0, 0
    one, other = load_model(model), load_model(world["start"])
    for prompt, chosen, _ in replies(64, start=512):
        tokens = torch.tensor([prompt + chosen])
        with torch.no_grad():
            p, q = (net(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for net in (one, other))
        total += float((p.exp() * (p - q)).sum())
        positions += len(chosen)
    assert told(model)["kl"] == pytest.approx(total / positions, rel=1e-4)


@pytest.mark.parametrize("loss", ["sigmoid", "orpo", "simpo"])
def test_pieces_do_not_change_what_is_learned(world, loss):
    whole = made(world, loss=loss, name="whole")
    assert same(whole, made(world, loss=loss, name="pieces", accumulate=4))


@pytest.mark.parametrize("loss", ["sigmoid", "kto", "simpo"])
def test_checkpointing_changes_memory_alone(world, loss):
    assert same(made(world, loss=loss, name="plain"), made(world, loss=loss, name="checkpointed", checkpointing=True))


@pytest.mark.parametrize(
    ("loss", "setting"),
    [
        ("sigmoid", {"beta": 1.0}), ("sigmoid", {"sft_weight": 1.0}), ("robust", {"label_smoothing": 0.3}),
        ("aot", {"label_smoothing": 0.3}), ("orpo", {"beta": 2.0}), ("orpo", {"label_smoothing": 0.3}),
        ("simpo", {"gamma": 0.0}), ("simpo", {"label_smoothing": 0.3}), ("kto", {"desirable_weight": 2.0}),
        ("kto", {"undesirable_weight": 2.0}), ("kto", {"beta": 1.0}),
    ],
)  # fmt: skip
def test_every_setting_changes_what_is_learned(world, loss, setting):
    plain, other = made(world, loss=loss, name="plain"), made(world, loss=loss, name="set", **setting)
    assert not same(plain, other, 1e-6) and plain.key != other.key


def test_what_is_the_default_and_what_is_said_are_one_run(world):
    assert spec_of(world, loss="simpo").params == spec_of(world, loss="simpo", beta=2, gamma=1.0).params


def test_an_sft_term_holds_the_chosen_replies_up(world):
    """apo_down lowers them on purpose; its fall is told, and the term added to it works against that."""
    alone = told(made(world, loss="apo_down", steps=LONG))["chosen_change"]
    held = told(made(world, loss="apo_down", steps=LONG, sft_weight=1.0))["chosen_change"]
    assert alone < -0.2 < held


def test_a_fall_of_the_chosen_replies_is_warned_about(world, capsys):
    fast = {"learning_rate": 1e-2, "weight_decay": 0.0}
    model = made(world, loss="apo_down", name="falling", steps=LONG, optimiser=fast)
    assert told(model)["chosen_change"] < -math.log(2)
    err = capsys.readouterr().err
    assert "chosen replies have fallen by" in err
    step = model.manifest["stats"]["chosen_fell_at"]
    assert step is not None and f"at step {step} chosen replies have fallen" in err


@pytest.mark.parametrize("loss", ["sigmoid", "kto", "orpo"])
def test_lora_publishes_an_ordinary_model_and_learns(world, loss):
    model = made(world, loss=loss, name="lora", steps=LONG, lora={"rank": 8}, optimiser={"learning_rate": 2e-2})
    before, after = load_model(world["start"]).state_dict(), load_model(model).state_dict()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("proj" in name for name in moved), "only what has adapters moves"
    assert told(model)["before"]["accuracy"]["value"] == 0.5
    assert told(model)["after"]["accuracy"]["low"] > 0.75


def test_lora_takes_the_model_without_adapters_as_reference(world):
    """At the start DPO's loss is log 2 and KTO's 1/2; with another reference it would not be."""
    for loss, value in (("sigmoid", math.log(2)), ("kto", 0.5)):
        model = made(world, loss=loss, name="lora", steps=LONG, lora={"rank": 8}, optimiser={"learning_rate": 2e-2})
        assert told(model)["before"]["loss"] == pytest.approx(value, rel=1e-6)


def test_dry_run_says_what_it_needs(world):
    found = dry(spec_of(world, steps=7))
    assert (found["steps"], found["rows"], found["longest"]) == (7, 56, 14)
    assert found["most_tokens"] == 7 * 8 * 14 * 2 and found["memory"]["frozen"] > 0
    free = dry(spec_of(world, steps=7, loss="simpo"))
    assert free["memory"]["frozen"] == 0 and free["most_tokens"] == found["most_tokens"]


def test_rows_longer_than_the_window_are_counted_and_nothing_is_cut(world, tmp_path, capsys):
    """Rows of 1,500 tokens, beyond the length at which TRL cuts unless told: their loss is that of all their tokens."""
    start = base(tmp_path, world["chat"], seq_len=2048)
    rng = np.random.default_rng(0)
    long = [(p, [*rng.integers(FIRST, 30, 1500).tolist(), 2], r) for p, _, r in replies(3)]
    data = pairs(tmp_path, world["chat"], [*long, *((p, c * 700, r) for p, c, r in replies(2, start=50))])
    more = {"root": str(tmp_path), "start": named(start), "data": [named(data)], "rows": 3, "steps": 1}
    for loss in ("sigmoid", "orpo"):
        model = made(world, loss=loss, **more)
        assert list(model.manifest["stats"]["too_long"].values()) == [2]
        assert "2 rows are longer than 2,048 tokens and left out" in capsys.readouterr().err
        (line,) = (json.loads(line) for line in Path(model.file("metrics.jsonl")).read_text().splitlines())
        logps = [score(load_model(start), [(row[0], row[side]) for row in long], 0).mean() for side in (1, 2)]
        assert [line["logps/chosen"], line["logps/rejected"]] == pytest.approx(logps, rel=1e-4)
        assert line["num_tokens"] == sum(2 * len(p) + len(c) + len(r) for p, c, r in long)


def test_kl_replies_that_would_pass_the_window_are_told(world, tmp_path):
    start = base(tmp_path, world["chat"], seq_len=24)
    short = [([1, 4, 7, 2, 1, 5], c * 3, r * 3) for _, c, r in replies(8, longest=3)]
    wordy = [([1, 4, *[8] * 14, 2, 1, 5], c[-2:], r[-2:]) for _, c, r in short]
    data = thumbs(tmp_path, world["chat"], [pair for both in zip(short, wordy, strict=True) for pair in both])
    more = {"root": str(tmp_path), "start": named(start), "data": [named(data)], "steps": 2}
    stats = made(world, loss="kto", **more).manifest["stats"]
    assert stats["kl_replies_cut"] > 0 and set(stats["too_long"].values()) == {0}
    assert stats["liked"] + stats["disliked"] == 16


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"loss": "dpo"}, "it is one of sigmoid"), ({"beta": 0.0}, "beta is above 0"),
        ({"gamma": 0.5}, "SimPO's margin"), ({"label_smoothing": 0.1}, "knows no label_smoothing"),
        ({"loss": "robust", "label_smoothing": 0.5}, "below one half"), ({"loss": "exo_pair"}, "above 0"),
        ({"loss": "orpo", "sft_weight": 1.0}, "for the DPO family"), ({"desirable_weight": 2.0}, "are KTO's"),
        ({"loss": "kto", "reference": {"path": "x", "digest": "y"}}, "share a step"),
        ({"loss": "simpo", "reference": {"path": "x", "digest": "y"}}, "has no reference"),
        ({"loss": "kto", "accumulate": 8}, "compares the rows"), ({"loss": "aot", "rows": 1}, "compares the rows"),
        ({"lora": {"dropout": 0.1}}, "switch dropout off"),
    ],
)  # fmt: skip
def test_settings_that_would_do_nothing_or_harm_are_refused(world, setting, why):
    with pytest.raises(InputError, match=why):
        spec_of(world, **setting)


def test_data_that_does_not_fit_is_refused(world, tmp_path):
    chat, few = world["chat"], replies(4)
    for wrong, why in (
        (pairs(tmp_path / "a", chat, few, params={"tokenizer": "another"}), "encoded with tokenizer"),
        (pairs(tmp_path / "b", chat, few, params={"template": "another"}), "rendered with template"),
        (pairs(tmp_path / "c", chat, [(p, [], r) for p, _, r in few]), "no tokens in chosen_ids"),
        (
            pairs(tmp_path / "s", chat, [*few[:3], (few[3][0], few[3][1], few[3][1])]),
            "same reply as chosen and as reject",
        ),
        (pairs(tmp_path / "d", chat, [(p, [99, 2], r) for p, _, r in few]), "has token 99, the model knows 38"),
        (pairs(tmp_path / "e", chat, [(p, c * 200, r) for p, c, r in few]), "no rows to use"),
        (world["thumbs"][0], "no column chosen_ids, rejected_ids"),
        (world["start"], "kind 'checkpoint'"),
    ):
        with pytest.raises(InputError, match=why):
            made(world, data=[named(wrong)])
    with pytest.raises(InputError, match="no column completion_ids, label"):
        made(world, loss="kto", data=[named(world["pairs"][0])])


def test_intervals_hold_their_value_and_ties_count_half():
    assert wins(np.array([2.0, 0.0, -1.0])).tolist() == [1, 0.5, 0]
    found = share(np.array([1.0] * 30 + [0.0] * 10))
    assert found["value"] == 0.75 and 0.6 < found["low"] < 0.75 < found["high"] < 0.9 and found["n"] == 40
    assert area(np.array([3.0, 1.0]), np.array([2.0, 1.0]))["value"] == (1 + 1 + 0 + 0.5) / 4
    assert area(np.array([1.0]), np.array([]))["value"] is None


def test_a_fall_is_found_at_its_step():
    """Replies of 4 tokens, beta 1/2: log 2 a token is reached where rewards pass -2 log 2 on average over ten steps."""
    steps = [{"step": k, "rewards/chosen": -1.0 if k <= 20 else -1.8} for k in range(1, 41)]
    assert fell_at(steps, 0.5, 4.0) == 25  # 5 x 1.0 + 5 x 1.8 = 14 > 13.86
    assert fell_at(steps, 0.5, 8.0) is None and fell_at(steps, None, 4.0) is None
