"""Whether models can be merged: one architecture, one vocabulary, the same tensors.

A merge mixes numbers by their place, so that a place must mean the same in every model. All that decides what a tensor
does is held against the first model, and the first difference is refused by its name. What only says how a model is
used (the tokens that end a reply, the longest context, dropout, the chat template) may differ: it comes from one model.

The law kept here: two models that pass differ in nothing but the values of their tensors. Not covered: whether they
have a common ancestor, without which a merge is rarely of use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.merging.tensors import MERGED, Entry, Files, json_object

#: What a merged checkpoint takes from one of the models, beside the weights.
COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt",
    "merges.txt",
)  # fmt: skip
VOCABULARIES = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")
#: Fields of a configuration that say how a model is used or was made, not what its tensors mean.
USE = {
    "_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "bos_token_id", "eos_token_id",
    "pad_token_id", "max_position_embeddings", "initializer_range", "id2label", "label2id", "problem_type",
    "pretraining_tp", "output_attentions", "output_hidden_states", "return_dict", "chunk_size_feed_forward",
}  # fmt: skip
ADVICE = "merge models that were trained from one base"
COMPARED = 1 << 20  # elements at a time


@dataclass(frozen=True)
class Candidate:
    """One model to be merged: its folder and its tensors by name."""

    folder: Path
    tensors: Mapping[str, Entry]


def check_configs(folders: Sequence[Path]) -> dict[str, Any]:
    """The first configuration, with its defaults filled in. Raises InputError at the first field in which another
    one differs and that matters."""
    first, *others = [_config(folder) for folder in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        mine, its = dict(_fields(first)), dict(_fields(other))
        for name in sorted(mine.keys() | its.keys(), key=lambda name: (name not in _FIRST, name)):
            if name.rpartition(".")[2] in USE or name.endswith(("dropout", "pdrop")):
                continue
            a, b = mine.get(name, "not given"), its.get(name, "not given")
            if a != b:
                what = _ROWS if name == "vocab_size" else f"these are different architectures; {ADVICE}"
                raise InputError(f"config.json: {name} is {a} in {folders[0]} and {b} in {folder}: {what}")
    return first


_FIRST = ("model_type", "architectures")  # of several differences, those that explain the others
_ROWS = (
    "the vocabularies differ; give both models the same tokens first: cut added rows with `resize_token_embeddings` "
    "where they were never trained, or train both models from one that has them"
)


def check_tokenizers(folders: Sequence[Path]) -> list[str]:
    """Hold all tokenizers to the first one that there is; what could not be compared is returned as sentences.

    Raises InputError naming the first token whose id differs, or the part that does.
    """
    known = [
        folder for folder in folders if any((folder / name).exists() for name in ("tokenizer.json", *VOCABULARIES))
    ]
    if not known:
        return ["no model has a tokenizer: the vocabularies are not compared"]
    notes = [f"{folder} has no tokenizer: its vocabulary is not compared" for folder in folders if folder not in known]
    if folders[0] not in known:
        notes.append("it is the one that the merged model is like, which will have no tokenizer either")
    for folder in known[1:]:
        names = [n for n in ("tokenizer.json", *VOCABULARIES) if (known[0] / n).exists() and (folder / n).exists()]
        if not names:
            notes.append(f"{known[0]} and {folder} keep their tokenizers in different files: they are not compared")
        elif names[0] == "tokenizer.json":
            _check_vocabularies(known[0], folder)
        else:
            for name in names:
                if _sha256(known[0] / name) != _sha256(folder / name):
                    raise InputError(f"{name} differs between {known[0]} and {folder}: {ADVICE}, with its tokenizer")
    return notes


def check_tensors(models: Sequence[Candidate], files: Files, *, tied: bool) -> list[str]:
    """The names to merge, in order: those of all models, but for an output head that repeats tied embeddings. Raises
    InputError naming the first tensor that is missing or has another shape or dtype."""
    repeated = {name for model in models for name in _repeated_heads(model, files)} if tied else set()
    first, *others = models
    names = first.tensors.keys() - repeated
    if not names:
        raise InputError(f"{first.folder} holds no tensors: there is nothing to merge")
    for other in others:
        theirs = other.tensors.keys() - repeated
        for name in sorted(names ^ theirs):
            has, lacks = (first, other) if name in names else (other, first)
            raise InputError(f"{name} is in {has.folder} and not in {lacks.folder}: {ADVICE}, and of one kind")
        for name in sorted(names):
            _check_pair(first, other, name)
    return sorted(names)


def same_bytes(files: Files, one: Entry, other: Entry) -> bool:
    """Whether two tensors are equal bit for bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    return all(
        bool((files.raw(one, start, stop) == files.raw(other, start, stop)).all())
        for start in range(0, one.size, COMPARED)
        for stop in (min(start + COMPARED, one.size),)
    )


