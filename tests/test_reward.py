"""Reward models: they learn what is preferred, say how sure they may be, and score as they were trained."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_toys import publish_tasks
from preferred import one_thread, pairs, replies
from tinychat import base, chat_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gristmill.dataops.dataset import DamagedError, Dataset, InputError
from gristmill.training import ppo
from gristmill.training.chat import open_chat
from gristmill.training.checkpoint import load_model
from gristmill.training.preferences.rewards import calibration, rendered, rewards, sigmoid, spearman
from gristmill.training.reward import RewardSpec, dry, open_reward, padded, run, scorer
from gristmill.training.scoring import Scorer, open_scorer

LONG = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("reward")
    chat = chat_tokenizer(root)
    train, held = pairs(root, chat, replies(256)), pairs(root, chat, replies(64, start=512), name="held")
    with one_thread():
        yield {"root": root, "chat": chat, "start": base(root, chat), "train": train, "held": held}


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def spec_of(world, **more) -> RewardSpec:
    given = {
        "data": [named(world["train"])], "start": named(world["start"]), "tokenizer": named(world["chat"]), "rows": 8,
        "validation": [named(world["held"])], "root": str(world["root"]), "steps": LONG,
        "optimiser": {"learning_rate": 3e-3, "weight_decay": 0.0},
    }  # fmt: skip
    return RewardSpec(**given | more)


def made(world, **more) -> Dataset:
    return run(spec_of(world, **more))


def told(model: Dataset) -> dict:
    (found,) = model.manifest["stats"]["validation"].values()
    return found


def network(model: Dataset):
    return AutoModelForSequenceClassification.from_pretrained(model.file(""))


def test_what_is_preferred_is_learned_on_prompts_never_seen(world):
    found = told(made(world))
    before, after = found["before"], found["after"]
    assert before["accuracy"]["value"] < 0.8 and after["accuracy"]["low"] > 0.9
    assert after["loss"] < before["loss"] / 5 and after["brier"] < before["brier"] / 5 and after["ece"] < 0.1
    assert before["loss"] == pytest.approx(math.log(2), abs=0.05)
    for side in ("shorter", "longer"):
        assert after[f"accuracy_chosen_{side}"]["low"] > 0.9
    assert abs(after["length_correlation"]) < 0.5 and 0.3 < after["longer"] < 0.7


def test_length_is_seen_where_it_is_all_there_is(world, tmp_path):
    """Pairs whose chosen reply is the longer: the model learns length, and the manifest says so."""
    rng = np.random.default_rng(0)
    given = []
    for prompt, *_ in replies(96):
        short, long = ([int(t) for t in rng.integers(6, 38, size=n)] + [2] for n in rng.integers([1, 8], [4, 14]))
        given.append((prompt, long, short))
    train, held = pairs(tmp_path, world["chat"], given[:64]), pairs(tmp_path, world["chat"], given[64:], name="held")
    after = told(made(world, data=[named(train)], validation=[named(held)], root=str(tmp_path), steps=60))["after"]
    assert after["longer"] == 1.0 and after["accuracy_chosen_shorter"] is None
    assert after["accuracy"]["value"] > 0.9 and after["length_correlation"] > 0.5


def test_the_held_out_numbers_are_those_of_the_published_weights(world):
    model = made(world)
    net, given = network(model), replies(64, start=512)
    margin = np.subtract(*(rewards(net, [(row[0], row[k]) for row in given], 0) for k in (1, 2)))
    after = told(model)["after"]
    assert after["margin"] == pytest.approx(margin.mean(), rel=1e-4)
    assert after["loss"] == pytest.approx(np.logaddexp(0, -margin).mean(), rel=1e-3)
    assert after["brier"] == pytest.approx(((1 - sigmoid(margin)) ** 2).mean(), rel=1e-3)


def test_the_reward_is_read_at_the_end_of_the_turn_whatever_stands_beside_it(world):
    net = network(made(world))
    given = [(p, c) for p, c, _ in replies(12, longest=14)]
    together = rewards(net, given, 0, tokens=64)
    hidden = [net.model(torch.tensor([p + c])).last_hidden_state[0, -1] for p, c in given]
    assert together == pytest.approx([net.score(state).item() for state in hidden], abs=1e-4)


def test_margins_push_chosen_and_rejected_apart(world, tmp_path):
    wide = pairs(tmp_path, world["chat"], replies(256), margins=[None, 6.0] * 128, name="wide")
    none = pairs(tmp_path, world["chat"], replies(256), margins=[None] * 256, name="none")
    apart = made(world, data=[named(wide)], margins=True, name="wide")
    plain = made(world, data=[named(wide)], name="plain")
    same = made(world, data=[named(none)], margins=True, name="null")
    assert told(apart)["after"]["margin"] > told(plain)["after"]["margin"] + 0.5
    assert _same(plain, same), "a margin that is null is 0"


def test_centring_makes_a_pairs_rewards_add_up_to_little(world):
    """What the weight is on: the squared sum of a pair's rewards."""
    sums = []
    for centring in (0.0, 1.0):
        net, given = network(made(world, centring=centring)), replies(64, start=512)
        sums.append(np.add(*(rewards(net, [(row[0], row[k]) for row in given], 0) for k in (1, 2))))
    assert (sums[1] ** 2).mean() < (sums[0] ** 2).mean() / 2


