"""A tokenizer as it is given: found, checked, described, published.

Whatever its origin, a tokenizer is a published artefact whose digest enters the identity of every token. It is kept as
`tokenizer.json`, with the configuration beside it that lets transformers load the folder as it is. The law: its end of
document is one token, known before anything is encoded. Not covered: tokenizers that exist as a SentencePiece model or
as Python code alone.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import op

END_OF_DOCUMENT = "<|endoftext|>"
#: ChatML's, which tokenizers trained here reserve, so that a model pretrained with one can learn to chat.
CHAT = ("<|im_start|>", "<|im_end|>")
#: What ends documents in known vocabularies. Chat models state what ends their turns instead.
_KNOWN_ENDS = (END_OF_DOCUMENT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")


@op("tokenizer.import", version=1, kind="artifact")
def import_tokenizer(_: Sequence[Dataset], folder: Path, *, end_of_document: str, path_context: str) -> dict[str, Any]:
    """A given tokenizer.json, with its configuration where that lies beside it."""
    source = Path(path_context)
    shutil.copy(source, folder / "tokenizer.json")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source.parent / name).is_file() and source.name == "tokenizer.json":
            shutil.copy(source.parent / name, folder / name)
    return describe(folder, end_of_document, read(source))


def given(path: str) -> tuple[Path, str]:
    """The tokenizer.json that a folder or a file names, and its end-of-document token: the stated end of sequence where
    that is known to end documents, else a known end that the vocabulary has, else the stated one. Raises InputError."""
    where = Path(path)
    where = where / "tokenizer.json" if where.is_dir() else where
    if not where.is_file():
        raise InputError(f"no tokenizer at {path}: give a tokenizer.json or a folder that holds one")
    tokenizer = read(where)
    stated = _stated_end(where.parent / "tokenizer_config.json")
    candidates = [*([stated] if stated in _KNOWN_ENDS else []), *_KNOWN_ENDS, *filter(None, [stated]), CHAT[1]]
    for token in candidates:
        if tokenizer.token_to_id(token) is not None:
            return where, token
    raise InputError(f"{where} has no end-of-document token: looked for {', '.join(dict.fromkeys(candidates))}")


def _stated_end(config: Path) -> str | None:
    if not config.is_file():
        return None
    try:
        stated = json.loads(config.read_bytes()).get("eos_token")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{config} is no JSON object: {error}") from None
    return stated.get("content") if isinstance(stated, dict) else stated


def read(path: Path) -> Tokenizer:
    """A tokenizer.json, to be asked and not changed: it is read once (0.1 s) however often it is named."""
    state = path.stat()
    return _read(str(path.resolve()), state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: str, _: int, __: int) -> Tokenizer:
    try:
        return Tokenizer.from_file(path)
    except Exception as error:  # the library raises bare Exception for any bad file
        raise InputError(f"{path} is not a tokenizer that `tokenizers` can read: {error}") from None


def describe(folder: Path, end_of_document: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """Vocabulary size (highest id + 1: what an embedding must hold), entries, and the end-of-document token.

    Writes tokenizer_config.json where there is none.
    """
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
