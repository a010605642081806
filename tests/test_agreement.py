"""Agreement: published examples, the definitions written out slowly, and what must not matter."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.agreement.bootstrap import bootstrap
from gristmill.verifiers.agreement.coefficients import (
    alpha_over,
    cohen_kappa,
    cohen_over,
    fleiss_kappa,
    fleiss_over,
    krippendorff_alpha,
    percent,
    percent_over,
)
from gristmill.verifiers.agreement.raters import adjudicate, dawid_skene, majority
from gristmill.verifiers.agreement.summary import agreement
from gristmill.verifiers.agreement.table import ratings

_ = None
#: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: 12 units by 4 observers.
KRIPPENDORFF = [
    [1, 1, _, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [_, 5, 5, 5], [_, _, 1, 1], [_, 3, _, _],
]  # fmt: skip
#: The usual worked example of Fleiss' kappa: 14 raters, 10 items, 5 categories, as counts (kappa 0.210).
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
COHEN = [["yes", "yes"]] * 20 + [["yes", "no"]] * 5 + [["no", "yes"]] * 10 + [["no", "no"]] * 15

LEVELS = ("nominal", "ordinal", "interval")
tables = st.integers(2, 4).flatmap(
    lambda raters: st.lists(st.lists(st.none() | st.integers(0, 3), min_size=raters, max_size=raters), max_size=12)
)


def pandalm():
    rows = json.loads(real("pref/pandalm-testset-v1-3annotators.json").read_text())
    return [[row[f"annotator{n}"] for n in (1, 2, 3)] for row in rows]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorffs_own_example(level, value):
    assert round(krippendorff_alpha(KRIPPENDORFF, level), 3) == value


def test_worked_examples_of_fleiss_and_cohen():
    spread = [[category for category, count in enumerate(row) for _n in range(count)] for row in FLEISS]
    assert round(fleiss_kappa(spread), 3) == 0.210
    assert percent(spread) == pytest.approx(0.378, abs=5e-4)
    assert cohen_kappa(COHEN) == pytest.approx(0.4)
    # with two categories all weights are the same
    for weighting in ("linear", "quadratic"):
        assert cohen_kappa(COHEN, weighting, order=("no", "yes")) == pytest.approx(0.4)


def test_the_three_raters_of_pandalm():
    told = agreement(pandalm())
    assert round(told.fleiss_kappa, 4) == 0.8642
    assert (told.items, told.raters, told.ratings, told.paired) == (999, 3, 2997, 999)
    assert round(told.percent, 4) == 0.9199
    for name in ("percent", "fleiss_kappa", "krippendorff_alpha"):
        interval = told.intervals[name]
        assert interval.low < getattr(told, name) < interval.high < interval.low + 0.06
        assert interval.undefined == 0
    assert told.undefined == {"cohen_kappa": "not_two_raters"}


def slow_alpha(table, level):
    """Krippendorff's definition, pair by pair."""
    units = [[x for x in row if x is not None] for row in table]
    units = [unit for unit in units if len(unit) > 1]
    every = [x for unit in units for x in unit]

    def distance(a, b):
        if level == "nominal":
            return float(a != b)
        if level == "interval":
            return float(a - b) ** 2
        low, high = min(a, b), max(a, b)
        between = sum(1 for x in every if low <= x <= high)
        return float(between - (every.count(a) + every.count(b)) / 2) ** 2

    within = sum(distance(a, b) / (len(unit) - 1) for unit in units for a in unit for b in unit)
    across = sum(distance(a, b) for a in every for b in every)
    return 1 - within * (len(every) - 1) / across if across else math.nan


@given(tables, st.sampled_from(LEVELS))
def test_alpha_is_its_definition_pair_by_pair(table, level):
    assert krippendorff_alpha(table, level) == pytest.approx(slow_alpha(table, level), nan_ok=True)


