"""Tokenizers: byte-complete training, parity with `tokenizers`, and no special token out of a text."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from realdata import real
from tokenizers import Tokenizer

from gristmill.dataops import tokenizer as module
from gristmill.dataops.dataset import InputError
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task
from gristmill.dataops.tokenizer import encode, given, import_tokenizer, train_bpe

TEXTS = [
    "The mill grinds grain into flour, and the miller sells it at the market on the river bank. " * 3,
    "Grist is grain that has been separated from its chaff in preparation for grinding. 12,345 sacks!\n\nNew line.",
    "",
    "A page that spells <|endoftext|> in the middle, and again<|endoftext|>",
    "naïve café ﬁ e\u0301 \u0899\u0898 Zürich 東京 🙂👩‍👩‍👧 \u200b tab\there",
    "    def f(x):\n        return {x: 1}\r\n",
]


@op("toy.texts", version=1, kind="source", plan=lambda *_, **__: [Task(None, None)])
def texts(_, *, texts):
    rows = pl.DataFrame({"id": [row_id(t) for t in texts], "text": texts}, schema={"id": pl.Binary, "text": pl.String})
    yield Split(rows, ledger())


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


def test_the_fast_path_is_taken_and_leaves_out_where_libraries_differ():
    encoder = module._encoder(str(real("tokenizers/gpt-neox-tokenizer.json")), "x")
    assert encoder.fast is not None and encoder.apart is not None
    apart = pl.Series(["plain", "has <|endoftext|> in it", "\u0899\u0898"]).str.contains(encoder.apart)
    assert apart.to_list()[:2] == [False, True]


@examples(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_any_text_gets_the_ids_of_tokenizers(rows):
    path = real("tokenizers/gpt-neox-tokenizer.json")
    offsets, ids = module._encoder(str(path), "x").encode(pl.Series(rows))
    found = [part.tolist() for part in np.split(ids, offsets[1:-1])]
    assert found == reference(path, rows)


def test_a_trained_bpe_is_byte_complete_and_the_same_every_time(tmp_path):
    digests = []
    for turn in range(2):
        store = Store(tmp_path / str(turn))
        corpus = store.build("texts", texts(texts=TEXTS * 5), [])
        model = store.build("tokenizer", train_bpe(vocab_size=1_000), [corpus])
        digests.append(model.digest)
    assert digests[0] == digests[1]
    tokenizer = Tokenizer.from_file(model.file("tokenizer.json"))
    everything = "".join(map(chr, range(1, 0x800))) + "\U0001f642\ud7ff"
    assert tokenizer.decode(tokenizer.encode(everything).ids) == everything
    stats = model.manifest["stats"]
    assert 257 <= stats["vocab_size"] <= 1_000 and stats["eod_token"] == "<|endoftext|>"
    made = store.build("encoded", encode(model), [corpus, model])
    first = made.scan().collect()["tokens"][0].to_list()
    assert tokenizer.decode(first[:-1]) == TEXTS[0] and first[-1] == stats["eod"]


def test_a_trained_tokenizer_loads_in_transformers(tmp_path):
    from transformers import AutoTokenizer

    store = Store(tmp_path)
    model = store.build("tokenizer", train_bpe(vocab_size=1_000), [store.build("texts", texts(texts=TEXTS), [])])
    loaded = AutoTokenizer.from_pretrained(f"{model.path}/files")
    assert loaded.eos_token == "<|endoftext|>" and loaded.decode(loaded.encode(TEXTS[0])) == TEXTS[0]


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


@pytest.mark.parametrize("size", [999, 131_073])
def test_sizes_out_of_range_are_refused(tmp_path, size):
    store = Store(tmp_path)
    with pytest.raises(InputError, match="vocab_size"):
        store.build("tokenizer", train_bpe(vocab_size=size), [store.build("texts", texts(texts=TEXTS), [])])


def test_what_is_no_tokenizer_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no tokenizer at"):
        given(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="not a tokenizer"):
        given(str(tmp_path))
