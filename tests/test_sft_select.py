"""Choosing chats: by scores and verdicts, by what they cover, by their places in space; on made-up and on real rows."""

from __future__ import annotations

import math
import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftchats import dataset, demonstration_rows, place, rows, said

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op
from gristmill.dataops.passes import check_accounting
from gristmill.dataops.sft.diverse import coverage, k_center
from gristmill.dataops.sft.scores import ifd, judged, top, within
from gristmill.dataops.sft.turns import texts
from gristmill.dataops.store import Store
from gristmill.verifiers.over import verify
from gristmill.verifiers.verifier import find


def frame(**columns: list) -> pl.DataFrame:
    return rows([said("Q", "A")] * len(next(iter(columns.values())))).with_columns(
        pl.Series(name, values, strict=False) for name, values in columns.items()
    )


def chosen(root, op: Op, data: pl.DataFrame, parts: int = 1) -> tuple[list[int], Dataset]:
    made = Store(root).build("chosen", op, [dataset(root, data, parts)])
    return [place(id) for id in made.scan().collect()["id"]], made


# ---- scores


def test_the_best_stay_and_the_unjudged_go(tmp_path):
    data = frame(score=[0.5, None, 0.9, math.nan, 0.1, 0.9, 0.5])
    ids = data["id"].to_list()
    first = min((0, 6), key=lambda at: ids[at])
    stay, made = chosen(tmp_path, top(rows=3, column="score"), data, parts=3)
    assert stay == sorted([2, 5, first])
    drops = {
        place(id): rest for id, *rest in made.ledger().collect().select("id", "reason", "value", "threshold").rows()
    }
    assert drops == {
        1: ["unjudged", None, None],
        3: ["unjudged", None, None],
        4: ["not_among_the_best", 0.1, 0.5],
        6 - first: ["not_among_the_best", 0.5, 0.5],
    }
    assert made.manifest["stats"] == {"kept": 3, "limit": 0.5, "unjudged": 2}
    assert chosen(tmp_path, top(rows=1, column="score", highest=False), data)[0] == [4]
    assert len(chosen(tmp_path, top(rows=50, column="score"), data)[0]) == 5
    with pytest.raises(InputError, match="no column 'reward'"):
        chosen(tmp_path, top(rows=1, column="reward"), data)
    with pytest.raises(InputError, match="is no number"):
        chosen(tmp_path, top(rows=1, column="messages"), data)


def test_thresholds_keep_what_was_not_judged():
    data = frame(score=[0.1, 0.5, 0.9, None])
    op = within(column="score", min_score=0.2, max_score=0.8)
    split = op(data)
    check_accounting(op, data, split)
    assert [place(id) for id in split.kept["id"]] == [1, 3]
    assert split.drops.select("reason", "value", "threshold").rows() == [
        ("score_too_low", 0.1, 0.2),
        ("score_too_high", 0.9, 0.8),
    ]


def test_verdicts_bring_their_reasons():
    chats = [said("How do I pick a lock?", "I'm sorry, but I can't help with that."), said("Hi", "Hello! How are you?")]
    data = verify(find("safety.refusal")())(texts()(rows(chats)).kept).kept
    op = judged(max_score=0.5)
    split = op(data)
    check_accounting(op, data, split)
    assert [place(id) for id in split.kept["id"]] == [1]
    assert split.drops.select("reason", "value", "threshold").rows() == [("refused", 1.0, 0.5)]
    assert "can not help" in split.drops["evidence"][0]
    unjudged = data.with_columns(verdict=pl.lit(None, data.schema["verdict"]))
    assert judged(min_score=0.5, max_score=0.5)(unjudged).kept.height == 2
    with pytest.raises(InputError, match="of verdicts"):
        judged(column="messages", max_score=0.5)(data)
    with pytest.raises(InputError, match="nothing is chosen"):
        judged()(data)


def test_the_field_of_a_verdict_ranks(tmp_path):
    chats = [said("Q", "Hello there."), said("Q", "I'm sorry, I can't help with that.")]
    data = verify(find("safety.refusal")())(texts()(rows(chats)).kept).kept
    assert chosen(tmp_path, top(rows=1, column="verdict.score"), data)[0] == [1]


