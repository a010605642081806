"""`gristmill encode-chats`: every row of the files counted, and the tokenizer of whatever is named."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from chatting import PLAIN, TRIMMING, assistant, chat, tokenizer, user

from gristmill.dataops.chat import recipe
from gristmill.dataops.fsck import fsck
from gristmill.dataops.store import Store
from gristmill.flows.cli import main

TALKS = [
    {"messages": [user(f"{n} sacks?"), assistant(f"{n * 7} of grain."), user("And?"), assistant("No more.")]}
    for n in range(30)
]
BAD = [
    "{",
    {"text": "a"},
    {"messages": [user("a")]},
    {"messages": [user("a" * 900), assistant("b")]},
    {"messages": [user("a"), {"role": "robot", "content": "b"}]},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A root with a tokenizer and, of it, a chat tokenizer."""
    root = tmp_path_factory.mktemp("encode")
    chat(root, PLAIN)
    return root / "byte-bpe"


@pytest.fixture
def files(tmp_path):
    def write(rows: list, name: str = "rows.jsonl") -> str:
        text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


@pytest.fixture
def encode(root, capsys):
    def call(*arguments: str, status: int = 0, name: str = "made") -> dict:
        given = ["encode-chats", *arguments, "--name", name, "--root", str(root), "--workers", "1", "--json"]
        assert main(given) == status
        return json.loads(capsys.readouterr().out)

    return call


def test_every_row_of_the_files_is_encoded_or_said_to_be_lost(root, files, encode):
    told = encode(files(TALKS[:20] + BAD), files(TALKS[20:], "more.jsonl"), "--tokenizer", "chat", "--seq-len", "128")
    assert told["counts"]["chat.read"]["in"] == len(TALKS) + len(BAD)
    assert [tally["dropped"] for tally in told["counts"].values()] == [2, 3]
    assert {(one["reason"], one["file"], one["line"]) for one in told["examples"]} == {
        (reason, "rows.jsonl", 21 + n)
        for n, reason in enumerate(["bad_json", "missing_column", "no_targets", "too_long", "bad_roles"])
    }
    assert any(one["why"].endswith("tokens, the most is 128") for one in told["examples"])
    made = Store(root).get(f"{told['name']}@latest")
    rows = made.scan().select("targets", "length").collect()
    assert (told["rows"], told["conversations"]) == (rows.height, len(TALKS))
    assert (told["loss_tokens"], told["tokens"]) == (rows["targets"].explode().sum(), rows["length"].sum())
    assert told["loss_share"] == told["loss_tokens"] / told["tokens"] and 0 < told["loss_share"] < 1
    assert told["train"] == "gristmill train sft --data made@latest --start MODEL --tokenizer chat@latest"
    assert fsck(Store(root))[1] == []


def test_the_loss_of_the_last_turn_alone_counts_fewer_tokens(files, encode):
    path = files(TALKS)
    every, last = (encode(path, "--tokenizer", "chat", "--loss", loss) for loss in ("assistant", "completion"))
    assert every["tokens"] == last["tokens"] and every["loss_tokens"] > last["loss_tokens"] > 0


def test_pairs_and_thumbs_are_not_packed(root, files, encode):
    rows = [{"prompt": f"{n}?", "chosen": "seven.", "rejected": "no.", "margin": 1} for n in range(5)]
    told = encode(files([*rows, {**rows[0], "rejected": "seven."}]), "--tokenizer", "chat", "--kind", "pairs")
    made = Store(root).get("made").scan().collect()
    replies = made["chosen_ids"].list.len().sum() + made["rejected_ids"].list.len().sum()
    assert told["rows"] == 5 and told["examples"][0]["reason"] == "equal" and told["examples"][0]["line"] == 6
    assert told["loss_tokens"] == replies and told["tokens"] == replies + 2 * made["prompt_ids"].list.len().sum()
    assert told["train"].startswith("gristmill train preference --data made@latest")
    rows = [{"prompt": f"{n}?", "response": "seven.", "label": n % 2 == 0} for n in range(4)]
    told = encode(files(rows), "--tokenizer", "chat", "--kind", "thumbs")
    assert told["rows"] == 4 and "--set loss=kto" in told["train"]


def test_parquet_gives_the_rows_of_the_lines(root, files, encode, tmp_path):
    lines = encode(files(TALKS), "--tokenizer", "chat")
    pl.DataFrame(TALKS).write_parquet(tmp_path / "rows.parquet")
    table = encode(str(tmp_path / "rows.parquet"), "--tokenizer", "chat")
    assert [table[name] for name in ("rows", "tokens", "loss_tokens")] == [
        lines[name] for name in ("rows", "tokens", "loss_tokens")
    ]


def test_a_plain_tokenizer_gets_its_template_first(root, files, encode, tmp_path):
    path, plain = files(TALKS), tokenizer(str(root.parent), "byte-bpe")
    told = encode(path, "--tokenizer", "tokenizer", "--template", "chatml")
    made = Store(root).get("tokenizer-chat")
    assert told["chat"]["key"] == made.key and made.manifest["stats"]["tokenizer"] == plain.digest
    assert "--tokenizer tokenizer-chat@latest" in told["train"]
    assert encode(path, "--tokenizer", "tokenizer-chat")["digest"] == told["digest"]
    (tmp_path / "own.jinja").write_text(TRIMMING)
    other = encode(path, "--tokenizer", "tokenizer", "--template", str(tmp_path / "own.jinja"))
    assert other["chat"]["template"] != told["chat"]["template"] and other["digest"] != told["digest"]


def test_where_no_row_is_left_the_reasons_are_told(files, encode):
    told = encode(files(["no JSON"] * 3), "--tokenizer", "chat", status=2)
    assert "no row is left" in told["error"] and "bad_json 3" in told["error"] and "rows.jsonl:1" in told["error"]


def test_what_cannot_be_is_refused(root, files, encode, tmp_path):
    path = files(TALKS)
    recipe.tasks(Store(root), [files([{"prompt": "p"}], "tasks.jsonl")], name="tasks")
    (tmp_path / "syntax.jinja").write_text("{% for %}")
    (tmp_path / "silent.jinja").write_text("{{ messages[0].content }}")
    for arguments, said in (
        (["--tokenizer", "none"], "no dataset named 'none'"),
        (["--tokenizer", "tasks"], "tasks is of kind rows and no tokenizer"),
        (["--tokenizer", "chat", "--template", "chatml"], "speaks template"),
        (["--tokenizer", "tokenizer", "--template", "chatmx"], "no chat template 'chatmx'"),
        (["--tokenizer", "tokenizer", "--template", str(tmp_path / "syntax.jinja")], "line 1 cannot be used"),
        (["--tokenizer", "tokenizer", "--template", str(tmp_path / "silent.jinja")], "does not write what the assist"),
        (["--tokenizer", "chat", "--kind", "pairs", "--loss", "completion"], "leave it out for pairs"),
        (["--tokenizer", "chat", "--seq-len", "1"], "seq_len 1 is outside"),
    ):
        assert said in encode(path, *arguments, status=2)["error"]
    assert "no such file" in encode(str(tmp_path / "gone.jsonl"), "--tokenizer", "chat", status=2)["error"]
    with pytest.raises(SystemExit):
        encode(path, "--tokenizer", "chat", name="a/b")
