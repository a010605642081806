"""Deduplication through the store: what goes, for whom, and that nothing else decides it."""

from __future__ import annotations

import datetime
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops import dedup
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task

SCHEMA = {"id": pl.Binary, "uri": pl.String, "date": pl.Datetime("us", "UTC"), "text": pl.String}


def _plan(inputs, building, workers, *, rows, parts_context):
    cuts = [len(rows) * i // parts_context for i in range(parts_context + 1)]
    return [Task((a, b), b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@op("toy.pages", version=1, kind="source", plan=_plan)
def pages(task, *, rows, parts_context: int = 1):
    """Pages of (uri, day, text)."""
    made = [
        {
            "id": row_id(uri or "", text),
            "uri": uri,
            "date": day and datetime.datetime(2024, 1, day, tzinfo=datetime.UTC),
            "text": text,
        }
        for uri, day, text in rows[slice(*task)]
    ]
    yield Split(pl.DataFrame(made, schema=SCHEMA), ledger())


def run(root: Path, rows, parts: int = 1, **params) -> tuple[Dataset, Dataset, Dataset]:
    store = Store(root)
    base = store.build("pages", pages(rows=[list(row) for row in rows], parts_context=parts), [])
    keep = {name: params[name] for name in ("keep",) if name in params}
    exact = store.build("exact", dedup.exact(**keep), [base])
    return base, exact, store.build("unique", dedup.minhash(**params), [exact])


def words(seed: int, count: int) -> list[str]:
    """Words of letters: digits would all be one digit to the shingles."""
    rng = random.Random(seed)
    return ["".join(rng.choices("abcdefghij", k=6)) for _ in range(count)]


def spelled(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def shingles(text: str) -> set[tuple[str, ...]]:
    found = text.lower().split()
    return {tuple(found[i : i + 5]) for i in range(len(found) - 4)}


def jaccard(a: str, b: str) -> float:
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


def edited(text: str, every: int, seed: int = 0) -> str:
    """Every n-th word replaced: about 5 shingles lost for each."""
    return " ".join(
        f"edit{spelled(seed)}at{spelled(i)}" if i % every == every - 1 else word for i, word in enumerate(text.split())
    )


def test_exact_duplicates_name_the_page_that_stays(tmp_path):
    rows = [
        ("http://a/", 3, "one text"),
        ("http://a/", 2, "another text"),  # the same URL, earlier
        ("http://b/", 1, "one text"),  # the same text, earlier
        ("http://c/", 5, "alone"),
        ("http://c/", 5, "alone"),  # a copy in all
        (None, 4, "nameless"),
        (None, 4, "nameless too"),  # no URL is not the same URL
    ]
    base, exact, _ = run(tmp_path, rows)
    kept = exact.scan().collect()
    assert sorted(kept["text"]) == ["alone", "another text", "nameless", "nameless too", "one text"]
    lost = exact.ledger().collect().sort("row")
    ids = dict(zip(base.scan().collect()["id"].bin.encode("hex"), range(len(rows)), strict=True))
    assert lost["row"].to_list() == [0, 4]
    assert lost["reason"][1] == "same_page"
    assert all(evidence in ids for evidence in lost["evidence"])
    assert set(lost["evidence"]) <= set(kept["id"].bin.encode("hex"))


def test_a_page_is_not_removed_for_one_that_is_itself_removed(tmp_path):
    # b has a's URL and goes; c has b's text, but b is not there to stand for it.
    rows = [("http://a/", 1, "x"), ("http://a/", 2, "y"), ("http://c/", 3, "y")]
    _, exact, _ = run(tmp_path, rows)
    assert exact.scan().collect()["text"].to_list() == ["x", "y"]


@pytest.mark.parametrize(("keep", "stays"), [("earliest", "late no more"), ("longest", None)])
def test_the_keep_rule_is_a_choice(tmp_path, keep, stays):
    text = " ".join(words(1, 300))
    longer = f"{text} and a few words more"
    rows = [("http://long/", 9, longer), ("http://early/", 1, text)]
    _, _, unique = run(tmp_path, rows, keep=keep)
    assert unique.scan().collect()["uri"].to_list() == ["http://early/" if stays else "http://long/"]
    with pytest.raises(ValueError, match="earliest"):
        run(tmp_path / "x", rows, keep="newest")


def test_removed_rows_state_their_true_jaccard_and_none_is_below_the_threshold(tmp_path):
    rows, texts = [], {}
    for k in range(40):
        text = " ".join(words(k, 400))
        for turn, every in enumerate((1_000, 200, 60, 30, 15)):
            uri = f"http://{k}/{turn}"
            texts[uri] = edited(text, every, turn)
            rows.append((uri, 1 + turn, texts[uri]))
    base, _, unique = run(tmp_path, rows)
    uris = dict(base.scan().select("id", "uri").collect().iter_rows())
    lost = unique.ledger().collect()
    assert 70 < lost.height < 110
    for entry in lost.iter_rows(named=True):
        truth = jaccard(texts[uris[entry["id"]]], texts[uris[bytes.fromhex(entry["evidence"])]])
        assert entry["value"] == pytest.approx(truth, abs=1e-12)
        assert truth >= entry["threshold"] == 0.7
    kept = unique.scan().collect()["uri"].to_list()
    alike = [(a, b) for a in kept for b in kept if a < b and a.split("/")[2] == b.split("/")[2]]
    sure = [pair for pair in alike if jaccard(texts[pair[0]], texts[pair[1]]) >= 0.95]
    assert sure == []  # at 0.95 the bands miss one pair in 10^6


@given(order=st.permutations(range(12)), parts=st.integers(1, 5))
@settings(deadline=None, max_examples=12)
def test_neither_order_nor_shards_decide(tmp_path_factory, order, parts):
    texts = [edited(" ".join(words(k // 4, 200)), (500, 90, 40, 20)[k % 4], k) for k in range(12)]
    rows = [(f"http://{k % 10}/", 1 + k % 3, text) for k, text in enumerate(texts)]
    root = tmp_path_factory.mktemp("root")
    reference = run(root / "a", rows)[2].scan().collect()
    shuffled = run(root / "b", [rows[i] for i in order], parts)[2].scan().collect()
    assert sorted(reference["id"]) == sorted(shuffled["id"])


def test_texts_too_short_for_a_shingle_are_compared_whole(tmp_path):
    rows = [
        ("http://a/", 1, "two words"),
        ("http://b/", 2, "Two, words!"),
        ("http://c/", 3, "other words"),
        ("d", 4, ""),
    ]
    _, _, unique = run(tmp_path, rows)
    assert unique.scan().collect()["uri"].to_list() == ["http://a/", "http://c/", "d"]


def test_no_rows_at_all(tmp_path):
    assert run(tmp_path, [])[2].rows == 0
