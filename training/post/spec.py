"""What the specs of SFT, reward models, preference optimisation and reinforcement learning have in common.

The law kept here: what makes the model is identity; where it stands (`PLACES`) and how often the state is kept is not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.schedule import Optimiser
from gristmill.training.spec import Input, check_fields, check_name

PLACES = ("data", "start", "tokenizer", "validation", "root", "name", "save_seconds")  # digests enter as inputs


@dataclass(frozen=True)
class Source(Input):
    """A dataset and its weight: its share of the rows."""

    weight: float = 1.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2021) on all linear layers but the output; they are merged into the weights before
    publishing. `alpha` over `rank` scales what they add."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "lora")
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise InputError("lora: rank and alpha above 0, dropout in [0, 1)")


@dataclass(frozen=True)
class PostSpec:
    """Train `start`, a checkpoint, for `steps` steps of `rows` rows of `data`, each step taken in `accumulate` equal
    pieces; the checkpoint is published as root/name/key.

    `tokenizer` is a chat tokenizer, for a start that has none of its own. `checkpointing` computes activations twice
    instead of keeping them. The state is kept every `save_seconds`.
    """

    data: tuple[Source, ...]
    start: Input
    root: str
    steps: int
    name: str = "model"
    tokenizer: Input | None = None
    validation: tuple[Input, ...] = ()
    rows: int = 8
    accumulate: int = 1
    optimiser: Optimiser = field(default_factory=Optimiser)
    lora: Lora | None = None
    checkpointing: bool = False
    seed: int = 0
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for values that cannot be trained with."""
        check_fields(self)
        check_name(self.name)
        if not self.data:
            raise InputError("spec: data names no dataset")
        for name in ("steps", "rows", "accumulate", "save_seconds"):
            if getattr(self, name) <= 0:
                raise InputError(f"spec: {name} is {getattr(self, name)!r}; it must be above 0")
        if self.rows % self.accumulate:
            raise InputError(f"spec: {self.rows} rows do not divide into {self.accumulate} pieces")
        if not 0 <= self.seed < 1 << 31:
            raise InputError("spec: 0 <= seed < 2**31 must hold")
        if self.optimiser.z_loss or self.optimiser.skip_above is not None:
            raise InputError("spec: z_loss and skip_above are for pretraining; leave them out of this optimiser")

    @property
    def params(self) -> dict[str, Any]:
        """What is identity beside the digests of the inputs."""
        own = {k: v for k, v in dataclasses.asdict(self).items() if k not in PLACES}
        return own | {"weights": [source.weight for source in self.data]}
