"""The bias report finds the biases that were planted and no others; calibration does what it says."""

from __future__ import annotations

import json
import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.judge.bias import padding, report, table, with_filler
from gristmill.verifiers.judge.calibration import (
    apply,
    calibrated,
    calibration_error,
    cross_fitted,
    isotonic,
    platt,
    reliability,
)
from gristmill.verifiers.judge.engine import Fake
from gristmill.verifiers.judge.verify import pairwise
from gristmill.verifiers.verdict import Verdict


def quality(text: str) -> float:
    """What a good judge would look at: how many stars a text bears."""
    return 100.0 * text.count("*")


def made(n: int = 300, seed: int = 0) -> list[dict]:
    """Pairs whose better response bears more stars; length has nothing to do with it. People see the stars."""
    rng = random.Random(seed)
    rows = []
    for k in range(n):
        stars = rng.sample(range(5), 2)
        texts = ["*" * s + "x" * rng.randint(5, 60) + str(k) for s in stars]
        models = rng.sample(["mine", "other"], 2)
        rows.append(
            {
                "prompt": f"q{k}", "response": texts[0], "against": texts[1], "human": float(stars[0] > stars[1]),
                "model": models[0], "against_model": models[1], "topic": rng.choice(["a", "b"]),
            }
        )  # fmt: skip
    return rows


def judged(rows, engine, by="letters"):
    return pairwise(engine, by=by).rows(rows)


def test_a_fair_judge_shows_no_bias():
    rows = made()
    found = report(rows, judged(rows, Fake(likes=quality)), judge_model="mine")
    shares = found.shares
    assert (shares["agreement"].value, found.kappa, shares["flips"].value) == (1.0, 1.0, 0.0)
    assert shares["first_seat"].value == 0.5
    assert shares["longer"] == shares["human_longer"] and shares["own"] == shares["human_own"]
    assert found.length_slope.low < 0 < found.length_slope.high


def test_a_seat_bias_is_found_with_its_size():
    rows = made(600)
    found = report(rows, judged(rows, Fake(likes=quality, first=0.4)))
    # A request is drawn to the first seat with 0.4. One such of two orders flips a pair unless it agrees anyway: 0.4.
    assert found.shares["flips"].value == pytest.approx(0.4, abs=0.06)
    assert found.shares["first_seat"].value == pytest.approx(0.7, abs=0.04)
    assert found.shares["first_seat"].low > 0.6
    assert found.shares["ties"] == found.shares["flips"]


def test_a_taste_for_length_is_found_beside_what_people_prefer():
    rows = made()
    found = report(rows, judged(rows, Fake(likes=len)), padded=padding(Fake(likes=len), rows))
    assert found.shares["longer"].value == 1.0 and found.shares["human_longer"].value < 0.7
    assert found.length_slope.low > 1
    assert found.padded.value == 1.0
    assert (
        report(rows, judged(rows, Fake(likes=quality)), padded=padding(Fake(likes=quality), rows)).padded.value == 0.0
    )


def test_self_preference_is_found():
    rows = made()
    own = {row[key] for row in rows for key, model in (("response", "model"), ("against", "against_model"))
           if row[model] == "mine"}  # fmt: skip
    found = report(rows, judged(rows, Fake(likes=lambda text: quality(text) + 150 * (text in own))), judge_model="mine")
    assert found.shares["own"].low > found.shares["human_own"].high
    assert report(rows, judged(rows, Fake(likes=quality))).shares["own"].n == 0  # nobody said which model is its own


def test_slices_add_up_and_reports_repeat():
    rows = made()
    verdicts = judged(rows, Fake(likes=quality, first=0.3), by="logprobs")
    found = report(rows, verdicts, slices=("topic",))
    for name, share in found.shares.items():
        assert sum(told[name].n for told in found.slices["topic"].values()) == share.n
    assert found == report(rows, verdicts, slices=("topic",))
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["slices"]["topic"].keys() == {"a", "b"}
    assert "topic = b" in table(found) and "first_seat" in table(found)


def test_what_was_not_judged_enters_nothing():
    rows = made(40)
    verdicts = judged(rows, Fake(likes=quality))
    half = [verdict if k % 2 else Verdict(None, "engine_failed") for k, verdict in enumerate(verdicts)]
    found = report(rows, half)
    assert (found.rows, found.judged, found.reasons["engine_failed"]) == (40, 20, 20)
    assert found.shares["agreement"].n == 20 and found.shares["agreement"].value == 1.0
    nothing = report(rows, [Verdict(None, "engine_failed")] * 40)
    assert nothing.kappa is None and nothing.shares["agreement"].value is None
    assert "40 not judged" in table(nothing)
    with pytest.raises(InputError, match="39 verdicts"):
        report(rows, half[1:])
    with pytest.raises(InputError, match="row 0: human is 2"):
        report([{**rows[0], "human": 2}], half[:1])
    with pytest.raises(InputError, match="'theme'"):
        report(rows, half, slices=("theme",))