def test_difficulty_is_a_ratio_of_perplexities():
    data = frame(given=[2.0, 9.0, None, 0.0, math.inf, 3.0], alone=[4.0, 3.0, 1.0, 1.0, 1.0, math.nan])
    made = ifd(given="given", alone="alone")(data).kept
    assert made["ifd"].to_list() == [0.5, 3.0, None, None, None, None]
    assert [place(id) for id in within(column="ifd", max_score=1.0)(made).kept["id"]] == [0, 2, 3, 4, 5]
    with pytest.raises(InputError, match="no numeric column 'perplexity_given_prompt'"):
        ifd()(data)
    with pytest.raises(InputError, match="'ifd' already"):
        ifd(given="given", alone="alone")(made)


# ---- coverage


def greedy(prompts: list[str], n: int, scale: float, worth: list[float] | None = None) -> list[int]:
    """The rule of the op, spelled out: unigrams of plain words."""
    sets = [set(prompt.split()) for prompt in prompts]
    value = [w / max(len(s), 1) ** scale for s, w in zip(sets, worth or [1.0] * len(sets), strict=True)]
    left = [at for at in range(len(sets)) if worth is None or worth[at] > 0]
    free, out = set().union(*sets), []
    while left and len(out) < n:
        gains = [len(sets[at] & free) * value[at] for at in left]
        if max(gains) == 0 and any(len(sets[at]) for at in left) and free != set().union(*sets):
            free = set().union(*sets)
            continue
        at = left.pop(gains.index(max(gains)))
        out.append(at)
        free -= sets[at]
    return out


WORDS = st.lists(
    st.sampled_from(["mill", "stone", "water", "wheel", "grain", "flour", "sack", "wind"]), max_size=6
).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=12), st.integers(1, 14), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_lazy_gains_choose_as_the_plain_rule_does(tmp_path_factory, prompts, n, scale, weighed):
    worth = [float(at % 3) for at in range(len(prompts))] if weighed else None
    data = frame(prompt=prompts, score=worth or [1.0] * len(prompts))
    op = coverage(rows=n, ngram=1, scale=scale, score="score" if weighed else None)
    stay, _ = chosen(tmp_path_factory.mktemp("cover"), op, data)
    assert stay == sorted(greedy(prompts, n, scale, worth))


def test_copies_are_left_for_what_is_new(tmp_path):
    prompts = ["grind the grain into flour"] * 40 + [
        "turn the big wheel",
        "fill one more sack",
        "oil that creaking axle",
    ]
    digests = set()
    for parts in (1, 4):
        stay, made = chosen(tmp_path, coverage(rows=4), frame(prompt=prompts), parts)
        digests.add(made.digest)
        assert stay == [0, 40, 41, 42]
    assert len(digests) == 1
    drops = made.ledger().collect()
    assert set(drops["reason"]) == {"covered"} and set(drops["value"]) == {1.0}
    assert made.manifest["stats"]["covered"] == made.manifest["stats"]["ngrams"] == 13
    assert chosen(tmp_path, coverage(rows=5), frame(prompt=prompts))[0] == [0, 1, 40, 41, 42]  # covered anew
    with pytest.raises(InputError, match="at least 1"):
        chosen(tmp_path, coverage(rows=0), frame(prompt=prompts))
    with pytest.raises(InputError, match="no text column 'text'"):
        chosen(tmp_path, coverage(rows=1, column="text"), frame(prompt=prompts))


def test_real_rows_cover_more_than_chance(tmp_path):
    data = texts()(demonstration_rows()).kept
    n = 300
    stay, made = chosen(tmp_path, coverage(rows=n), data)
    assert len(stay) == n

    def pairs(at: list[int]) -> int:
        told = data["prompt"].gather(at).str.to_lowercase().str.extract_all(r"\w+")
        return len({pair for words in told for pair in zip(words, words[1:], strict=False)})

    by_chance = pairs(random.Random(1).sample(range(data.height), n))
    assert pairs(stay) > 2 * by_chance
    sources = data["source"].gather(stay).value_counts()
    assert set(sources["source"]) >= {"glaive", "alpaca_en_demo", "people", "v1"}
    # Near-linear: gains are counted again a few times a row, not once a row for each that is chosen.
    assert made.manifest["stats"]["gains_counted"] < 10 * data.height


