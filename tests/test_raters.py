"""Raters: agreement as the verifiers' own, Dawid and Skene's model on raters whose quality is known, and which word
counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.preferences.judgements import JUDGEMENT, frame, judgement
from gristmill.dataops.preferences.raters import adjudicate, agreement, estimate, votes
from gristmill.dataops.preferences.trust import agreed, latest, numbers, settled, trusted
from gristmill.dataops.store import Store, Task
from gristmill.verifiers.agreement.coefficients import fleiss_kappa, krippendorff_alpha, percent
from gristmill.verifiers.agreement.raters import dawid_skene

VALUES = {1: [1, 0], 0: [0, 0], -1: [0, 1]}


def said(text: str, role: str = "assistant") -> dict:
    return {"role": role, "content": text}


def word(item: int, rater: str | None, label: int | None, *, swapped: bool = False, **more) -> dict:
    """A judgement of two replies: 1 for the first, -1 for the second, as the item has them."""
    value = None if label is None else VALUES[-label if swapped else label]
    replies = [said(f"a{item}"), said(f"b{item}")]
    return judgement([said(f"p{item}", "user")], replies[::-1] if swapped else replies, "pairwise", value,
                     rater=rater, **more)  # fmt: skip


def judged(words: list[dict]) -> pl.DataFrame:
    return frame([{**one, "id": row_id("test", str(n))} for n, one in enumerate(words)])


def _plan(_, __, ___, *, rows_context, shards_context):
    edges = np.linspace(0, rows_context.height, shards_context + 1).astype(int)
    return [Task(rows_context[int(a) : int(b)]) for a, b in zip(edges[:-1], edges[1:], strict=True)]


@op("toy.judged", version=1, kind="source", plan=_plan)
def _held(task: pl.DataFrame, *, rows_context, shards_context):
    yield Split(task, ledger())


def published(root: Path, words: list[dict], shards: int = 1) -> Dataset:
    rows = judged(words)
    digest = "".join(row_id(*rows["id"].to_list(), str(shards), str(rows["value"].to_list())).hex())
    return Store(root).build("judged", _held(rows_context=rows, shards_context=shards), [], external=[digest])


def table(words: list[dict]) -> list[list[int | None]]:
    """Items by raters, of words in one order."""
    raters = sorted({one["rater"] for one in words if one["rater"]})
    items = list(dict.fromkeys(one["item"] for one in words))
    cells: list[list[int | None]] = [[None] * len(raters) for _ in items]
    for one in words:
        if one["rater"] and one["value"] is not None:
            label = int(np.sign(one["value"][0] - one["value"][1]))
            cells[items.index(one["item"])][raters.index(one["rater"])] = label
    return cells


WORDS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from("rstu"), st.sampled_from([1, 0, -1, None])), min_size=1, max_size=30
)


# ---- agreement


@given(words=WORDS)
@settings(deadline=None, max_examples=100)
def test_agreement_is_that_of_the_verifiers(words):
    once = list({(item, rater): word(item, rater, label) for item, rater, label in words}.values())
    told, cells = agreement(votes(judged(once), "choice")), table(once)
    for value, other in (
        (told.percent, percent(cells)), (told.fleiss_kappa, fleiss_kappa(cells)),
        (told.krippendorff_alpha, krippendorff_alpha(cells)),
    ):  # fmt: skip
        assert (value is None and np.isnan(other)) or value == pytest.approx(other, abs=1e-9)
    assert told.votes == sum(cell is not None for row in cells for cell in row)


@given(words=WORDS, swaps=st.lists(st.booleans(), min_size=30, max_size=30))
@settings(deadline=None, max_examples=60)
def test_the_order_on_screen_changes_no_vote(words, swaps):
    once = list({(item, rater): (item, rater, label) for item, rater, label in words}.values())
    straight = votes(judged([word(*one) for one in once]), "choice")
    seen: set[int] = set()  # a unit names its replies as the first vote on it was shown them
    mixed = []
    for (item, rater, label), swap in zip(once, swaps, strict=False):
        mixed.append(word(item, rater, label, swapped=swap and item in seen))
        seen |= set() if label is None else {item}
    turned = votes(judged(mixed), "choice")
    assert turned.drop("first").equals(straight.drop("first"))
    assert agreement(turned).percent == agreement(straight).percent


def test_what_is_no_vote():
    words = [word(0, "r", 1), word(0, "s", None), word(0, None, 1), word(0, "r", -1), word(1, "r", 0)]
    cast = votes(judged(words), "choice")
    assert cast.select("rater", "label", "first").rows() == [("r", -1, False), ("r", 0, None), (None, 1, True)]
    told = agreement(cast)
    assert (told.units, told.paired, told.votes, told.unnamed, told.percent) == (2, 0, 2, 1, None)
    with pytest.raises(InputError, match="no family 'pairs'; there are: choice, thumbs, rating"):
        votes(judged(words), "pairs")


def test_votes_of_rankings_thumbs_and_ratings():
    prompt, replies = [said("p", "user")], [said(text) for text in "abc"]
    words = [
        judgement(prompt, replies, "ranking", [1, 2, 2], rater="r"),
        judgement(prompt, replies[::-1], "ranking", [None, 1, 2], rater="s"),
        judgement(prompt, replies[:1], "thumbs", [1], rater="r"),
        judgement(prompt, replies[:2], "edit", [0, 1], rater="r"),
        judgement(prompt, replies, "rating", [4, None, 2], rater="r", aspect="kind"),
        judgement(prompt, replies, "rating", [4, 1, 5], rater="r", aspect="true"),
    ]
    cast = votes(judged(words), "choice")
    assert cast.select("unit", "rater", "label").rows() == [(0, "r", 1), (1, "r", 1), (2, "r", 0), (0, "s", -1)]
    assert votes(judged(words), "thumbs")["label"].to_list() == [1]
    assert votes(judged(words), "rating").select("unit", "label").rows() == [(0, 4), (1, 2), (2, 4), (3, 1), (4, 5)]


def test_ties_everywhere_leave_nothing_to_disagree_on():
    cast = votes(judged([word(item, rater, 0) for item in range(9) for rater in "rst"]), "choice")
    told = agreement(cast)
    assert (told.percent, told.fleiss_kappa, told.krippendorff_alpha) == (1, None, None)
    found = estimate(cast)
    assert found.labels == (0,) and found.converged and adjudicate(found).height == 0


# ---- Dawid and Skene


def crowd(
    items: int, accuracies: dict[str, float], *, seed: int = 0, biased: str | None = None
) -> tuple[list, np.ndarray]:
    """(judgements, true labels): raters who are right that often, and one who always picks what is shown first."""
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, -1], items)
    words = []
    for item in range(items):
        for number, (rater, accuracy) in enumerate(accuracies.items()):
            label = int(truth[item] if rng.random() < accuracy else -truth[item])
            words.append(word(item, rater, label, swapped=bool(number and rng.random() < 0.5)))
        if biased is not None:
            swapped = bool(rng.random() < 0.5)
            words.append(word(item, biased, -1 if swapped else 1, swapped=swapped))
    return words, truth


def test_simulated_raters_are_found_out():
    known = {"good": 0.95, "fair": 0.8, "poor": 0.6, "liar": 0.1}
    words, truth = crowd(1_500, known, biased="first")
    found = estimate(votes(judged(words), "choice"))
    assert found.converged and (np.diff(found.objective) > -1e-6).all()
    by_rater = {row["rater"]: row for row in found.raters.iter_rows(named=True)}
    for rater, accuracy in known.items():
        assert by_rater[rater]["accuracy"] == pytest.approx(accuracy, abs=0.04)
    assert by_rater["first"]["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert by_rater["first"]["first_share"] == 1 and "always_first" in by_rater["first"]["flags"]
    assert by_rater["liar"]["flags"] == ["worse_than_chance"] and by_rater["good"]["flags"] == []
    right = np.mean(found.units.sort("unit")["label"].to_numpy() == truth)
    votes_alone = votes(judged(words), "choice").group_by("unit").agg(pl.col("label").sum()).sort("unit")["label"]
    assert right > 0.95 > np.mean(np.sign(votes_alone.to_numpy()) == truth)


def test_the_model_is_that_of_the_verifiers():
    words, _ = crowd(300, {"a": 0.9, "b": 0.7, "c": 0.6}, seed=3)
    straight = [one for one in words if one["responses"][0]["content"].startswith("a")]
    cells = table(straight)
    found, other = estimate(votes(judged(straight), "choice")), dawid_skene(cells)
    assert found.raters["accuracy"].to_list() == pytest.approx(other.accuracy.tolist(), abs=1e-6)
    assert found.units["probability"].to_list() == pytest.approx(other.posteriors.max(axis=1).tolist(), abs=1e-5)


def test_one_rater_and_none():
    found = estimate(votes(judged([word(item, "r", 1) for item in range(30)]), "choice"))
    assert found.raters["flags"].to_list() == [["always_first", "one_label"]]
    assert "fewer than three raters" in found.caveats[0]
    with pytest.raises(InputError, match="no judgement names its rater"):
        estimate(votes(judged([word(0, None, 1)]), "choice"))


def test_the_uncertain_come_first():
    words = [word(item, rater, 1) for item in range(40) for rater in "rst"]
    words += [word(40, "r", 1), word(40, "s", -1), word(41, "r", -1), word(41, "s", -1), word(41, "t", -1)]
    ranked = adjudicate(estimate(votes(judged(words), "choice")))
    assert ranked["item"][0] == words[120]["item"] and ranked["entropy"].is_sorted(descending=True)
    assert adjudicate(estimate(votes(judged(words), "choice")), most=0).height == 0


# ---- which word counts


def reasons(made: Dataset) -> list[tuple]:
    lost = made.ledger().collect()
    assert made.rows + lost.height == made.input(0).rows
    return sorted(lost.select("reason", "evidence").rows())


@pytest.mark.parametrize("shards", [1, 3])
def test_the_last_word_stands(tmp_path, shards):
    words = [
        word(0, "r", 1, at="2024-01-03"), word(0, "r", -1, at="2024-01-02"), word(0, "r", 1, swapped=True),
        word(0, "s", 1), word(0, "s", 0), word(1, "r", 1), word(0, None, 1), word(0, None, 1), word(1, "t", None),
    ]  # fmt: skip
    given_ids = judged(words)["id"]
    made = Store(tmp_path).build("once", latest(), [published(tmp_path, words, shards)])
    stand = [id.hex() for id in given_ids]
    assert reasons(made) == sorted([("superseded", stand[0]), ("duplicate", stand[0]), ("superseded", stand[4])])
    assert set(made.scan().collect()["id"]) == {given_ids[n] for n in (0, 4, 5, 6, 7, 8)}


def test_rows_that_say_they_are_superseded_go(tmp_path):
    words = [word(0, "r", 1), word(1, "r", None), word(2, None, 1), word(0, "s", 1)]
    rows = judged(words).with_columns(superseded=pl.Series([True, True, True, None]))
    found = Store(tmp_path).build("judged", _held(rows_context=rows, shards_context=2), [])
    made = Store(tmp_path).build("once", latest(), [found])
    assert reasons(made) == [("superseded", None)] * 3 and made.scan().collect()["rater"].to_list() == ["s"]


def test_raters_who_are_wrong_are_dropped_and_few_are_not(tmp_path):
    words, _ = crowd(200, {"good": 0.95, "fair": 0.85, "liar": 0.2}, biased="first")
    words += [word(n, "new", -1) for n in range(3)]
    made = Store(tmp_path).build("some", trusted(min_accuracy=0.7), [published(tmp_path, words, 2)])
    assert set(made.scan().collect()["rater"]) == {"good", "fair", "new"}
    lost = made.ledger().collect()
    assert set(lost["evidence"]) == {"liar", "first"} and set(lost["reason"]) == {"untrusted_rater"}
    assert (lost["value"] < lost["threshold"]).all() and made.manifest["stats"]["untrusted_choice"] == 2
    two = [one for one in words if one["rater"] in ("good", "liar")]
    assert Store(tmp_path / "b").build("some", trusted(min_accuracy=0.7), [published(tmp_path / "b", two)]).rows == 400
    for bad in (0, 1.5):
        with pytest.raises(InputError, match="min_accuracy"):
            trusted(min_accuracy=bad)


def test_an_adjudicator_settles_an_item(tmp_path):
    words = [word(0, "r", 1), word(0, "boss", -1), word(0, None, 1), word(1, "r", 1), word(1, "boss", None)]
    made = Store(tmp_path).build("settled", settled(adjudicators=["boss"]), [published(tmp_path, words)])
    final = judged(words)["id"][1].hex()
    assert reasons(made) == [("adjudicated", final)] * 2
    assert sorted(map(str, made.scan().collect()["rater"])) == ["boss", "boss", "r"]
    with pytest.raises(InputError, match="a list of raters"):
        settled(adjudicators="boss")


def test_what_is_probably_true_stays(tmp_path):
    words, truth = crowd(300, {"a": 0.95, "b": 0.9, "c": 0.85, "d": 0.8}, seed=5)
    made = Store(tmp_path).build("agreed", agreed(min_probability=0.9), [published(tmp_path, words, 2)])
    kept, lost = made.scan().collect(), made.ledger().collect()
    assert set(lost["reason"]) == {"unsure", "overruled"} and kept.height + lost.height == 1_200
    first = pl.Series([one["content"].startswith("a") for one in kept["responses"].list.first()])
    label = (kept["value"].list.first() - kept["value"].list.last()) * first.cast(pl.Int8).replace_strict({1: 1, 0: -1})
    item = [int(row[0]["content"][1:]) for row in kept["prompt"]]
    assert np.mean(label.to_numpy() == truth[item]) > 0.99
    assert kept.group_by("item").agg(pl.len())["len"].min() >= 2
    with pytest.raises(InputError, match="min_probability"):
        agreed(min_probability=1)


def test_other_rows_are_refused(tmp_path):
    rows = judged([word(0, "r", 1)]).drop("value")
    assert set(rows.columns) < set(JUDGEMENT)
    made = Store(tmp_path).build("judged", _held(rows_context=rows, shards_context=1), [])
    with pytest.raises(InputError, match="judged has no column value: it holds no judgements"):
        numbers(made)
