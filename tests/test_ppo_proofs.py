"""PPO reaches what is known to be reachable: rewards with a known optimum, a target KL, a closed form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from ppo_toys import publish_reward, reward_of, scorer, told, toy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training.checkpoint import load_model
from gristmill.training.ppo import run
from gristmill.training.proximal.settings import PPOSpec


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where it has to wait for its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(root: Path, function: str = "share", *, sharp: float = 1.0, prompts=None, **changes) -> Dataset:
    spec = toy(root, sharp=sharp, prompts=prompts) | {"scorers": [scorer(function)], "rollouts": 64, "epochs": 4}
    return run(PPOSpec(**spec | changes))


def metrics(checkpoint: Dataset, name: str) -> np.ndarray:
    lines = Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()
    return np.array([json.loads(line)[name] for line in lines])


def test_reward_rises_to_nearly_its_best(tmp_path):
    """The share of one word of ten, among 16 tokens: about 0.07 before, 1 at best."""
    checkpoint = trained(tmp_path, iterations=20, minibatches=4, kl={"coefficient": 0.01})
    reward = metrics(checkpoint, "reward")
    assert reward[0] < 0.15 and checkpoint.manifest["stats"]["first_reward"] < 0.7
    assert reward[-5:].mean() >= 0.95
    assert metrics(checkpoint, "entropy")[-1] < metrics(checkpoint, "entropy")[0]
    assert metrics(checkpoint, "explained_variance")[-1] is not None


def test_the_reply_learns_to_depend_on_the_prompt(tmp_path):
    """Echo: a policy that gives one word to every prompt scores 0.25 here at best, as four prompts are asked."""
    checkpoint = trained(
        tmp_path, "echo", prompts=["w0", "w1", "w2", "w3"], iterations=30, rollouts=96, minibatches=4, max_new_tokens=2,
        kl={"coefficient": 0.0}, entropy=0.02,
    )  # fmt: skip
    reward = metrics(checkpoint, "reward")
    assert reward[0] < 0.05 and reward[-5:].mean() > 0.8


def test_the_adaptive_coefficient_holds_the_kl_near_its_target(tmp_path):
    """Unhindered, this reward takes the KL above 5 nats; held, it stays about 1 nat, with the reward in between."""
    kl = {"coefficient": 0.1, "target": 1.0, "horizon": 64}
    checkpoint = trained(tmp_path, iterations=40, minibatches=4, kl=kl)
    late = metrics(checkpoint, "kl")[-15:].mean()
    assert 0.6 < late < 1.5, late
    coefficient = metrics(checkpoint, "coefficient")
    assert len(set(coefficient)) > 10
    assert checkpoint.manifest["stats"]["coefficient"] != 0.1
    assert 0.15 < metrics(checkpoint, "reward")[-15:].mean() < 0.9


def test_a_huge_coefficient_keeps_the_policy_where_it_was(tmp_path):
    checkpoint = trained(tmp_path, iterations=12, minibatches=2, kl={"coefficient": 1e3})
    assert np.abs(metrics(checkpoint, "kl")).max() < 0.5
    assert metrics(checkpoint, "reward").max() < 0.25
    assert metrics(checkpoint, "entropy")[-1] == pytest.approx(metrics(checkpoint, "entropy")[0], abs=0.1)


def test_a_bandit_comes_to_the_closed_form(tmp_path):
    """One prompt, one token, reward r: expected reward less beta KL is greatest for pi ~ reference x exp(r / beta)."""
    beta = 0.3
    checkpoint = trained(
        tmp_path, "table", sharp=2.0, prompts=["w0"], iterations=25, rollouts=256, minibatches=4, max_new_tokens=1,
        whiten=False, kl={"coefficient": beta}, optimiser={"learning_rate": 1e-2, "weight_decay": 0.0},
        value_optimiser={"learning_rate": 1e-2, "weight_decay": 0.0},
    )  # fmt: skip
    start = checkpoint.input(1)
    assert start.name == "sharp"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.file(""))
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w0"}], tokenize=False, add_generation_prompt=True
    )
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        before, after = (load_model(one)(prompt).logits[0, -1].double().softmax(-1) for one in (start, checkpoint))
    paid = torch.tensor([reward_of(word) for word in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))])
    best = before * (paid.double() / beta).exp()
    best /= best.sum()

    def apart(one: torch.Tensor, other: torch.Tensor) -> float:
        return 0.5 * (one - other).abs().sum().item()

    assert apart(before, best) > 0.5  # the reference is far from it
    assert apart(after, best) < 0.08
    greedy = torch.zeros_like(best)
    greedy[paid == 1] = 0.5  # and so is the best without the penalty
    assert apart(greedy, best) > 0.5


def test_a_reward_model_takes_the_place_of_a_scorer(tmp_path):
    """It pays by its head at the last token, and the value model begins as its copy."""
    spec = toy(tmp_path) | {"iterations": 8, "rollouts": 32, "epochs": 4, "kl": {"coefficient": 0.0}}
    reward = publish_reward(tmp_path, Dataset.load(spec["start"]["path"]))
    checkpoint = run(PPOSpec(**spec, reward={**told(reward), "weight": 2.0}))
    found = metrics(checkpoint, "reward")
    assert found[-3:].mean() > found[0]
    rollouts = Dataset.load(f"{tmp_path}/ppo-rollouts/{checkpoint.manifest['stats']['rollouts']['key'][:12]}")
    model = AutoModelForSequenceClassification.from_pretrained(reward.file(""))
    for row in rollouts.shards()[0].read().to_pylist()[:10]:
        with torch.no_grad():
            hidden = model.model(input_ids=torch.tensor([row["prompt_ids"] + row["response_ids"]])).last_hidden_state
            alone = model.score(hidden[0, -1]).item()
        (said,) = row["scores"]
        assert said["name"] == "reward_model" and said["score"] == pytest.approx(alone, abs=1e-4)
        assert row["score"] == pytest.approx(2 * alone, abs=1e-3)
