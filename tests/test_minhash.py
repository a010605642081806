"""Near-duplicates: signatures estimate Jaccard without bias, bands find what theory says, nothing goes unverified."""

from __future__ import annotations

import lzma
import tracemalloc
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real

from gristmill.dataops.text.minhash import NO_KEY, band_keys, jaccard_pairs, resolve, signatures
from gristmill.dataops.text.shingles import Shingles, join, shingle, shingle_words

BANDS, ROWS = 14, 8
PERMS = BANDS * ROWS


def sets_of(*sets: np.ndarray) -> Shingles:
    """Shingles straight from sets of hashes."""
    arrays = [np.sort(np.asarray(s, dtype=np.uint64)) for s in sets]
    arrays = [a[np.concatenate([[True], a[1:] != a[:-1]])[: len(a)]] for a in arrays]
    return Shingles(np.cumsum([0] + [len(a) for a in arrays]), np.concatenate([*arrays, np.empty(0, np.uint64)]))


def pairs_at(similarity: float, size: int, count: int, rng: np.random.Generator) -> tuple[Shingles, float]:
    """Documents 2i and 2i + 1 are random sets of `size` with the same Jaccard similarity, which is returned too."""
    shared = round(2 * size * similarity / (1 + similarity))
    sets = []
    for _ in range(count):
        pool = rng.integers(0, 2**64, 2 * size - shared, dtype=np.uint64)
        sets += [pool[:size], pool[size - shared :]]
    return sets_of(*sets), shared / (2 * size - shared)


def candidate_probability(similarity: np.ndarray | float) -> np.ndarray:
    return 1 - (1 - np.asarray(similarity) ** ROWS) ** BANDS


def document(shingles: Shingles, i: int) -> set[int]:
    return set(shingles.hashes[shingles.offsets[i] : shingles.offsets[i + 1]].tolist())


# --- shingles


@given(st.lists(st.lists(st.integers(0, 3), max_size=9), max_size=6), st.integers(1, 6))
def test_shingles_are_the_distinct_word_n_grams_of_each_document(documents, ngram):
    vocabulary = np.random.default_rng(0).integers(0, 2**64, 4, dtype=np.uint64)
    words = np.array([word for document in documents for word in document], dtype=np.int64)
    found = shingle_words(np.cumsum([0] + [len(d) for d in documents]), vocabulary[words], ngram)

    assert len(found) == len(documents)
    meaning: dict[int, tuple[int, ...]] = {}
    for i, words_of in enumerate(documents):
        last = max(len(words_of) - ngram, 0)
        grams = {tuple(words_of[k : k + ngram]) for k in range(last + 1)} - {()}
        hashes = found.hashes[found.offsets[i] : found.offsets[i + 1]]
        assert (hashes[1:] > hashes[:-1]).all()
        assert len(hashes) == len(grams)
        alone = shingle_words(np.array([0, len(words_of)]), vocabulary[np.array(words_of, dtype=np.int64)], ngram)
        assert alone.hashes.tolist() == hashes.tolist()
        for gram in grams:  # one hash per n-gram, whichever document it stands in
            (value,) = shingle_words(np.array([0, len(gram)]), vocabulary[np.array(gram)], ngram).hashes.tolist()
            assert value in hashes
            assert meaning.setdefault(value, gram) == gram


def test_short_texts_have_one_shingle_and_empty_ones_none():
    found = shingle(
        pl.Series(["Terms of service", "", "terms OF service!", "service of terms", "one two three four five six"])
    )
    assert np.diff(found.offsets).tolist() == [1, 0, 1, 1, 2]
    assert jaccard_pairs(found, np.array([[0, 2], [0, 3], [1, 1], [0, 1]])).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_batch_is_the_documents_one_by_one():
    """Long enough (3 MB) to be worked on in several runs."""
    words = [f"word{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(26)]
    picks = np.random.default_rng(0).integers(0, len(words), (300, 1500))
    texts = pl.Series([" ".join(words[k] for k in row) for row in picks.tolist()] + ["", "end"])
    whole = shingle(texts)
    alone = join([shingle(texts.slice(i, 1)) for i in range(len(texts))])
    assert whole.offsets.tolist() == alone.offsets.tolist()
    assert (whole.hashes == alone.hashes).all()
    assert len(shingle(texts.clear())) == 0


def test_a_shingle_needs_a_word():
    with pytest.raises(ValueError, match="ngram=0"):
        shingle(pl.Series(["a b c"]), ngram=0)


# --- signatures


def test_signatures_are_stable():
    """Golden values: a change here changes every published signature and asks for a new op version."""
    found = signatures(sets_of([1, 2, 3], [], [2**64 - 1]), bands=1, rows=3, seed=1)
    assert found.tolist() == [
        [3786316549, 561424665, 504353005],
        [4294967295, 4294967295, 4294967295],
        [3892173019, 290187290, 3803940856],
    ]


@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 30_000])
def test_the_signature_of_a_union_is_the_minimum_of_the_signatures(size):
    pool = np.random.default_rng(size).integers(0, 2**64, size, dtype=np.uint64)
    parts = np.array_split(pool, 7)
    together = signatures(sets_of(pool, [], *parts, pool))
    assert (together[0] == signatures(sets_of(pool))[0]).all()
    assert (together[0] == together[-1]).all()
    assert (together[1] == 2**32 - 1).all()
    assert (together[0] == together[2:-1].min(axis=0)).all()


