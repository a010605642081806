"""Who answers, named in a word, and responses sampled from them.

    a word            who it is
    NAME[@TAG]        a checkpoint of the root, by transformers
    FOLDER            a model's folder
    URL[#MODEL]       a server that speaks chat completions
    {"kind": ...}     the fields of EngineSettings, and `dataset` for a checkpoint of the root

The law: a word decides who answers and never what a dataset is called; which weights answered, by the engine's own
word, is in the manifest of what it said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gristmill.dataops.chat.read import read_files
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.store import Store
from gristmill.flows.train import named, train
from gristmill.training.engines.settings import EngineSettings


def engine_fields(store: Store, who: str) -> dict[str, Any]:
    """The fields `engine` and `model` of a spec of `generate`, out of a word. Raises InputError."""
    if who.startswith("{"):
        try:
            told = json.loads(who)
        except ValueError as error:
            raise InputError(f"{who[:60]}: no JSON object of an engine: {error}") from None
        reference = told.pop("dataset", None)
        engine = vars(settings_of(told))
        found: dict[str, Any] = {"engine": {name: value for name, value in engine.items() if value is not None}}
        return found if reference is None else found | {"model": _named(store, reference)}
    if "://" in who:
        url, _, model = who.partition("#")
        return {"engine": {"kind": "server", "url": url, **({"model": model} if model else {})}}
    if (Path(who) / "config.json").is_file():
        return {"engine": {"kind": "transformers", "folder": str(Path(who).resolve())}}
    return {"model": _named(store, who)}


def settings_of(told: Mapping[str, Any]) -> EngineSettings:
    """Settings out of their fields. Raises InputError."""
    known = [item.name for item in fields(EngineSettings)]
    if unknown := [name for name in told if name not in known]:
        raise InputError(f"engine: no field {', '.join(unknown)}; there are: {', '.join(known)}")
    return EngineSettings(**told)


def _named(store: Store, reference: str) -> dict[str, str]:
    found = store.get(reference)
    if found.kind != "checkpoint":
        raise InputError(f"{reference} is a dataset of {found.kind}: name a checkpoint, a model's folder, or a URL")
    return {"path": found.path, "digest": found.digest}


def prompts_of(store: Store, given: str, name: str) -> Dataset:
    """The rows of a file with a column `prompt`, read as `name`, or a dataset of the root. Raises InputError."""
    if "://" in given or Path(given).exists():
        made = read_files(store, name, [given], "tasks")
        if not made.rows:
            gone = made.ledger().select("warc", "evidence").head(1).collect().rows()
            why = f"in {gone[0][0]} {gone[0][1]}" if gone else "it is empty"
            raise InputError(f"{given}: no row has a prompt; {why}")
        return made
    return store.get(given)


def sample(
    store: Store,
    prompts: Dataset,
    engines: Sequence[str],
    *,
    samples: int = 2,
    max_tokens: int = 512,
    temperature: float = 1.0,
    seed: int = 0,
    name: str = "responses",
) -> list[Dataset]:
    """`samples` responses of each engine to each prompt, a dataset for each engine; what stands is taken. Raises
    InputError for prompts or an engine that will not do, OSError where one goes away."""
    if not engines:
        raise InputError("no engine to answer: name a checkpoint, a model's folder, or a server's URL")
    made: list[Dataset] = []
    for number, who in enumerate(engines):
        again = engines[:number].count(who)  # the same one twice draws otherwise
        spec = {
            "data": named(prompts), "samples": samples, "max_tokens": max_tokens, "temperature": temperature,
            "seed": seed + again, "name": name, **engine_fields(store, who),
        }  # fmt: skip
        found = Dataset.load(train("generate", store, spec)["path"])
        if found.key not in [item.key for item in made]:
            made.append(found)
    return made
