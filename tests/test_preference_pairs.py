"""Judgements into pairs and thumbs: never a reply preferred to itself, a tie or nothing as a preference; each judgement
a source of something or in the ledger; and rows that encoding takes."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import polars as pl
import pytest
from chatting import chat
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.chat.encode import encode_pairs, encode_thumbs
from gristmill.dataops.chat.shapes import SHAPES
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.identity import row_id
from gristmill.dataops.preferences.imports import read_judgements
from gristmill.dataops.preferences.judgements import KINDS, frame, judgement
from gristmill.dataops.preferences.liked import THUMB, make_thumbs
from gristmill.dataops.preferences.pairs import PAIR, make_pairs, paired
from gristmill.dataops.preferences.trust import latest
from gristmill.dataops.store import Store

POLICIES = ("best_worst", "best_random", "all")


def row(kind: str, responses: str | list[str], value: list | None, rater: str | None = None, **more) -> dict:
    return {"prompt": "p", "responses": list(responses), "kind": kind, "value": value, "rater": rater, **more}


def judged(root: Path, rows: list[dict]) -> Dataset:
    root.mkdir(parents=True, exist_ok=True)
    (root / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    made = read_judgements(Store(root), "judged", [str(root / "rows.jsonl")], "judgements")
    assert made.rows == len(rows)
    return made


def build(root: Path, rows: list[dict], making) -> tuple[pl.DataFrame, dict[str, int]]:
    """(what is made, reasons of the judgements it is not made of)."""
    found = judged(root, rows)
    made = Store(root).build("made", making, [found])
    told, lost = made.scan().collect(), made.ledger().collect()
    sources = [id for ids in told["sources"] for id in ids]
    every = found.scan().select("id").collect()["id"]
    assert set(sources) | set(lost["id"]) == set(every) and set(sources).isdisjoint(lost["id"])
    assert len(lost) == lost["id"].n_unique()
    return told, dict(lost.group_by("reason").len().iter_rows())


def said(told: pl.DataFrame) -> list[tuple[str, str, float]]:
    columns = (told[name] for name in ("chosen", "rejected", "margin"))
    return [(one[0]["content"], two[0]["content"], margin) for one, two, margin in zip(*columns, strict=True)]


# ---- every kind of judgement


def test_strengths_and_majorities(tmp_path):
    rows = [
        row("pairwise", "ab", [3, 0], "r"), row("pairwise", "ba", [0, 1], "s"),  # both for a
        row("pairwise", "cd", [0, 2]), row("pairwise", "cd", [1, 0]), row("pairwise", "cd", None),
        row("pairwise", "ef", [1, 0]), row("pairwise", "ef", [0, 1]),
        row("pairwise", "gh", [1, 0]), row("pairwise", "gh", [0, 0]), row("pairwise", "gh", [0, 0]),
    ]  # fmt: skip
    told, lost = build(tmp_path, rows, make_pairs())
    assert said(told) == [("a", "b", 2.0), ("d", "c", 0.5)]
    assert told.select("votes", "agree").rows() == [(2, 1.0), (2, 0.5)]
    assert lost == {"unjudged": 1, "tie": 5}  # even votes, and more ties than preferences


def test_rankings_of_many_with_ties(tmp_path):
    rows = [row("ranking", "abcd", [2, 1, 4, 2], "r"), row("ranking", "dcba", [2, 3, 1, 2], "s")]
    told, lost = build(tmp_path / "worst", rows, make_pairs())
    assert said(told) == [("b", "c", 2.5)] and lost == {}
    told, _ = build(tmp_path / "all", rows, make_pairs(policy="all"))
    assert set(said(told)) == {("b", "c", 2.5), ("a", "c", 1.5), ("d", "c", 1.5), ("b", "a", 1.0), ("b", "d", 1.0)}
    told, _ = build(tmp_path / "margin", rows, make_pairs(policy="all", min_margin=1.5))
    assert {margin for *_, margin in said(told)} == {2.5, 1.5}
    drawn = set()
    for seed in range(1, 30):
        told, _ = build(tmp_path / str(seed), rows, make_pairs(policy="best_random", seed=seed))
        drawn |= set(said(told))
    assert drawn == {("b", "c", 2.5), ("b", "a", 1.0), ("b", "d", 1.0)}


def test_ratings_by_aspect(tmp_path):
    rows = [
        row("rating", "abc", [1, 5, 3], "r", aspect="true"), row("rating", "abc", [5, 3, 3], "r", aspect="kind"),
        row("rating", "abc", [3, None, 4], "r"),
    ]  # fmt: skip
    told, lost = build(tmp_path / "whole", rows, make_pairs())
    assert said(told) == [("c", "a", 1.0)] and lost == {"other_aspect": 2}
    told, lost = build(tmp_path / "true", rows, make_pairs(aspects=["true"]))
    assert said(told) == [("b", "a", 4.0)] and lost == {"other_aspect": 2}
    told, lost = build(tmp_path / "both", rows, make_pairs(aspects=["true", "kind"]))
    assert said(told) == [("b", "a", 1.0)] and lost == {"other_aspect": 1} and told["votes"].to_list() == [1]


def test_an_edit_is_preferred_to_what_it_was_made_of(tmp_path):
    rows = [row("edit", "ab", [0, 1]), row("edit", ["c", " c\n"], [0, 1])]
    told, lost = build(tmp_path, rows, make_pairs())
    assert said(told) == [("b", "a", 1.0)] and lost == {"equal": 1}


def test_thumbs(tmp_path):
    rows = [
        row("thumbs", "a", [1], "r"), row("thumbs", "a", [1], "s"), row("thumbs", "a", [0], "t"),
        row("thumbs", "b", [0]), row("thumbs", "c", [0]), row("thumbs", "c", [1]), row("thumbs", "d", None),
        row("pairwise", "ab", [1, 0]),
    ]  # fmt: skip
    told, lost = build(tmp_path / "thumbs", rows, make_thumbs())
    assert told.schema == THUMB
    assert [(one[0]["content"], label) for one, label in told.select("response", "label").rows()] == [
        ("a", True), ("b", False)
    ]  # fmt: skip
    assert told["agree"].to_list() == [pytest.approx(2 / 3), 1] and lost == {"tie": 2, "unjudged": 1, "other_kind": 1}
    told, lost = build(tmp_path / "pairs", rows, make_pairs())
    assert said(told) == [("a", "b", 1.0)] and lost == {"other_kind": 7}


@pytest.mark.parametrize("policy", POLICIES)
def test_ties_everywhere(tmp_path, policy):
    rows = [row("pairwise", "ab", [0, 0], str(n)) for n in range(5)] + [row("ranking", "abc", [1, 1, 1])]
    rows += [row("rating", "abc", [4, 4, None]), row("rating", "ab", [4, None]), row("ranking", "abc", [1, 2, 3], "r")]
    rows += [row("ranking", "abc", [3, 2, 1], "s")]
    told, lost = build(tmp_path, rows, make_pairs(policy=policy))
    assert told.height == 0 and told.schema == PAIR and lost == {"tie": 9, "one_reply": 1}


def test_small_margins_say_how_small(tmp_path):
    made = Store(tmp_path).build("made", make_pairs(min_margin=2), [judged(tmp_path, [row("pairwise", "ab", [1, 0])])])
    assert made.ledger().select("reason", "value", "threshold").collect().rows() == [("below_margin", 1, 2)]


def test_a_circle_of_preferences_has_no_best(tmp_path):
    rows = [row("rating", "abc", value) for value in ([2, 1, None], [None, 2, 1], [1, None, 2])]
    told, lost = build(tmp_path / "worst", rows, make_pairs())
    assert told.height == 0 and lost == {"tie": 3}
    told, _ = build(tmp_path / "all", rows, make_pairs(policy="all"))
    assert set(said(told)) == {("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0)}


def test_one_rater_who_says_it_twice_has_one_voice(tmp_path):
    rows = [row("pairwise", "ab", [1, 0], "r")] * 5 + [row("pairwise", "ab", [0, 2], "s")]
    told, _ = build(tmp_path, rows, make_pairs())
    assert said(told) == [("b", "a", 0.5)] and told["votes"].to_list() == [2]
    once = Store(tmp_path).build("once", latest(), [Store(tmp_path).get("judged")])
    assert once.rows == 2
    again = Store(tmp_path).build("made", make_pairs(), [once]).scan().collect()
    assert said(again) == said(told) and again["sources"].list.len().to_list() == [2]


# ---- laws

TEXTS = ("a", "a ", "b", "c", "d")


VALUES = {"pairwise": ([0, 0], [1, 0], [0, 1], [0.3, 0], [0, 0.1]), "edit": ([0, 1],), "thumbs": ([0], [1])}


@st.composite
def judgements(draw) -> list[tuple]:
    """(kind, prompt, replies, value, rater)."""
    kind = draw(st.sampled_from(KINDS))
    size = {"pairwise": 2, "edit": 2, "thumbs": 1}.get(kind) or draw(st.integers(2, 4))
    replies = draw(st.lists(st.sampled_from(TEXTS), min_size=size, max_size=size))
    if kind in VALUES:
        value = draw(st.sampled_from([None, *VALUES[kind]]))
    else:
        value = draw(st.lists(st.sampled_from([None, 1, 2, 3]), min_size=size, max_size=size))
    return kind, draw(st.sampled_from("pq")), replies, value, draw(st.sampled_from([None, "r", "s"]))


def held(rows: list[tuple]) -> pl.DataFrame:
    """Judgements in memory; equal ones have ids of their own."""
    made = []
    for number, (kind, prompt, replies, value, rater) in enumerate(rows):
        talk = [{"role": "assistant", "content": text} for text in replies]
        one = judgement([{"role": "user", "content": prompt}], talk, kind, value, rater=rater)
        made.append({**one, "id": row_id("test", str(number))})
    return frame(made)


def same(told: pl.DataFrame) -> pl.DataFrame:
    """What pairs say, without where they come from."""
    texts = [
        pl.col(side).list.first().struct.field("content").str.strip_chars().alias(side)
        for side in ("chosen", "rejected")
    ]
    return told.select("item", "kind", "margin", "votes", "agree", *texts).sort(pl.all())


@pytest.mark.parametrize("policy", POLICIES)
@given(rows=st.lists(judgements(), min_size=1, max_size=8), margin=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_no_pair_of_equals_ties_or_nothing(policy, rows, margin, seed):
    how = {"policy": policy, "min_margin": margin, "aspects": [], "seed": seed}
    given_rows = held(rows)
    split = paired(given_rows, **how)
    told = split.kept
    found = dict(given_rows.select("id", "value").rows())
    sources = {id for ids in told["sources"] for id in ids}
    assert sources | set(split.drops["id"]) == set(found) and sources.isdisjoint(split.drops["id"])
    assert split.drops["id"].n_unique() == split.drops.height and split.drops["reason"].null_count() == 0
    for one in told.iter_rows(named=True):
        assert one["chosen"][0]["content"].strip() != one["rejected"][0]["content"].strip()
        assert one["margin"] > 0 and one["margin"] >= margin and 0 < one["agree"] <= 1
        assert all(found[id] is not None for id in one["sources"])
        assert SHAPES["pairs"].make(one)["chosen"] == one["chosen"]
    assert told["id"].n_unique() == told.height
    assert policy == "all" or told.select("item", "kind").n_unique() == told.height
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert same(paired(held(shuffled), **how).kept).equals(same(told))


@given(scores=st.lists(st.lists(st.none() | st.integers(1, 5), min_size=4, max_size=4), min_size=1, max_size=4))
@settings(deadline=None, max_examples=50)
def test_margins_are_mean_differences(scores):
    rows = held([("rating", "p", "abcd", value, f"r{n}") for n, value in enumerate(scores)])
    told = paired(rows, policy="all", min_margin=0.0, aspects=[], seed=0).kept
    want = {}
    for one, two in itertools.permutations(range(4), 2):
        gaps = [value[one] - value[two] for value in scores if value[one] is not None and value[two] is not None]
        ties, ups = gaps.count(0), sum(gap > 0 for gap in gaps)
        if sum(gaps) > 0 and ties < max(ups, len(gaps) - ties - ups):
            want["abcd"[one], "abcd"[two]] = sum(gaps) / len(gaps)
    assert {(one, two): margin for one, two, margin in said(told)} == pytest.approx(want)


def test_tasks_and_shards_do_not_show(tmp_path):
    rows = [{**row("ranking", "abc", [1 + n % 3, 1 + n % 2, 2]), "prompt": str(n % 40)} for n in range(90)]
    found = judged(tmp_path, rows)
    making = make_pairs(policy="all")
    whole, _ = build(tmp_path / "whole", rows, making)
    parts = [next(making.function((found.shards(), part, 3), **making.params)) for part in range(3)]
    assert [part.consumed for part in parts] != [90, 0, 0] and sum(part.consumed for part in parts) == 90
    pieces = pl.concat([part.kept for part in parts])
    assert pieces.sort("id").equals(whole.sort("id"))


# ---- what becomes of them


def test_encoding_takes_them(tmp_path):
    talk = [{"role": "user", "content": "the mill grinds"}]
    rows = [row("pairwise", ["sacks of grain.", "7!"], [2, 0]), row("thumbs", ["sacks"], [1])]
    found = judged(tmp_path, [{**one, "prompt": talk} for one in rows])
    speaker, store = chat(tmp_path, "chatml"), Store(tmp_path)
    pairs = store.build("pairs-read", make_pairs(), [found])
    thumbs = store.build("thumbs-read", make_thumbs(), [found])
    ready = store.build("pairs", encode_pairs(speaker, max_tokens=200), [pairs])
    liked = store.build("thumbs", encode_thumbs(speaker, max_tokens=200), [thumbs])
    assert ready.scan().collect()["margin"].to_list() == [2.0]
    assert liked.scan().collect()["label"].to_list() == [True]
    assert fsck(store)[1] == []


def test_the_pairs_of_real_sets(tmp_path):
    store = Store(tmp_path)
    people = read_judgements(store, "p", [str(real("pref/pandalm-testset-v1-3annotators.json"))], "pandalm")
    made = store.build("p-pairs", make_pairs(), [people])
    verdicts = [[one[f"annotator{n}"] for n in (1, 2, 3)] for one in json.loads(
        real("pref/pandalm-testset-v1-3annotators.json").read_text())]  # fmt: skip
    clear = sum(one.count(0) < max(one.count(1), one.count(2)) and one.count(1) != one.count(2) for one in verdicts)
    assert made.rows == clear == 894
    assert made.manifest["counts"]["pairs.make"]["reasons"] == {"tie": 3 * (999 - clear)}
    hh = read_judgements(store, "h", [str(real("pref/hh-rlhf-harmless-base-test.jsonl.gz"))], "hh-rlhf")
    assert store.build("h-pairs", make_pairs(), [hh]).rows == 2307
    kto = read_judgements(store, "k", [str(real("pref/lf-kto_en_demo.json"))], "thumbs")
    assert store.build("k-thumbs", make_thumbs(), [kto]).scan().collect()["label"].sum() == 150


def test_refused(tmp_path):
    for more, text in (
        ({"policy": "best"}, "no policy 'best'"), ({"min_margin": -1}, "min_margin is -1"),
        ({"min_margin": float("nan")}, "min_margin"), ({"seed": 3}, "seed is of best_random"),
        ({"aspects": "true"}, "aspects is a list"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=text):
            make_pairs(**more)
    chats = Store(tmp_path).build("made", make_pairs(), [judged(tmp_path, [row("pairwise", "ab", [1, 0])])])
    with pytest.raises(InputError, match="made has no column"):
        Store(tmp_path).build("again", make_pairs(), [chats])
