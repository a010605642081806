"""The recipe of an alignment: how judgements become data, which stages train on it, what decides, what is asked next.

Every decision is a field with a type and a default, so that a recipe is a file, a form in Prefect's interface or a few
lines of Python, and nothing of it stands in code. Datasets are named by reference (NAME, NAME@TAG, NAME:KEY), in
fields of training steps as {"dataset": REFERENCE}. The law kept here: what is pinned means the same later, wherever
tags have moved and whatever became of the file of gates. Not covered: what a step's fields mean together, which the
step itself checks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.gates.conditions import parse_gates, read_gates
from gristmill.dataops.store import Store

#: The gates that are used where a recipe names no file.
GATES = Path(__file__).with_name("gates.yaml")
NEW = "new"  # the set made of the judgements, among the data of a stage


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Part):
    """One training step, of what the one before it made."""

    step: Literal["sft", "preference", "rl"]
    data: dict[str, float] = Field(
        default={NEW: 1.0}, description='weights by dataset; "new" is the set of the judgements'
    )
    epochs: float | None = Field(
        default=None, gt=0, description="times that the data is read; or `steps` in the settings"
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="fields of the step's spec (gristmill train)")

    @model_validator(mode="after")
    def _check(self) -> Stage:
        if not self.data or min(self.data.values()) <= 0:
            raise ValueError("data names datasets with weights above 0")
        if NEW in self.data and self.step != "preference":
            raise ValueError(f'"new" is a set of preferences, which {self.step} cannot read: name a dataset')
        if (self.epochs is None) == ("steps" not in self.settings):
            raise ValueError("give `epochs`, or `steps` in the settings")
        if said := sorted({"data", "start", "name", "root"} & self.settings.keys()):
            raise ValueError(f"settings have {', '.join(said)}, which the recipe fills in: leave them out")
        return self


class Asking(_Part):
    """What is put into the queue after a round: responses of the model that is promoted then."""

    prompts: str = Field(description="a dataset of prompts, such as tasks@latest")
    count: int = Field(default=64, ge=1, description="prompts of a round; each round takes others")
    samples: int = Field(default=4, ge=1, description="responses to each")
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    strategy: Literal["random", "coverage"] = Field(default="coverage", description="which come first")
    queue: str | None = Field(
        default=None, description="where they are put; by default the queue that the judgements are of"
    )
    engine: dict[str, Any] = Field(default_factory=dict, description="of the step `generate`")


def _preference() -> list[Stage]:
    gentle = {"learning_rate": 1e-6, "warmup": 0.1, "weight_decay": 0.0}
    return [Stage(step="preference", epochs=1, settings={"rows": 32, "sft_weight": 0.1, "optimiser": gentle})]


def _evaluation() -> dict[str, Any]:
    return {
        "slices": [{"name": "text", "dataset": "heldout-packed@latest"}],
        "pairs": [{"name": "preferences", "dataset": "heldout-pairs@latest"}],
    }


class Recipe(_Part):
    """How a model is aligned. The defaults are for a model of a billion weights that chats: one pass of DPO, held
    against trusted pairs and text that were held out."""

    model: str = Field(
        default="assistant", pattern=r"^[^/@:.][^/@:]*$", description="the name whose promoted version moves"
    )
    first: str | None = Field(default=None, description="the model to start from while none of that name is promoted")
    stages: list[Stage] = Field(default_factory=_preference, min_length=1)

    policy: Literal["best_worst", "best_random", "all"] = Field(
        default="best_worst", description="which pairs of a ranking"
    )
    aspects: list[str] = Field(default_factory=list, description="of ratings; none: those of the whole")
    min_margin: float = Field(default=0.0, ge=0)
    min_accuracy: float | None = Field(
        default=None, ge=0, le=1, description="raters below it do not count (Dawid-Skene)"
    )
    noisy: float | None = Field(
        default=None, gt=0, lt=1, description="the most of the pairs that may be dropped as noise"
    )
    holdout: float = Field(
        default=0.0, ge=0, lt=1, description="share of the prompts judged that is measured, not learned"
    )
    max_tokens: int = Field(default=2048, ge=1, description="of a prompt and its reply")
    least: int = Field(default=20, ge=1, description="pairs or thumbs below which nothing is trained")

    evaluation: dict[str, Any] = Field(default_factory=_evaluation, description="fields of the step `evaluate`")
    gates: str | None = Field(
        default=None, description="a file of gates; by default preferences and text must not be lost"
    )
    asking: Asking | None = Field(default=None, description="what is put into the queue after each round")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if not any(NEW in stage.data for stage in self.stages):
            raise ValueError('no stage reads "new", the judgements: then there is nothing to align by')
        if said := sorted({"model", "name", "root"} & self.evaluation.keys()):
            raise ValueError(f"evaluation has {', '.join(said)}, which the flow fills in: leave them out")
        return self


def read_recipe(path: str | Path) -> Recipe:
    """A recipe from a JSON or YAML file; the path of its gates is as seen from there. Raises InputError naming the
    file, the field and what it may be."""
    import yaml

    try:
        text = Path(path).read_text()
        try:
            found = json.loads(text)  # first: to YAML, 1e-4 is a text
        except ValueError:
            if Path(path).suffix == ".json":
                raise
            found = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: no recipe can be read: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise InputError(f"{path}: a recipe is an object with fields such as model, stages, evaluation")
    made = made_of(found, str(path))
    if made.gates is None:
        return made
    return made.model_copy(update={"gates": str((Path(path).parent / made.gates).resolve())})


def made_of(fields: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe of plain data. Raises InputError as `read_recipe` does."""
    try:
        return Recipe.model_validate(dict(fields))
    except ValidationError as error:
        said = [f"{'.'.join(map(str, one['loc'])) or 'recipe'}: {one['msg']}" for one in error.errors()]
        raise InputError(f"{where}: " + "; ".join(said)) from None


