"""Rendered conversations to token ids: template text with its special tokens, messages as letters.

A text is cut at the bounds of what the assistant says and at the special tokens of its template; the pieces are encoded
by `tokenizer.encode`, each different one of a batch once. So no token straddles a bound: the ids of a prompt and of a
reply, one after the other, are those of the conversation, and a model is trained on what it will be asked to go on
from. Where no token would straddle, the ids are those of transformers' apply_chat_template.

Tokenizers that put a space before every text (SentencePiece's way) do so at the start and, if they are made so, behind
special tokens; a piece that goes on within a text gets none.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer

from gristmill.dataops.chat.render import Template, Text
from gristmill.dataops.tokenizer.encode import Encoder, encoder

Chunk = tuple[Text, int, int]  # a text, and the span of it to encode by itself


@dataclass(frozen=True)
class Chat:
    """A chat tokenizer, opened. `plain` encodes a text; `going_on` what goes on within one, None where that is the
    same; `spaced` says whether a text behind a special token counts as a new one. `marks` finds special tokens with the
    white space that they swallow, in a group, `ids` are theirs; `greedy` are those that swallow what follows."""

    template: Template
    plain: Encoder
    going_on: Encoder | None
    spaced: bool
    marks: re.Pattern[str]
    ids: dict[str, int]
    greedy: tuple[str, ...]

    def encode(self, chunks: Sequence[Chunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The ids of all chunks in a run, uint32; where each chunk begins in it, int64[n + 1]; and whether it is
        spelled, bool[n]: not where a character has no entry and comes out as a special token. A chunk that starts at 0
        is a text's beginning; others go on."""
        order: dict[tuple[bool, str], int] = {}
        special: dict[str, int] = {}
        plan: list[int] = []  # of all chunks: the place of a piece of text, or -1 - that of a special token
        counts = []
        alike = self.going_on is None and not self.greedy
        for text, start, stop in chunks:
            planned = len(plan)
            pieces = (
                self._cut(text, start, stop) if alike and text.safe is text.text else self._pieces(text, start, stop)
            )
            for kind, piece in pieces:
                if kind is None:
                    plan.append(-1 - special.setdefault(piece, len(special)))
                else:
                    plan.append(order.setdefault((kind, piece), len(order)))
            counts.append(len(plan) - planned)
        encoded = self._encoded(list(order))
        parts = [*encoded, *(np.array([self.ids[name]], dtype=np.uint32) for name in reversed(special))]
        which = np.array(plan, dtype=np.int64)  # negative ones are the last parts
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        flat = np.concatenate([parts[at] for at in plan] or [np.zeros(0, np.uint32)])
        firsts = np.concatenate([[0], np.cumsum(np.array(counts, dtype=np.int64))])
        unspelled = np.zeros(len(parts), dtype=np.int64)
        unspelled[list(self._unspelled(encoded))] = 1
        return flat, _sums(sizes[which])[firsts], np.diff(_sums(unspelled[which])[firsts]) == 0

    def _unspelled(self, pieces: Sequence[np.ndarray]) -> set[int]:
        """The pieces, letters all, that hold the id of a special token."""
        flat = np.concatenate(pieces or [np.zeros(0, np.uint32)])
        places = np.flatnonzero(np.isin(flat, np.fromiter(self.ids.values(), np.uint32, len(self.ids))))
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        return set(np.searchsorted(ends, places, side="right").tolist())

    def _cut(self, text: Text, start: int, stop: int) -> list[tuple[bool | None, str]]:
        """What `_pieces` gives, where no text is guarded and where a piece stands does not matter."""
        found = self.marks.split(text.text[start:stop])
        return [
            (False, piece) if number % 2 == 0 else (None, piece if piece in self.ids else piece.strip())
            for number, piece in enumerate(found)
            if piece
        ]

    def _pieces(self, text: Text, start: int, stop: int) -> Iterator[tuple[bool | None, str]]:
        """(whether it goes on, text) of pieces of text, (None, name) of special tokens."""
        behind = self.spaced and text.safe.endswith(tuple(self.ids), 0, start)
        goes_on = self.going_on is not None and start > 0 and not behind
        if self.greedy and text.safe.endswith(self.greedy, 0, start):  # a bound does not keep white space from it
            start = stop - len(text.safe[start:stop].lstrip())
        at = start
        for found in self.marks.finditer(text.safe, start, stop):
            if found.start() > at:
                yield goes_on, text.text[at : found.start()]
            yield None, found.group().strip() if found.group() not in self.ids else found.group()
            at = found.end()
            goes_on = self.going_on is not None and not self.spaced
        if at < stop:
            yield goes_on, text.text[at:stop]

    def _encoded(self, pieces: list[tuple[bool, str]]) -> list[np.ndarray]:
        texts = pl.Series([text for _, text in pieces], dtype=pl.String)
        if self.going_on is None:
            return self.plain.encode(texts)
        goes_on = np.fromiter((kind for kind, _ in pieces), bool, len(pieces))
        found: list[np.ndarray] = [np.zeros(0, np.uint32)] * len(pieces)
        for which, encode in ((~goes_on, self.plain), (goes_on, self.going_on)):
            places = np.flatnonzero(which)
            for place, ids in zip(places.tolist(), encode.encode(texts.gather(places)), strict=True):
                found[place] = ids
        return found


