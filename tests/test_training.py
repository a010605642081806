"""Training: what is mapped and not copied, which rows a step sees, what a model may look at, and what is published."""

from __future__ import annotations

import dataclasses
import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import Dataset, InputError, publish
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.identity import Fingerprint, recipe_key, row_id
from gristmill.dataops.op import ledger
from gristmill.dataops.passes import RowWriter, write_ledger
from gristmill.training.checkpoint import load_model
from gristmill.training.model import build, llama, logits, masked_cross_entropy
from gristmill.training.order import draws, rows, shares
from gristmill.training.pretrain import PretrainSpec, main, pretrain, schedule
from gristmill.training.shards import IGNORED, Shards
from gristmill.training.stream import Cursor, Stream, World

SEGMENTS = pa.list_(pa.struct([("id", pa.binary(16)), ("start", pa.uint32()), ("length", pa.uint32())]))
EOD = 0


def pack(
    root: Path,
    rows: list[list[list[int]]],
    *,
    seq_len: int,
    vocab_size: int,
    dtype=np.uint16,
    compression=None,
    tokenizer="t",
):
    """Publish rows of documents (lists of tokens) as a packed dataset: two shards, record batches of two rows."""
    columns: dict[str, list] = {name: [] for name in ("id", "tokens", "positions", "segments", "length")}
    for number, documents in enumerate(rows):
        tokens = [token for document in documents for token in document]
        positions = [place for document in documents for place in range(len(document))]
        padding = seq_len - len(tokens)
        columns["id"].append(row_id(str(number)))
        columns["tokens"].append(tokens + [EOD] * padding)
        columns["positions"].append(positions + list(range(padding)))
        columns["segments"].append([{"id": row_id("d"), "start": 0, "length": len(d)} for d in documents])
        columns["length"].append(len(tokens))
    types = {"tokens": pa.list_(pa.from_numpy_dtype(dtype), seq_len), "id": pa.binary(16), "segments": SEGMENTS}
    types |= {"positions": types["tokens"], "length": pa.uint32()}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    building = root / ".building" / "packed"
    (building / "shards").mkdir(parents=True)
    half = -(-len(rows) // 2)
    parts = []
    for index, piece in enumerate((table.slice(0, half), table.slice(half))):
        writer = RowWriter(building, index, compression)
        writer.write(piece.slice(0, 0))
        for start in range(0, piece.num_rows, 2):
            writer.write(piece.slice(start, 2))
        parts.append(writer.close())
    ops = [
        {
            "name": "pack",
            "version": 1,
            "params": {"seq_len": seq_len, "eod": EOD, "vocab_size": vocab_size, "tokenizer": tokenizer},
        }
    ]
    key = recipe_key(ops, [])
    total = sum((Fingerprint(part["rows"], tuple(part["lanes"])) for part in parts), Fingerprint())
    manifest = {
        "gristmill": 1, "name": "packed", "key": key, "kind": "tokens", "ops": ops, "inputs": [], "rows": total.rows,
        "shards": [{**part["shard"], "hashes": part["hashes"]} for part in parts], "ledger": [],
        "schema": parts[0]["schema"], "digest": total.digest(parts[0]["schema"]),
    }  # fmt: skip
    return publish(building, root / "packed" / key[:12], manifest)


def chain(rows: int, seq_len: int, vocab_size: int, seed: int = 0) -> list[list[list[int]]]:
    """Documents in which a token settles the next one nine times out of ten, while all tokens are equally frequent."""
    rng = np.random.default_rng(seed)
    follows = rng.permutation(vocab_size)
    out = []
    for _ in range(rows):
        tokens = [int(rng.integers(vocab_size))]
        while len(tokens) < seq_len - 1:
            tokens.append(int(follows[tokens[-1]] if rng.random() < 0.9 else rng.integers(vocab_size)))
        cut = int(rng.integers(1, seq_len - 2))
        out.append([tokens[:cut], tokens[cut:]])
    return out


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where it has to wait for its core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    """96 rows of 64 tokens from a vocabulary of 32."""
    return pack(tmp_path_factory.mktemp("data"), chain(96, 64, 32), seq_len=64, vocab_size=32)


def write_spec(path: Path, dataset: Dataset, **changes) -> Path:
    values = {
        "data": dataset.path,
        "digest": dataset.digest,
        "root": str(path / "root"),
        "depth": 1,
        "rows": 8,
        **changes,
    }
    (path / "spec.json").write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))
    return path / "spec.json"


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


