"""SentencePiece models: trained, and written as a tokenizer.json that gives the same ids.

The layout is Llama's: a space is U+2581 and one stands before every text; identity instead of normalisation, because
SentencePiece's default (nmt_nfkc) folds characters and drops line ends; characters too rare for an entry of their own
are spelled in the 256 byte pieces. Lines are sentences, so line ends and tabs are always spelled in bytes. The law:
neither `<unk>` nor a reserved token nor a byte piece ever stands for a text that spells its name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from gristmill.dataops.dataset import InputError

_SPACE = "\u2581"
_UNKNOWN = "<unk>"
_COVERAGE = 0.9995  # of the characters: SentencePiece's default, and Llama's
#: Sums of floats depend on how the work is divided, so it is divided alike on every machine.
_THREADS = 4
_ALWAYS = "".join(map(chr, range(0x21, 0x7F)))
_NEVER = -1e4  # the log probability of entries that no text may take: below any way to spell it
#: SentencePiece keeps U+2585 for itself and skips sentences that hold a tab.
_ENDS = re.compile("[\r\n\t\0\u2585]+")
_LONGEST = 1 << 16


def train(
    texts: Iterable[str],
    *,
    model: Literal["unigram", "bpe"],
    vocab_size: int,
    split_digits: bool,
    reserved: Sequence[str],
) -> bytes:
    """A SentencePiece model, serialised: <unk> is 0, the `reserved` follow (first the end of document), then bytes.

    May have fewer entries than asked.

    Raises InputError where the size does not hold the characters of the corpus.
    """
    import sentencepiece

    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=written,
            model_type=model,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            split_digits=split_digits,
            allow_whitespace_only_pieces=True,  # runs of spaces, for code
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=_COVERAGE,
            required_chars=_ALWAYS,
            max_sentence_length=8 * _LONGEST,
            num_threads=_THREADS,
            unk_id=0,
            unk_piece=_UNKNOWN,
            eos_id=1,
            eos_piece=reserved[0],
            control_symbols=list(reserved[1:]),
            bos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"SentencePiece cannot train {vocab_size:,} entries on this corpus ({said}): give more text, or another "
            "vocabulary size"
        ) from None
    return written.getvalue()


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in _ENDS.split(text):
            for start in range(0, len(line), _LONGEST):
                yield line[start : start + _LONGEST]


def as_tokenizer(proto: bytes, model: Literal["unigram", "bpe"], reserved: Sequence[str]) -> Tokenizer:
    """The model for `tokenizers` and transformers, ids unchanged."""
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    ids = range(processor.get_piece_size())
    names = [processor.id_to_piece(i) for i in ids]
    plain = [not (processor.is_unknown(i) or processor.is_control(i) or processor.is_byte(i)) for i in ids]
    scores = [processor.get_score(i) if plain[i] else _NEVER for i in ids]
    if model == "unigram":
        tokenizer = Tokenizer(models.Unigram(list(zip(names, scores, strict=True)), 0, byte_fallback=True))
    else:
        vocab = {name: i for i, name in enumerate(names)}
        merges = _merges({name: scores[i] for i, name in enumerate(names) if plain[i]}, vocab)
        tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token=_UNKNOWN, fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in reserved])
    return tokenizer


def _merges(scores: dict[str, float], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """SentencePiece joins the two neighbours whose union scores best; so every way to cut an entry is a merge."""
    found = [
        (-score, vocab[name[:at]], vocab[name[at:]], name[:at], name[at:])
        for name, score in scores.items()
        for at in range(1, len(name))
        if name[:at] in scores and name[at:] in scores
    ]
    return [(left, right) for *_, left, right in sorted(found)]