def start_of(store: Store, recipe: Recipe) -> Dataset:
    """The promoted version of the recipe's model, or while there is none its first. Raises InputError without either,
    and for a model that does not chat."""
    try:
        found = store.get(f"{recipe.model}@promoted")
    except InputError:
        if recipe.first is None:
            raise InputError(
                f"no {recipe.model} is promoted: `gristmill promote` one, or name the model to start from in `first`"
            ) from None
        found = store.get(recipe.first)
    if found.kind != "checkpoint" or found.manifest["stats"].get("template") is None:
        raise InputError(f"{found.name}:{found.key[:12]} is no model that chats: train it on chats first (sft)")
    return found


def pinned(store: Store, recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data whose references name versions, with the text of its gates. Raises InputError where a
    dataset or the file is not there, or the gates are none."""
    said = recipe.model_dump(mode="json")
    for stage in said["stages"]:
        stage["data"] = {ref if ref == NEW else _version(store, ref): w for ref, w in stage["data"].items()}
        stage["settings"] = _pin(store, stage["settings"])
    said["evaluation"] = _pin(store, said["evaluation"])
    if said["asking"] is not None:
        said["asking"]["prompts"] = _version(store, said["asking"]["prompts"])
    path = GATES if recipe.gates is None else Path(recipe.gates)
    read_gates(path)
    return {"model": recipe.model, "recipe": said, "gates": path.read_text(encoding="utf-8-sig")}


def unpinned(stated: Mapping[str, Any]) -> Recipe:
    """The recipe of what `pinned` made; its gates are checked."""
    parse_gates(stated["gates"], "the gates of the recipe")
    return made_of(stated["recipe"])


def steps_of(stage: Stage, rows: int) -> int:
    """Steps of a stage whose data has so many rows."""
    if stage.epochs is None:
        return int(stage.settings["steps"])
    at_once = int(stage.settings.get("rows", 8))
    if stage.step == "rl":  # its rows are responses
        at_once //= int(stage.settings.get("group", 8))
    return math.ceil(stage.epochs * rows / max(1, at_once))


def _version(store: Store, reference: str) -> str:
    found = store.get(reference)
    return f"{found.name}:{found.key}"


def _pin(store: Store, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            key: _version(store, str(item)) if key == "dataset" else _pin(store, item) for key, item in value.items()
        }
    return [_pin(store, item) for item in value] if isinstance(value, list) else value