def test_pieces_and_checkpointing_change_memory_alone(world):
    whole = made(world, steps=3, validation=[], name="whole")
    assert _same(whole, made(world, steps=3, validation=[], name="pieces", accumulate=4))
    assert _same(whole, made(world, steps=3, validation=[], name="checkpointed", checkpointing=True))


def test_lora_publishes_an_ordinary_model(world):
    model = made(world, name="lora", lora={"rank": 4}, optimiser={"learning_rate": 1e-2})
    before, after = load_model(world["start"]).state_dict(), network(model).state_dict()
    moved = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert moved and all("proj" in name for name in moved), "only what has adapters moves, and the new output"
    assert set(after) - set(before) == {"score.weight"} and told(model)["after"]["accuracy"]["low"] > 0.8


def test_open_reward_scores_conversations_as_their_pairs_were_scored(world):
    model = made(world)
    tokenizer = open_chat(world["chat"]).tokenizer
    given, talks = [], []
    for prompt, chosen, _ in replies(9, start=900):
        question, answer = tokenizer.decode(prompt[2:-3]), tokenizer.decode(chosen[:-1])
        talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        assert rendered(tokenizer, talk) == (prompt, chosen)
        given.append((prompt, chosen))
        talks.append(talk)
    score = open_reward(model)
    assert score(talks) == pytest.approx(rewards(network(model), given, 0), abs=1e-5)
    long = [{"role": "user", "content": "w0"}, {"role": "assistant", "content": "w2 " * 300}]
    assert score([long, talks[0]]) == [None, pytest.approx(score(talks[:1])[0], abs=1e-5)]
    with pytest.raises(InputError, match="ends with the assistant's"):
        score([talks[0][:1]])


def test_it_is_a_scorer_for_what_asks_one(world):
    model = made(world)
    score = open_scorer(Scorer("reward", "gristmill.training.reward:scorer", named(model)))
    row = {"prompt": [{"role": "user", "content": "w1 w2"}], "id": b"0"}
    good, bad, long = score([row] * 3, ["w0 w2 w4", "w1 w3 w5", "w0 " * 300])
    assert good.score > bad.score and good.reason == "reward"
    assert long.score is None and long.reason == "longer_than_window"
    with pytest.raises(InputError, match="was made by fresh, not by the reward step"):
        scorer(world["start"].path, world["start"].digest)
    with pytest.raises(InputError, match="has digest"):
        scorer(model.path, "another")


def test_ppo_is_paid_by_it(world, tmp_path):
    """The published checkpoint is what ppo takes as its reward model: the scores in its rollouts are this model's."""
    model = made(world)
    spec = ppo.PPOSpec(
        tasks=named(publish_tasks(tmp_path, ["w1 w2", "w3 w4"])), start=named(world["start"]),
        tokenizer=named(world["chat"]), reward=named(model), root=str(tmp_path), iterations=1, rollouts=4, epochs=1,
        minibatches=1, max_new_tokens=4,
    )  # fmt: skip
    assert ppo.dry(spec)["memory"]["frozen"] > 0
    ppo.run(spec)
    (rollouts,) = (Dataset.load(str(path.parent)) for path in tmp_path.glob("ppo-rollouts/*/manifest.json"))
    net = network(model)
    for row in rollouts.shards()[0].read().to_pylist():
        state = net.model(torch.tensor([row["prompt_ids"] + row["response_ids"]])).last_hidden_state[0, -1]
        (said,) = row["scores"]
        assert said["name"] == "reward_model" and said["score"] == pytest.approx(net.score(state).item(), abs=1e-4)


