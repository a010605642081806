"""Encoding: parity with `tokenizers`, and no special token out of a text; tokenizers that are given."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from realdata import real
from tokenizer_texts import TEXTS, texts
from tokenizers import Tokenizer

from gristmill.dataops.dataset import InputError
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.encode import blocks_of, encode, encoder
from gristmill.dataops.tokenizer.given import given, import_tokenizer


def encoded(tmp_path, path, rows=TEXTS):
    store = Store(tmp_path)
    where, end = given(str(path))
    model = store.build(
        "tokenizer", import_tokenizer(end_of_document=end, path_context=str(where)), [], external=[file_sha256(where)]
    )
    return model, store.build("encoded", encode(model), [store.build("texts", texts(texts=rows), []), model])


def reference(path, rows):
    truth = Tokenizer.from_file(str(path))
    truth.encode_special_tokens = True
    return [encoding.ids for encoding in truth.encode_batch(rows, add_special_tokens=False)]


@pytest.mark.parametrize("name", ["gpt-neox", "gpt2"])
def test_ids_are_those_of_tokenizers_with_an_end_after_each_document(tmp_path, name):
    path = real(f"tokenizers/{name}-tokenizer.json")
    model, made = encoded(tmp_path, path)
    eod = model.manifest["stats"]["eod"]
    rows = made.scan().collect()
    expected = [[*ids, eod] for ids in reference(path, [text for text in TEXTS if text])]
    assert rows["tokens"].to_list() == expected
    assert rows["n_tokens"].to_list() == [len(ids) for ids in expected]
    assert rows.schema["tokens"] == pl.List(pl.UInt16)
    assert [ids.count(eod) for ids in rows["tokens"].to_list()] == [1] * 5  # letters of a special token are letters
    assert made.ledger().collect()["reason"].to_list() == ["no_tokens"]


def test_the_fast_path_is_taken_and_leaves_out_special_tokens():
    made = encoder(str(real("tokenizers/gpt-neox-tokenizer.json")), "x")
    assert made.fast is not None and made.spelled is not None
    spelled = pl.Series(["plain", "has <|endoftext|> in it", "< |endoftext|>"]).str.contains(made.spelled)
    assert spelled.to_list() == [False, True, False]


def test_a_block_of_characters_that_comes_out_different_takes_its_texts_the_slow_way():
    """Whether or not the libraries of today differ: what is marked as different is not encoded fast."""
    path = str(real("tokenizers/gpt2-tokenizer.json"))
    made = encoder(path, "a fresh one")
    rows = ["plain", "caf\u00e9", "\u6771\u4eac", "plain", "\U0001f642"]
    made.encode(pl.Series(rows))
    blocks = [ord(char) >> 6 for char in "\u00e9\u6771\u4eac\U0001f642"]
    assert (made.agreed[blocks] > 0).all()  # asked when first met
    assert made.agreed[0x3A9 >> 6] == 0  # and not before
    made.agreed[blocks[2]] = 2
    assert made._slow(pl.Series(rows)).tolist() == [False, False, True, False, False]
    assert [ids.tolist() for ids in made.encode(pl.Series(rows))] == reference(path, rows)


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    """GPT-2's tokenizer as converters write SmolLM2's: without some bytes' entries, yet with `byte_fallback`."""
    spec = json.loads(real("tokenizers/gpt2-tokenizer.json").read_bytes())
    model = spec["model"]
    gone = {"\u0104", "\u0113", "\u00ff", "\u00f1"}  # of the bytes 0x04, 0x13, 0xFF and 0xF1
    model |= {"unk_token": "<|endoftext|>", "fuse_unk": True, "byte_fallback": True}
    model["vocab"] = {entry: id for entry, id in model["vocab"].items() if not gone & set(entry)}
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    model["merges"] = [merge for merge in merges if not gone & set("".join(merge))]
    path = tmp_path_factory.mktemp("incomplete") / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return path


@examples(
    st.lists(st.text(st.sampled_from("ab \x04\x13\n\u00e9\U00041234\U0001f642"), max_size=20), min_size=1, max_size=5)
)
@settings(max_examples=15)
def test_a_vocabulary_without_some_bytes_is_encoded_fast_where_they_do_not_stand(incomplete, rows):
    made = encoder(str(incomplete), "x")
    assert made.fast is not None and made.without == "\x04\x13"
    rows = ["plain caf\u00e9", *rows]
    assert [ids.tolist() for ids in made.encode(pl.Series(rows))] == reference(incomplete, rows)
    assert made._slow(pl.Series(rows)).tolist() == [bool({*"\x04\x13\U00041234"} & {*row}) for row in rows]


@examples(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_blocks_are_code_points_by_sixty_four(text):
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    places, blocks = blocks_of(data)
    beyond = [char for char in text if ord(char) > 127]
    assert blocks.tolist() == [ord(char) >> 6 for char in beyond]
    assert len(places) == len(beyond)


@pytest.mark.parametrize("name", ["gpt-neox", "gpt2"])
@examples(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_any_text_gets_the_ids_of_tokenizers(name, rows):
    path = real(f"tokenizers/{name}-tokenizer.json")
    found = [ids.tolist() for ids in encoder(str(path), "x").encode(pl.Series(rows))]
    assert found == reference(path, rows)


@pytest.mark.parametrize("name", ["gpt-neox", "gpt2"])
def test_real_pages_get_the_ids_of_tokenizers(name):
    path = real(f"tokenizers/{name}-tokenizer.json")
    rows = [json.loads(line)["text"] for line in real("text/lf-c4_demo.jsonl").read_text().splitlines()[:150]]
    assert [ids.tolist() for ids in encoder(str(path), "x").encode(pl.Series(rows))] == reference(path, rows)


def test_no_text_and_null_are_dropped_with_a_reason(tmp_path):
    _, made = encoded(tmp_path, real("tokenizers/gpt2-tokenizer.json"), ["", "one", None])
    assert made.rows == 1
    assert made.ledger().collect()["reason"].to_list() == ["no_tokens"] * 2


def test_a_large_vocabulary_takes_wider_tokens(tmp_path):
    path = real("tokenizers/gpt2-tokenizer.json")
    spec = json.loads(path.read_text())
    spec["added_tokens"] += [{**spec["added_tokens"][-1], "id": 70_000, "content": "<|far|>"}]
    wide = tmp_path / "tokenizer.json"
    wide.write_text(json.dumps(spec))
    model, made = encoded(tmp_path / "root", wide)
    assert model.manifest["stats"]["vocab_size"] in (50_258, 70_001)  # the library may renumber what it adds
    expected = pl.UInt16 if model.manifest["stats"]["vocab_size"] <= 1 << 16 else pl.UInt32
    assert made.scan().collect().schema["tokens"] == pl.List(expected)


def test_what_is_no_tokenizer_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no tokenizer at"):
        given(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        given(str(tmp_path))
