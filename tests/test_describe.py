"""The step that describes conversations: what a model finds of them is what a plain loop finds; and choices by it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from chatting import PLAIN, assistant, chat, user
from sftchats import dataset, rows
from test_build_sft import MESSAGES, answer, ask
from tinychat import base, chat_tokenizer, words

from gristmill.dataops.dataset import Dataset, InputError, publish_files, publish_rows, row_id
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.fsck import fsck
from gristmill.dataops.sft.beside import numbers
from gristmill.dataops.sft.scores import top
from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.flows.train import named
from gristmill.training import describe
from gristmill.training.checkpoint import building, load_model, save_model
from gristmill.training.describe import DescribeSpec, dry, run
from gristmill.training.engines import chunks
from gristmill.training.model import Shape, build, configuration
from gristmill.training.scoring import Score
from gristmill.training.spec import Input
from gristmill.training.step import Stopped

WINDOW = 48
SEQ = 256


def conversations(count: int, seed: int = 1) -> list[list[dict[str, str]]]:
    """Of one to three turns, of one to six words each."""
    draw = np.random.default_rng(seed)

    def said() -> str:
        return " ".join(draw.choice(words(32), draw.integers(1, 7)))

    return [
        [turn for _ in range(draw.integers(1, 4)) for turn in (user(said()), assistant(said()))] for _ in range(count)
    ]


def encoded(root: Path, chat: Dataset, talks: list, *, name: str = "encoded", template: str | None = None) -> Dataset:
    """Conversations as `chat.encode` has them, by transformers alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chat.file(""))
    made = [tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True) for talk in talks]
    table = pa.table(
        {
            "id": pa.array([row_id("talk", str(n)) for n in range(len(talks))], pa.binary(16)),
            "tokens": pa.array([list(one["input_ids"]) for one in made], pa.large_list(pa.uint16())),
            "targets": pa.array([[bool(m) for m in one["assistant_masks"]] for one in made], pa.large_list(pa.bool_())),
        }
    )
    stats = chat.manifest["stats"]
    params = {"tokenizer": stats["tokenizer"], "template": template or stats["template"], "talks": talks}
    op = {"name": "chat.encode", "version": 2, "params": params}
    with building(root, name) as folder:
        return publish_rows(root, name, folder, [table], ops=[op], inputs=[], made={})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("describe")
    chat = chat_tokenizer(root)
    model = base(root, chat, seq_len=WINDOW, shape=Shape(depth=2, width=32, heads=2))
    return {"root": root, "chat": chat, "model": model, "data": encoded(root, chat, conversations(40))}


def spec_of(world: dict, **more) -> DescribeSpec:
    inputs = {name: Input(**named(world[name])) for name in ("data", "model")}
    return DescribeSpec(root=str(world["root"]), tokenizer=Input(**named(world["chat"])), **(inputs | more))


@pytest.fixture(scope="module")
def made(world) -> pl.DataFrame:
    return run(spec_of(world, embedding=True)).scan().collect()


