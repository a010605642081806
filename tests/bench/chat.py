"""Conversations to packed rows with what the loss counts, against what TRL's SFTTrainer does with them.

The peer is the preparation of SFTTrainer itself (its `_prepare_dataset`: template, masks, labels, packing), over a
`datasets.Dataset` in memory; ours goes from a published dataset of messages to a published dataset of packed rows. Both
run in one process, with the same tokenizer and the same template with generation blocks, and both pack by best fit;
the ids and labels of every conversation are taken out of both and compared. A tokenizer that gigatoken accepts (that of
GPT-2, with ChatML's markers) and one that only `tokenizers` encodes (SmolLM2's, out of a GGUF file) are measured.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gristmill.dataops.chat import recipe
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import CHAT, END_OF_DOCUMENT, import_tokenizer

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
sys.path.append(str(Path(__file__).parents[1]))
_BAR = 5
_SEQ_LEN = 8192  # longer than any of the conversations, which the peer would cut
_TURNS = 3  # of each side; the best counts


def chats() -> Iterator[dict[str, Any]]:
    """Conversations and tokens per second of real conversations, packed with labels."""
    import smollm2

    talks = _talks()
    with tempfile.TemporaryDirectory() as folder:
        given = {"gpt2 with ChatML": _with_markers(Path(folder))}
        if (source := smollm2.source()) is not None and source.exists():
            given["SmolLM2-135M"] = smollm2.folder() / "tokenizer.json"
        for name, path in given.items():
            store = Store(Path(folder) / name)
            bring = import_tokenizer(end_of_document=END_OF_DOCUMENT, path_context=str(path))
            plain = store.build("tokenizer", bring, [], external=[file_sha256(path)])
            made = recipe.chat(store, plain, "chatml")
            path = Path(folder) / "talks.jsonl"
            path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
            yield _measured(name, store, made, str(path), talks)


def _measured(name: str, store: Store, made: Dataset, file: str, talks: list[list[dict[str, str]]]) -> dict[str, Any]:
    from datasets import Dataset as Rows
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made.file(""))
    rows = Rows.from_list([{"messages": talk} for talk in talks])
    recipe.sft(store, [file], made, seq_len=_SEQ_LEN - 1)  # the messages are read once, and what is loaded is loaded
    theirs = _peer(tokenizer, rows.select(range(8)))
    best = {"ours": float("inf"), "peer": float("inf")}
    for turn in range(_TURNS):
        started = time.perf_counter()
        ours = _ours(store, made, f"turn-{turn}")
        best["ours"] = min(best["ours"], time.perf_counter() - started)
        started = time.perf_counter()
        theirs = _peer(tokenizer, rows)
        best["peer"] = min(best["peer"], time.perf_counter() - started)
    same = _conversations(ours) == _their_conversations(theirs)
    ratio = round(best["peer"] / best["ours"], 1)
    stats = ours.manifest["stats"]
    return {
        "peer": "TRL 1.16, transformers 5.17", "tokenizer": name, "conversations": stats["documents"],
        "of": len(talks), "tokens": stats["tokens"], "ours_rows": ours.rows, "peer_rows": len(theirs),
        "ours_conversations_s": round(len(talks) / best["ours"]),
        "peer_conversations_s": round(len(talks) / best["peer"]),
        "ours_tokens_s": round(stats["tokens"] / best["ours"]), "peer_tokens_s": round(stats["tokens"] / best["peer"]),
        "ratio": ratio, "bar": _BAR, "same_ids_and_labels": same, "met": ratio >= _BAR and same,
    }  # fmt: skip


def _ours(store: Store, made: Dataset, name: str) -> Dataset:
    """The steps of recipe.sft behind reading."""
    encoding = recipe.encode_chats(made, max_tokens=_SEQ_LEN)
    encoded = store.build(f"{name}-encoded", encoding, [store.get("sft-messages")])
    identity = {key: made.manifest["stats"][key] for key in ("tokenizer", "template", "vocab_size", "eod")}
    return store.build(name, recipe.best_fit(seq_len=_SEQ_LEN, **identity), [encoded])


def _peer(tokenizer: Any, rows: Any) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = SFTConfig(
        output_dir=tempfile.gettempdir(), max_length=_SEQ_LEN, packing=True, assistant_only_loss=True, use_cpu=True,
        bf16=False, report_to=[],
    )  # fmt: skip
    trainer: Any = SimpleNamespace(chat_template=None, _tokenizer=tokenizer, completion_only_loss=False)
    return SFTTrainer._prepare_dataset(trainer, rows, tokenizer, settings, True, None, "train")


def _conversations(packed: Dataset) -> list[tuple[bytes, bytes]]:
    """(ids, labels) of each conversation in packed rows, sorted."""
    found = []
    for row in packed.scan().collect().iter_rows(named=True):
        ids, targets, at = np.array(row["tokens"], np.int64), np.array(row["targets"], bool), 0
        labels = np.where(targets, ids, -100)
        for segment in row["segments"]:
            stop = at + segment["length"]
            found.append((ids[at:stop].tobytes(), labels[at:stop].tobytes()))
            at = stop
    return sorted(found)


def _their_conversations(packed: Any) -> list[tuple[bytes, bytes]]:
    found = []
    for row in packed:
        ids, labels, at = np.array(row["input_ids"], np.int64), np.array(row["labels"], np.int64), 0
        for length in row["seq_lengths"]:
            found.append((ids[at : at + length].tobytes(), labels[at : at + length].tobytes()))
            at += length
    return sorted(found)


def _with_markers(folder: Path) -> Path:
    """GPT-2's tokenizer with two entries more, as whoever trains it to chat would add them."""
    spec = json.loads((DATA / "tokenizers" / "gpt2-tokenizer.json").read_bytes())
    size = max([*spec["model"]["vocab"].values(), *(token["id"] for token in spec["added_tokens"])]) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    spec["added_tokens"] += [{"id": size + at, "content": token, **flags} for at, token in enumerate(CHAT)]
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(spec))
    return path


def _talks() -> list[list[dict[str, str]]]:
    """Conversations of demonstration data whose texts say something and whose replies begin without white space."""
    roles = {"human": "user", "gpt": "assistant"}
    found = []
    for item in json.loads((DATA / "sft" / "fastchat-dummy_conversation.json").read_text()):
        found.append([{"role": roles[turn["from"]], "content": turn["value"]} for turn in item["conversations"]])
    for item in json.loads((DATA / "sft" / "lf-alpaca_en_demo.json").read_text()):
        asked = "\n".join(filter(None, (item["instruction"], item["input"])))
        found.append([{"role": "user", "content": asked}, {"role": "assistant", "content": item["output"]}])
    for item in json.loads((DATA / "pref" / "lf-kto_en_demo.json").read_text()):
        found.append([{"role": turn["role"], "content": turn["content"]} for turn in item["messages"]])
    return [
        talk
        for talk in found
        if talk[0]["role"] == "user" and all(turn["content"][:1].strip() for turn in talk)
    ]  # fmt: skip