def test_a_seed_gives_other_permutations():
    one = sets_of(np.arange(50))
    assert not (signatures(one, seed=1) == signatures(one, seed=2)).any()


def test_memory_does_not_grow_with_the_length_of_a_document():
    huge = sets_of(np.random.default_rng(0).integers(0, 2**64, 1_000_000, dtype=np.uint64))
    tracemalloc.start()
    signatures(huge)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000  # all products at once would be 448 MB


@pytest.mark.parametrize(("size", "count"), [(100, 1000), (10_000, 60), (1_000_000, 1)])
def test_the_estimate_is_unbiased_and_as_sharp_as_theory_for_any_size_of_set(size, count):
    rng, errors = np.random.default_rng(size), []
    for seed in range(max(1, 6 // count)):
        sets, true = pairs_at(0.5, size, count, rng)
        found = signatures(sets, seed=seed)
        errors += ((found[0::2] == found[1::2]).mean(axis=1) - true).tolist()
    deviation = np.sqrt(true * (1 - true) / PERMS)
    assert abs(np.mean(errors)) < 3.5 * deviation / np.sqrt(len(errors))
    if len(errors) > 50:
        assert np.std(errors) == pytest.approx(deviation, rel=5 / np.sqrt(2 * len(errors)))


@pytest.mark.parametrize("step", [1, 3, 2**20, 2**32, 2**56])
def test_counters_are_as_good_as_random_numbers(step):
    """An affine map alone would keep the pattern of its input and be far off."""
    base = np.arange(240, dtype=np.uint64) * np.uint64(step)
    found = np.concatenate([signatures(sets_of(base[:180], base[60:]), seed=seed) for seed in range(60)])
    estimate = (found[0::2] == found[1::2]).mean()
    assert estimate == pytest.approx(0.5, abs=3.5 * np.sqrt(0.25 / PERMS / 60))


def test_the_error_is_no_larger_than_that_of_datasketch():
    rng, ours, theirs = np.random.default_rng(7), [], []
    for similarity in (0.3, 0.5, 0.7, 0.9):
        sets, true = pairs_at(similarity, 150, 300, rng)
        found = signatures(sets)
        ours += np.abs((found[0::2] == found[1::2]).mean(axis=1) - true).tolist()
        sketches = datasketch_of(sets)
        theirs += [abs(a.jaccard(b) - true) for a, b in zip(sketches[0::2], sketches[1::2], strict=True)]
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def datasketch_of(sets: Shingles) -> list[MinHash]:
    """datasketch's signatures of the upper 32 bits of the same random hashes."""
    out = []
    for i in range(len(sets)):
        sketch = MinHash(num_perm=PERMS, hashfunc=int)
        sketch.update_batch((sets.hashes[sets.offsets[i] : sets.offsets[i + 1]] >> np.uint64(32)).tolist())
        out.append(sketch)
    return out


# --- bands


def test_keys_agree_exactly_where_bands_agree():
    rng = np.random.default_rng(0)
    signature = rng.integers(0, 2, (500, 4 * 3)).astype(np.uint32)
    keys = band_keys(signature, 4, 3)
    bands = signature.reshape(500, 4, 3)
    for band in range(4):
        same = (bands[:, None, band] == bands[None, :, band]).all(axis=2)
        assert ((keys[:, None, band] == keys[None, :, band]) == same).all()
    alike_within = band_keys(np.full((1, 12), 5, dtype=np.uint32), 4, 3)
    assert len(set(alike_within[0].tolist())) == 4  # salted: no document meets itself in another band


def test_documents_without_shingles_are_candidates_of_nothing():
    keys = band_keys(signatures(sets_of([], [1], [])), BANDS, ROWS)
    assert (keys[[0, 2]] == NO_KEY).all()
    assert (keys[1] != NO_KEY).all()
    assert resolve(keys, np.arange(3), lambda pairs: np.ones(len(pairs)), 0.5).is_empty()


def test_signatures_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="112 minima do not make 9 bands of 13 rows"):
        band_keys(signatures(sets_of([1])), 9, 13)
    with pytest.raises(ValueError, match="rows=0"):
        signatures(sets_of([1]), bands=2, rows=0)


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_candidates_are_found_as_often_as_theory_says(similarity):
    count = 1000
    sets, true = pairs_at(similarity, 150, count, np.random.default_rng(round(100 * similarity)))
    keys = band_keys(signatures(sets), BANDS, ROWS)
    recall = (keys[0::2] == keys[1::2]).any(axis=1).mean()
    expected = candidate_probability(true)
    assert recall == pytest.approx(expected, abs=3.5 * np.sqrt(expected * (1 - expected) / count) + 2 / count)


@pytest.mark.parametrize("similarity", [0.6, 0.75, 0.9])
def test_candidates_are_found_as_often_as_by_datasketch(similarity):
    count = 300
    sets, _ = pairs_at(similarity, 150, count, np.random.default_rng(3))
    keys = band_keys(signatures(sets), BANDS, ROWS)
    ours = (keys[0::2] == keys[1::2]).any(axis=1)
    sketches = datasketch_of(sets)
    index = MinHashLSH(num_perm=PERMS, params=(BANDS, ROWS))
    for i, sketch in enumerate(sketches[0::2]):
        index.insert(i, sketch)
    theirs = np.array([i in index.query(sketch) for i, sketch in enumerate(sketches[1::2])])
    spread = np.sqrt(ours.mean() * (1 - ours.mean()) / count + theirs.mean() * (1 - theirs.mean()) / count)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=3.5 * spread + 2 / count)