def test_a_model_damaged_by_one_byte_is_refused(world, tmp_path):
    def damage(model: Dataset) -> Dataset:
        file = Path(model.file("model.safetensors"))
        whole = bytearray(file.read_bytes())
        whole[-5] ^= 1
        file.write_bytes(whole)
        return model

    start = base(tmp_path, world["chat"], seed=3)
    model = made(world, start=named(start), root=str(tmp_path), steps=1, validation=[])
    with pytest.raises(DamagedError, match="is damaged"):
        open_reward(damage(model))
    with pytest.raises(DamagedError, match="is damaged"):
        made(world, start=named(damage(start)), root=str(tmp_path), steps=2)


def test_padding_that_ends_a_turn_is_replaced_and_published(world, tmp_path):
    """transformers reads the reward at the last token that is not padding: where a turn ends with the padding token it
    would be read one token early."""
    chat = chat_tokenizer(tmp_path)
    config = Path(chat.file("tokenizer_config.json"))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "<|im_end|>"}))
    before = open_chat(chat)
    assert before.tokenizer.pad_token_id == before.tokenizer.eos_token_id == 2
    assert padded(before).tokenizer.pad_token_id == 0 and before.tokenizer.pad_token_id == 2
    model = made(world, tokenizer=named(chat), root=str(tmp_path), steps=2, validation=[])
    net, tokenizer = network(model), AutoTokenizer.from_pretrained(model.file(""))
    assert net.config.pad_token_id == tokenizer.pad_token_id == 0 and tokenizer.eos_token_id == 2
    assert padded(open_chat(world["chat"])).tokenizer.pad_token_id == 0, "what is well already stays as it is"


def test_what_does_not_fit_is_refused_or_counted(world, tmp_path):
    with pytest.raises(InputError, match="centring is -1"):
        spec_of(world, centring=-1.0)
    with pytest.raises(InputError, match="kind 'checkpoint'"):
        made(world, data=[named(world["start"])])
    given = [*replies(8), *((p, c * 100, r) for p, c, r in replies(2, start=50))]
    some = pairs(tmp_path, world["chat"], given)
    model = made(world, data=[named(some)], steps=1, validation=[])
    assert list(model.manifest["stats"]["too_long"].values()) == [2]
    found = dry(spec_of(world, data=[named(some)], steps=5))
    assert found["steps"] == 5 and found["longest"] == 14 and list(found["too_long"].values()) == [2]
    assert found["memory"]["total"] == sum(size for name, size in found["memory"].items() if name != "total")


def test_calibration_is_the_gap_between_sure_and_right():
    """Four pairs at 3/4: three right is calibrated; all right is 1/4 too timid; one at 1/2 adds nothing."""
    even = math.log(3)
    assert calibration(np.array([even, even, even, -even])) == pytest.approx(0.0, abs=1e-9)
    assert calibration(np.array([even] * 4)) == pytest.approx(0.25)
    assert calibration(np.array([even] * 4 + [0.0])) == pytest.approx(0.25 * 4 / 5)
    assert calibration(np.array([-1e4, 1e4])) == pytest.approx(0.5), "sure twice, right once"


def test_correlation_is_of_ranks_with_ties_shared():
    assert spearman(np.array([1.0, 2.0, 30.0]), np.array([1, 5, 6])) == pytest.approx(1.0)
    # ranks 1, 2.5, 2.5, 4 against 4, 3, 2, 1: covariance -4.5 of deviations with squares 4.5 and 5
    assert spearman(np.array([1, 2, 2, 3]), np.array([4, 3, 2, 1])) == pytest.approx(-4.5 / math.sqrt(4.5 * 5))
    assert spearman(np.array([1.0, 1.0]), np.array([1, 2])) is None


def _same(one: Dataset, other: Dataset) -> bool:
    a, b = network(one).state_dict(), network(other).state_dict()
    return all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)