def _repeated_heads(model: Candidate, files: Files) -> Iterator[str]:
    """Output heads that are stored beside the input embeddings that they are tied to."""
    for name, head in model.tensors.items():
        if name.endswith("lm_head.weight"):
            twins = [entry for entry in model.tensors.values() if entry.name != name and entry.shape == head.shape]
            if not any(same_bytes(files, head, twin) for twin in twins):
                raise InputError(
                    f"{head.path}: {name} is not equal to the embeddings and config.json ties them; "
                    "set tie_word_embeddings to false there, or leave the tensor out"
                )
            yield name


def _check_pair(first: Candidate, other: Candidate, name: str) -> None:
    a, b = first.tensors[name], other.tensors[name]
    if a.shape != b.shape:
        rows = len(a.shape) == len(b.shape) == 2 and a.shape[1] == b.shape[1]
        what = _ROWS if rows and ("emb" in name or "wte" in name or "lm_head" in name) else ADVICE
        raise InputError(
            f"{name} has the shape {list(a.shape)} in {first.folder} and {list(b.shape)} in {other.folder}: {what}"
        )
    if a.dtype != b.dtype and not {a.dtype, b.dtype} <= MERGED.keys():
        raise InputError(
            f"{name} is {a.dtype} in {first.folder} and {b.dtype} in {other.folder}: save both with one dtype "
            f"({', '.join(MERGED)})"
        )


def _config(folder: Path) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING, AutoConfig

    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json: it is no model")
    config = json_object(path, path.read_bytes())
    if "quantization_config" in config:
        raise InputError(f"{path}: the model is quantised; dequantise it first")
    if config.get("model_type") not in CONFIG_MAPPING:
        return config
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True).to_dict()
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: no configuration of a {config['model_type']}: {error}") from None


def _fields(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields with their values, those of nested objects by names with dots."""
    for name, value in config.items():
        if isinstance(value, Mapping) and name not in USE:
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _check_vocabularies(one: Path, other: Path) -> None:
    if _sha256(one / "tokenizer.json") == _sha256(other / "tokenizer.json"):
        return
    a, b = (json_object(f / "tokenizer.json", (f / "tokenizer.json").read_bytes()) for f in (one, other))
    mine, its = _vocabulary(one, a), _vocabulary(other, b)
    for token in sorted(mine.keys() | its.keys(), key=lambda t: (min(mine.get(t, 1 << 62), its.get(t, 1 << 62)), t)):
        if mine.get(token) != its.get(token):
            where = [
                f"is {ids[token]} in {f}" if token in ids else f"is not in {f}"
                for ids, f in ((mine, one), (its, other))
            ]
            raise InputError(f"tokenizer.json: the token {token!r} {' and '.join(where)}: {_ROWS}")
    parts = {
        "merges": lambda t: [m.split(" ") if isinstance(m, str) else m for m in t["model"].get("merges", [])],
        "kind of model": lambda t: t["model"].get("type"),
        "normalizer": lambda t: t.get("normalizer"),
        "pre_tokenizer": lambda t: t.get("pre_tokenizer"),
    }
    for part, of in parts.items():
        if of(a) != of(b):
            raise InputError(
                f"tokenizer.json: the {part} of {one} and of {other} differ: {ADVICE}, with its tokenizer "
                "(if only the version that saved them differs, save both again with one)"
            )


def _vocabulary(folder: Path, tokenizer: Mapping[str, Any]) -> dict[str, int]:
    try:
        vocab = tokenizer["model"]["vocab"]
        ids = dict(vocab) if isinstance(vocab, Mapping) else {token: n for n, (token, _) in enumerate(vocab)}
        return {**ids, **{added["content"]: added["id"] for added in tokenizer.get("added_tokens") or []}}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{folder / 'tokenizer.json'} holds no vocabulary: save the tokenizer again") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