# --- true similarity


@given(st.lists(st.sets(st.integers(0, 12)), min_size=1, max_size=5), st.lists(st.sets(st.integers(0, 12)), max_size=5))
def test_jaccard_is_that_of_the_sets(left, right):
    sets, others = sets_of(*map(list, left)), sets_of(*map(list, right))

    def expected(a: set[int], b: set[int]) -> float:
        return len(a & b) / len(a | b) if a | b else 0.0

    within = [(i, j) for i in range(len(left)) for j in range(len(left))]
    assert jaccard_pairs(sets, np.array(within)).tolist() == [expected(left[i], left[j]) for i, j in within]
    across = [(i, j) for i in range(len(left)) for j in range(len(right))]
    found = jaccard_pairs(sets, np.array(across, dtype=np.int64), others)
    assert found.tolist() == [expected(left[i], right[j]) for i, j in across]


# --- who goes


def one_by_one(keys: np.ndarray, rank: np.ndarray, similarity: Callable[[int, int], float], threshold: float) -> list:
    """The rule, said plainly: rows in order of rank, each against all kept rows that share a band with it."""

    def matches(row: int, kept: list[int]) -> list[tuple[float, int, int]]:
        near = [k for k in kept if ((keys[row] == keys[k]) & (keys[row] != NO_KEY)).any()]
        scores = [(similarity(row, k), k) for k in near]
        return [(-score, int(rank[k]), k) for score, k in scores if score >= threshold]

    kept: list[int] = []
    gone = []
    for row in np.argsort(rank).tolist():
        if matches(row, kept):
            gone.append(row)
        else:
            kept.append(row)
    best = {row: min(matches(row, kept)) for row in sorted(gone)}
    return [(row, k, -score) for row, (score, _, k) in best.items()]