@given(tables, st.sampled_from(["none", "linear", "quadratic"]))
def test_cohens_kappa_is_its_definition_cell_by_cell(table, weighting):
    assume(table)
    pairs = [(row[0], row[1]) for row in table if row[0] is not None and row[1] is not None]
    weight = {"none": lambda a, b: a != b, "linear": lambda a, b: abs(a - b), "quadratic": lambda a, b: (a - b) ** 2}
    observed = sum(weight[weighting](a, b) for a, b in pairs) * len(pairs)
    expected = sum(weight[weighting](a, b) for a, _b in pairs for _a, b in pairs)
    found = cohen_kappa([row[:2] for row in table], weighting, order=range(4))
    assert found == pytest.approx(1 - observed / expected if expected else math.nan, nan_ok=True)


@given(tables)
def test_full_tables_tie_alpha_to_fleiss(table):
    full = [row for row in table if None not in row]
    assume(full)
    ratings_given = len(full) * len(full[0])
    kappa = fleiss_kappa(full)
    wanted = 1 - (1 - kappa) * (ratings_given - 1) / ratings_given
    assert krippendorff_alpha(full) == pytest.approx(wanted, nan_ok=True)


@given(tables, st.randoms(use_true_random=False))
def test_names_and_order_do_not_matter(table, random):
    assume(table)
    raters = list(range(len(table[0])))
    random.shuffle(raters)
    names = random.sample(["w", "x", "y", "z"], 4)
    other = [[None if row[r] is None else names[row[r]] for r in raters] for row in table]
    random.shuffle(other)
    for statistic in (percent, fleiss_kappa, krippendorff_alpha):
        assert statistic(other) == pytest.approx(statistic(table), nan_ok=True)


@given(tables)
def test_scales_keep_what_they_should(table):
    stretched = [[None if x is None else 7.5 * x - 1e6 for x in row] for row in table]
    assert krippendorff_alpha(stretched, "interval") == pytest.approx(
        krippendorff_alpha(table, "interval"), nan_ok=True
    )
    bent = [[None if x is None else 10.0**x for x in row] for row in table]
    assert krippendorff_alpha(bent, "ordinal") == pytest.approx(krippendorff_alpha(table, "ordinal"), nan_ok=True)


@given(tables)
def test_items_rated_less_than_twice_do_not_count(table):
    assume(table)
    raters = len(table[0])
    more = [*table, [None] * raters, [0] + [None] * (raters - 1)]
    for statistic in (percent, fleiss_kappa, *(lambda t, v=v: krippendorff_alpha(t, v) for v in LEVELS)):
        assert statistic(more) == pytest.approx(statistic(table), nan_ok=True)


@given(tables)
def test_bounds(table):
    rated = ratings(table)
    for statistic in (fleiss_kappa, *(lambda t, v=v: krippendorff_alpha(t, v) for v in LEVELS)):
        value = statistic(rated)
        assert math.isnan(value) or value <= 1 + 1e-12
    share = percent(rated)
    assert math.isnan(share) if not len(rated.paired) else -1e-12 <= share <= 1 + 1e-12


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(2, 4))
def test_perfect_agreement_is_one_unless_nothing_could_differ(labels, raters):
    table = [[label] * raters for label in labels]
    told = agreement(table, replicates=0)
    wanted = 1.0 if len(set(labels)) > 1 else None
    assert told.percent == 1.0
    assert (told.fleiss_kappa, told.krippendorff_alpha) == (wanted, wanted)
    if wanted is None:
        assert told.undefined["fleiss_kappa"] == told.undefined["krippendorff_alpha"] == "one_category_only"


@pytest.mark.parametrize("table", [[], [[1], [2]], [[1, None], [None, 2]], np.empty((0, 3))], ids=str)
def test_where_nobody_rated_twice_nothing_is_told(table):
    told = agreement(table)
    assert (told.percent, told.fleiss_kappa, told.krippendorff_alpha, told.paired) == (None, None, None, 0)
    assert set(told.undefined.values()) <= {"no_item_rated_twice", "not_two_raters"}
    assert told.intervals == {}


