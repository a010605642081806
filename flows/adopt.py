"""Models of elsewhere as checkpoints: a folder as transformers saves it, checked, copied and published with its chat.

    <name>-tokenizer   the plain tokenizer     <name>-chat   with the template, where there is one
    <name>             config.json, weights, and the chat tokenizer's files

The laws: what is published loads whole, no tensor of the model being made up for want of one in the files; a row that
is encoded with `<name>`, with `<name>-chat`, or for a model trained from it is the same row; weights are copied file by
file and never stand in memory. The one file that changes is generation_config.json: generation stops where a turn or a
document ends, and samples where it is told how. Not covered: pickles, quantised weights, adapters, models that bring
code of their own.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.dataops.chat.template import for_chat, of_folder
from gristmill.dataops.dataset import MANIFEST, Dataset, InputError, publish_files, recipe_key, write_json
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.identity import sha256_json
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import given, import_tokenizer

OP = {"name": "adopt", "version": 1, "params": {}}
CONFIG, GENERATION = "config.json", "generation_config.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Model:
    """What a folder holds: the files that make the model, its parameters, the rows of its embedding, its class, and
    tensors in the files that it does not use."""

    files: tuple[Path, ...]
    parameters: int
    entries: int
    architecture: str
    unused: tuple[str, ...]


def adopt(store: Store, folder: str | Path, name: str, template: str | None = None) -> Dataset:
    """The checkpoint of a model's folder, published now or taken where it stands; `latest` points at it.

    `template` is a built-in's name, a .jinja file or a folder; None takes the model's own, and makes a checkpoint that
    does not chat where it has none. Raises InputError for what is no whole model, or a template that does not fit it.
    """
    from gristmill.training.checkpoint import building, versions
    from gristmill.training.spec import check_name

    check_name(name)
    source, started = Path(folder), time.perf_counter()
    model = look(source)
    plain = _tokenizer(store, source, name)
    known = plain.manifest["stats"]
    if known["vocab_size"] > model.entries:
        raise InputError(
            f"{source}: the model embeds {model.entries:,} tokens, tokenizer.json has {known['vocab_size']:,}: "
            "they are not of one model"
        )
    chat = _chat(store, source, plain, name, template)
    generation = _generation(source / GENERATION, {} if chat is None else chat.manifest["stats"])
    inputs = [plain] if chat is None else [plain, chat]
    external = [sha256_json([[path.name, file_sha256(path)] for path in model.files])]
    key = recipe_key([OP], [*external, *(item.digest for item in inputs)])
    if not (store.root / name / key[:12] / MANIFEST).exists():
        stats = {name: known[name] for name in ("vocab_size", "eod")} | (chat.manifest["stats"] if chat else {})
        stats |= {"tokenizer": plain.digest, "template": stats.get("template")}
        stats |= {"parameters": model.parameters, "architecture": model.architecture, "unused": list(model.unused)}
        with building(store.root, name) as place:
            files = place / "files"
            spoken = plain if chat is None else chat
            for path in (*model.files, *sorted(Path(spoken.file("")).iterdir())):
                shutil.copyfile(path, files / path.name)
            if generation:
                write_json(files / GENERATION, generation)
            made = {
                "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "seconds": round(time.perf_counter() - started, 3),
                "folder": str(source.resolve()),
                "versions": versions(),
            }
            publish_files(
                store.root, name, place, ops=[OP], inputs=inputs, external=external, made=made, stats=stats
            )  # fmt: skip
    store.tag(name, "latest", key)
    return store.get(name)


def look(folder: Path) -> Model:
    """A model's folder, held to what its configuration asks for. Raises InputError."""
    from gristmill.training.merging.tensors import INDEX, read_weights

    if not folder.is_dir():
        raise InputError(f"no folder {folder}: give one as transformers' save_pretrained writes it")
    config = _configuration(folder)
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickled:
            raise InputError(
                f"{folder / pickled[0]} is a pickle, which runs the code of whoever made it when it is opened: save "
                "the model as safetensors (save_pretrained of transformers does), where you trust it"
            )
    tensors = read_weights(folder)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"{folder} has no tokenizer.json: save it there with transformers, "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    whole = _whole(folder, str(config["model_type"]))
    beside = [folder / name for name in (CONFIG, GENERATION, INDEX) if (folder / name).is_file()]
    files = sorted({*beside, *(entry.path for entry in tensors.values())})
    return Model(tuple(files), *whole)


