"""What tokens are made of: the tokenizer behind a dataset of tokens, and the length of its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.dataops.dataset import Dataset, InputError


@dataclass(frozen=True)
class TokenFacts:
    """Which tokenizer made the tokens: the digest of its dataset, its end of document, and how many ids there are."""

    tokenizer: str
    eod: int
    vocab_size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The narrowest of the two integer types that token files use."""
        return np.dtype("<u2") if self.vocab_size <= 1 << 16 else np.dtype("<i4")


def token_facts(dataset: Dataset) -> TokenFacts:
    """Read from the encoding behind the tokens. Raises InputError where there is none."""
    ahead = [dataset]
    while ahead:
        item = ahead.pop(0)
        for op in item.manifest["ops"]:
            if op["name"] in ("text.encode", "chat.encode"):
                return TokenFacts(*(op["params"][name] for name in ("tokenizer", "eod", "vocab_size")))
        ahead += item.inputs
    raise InputError(f"{dataset.name} holds tokens of a tokenizer that is not known")


def seq_len_of(dataset: Dataset) -> int:
    """Tokens per packed row. Raises InputError for a dataset that is not packed."""
    schema = dataset.schema()
    if "segments" not in schema.names or not pa.types.is_fixed_size_list(schema.field("tokens").type):
        raise InputError(f"{dataset.name} holds no packed rows of tokens: pack it first")
    return schema.field("tokens").type.list_size