def test_numpy_and_nan_are_the_same_table():
    array = np.array([[math.nan if x is None else x for x in row] for row in KRIPPENDORFF])
    assert krippendorff_alpha(array, "interval") == krippendorff_alpha(KRIPPENDORFF, "interval")


def test_tables_that_are_none_are_refused():
    with pytest.raises(InputError, match="item 1 has not 2 cells"):
        agreement([[1, 2], [1]])
    with pytest.raises(InputError, match="one label or number"):
        agreement([[{"a": 1}, 2]])
    with pytest.raises(InputError, match="interval scale needs numbers"):
        krippendorff_alpha([["a", "b"]], "interval")
    with pytest.raises(InputError, match="in an order"):
        krippendorff_alpha([["a", "b"]], "ordinal")
    with pytest.raises(InputError, match="not in the order"):
        krippendorff_alpha([["a", "b"]], "ordinal", order="bc")
    with pytest.raises(InputError, match="two raters"):
        cohen_kappa([[1, 2, 3]])


def test_interval_ratings_may_all_differ():
    noise = np.random.default_rng(0).normal(size=(20_000, 3))
    assert abs(krippendorff_alpha(noise, "interval")) < 0.02
    assert krippendorff_alpha(noise[:, :1] * [1, 1, 1] + 1e9, "interval") == 1.0


@given(tables, st.data())
def test_a_weight_is_an_item_that_often(table, data):
    rated = ratings(table, order=range(4))
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rated.paired), max_size=len(rated.paired)))
    many = [table[i] for i, weight in zip(rated.paired, weights, strict=True) for _n in range(weight)]
    repeated = ratings(many or [[None] * rated.codes.shape[1]], order=range(4))
    statistics = [percent_over, fleiss_over, *(alpha_over(level) for level in LEVELS)]
    statistics += [cohen_over(w) for w in ("none", "linear", "quadratic")] if rated.codes.shape[1] == 2 else []
    for statistic in statistics:
        found = statistic(rated, np.array([weights, [1] * len(weights)], dtype=float))[0]
        assert found == pytest.approx(statistic(repeated, np.ones((1, len(repeated.paired))))[0], nan_ok=True)


def test_an_interval_is_a_function_of_the_seed_and_covers_the_truth():
    rated = ratings(KRIPPENDORFF)
    assert bootstrap(rated, fleiss_over, seed=1) == bootstrap(rated, fleiss_over, seed=1)
    assert bootstrap(rated, fleiss_over, seed=1) != bootstrap(rated, fleiss_over, seed=2)
    rng = np.random.default_rng(0)
    covered = 0
    for _n in range(100):  # two raters right with 0.8 about a fair coin: P = 0.68, so kappa is 0.36
        truth = rng.integers(0, 2, 200)
        table = np.stack([np.where(rng.random(200) < 0.8, truth, 1 - truth) for _r in range(2)], axis=1)
        interval = bootstrap(ratings(table), fleiss_over, replicates=300)
        covered += interval.low <= 0.36 <= interval.high
    assert 88 <= covered <= 100


def crowd(seed, items, skills, classes=3, missing=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, items)
    wrong = [(truth + rng.integers(1, classes, items)) % classes for _n in skills]
    table = np.stack(
        [np.where(rng.random(items) < s, truth, w) for s, w in zip(skills, wrong, strict=True)], axis=1
    ).astype(float)
    table[rng.random(table.shape) < missing] = math.nan
    return truth, table


def slow_dawid_skene(rated, steps):
    """The two steps of the paper with plain loops, from vote shares."""
    codes, classes = rated.codes, len(rated.values)
    posterior = np.array([[np.mean(row[row >= 0] == k) for k in range(classes)] for row in codes])
    for _n in range(steps):
        priors = posterior.mean(axis=0)
        confusion = np.zeros((codes.shape[1], classes, classes))
        for i, row in enumerate(codes):
            for r, label in enumerate(row):
                if label >= 0:
                    confusion[r, :, label] += posterior[i]
        confusion /= confusion.sum(axis=2, keepdims=True)
        for i, row in enumerate(codes):
            joint = priors.copy()
            for r, label in enumerate(row):
                if label >= 0:
                    joint = joint * confusion[r, :, label]
            posterior[i] = joint / joint.sum()
    return priors, confusion, posterior


