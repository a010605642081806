"""Conversations as a model reads them: its chat template and tokenizer, and what all engines share.

The laws: a message cannot write the template's special tokens; a template without a system role gets the system's words
in the first message; one seed draws differently for different conversations and alike for equal ones, whatever shares
their batch. Not covered: tools, images, and templates that need more than messages.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gristmill.dataops.dataset import InputError

Conversation = Sequence[Mapping[str, str]]
#: How special tokens are written where no tokenizer says which there are: <|im_end|>, <s>, [INST], <start_of_turn>.
_SPECIAL = re.compile(r"<\|[^|<>\s]{1,60}\|>|<｜[^｜<>]{1,60}｜>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")


@dataclass(frozen=True)
class Reply:
    """A reply: its text, which is None where a model only thought, or where what it wrote is none of the choices or no
    whole JSON; the tokens it took, the end of the turn counted; why it ended (`stop`, `length`); and the sum of those
    tokens' log-probabilities (nats) under the model at temperature 1. None where an engine does not know."""

    text: str | None
    tokens: int | None = None
    finish: str | None = None
    logprob: float | None = None


class Replying(Protocol):
    """An engine of ours: what judges call an Engine, with more said of each reply. Engines derive from it."""

    name: str
    version: str
    structured: bool

    def replies(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply | None]:
        """One reply each, in order, of at most `max_tokens` tokens, with their number, why it ended and its
        log-probability; None for a conversation that does not fit. An outage raises OSError."""

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[str | None]:
        """The texts of `replies`."""
        told = self.replies(
            conversations, max_tokens=max_tokens, temperature=temperature, seed=seed, choices=choices, schema=schema
        )
        return [None if reply is None else reply.text for reply in told]

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]] | None:
        """The log-probability (nats) of each choice as the start of the reply, over all its tokens; a row of NaN where
        it does not fit; None for an engine that cannot say."""

    def close(self) -> None:
        """Give back what the engine holds: memory, processes, connections."""


def as_messages(prompt: Any, where: str) -> Conversation:
    """A prompt as messages; plain text is what a user says. Raises InputError, naming `where` it stands."""
    if isinstance(prompt, str) and prompt:
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, list) and prompt and all(isinstance(message, Mapping) for message in prompt):
        messages = [{"role": message.get("role"), "content": message.get("content")} for message in prompt]
        if all(isinstance(value, str) for message in messages for value in message.values()):
            return messages
    raise InputError(
        f"{where}: the prompt is {str(prompt)[:60]!r}; it must be a text, or a list of messages with role and content"
    )


class Prompts:
    """The tokenizer of a local folder with its chat template. Raises InputError for a folder without them."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoTokenizer

        path = Path(folder)
        if not (path / "tokenizer_config.json").is_file():
            raise InputError(f"{path}: no tokenizer_config.json; the folder of a model with its tokenizer is wanted")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        if not self.tokenizer.chat_template:
            raise InputError(f"{path}: the tokenizer has no chat template; add a chat_template.jinja to the folder")
        self._reserved = sorted(
            (str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special and len(str(t)) > 1),
            key=len,
            reverse=True,
        )
        self._takes_system = self._renders([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])

    def messages(self, conversation: Conversation) -> list[dict[str, str]]:
        """A conversation as the template can take it, its special tokens spelled as plain text."""
        messages = [{"role": message["role"], "content": self._plain(message["content"])} for message in conversation]
        if not self._takes_system and len(messages) > 1 and messages[0]["role"] == "system":
            first, second, *others = messages
            messages = [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *others]
        return messages

    def text(self, conversation: Conversation) -> str:
        """A conversation as the template writes it, up to where the reply begins."""
        return self.tokenizer.apply_chat_template(
            self.messages(conversation), tokenize=False, add_generation_prompt=True
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered texts; nothing is added to them."""
        return self.tokenizer(list(texts), add_special_tokens=False).input_ids if texts else []

    def _plain(self, content: str) -> str:
        content = clean(content)
        for token in self._reserved:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    def _renders(self, messages: list[dict[str, str]]) -> bool:
        from jinja2 import TemplateError

        try:
            self.tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError:
            return False
        return True


def clean(content: str) -> str:
    """A message in which halves of surrogate pairs, at which tokenizers stop, are U+FFFD."""
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def spelled(conversation: Conversation) -> list[dict[str, str]]:
    """A conversation for a template that is not at hand: what looks like a special token is spelled with a space."""
    return [
        {
            "role": message["role"],
            "content": _SPECIAL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", clean(message["content"])),
        }
        for message in conversation
    ]


def check_choices(choices: Sequence[str]) -> None:
    """Raises InputError for no choices, or ones of which one begins another: their probabilities would overlap."""
    if not choices:
        raise InputError("no choices to choose from")
    for n, one in enumerate(choices):
        if not one or any(other.startswith(one) for other in (*choices[:n], *choices[n + 1 :])):
            raise InputError(f"the choice {one!r} is empty or begins another one; choices differ from the start")


def common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return next((n for n, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), min(map(len, rows)))


def held(reply: Reply, choices: Sequence[str] | None, schema: Mapping[str, Any] | None) -> Reply:
    """A reply whose text is what was asked for, one of the choices or whole JSON; otherwise it has none."""
    kept = choices is None or reply.text in choices
    if schema is not None:
        try:
            json.loads(reply.text or "")
        except (ValueError, RecursionError):
            kept = False  # cut at max_tokens
    return reply if kept else replace(reply, text=None)


def room(choices: Sequence[str]) -> int:
    """Tokens that are enough for any of the choices: its bytes, and the end of the turn."""
    return max(len(choice.encode("utf-8", "surrogatepass")) for choice in choices) + 1


def number(key: str, bits: int = 56) -> int:
    """A seed out of a text; 31 bits fit the servers that know 32-bit seeds alone."""
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)


def folder_digest(folder: str | Path) -> str:
    """SHA-256 over the names and contents of what decides a model's answers."""
    state = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt", ".bin"}:
            with path.open("rb") as stream:
                state.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()};".encode())
    return state.hexdigest()