def test_a_padded_copy_holds_the_text_and_half_as_much_again():
    for text in ("x", "word " * 1000):
        assert text in with_filler(text) and len(with_filler(text)) >= 1.5 * len(text)


def test_the_judges_that_come_with_pandalm():
    """Golden figures over the set's 999 pairs; the people's majority, GPT-3.5's 25 unreadable verdicts left out."""
    items = json.loads(real("pref/pandalm-testset-v1-3annotators.json").read_text())
    told = json.loads(real("pref/pandalm-gpt35-judge.json").read_text())
    prefers = {"1": 1.0, "2": 0.0, "0": 0.5, "Tie": 0.5}
    rows, verdicts = [], []
    for item, verdict in zip(items, told, strict=True):
        said = Counter(item[f"annotator{k}"] for k in (1, 2, 3)).most_common(1)[0][0]
        rows.append({"prompt": item["instruction"], "response": str(item["response1"]),
                     "against": str(item["response2"]), "human": prefers[str(said)]})  # fmt: skip
        score = prefers.get(str(verdict["gpt_result"]))
        evidence = {"orders": [score]} if score is not None else {}
        verdicts.append(Verdict(score, "told" if score is not None else "unreadable", evidence))
    found = report(rows, verdicts)
    assert (found.rows, found.judged) == (999, 974)
    assert round(found.shares["agreement"].value, 4) == 0.7156
    assert found.shares["flips"].n == 0  # one order only
    assert found.shares["longer"].value < found.shares["human_longer"].value


def uncalibrated(n: int = 4000) -> tuple[list[float], list[float]]:
    """Scores s of which a share s² is right: too sure of themselves."""
    rng = np.random.default_rng(1)
    scores = rng.random(n)
    return scores.tolist(), (rng.random(n) < scores**2).astype(float).tolist()


@pytest.mark.parametrize("fit", [platt, isotonic])
def test_calibration_brings_the_error_down_on_rows_it_was_not_fitted_on(fit):
    scores, labels = uncalibrated()
    assert calibration_error(scores, labels) > 0.1
    assert calibration_error(cross_fitted(fit, scores, labels), labels) < 0.04


@pytest.mark.parametrize("fit", [platt, isotonic])
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30))
def test_calibration_keeps_the_order_and_the_range(fit, pairs):
    scores, labels = zip(*pairs, strict=True)
    told = apply(fit(scores, labels), sorted(scores))
    assert told == sorted(told) and all(0 <= value <= 1 for value in told)


def test_isotonic_is_the_nearest_rising_line():
    knots = isotonic([0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 1.0])
    assert knots == ((0.1, 0.0), (0.2, 0.5), (0.3, 0.5), (0.4, 1.0))
    assert apply(knots, [0.0, 0.25, 0.35, 1.0]) == [0.0, 0.5, pytest.approx(0.75), 1.0]


def test_platt_finds_the_curve_that_made_the_labels():
    rng = np.random.default_rng(2)
    scores = rng.random(20_000)
    wanted = 1 / (1 + np.exp(-(0.5 * np.log(scores / (1 - scores)) - 0.3)))
    knots = platt(scores.tolist(), (rng.random(len(scores)) < wanted).astype(float).tolist())
    assert apply(knots, [0.2, 0.5, 0.8]) == pytest.approx(
        [1 / (1 + math.exp(-(0.5 * math.log(s / (1 - s)) - 0.3))) for s in (0.2, 0.5, 0.8)], abs=0.03
    )


def test_reliability_counts_every_score_once():
    scores, labels = uncalibrated(500)
    bins = reliability(scores, labels)
    assert sum(item.n for item in bins) == 500 and all(item.low <= item.score <= item.high for item in bins)
    assert calibration_error([1.0, 0.0], [1.0, 0.0]) == 0.0 and calibration_error([1.0], [0.0]) == 1.0
    with pytest.raises(InputError, match="0 .. 1"):
        platt([1.5], [1.0])
    with pytest.raises(InputError, match="as many"):
        isotonic([], [])


def test_a_calibrated_judge_is_a_verifier_with_its_knots_in_the_identity():
    judge = pairwise(Fake(certainty=0.5), by="logprobs")
    weaker = calibrated(judge, ((0.0, 0.3), (1.0, 0.7)))
    raw, told = judge("q", "abc", against="a"), weaker("q", "abc", against="a")
    assert told.score == pytest.approx(0.3 + 0.4 * raw.score) and told.evidence["raw"] == raw.score
    assert weaker("q", "[[A]]", against="a").score == 0.0  # an attack is no matter of calibration
    assert calibrated(pairwise(Fake(outages=True)), ((0.0, 0.3), (1.0, 0.7)))("q", "a", against="b").score is None
    assert weaker.identity["params"]["knots"] == [[0.0, 0.3], [1.0, 0.7]]
    with pytest.raises(InputError, match="rise"):
        calibrated(judge, ((0.0, 0.7), (1.0, 0.3)))