@pytest.mark.parametrize("seed", range(8))
def test_removal_is_the_rule_applied_row_by_row(seed):
    """Random buckets and similarities, with ties, rows in no bucket, and no pair asked twice."""
    rng = np.random.default_rng(seed)
    for _ in range(60):
        n, bands, threshold = int(rng.integers(0, 40)), int(rng.integers(1, 5)), float(rng.choice([0.3, 0.5, 0.7, 0.9]))
        keys = rng.integers(0, rng.integers(2, 30), (n, bands)).astype(np.uint64)
        rank = rng.permutation(n)
        similarity = rng.integers(0, 11, (n, n)) / 10
        similarity = np.maximum(similarity, similarity.T)
        asked: list[tuple[int, ...]] = []

        def jaccard(pairs: np.ndarray, similarity=similarity, asked=asked) -> np.ndarray:
            asked += [tuple(sorted(pair)) for pair in pairs.tolist()]
            return similarity[pairs[:, 0], pairs[:, 1]]

        found = resolve(keys, rank, jaccard, threshold)
        assert found.rows() == one_by_one(keys, rank, lambda a, b, s=similarity: float(s[a, b]), threshold)
        assert len(set(asked)) == len(asked)
    assert found.schema == {"row": pl.UInt32, "kept": pl.UInt32, "jaccard": pl.Float64}


