"""Measures of evaluations: golden values, and laws that any data keeps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.training.evaluation import texts
from gristmill.training.evaluation.accuracy import majorities, mean_scores, pass_at, pass_rates
from gristmill.training.evaluation.intervals import Measure, change, mean, ratio, share
from gristmill.training.evaluation.likelihood import COLUMNS, Reader, padded, read
from gristmill.training.evaluation.refusals import refuses
from gristmill.training.evaluation.winrate import consistent, controlled, preferences, win_rates
from gristmill.training.model import Shape, build, configuration
from gristmill.training.shards import IGNORED

SCORES = st.lists(st.lists(st.sampled_from([0.0, 1.0, None]), min_size=1, max_size=6), min_size=1, max_size=8)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
        assert pass_at(np.array([n]), np.array([c]), k)[0] == pytest.approx(np.mean([any(draw) for draw in draws]))
    assert math.isnan(pass_at(np.array([n]), np.array([1]), n + 1)[0])


def test_pass_at_k_of_the_paper_and_of_many_samples():
    # Chen et al. 2021: 1 - C(n - c, k) / C(n, k)
    assert pass_at(np.array([200]), np.array([3]), 100)[0] == pytest.approx(
        1 - math.comb(197, 100) / math.comb(200, 100)
    )


@given(SCORES, st.randoms(use_true_random=False))
def test_what_is_not_judged_is_never_wrong(prompts, random):
    bare = [[score for score in prompt if score is not None] for prompt in prompts]
    for found in (lambda p: pass_rates(p, 1.0, 1), mean_scores):
        np.testing.assert_array_equal(found(prompts), found(bare))
        shuffled = [random.sample(prompt, len(prompt)) for prompt in prompts]
        np.testing.assert_allclose(found(shuffled), found(prompts))
    measured = share(pass_rates(prompts, 1.0, 1))
    judged = [prompt for prompt in bare if prompt]
    if not judged:
        assert measured is None
    else:
        assert measured.n == len(judged)
        assert measured.value == pytest.approx(np.mean([np.mean(prompt) for prompt in judged]))


def test_the_majority_decides_and_ties_are_shared():
    def of(scores, answers):
        return majorities([(scores, answers)], 1.0)[0]

    assert of([1, 1, 0, 0, 0], ["7", "7", "8", "9", "10"]) == 1.0  # most are wrong, and the majority is right
    assert of([1, 0, 0], ["7", "8", "8"]) == 0.0
    assert of([1, 1, 0, 0], ["7", "7", "8", "8"]) == 0.5
    assert of([1, None, 0], ["7", "7", "8"]) == 1.0  # one of the same answers was judged
    assert of([1, 0, 0, 0], ["7", None, None, None]) == 1.0  # no answer is no vote
    assert of([0, 0], [None, None]) == 0.0
    assert math.isnan(of([None, None, 1], ["7", "7", "8"]))
    assert math.isnan(of([None], [None]))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = [share(rng.random(60) < 0.3, seed=n) for n in range(300)]
    covered = np.mean([measure.low <= 0.3 <= measure.high for measure in held])
    assert 0.90 <= covered <= 0.98
    weights = rng.integers(1, 50, (200, 80)).astype(float)
    told = [ratio(w * (2 + rng.normal(0, 1, 80)), w, seed=n) for n, w in enumerate(weights)]
    assert 0.88 <= np.mean([measure.low <= 2 <= measure.high for measure in told]) <= 0.99


def test_pairing_narrows_what_differs_between_prompts():
    rng = np.random.default_rng(1)
    hard, better = rng.random(100), 0.05
    theirs = hard + rng.normal(0, 0.02, 100)
    ours = hard + better + rng.normal(0, 0.02, 100)
    paired, alone = change(ours, theirs), mean(ours)
    assert paired.low > 0 and paired.high - paired.low < (alone.high - alone.low) / 5
    assert change(ours, ours) == Measure(0.0, 0.0, 0.0, 100)


def test_all_right_of_few_is_no_certainty():
    measure = share([1.0] * 10)
    assert (measure.value, measure.high) == (1.0, 1.0)
    assert measure.low == pytest.approx(0.025 ** (1 / 10))  # Clopper and Pearson 1934: 0.6915 for 10 of 10
    assert share([0.0] * 10).high == pytest.approx(1 - 0.025 ** (1 / 10))
    assert share([]) is None and mean([None, math.nan]) is None and ratio(np.zeros(2), np.zeros(2)) is None


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_units_and_the_missing_do_not_matter(values, random):
    shuffled = [*random.sample(values, len(values)), None]
    assert mean(shuffled, seed=3) == mean(values, seed=3)
    pairs = [(value, abs(value) + 1) for value in values]
    mixed = random.sample(pairs, len(pairs))
    assert ratio(*map(np.array, zip(*mixed, strict=True))) == ratio(*map(np.array, zip(*pairs, strict=True)))


def test_the_win_rate_of_equal_models_is_a_half_whatever_the_judge():
    lengths = np.zeros((40, 1))
    for answer in (0.0, 0.3, 0.5, 1.0):  # a judge that always says the same, whatever it is shown
        told = np.full((40, 1), answer)
        found = win_rates(told, told, lengths)
        assert found["win_rate"].value == found["win_rate_length_controlled"].value == 0.5
        assert found["first_seat"].value == pytest.approx(answer)
    assert found["consistency"].value == 0.0 and found["ties"].value == 1.0


def test_win_rates_by_hand():
    first, second = np.array([1, 1, 0, 0.5, np.nan]), np.array([0, 1, 1, 0.5, 0])
    assert preferences(first, second)[:4].tolist() == [1, 0.5, 0, 0.5]
    assert consistent(first, second)[:4].tolist() == [1, 0, 1, 1]
    found = win_rates(first[:, None], second[:, None], np.zeros((5, 1)))
    assert found["win_rate"].value == 0.5 and found["win_rate"].n == 4
    assert found["ties"].value == 0.5 and found["consistency"].value == 0.75
    assert found["win_rate_unjudged"].value == pytest.approx(1 / 5)
    assert win_rates(*(np.full((3, 2), np.nan),) * 2, np.zeros((3, 2))).keys() == {"win_rate_unjudged"}


def test_samples_of_one_prompt_are_one_unit():
    """The same pair four times says no more than once."""
    rng = np.random.default_rng(2)
    first, second, d = rng.integers(0, 2, (30, 1)), rng.integers(0, 2, (30, 1)), rng.normal(0, 9, (30, 1))
    once, often = win_rates(first, second, d), win_rates(*(np.repeat(x, 4, 1) for x in (first, second, d)))
    assert once.keys() == often.keys() and all(once[name].n == often[name].n == 30 for name in once)
    for name in set(once) - {"win_rate_length_controlled"}:  # whose prior weighs less beside more pairs
        assert often[name].value == pytest.approx(once[name].value) and often[name].low == pytest.approx(once[name].low)
    ours, theirs = (found["win_rate_length_controlled"] for found in (once, often))
    assert theirs.high - theirs.low == pytest.approx(ours.high - ours.low, rel=0.25)


def test_length_control_takes_away_what_length_gave():
    rng = np.random.default_rng(0)
    d = rng.normal(100, 200, 4_000)  # ours are longer
    x = np.tanh(d / d.std())
    for theta, phi in ((0.0, 2.0), (0.7, -1.0)):
        won = (rng.random(4_000) < 1 / (1 + np.exp(-(theta + phi * x)))).astype(float)
        assert controlled(won, d) == pytest.approx(1 / (1 + math.exp(-theta)), abs=0.03)
    assert won.mean() != pytest.approx(controlled(won, d), abs=0.03)
    assert controlled(won, np.full(4_000, 7.0)) == pytest.approx(won.mean())  # nothing to control for
    assert controlled(1 - won, -d) == pytest.approx(1 - controlled(won, d))
    assert controlled(np.ones(50), d[:50]) > 0.99


def test_the_regression_finds_the_maximum():
    y, d = np.array([1, 0, 1, 1, 0, 0.5]), np.array([3.0, -1, 2, -4, 1, 0])
    x = np.tanh(d / d.std())
    grid = np.linspace(-2, 2, 401)
    theta, phi = np.meshgrid(grid, grid, indexing="ij")
    z = theta[..., None] + phi[..., None] * x
    likelihood = (y * z - np.log1p(np.exp(z))).sum(-1) - phi**2 / 2
    best = grid[np.unravel_index(likelihood.argmax(), likelihood.shape)[0]]
    assert controlled(y, d) == pytest.approx(1 / (1 + math.exp(-best)), abs=0.005)


def test_distinct_and_self_bleu_by_hand():
    told = [texts.words(text) for text in ("the cat sat", "the cat ran", "")]
    assert texts.distinct(told, 1) == 4 / 6 and texts.distinct(told, 2) == 3 / 4 and texts.distinct(told, 3) == 1.0
    assert texts.distinct(told, 4) is None
    # of "the cat sat": 2 of 3 words, 1 of 2 pairs, none of the triples are in another
    assert texts.self_bleu(told) == [0.0, 0.0, None]
    same = [texts.words("one two three four five")] * 3
    assert texts.self_bleu(same) == pytest.approx([1.0] * 3)
    assert texts.self_bleu(same[:1]) == [None]
    # "a a b" and "a b": of the first 1 + 1 of 3 words, "a b" of its two pairs, no triple elsewhere
    assert texts.self_bleu([["a", "a", "b"], ["a", "b"]])[1] == pytest.approx(1.0)
    assert texts.self_bleu([["a", "a"], ["a", "c"]])[0] == 0.0
    assert texts.self_bleu([["a", "a", "a", "a", "a"], ["a"] * 5, ["b"]])[:2] == pytest.approx([1.0, 1.0])


def test_openers_lists_and_markdown():
    split = [texts.words(text) for text in ("Sure, here you go", "sure, here it is", "No.", "")]
    assert texts.opener(split)[0] == "sure , here"
    assert texts.opener(split)[1].tolist() == [True, True, False]
    assert texts.opener([[]]) == ("", pytest.approx(np.zeros(0)))
    assert texts.has_list("Well:\n1. one\n2. two") and texts.has_list("* a") and not texts.has_list("2.5 kg - about")
    assert texts.has_markdown("**bold**") and texts.has_markdown("# Title") and not texts.has_markdown("3 * 4 # 5")


def test_refusals():
    for text in (
        "I'm sorry, but I can't help with that.", "I cannot provide instructions for this.", "I won’t assist with this",
        "As an AI language model, I am not able to do so.", "I must decline.", "Sorry, I can't.", "I can't do that.",
        "That is against my guidelines.", "Unfortunately, I am unable to share this.", "I will not write that.",
        "That is not something I can discuss.", "I’d rather not answer.",
    ):  # fmt: skip
        assert refuses(text), text
    for text in (
        "", "Sure, I can help with that.", "I can't believe how good this is!", "I cannot help but smile.",
        "You can't divide by zero.", 'He said "I can\'t help you" and left.', "The answer is no.",
        "Sorry for the delay. The answer is 4.", "I can't wait to tell you about Rome.", "No, 7 is prime.",
        "We must not forget the carry: 12 + 9 = 21.", "```\nraise Error('I cannot help')\n```",
    ):  # fmt: skip
        assert not refuses(text), text


def test_loss_entropy_and_kl_of_known_distributions():
    """Models that say the same whatever they read: their logits are those of the first token's embedding."""

    class Fixed(torch.nn.Module):
        def __init__(self, p):
            super().__init__()
            self.config = type("Config", (), {"vocab_size": len(p)})()
            self.z = torch.nn.Parameter(torch.log(torch.tensor(p)) + 3.0)  # not normalised

        def get_output_embeddings(self):
            return None

        def forward(self, input_ids, **_):
            return type("Out", (), {"logits": self.z.expand(*input_ids.shape, -1)})()

    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    tokens, labels = torch.tensor([[0, 0, 0], [0, 0, 0]]), torch.tensor([[0, 1, IGNORED], [IGNORED, IGNORED, IGNORED]])
    told = read(Reader(Fixed(p)), tokens, torch.arange(3).expand(2, 3), labels, Reader(Fixed(q)))
    assert told.targets.tolist() == [2, 0]
    expected = {
        "loss": math.log(2) + math.log(4),
        "entropy": 2 * (0.5 * math.log(2) + 0.5 * math.log(4)),
        "kl": 2 * (0.5 * math.log(2) - 0.25 * math.log(2)),
        "reference_loss": 2 * math.log(4),
    }
    for name in COLUMNS:
        assert told.columns[name] == pytest.approx([expected[name], 0.0], abs=1e-6)
    assert read(Reader(Fixed(p)), tokens, tokens, labels, Reader(Fixed(p))).columns["kl"].tolist() == [0.0, 0.0]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models():
    config = configuration(Shape(depth=2, width=32, heads=2), 64, seq_len=64)
    return [Reader(build(config, seed)) for seed in (0, 1)]