def _configuration(folder: Path) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    from gristmill.training.merging.tensors import json_object

    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} has no {CONFIG}: it is no model as transformers saves it")
    config = json_object(path, path.read_bytes())
    if "quantization_config" in config:
        raise InputError(f"{path}: the model is quantised; dequantise it first")
    if config.get("model_type") not in CONFIG_MAPPING:
        raise InputError(
            f"{path}: model_type {config.get('model_type')!r} is none that the installed transformers knows; code that "
            "a model brings along is not run"
        )
    return config


def _whole(folder: Path, kind: str) -> tuple[int, int, str, tuple[str, ...]]:
    """(parameters, rows of the embedding, class, unused tensors) of the model, loaded without its numbers."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    loader: Any = AutoModelForCausalLM
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # what it would report is raised below, in one line
    try:
        model, found = loader.from_pretrained(
            folder, device_map="meta", output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
        )
    except Exception as error:  # whatever the code of a model class raises for values that it does not expect
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{folder}: no causal language model of type {kind} can be made of it: {what}") from None
    finally:
        logging.set_verbosity(verbosity)
    lacking = [f"{name} is not in the weights" for name in sorted(found["missing_keys"])]
    for name, there, wanted in sorted(found["mismatched_keys"]):
        lacking.append(f"{name} has the shape {list(there)} in the weights, and should have {list(wanted)}")
    if lacking:
        more = f" (and {len(lacking) - 1:,} more)" if len(lacking) > 1 else ""
        raise InputError(f"{folder}: {lacking[0]}{more}: {CONFIG} is of another model, or files are missing")
    parameters = sum(item.numel() for item in model.parameters())
    rows = model.get_input_embeddings().num_embeddings
    return parameters, rows, type(model).__name__, tuple(sorted(found["unexpected_keys"]))


def _tokenizer(store: Store, folder: Path, name: str) -> Dataset:
    """The plain tokenizer, imported."""
    path, token = given(str(folder))
    content = [file_sha256(item) for item in (path, folder / "tokenizer_config.json") if item.is_file()]
    bring = import_tokenizer(end_of_document=token, path_context=str(path))
    return store.build(f"{name}-tokenizer", bring, [], external=content)


def _chat(store: Store, folder: Path, plain: Dataset, name: str, template: str | None) -> Dataset | None:
    """The chat tokenizer; None where there is no template and none was given."""
    if template is not None:
        return store.build(f"{name}-chat", for_chat(plain, template), [plain])
    if of_folder(folder) is None:
        return None
    try:
        return store.build(f"{name}-chat", for_chat(plain, str(folder)), [plain])
    except InputError as error:
        raise InputError(f"{error}; --template takes another one") from None


def _generation(path: Path, stats: Mapping[str, Any]) -> dict[str, Any]:
    """A generation_config.json that can be saved again and, of a chat tokenizer with these stats, stops where a turn
    and a document end; empty for none."""
    from transformers import GenerationConfig

    from gristmill.training.merging.tensors import json_object

    stated = json_object(path, path.read_bytes()) if path.is_file() else {}
    if stats:
        ends = stated.get("eos_token_id")
        known = ends if isinstance(ends, list) else [] if ends is None else [ends]
        stated |= {"eos_token_id": sorted({*known, stats["eos"], stats["eod"]}), "pad_token_id": stats["pad"]}
    # Transformers loads a temperature without `do_sample`, and refuses to save it: at the end of all training.
    for tried in (stated, {**stated, "do_sample": True}):
        try:
            GenerationConfig(**tried).validate(strict=True)
            return tried
        except (ValueError, TypeError) as error:
            what = " ".join(str(error).split())
    raise InputError(f"{path}: a model trained from it could not be saved: {what}")


def described(model: Dataset) -> dict[str, Any]:
    """What was adopted, as JSON."""
    stats = model.manifest["stats"]
    size = sum(entry["bytes"] for entry in model.manifest["files"])
    return {
        "name": model.name,
        "key": model.key,
        "digest": model.digest,
        "path": model.path,
        "bytes": size,
        "tokenizer_dataset": model.inputs[0].name,
        "chat_dataset": model.inputs[1].name if stats["template"] is not None else None,
    } | json.loads(json.dumps(stats))
