"""Tokenizers trained on a corpus, or on a weighted sample of it.

Three kinds: byte-level BPE (GPT-2's), and Unigram and BPE over characters with SentencePiece's conventions (Llama's).
All can encode any text, since what has no entry of its own is spelled in bytes; no text yields `<unk>`, the end of
document or a marker of chats, which are entries of every vocabulary. The law: the same rows give the same files, on
every machine. Training reads a sample with a stated budget (`sample`), so neither memory nor time grows with the
corpus; the stats say what was seen of each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op, op
from gristmill.dataops.tokenizer import pieces, sample
from gristmill.dataops.tokenizer.given import CHAT, END_OF_DOCUMENT, describe
from gristmill.dataops.tokenizer.sample import BUDGET

_RESERVED = (END_OF_DOCUMENT, *CHAT)
Kind = Literal["byte-bpe", "unigram", "bpe"]
KINDS = ("byte-bpe", "unigram", "bpe")


def check_vocab_size(vocab_size: int) -> None:
    """Raises InputError outside 1,000 to 131,072 entries."""
    if not 1_000 <= vocab_size <= 131_072:
        raise InputError(f"vocab_size {vocab_size} is outside 1,000 to 131,072")


def train(
    kind: Kind,
    *,
    vocab_size: int,
    weights: Mapping[str, float] | None = None,
    by: str | None = None,
    budget: int = BUDGET,
) -> Op:
    """The op that trains a tokenizer of this kind. Raises InputError for a kind or size that cannot be."""
    check_vocab_size(vocab_size)
    if weights is not None:
        sample.check_weights(weights)  # before they enter a key, which takes no NaN
    if kind == "byte-bpe":
        return train_bpe(vocab_size=vocab_size, weights=weights, by=by, budget=budget)
    if kind not in KINDS:
        raise InputError(f"no kind of tokenizer {kind!r}; there are: {', '.join(KINDS)}")
    return train_sentencepiece(model=kind, vocab_size=vocab_size, weights=weights, by=by, budget=budget)


@op("tokenizer.train_bpe", version=3, kind="artifact")
def train_bpe(
    inputs: Sequence[Dataset],
    folder: Path,
    *,
    vocab_size: int = 32_000,
    weights: Mapping[str, float] | None = None,
    by: str | None = None,
    budget: int = BUDGET,
) -> dict[str, Any]:
    """Byte-level BPE (Sennrich et al. 2016; Radford et al. 2019) on the `text` of datasets.

    Byte-complete: all 256 bytes are in the vocabulary, so any text can be encoded and decoded back. `vocab_size` from
    1,000 to 131,072 counts the reserved tokens (end of document, two of chats); a small corpus may yield fewer
    entries, and the stats say so. `weights` by the values of the column `by` (or dataset) choose the sample, see
    `sample`; `budget` is in bytes.
    """
    check_vocab_size(vocab_size)
    by = by or sample.grouping(inputs)
    chosen = sample.choose(inputs, by=by, weights=weights, budget=budget)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True) for token in _RESERVED],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(inputs, chosen), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _stats(folder, tokenizer, "byte-bpe", vocab_size, chosen)


@op("tokenizer.train_sentencepiece", version=2, kind="artifact")
def train_sentencepiece(
    inputs: Sequence[Dataset],
    folder: Path,
    *,
    model: Literal["unigram", "bpe"] = "unigram",
    vocab_size: int = 32_000,
    split_digits: bool = True,
    weights: Mapping[str, float] | None = None,
    by: str | None = None,
    budget: int = BUDGET,
) -> dict[str, Any]:
    """Unigram (Kudo 2018) or BPE over characters with byte fallback, trained by SentencePiece (Kudo, Richardson 2018).

    Writes tokenizer.model, and tokenizer.json with the same entries and ids. Text is not normalised: every text comes
    back as it was, but U+2581, with which SentencePiece writes a space, comes back as one. `split_digits` keeps each
    digit a token of its own, as Llama does. The rest is as in `train_bpe`.
    """
    check_vocab_size(vocab_size)
    by = by or sample.grouping(inputs)
    chosen = sample.choose(inputs, by=by, weights=weights, budget=budget)
    proto = pieces.train(
        _texts(inputs, chosen), model=model, vocab_size=vocab_size, split_digits=split_digits, reserved=_RESERVED
    )
    (folder / "tokenizer.model").write_bytes(proto)
    tokenizer = pieces.as_tokenizer(proto, model, _RESERVED)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _stats(folder, tokenizer, model, vocab_size, chosen)


def _texts(inputs: Sequence[Dataset], chosen: sample.Chosen) -> Iterator[str]:
    for rows in sample.texts(inputs, chosen):
        yield from rows["text"]


def _stats(folder: Path, tokenizer: Tokenizer, kind: str, asked: int, chosen: sample.Chosen) -> dict[str, Any]:
    return {**describe(folder, END_OF_DOCUMENT, tokenizer), "kind": kind, "asked": asked, "sample": chosen.stats()}
