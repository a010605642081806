"""Chat tokenizers: a plain tokenizer and the template that a model speaks, as one published artefact.

Training, serving and data share it: `tokenizer.json`, `chat_template.jinja`, and a `tokenizer_config.json` whose end of
sequence is what ends an assistant's turn, so that generation stops there. The law: the template works before anything
is rendered with it. It is tried on a conversation; the assistant's turn must be found in the text and end with a
special token that the loss counts, since a model that never learns the end never stops.

A template comes from a file, from a tokenizer's folder, or is built in (`templates/`). A built-in one names the special
tokens that it writes in a first comment, `{#- markers: ... -#}`; so may any other.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from gristmill.dataops.chat.render import Template, Unrenderable
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Op, op
from gristmill.dataops.tokenizer.given import read

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BUILT_IN = Path(__file__).parent / "templates"
_MARKERS = re.compile(r"\{#-?\s*markers:(.*?)-?#\}", re.DOTALL)
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
#: Names under which vocabularies keep an entry for padding alone.
_PADS = ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>")
_SAID, _ASKED = "Four words were said.", "What was said?"


def built_in() -> list[str]:
    """Names of the templates that come with gristmill."""
    return sorted(path.stem for path in BUILT_IN.glob("*.jinja"))


def for_chat(tokenizer: Dataset, template: str | None = None) -> Op:
    """The op that makes a chat tokenizer of a tokenizer dataset, its only input.

    `template` is a built-in's name, a .jinja file, or a folder with chat_template.jinja or a tokenizer_config.json that
    holds one. None takes the dataset's own, or ChatML where it has none. Raises InputError where there is no template.
    """
    name, text = template_text(tokenizer, template)
    return chat_tokenizer(template=hashlib.sha256(text.encode()).hexdigest(), name_context=name, text_context=text)


def template_text(tokenizer: Dataset, template: str | None) -> tuple[str, str]:
    """(what to call it, the template's text); see `for_chat`."""
    if template is None:
        own = of_folder(Path(tokenizer.file("")))
        return (f"of {tokenizer.name}", own) if own is not None else template_text(tokenizer, "chatml")
    where = Path(template)
    if where.is_dir():
        text = of_folder(where)
        if text is None:
            raise InputError(f"{where} has no chat_template.jinja, and no tokenizer_config.json that holds a template")
        return str(where), text
    if where.is_file():
        return str(where), _decoded(where)
    if template in built_in():
        return template, _decoded(BUILT_IN / f"{template}.jinja")
    raise InputError(f"no chat template {template!r}: give a .jinja file, a folder, or one of {', '.join(built_in())}")


def of_folder(folder: Path) -> str | None:
    """The chat template that a model's or a tokenizer's folder holds. Raises InputError where there are several."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.is_file():
        return _decoded(file)
    found = _json(config).get("chat_template") if config.is_file() else None
    if isinstance(found, list):  # several by name, the way before .jinja files
        named = {item["name"]: item["template"] for item in found}
        if "default" not in named:
            raise InputError(f"{config} has chat templates {', '.join(named)}: write the one to use into a file")
        found = named["default"]
    return found


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no template: it is not UTF-8 ({error})") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object")
    return found


@op("chat.tokenizer", version=1, kind="artifact")
def chat_tokenizer(
    inputs: Sequence[Dataset], folder: Path, *, template: str, name_context: str, text_context: str
) -> dict[str, Any]:
    """`template` is the SHA-256 of the template's text. Stats: `tokenizer`, the digest of the tokenizer dataset;
    `template`; `vocab_size`; and the ids `eod` of what ends documents, `eos` of what ends turns, `pad`.

    Raises InputError where the vocabulary lacks what the template writes, or the template fails its trial.
    """
    (plain,) = inputs
    known = plain.manifest["stats"]
    tokenizer = read(Path(plain.file("tokenizer.json")))
    special = {token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    stated = _MARKERS.search(text_context)
    missing = [name for name in (stated[1].split() if stated else ()) if name not in special]
    if missing:
        raise InputError(
            f"chat template {name_context} writes {', '.join(missing)}, which {plain.name} does not have as special "
            "tokens: take the template that this tokenizer was made for, or a tokenizer that has them (gristmill's "
            "own reserve those of ChatML)"
        )
    config = _settings(plain, tokenizer)
    stated_end = config.get("eos_token")
    config["eos_token"] = end_of_turn(Template(text_context, name_context, config, list(special)))
    if stated_end not in (None, config["eos_token"]) and "eos_token" in text_context:
        raise InputError(
            f"chat template {name_context} asks for eos_token, {stated_end} by the tokenizer's configuration, and ends "
            f"turns with {config['eos_token']}, which generation has to stop at: write the tokens that it means out"
        )
    if config.get("pad_token", config["eos_token"]) == config["eos_token"]:
        others = [name for name in (*_PADS, known["eod_token"]) if name in special and name != config["eos_token"]]
        config["pad_token"] = others[0] if others else config["eos_token"]
    written = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "clean_up_tokenization_spaces": False}
    shutil.copy(plain.file("tokenizer.json"), folder / FILES[0])
    (folder / FILES[1]).write_text(json.dumps(written, indent=1, ensure_ascii=False))
    (folder / FILES[2]).write_bytes(text_context.encode())
    return {
        "tokenizer": plain.digest,
        "template": template,
        "vocab_size": known["vocab_size"],
        "eod": known["eod"],
        "eos": special[config["eos_token"]],
        "pad": special[config["pad_token"]],
    }


def _settings(plain: Dataset, tokenizer: Tokenizer) -> dict[str, str]:
    """The tokens that a tokenizer's configuration names, where its vocabulary has them as special."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = Path(plain.file(name))
        for key, value in (_json(path) if path.is_file() else {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key in _TOKENS and text in special:
                found[key] = text
    return found


def end_of_turn(template: Template) -> str:
    """The special token that ends an assistant's turn, found on a conversation. Raises InputError where there is none,
    where it is not among the targets, or where the template refuses the conversation."""
    asked, said = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
    try:
        found = template.conversation([asked, said], row="a trial conversation")
    except Unrenderable as error:
        raise InputError(f"chat template {template.name} fails on a trial conversation: {error}") from None
    at = found.text.rfind(_SAID)
    if at < 0:
        raise InputError(f"chat template {template.name} does not write what the assistant says")
    end = template.marks.search(found.text, at)
    if end is None:
        raise InputError(
            f"chat template {template.name} ends an assistant's turn with {found.text[at + len(_SAID) :]!r}, which "
            "holds no special token of this tokenizer, so generation could not stop there: take the template that the "
            "tokenizer was made for"
        )
    if not any(start <= at and end.end() <= stop for start, stop in found.targets):
        raise InputError(
            f"chat template {template.name}: its generation block ends before {end.group()}, so a model would never "
            "learn to end its turn: move {% endgeneration %} behind it"
        )
    return end.group()