def test_dawid_skene_is_its_paper_step_by_step():
    _truth, table = crowd(1, 60, (0.9, 0.7, 0.6))
    rated = ratings(table[~np.isnan(table).all(axis=1)])
    model = dawid_skene(rated, smoothing=0, tolerance=-1, max_iterations=7)
    priors, confusion, posterior = slow_dawid_skene(rated, 7)
    assert model.priors == pytest.approx(priors)
    assert model.confusion == pytest.approx(confusion)
    assert model.posteriors == pytest.approx(posterior)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.01, 1.0]))
def test_dawid_skene_never_steps_down(seed, smoothing):
    _truth, table = crowd(seed, 25, (0.9, 0.6, 0.3, 0.5))
    model = dawid_skene(table, smoothing=smoothing, max_iterations=60)
    assert np.diff(model.objective).min(initial=0) > -1e-7
    assert model.confusion.sum(axis=2) == pytest.approx(1)
    assert model.posteriors.sum(axis=1) == pytest.approx(1)


def test_dawid_skene_finds_the_raters_and_beats_the_majority():
    skills = (0.95, 0.8, 0.55, 0.5, 0.5)
    truth, table = crowd(0, 3_000, skills)
    model = dawid_skene(table)
    assert model.converged and not model.caveats
    assert model.accuracy == pytest.approx(skills, abs=0.03)
    votes = np.array([-1 if label is None else label for label in majority(table)])
    assert (np.array(model.labels) == truth).mean() > (votes == truth).mean() + 0.05


def test_dawid_skene_says_what_it_cannot_tell():
    assert any("fewer than three" in caveat for caveat in dawid_skene([[0, 1], [1, 1]]).caveats)
    _truth, table = crowd(3, 500, (0.9, 0.9, 0.9, 0.1), classes=2, missing=0)
    assert any("raters [3] are worse" in caveat for caveat in dawid_skene(table).caveats)
    with pytest.raises(InputError, match="no rating"):
        dawid_skene([[None, None]])
    empty = dawid_skene([*table.tolist(), [None] * 4])
    assert empty.priors == pytest.approx(dawid_skene(table).priors)
    assert empty.posteriors[-1] == pytest.approx(empty.priors)


def test_majority_and_its_tie_rule():
    table = [["b", "a", "b"], ["b", "a", None], [None, None, None], ["c", None, None], ["a", "b", "c"]]
    assert majority(table) == ["b", None, None, "c", None]
    assert majority(table, tie="lowest") == ["b", "a", None, "c", "a"]


def test_adjudication_ranks_by_uncertainty():
    table = [[1, 1, 1], [1, 2, 1], [1, 2, 3], [2, 2, 2], [None, 1, 2], [None, None, 3]]
    cases = adjudicate(table)
    assert [case.item for case in cases] == [2, 4, 1]
    assert cases[0].entropy == pytest.approx(math.log2(3)) and cases[0].label is None
    assert cases[2].votes == ((1, 2), (2, 1)) and cases[2].label == 1
    assert [case.item for case in adjudicate(table, most=1)] == [2]
    truth, crowded = crowd(5, 2_000, (0.9, 0.75, 0.75), missing=0)
    model = dawid_skene(crowded)
    ranked = adjudicate(crowded, model)
    entropies = [case.entropy for case in ranked]
    assert entropies == sorted(entropies, reverse=True)
    wrong = {n for n, label in enumerate(model.labels) if label != truth[n]}
    first = {case.item for case in ranked[: len(ranked) // 2]}
    assert len(wrong & first) > 0.6 * len(wrong)
    with pytest.raises(InputError, match="another table"):
        adjudicate(table, model)