def _sums(values: np.ndarray) -> np.ndarray:
    """What stands before each value, and behind the last."""
    return np.concatenate([[0], np.cumsum(values)])


@functools.lru_cache(maxsize=8)
def opened(folder: str, key: str) -> Chat:
    """The chat tokenizer in a folder: one per process and `key`, which changes with its content."""
    where = Path(folder)
    spec = json.loads((where / "tokenizer.json").read_bytes())
    config = json.loads((where / "tokenizer_config.json").read_bytes())
    special = {token["content"]: token for token in spec["added_tokens"] if token["special"]}
    variables = {name: value for name, value in config.items() if name.endswith("_token") and isinstance(value, str)}
    source = (where / "chat_template.jinja").read_bytes().decode()
    template = Template(source, str(where / "chat_template.jinja"), variables, list(special))
    ids = {name: token["id"] for name, token in special.items()}
    continued, spaced = _without_space(spec)
    going_on = None if continued is None else _slow(continued)
    plain = encoder(str(where / "tokenizer.json"), key)
    greedy = tuple(name for name, token in special.items() if token["rstrip"])
    return Chat(template, plain, going_on, spaced, _marks(special), ids, greedy)


def _marks(special: dict[str, Any]) -> re.Pattern[str]:
    """Special tokens, the longest first, with the white space that `lstrip` and `rstrip` make them swallow."""
    names = sorted(special, key=len, reverse=True)
    parts = [
        (r"\s*" if special[name]["lstrip"] else "") + re.escape(name) + (r"\s*" if special[name]["rstrip"] else "")
        for name in names
    ]
    return re.compile(f"({'|'.join(parts) or '(?!)'})")


def _slow(spec: dict[str, Any]) -> Encoder:
    truth = Tokenizer.from_str(json.dumps(spec))
    truth.no_truncation()
    truth.no_padding()
    truth.encode_special_tokens = True
    return Encoder(truth, None, None)


def _without_space(spec: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    """(the tokenizer that puts no space before a text, None where the given one puts none; whether the given one puts
    one also behind special tokens)."""
    found: list[bool] = []

    def changed(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        part = dict(part)
        for name in ("normalizers", "pretokenizers"):
            if name in part:
                part[name] = [item for item in map(changed, part[name]) if item is not None]
        if part.get("type") == "Prepend":
            found.append(True)
            return None
        if part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never":
            found.append(part.get("prepend_scheme", "always") == "always")
            part["prepend_scheme"] = "never"
        if part.get("type") == "ByteLevel" and part.get("add_prefix_space"):
            found.append(True)
            part["add_prefix_space"] = False
        return part

    other = {**spec, "normalizer": changed(spec["normalizer"]), "pre_tokenizer": changed(spec["pre_tokenizer"])}
    return (other if found else None), any(found)
