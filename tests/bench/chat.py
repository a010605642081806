"""Conversations to tokens with assistant masks, against what TRL's SFTTrainer does with them.

The peer is TRL's tokenisation of a conversation, apply_chat_template with return_dict and return_assistant_tokens_mask,
over `datasets.map`. Both run in one process, with the same tokenizer and the same template with generation blocks; the
peer's ids and masks are compared row by row with ours. A tokenizer that gigatoken accepts (GPT-2's, with ChatML's
markers) and one that only `tokenizers` encodes (SmolLM2's, out of a GGUF file) are measured.
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
from typing import Any

import polars as pl

from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.chat.recipe import chat
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Op
from gristmill.dataops.passes import BATCH
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import CHAT, END_OF_DOCUMENT, import_tokenizer

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
sys.path.append(str(Path(__file__).parents[1]))
_BAR = 3
_TURNS = 3  # of each side; the best counts


def chats() -> Iterator[dict[str, Any]]:
    """Rows and tokens per second of real conversations, encoded with masks."""
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
            made = chat(store, plain, "chatml")
            yield _measured(name, made, talks)


def _measured(name: str, made: Dataset, talks: list[list[dict[str, str]]]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    ids = [row_id(str(number)) for number in range(len(talks))]
    rows = pl.DataFrame({"id": ids, "messages": talks})
    op = encode_chats(made, max_tokens=1 << 20)
    best = {"ours": float("inf"), "peer": float("inf")}
    tokenizer = AutoTokenizer.from_pretrained(made.file(""))
    ours, theirs = _ours(op, rows.head(8)), _peer(tokenizer, talks[:8])  # what is loaded once
    for _ in range(_TURNS):
        started = time.perf_counter()
        ours = _ours(op, rows)
        best["ours"] = min(best["ours"], time.perf_counter() - started)
        started = time.perf_counter()
        theirs = _peer(tokenizer, talks)
        best["peer"] = min(best["peer"], time.perf_counter() - started)
    same = ours["tokens"].to_list() == theirs["input_ids"]
    masks = ours["targets"].cast(pl.List(pl.Int64)).to_list() == theirs["assistant_masks"]
    ratio = round(best["peer"] / best["ours"], 1)
    tokens = int(ours["n_tokens"].sum())
    return {
        "peer": "TRL 1.16, transformers 5.17", "tokenizer": name, "rows": len(talks), "tokens": tokens,
        "ours_rows_s": round(len(talks) / best["ours"]), "peer_rows_s": round(len(talks) / best["peer"]),
        "ours_tokens_s": round(tokens / best["ours"]), "peer_tokens_s": round(tokens / best["peer"]),
        "ratio": ratio, "bar": _BAR, "same_ids": same, "same_masks": masks,
        "met": ratio >= _BAR and same and masks,
    }  # fmt: skip


def _ours(op: Op, rows: pl.DataFrame) -> pl.DataFrame:
    """In batches as a pass makes them."""
    kept = [op(rows.slice(start, BATCH)).kept for start in range(0, rows.height, BATCH)]
    return pl.concat([part for part in kept if isinstance(part, pl.DataFrame)])


def _peer(tokenizer: Any, talks: list[list[dict[str, str]]]) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def tokenised(row: dict[str, Any]) -> dict[str, Any]:
        found = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        return {"input_ids": found["input_ids"], "assistant_masks": found["assistant_masks"]}

    done = datasets.Dataset.from_list([{"messages": talk} for talk in talks]).map(tokenised)
    return {name: done[name][:] for name in ("input_ids", "assistant_masks")}


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
