"""Golden values of ORPO and SimPO from the papers' formulas, worked out by hand, and what holds for any values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.training.preferences.losses import CERTAIN, log_odds, orpo, preferred, simpo

# A chosen reply of 2 tokens of probability 1/2 each, a rejected one of 4 tokens of 1/5 each.
CHOSEN, REJECTED = torch.tensor([2 * math.log(0.5)]), torch.tensor([4 * math.log(0.2)])
LENGTHS = torch.tensor([2]), torch.tensor([4])


def test_orpo_is_hong_et_al_equations_6_and_7():
    """Odds are 1 and 1/4, their ratio 4: L_OR = -log sigmoid(log 4) = log(1 + 1/4); L_SFT = log 2."""
    loss = orpo(CHOSEN, REJECTED, *LENGTHS, beta=0.1)
    assert loss.tolist() == pytest.approx([math.log(2) + 0.1 * math.log(1.25)], rel=1e-6)
    assert orpo(CHOSEN, REJECTED, *LENGTHS, beta=1.0).item() == pytest.approx(0.9162907, rel=1e-6)  # log 2.5


def test_simpo_is_meng_et_al_equation_6():
    """2 (log 1/2 - log 1/5) - 1 = log(6.25 / e), so the loss is log(1 + e / 6.25) = log(1 + 0.16 e)."""
    loss = simpo(CHOSEN, REJECTED, *LENGTHS, beta=2.0, gamma=1.0)
    assert loss.tolist() == pytest.approx([math.log(1 + 0.16 * math.e)], rel=1e-6)
    assert loss.item() == pytest.approx(0.3611, abs=1e-4)


def test_label_smoothing_weighs_the_pair_turned_round():
    """log 4 the right way costs log 1.25, the wrong way log 5: at a share of 1/4, 3/4 log 1.25 + 1/4 log 5."""
    score = torch.tensor([math.log(4)])
    assert preferred(score, 0.25).item() == pytest.approx(0.75 * math.log(1.25) + 0.25 * math.log(5), rel=1e-6)
    turned = simpo(REJECTED, CHOSEN, *reversed(LENGTHS), beta=2.0, gamma=0.0).item()
    straight = simpo(CHOSEN, REJECTED, *LENGTHS, beta=2.0, gamma=0.0).item()
    smooth = simpo(CHOSEN, REJECTED, *LENGTHS, beta=2.0, gamma=0.0, label_smoothing=0.25).item()
    assert smooth == pytest.approx(0.75 * straight + 0.25 * turned, rel=1e-6)
    base = orpo(CHOSEN, REJECTED, *LENGTHS, beta=1.0, label_smoothing=0.25).item()
    assert base == pytest.approx(math.log(2) + 0.75 * math.log(1.25) + 0.25 * math.log(5), rel=1e-6)


@pytest.mark.parametrize("probability", [1e-30, 1e-3, 0.2, 0.5, 0.75, 0.999])
def test_log_odds_are_those_of_the_probability(probability):
    assert log_odds(torch.tensor(math.log(probability))).item() == pytest.approx(
        math.log(probability) - math.log1p(-probability), rel=1e-4, abs=1e-6
    )


def test_certainty_has_finite_losses_and_gradients():
    """A memorised reply: every token has probability 1, so its odds are infinite."""
    for chosen, rejected in ((0.0, -5.0), (0.0, 0.0), (-5.0, 0.0), (-1e4, 0.0), (CERTAIN, -1e4)):
        values = torch.tensor([chosen, rejected], requires_grad=True)
        loss = orpo(values[:1], values[1:], *LENGTHS, beta=0.1) + simpo(
            values[:1], values[1:], *LENGTHS, beta=2.0, gamma=1.0
        )
        (slope,) = torch.autograd.grad(loss.sum(), values)
        assert torch.isfinite(loss).all() and torch.isfinite(slope).all()


@settings(deadline=None, max_examples=50)
@given(
    mean=st.floats(-20, -0.01), other=st.floats(-20, -0.01), short=st.integers(1, 50), times=st.integers(2, 9),
    smoothing=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_neither_length_nor_order_of_pairs_matters(mean, other, short, times, smoothing):
    """The same tokens on average, in a longer reply, cost the same; a pair's loss does not depend on its neighbours."""

    def both(a, b, m, n):
        a, b, m, n = torch.tensor(a), torch.tensor(b), torch.tensor(m), torch.tensor(n)
        one = orpo(a * m, b * n, m, n, beta=0.1, label_smoothing=smoothing)
        return torch.stack([one, simpo(a * m, b * n, m, n, beta=2.0, gamma=1.0, label_smoothing=smoothing)])

    alone = both([mean], [other], [short], [short])
    longer = both([mean, other], [other, mean], [short * times, 3], [short, 7])
    torch.testing.assert_close(alone[:, 0], longer[:, 0], rtol=1e-4, atol=1e-5)


def test_a_more_likely_chosen_reply_and_a_less_likely_rejected_one_cost_less():
    grid = torch.linspace(-8, -0.01, 50)
    still = torch.full_like(grid, -2.0)
    ones = torch.ones_like(grid)
    for loss in (
        lambda a, b: orpo(a, b, ones, ones, beta=0.5),
        lambda a, b: simpo(a, b, ones, ones, beta=2.0, gamma=1.0),
    ):
        assert (loss(grid, still).diff() < 0).all()
        assert (loss(still, grid).diff() > 0).all()
