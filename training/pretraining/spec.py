"""What a pretraining run is: its spec, and the datasets that the spec names.

The law kept here: what makes the model is identity; where it stands (`PLACES`) and how it is run (`RUNNING`) is not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.dataset import Dataset, InputError, recipe_key
from gristmill.training.model import Shape
from gristmill.training.pretraining.parallel import Kind
from gristmill.training.schedule import Optimiser
from gristmill.training.shards import Shards
from gristmill.training.spec import Input, check_fields, check_name, open_input

OP, VERSION = "pretrain", 3
PLACES = ("data", "start", "validation", "root", "name", "save_seconds")  # not identity: digests enter as inputs
RUNNING = ("checkpointing", "compile", "parallel")  # nor is how it runs


@dataclass(frozen=True)
class Source(Input):
    """A packed dataset and its weight: its share of the rows, so of the tokens."""

    weight: float = 1.0


@dataclass(frozen=True)
class PretrainSpec:
    """What to train; the checkpoint is published as root/name/key. The budget is `steps`, or else about `seconds` of
    wall time (one of the two is given). `rows` in a step of all processes, taken by each in `accumulate` equal pieces.

    Weights are fresh, of `model` and `seed`, or those of the checkpoint `start` (then without `model`): a new schedule
    warms up again, and a source of the old data with a small weight is a replay against forgetting. The loss on every
    dataset of `validation` is told at the end. The state is kept every `save_seconds`.

    How it runs: `parallel` says what several processes share out (see parallel.py), `checkpointing` computes a layer's
    activations twice instead of keeping them, `compile` takes a minute and then less time per step.
    """

    data: tuple[Source, ...]
    root: str
    name: str = "base"
    model: Shape | None = None
    start: Input | None = None
    validation: tuple[Input, ...] = ()
    rows: int = 4
    accumulate: int = 1
    steps: int | None = None
    seconds: float | None = None
    optimiser: Optimiser = field(default_factory=Optimiser)
    seed: int = 0
    save_seconds: float = 300.0
    parallel: Kind = "ddp"
    checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be trained with."""
        check_fields(self)
        check_name(self.name)
        if not self.data:
            raise InputError("spec: data names no dataset")
        if (self.steps is None) == (self.seconds is None):
            raise InputError("spec: give the budget as steps or as seconds, one of the two")
        for name in ("rows", "accumulate", "steps", "seconds", "save_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"spec: {name} is {value!r}; it must be above 0")
        if self.rows % self.accumulate:
            raise InputError(f"spec: {self.rows} rows do not divide into {self.accumulate} pieces")
        if self.model is not None and self.start is not None:
            raise InputError("spec: model is the shape of fresh weights; leave it out where start names a checkpoint")
        if not 0 <= self.seed < 1 << 63:
            raise InputError("spec: 0 <= seed < 2**63 must hold")

    @property
    def identity(self) -> dict[str, Any]:
        """The op of the checkpoint's manifest."""
        params = {k: v for k, v in dataclasses.asdict(self).items() if k not in PLACES + RUNNING}
        weights = [source.weight for source in self.data]
        return {"name": OP, "version": VERSION, "params": params | {"weights": weights, "continued": bool(self.start)}}


@dataclass(frozen=True)
class Opened:
    """What a spec names, opened: datasets, rows, the checkpoint's key."""

    sources: list[Dataset]
    before: Dataset | None
    held: list[Dataset]
    shards: list[Shards]
    key: str

    @classmethod
    def of(cls, spec: PretrainSpec) -> Opened:
        """Raises InputError for what is not there or is another than the spec was made for."""
        sources = [open_input(source.path, source.digest) for source in spec.data]
        before = None if spec.start is None else open_input(spec.start.path, spec.start.digest)
        held = [open_input(item.path, item.digest) for item in spec.validation]
        opened = cls(sources, before, held, [Shards(item) for item in sources], "")
        key = recipe_key([spec.identity], [item.digest for item in opened.inputs])
        return dataclasses.replace(opened, key=key)

    @property
    def inputs(self) -> list[Dataset]:
        """All datasets, in the order of the key."""
        return [*self.sources, *([] if self.before is None else [self.before]), *self.held]