def test_a_packed_document_reads_as_it_does_alone(tmp_path):
    rng = np.random.default_rng(0)
    documents = [rng.integers(1, 50, length).tolist() for length in (11, 1, 14)]
    batch = Shards(pack(tmp_path, [documents], seq_len=32, vocab_size=50)).gather(np.array([0]))
    model = build(llama(50, 2), seed=0).eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)  # far from uniform attention, so that a leak would show
    with torch.no_grad():
        packed = logits(model, batch.tokens, batch.positions)[0]
        leaking = model(input_ids=batch.tokens).logits[0]
        start = 0
        for document in documents:
            alone = model(input_ids=torch.tensor([document])).logits[0]
            stop = start + len(document)
            torch.testing.assert_close(packed[start:stop], alone, rtol=1e-4, atol=1e-4)
            assert start == 0 or (leaking[start:stop] - alone).abs().max() > 0.1
            start = stop


def test_model_sizes_follow_depth():
    config = llama(8192, 4, seq_len=512, eod=3)
    assert (config.hidden_size, config.num_attention_heads, config.head_dim) == (256, 4, 64)
    assert (config.intermediate_size, config.max_position_embeddings, config.eos_token_id) == (704, 512, 3)
    assert llama(100, 1).head_dim == 32
    model = build(config, seed=0)
    assert sum(p.numel() for p in model.parameters()) == 8192 * 256 + 4 * (4 * 256**2 + 3 * 256 * 704 + 2 * 256) + 256
    assert torch.equal(build(llama(64, 1), 5).lm_head.weight, build(llama(64, 1), 5).lm_head.weight)
    assert not torch.equal(build(llama(64, 1), 5).lm_head.weight, build(llama(64, 1), 6).lm_head.weight)


def test_loss_is_the_mean_over_what_is_not_masked():
    scores = torch.zeros(1, 3, 4)
    scores[0, 0, 2] = 100.0
    assert masked_cross_entropy(scores, torch.tensor([[2, 1, IGNORED]])).item() == pytest.approx(np.log(4) / 2)
    assert masked_cross_entropy(scores, torch.full((1, 3), IGNORED)).item() == 0.0


def test_schedule_rises_and_falls():
    assert [schedule(done, 0.2) for done in (0.0, 0.1, 0.2, 0.6, 1.0, 1.5)] == pytest.approx(
        [0.1, 0.55, 1, 0.55, 0.1, 0.1]
    )
    assert schedule(0.0, 0.0) == 1.0