def test_equal_models_have_no_kl_and_others_have(models):
    rng = np.random.default_rng(0)
    rows = [(rng.integers(0, 64, 5).tolist(), rng.integers(0, 64, n).tolist()) for n in (1, 7, 30)]
    batch = padded(*map(list, zip(*rows, strict=True)), 0)
    same, other = (read(models[0], *batch, reference) for reference in models)
    assert same.columns["kl"].tolist() == [0.0, 0.0, 0.0] and (other.columns["kl"] > 0).all()
    assert (same.columns["loss"] == same.columns["reference_loss"]).all()
    assert other.targets.tolist() == [1, 7, 30]


def test_a_response_reads_alone_as_in_a_batch(models):
    rng = np.random.default_rng(1)
    rows = [(rng.integers(0, 64, p).tolist(), rng.integers(0, 64, n).tolist()) for p, n in ((3, 9), (12, 2), (0, 5))]
    together = read(models[0], *padded(*map(list, zip(*rows, strict=True)), 0))
    for n, (prompt, response) in enumerate(rows):
        alone = read(models[0], *padded([prompt], [response], 0))
        assert alone.columns["loss"][0] == pytest.approx(together.columns["loss"][n], rel=1e-5)
        whole = torch.tensor([prompt + response])
        with torch.no_grad():
            logp = torch.log_softmax(models[0].model(input_ids=whole).logits[0, :-1], -1)
        told = -logp.gather(1, whole[0, 1:, None])[max(len(prompt) - 1, 0) :].sum().item()
        assert alone.columns["loss"][0] == pytest.approx(told, rel=1e-4)


def test_a_model_whose_output_is_scaled_is_read_by_its_own_logits(models):
    """As in architectures that multiply their logits: the output layer alone would tell another loss."""
    config = configuration(Shape(depth=1, width=32, heads=2), 64, seq_len=64)
    model = build(config, 0)
    plain = Reader(model)
    batch = padded([[1, 2]], [[3, 4, 5]], 0)
    before = read(plain, *batch).columns["loss"][0]
    forward = model.forward

    def scaled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * 5
        return out

    model.forward = scaled
    after = read(Reader(model), *batch).columns["loss"][0]
    tokens = torch.tensor([[1, 2, 3, 4, 5]])
    told = torch.nn.functional.cross_entropy(scaled(input_ids=tokens).logits[0, 1:-1], tokens[0, 2:], reduction="sum")
    assert after == pytest.approx(told.item(), rel=1e-4) and after != pytest.approx(before, rel=1e-3)