def losses(model, tokens: list[int]) -> np.ndarray:
    """The loss of each token but the first, one row at a time."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, :-1].double()
    return -logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]].numpy()


def test_it_is_what_a_plain_loop_finds(world, made):
    model = load_model(world["model"]).eval()
    rows = world["data"].scan().collect()
    assert made["id"].to_list() == rows["id"].to_list()
    long = 0
    for row, told in zip(rows.to_dicts(), made.to_dicts(), strict=True):
        tokens, targets = row["tokens"], row["targets"]
        assert (told["n_tokens"], told["answer_tokens"]) == (len(tokens), sum(targets))
        if len(tokens) > WINDOW:
            long += 1
            assert told["perplexity"] is told["perplexity_given_prompt"] is told["embedding"] is None
            continue
        given = losses(model, tokens)[np.array(targets[1:])]
        alone: list[float] = []
        turn: list[int] = []
        for token, counts in zip([*tokens, 0], [*targets, False], strict=True):
            if counts:
                turn.append(token)
            elif turn:
                alone += losses(model, [0, *turn]).tolist()  # 0 ends documents, and there is no BOS
                turn = []
        assert len(alone) == len(given) == sum(targets)
        assert told["perplexity_given_prompt"] == pytest.approx(math.exp(given.mean()), rel=1e-4)
        assert told["perplexity"] == pytest.approx(math.exp(np.mean(alone)), rel=1e-4)
        with torch.no_grad():
            state = model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(told["embedding"], state / state.norm(), atol=1e-5)
    assert 0 < long < 30


def test_what_is_told_adds_up(world, made):
    out = run(spec_of(world, embedding=True))  # stands
    stats, long = out.manifest["stats"], made["perplexity"].null_count()
    assert stats["model"]["digest"] == world["model"].digest and out.manifest["reproducible"]
    assert {name: stats[name] for name in ("rows", "too_long", "no_answer", "tokens")} == {
        "rows": 40, "too_long": long, "no_answer": 0, "tokens": made["n_tokens"].sum(),
    }  # fmt: skip
    need = dry(spec_of(world))
    fits = made.filter(pl.col("perplexity").is_not_null())
    assert need["rows"] == 40 and need["too_long"] == long and need["longest"] == fits["n_tokens"].max()
    assert need["tokens"] == fits["n_tokens"].sum() + fits["answer_tokens"].sum()


def test_neighbours_do_not_matter(world, made):
    alone = run(spec_of(world, tokens=1, name="alone")).scan().collect()
    assert alone.columns == [name for name in made.columns if name != "embedding"]
    for name in ("perplexity", "perplexity_given_prompt"):
        np.testing.assert_allclose(alone[name].to_numpy(), made[name].to_numpy(), rtol=1e-4)


def test_a_stopped_step_goes_on_and_ends_in_the_same_bytes(world, monkeypatch):
    whole = run(spec_of(world, embedding=True, name="whole"))
    monkeypatch.setattr(describe, "CHUNK", 7)
    write, written = chunks.write, []

    def until(file: Path, table: pa.Table) -> None:
        if len(written) == 3:
            raise Stopped("asked to")
        written.append(file.name)
        write(file, table)

    monkeypatch.setattr(chunks, "write", until)
    with pytest.raises(Stopped, match=r"21 of 40 conversations are kept"):
        run(spec_of(world, embedding=True, name="stopped"))
    (kept,) = (world["root"] / ".describing").glob("stopped-*")
    (kept / sorted(written)[1]).write_bytes(b"torn")
    again: list[str] = []
    monkeypatch.setattr(chunks, "write", lambda file, table: (again.append(file.name), write(file, table)))
    out = run(spec_of(world, embedding=True, name="stopped"))
    assert sorted([*again, *written]) == sorted([*set(again) | set(written), sorted(written)[1]]) and len(again) == 4
    assert out.rows == 40 and not kept.exists()
    one, two = (item.scan().collect() for item in (whole, out))
    np.testing.assert_allclose(one["perplexity"].to_numpy(), two["perplexity"].to_numpy(), rtol=1e-4)
    assert one["id"].to_list() == two["id"].to_list()


def test_what_does_not_fit_is_refused(world, tmp_path):
    other = encoded(world["root"], world["chat"], conversations(2), name="other", template="0" * 64)
    for more, said in (
        ({"data": Input(**named(other))}, "was rendered with template 000000000000"),
        ({"data": Input(**named(world["model"]))}, "holds no encoded conversations"),
        ({"model": Input(**named(world["data"]))}, "holds no model"),
        ({"tokens": 0}, "tokens is 0"),
    ):
        with pytest.raises(InputError, match=said):
            run(spec_of(world, **more))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a chat tokenizer, and a model of its vocabulary without a template, with a window of 128 tokens."""
    folder = tmp_path_factory.mktemp("choice")
    speaks = chat(folder, PLAIN)
    stats = speaks.manifest["stats"]
    shape = configuration(Shape(depth=1, width=32, heads=2), stats["vocab_size"], seq_len=128, eod=stats["eod"])
    with building(speaks.root, "model") as building_in:
        save_model(build(shape, 1), building_in / "files")
        known = {"tokenizer": stats["tokenizer"], "template": None}
        ops = [{"name": "fresh", "version": 1, "params": {}}]
        publish_files(speaks.root, "model", building_in, ops=ops, inputs=[], made={}, stats=known)
    return Path(speaks.root)


