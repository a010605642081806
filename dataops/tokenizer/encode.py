"""Text to token ids: at the speed of gigatoken, with the ids of Hugging Face `tokenizers`.

gigatoken encodes where it accepts the tokenizer and the two agree; else `tokenizers` does. So which of them ran never
shows in the tokens. Libraries follow different versions of Unicode, so agreement is asked for each block of 64
characters when a text first holds one of it; texts with a block that comes out different go the slow way, and a
sample of every batch is encoded by both. Where a byte has no entry in the vocabulary, gigatoken is given one for it,
and texts with such a byte go the slow way. The law: text never yields a special token. A page that spells out the
end-of-document marker gets the ids of its letters, and the marker's id stands only at the ends of documents.

Not covered: differences that need characters of two blocks to meet and that neither the probes nor a sample show.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.op import Op, Split, ledger, op

_ONE_IN = 256  # documents, of which one is encoded by both
_HEAD = 2_000  # characters of it
_SAME, _DIFFERENT = 1, 2
_BLOCKS = 0x110000 >> 6
_ASCII = (0, 1)


def preload() -> None:
    """Load what encoding needs: called in a worker before the first stage."""
    import gigatoken  # noqa: F401


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
    empty = frame["text"].str.len_bytes().fill_null(0) == 0
    rows = frame.select("id", "text").filter(~empty)
    documents = encoder(path_context, tokenizer).encode(rows["text"])
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    end = np.array([eod], dtype=dtype)
    lengths = np.fromiter((len(ids) + 1 for ids in documents), dtype=np.int64, count=len(documents))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    closed = np.concatenate([part for ids in documents for part in (ids, end)] or [end[:0]], dtype=dtype)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(closed))
    kept = rows.select("id").with_columns(
        tokens=pl.Series(pl.from_arrow(lists)), n_tokens=pl.Series(lengths, dtype=pl.UInt32)
    )
    return Split(kept, ledger(frame.filter(empty), reason="no_tokens"))


@dataclass
class Encoder:
    """Texts to ids, without special tokens. `truth` is `tokenizers`; `fast` is gigatoken's encoder or None.

    `spelled` is a pattern of special tokens and of `without`, whose letters are for `truth` to encode. `agreed` holds,
    by block of 64 characters, 0 where nobody has asked yet, else whether the two give the same ids; `without` are the
    ASCII characters that have no entry, which are not asked about.
    """

    truth: Tokenizer
    fast: Any
    spelled: str | None
    without: str = ""
    agreed: np.ndarray = field(default_factory=lambda: np.zeros(_BLOCKS, dtype=np.uint8))

    def encode(self, texts: pl.Series) -> list[np.ndarray]:
        """Ids of each text, uint32."""
        if self.fast is None:
            return exact(self.truth, texts.to_list())
        slow = self._slow(texts)
        encode_one = self.fast.encode
        documents = [encode_one(text) for text in texts.cast(pl.Binary).to_list()]  # one call each: the library's way
        sample = texts.gather_every(_ONE_IN).str.slice(0, _HEAD).to_list()
        checked = zip(exact(self.truth, sample), sample, slow[::_ONE_IN], strict=True)
        if not all(aside or np.array_equal(ids, encode_one(text)) for ids, text, aside in checked):
            return exact(self.truth, texts.to_list())
        if slow.any():
            places = np.flatnonzero(slow)
            for place, ids in zip(places, exact(self.truth, texts.gather(places).to_list()), strict=True):
                documents[place] = ids
        return documents

    def _slow(self, texts: pl.Series) -> np.ndarray:
        """bool[n]: which texts are not for the fast encoder."""
        slow = np.zeros(len(texts), dtype=bool)
        if self.spelled:
            slow |= texts.str.contains(self.spelled).to_numpy()
        offsets, data = _bytes_of(texts)
        places, blocks = blocks_of(data)
        state = self.agreed[blocks]
        if not state.all():
            self.probe(np.unique(blocks[state == 0]))
            state = self.agreed[blocks]
        apart = places[state == _DIFFERENT]
        slow[np.searchsorted(offsets, apart, side="right") - 1] = True
        return slow

    def probe(self, blocks: Sequence[int] | np.ndarray) -> None:
        """Ask both about blocks of 64 characters: in a run, in words, and each between a letter and a digit."""
        texts = []
        for block in blocks:
            codes = range(int(block) << 6, (int(block) + 1) << 6)
            chars = [chr(code) for code in codes if not 0xD800 <= code < 0xE000 and chr(code) not in self.without]
            words = " ".join("".join(chars[i : i + 3]) for i in range(0, len(chars), 3))
            texts += ["".join(chars), words, " ".join(f"a{char}1" for char in chars)]
        same = [
            np.array_equal(ids, self.fast.encode(text))
            for ids, text in zip(exact(self.truth, texts), texts, strict=True)
        ]
        for number, block in enumerate(blocks):
            self.agreed[block] = _SAME if all(same[3 * number : 3 * number + 3]) else _DIFFERENT


@functools.cache
def encoder(path: str, digest: str) -> Encoder:
    """One per process and tokenizer (`digest` is part of the cache's key)."""
    from gigatoken.gigatoken_rs import load_hf_json

    truth = Tokenizer.from_file(path)
    truth.no_truncation()
    truth.no_padding()
    truth.encode_special_tokens = True  # the letters of a special token are letters
    given = json.loads(Path(path).read_bytes())
    spec, without = _completed(given)
    try:
        fast = load_hf_json(Path(path).read_bytes() if spec is given else json.dumps(spec).encode())
    except Exception:  # gigatoken refuses a tokenizer with whatever error its parser meets first
        return Encoder(truth, None, None)
    added = list(truth.get_added_tokens_decoder().values())
    slow = [re.escape(text) for text in (*(token.content for token in added if token.special), *without)]
    made = Encoder(truth, fast, "|".join(slow) or None, without)
    hand = [*_HAND, *(f"a{token.content}b {token.content} " for token in added if not token.special)]
    same = zip(exact(truth, hand), hand, strict=True)
    made.probe(_ASCII)
    if not all(np.array_equal(ids, fast.encode(text)) for ids, text in same) or (made.agreed[[*_ASCII]] != _SAME).any():
        return Encoder(truth, None, None)
    return made


def _completed(spec: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """A byte-level tokenizer with an entry for each byte, as gigatoken wants it; and ASCII characters that had none.

    The ids of these entries are nobody's, so that what holds one differs from the truth. `byte_fallback` falls back to
    entries such as <0x0A>: where there is none, it does nothing, and gigatoken would refuse it.
    """
    model, part = spec["model"], spec.get("pre_tokenizer") or {}
    parts = [part, *part.get("pretokenizers", ())]
    if "merges" not in model or all(item.get("type") != "ByteLevel" for item in parts):
        return spec, ""
    vocab = dict(model["vocab"])
    size = max([*vocab.values(), *(token["id"] for token in spec.get("added_tokens", ()))], default=-1) + 1
    missing = {letter: byte for letter, byte in _LETTERS.items() if letter not in vocab}
    vocab |= {letter: size + n for n, letter in enumerate(missing)}
    fallback = bool(model.get("byte_fallback")) and any(re.fullmatch("<0x[0-9A-F]{2}>", entry) for entry in vocab)
    if not missing and fallback == bool(model.get("byte_fallback")):
        return spec, ""
    without = "".join(chr(byte) for byte in missing.values() if byte < 0x80)
    return {**spec, "model": {**model, "vocab": vocab, "byte_fallback": fallback}}, without


#: The letters that byte-level vocabularies write for bytes: printable ones for themselves, others from U+0100 on.
_SHOWN = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_HIDDEN = tuple(byte for byte in range(0x100) if byte not in _SHOWN)
_LETTERS = {chr(byte): byte for byte in _SHOWN} | {chr(0x100 + n): byte for n, byte in enumerate(_HIDDEN)}

#: Texts on which tokenizers have been seen to differ: spaces, clitics, numbers, line ends, composed characters.
_HAND = (
    "", " ", "  \n\n\t x", " a  b   c ", "I'll we've DON'T 'S can't", "1234567890 12,345.67 ٣٤٥", "a\r\nb\r\n \n",
    "e\u0301 é ﬁ", "q\u0307\u0323 a\u0323\u0302", "\u1100\u1161\u11a8 \uac00\u11a8", "\u2581 a\u2581b", "<0x41>",
)  # fmt: skip


def exact(truth: Tokenizer, texts: list[str]) -> list[np.ndarray]:
    """The ids of `tokenizers`, uint32 for each text."""
    encoded = truth.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.uint32) for encoding in encoded]


def _bytes_of(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Offsets int64[n + 1] and the UTF-8 bytes of all texts, from the first on."""
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, data = array.buffers()
    offsets = np.frombuffer(ends, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    held = np.frombuffer(data, dtype=np.uint8) if data is not None else np.zeros(0, dtype=np.uint8)
    return offsets - offsets[0], held[offsets[0] : offsets[-1]]


def blocks_of(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where characters beyond ASCII begin in UTF-8, and the block of 64 that each is of (its code point >> 6).

    The last byte of a character counts within a block, those before it name the block.
    """
    places = np.flatnonzero(data >= 0xC0)
    lead = data[places].astype(np.int32)
    second = (data[places + 1] & 0x3F).astype(np.int32)
    blocks = np.where(lead < 0xE0, lead & 0x1F, (lead & 0x0F) << 6 | second)
    long = np.flatnonzero(lead >= 0xF0)
    if len(long):
        third = (data[places[long] + 2] & 0x3F).astype(np.int32)
        blocks[long] = (lead[long] & 0x07) << 12 | second[long] << 6 | third
    return places, blocks
