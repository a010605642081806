"""Comparing tokenizers: counts against a plain count, what entries stand for, the commands, the page."""

from __future__ import annotations

import argparse
import json

import polars as pl
import pytest
from realdata import real
from tokenizer_texts import texts
from tokenizers import Tokenizer

from gristmill.dataops.dataset import InputError
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.compare import CODE_LINE, compare, resolve
from gristmill.dataops.tokenizer.entries import entries_of, suspects
from gristmill.dataops.tokenizer.given import CHAT
from gristmill.dataops.tokenizer.page import render
from gristmill.dataops.tokenizer.train import KINDS, train
from gristmill.flows.commands import compare_tokenizers, train_tokenizer

PAGES = [
    *(f"House {i} sells flour. Write to miller@mill.org or see www.mill.org for {i * i} sacks." for i in range(60)),
    *(f"Der Müller von Haus {i} verkauft Mehl für {i} Taler.\n    if (x) {{ return {i}; }}" for i in range(60)),
    "<script>alert(1)</script> 東京",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store with a dataset of texts and a tokenizer of each kind."""
    store = Store(tmp_path_factory.mktemp("root"))
    pages = store.build("texts", texts(texts=PAGES, languages=("en", "de")), [])
    for kind in KINDS:
        store.build(kind, train(kind, vocab_size=1_000), [pages])
    return store


@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_those_of_tokenizers(root, kind):
    name, path = resolve(kind, root.get)
    found = compare(root.get("texts"), [(name, path)])["tokenizers"][0]
    truth = Tokenizer.from_file(str(path))
    lengths = [len(truth.encode(text, add_special_tokens=False).ids) for text in PAGES]
    assert found["tokens"] == sum(lengths)
    assert found["bytes"] == sum(len(text.encode()) for text in PAGES)
    assert found["bytes_per_token"] == pytest.approx(found["bytes"] / sum(lengths), abs=1e-4)
    german = next(group for group in found["groups"] if group["group"] == "de")
    assert german["tokens"] == sum(lengths[1::2])
    assert [host["group"] for host in found["hosts"]] in (["host0.org", "host1.org"], ["host1.org", "host0.org"])
    assert found["code"]["tokens"] > 0 and found["unused"]["count"] + found["rare"]["count"] < found["vocab_size"]
    for split in (*found["numbers"]["splits"], *found["code"]["splits"]):
        assert "".join(split["tokens"]) == ("" if kind == "byte-bpe" else " ") + split["text"]


def test_the_sample_and_the_numbers_do_not_see_shards(root, tmp_path):
    other = Store(tmp_path)
    again = other.build("texts", texts(texts=PAGES, languages=("en", "de"), shards=3), [])
    tokenizer = [resolve("bpe", root.get)]
    found = [compare(dataset, tokenizer, budget=3_000) for dataset in (again, root.get("texts"))]
    assert found[0]["sample"] == found[1]["sample"] and 0 < found[0]["sample"]["documents"] < len(PAGES)
    assert found[0]["tokenizers"] == found[1]["tokenizers"]


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_the_bytes_of_the_text_they_make(root, kind):
    truth = Tokenizer.from_file(root.get(kind).file("tokenizer.json"))
    entries = entries_of(truth)
    for text in PAGES[-3:]:
        ids = truth.encode(text, add_special_tokens=False).ids
        assert b"".join(entries.data[i] for i in ids).decode().removeprefix(" ") == text
    assert entries.special.sum() == 1 + len(CHAT)  # and the end of documents
    if kind == "byte-bpe":
        assert {entry for entry in entries.data if len(entry) == 1} == {bytes([byte]) for byte in range(256)}


def test_characters_without_an_entry_are_counted_as_pieces(root, tmp_path):
    store = Store(tmp_path)
    dataset = store.build("texts", texts(texts=["東京 is far"]), [])
    found = compare(dataset, [resolve("bpe", root.get)])["tokenizers"][0]
    assert found["partial"] == 6 and found["partial_share"] == pytest.approx(6 / found["tokens"], abs=1e-6)


def test_suspect_entries_are_named_with_why():
    spec = json.loads(real("tokenizers/gpt-neox-tokenizer.json").read_text())
    vocab = spec["model"]["vocab"]
    for name in ("miller@mill.org", "https://mill.org", "5551234567", "all\u0120rights\u0120reserved"):
        vocab[name] = len(vocab) + 1_000
    found = {why for number, why in suspects(entries_of(Tokenizer.from_str(json.dumps(spec)))) if number >= 51_000}
    assert found == {"e-mail", "address", "long number", "phrase"}


def test_lines_of_code_are_told_from_prose():
    lines = pl.Series(
        ["    return f(x)", "int main() {", "x = y;", "The mill grinds.", "", "  he said (softly)", "    Indented."]
    )
    assert lines.str.contains(CODE_LINE).to_list() == [True, True, True, False, False, False, False]


def test_the_page_shows_text_as_text_and_no_script(root):
    numbers = compare(root.get("texts"), [resolve(kind, root.get) for kind in KINDS])
    numbers["tokenizers"][0]["longest"][0]["entry"] = "<script>alert(1)</script>"
    page = render(numbers)
    assert "<script" not in page and "&lt;script&gt;alert" in page
    assert all(kind in page for kind in KINDS)


def run(command, root, *arguments):
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    return command.run(parser.parse_args([*arguments]), {"root": str(root)})


def test_the_commands_train_and_compare(root, tmp_path):
    result, told = run(
        train_tokenizer, root.root, "texts", "--kind", "unigram", "--vocab-size", "1000", "--name", "mine",
        "--weights", "en=0.5", "de=0.5",
    )  # fmt: skip
    assert result["kind"] == "unigram" and "mine:" in told and json.dumps(result)
    page = tmp_path / "page.html"
    numbers, told = run(compare_tokenizers, root.root, "texts", "mine", "byte-bpe", "--html", str(page))
    assert len(numbers["tokenizers"]) == 2 and json.dumps(numbers) and "bytes/token" in told
    assert page.read_text().startswith("<!doctype html>")


def test_a_corpus_that_is_too_small_for_the_size_says_what_was_reached(root):
    result, told = run(train_tokenizer, root.root, "texts", "--vocab-size", "30000", "--name", "large")
    assert result["entries"] < 30_000 and "30,000 asked" in told


@pytest.mark.parametrize(
    ("command", "arguments", "match"),
    [
        (train_tokenizer, ["texts", "--weights", "en"], "GROUP=WEIGHT"),
        (train_tokenizer, ["texts", "--weights", "en=x"], "GROUP=WEIGHT"),
        (train_tokenizer, ["texts", "--weights", "en=1", "en=2"], "named twice"),
        (train_tokenizer, ["texts", "--weights", "fr=1"], "no row has language = fr"),
        (train_tokenizer, ["nothing"], "no dataset named"),
        (compare_tokenizers, ["texts", "texts"], "is no tokenizer"),
        (compare_tokenizers, ["texts", "nothing"], "no dataset named"),
        (compare_tokenizers, ["texts", "bpe", "bpe"], "called alike"),
        (compare_tokenizers, ["bpe", "bpe"], "no column|no shards"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(root, command, arguments, match):
    with pytest.raises(InputError, match=match):
        run(command, root.root, *arguments)
