"""What preference optimisation may be asked for: losses by name, their settings, and which go with which.

The law kept here: a setting that the loss would pass over in silence is refused, and a default stands in the identity.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gristmill.dataops.dataset import InputError
from gristmill.training.post.spec import PostSpec
from gristmill.training.preferences.rows import PAIRS, THUMBS
from gristmill.training.schedule import Optimiser
from gristmill.training.spec import Input

Dpo = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sigmoid_norm",
]  # fmt: skip
Kto = Literal["kto", "apo_zero_unpaired"]
Own = Literal["orpo", "simpo"]
DPO, KTO, OWN = get_args(Dpo), get_args(Kto), get_args(Own)
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired", *OWN)  # the losses that know label smoothing
WORLD = int(os.environ.get("WORLD_SIZE", "1"))  # processes, by torchrun
ACROSS = ("aot", "aot_unpaired", "kto")  # losses that compare rows of a piece with each other


@dataclass(frozen=True)
class PreferenceSpec(PostSpec):
    """`loss`: "sigmoid" is DPO (Rafailov et al. 2023), "ipo", "robust" and the others as TRL names them, "kto" and
    "apo_zero_unpaired" on thumbs, "orpo" or "simpo".

    `beta` weighs the distance to the reference (0.1 unless told; SimPO's scale, 2.0; ORPO's lambda, 0.1), `gamma` is
    SimPO's margin (1.0 unless told). `label_smoothing` is the share of pairs taken to be the wrong way round. With
    `sft_weight` the chosen replies' negative log-likelihood is added to a loss of the DPO family, against their fall
    (Pang et al. 2024). "discopop" is uphill where training starts: unless something else moves it first, it learns the
    wrong side. `desirable_weight` and `undesirable_weight` are KTO's. `reference` is a dataset of
    log-probabilities. "ipo", "sigmoid_norm", "orpo" and "simpo" divide by the replies' lengths.
    """

    name: str = "preference"
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-6, weight_decay=0.0))
    loss: Literal[Dpo, Kto, Own] = "sigmoid"
    beta: float | None = None
    gamma: float | None = None
    label_smoothing: float = 0.0
    sft_weight: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    reference: Input | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta is None:
            object.__setattr__(self, "beta", 2.0 if self.loss == "simpo" else 0.1)
        if self.gamma is None and self.loss == "simpo":
            object.__setattr__(self, "gamma", 1.0)
        assert self.beta is not None
        if self.beta <= 0 or self.sft_weight < 0 or min(self.desirable_weight, self.undesirable_weight) < 0:
            raise InputError("spec: beta is above 0, sft_weight and the weights of thumbs are from 0 on")
        if self.gamma is not None and (self.loss != "simpo" or self.gamma < 0):
            raise InputError(f"spec: gamma is {self.gamma}; it is SimPO's margin, from 0 on")
        if not 0 <= self.label_smoothing < 0.5:
            raise InputError(f"spec: label_smoothing is {self.label_smoothing}; it is a share below one half")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise InputError(f"spec: loss {self.loss} knows no label_smoothing; these do: {', '.join(SMOOTHED)}")
        if self.loss == "exo_pair" and not self.label_smoothing:
            raise InputError("spec: exo_pair needs a label_smoothing above 0 (Ji et al. 2024 use 0.001)")
        if self.sft_weight and self.loss not in DPO:
            raise InputError(f"spec: sft_weight is for the DPO family, not for {self.loss}")
        if self.loss not in KTO and (self.desirable_weight, self.undesirable_weight) != (1.0, 1.0):
            raise InputError(f"spec: desirable_weight and undesirable_weight are KTO's, not for {self.loss}")
        if self.reference is not None and self.loss not in DPO:
            raise InputError(
                f"spec: {self.loss} takes no reference dataset: "
                + ("KTO's depends on which rows share a step" if self.loss in KTO else "it has no reference")
            )
        if self.lora is not None and self.lora.dropout and self.loss not in OWN:
            raise InputError("spec: lora: TRL's DPO and KTO switch dropout off; leave it out, or train orpo or simpo")
        if self.loss in ACROSS and self.rows // (self.accumulate * WORLD) < 2:
            raise InputError(f"spec: {self.loss} compares the rows of a piece: give more rows, or fewer pieces")

    @property
    def params(self) -> dict[str, Any]:
        """The reference enters by its digest."""
        return {name: value for name, value in super().params.items() if name != "reference"}

    @property
    def replies(self) -> tuple[str, ...]:
        """The columns that the loss reads."""
        return THUMBS if self.loss in KTO else PAIRS