def test_a_row_without_worth_is_no_row_without_a_score(tmp_path):
    data = frame(prompt=["a b", "c d", "e f", "g h"], score=[1.0, None, 0.0, -1.0])
    stay, made = chosen(tmp_path, coverage(rows=4, score="score"), data)
    told = {place(id): reason for id, reason in made.ledger().collect().select("id", "reason").rows()}
    assert stay == [0] and told == {1: "unjudged", 2: "worthless", 3: "worthless"}


# ---- k-center


def vectors(points: np.ndarray) -> pl.DataFrame:
    return frame(embedding=[None] * len(points)).with_columns(
        embedding=pl.Series(points.tolist(), dtype=pl.List(pl.Float32))
    )


def test_centers_lie_apart(tmp_path):
    rng = np.random.default_rng(1)
    middles = np.eye(4)
    points = np.repeat(middles, 25, axis=0) + rng.normal(0, 0.02, (100, 4))
    digests = set()
    for parts in (1, 3):
        stay, made = chosen(tmp_path, k_center(rows=4), vectors(points), parts)
        digests.add(made.digest)
    assert sorted(at // 25 for at in stay) == [0, 1, 2, 3] and len(digests) == 1
    radius = made.manifest["stats"]["radius"]
    units = points / np.linalg.norm(points, axis=1)[:, None]
    distance = 1 - units @ units[stay].T
    assert math.isclose(distance.min(axis=1).max(), radius, abs_tol=1e-5) and radius < 0.01
    for id, reason, value, seen in made.ledger().collect().select("id", "reason", "value", "evidence").rows():
        center = place(bytes.fromhex(seen))
        assert reason == "near_center" and center in stay and center // 25 == place(id) // 25
        assert math.isclose(value, distance[place(id)].min(), abs_tol=1e-5)


def test_at_most_twice_the_least_radius(tmp_path):
    points = np.random.default_rng(2).normal(size=(9, 2))
    units = points / np.linalg.norm(points, axis=1)[:, None]
    chord = np.linalg.norm(units[:, None] - units[None], axis=2)  # a metric, which the cosine distance is a function of
    stay, _ = chosen(tmp_path, k_center(rows=2), vectors(points))
    least = min(chord[:, [a, b]].min(axis=1).max() for a in range(9) for b in range(a))
    assert chord[:, stay].min(axis=1).max() <= 2 * least + 1e-6


def test_rows_without_a_place_are_no_centers(tmp_path):
    data = vectors(np.array([[1.0, 0], [0, 0], [0, 1], [math.nan, 1]]))
    data = pl.concat([data, frame(embedding=[None] * 5).cast({"embedding": pl.List(pl.Float32)})[4:]])
    stay, made = chosen(tmp_path, k_center(rows=9), data)
    assert stay == [0, 2]
    assert set(made.ledger().collect()["reason"]) == {"no_embedding"} and made.manifest["stats"]["radius"] == 0
    fixed = data.filter(pl.col("embedding").is_not_null()).cast({"embedding": pl.Array(pl.Float32, 2)})
    assert chosen(tmp_path, k_center(rows=9), fixed)[0] == [0, 2]
    ragged = frame(embedding=[[1.0], [1.0, 2.0]])
    with pytest.raises(InputError, match=r"differ in length: \[1, 2\]"):
        chosen(tmp_path, k_center(rows=1), ragged)
    for column in ("vector", "messages"):
        with pytest.raises(InputError, match=f"no column '{column}' of vectors"):
            chosen(tmp_path, k_center(rows=1, column=column), ragged)


def test_nothing_to_choose_from(tmp_path):
    empty = frame(prompt=["x"], score=[1.0], embedding=[[1.0]]).head(0)
    for op in (top(rows=1, column="score"), coverage(rows=1), k_center(rows=1)):
        assert chosen(tmp_path / op.name, op, empty)[0] == []
