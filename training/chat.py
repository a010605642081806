"""The tokenizer and chat template that a model speaks with, and whether data was made for it.

The law: a model is never trained on chat data of another vocabulary or another template than its own; where they
differ, the error names both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError, is_remote

#: What a chat tokenizer's dataset holds, and a checkpoint that was trained with one.
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class Chat:
    """transformers' tokenizer of a dataset; `vocabulary` is the digest of the plain tokenizer dataset, `template` the
    SHA-256 of the chat template's text."""

    tokenizer: Any
    vocabulary: str
    template: str
    source: Dataset

    @property
    def stats(self) -> dict[str, Any]:
        """What a checkpoint that speaks so says of it: `tokenizer`, `template`, and of `vocab_size` and the ids `eod`,
        `eos`, `pad` those that are known."""
        known = self.source.manifest["stats"]
        ids = {name: known[name] for name in ("vocab_size", "eod", "eos", "pad") if name in known}
        return {"tokenizer": self.vocabulary, "template": self.template, **ids}

    def save(self, folder: Path) -> None:
        """Put the files beside a model's."""
        for name in FILES:
            path = Path(self.source.file(name))
            if path.is_file():
                (folder / name).write_bytes(path.read_bytes())


def open_chat(dataset: Dataset) -> Chat:
    """The tokenizer and template in a dataset: a chat tokenizer, or a checkpoint trained with one. Raises InputError
    where there is none."""
    from transformers import AutoTokenizer

    names = {entry["file"] for entry in dataset.manifest.get("files", [])}
    missing = [name for name in FILES if f"files/{name}" not in names]
    if missing:
        raise InputError(
            f"{dataset.name} at {dataset.path} has no {', '.join(missing)}: name a chat tokenizer in `tokenizer`"
        )
    if is_remote(dataset.path):
        raise InputError(f"{dataset.path}: copy it to a local folder first")
    template = Path(dataset.file("chat_template.jinja")).read_bytes()
    stats = dataset.manifest["stats"]
    found = hashlib.sha256(template).hexdigest()
    if stats.get("template") != found:
        raise InputError(
            f"{dataset.path}: chat_template.jinja has SHA-256 {found}, the manifest says {stats.get('template')}: "
            "it was changed after it was published"
        )
    tokenizer = AutoTokenizer.from_pretrained(dataset.file(""), local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Chat(tokenizer, stats["tokenizer"], found, dataset)


def chat_of(start: Dataset, given: Dataset | None) -> Chat:
    """The chat of a model: the tokenizer dataset that was given, else its own. Raises InputError where the model was
    trained on another vocabulary, or already speaks another template."""
    chat = open_chat(start if given is None else given)
    stats = start.manifest["stats"]
    known = stats.get("tokenizer")
    if known is not None and known != chat.vocabulary:
        raise InputError(
            f"{start.name} at {start.path} was trained with tokenizer {known[:12]}, "
            f"{chat.source.name} is of tokenizer {chat.vocabulary[:12]}"
        )
    before = stats.get("template")
    if before is not None and before != chat.template:
        raise InputError(
            f"{start.name} at {start.path} speaks template {before[:12]}, {chat.source.name} has {chat.template[:12]}: "
            "a model keeps its template from SFT to serving"
        )
    return chat


def check_data(chat: Chat, data: Dataset, *, template: bool = True) -> dict[str, Any]:
    """The parameters of the op that encoded a dataset. Raises InputError where it was encoded with another tokenizer
    or (unless `template` is False: plain packed text) another template."""
    params: dict[str, Any] = {}
    for op in data.base.manifest["ops"]:
        params |= {name: op["params"][name] for name in ("tokenizer", "template", "vocab_size") if name in op["params"]}
    for made in _inputs(data.base):  # packing comes after encoding
        params = {**{name: made[name] for name in ("template",) if name in made}, **params}
    if "tokenizer" not in params:
        raise InputError(f"{data.name} at {data.path} is not encoded: its ops name no tokenizer")
    if params["tokenizer"] != chat.vocabulary:
        raise InputError(
            f"{data.name} at {data.path} was encoded with tokenizer {params['tokenizer'][:12]}, the model's is "
            f"{chat.vocabulary[:12]}: encode it anew"
        )
    if template and params.get("template") != chat.template:
        raise InputError(
            f"{data.name} at {data.path} was rendered with template {str(params.get('template'))[:12]}, "
            f"the model's is {chat.template[:12]}: encode it anew"
        )
    return params


def _inputs(data: Dataset) -> list[dict[str, Any]]:
    """Parameters of the ops of what a packed dataset was made from."""
    found: list[dict[str, Any]] = []
    for item in data.inputs:
        found += [op["params"] for op in item.base.manifest["ops"]]
    return found
