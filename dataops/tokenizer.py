"""Tokenizers as datasets, and text to token ids.

A tokenizer is trained on the cleaned corpus or imported; either way it is a published artefact whose digest enters the
identity of every token. Encoding runs on gigatoken where it accepts the tokenizer and gives the ids of Hugging Face
`tokenizers` on the probes below and on a sample of every batch; else on `tokenizers` itself. So which of them ran never
shows in the tokens. Text never yields a special token: a page that spells out the end-of-document marker gets the ids
of its letters, and the marker's id stands only at the ends of documents.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op, Split, ledger, op

END_OF_DOCUMENT = "<|endoftext|>"
_KNOWN_ENDS = (END_OF_DOCUMENT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>")
_SAMPLE = 8  # documents per batch whose ids are compared with `tokenizers`


def check_vocab_size(vocab_size: int) -> None:
    """Raises InputError outside 1,000 to 131,072 entries."""
    if not 1_000 <= vocab_size <= 131_072:
        raise InputError(f"vocab_size {vocab_size} is outside 1,000 to 131,072")


@op("tokenizer.train_bpe", version=1, kind="artifact")
def train_bpe(inputs: Sequence[Dataset], folder: Path, *, vocab_size: int = 32_000) -> dict[str, Any]:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) on the `text` of a dataset.

    Byte-complete: all 256 bytes are in the vocabulary, so any text can be encoded and decoded back. `vocab_size` from
    1,000 to 131,072 counts the end-of-document token; a small corpus may yield fewer entries, and the stats say so.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(END_OF_DOCUMENT, special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(inputs[0]), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _describe(folder, END_OF_DOCUMENT)


@op("tokenizer.import", version=1, kind="artifact")
def import_tokenizer(_: Sequence[Dataset], folder: Path, *, end_of_document: str, path_context: str) -> dict[str, Any]:
    """A given tokenizer.json, with its configuration where that lies beside it."""
    source = Path(path_context)
    shutil.copy(source, folder / "tokenizer.json")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source.parent / name).is_file() and source.name == "tokenizer.json":
            shutil.copy(source.parent / name, folder / name)
    return _describe(folder, end_of_document)


def given(path: str) -> tuple[Path, str]:
    """The tokenizer.json that a folder or a file names, and its end-of-document token. Raises InputError."""
    where = Path(path)
    where = where / "tokenizer.json" if where.is_dir() else where
    if not where.is_file():
        raise InputError(f"no tokenizer at {path}: give a tokenizer.json or a folder that holds one")
    try:
        tokenizer = Tokenizer.from_file(str(where))
    except Exception as error:  # the library raises bare Exception for any bad file
        raise InputError(f"{where} is not a tokenizer that `tokenizers` can read: {error}") from None
    candidates = list(_KNOWN_ENDS)
    config = where.parent / "tokenizer_config.json"
    if config.is_file():
        stated = json.loads(config.read_text()).get("eos_token")
        stated = stated.get("content") if isinstance(stated, dict) else stated
        candidates[:0] = [stated] if stated else []
    for token in candidates:
        if tokenizer.token_to_id(token) is not None:
            return where, token
    raise InputError(f"{where} has no end-of-document token: looked for {', '.join(candidates)}")


def encode(tokenizer: Dataset) -> Op:
    """The op that turns `text` into ids of this tokenizer."""
    stats = tokenizer.manifest["stats"]
    return encode_text(
        tokenizer=tokenizer.digest,
        eod=stats["eod"],
        vocab_size=stats["vocab_size"],
        path_context=tokenizer.file("tokenizer.json"),
    )


@op("text.encode", version=1)
def encode_text(frame: pl.DataFrame, *, tokenizer: str, eod: int, vocab_size: int, path_context: str) -> Split:
    """`tokens`: list of uint16 where the vocabulary fits, else uint32, closed by `eod`; and `n_tokens` with it.

    Drops `no_tokens`: a document without text would be an end without a beginning.
    """
    encoder = _encoder(path_context, tokenizer)
    empty = frame["text"].str.len_bytes() == 0
    rows = frame.filter(~empty)
    offsets, ids = encoder.encode(rows["text"])
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    ends = offsets[1:] + np.arange(1, len(offsets))  # after each document one more place, for eod
    closed = np.full(len(ids) + rows.height, eod, dtype=dtype)
    place = np.ones(len(closed), dtype=bool)
    place[ends - 1] = False
    closed[place] = ids
    lists = pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int64()), pa.array(closed))
    kept = rows.select("id").with_columns(
        tokens=pl.Series(pl.from_arrow(lists)), n_tokens=pl.Series(np.diff(ends, prepend=0), dtype=pl.UInt32)
    )
    return Split(kept, ledger(frame.filter(empty), reason="no_tokens"))


@dataclass(frozen=True)
class _Encoder:
    """`tokenizers` for the truth, gigatoken for speed where the two agree; `apart` is a pattern of where they may not:
    special tokens spelled out in a text, and the characters of the probes that came out different."""

    truth: Tokenizer
    fast: Any
    apart: str | None

    def encode(self, texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """(offsets int64[n + 1], ids uint32) of texts, without special tokens."""
        if self.fast is None:
            return _flat(_truth(self.truth, texts.to_list()))
        slow = texts.str.contains(self.apart) if self.apart else pl.repeat(False, len(texts), eager=True)
        chosen = texts.filter(~slow).to_list()
        offsets, ids = _fast(self.fast, chosen)
        sample = [text[:2_000] for text in chosen[:: max(1, len(chosen) // _SAMPLE)]]
        if not _same(_fast(self.fast, sample), _flat(_truth(self.truth, sample))):
            return _flat(_truth(self.truth, texts.to_list()))
        if not slow.any():
            return offsets, ids
        quick = iter(np.split(ids, offsets[1:-1]) if chosen else [])
        rest = iter(_truth(self.truth, texts.filter(slow).to_list()))
        return _flat([next(rest) if aside else next(quick) for aside in slow])


@functools.cache
def _encoder(path: str, digest: str) -> _Encoder:
    """One per process and tokenizer (`digest` is part of the cache's key)."""
    import gigatoken

    truth = Tokenizer.from_file(path)
    truth.no_truncation()
    truth.no_padding()
    truth.encode_special_tokens = True  # the letters of a special token are letters
    try:
        fast = gigatoken.Tokenizer.from_json(Path(path).read_text())
    except Exception:  # gigatoken refuses a tokenizer with whatever error its parser meets first
        return _Encoder(truth, None, None)
    # Libraries follow different versions of Unicode: where a block of characters comes out different (seen with the
    # order of newer combining marks under NFC), texts with any of them go the slow way.
    blocks, hand = _probes()
    texts = [*blocks, *(" ".join(block[i : i + 3] for i in range(0, len(block), 3)) for block in blocks)]
    expected = _truth(truth, texts)
    offsets, ids = _fast(fast, texts)
    wrong = [not np.array_equal(ids[offsets[k] : offsets[k + 1]], expected[k]) for k in range(len(texts))]
    doubtful = [block for k, block in enumerate(blocks) if wrong[k] or wrong[k + len(blocks)]]
    if len(doubtful) > len(blocks) // 10 or not _same(_fast(fast, hand), _flat(_truth(truth, hand))):
        return _Encoder(truth, None, None)
    added = truth.get_added_tokens_decoder().values()
    patterns = [re.escape(token.content) for token in added if token.special]
    patterns += [f"[\\x{{{ord(block[0]):X}}}-\\x{{{ord(block[-1]):X}}}]" for block in doubtful]
    return _Encoder(truth, fast, "|".join(patterns) or None)


def _probes() -> tuple[list[str], list[str]]:
    """Blocks of 64 characters over the planes in use, and texts on which tokenizers have been seen to differ."""
    planes = (range(0, 0xD800, 64), range(0xE000, 0x11000, 64), range(0x1F000, 0x1FB00, 64))
    blocks = ["".join(map(chr, range(at, at + 64))) for plane in planes for at in plane]
    hand = ["", " ", "  \n\n\t x", "I'll we've DON'T 'S can't", "1234567890 12,345.67 ٣٤٥", "a\r\nb\r\n", "e\u0301 é ﬁ"]
    return blocks, hand


def _same(left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def _truth(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def _fast(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    if not texts:
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint32)
    layout = tokenizer.encode_batch(texts).layout.to_ListOffsetArray64(True)
    offsets = layout.offsets.data
    return offsets, layout.content.data[: offsets[-1]].astype(np.uint32, copy=False)


def _flat(lists: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in lists], dtype=np.int64)])
    ids = [np.asarray(ids, dtype=np.uint32) for ids in lists if len(ids)]
    return offsets, np.concatenate(ids) if ids else np.zeros(0, dtype=np.uint32)


def _texts(dataset: Dataset) -> Iterator[str]:
    for batch in dataset.batches(1_000, ["text"]):
        yield from batch.column("text").to_pylist()


def _describe(folder: Path, end_of_document: str) -> dict[str, Any]:
    """Vocabulary size (highest id + 1: what an embedding must hold) and the end-of-document token."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    if not config.exists():
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end_of_document}
        config.write_text(json.dumps(settings, indent=1))
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    return {
        "vocab_size": highest + 1,
        "entries": tokenizer.get_vocab_size(with_added_tokens=True),
        "eod": tokenizer.token_to_id(end_of_document),
        "eod_token": end_of_document,
    }