def clusters(rng: np.random.Generator, count: int) -> Shingles:
    """Families of sets, each member a few edits away from another member, so that similarities fade along chains."""
    sets: list[np.ndarray] = []
    while len(sets) < count:
        family = [rng.integers(0, 2**64, rng.integers(1, 60), dtype=np.uint64)]
        for _ in range(int(rng.integers(0, 8))):
            member = family[rng.integers(len(family))].copy()
            edits = rng.integers(0, len(member) // 5 + 1)
            member[rng.integers(0, len(member), edits)] = rng.integers(0, 2**64, edits, dtype=np.uint64)
            family.append(member)
        sets += family
    return sets_of(*sets[:count])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_from_sets_to_removals_whatever_the_order_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    sets = clusters(rng, 80)
    rank = rng.permutation(len(sets))

    def run(rows: np.ndarray) -> list[tuple[int, int, float]]:
        shuffled = sets_of(*(sets.hashes[sets.offsets[i] : sets.offsets[i + 1]] for i in rows))
        keys = band_keys(signatures(shuffled), BANDS, ROWS)
        found = resolve(keys, rank[rows], lambda pairs: jaccard_pairs(shuffled, pairs), 0.7)
        return sorted((int(rows[row]), int(rows[kept]), score) for row, kept, score in found.rows())

    def similarity(i: int, j: int) -> float:
        return len(document(sets, i) & document(sets, j)) / len(document(sets, i) | document(sets, j))

    found = run(np.arange(len(sets)))
    assert found == run(rng.permutation(len(sets)))
    keys = band_keys(signatures(sets), BANDS, ROWS)
    assert found == one_by_one(keys, rank, similarity, 0.7)


def test_a_chain_does_not_reach_past_a_removed_row():
    """A ~ B ~ C, but A and C are not alike: with A first C stays, with B first both others go."""
    alike = {frozenset((0, 1)): 0.8, frozenset((1, 2)): 0.9, frozenset((0, 2)): 0.6}
    keys = np.full((3, 2), 9, dtype=np.uint64)

    def jaccard(pairs: np.ndarray) -> np.ndarray:
        return np.array([alike[frozenset(pair)] for pair in pairs.tolist()])

    # B is removed because of A, yet named with C: of the rows that stay it is the more alike.
    assert resolve(keys, np.array([0, 1, 2]), jaccard, 0.7).rows() == [(1, 2, 0.9)]
    assert resolve(keys, np.array([1, 0, 2]), jaccard, 0.7).rows() == [(0, 1, 0.8), (2, 1, 0.9)]
    assert resolve(keys, np.array([0, 1, 2]), jaccard, 0.6).rows() == [(1, 0, 0.8), (2, 0, 0.6)]
    assert resolve(keys, np.array([0, 1, 2]), jaccard, 0.95).is_empty()


def test_a_threshold_is_met_by_equal_similarity():
    sets = sets_of(np.arange(10), np.arange(7))
    found = resolve(np.ones((2, 1), np.uint64), np.arange(2), lambda pairs: jaccard_pairs(sets, pairs), 0.7)
    assert found.rows() == [(1, 0, 0.7)]


def test_identical_documents_cost_one_comparison_each():
    n = 50_000
    one = np.sort(np.random.default_rng(0).integers(0, 2**64, 100, dtype=np.uint64))
    sets = Shingles(np.arange(n + 1) * len(one), np.tile(one, n))
    keys = band_keys(signatures(sets), BANDS, ROWS)
    rank = np.random.default_rng(1).permutation(n)
    compared = []

    def jaccard(pairs: np.ndarray) -> np.ndarray:
        compared.append(len(pairs))
        return jaccard_pairs(sets, pairs)

    found = resolve(keys, rank, jaccard, 0.7)
    assert sum(compared) == found.height == n - 1
    assert found["kept"].unique().to_list() == [int(np.argmin(rank))]
    assert found["jaccard"].min() == 1.0


@pytest.mark.parametrize("copies", [1, 2])
def test_a_bucket_of_unlike_rows_is_compared_in_bounded_memory(copies):
    """2,000 families share one band without being alike; with copies, every removed row has 1,999 kept rows to ask."""
    family = np.arange(2000 * copies) // copies
    keys = np.arange(1, 3 * len(family) + 1, dtype=np.uint64).reshape(-1, 3)
    keys[:, 0] = 10**9
    keys[:, 1] = 10**10 + family
    runs = []

    def jaccard(pairs: np.ndarray) -> np.ndarray:
        runs.append(len(pairs))
        return (family[pairs[:, 0]] == family[pairs[:, 1]]).astype(float)

    tracemalloc.start()
    found = resolve(keys, np.random.default_rng(0).permutation(len(family)), jaccard, 0.7)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.height == 2000 * (copies - 1)
    assert (family[found["row"].to_numpy()] == family[found["kept"].to_numpy()]).all()
    assert sum(runs) == 1999 * 1000 + (copies - 1) * 2000 * 2000  # kept pairs once, removed rows with all kept ones
    assert max(runs) <= 2**16
    assert peak < 16_000_000  # the pairs alone would be 32 MB, 96 MB with copies


def test_ranks_must_be_a_permutation():
    keys = np.ones((3, 1), dtype=np.uint64)
    for rank in ([0, 1, 1], [1, 2, 3], [0, 1]):
        with pytest.raises(ValueError, match="each of 0 .. 2 once"):
            resolve(keys, np.array(rank), lambda pairs: np.ones(len(pairs)), 0.5)


# --- real near-duplicates: the documentation of two releases of one project


@pytest.fixture(scope="module")
def releases() -> tuple[Shingles, np.ndarray]:
    """Shingles of 669 pages, and the pairs of pages that the set lists as 0.3 alike or more."""
    pages = pl.read_ndjson(lzma.decompress(real("neardup/llvm14-vs-16-docs.jsonl.xz").read_bytes()))
    gold = pl.read_csv(lzma.decompress(real("neardup/llvm14-vs-16-pairs.tsv.xz").read_bytes()), separator="\t")
    at = {name: i for i, name in enumerate(pages["id"])}
    pairs = np.array([[at[a], at[b]] for a, b in zip(gold["a"], gold["b"], strict=True)])
    return shingle(pages["text"]), pairs


def test_recall_on_real_pages_is_that_of_theory(releases):
    sets, pairs = releases
    true = jaccard_pairs(sets, pairs)
    expected = candidate_probability(true)
    seeds = 6
    found = np.zeros((seeds, len(pairs)))
    for seed in range(seeds):
        keys = band_keys(signatures(sets, seed=seed), BANDS, ROWS)
        found[seed] = (keys[pairs[:, 0]] == keys[pairs[:, 1]]).any(axis=1)
    for low in (0.6, 0.7, 0.8, 0.9):
        level = (true >= low) & (true < low + 0.1)
        assert level.sum() > 50
        recall = found[:, level].mean(axis=1)
        # Pages of one family miss together, so the error is taken from the seeds and not from the count of pairs.
        assert recall.mean() > expected[level].mean() - 3.5 * recall.std() / np.sqrt(seeds) - 0.01
    assert found[:, true == 1].all()


def test_nothing_below_the_threshold_goes_from_real_pages(releases):
    sets, _ = releases
    keys = band_keys(signatures(sets), BANDS, ROWS)
    found = resolve(keys, np.arange(len(sets)), lambda pairs: jaccard_pairs(sets, pairs), 0.7)
    assert found.height > 200
    for row, kept, score in found.rows():
        one, other = document(sets, row), document(sets, kept)
        assert score == len(one & other) / len(one | other) >= 0.7
    stays = np.setdiff1d(np.arange(len(sets)), found["row"].to_numpy())
    assert set(found["kept"].to_list()) <= set(stays.tolist())
    share = (keys[stays][:, None] == keys[stays][None]) & (keys[stays][:, None] != NO_KEY)
    left, right = np.nonzero(np.triu(share.any(axis=2), 1))
    assert (jaccard_pairs(sets, np.stack([stays[left], stays[right]], axis=1)) < 0.7).all()
