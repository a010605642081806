"""Conversations to packed rows with what the loss counts, against what TRL's SFTTrainer does with them.

The peer is the preparation of SFTTrainer itself (its `_prepare_dataset`: template, masks, labels, packing), over a
`datasets.Dataset` on disk, in as many processes as ours, which goes from a published dataset of messages to a published
dataset of packed rows. Libraries are loaded before the clock runs: the peer's processes are forks of this one, ours are
started and warmed. Both have the same tokenizer and the same template with generation blocks, and both pack by best
fit. Ids and labels are compared conversation by conversation before packing, and as a bag of conversations behind it. A
tokenizer that gigatoken accepts as it is (that of GPT-2, with ChatML's markers) and one that lacks entries (SmolLM2's,
out of a GGUF file) are measured.

The conversations are made, the same in every run: turns of real ones, one after the other, in each text one word in
eight replaced by another one's; every other conversation has a system message.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from gristmill.dataops.chat import recipe
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.executor import LocalPool
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import CHAT, END_OF_DOCUMENT, import_tokenizer

DATA = Path(os.environ.get("GRISTMILL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONVERSATIONS = int(os.environ.get("GRISTMILL_BENCH_CHATS", 100_000))
WORKERS = os.cpu_count() or 1
sys.path.append(str(Path(__file__).parents[1]))
_BAR = 5
_SEQ_LEN = 8192  # longer than any of the conversations, which the peer would cut
_PART = 5_000  # conversations to a file, and so to a shard
_SYSTEM = "You are a helpful assistant. Answer in full sentences, and say so where you do not know."

Sequence = tuple[np.ndarray, np.ndarray, np.ndarray]  # ids and labels in a run, and where each one ends


def chats() -> Iterator[dict[str, Any]]:
    """Conversations and tokens per second of conversations of several turns, packed with labels."""
    import smollm2
    from datasets import Dataset as Rows

    with tempfile.TemporaryDirectory() as folder:
        texts, rows = Path(folder) / "texts", Path(folder) / "rows"
        texts.mkdir()
        talks = _conversations(_talks(), CONVERSATIONS)
        for at in range(0, len(talks), _PART):
            lines = [json.dumps({"messages": talk}) + "\n" for talk in talks[at : at + _PART]]
            (texts / f"{at:09}.jsonl").write_text("".join(lines))
        Rows.from_list([{"messages": talk} for talk in talks]).save_to_disk(rows)
        del talks
        given = {"gpt2 with ChatML": _with_markers(Path(folder))}
        if (source := smollm2.source()) is not None and source.exists():
            given["SmolLM2-135M"] = smollm2.folder() / "tokenizer.json"
        for name, path in given.items():
            store = Store(Path(folder) / name)
            bring = import_tokenizer(end_of_document=END_OF_DOCUMENT, path_context=str(path))
            plain = store.build("tokenizer", bring, [], external=[file_sha256(path)])
            made = recipe.chat(store, plain, "chatml")
            read_files(store, "messages", [str(texts / "*.jsonl")], "messages")
            yield _measured(name, Path(folder) / name, made, rows)


def _measured(name: str, root: Path, made: Dataset, rows: Path) -> dict[str, Any]:
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(made.file(""))
    talks = load_from_disk(str(rows))
    _peer(tokenizer, talks.select(range(8)), 1)  # what is imported is imported
    with LocalPool(WORKERS) as pool:
        pool.warm(["gristmill.dataops.chat.recipe"])
        started = time.perf_counter()
        encoded, ours = _ours(Store(root, pool), made)
        ours_s = time.perf_counter() - started
    started = time.perf_counter()
    before, theirs = _peer(tokenizer, talks, WORKERS)
    peer_s = time.perf_counter() - started
    same_rows = _same(_our_sequences(encoded), _their_sequences(before))
    same_packed = _bag(_our_sequences(ours), _our_cuts(ours)) == _bag(_their_sequences(theirs), _their_cuts(theirs))
    ratio = round(peer_s / ours_s, 1)
    count, tokens = len(talks), ours.manifest["stats"]["tokens"]
    return {
        "peer": "TRL 1.16, transformers 5.17", "tokenizer": name, "conversations": ours.manifest["stats"]["documents"],
        "of": count, "tokens": tokens, "processes": WORKERS, "ours_rows": ours.rows, "peer_rows": len(theirs),
        "ours_seconds": round(ours_s, 1), "peer_seconds": round(peer_s, 1),
        "ours_conversations_s": round(count / ours_s), "peer_conversations_s": round(count / peer_s),
        "ours_tokens_s": round(tokens / ours_s), "peer_tokens_s": round(tokens / peer_s),
        "ratio": ratio, "bar": _BAR, "same_ids_and_labels": same_rows, "same_in_packed_rows": same_packed,
        "met": ratio >= _BAR and same_rows and same_packed,
    }  # fmt: skip


def _ours(store: Store, made: Dataset) -> tuple[Dataset, Dataset]:
    """The steps of recipe.sft behind reading: encoded conversations, and packed rows."""
    identity = {key: made.manifest["stats"][key] for key in ("tokenizer", "template", "vocab_size", "eod")}
    encoded = store.build("encoded", recipe.encode_chats(made, max_tokens=_SEQ_LEN), [store.get("messages")])
    return encoded, store.build("packed", recipe.best_fit(seq_len=_SEQ_LEN, **identity), [encoded])


def _peer(tokenizer: Any, rows: Any, processes: int) -> tuple[Any, Any]:
    """What SFTTrainer prepares: before packing, and packed."""
    import datasets
    from trl import SFTConfig
    from trl.trainer import sft_trainer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    settings = SFTConfig(
        output_dir=tempfile.gettempdir(), max_length=_SEQ_LEN, packing=True, assistant_only_loss=True, use_cpu=True,
        bf16=False, report_to=[], dataset_num_proc=processes,
    )  # fmt: skip
    trainer: Any = SimpleNamespace(chat_template=None, _tokenizer=tokenizer, completion_only_loss=False)
    pack, seen = sft_trainer.pack_dataset, []

    def packing(dataset: Any, *arguments: Any, **settings: Any) -> Any:
        seen.append(dataset)
        return pack(dataset, *arguments, **settings)

    sft_trainer.pack_dataset = packing
    try:
        packed = sft_trainer.SFTTrainer._prepare_dataset(trainer, rows, tokenizer, settings, True, None, "train")
    finally:
        sft_trainer.pack_dataset = pack
    return seen[0], packed


def _our_sequences(dataset: Dataset) -> Sequence:
    rows = dataset.scan().select("tokens", "targets").collect()
    if isinstance(rows.schema["tokens"], pl.Array):  # packed
        rows = rows.select(pl.all().arr.to_list())
    ends = np.cumsum(rows["tokens"].list.len().to_numpy().astype(np.int64))
    ids = rows["tokens"].explode().to_numpy().astype(np.int32)
    return ids, np.where(rows["targets"].explode().to_numpy(), ids, np.int32(-100)), ends


def _their_sequences(dataset: Any) -> Sequence:
    table = pl.from_arrow(dataset.with_format("arrow")[:].select(["input_ids", "labels"]))
    assert isinstance(table, pl.DataFrame)
    ends = np.cumsum(table["input_ids"].list.len().to_numpy().astype(np.int64))
    ids, labels = (table[name].explode().to_numpy().astype(np.int32) for name in ("input_ids", "labels"))
    return ids, labels, ends


def _our_cuts(packed: Dataset) -> np.ndarray:
    """Where conversations end in the run of all packed rows; what pads a row is one of its own."""
    at, cuts = 0, []
    for segments in packed.scan().select("segments").collect()["segments"].to_list():
        cuts += (at + np.cumsum([segment["length"] for segment in segments])).tolist()
        at += _SEQ_LEN
        if cuts[-1] < at:
            cuts.append(-at)
    return np.array(cuts)


def _their_cuts(packed: Any) -> np.ndarray:
    return np.cumsum(np.concatenate(packed.with_format("numpy")["seq_lengths"][:]))


def _same(ours: Sequence, theirs: Sequence) -> bool:
    """Conversation by conversation, in their order."""
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _bag(sequences: Sequence, cuts: np.ndarray) -> Counter[bytes]:
    """How often each conversation is there; those that end at a negative place are padding."""
    ids, labels, _ = sequences
    found: Counter[bytes] = Counter()
    start = 0
    for cut in cuts.tolist():
        if cut > 0:
            found[blake2b(ids[start:cut].tobytes() + labels[start:cut].tobytes(), digest_size=16).digest()] += 1
        start = abs(cut)
    return found


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


def _conversations(real: list[list[dict[str, str]]], count: int) -> list[list[dict[str, str]]]:
    """So many conversations of one to four questions with answers, no two of them the same."""
    words = [word for talk in real for turn in talk for word in turn["content"].split(" ") if word.strip()]
    rng = random.Random(1)

    def changed(text: str) -> str:
        parts = text.split(" ")
        for at in range(0, len(parts), 8):
            parts[min(at + int(8 * rng.random()), len(parts) - 1)] = words[int(len(words) * rng.random())]
        return " ".join(parts).strip()  # a reply that began with white space could share a token with its prompt

    made = []
    for number in range(count):
        talk = [{"role": "system", "content": _SYSTEM}] if number % 2 else []
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            talk += [{**turn, "content": changed(turn["content"])} for turn in rng.choice(real)[:2]]
        made.append(talk)
    return made