@pytest.fixture
def built(root, tmp_path, capsys):
    """build-sft over 40 conversations that the model can read, and 5 that it cannot."""
    long = [{"messages": [user(ask(n)), assistant(answer(n) * 4)]} for n in range(600, 605)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MESSAGES[:40] + long))

    def call(*arguments: str, status: int = 0) -> dict:
        files = [] if arguments[0] in Store(root).names() else [str(tmp_path / "rows.jsonl")]
        given = ["build-sft", *files, *arguments, "--tokenizer", "chat", "--name", "set", "--seq-len", str(SEQ)]
        assert main([*given, "--root", str(root), "--workers", "1", "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return call


def rows_of(root: Path, told: dict, name: str) -> pl.DataFrame:
    found = next(item for item in told["datasets"] if item["name"].endswith(name))
    return Store(root).get(f"{found['name']}:{found['key']}").scan().collect()


def test_the_best_by_a_model_from_files_to_rows(root, built):
    told = built("--select", "10", "--by", "ifd", "--model", "model")
    every, best = rows_of(root, told, "-numbered"), rows_of(root, told, "-chosen")
    assert told["conversations"] == best.height == 10
    described = Store(root).get("set-described").scan().collect()
    ratio = (described["perplexity_given_prompt"] / described["perplexity"]).alias("ifd")
    assert set(every["ifd"]) == set(ratio.filter(ratio <= 1))
    assert best["ifd"].min() == every["ifd"].top_k(10).min()
    assert told["counts"]["sft.numbers"]["reasons"] == {"too_long": 5}
    assert told["counts"]["sft.within"]["dropped"] == (ratio > 1).sum()
    ledger = Store(root).get("set-numbered").ledger().collect()
    assert ledger.filter(pl.col("reason") == "too_long")["threshold"].to_list() == [128.0] * 5
    assert not fsck(Store(root))[1]


def test_rows_far_apart_by_a_model(root, built):
    told = built("--select", "8", "--by", "embedding", "--model", "model")
    every, chosen = rows_of(root, told, "-numbered"), rows_of(root, told, "-chosen")
    points = np.array(every["embedding"].to_list())
    assert points.shape == (40, 32) and chosen.height == told["conversations"] == 8
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-5)
    kept = np.array(chosen["embedding"].to_list())
    radius = (1 - points @ kept.T).min(axis=1).max()
    assert radius <= (1 - points @ points[:8].T).min(axis=1).max()


def by_length(**_: object) -> object:
    """A scorer: longer is better, and what ends in a digit and a full stop is not judged where the digit is 3."""
    return lambda rows, responses: [
        Score(None, "three") if response.endswith("3.") else Score(float(len(response) + len(row["prompt"])), "")
        for row, response in zip(rows, responses, strict=True)
    ]


def test_the_best_by_a_scorer(root, built, tmp_path):
    scorer = tmp_path / "scorer.json"
    scorer.write_text(json.dumps({"name": "length", "call": "test_describe:by_length"}))
    told = built("--select", "6", "--by", "score", "--scorer", str(scorer))
    every, best = rows_of(root, told, "-numbered"), rows_of(root, told, "-chosen")
    assert every.height == 45 and best["score"].sort().to_list() == every["score"].top_k(6).sort().to_list()
    assert every["score_reason"].to_list().count("three") == every["score"].null_count() == 5
    response = every["messages"].list.last().struct.field("content")
    for score, said in zip(every["score"], response, strict=True):
        assert score is None or score == len(said) + 1
    again = built("set-numbered", "--select", "6", "--by", "top", "--column", "score")
    assert again["conversations"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "model"], "say how many to keep"),
        (["--select", "3", "--by", "ifd"], "a choice by ifd needs a model"),
        (["--select", "3", "--by", "score"], "a choice by score needs a scorer"),
        (["--select", "3", "--model", "model"], "the choice goes by coverage, and who is asked tells perplexity"),
        (["--select", "3", "--by", "ifd", "--column", "a", "--model", "model"], "goes by ifd, not by a"),
        (["--select", "3", "--by", "score", "--model", "model"], "the choice goes by score"),
        (["--select", "3", "--by", "ifd", "--model", "chat"], "chat holds no model"),
        (["--select", "3", "--by", "ifd", "--model", "model", "--scorer", "{}"], "name one of them"),
        (["--select", "3", "--by", "score", "--scorer", "{}"], "--scorer: "),
        (["--select", "3", "--by", "score", "--scorer", "gone.json"], "neither JSON nor a file"),
    ],
)
def test_a_choice_that_nobody_can_make_is_refused(built, arguments, said):
    assert said in built(*arguments, status=2)["error"]


def test_numbers_come_beside_their_own_rows_and_the_rest_says_why(tmp_path):
    frame = rows([[user(f"w{n}"), assistant("a")] for n in range(20)], n=[float(n) for n in range(20)])
    chats, store = dataset(tmp_path, frame, parts=3), Store(tmp_path)
    legible = store.build("legible", top(rows=12, column="n"), [chats])
    known = legible.scan().select("id", score=pl.col("n") * 2).collect().sort("id", descending=True).head(10)
    table = pa.table({"id": known["id"].to_arrow().cast(pa.binary(16)), "score": known["score"].to_arrow()})
    with building(tmp_path, "found") as folder:
        op = {"name": "toy.found", "version": 1, "params": {}}
        found = publish_rows(tmp_path, "found", folder, [table], ops=[op], inputs=[legible], made={})
    made = store.build("numbered", numbers(columns=["score"]), [chats, found, legible])
    told = made.scan().collect()
    assert told.columns == [*frame.columns, "score"] and (told["score"] == told["n"] * 2).all()
    assert set(told["id"]) == set(known["id"])
    (tally,) = made.manifest["counts"].values()
    assert tally["reasons"] == {"not_among_the_best": 8, "no_numbers": 2}
    lost = made.ledger().filter(pl.col("reason") == "not_among_the_best").collect()
    assert lost["threshold"].to_list() == [8.0] * 8 and set(lost["value"]) == set(range(8))
    with LocalPool(2) as pool:
        other = Store(tmp_path / "pool", pool).build("numbered", numbers(columns=["score"]), [chats, found, legible])
    assert other.digest == made.digest
    for columns, said in ((["n"], "found has no column 'n'"), (["id"], "has a column 'id' already")):
        with pytest.raises(InputError, match=said):
            store.build("numbered", numbers(columns=columns), [chats, found, legible])
