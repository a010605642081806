"""PPO's arithmetic: advantages, losses and the KL controller against what is worked out by hand or the long way."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.training.model import Shape, build, configuration
from gristmill.training.proximal.advantage import explained_variance, gae, token_rewards, whiten
from gristmill.training.proximal.losses import adapted, policy_loss, value_loss
from gristmill.training.proximal.models import rounded, value_model
from gristmill.training.proximal.pieces import Sequences, log_probs, piece, pieces, values
from gristmill.training.proximal.rollout import sample, uniforms
from gristmill.training.proximal.settings import KL

CPU = torch.device("cpu")


def padded(*rows: list[float]) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [0.0] * (longest - len(row)) for row in rows])


def masked(*lengths: int) -> torch.Tensor:
    return torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]


def test_advantages_by_hand():
    """Values 0.5, 0.2, 0.8, a reward of 1 at the end, gamma 0.9, lambda 0.5: deltas 0.9*0.2-0.5 = -0.32,
    0.9*0.8-0.2 = 0.52, 1-0.8 = 0.2; from the end 0.2, 0.52+0.45*0.2 = 0.61, -0.32+0.45*0.61 = -0.0455."""
    advantages, returns = gae(
        padded([0.0, 0.0, 1.0], [2.0]), padded([0.5, 0.2, 0.8], [0.5]), masked(3, 1), gamma=0.9, lam=0.5
    )
    torch.testing.assert_close(advantages, padded([-0.0455, 0.61, 0.2], [1.5]))
    torch.testing.assert_close(returns, padded([0.4545, 0.81, 1.0], [2.0]))


@given(data=st.data(), gamma=st.floats(0, 1), lam=st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_advantages_are_the_sums_of_the_definition(data, gamma, lam):
    """A[t] = sum over l of (gamma lam)**l delta[t + l], per response, whatever stands behind its end."""
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    numbers = st.floats(-3, 3, width=32)
    longest, n = max(lengths), len(lengths)
    row = st.lists(numbers, min_size=longest, max_size=longest)
    rewards, worth = (torch.tensor(data.draw(st.lists(row, min_size=n, max_size=n))) for _ in range(2))
    advantages, returns = gae(rewards, worth, masked(*lengths), gamma=gamma, lam=lam)
    for i, length in enumerate(lengths):
        v = [*worth[i, :length].tolist(), 0.0]
        deltas = [rewards[i, t].item() + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(longest):
            want = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:]))
            assert advantages[i, t].item() == pytest.approx(want, abs=1e-4)
            assert returns[i, t].item() == pytest.approx(want + v[t] if t < length else 0.0, abs=1e-4)


def test_the_score_comes_with_the_last_token_and_the_kl_with_each():
    rewards = token_rewards(
        torch.tensor([1.0, -2.0]), torch.tensor([[0.5, -0.25, 9.0], [1.0, 0.0, 0.5]]), masked(2, 3), 0.1
    )
    torch.testing.assert_close(rewards, torch.tensor([[-0.05, 0.025 + 1.0, 0.0], [-0.1, 0.0, -0.05 - 2.0]]))


def test_whitening_is_over_all_tokens_and_nothing_else():
    white = whiten(torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, 5.0]]), masked(2, 3))
    torch.testing.assert_close(white[masked(2, 3)], (torch.arange(1.0, 6.0) - 3) / math.sqrt(2))
    assert white[0, 2] == 0
    assert torch.equal(whiten(torch.full((1, 2), 7.0), masked(2)), torch.zeros(1, 2))


def test_explained_variance():
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0)  # an offset is not variance
    assert explained_variance(torch.zeros(4), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns, torch.ones(4)) is None


def test_the_clipped_objective_by_hand():
    """Ratios 1.5, 1.5, 0.5, 0.5 and advantages 1, -1, 1, -1 at a clip of 0.2: the held ratio decides where it is worse
    for the objective, so -min: -1.2, 1.5, -0.5, 0.8, and only the second and third give gradients."""
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5])
    old = torch.tensor([-1.0, -2.0, -0.5, -3.0])
    new = (old + ratios.log()).requires_grad_()
    terms = policy_loss(new, old, torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2)
    assert terms.loss.item() == pytest.approx(-1.2 + 1.5 - 0.5 + 0.8)
    assert terms.clipped.item() == 2
    assert terms.kl.item() == pytest.approx(2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5)), rel=1e-5)
    terms.loss.backward()
    assert new.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])


def test_the_clipped_value_loss_by_hand():
    """Old values 0, returns 1. 0.1 is within a clip of 0.2: half of 0.9 squared. 0.5 is held to 0.2, whose error is the
    larger: half of 0.8 squared, and no gradient. -0.5, on the wrong side, keeps its own error and its gradient."""
    new = torch.tensor([0.1, 0.5, -0.5], requires_grad=True)
    loss = value_loss(new, torch.zeros(3), torch.ones(3), 0.2)
    assert loss.item() == pytest.approx((0.81 + 0.64 + 2.25) / 2)
    loss.backward()
    assert new.grad.tolist() == pytest.approx([-0.9, 0.0, -1.5])
    free = value_loss(new.detach(), torch.zeros(3), torch.ones(3), None)
    assert free.item() == pytest.approx((0.81 + 0.25 + 2.25) / 2)


def test_the_controller_by_hand():
    """Ziegler et al. 2019: e = clip(KL / target - 1, -0.2, 0.2), the coefficient times 1 + e n / horizon."""
    kl = KL(0.2, target=6.0, horizon=1_000)
    assert adapted(0.2, kl, 6.6, 50) == pytest.approx(0.2 * (1 + 0.1 * 0.05))
    assert adapted(0.2, kl, 60.0, 50) == pytest.approx(0.2 * (1 + 0.2 * 0.05))
    assert adapted(0.2, kl, -1.0, 50) == pytest.approx(0.2 * (1 - 0.2 * 0.05))
    assert adapted(0.2, kl, 6.0, 50) == 0.2
    assert adapted(0.2, KL(0.2), 60.0, 50) == 0.2


def test_the_controller_holds_a_kl_that_answers_to_it():
    """A policy whose KL falls as the coefficient rises (KL = 1 / coefficient) is brought to the target and stays."""
    kl, coefficient = KL(0.01, target=4.0, horizon=200), 0.01
    for _ in range(300):
        coefficient = adapted(coefficient, kl, 1 / coefficient, 64)
    assert 1 / coefficient == pytest.approx(4.0, rel=0.02)


@pytest.fixture(scope="module")
def model():
    """A fresh model over 24 tokens, its weights tripled so that its distributions are far from even."""
    made = build(configuration(Shape(depth=2, width=32, heads=2), 24, seq_len=64), 0).eval()
    for parameter in made.parameters():
        parameter.data.mul_(3)
    return made


def drawn(rows: int, seed: int = 0) -> Sequences:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, (rows, 2))
    return Sequences(*([rng.integers(0, 24, n).tolist() for n in lengths[:, k]] for k in (0, 1)))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_each_sequence_alone(model, temperature):
    sequences = drawn(9)
    for one in pieces(sequences, np.arange(9), 40, CPU):
        assert one.tokens.numel() <= 40
        flat, entropy = log_probs(model, one, temperature, grads=False)
        at = 0
        for row in one.rows:
            prompt, response = sequences.prompts[row], sequences.responses[row]
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
            table = torch.log_softmax(logits, -1)
            part = slice(at, at + len(response))
            want = table.gather(1, torch.tensor(response)[:, None])[:, 0]
            torch.testing.assert_close(flat[part], want, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(entropy[part], -(table.exp() * table).sum(-1), rtol=1e-4, atol=1e-4)
            at += len(response)
        assert at == len(flat)


def test_values_stand_before_their_tokens_and_scores_at_the_last(model):
    """The value of a token is said where it is predicted; a reward model's word is that at the last token."""
    made = value_model(model, None)
    sequences = drawn(5, seed=1)
    assert not values(made, piece(sequences, np.arange(5), CPU), torch.tensor([3])).any()  # a head of zeros
    torch.nn.init.normal_(made["head"].weight)
    one = piece(sequences, np.array([3, 0, 4]), CPU)
    said, last = values(made, one, one.at), values(made, one, one.last)
    at = 0
    for n, row in enumerate(one.rows):
        prompt, response = sequences.prompts[row], sequences.responses[row]
        hidden = made["trunk"](input_ids=torch.tensor([prompt + response])).last_hidden_state[0]
        alone = made["head"](hidden)[:, 0]
        torch.testing.assert_close(said[at : at + len(response)], alone[len(prompt) - 1 : -1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(last[n], alone[-1], rtol=1e-4, atol=1e-4)
        at += len(response)


def test_a_rounded_model_says_the_same_under_autocast_to_the_bit(model):
    """So the reference, kept in bfloat16 on a GPU, begins as the policy."""
    kept = rounded(copy.deepcopy(model))
    assert {p.dtype for p in kept.parameters()} == {torch.bfloat16, torch.float32}
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kept(input_ids=tokens).logits, model(input_ids=tokens).logits)
        assert not torch.equal(model.to(torch.float32)(input_ids=tokens + 1).logits, kept(input_ids=tokens).logits)


def respond(model, prompts, numbers, **changes) -> list[list[int]]:
    given = {"seed": 1, "max_new_tokens": 20, "temperature": 1.0, "end": 2, "most": 10_000, "between": lambda: None}
    return sample(model, prompts, numbers, **{**given, **changes})


def test_responses_do_not_depend_on_what_shares_their_batch(model):
    prompts, numbers = drawn(24, seed=2).prompts, list(range(100, 124))
    together = respond(model, prompts, numbers)
    assert respond(model, prompts, numbers, most=60) == together
    backwards = respond(model, prompts[::-1], numbers[::-1])
    assert backwards[::-1] == together
    assert [respond(model, [prompts[i]], [numbers[i]])[0] for i in (0, 7)] == [together[0], together[7]]
    assert respond(model, prompts, numbers, seed=2) != together
    assert respond(model, prompts, [n + 24 for n in numbers]) != together


def test_responses_end_with_the_end_token_or_at_their_greatest_length(model):
    responses = respond(model, [[5, 6]] * 64, list(range(64)))
    ended = [response for response in responses if response[-1] == 2]
    assert ended and len(ended) < 64
    assert all(2 not in response[:-1] for response in responses)
    assert all(len(response) == 20 for response in responses if response[-1] != 2)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_by_their_probabilities(model, temperature):
    """4,000 draws of a first token: the shares are within 4.5 standard deviations of softmax(logits / temperature)."""
    n, prompt = 4_000, [7, 8, 9]
    found = respond(model, [prompt] * n, list(range(n)), max_new_tokens=1, temperature=temperature, most=1 << 30)
    shares = np.bincount([response[0] for response in found], minlength=24) / n
    wanted = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double() / temperature, 0)
    wanted = wanted.detach().numpy()
    assert (np.abs(shares - wanted) <= 4.5 * np.sqrt(wanted * (1 - wanted) / n) + 1e-12).all()
    assert np.abs(wanted - 1 / 24).max() > 0.1


def test_draws_are_uniform_and_known():
    many = np.concatenate([uniforms(3, number, 100) for number in range(200)])
    assert many.min() >= 0
    assert many.max() < 1
    assert np.abs(np.histogram(many, 10, (0, 1))[0] / len(many) - 0.1).max() < 0.01
    assert uniforms(3, 5, 4).tolist() == uniforms(3, 5, 9)[:4].tolist()
    assert uniforms(3, 5, 4).tolist() != uniforms(3, 6, 4).tolist()
