"""What training reads: mapped and not copied, in an order that is a function, by cursors that refuse other streams."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed import EOD, chain, pack

from gristmill.dataops.dataset import Dataset, InputError, publish
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import ledger
from gristmill.dataops.passes import write_ledger
from gristmill.training.order import draws, rows, shares
from gristmill.training.shards import IGNORED, Shards
from gristmill.training.stream import Cursor, Stream, World


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """96 rows of 64 tokens from a vocabulary of 32."""
    return pack(tmp_path_factory.mktemp("data"), chain(96, 64, 32), seq_len=64, vocab_size=32)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_opening_shards_copies_no_tokens(tmp_path, dtype):
    dataset = pack(tmp_path, chain(7, 512, 32), seq_len=512, vocab_size=32, dtype=dtype)
    before = pa.total_allocated_bytes()
    shards = Shards(dataset)
    assert pa.total_allocated_bytes() == before
    assert (shards.rows, shards.seq_len, shards.eod, shards.vocab_size) == (7, 512, EOD, 32)
    assert [part.tokens.shape for part in shards.parts] == [(2, 512), (2, 512), (2, 512), (1, 512)]
    assert all(part.tokens.dtype == dtype and not part.tokens.flags.owndata for part in shards.parts)
    maps = [
        line.split()[0].split("-")
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.rstrip().endswith(".arrow")
    ]
    for part in shards.parts:
        address = part.tokens.__array_interface__["data"][0]
        assert any(int(low, 16) <= address < int(high, 16) for low, high in maps)
        assert not part.tokens.flags.writeable
    expected = pa.concat_tables(shard.read() for shard in dataset.shards())
    batch = shards.gather(np.arange(7))
    assert batch.tokens.tolist() == expected["tokens"].to_pylist()
    assert batch.positions.tolist() == expected["positions"].to_pylist()
    assert batch.length.tolist() == expected["length"].to_pylist()


def test_shards_that_cannot_be_mapped_are_refused(tmp_path, data):
    compressed = pack(tmp_path, chain(4, 512, 32), seq_len=512, vocab_size=32, compression="zstd")
    with pytest.raises(InputError, match="compressed"):
        Shards(compressed)
    with pytest.raises(InputError, match="kind 'rows'"):
        Shards(dataclasses.replace(data, kind="rows"))
    with pytest.raises(InputError, match="no rows"):
        Shards(pack(tmp_path / "empty", [], seq_len=8, vocab_size=8))


def test_labels_stay_within_a_document(tmp_path):
    row = [[5, 6, EOD], [EOD], [7, EOD]]  # one document of a single token, two tokens of padding
    full = [[1, 2, 3, 4, 5, 6, 7, EOD]]
    shards = Shards(pack(tmp_path, [row, full], seq_len=8, vocab_size=8))
    batch = shards.gather(np.array([0, 1]))
    no = IGNORED
    assert batch.tokens.tolist() == [[5, 6, 0, 0, 7, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert batch.labels.tolist() == [[6, 0, no, no, 0, no, no, no], [2, 3, 4, 5, 6, 7, 0, no]]
    assert batch.length.tolist() == [6, 8]


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path):
    shards = Shards(pack(tmp_path, [[[1, 2]], [[1, 8]]], seq_len=4, vocab_size=8))
    shards.gather(np.array([0]))
    with pytest.raises(InputError, match="token 8, vocab_size is 8"):
        shards.gather(np.array([1]))


SEED = st.integers(0, 2**63 - 1)


@given(n=st.integers(1, 40), batch=st.integers(1, 50), seed=SEED, source=st.integers(0, 5))
def test_every_row_comes_once_per_epoch(n, batch, seed, source):
    numbers = np.array_split(np.arange(3 * n), np.arange(batch, 3 * n, batch))
    stream = np.concatenate([rows(n, seed, source, part) for part in numbers])
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=6), seed=SEED, cut=st.integers(0, 20_000))
def test_sources_have_their_shares_and_any_range_is_that_of_the_whole(weights, seed, cut):
    parts = shares(weights)
    source, number = draws(parts, seed, 0, 20_000)
    for k, part in enumerate(parts):
        assert abs((source == k).sum() - 20_000 * part / sum(parts)) < 0.01 * 20_000 + 10
        assert (number[source == k] == np.arange((source == k).sum())).all()
    later = draws(parts, seed, cut, 20_000)
    assert (later[0] == source[cut:]).all() and (later[1] == number[cut:]).all()
    first, second = draws(parts, seed, 0, cut), draws(parts, seed, cut, 20_000)
    assert (np.concatenate([first[0], second[0]]) == source).all()


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [1, 1e-5], [0.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="weights are"):
        shares(weights)


def test_the_order_is_fixed_for_good():
    assert rows(10, 0, 0, np.arange(10)).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert rows(10, 0, 0, np.arange(10, 20)).tolist() == [5, 3, 7, 8, 2, 4, 1, 0, 6, 9]
    assert rows(10, 1, 0, np.arange(10)).tolist() == [3, 5, 2, 9, 7, 0, 8, 6, 1, 4]
    assert draws(shares([3, 1]), 0, 4090, 4102)[0].tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 0]


def test_a_cursor_gives_the_next_batch(data):
    shards = Shards(data)
    stream = Stream([shards], rows=40, seed=3)
    read = stream.read()
    batches, cursors = zip(*(next(read) for _ in range(6)), strict=True)
    assert [cursor.step for cursor in cursors] == [1, 2, 3, 4, 5, 6]
    for after, cursor in zip(batches[1:], cursors[:-1], strict=True):
        kept = Cursor.read(json.loads(json.dumps(dataclasses.asdict(cursor))))
        again, _ = next(stream.read(kept))
        assert torch.equal(again.tokens, after.tokens)
        assert torch.equal(again.labels, after.labels)
    assert not torch.equal(next(Stream([shards], rows=40, seed=4).read())[0].tokens, batches[0].tokens)


def test_a_resume_of_another_stream_is_refused_and_says_what_differs(tmp_path, data):
    shards, other = Shards(data), Shards(pack(tmp_path, chain(96, 64, 32, seed=1), seq_len=64, vocab_size=32))
    _, cursor = next(Stream([shards], rows=8, seed=3).read())
    for stream, said in [
        (Stream([shards], rows=16, seed=3), "rows 8 there, 16 here"),
        (Stream([shards], rows=8, seed=4), "seed 3 there, 4 here"),
        (Stream([shards], rows=8, seed=3, world=World(0, 2)), "world 1 there, 2 here"),
        (Stream([other], rows=8, seed=3), "digests"),
        (Stream([shards, other], rows=8, seed=3), "parts"),
    ]:
        with pytest.raises(InputError, match=said):
            next(stream.read(cursor))


def test_a_world_reads_together_what_one_process_reads(tmp_path, data):
    other = Shards(pack(tmp_path, chain(20, 64, 32, seed=1), seq_len=64, vocab_size=32))
    sources, settings = [Shards(data), other], {"rows": 12, "seed": 5, "weights": [3, 1]}
    alone = Stream(sources, **settings).read()
    world = [Stream(sources, **settings, world=World(rank, 3)).read() for rank in range(3)]
    drawn = 0
    for _ in range(30):
        whole, _ = next(alone)
        parts = [next(stream)[0] for stream in world]
        assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
        assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
        drawn += int(whole.length.sum())
    epochs = Stream(sources, **settings).epochs(30)
    assert list(epochs.values()) == pytest.approx([360 * 0.75 / 96, 360 * 0.25 / 20])
    assert drawn == 360 * 63  # every row of both holds 63 tokens of documents
    with pytest.raises(InputError, match="divide"):
        Stream(sources, rows=10, seed=0, world=World(0, 4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"tokenizer": "u"}, "tokenizer"), ({"vocab_size": 40}, "vocab_size"), ({"seq_len": 32}, "seq_len")],
)
def test_datasets_that_do_not_fit_together_are_refused(tmp_path, data, changes, said):
    settings = {"seq_len": 64, "vocab_size": 32, **changes}
    other = pack(tmp_path, chain(8, settings["seq_len"], 32), **settings)
    with pytest.raises(InputError, match=f"{said} .*: encode and pack both in one way"):
        Stream([Shards(data), Shards(other)], rows=8, seed=0)


def test_rows_left_out_by_a_view_are_not_trained_on(tmp_path):
    parent = pack(tmp_path, [[[number, EOD]] for number in range(1, 8)], seq_len=4, vocab_size=8)
    building = tmp_path / ".building" / "view"
    (building / "ledger").mkdir(parents=True)
    drops = pl.DataFrame({"row": [0, 3]}, schema={"row": pl.UInt32}).with_columns(id=pl.lit(row_id("x")))
    gone = [ledger(drops, op="takedown", reason="asked"), ledger()]
    manifest = {
        "gristmill": 1, "name": "less", "key": "0" * 64, "digest": "1" * 64, "kind": "view", "ops": [], "rows": 5,
        "inputs": [], "shards": [], "ledger": [write_ledger(building, i, lost) for i, lost in enumerate(gone)],
        "parent": {"name": "packed", "key": parent.key},
    }  # fmt: skip
    shards = Shards(publish(building, tmp_path / "less" / ("0" * 12), manifest))
    assert shards.gather(np.arange(5)).tokens[:, 0].tolist() == [2, 3, 5, 6, 7]
    assert shards.rows == 5
