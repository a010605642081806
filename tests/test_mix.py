"""Mixtures: shares, epochs, order, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.catalogue import Index
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.identity import row_id
from gristmill.dataops.lineage import trace
from gristmill.dataops.mix.holdout import holdout
from gristmill.dataops.mix.mixture import epochs, mix
from gristmill.dataops.mix.order import permuted
from gristmill.dataops.mix.weights import Source, by_temperature, drawn
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.pack import best_fit
from gristmill.dataops.store import Store
from gristmill.dataops.tokens import token_facts
from gristmill.training.shards import Shards

SEQ = 8


def _plan(inputs, building, workers, *, name, documents, tokenizer, vocab_size, eod, parts_context):
    cuts = [documents * i // parts_context for i in range(parts_context + 1)]
    return [toys.Task((a, b), b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@op("text.encode", version=99, kind="source", plan=_plan)
def encoded(
    task, *, name: str, documents: int, tokenizer: str = "t" * 64, vocab_size: int = 1000, eod: int = 0,
    parts_context: int = 1,
):  # fmt: skip
    """Documents of exactly one row, which say who they are."""
    rows = [
        {"id": row_id(name, str(n)), "tokens": [*[n % 999 + 1] * (SEQ - 1), eod], "n_tokens": SEQ} for n in range(*task)
    ]
    schema = {"id": pl.Binary, "tokens": pl.List(pl.UInt16), "n_tokens": pl.UInt32}
    yield Split(pl.DataFrame(rows, schema=schema), ledger())


# The name is the real op's, whose parameters the mixture reads; the real one must stay the registered one.
from gristmill.dataops.op import REGISTRY  # noqa: E402
from gristmill.dataops.tokenizer import encode as _real  # noqa: E402

REGISTRY["text.encode"] = _real.encode_text


def packed(store: Store, name: str, rows: int, *, seq_len: int = SEQ, **params) -> Dataset:
    made = store.build(f"encoded-{name}", encoded(name=name, documents=rows, **params), [])
    fit = best_fit(seq_len=seq_len, eod=0, vocab_size=1000, tokenizer="t", window_tokens=SEQ * 16)
    return store.build(name, fit, [made])


def documents_of(mixture: Dataset) -> list[tuple[int, bytes, int, int]]:
    frame = mixture.scan().select("source", "segments", "epoch", "stage").collect()
    return [(s, seg[0]["id"], e, g) for s, seg, e, g in frame.iter_rows()]


@given(n=st.integers(1, 5000), seed=st.integers(0, 2**70))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_one(n, seed):
    out = permuted(np.arange(n), n, seed)
    assert np.array_equal(np.sort(out), np.arange(n))
    some = np.arange(n)[:: max(1, n // 7)]
    assert np.array_equal(permuted(some, n, seed), out[some])  # each place is a function of itself alone


def test_a_permutation_leaves_no_order():
    out = permuted(np.arange(100_000), 100_000, 1)
    assert abs(np.corrcoef(out, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(out[1:], out[:-1])[0, 1]) < 0.02
    assert not np.array_equal(out, permuted(np.arange(100_000), 100_000, 2))


@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    weights=st.lists(st.integers(0, 9), min_size=4, max_size=4),
    budget=st.integers(50, 3000),
)
@settings(max_examples=80, deadline=None)
def test_weights_are_shares_of_the_tokens_within_a_row(sizes, weights, budget):
    sources = [Source(f"s{i}", rows, rows * SEQ) for i, rows in enumerate(sizes)]
    weights = dict(zip((source.name for source in sources), weights, strict=False))
    if not sum(weights.values()):
        with pytest.raises(InputError, match="sum to zero"):
            drawn(sources, [{"tokens": budget, "weights": weights}], 1e9)
        return
    plan = drawn(sources, [{"tokens": budget, "weights": weights}], 1e9)
    got = {draw.source: draw.rows * SEQ for draw in plan[0]}
    for i, source in enumerate(sources):
        asked = budget * weights[source.name] / sum(weights.values())
        assert abs(got.get(i, 0) - asked) <= SEQ


def test_every_epoch_is_the_whole_source_in_another_order(tmp_path):
    store = Store(tmp_path)
    sources = {"small": packed(store, "small", 40), "large": packed(store, "large", 200)}
    mixture = mix(store, "mixture", sources, [{"tokens": 200 * SEQ, "weights": {"small": 0.5, "large": 0.5}}])
    assert Shards(mixture).tokenizer == token_facts(sources["small"]).tokenizer  # it can be trained on as it is
    told = {item["source"]: item for item in epochs(mixture)}
    assert told["small"]["epochs"] == 2.5 and told["large"]["epochs"] == 0.5
    assert told["small"]["tokens"] == 100 * SEQ and told["small"]["share"] == 0.5
    drawn_from = documents_of(mixture)
    for epoch, size in ((0, 40), (1, 40), (2, 20)):
        ids = [id for source, id, turn, _ in drawn_from if source == 0 and turn == epoch]
        assert len(ids) == len(set(ids)) == size
    first, second = ([id for s, id, turn, _ in drawn_from if s == 0 and turn == epoch] for epoch in (0, 1))
    assert set(first) == set(second) and first != second
    # Both sources are spread over the whole, not one behind the other.
    assert 20 < sum(source == 0 for source, *_ in drawn_from[:100]) < 80
    lost = mixture.ledger().collect()
    assert lost.select("reason", "lost", "unit").rows() == [("not_drawn", 100, "rows")]
    assert mixture.scan().select("id").collect()["id"].n_unique() == mixture.rows == 200


def test_shards_and_workers_do_not_show(tmp_path):
    stages = [{"tokens": 90 * SEQ, "weights": {"a": 2, "b": 1}}]
    digests = set()
    for parts, workers in ((1, 0), (3, 2)):
        store = Store(tmp_path / str(parts))
        if workers:
            store.executor = LocalPool(workers)
        sources = {name: packed(store, name, 50, parts_context=parts) for name in ("a", "b")}
        digests.add(mix(store, "mixture", sources, stages).digest)
        if workers:
            store.executor.close()
    assert len(digests) == 1


def test_the_seed_decides_the_order(tmp_path):
    store = Store(tmp_path)
    sources = {"a": packed(store, "a", 50)}
    stages = [{"tokens": None, "weights": {"a": 1}}]
    one, two = (documents_of(mix(store, "mixture", sources, stages, seed=seed)) for seed in (1, 2))
    assert one != two and Counter(one) == Counter(two)


def test_a_curriculum_goes_on_where_the_stage_before_stopped(tmp_path):
    store = Store(tmp_path)
    sources = {name: packed(store, name, 60) for name in ("web", "code")}
    stages = [
        {"tokens": 40 * SEQ, "weights": {"web": 0.75, "code": 0.25}},
        {"tokens": 80 * SEQ, "weights": {"web": 0.25, "code": 0.75}},
    ]
    mixture = mix(store, "mixture", sources, stages)
    rows = documents_of(mixture)
    assert [stage for *_, stage in rows] == [0] * 40 + [1] * 80
    web = [(id, turn) for source, id, turn, _ in rows if source == 0]
    assert len(web) == 50 and len(set(web)) == 50 and {turn for _, turn in web} == {0}
    code = Counter(id for source, id, _, _ in rows if source == 1)
    assert len(code) == 60 and sum(code.values()) == 70  # the second time only when all were used


def test_temperature_raises_the_small():
    sources = [Source("small", 1, 100), Source("large", 100, 10_000)]
    assert by_temperature(sources, 1) == {"small": 100, "large": 10_000}
    assert by_temperature(sources, 2) == {"small": 10, "large": 100}
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            by_temperature(sources, bad)


def test_bad_mixtures_are_refused(tmp_path):
    store = Store(tmp_path)
    a, b = packed(store, "a", 10), packed(store, "b", 10)
    long = packed(store, "long", 10, seq_len=16)
    other = packed(store, "other", 10, tokenizer="u" * 64)

    def made(weights, sources=None, tokens=8 * SEQ, **params):
        return mix(
            store,
            "m",
            {"a": a, "b": b} if sources is None else sources,
            [{"tokens": tokens, "weights": weights}],
            **params,
        )

    for weights, message in (
        ({"a": 0, "b": 0}, "sum to zero"),
        ({"a": 1}, "no weight for b"),
        ({"a": 1, "b": 1, "c": 1}, "for c, which is no source; there are: a, b"),
        ({"a": 1, "b": -1}, "the weight of b is -1"),
        ({"a": 1, "b": float("nan")}, "the weight of b is nan"),
        ({"a": 1, "b": "much"}, "the weight of b is 'much'"),
    ):
        with pytest.raises(InputError, match=message):
            made(weights)
    with pytest.raises(InputError, match="used 5.00 times"):
        made({"a": 1, "b": 0}, tokens=50 * SEQ)
    assert made({"a": 1, "b": 0}, tokens=50 * SEQ, max_epochs=5).rows == 50
    with pytest.raises(InputError, match="budget of 0"):
        made({"a": 1, "b": 0}, tokens=0)
    with pytest.raises(InputError, match="less than half a row"):
        made({"a": 1, "b": 1}, tokens=2)
    with pytest.raises(InputError, match="long has rows of 16 tokens, a of 8"):
        made({"a": 1, "long": 1}, {"a": a, "long": long})
    with pytest.raises(InputError, match="not of one tokenizer"):
        made({"a": 1, "other": 1}, {"a": a, "other": other})
    with pytest.raises(InputError, match="no sources"):
        made({}, {})


def test_what_is_held_out_is_in_no_mixture(own):
    """On the real recipe: carve, pack both sides, mix; and a mixed row goes back to its page."""
    root, datasets = own
    store = Store(root)
    train, held = holdout(store, datasets["encoded"], fraction=0.3, by="page")
    assert 0 < held.rows < train.rows and train.rows + held.rows == datasets["encoded"].rows
    ids = [set(side.scan().select("id").collect()["id"]) for side in (train, held)]
    assert ids[0].isdisjoint(ids[1])
    assert held.ledger().collect()["reason"].unique().to_list() == ["not_held_out"]
    params = datasets["packed"].manifest["ops"][0]["params"]
    kept = store.build("packed-train", best_fit(**params), [train])
    stages = [{"tokens": None, "weights": {"web": 1}}]
    mixture = mix(store, "mixture", {"web": kept}, stages, never=[held])
    with pytest.raises(InputError, match=f"web holds {held.rows} documents of heldout"):
        mix(store, "mixture", {"web": datasets["packed"]}, stages, never=[held])
    story = trace(Index.open(store), mixture, 0, 3)
    assert story["record"]["same_id"] and bytes.fromhex(story["id"]) in ids[0]


def test_held_out_groups_stay_together(own):
    root, datasets = own
    train, held = holdout(Store(root), datasets["pages"], fraction=0.4, by="host")
    hosts = [
        set(side.scan().select(pl.col("uri").str.extract("://([^/]+)").alias("host")).collect()["host"].drop_nulls())
        for side in (train, held)
    ]
    assert hosts[0].isdisjoint(hosts[1]) and train.rows + held.rows == datasets["pages"].rows
    for fraction in (0, 1, -1, float("nan")):
        with pytest.raises(InputError, match="outside 0 to 1"):
            holdout(Store(root), datasets["pages"], fraction=fraction)


def test_the_command_reads_a_curriculum(own, tmp_path):
    root, _ = own
    recipe = tmp_path / "curriculum.toml"
    recipe.write_text(
        '[sources]\nweb = "packed"\n[[stages]]\ntokens = 2000\ntemperature = 2\n'
        "[[stages]]\ntokens = 1000\nweights = {web = 1}\n"
    )
    command = [str(Path(sys.executable).with_name("gristmill")), "mix", str(recipe), "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "in 2 stages" in done.stdout and "100.0%" in done.stdout
    for text, message in (
        ("sources = 1", "of the wrong kind"),
        ('colour = "red"', "no entry 'colour'"),
        ("[sources]\na = 'packed'\n[[stages]]\ntokens = 5\n", "needs either weights or a temperature"),
        ("= =", "Invalid"),
    ):
        recipe.write_text(text)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
