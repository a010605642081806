"""Noisy pairs: flips are found where the truth is known, on real pairs better than by chance, and none is invented."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from realdata import real

from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.dataset import Dataset, InputError, publish_rows
from gristmill.dataops.learned.curves import auc, auc_interval
from gristmill.dataops.noise.confident import LEAST, Noise, drop_noisy, find_noise
from gristmill.dataops.noise.crossfit import FOLDS, PENALTIES, crossfit, folds_of
from gristmill.dataops.noise.features import DENSE, features
from gristmill.dataops.noise.pairs import is_pairs, measured, wilson
from gristmill.dataops.store import Store


def names(count: int) -> list[bytes]:
    return [hashlib.sha256(str(n).encode()).digest()[:16] for n in range(count)]


def ruled(count: int, *, seed: int = 0, flips: float = 0.2) -> tuple[list[str], list[str], np.ndarray]:
    """(chosen, rejected, flipped): the reply with more good words than bad ones is preferred, by a coin that leans the
    more the further they are apart; then a share of the pairs is turned round."""
    rng = np.random.default_rng(seed)
    good, bad, other = ([f"{kind}{k}" for k in range(n)] for kind, n in (("good", 30), ("bad", 30), ("plain", 400)))

    def reply() -> tuple[str, int]:
        kind = rng.integers(0, 6)
        words = [*rng.choice(good, kind), *rng.choice(bad, 5 - kind), *rng.choice(other, rng.integers(5, 40))]
        return " ".join(rng.permutation(words)), int(kind)

    sides = []
    while len(sides) < count:
        (one, first), (two, second) = reply(), reply()
        if first != second:
            sides.append((one, two) if 2 * (first - second) + 0.5 * rng.logistic() > 0 else (two, one))
    flip = rng.random(count) < flips
    turned = [(two, one) if gone else (one, two) for (one, two), gone in zip(sides, flip, strict=True)]
    return [one for one, _ in turned], [two for _, two in turned], flip


def noise_of(chosen: list[str], rejected: list[str], groups: np.ndarray | None = None) -> Noise:
    groups = np.arange(len(chosen)) if groups is None else groups
    found = find_noise(names(len(chosen)), groups, pl.Series(chosen), pl.Series(rejected))
    assert found is not None
    return found


def pairs(root: Path, chosen: list[str], rejected: list[str], prompts: list[str] | None = None) -> Dataset:
    """Published in two shards."""
    prompts = [f"question {n}" for n in range(len(chosen))] if prompts is None else prompts
    rows = [
        {"id": name, "prompt": [{"role": "user", "content": prompt}],
         "chosen": [{"role": "assistant", "content": one}], "rejected": [{"role": "assistant", "content": two}]}
        for name, prompt, one, two in zip(names(len(chosen)), prompts, chosen, rejected, strict=True)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema={"id": pl.Binary, **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)})
    half = len(rows) // 2
    tables = [frame.head(half).to_arrow(), frame.tail(len(rows) - half).to_arrow()]
    op = {"name": "made", "version": 1, "params": {"texts": hashlib.sha256(str(rows).encode()).hexdigest()}}
    return publish_rows(root, "pairs", root / ".building" / "pairs", tables, ops=[op], inputs=[], made={}, stats={})


@pytest.mark.parametrize("seed", [0, 1])
def test_flips_are_found_where_the_truth_is_known(seed: int) -> None:
    chosen, rejected, flip = ruled(2_000, seed=seed)
    found = noise_of(chosen, rejected)
    hits = np.cumsum(flip[found.order])
    precision, recall = hits / np.arange(1, len(flip) + 1), hits / flip.sum()
    best = recall[precision >= 0.9].max(initial=0)
    assert best >= 0.9  # asked for are 0.8
    assert flip[found.suspect].mean() >= 0.9  # what confident learning points at, without being told how many
    assert (flip & found.suspect).sum() >= 0.8 * flip.sum()
    assert found.share == pytest.approx(flip.mean(), abs=0.03)


def test_clean_pairs_by_a_clear_rule_are_hardly_accused() -> None:
    chosen, rejected, _ = ruled(1_000, flips=0.0)
    found = noise_of(chosen, rejected)
    assert found.accuracy > 0.93
    assert found.suspect.mean() < 0.06


def test_a_model_that_knows_nothing_accuses_nobody() -> None:
    chosen, rejected, _ = ruled(600, flips=0.5)
    found = noise_of(chosen, rejected)
    assert found.low <= 0.5 and found.share is None and not found.suspect.any()


def test_chances_are_honest() -> None:
    """Of the pairs that get a chance of about c, a share of about c would get the same label from a second rater."""
    chosen, rejected, flip = ruled(4_000)
    chance = noise_of(chosen, rejected).chance
    same = flip == (np.random.default_rng(9).random(len(flip)) < 0.2)
    for inside in (chance < 0.35, chance > 0.65):
        assert inside.sum() > 600
        assert chance[inside].mean() == pytest.approx(same[inside].mean(), abs=0.04)


def test_a_pair_is_judged_without_its_own_label() -> None:
    """Turning one pair round turns its chance round, and the slope of the others moves next to nothing."""
    chosen, rejected, _ = ruled(600)
    before = noise_of(chosen, rejected).chance
    for at in (3, 77):
        turned = [list(chosen), list(rejected)]
        turned[0][at], turned[1][at] = rejected[at], chosen[at]
        assert noise_of(*turned).chance[at] == pytest.approx(1 - before[at], abs=0.03)


def test_pairs_of_one_prompt_share_a_fold_and_copies_do_not_vouch_for_each_other() -> None:
    groups = np.repeat(np.arange(200), 3)
    fold = folds_of(names(600), groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(200))
    assert set(np.bincount(fold, minlength=FOLDS)) == {120}
    # Random words teach nothing about other prompts; three copies in different folds would know each other.
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice([f"w{k}" for k in range(3_000)], 12)) for _ in range(400)]
    chosen, rejected = ([word for word in words[k::2] for _ in range(3)] for k in (0, 1))
    found = noise_of(chosen, rejected, groups)
    assert found.low <= 0.5
    apart = noise_of(chosen, rejected, np.arange(600))
    assert apart.accuracy > 0.9  # as it would be without the grouping


def test_swapped_sides_are_the_same_features_with_their_sign_turned() -> None:
    one, two = pl.Series(["a b c", "- x\n- y", "", "Ja? ja!"] * 3), pl.Series(["b c d", "plain", "was", "**no**"] * 3)
    there, back = features(one, two), features(two, one)
    assert (there.grams + back.grams).nnz == 0 or abs(there.grams + back.grams).max() == 0
    assert np.array_equal(there.dense, -back.dense)
    assert there.dense.shape == (12, len(DENSE)) and there.grams.shape[1] > 0


def test_the_same_pairs_in_another_order_get_the_same_folds() -> None:
    ids, groups = names(300), np.arange(300) // 2
    order = np.random.default_rng(1).permutation(300)
    fold = folds_of(ids, groups)
    moved = folds_of([ids[k] for k in order], np.unique(groups[order], return_inverse=True)[1])
    assert np.array_equal(moved, fold[order])


def test_equal_replies_and_too_few_pairs_are_no_trouble() -> None:
    same = ["the same words"] * 60
    found = noise_of(same, same)
    assert set(found.chance) == {0.5} and not found.suspect.any()
    assert find_noise(names(10), np.arange(10), pl.Series(same[:10]), pl.Series(same[:10])) is None
    assert find_noise(names(60), np.zeros(60, np.int64), pl.Series(same), pl.Series(same)) is None  # one prompt


def test_flipped_labels_on_hh_are_found_better_than_by_chance(record_property: pytest.RecordProperty) -> None:
    mark = "\n\nAssistant:"
    prompts, sides = [], []
    with gzip.open(real("pref/hh-rlhf-harmless-base-test.jsonl.gz"), "rt") as file:
        for line in file:
            row = json.loads(line)
            prompts.append(row["chosen"].rpartition(mark)[0])
            sides.append([row[side].rpartition(mark)[2].strip() for side in ("chosen", "rejected")])
    groups = np.unique(prompts, return_inverse=True)[1]
    flip = np.random.default_rng(0).random(len(sides)) < 0.2
    chosen, rejected = ([row[k ^ int(gone)] for row, gone in zip(sides, flip, strict=True)] for k in (0, 1))
    found = noise_of(chosen, rejected, groups)
    low, high = auc_interval(flip, -found.chance)
    told = {"pairs": len(flip), "flipped": int(flip.sum()), "auc": round(auc(flip, -found.chance), 3),
            "auc_95": [round(low, 3), round(high, 3)], "accuracy": round(found.accuracy, 3)}  # fmt: skip
    for first in (50, 100, 200, int(flip.sum())):
        hits = flip[found.order[:first]]
        told[f"first {first}"] = {"precision": round(hits.mean(), 3), "recall": round(hits.sum() / flip.sum(), 3)}
    caught = flip & found.suspect
    suspect = int(found.suspect.sum())
    told["suspect"] = {"pairs": suspect, "recall": round(caught.sum() / flip.sum(), 3)}
    told["suspect"] |= {"precision": round(caught.sum() / suspect, 3)} if suspect else {}
    record_property("hh", json.dumps(told))
    print(json.dumps(told))
    assert low > 0.5
    share, least, _ = wilson(flip[found.order[:200]].astype(float), groups[found.order[:200]])
    assert least > flip.mean(), share  # the first 200 hold more flips than any 200


def test_the_op_drops_what_is_unlikely_and_says_how_unlikely(tmp_path: Path) -> None:
    chosen, rejected, flip = ruled(800)
    store, whole = Store(tmp_path), pairs(tmp_path, chosen, rejected)
    kept = store.build("kept", drop_noisy(most=0.1), [whole])
    lost = kept.ledger().collect()
    wrong = dict(zip(names(800), flip.tolist(), strict=True))
    assert (kept.rows, lost.height) == (720, 80)
    assert set(lost["reason"]) == {"noisy_pair"} and lost["value"].max() < 0.5  # type: ignore[operator]
    assert np.mean([wrong[name] for name in lost["id"]]) > 0.9
    again = store.build("again", drop_noisy(most=0.5), [kept])  # of a view; all that are suspect, and no more
    twice = again.ledger().collect()
    assert again.rows == 720 - twice.height and 20 < twice.height < 200
    assert not set(twice["id"]) & set(lost["id"])
    assert np.mean([wrong[name] for name in twice["id"]]) > 0.7


def test_the_op_refuses_what_it_cannot_judge(tmp_path: Path) -> None:
    chosen, rejected, _ = ruled(300, flips=0.5)
    store, random = Store(tmp_path), pairs(tmp_path, chosen, rejected)
    with pytest.raises(InputError, match="no better than chance"):
        store.build("kept", drop_noisy(), [random])
    with pytest.raises(InputError, match=f"{LEAST} pairs of {LEAST} prompts"):
        store.build("kept", drop_noisy(), [pairs(tmp_path, chosen[:20], rejected[:20])])
    with pytest.raises(InputError, match="0.5 at most"):
        store.build("kept", drop_noisy(most=0.7), [random])


def test_keys_are_of_all_that_is_said_and_by_whom(tmp_path: Path) -> None:
    found = measured(pairs(tmp_path, ["yes", "yes ", "no"], ["no", "no", "yes"], ["q", "q", "q"]))
    rows = {row["id"]: row for row in found.to_dicts()}
    one, two, three = (rows[name] for name in names(3))
    assert (one["p"], one["c"], one["r"]) == (two["p"], two["c"], two["r"])  # but for a space at the end
    assert (three["c"], three["r"]) == (one["r"], one["c"]) and one["c"] != one["r"]
    assert (one["c_chars"], one["r_chars"], one["c_words"]) == (3, 2, 1)
    assert is_pairs(pairs(tmp_path, ["a"] * 2, ["b"] * 2))


def test_an_interval_is_wider_where_pairs_of_a_prompt_agree() -> None:
    values = np.repeat([1.0, 0.0, 1.0, 1.0], 25)
    mean, low, high = wilson(values, np.arange(100))
    assert (mean, round(low, 3), round(high, 3)) == (0.75, 0.657, 0.825)  # Wilson's, by hand
    same = wilson(values, np.repeat(np.arange(4), 25))
    assert same[0] == 0.75 and same[1] < 0.4 and same[2] > 0.9
    assert wilson(np.ones(30), np.arange(30))[1] == pytest.approx(30 / (30 + 1.959964**2))


def test_the_penalty_is_chosen_on_several_folds_however_many_pairs_there_are() -> None:
    chosen, rejected, _ = ruled(6_000)
    fold = folds_of(sorted(names(6_000)), np.arange(6_000))  # pairs by id are of one fold after the other
    found = crossfit(features(pl.Series(chosen), pl.Series(rejected)), fold)
    assert min(found.penalties) > PENALTIES[0]  # the first is what a choice without a pair to learn from would be
    assert (found.chance > 0.5).mean() > 0.77


def test_penalties_are_chosen_without_the_fold_that_is_judged() -> None:
    """The labels of a fold do not reach its own chances: scores of a fold stay, whatever its pairs say."""
    chosen, rejected, _ = ruled(500)
    fold = folds_of(names(500), np.arange(500))
    before = crossfit(features(pl.Series(chosen), pl.Series(rejected)), fold)
    swap = fold == 2
    turned = [[b if gone else a for a, b, gone in zip(one, two, swap, strict=True)]
              for one, two in ((chosen, rejected), (rejected, chosen))]  # fmt: skip
    after = crossfit(features(pl.Series(turned[0]), pl.Series(turned[1])), fold)
    assert after.penalties[2] == before.penalties[2]
    moved = before.score[swap] / -after.score[swap]
    assert moved == pytest.approx(np.full(swap.sum(), moved[0]))  # but for the slope, which other folds give
