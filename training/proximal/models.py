"""The four models of PPO: policy, frozen reference, frozen reward model, value model.

The value model has weights of its own, beginning as a copy of the reward model where there is one (Ouyang et al. 2022,
section 3.5) and else of the policy with a head of zeros. A trunk shared with the policy would save its memory, but the
values' gradients then pull at the policy's weights, most while the values are still wrong (Stiennon et al. 2020,
appendix G.1, keep the two apart for this reason), and a third coefficient would have to say how much.

The laws: at the first step policy and reference give the same probabilities to the bit; a frozen model has no
gradients; a checkpoint that is not what its manifest says is never
trained on.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from gristmill.dataops.dataset import Dataset, InputError, is_remote
from gristmill.training.checkpoint import load_model
from gristmill.training.schedule import Optimiser


def open_policy(start: Dataset, vocab_size: int) -> Any:
    """The causal language model of a checkpoint in float32. Raises InputError where its vocabulary is too small for
    the tokenizer's."""
    model = load_model(start).float()
    _check_vocabulary(start, model, vocab_size)
    return model


def open_scalar(dataset: Dataset, vocab_size: int) -> torch.nn.ModuleDict:
    """A reward model's trunk and head in float32. Raises InputError where the dataset holds none, or where its
    vocabulary is too small for the tokenizer's."""
    names = {entry["file"] for entry in dataset.manifest.get("files", [])}
    wrong = (
        f"{dataset.name} at {dataset.path} is no reward model (one score per sequence): name what the reward step made"
    )
    if is_remote(dataset.path):
        raise InputError(f"{dataset.path}: copy the checkpoint to a local folder first")
    if "files/config.json" not in names:
        raise InputError(wrong)
    config = json.loads(Path(dataset.file("config.json")).read_text())
    if not str((config.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        raise InputError(wrong)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        dataset.file(""), local_files_only=True, dtype=torch.float32
    )
    if model.config.num_labels != 1:
        raise InputError(wrong)
    _check_vocabulary(dataset, model, vocab_size)
    return torch.nn.ModuleDict({"trunk": getattr(model, model.base_model_prefix), "head": model.score})


def _check_vocabulary(dataset: Dataset, model: Any, vocab_size: int) -> None:
    if model.config.vocab_size < vocab_size:
        raise InputError(
            f"{dataset.path} has a vocabulary of {model.config.vocab_size}, its tokenizer one of {vocab_size}: "
            "it was not trained with this tokenizer"
        )


def value_model(policy: Any, reward: torch.nn.ModuleDict | None) -> torch.nn.ModuleDict:
    """A copy of the reward model, or of the policy's trunk with a head that says 0 of everything."""
    if reward is not None:
        return copy.deepcopy(reward)
    trunk = copy.deepcopy(getattr(policy, policy.base_model_prefix))
    head = torch.nn.Linear(policy.config.get_text_config().hidden_size, 1, bias=False)
    torch.nn.init.zeros_(head.weight)
    return torch.nn.ModuleDict({"trunk": trunk, "head": head})


def frozen(model: Any, device: torch.device) -> Any:
    """A model on its device without gradients, on a GPU `rounded`."""
    model = model.requires_grad_(False).eval()
    return (rounded(model) if device.type == "cuda" else model).to(device)


def rounded(model: Any) -> Any:
    """The model with its matrices in bfloat16, to which autocast would round them in every pass: half the memory and
    the same numbers. Embeddings, norms and heads of one score, which it does not round, stay in float32."""
    kept = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in kept and module.out_features > 1:
            module.to(torch.bfloat16)
    return model


def trained(model: Any, device: torch.device, checkpointing: bool) -> Any:
    """A model on its device as it is trained. Dropout is off: it would make the ratio of new to old noise."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    for module in model.modules() if checkpointing else ():
        if hasattr(module, "gradient_checkpointing_enable"):
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            break
    return model.train().to(device)


def optimizer_of(both: torch.nn.ModuleDict, policy: Optimiser, value: Optimiser) -> torch.optim.AdamW:
    """One AdamW over policy and value model, whose groups carry `of`: "policy" or "value". Gains of norms are not
    decayed, which would pull them to zero."""
    groups: list[dict[str, Any]] = []
    for name, settings in (("policy", policy), ("value", value)):
        parameters = list(both[name].parameters())
        plain = {"of": name, "lr": settings.learning_rate, "betas": (settings.beta1, settings.beta2)}
        matrices, gains = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, **plain})
        groups.append({"params": gains, "weight_decay": 0.0, **plain})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)