def test_a_checkpoint_is_published_with_what_made_it(tmp_path, data, capsys):
    spec = write_spec(tmp_path, data, steps=120, seed=1)
    assert main(["--spec", str(spec)]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    checkpoint = Dataset.load(told["path"])
    manifest, stats = checkpoint.manifest, checkpoint.manifest["stats"]
    # 32 tokens, about equally frequent: 3.47 nats. Who knows the token before needs about 0.65.
    assert 3.3 < stats["unigram_entropy"] <= np.log(32)
    assert stats["first_loss"] > 3.1
    assert stats["last_loss"] < 1.0
    assert (told["first_loss"], told["last_loss"]) == (stats["first_loss"], stats["last_loss"])
    assert (stats["steps"], stats["cursor"]["step"], stats["seed"]) == (120, 120, 1)
    assert stats["tokens"] == 120 * 8 * 63
    assert (stats["data"], stats["device"]) == (data.digest, manifest["made"]["device"])
    assert {"torch", "transformers"} <= set(stats["versions"])
    assert manifest["inputs"] == [{"name": "packed", "key": data.key, "digest": data.digest}]
    assert manifest["ops"][0]["params"]["steps"] == 120
    assert not {"data", "digest", "root", "name"} & set(manifest["ops"][0]["params"])
    assert manifest["reproducible"] is (not torch.cuda.is_available())
    for entry in manifest["files"]:
        assert file_sha256(f"{checkpoint.path}/{entry['file']}") == entry["sha256"]
    assert stat.S_IMODE(Path(checkpoint.file("model.safetensors")).stat().st_mode) == stat.S_IMODE(
        Path(checkpoint.file("config.json")).stat().st_mode
    )
    steps = [json.loads(line) for line in Path(checkpoint.file("metrics.jsonl")).read_text().splitlines()]
    assert [step["step"] for step in steps] == list(range(1, 121))
    assert stats["last_loss"] == pytest.approx(np.mean([step["loss"] for step in steps[-10:]]))
    assert json.loads(Path(checkpoint.file("loss_curve.json")).read_text())["tokens"][-1] == stats["tokens"]
    assert "step 1/120  loss 3." in printed.err

    # What was published is the model that was trained: it does on the data what the last steps did.
    batch = Shards(data).gather(np.arange(32))
    with torch.no_grad():
        loss = masked_cross_entropy(logits(load_model(checkpoint), batch.tokens, batch.positions), batch.labels)
    assert loss.item() == pytest.approx(stats["last_loss"], abs=0.15)

    # The same spec again: taken, not trained.
    assert main(["--spec", str(spec)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == told
    assert "not trained again" in printed.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="training on a GPU is not reproducible to the byte")
def test_the_same_steps_give_the_same_bytes_wherever_they_are_put(tmp_path, data, capsys):
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert main(["--spec", str(write_spec(tmp_path / name, data, steps=5, name=name))]) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert digests[0] == digests[1]


def test_a_budget_in_seconds_ends_by_the_clock(tmp_path, data, capsys):
    spec = PretrainSpec(data.path, data.digest, str(tmp_path), depth=1, seconds=10.0, warmup=0.2, learning_rate=1e-3)
    ticks = iter(np.arange(0, 100, 3.0))  # the clock is read at the start and after every step
    steps = list(pretrain(spec, build(llama(32, 1), 0), Shards(data), clock=lambda: next(ticks)))
    assert [m.step for m in steps] == [1, 2, 3, 4]
    assert steps[-1].cursor.step == 4
    assert [m.learning_rate for m in steps] == pytest.approx([1e-3 * schedule(s / 10, 0.2) for s in (0, 3, 6, 9)])

    assert main(["--spec", str(write_spec(tmp_path, data, seconds=0.2))]) == 0
    manifest = Dataset.load(json.loads(capsys.readouterr().out)["path"]).manifest
    assert manifest["reproducible"] is False
    assert manifest["stats"]["cursor"]["step"] == manifest["stats"]["steps"] >= 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"digest": "0" * 64}, "digest"),
        ({"data": "nowhere"}, "no dataset at nowhere"),
        ({"steps": None}, "one of the two"),
        ({"seconds": 5}, "one of the two"),
        ({"steps": 0}, "steps is 0"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"seed": True}, "seed is True"),
        ({"name": "../up"}, "name is '../up'"),
        ({"deepth": 4}, "unknown: deepth"),
        ({"digest": ...}, "missing: digest"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line(tmp_path, data, capsys, changes, says):
    assert main(["--spec", str(write_spec(tmp_path, data, **{"steps": 2, **changes}))]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    assert says in printed.err
    assert not (tmp_path / "root").exists()


def test_sigterm_publishes_nothing_and_leaves_nothing(tmp_path, data):
    spec = write_spec(tmp_path, data, steps=10**7)
    command = [sys.executable, "-m", "gristmill.training.pretrain", "--spec", str(spec)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = iter(process.stderr.readline, "")
        assert any(line.startswith("step 1/") for line in lines)  # it is training
        assert len(list((tmp_path / "root" / ".building").iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert out == ""
    assert "Traceback" not in err
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []
    assert list((tmp_path / "root" / ".building").iterdir()) == []
