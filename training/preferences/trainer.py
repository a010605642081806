"""The trainers of preference optimisation over our encoded rows: TRL's DPO and KTO, and ORPO and SimPO by ours.

A trainer walks over row numbers (training/post/data.py); the collators here fetch the rows. TRL would tokenise, cut and
filter what it is given, and pair KTO's rows in its own order: its preparation is passed over, so what reaches the loss
is what the datasets hold.

The law kept here: a training sequence is never cut. The one exception is told beforehand: the mismatched replies that
KTO takes its KL from, which carry no gradient, where prompt and foreign reply together pass the window.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Trainer
from trl import DPOTrainer, KTOTrainer, RewardTrainer

from gristmill.training.preferences.logprobs import Example, Replies, pad, reply_logps
from gristmill.training.preferences.rows import Rows, lists

Collator = Callable[[Sequence[Mapping[str, int]]], dict[str, torch.Tensor]]
#: (chosen, rejected, chosen_length, rejected_length) of n pairs to n losses
PairLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Dpo(DPOTrainer):
    """TRL's, over rows that are encoded, with reference log-probabilities in them where the arguments say so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        drop_reference_adapter(self.model)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset


class Kto(KTOTrainer):
    """TRL's, over rows that are encoded."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        drop_reference_adapter(self.model)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class Reward(RewardTrainer):
    """TRL's, over rows that are encoded."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset


class ReferenceFree(Trainer):
    """A loss of the model's own log-probabilities of pairs (preferences/losses.py)."""

    def __init__(self, *args: Any, pair_loss: PairLoss, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over pairs: the trainer divides by the pieces
        self.pair_loss = pair_loss
        self.measured: dict[str, list[float]] = defaultdict(list)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the pairs of a piece."""
        rows = Replies(inputs["input_ids"], inputs["attention_mask"].bool(), inputs["completion_mask"].bool())
        lengths = rows.reply.sum(dim=1)
        sums = reply_logps(model, rows).sum(dim=1)
        pairs = (*sums.chunk(2), *lengths.chunk(2))
        loss = self.pair_loss(*pairs).mean()
        if model.training:
            chosen, rejected, chosen_length, rejected_length = (part.detach() for part in pairs)
            mean, other = chosen / chosen_length, rejected / rejected_length
            self.measured["logps/chosen"].append(chosen.mean().item())
            self.measured["logps/rejected"].append(rejected.mean().item())
            self.measured["likelihood/accuracies"].append((mean > other).float().mean().item())
            self.measured["likelihood/margins"].append((mean - other).mean().item())
            self.measured["num_tokens"].append(float(rows.real.sum().item()))
        return (loss, None) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds what the pieces of a step measured; `num_tokens` are those of the step."""
        if "loss" in logs:
            tokens = sum(self.measured.pop("num_tokens", []))
            logs |= {name: sum(values) / len(values) for name, values in self.measured.items()}
            logs["num_tokens"] = tokens
            self.measured.clear()
        super().log(logs, start_time)


def drop_reference_adapter(model: Any) -> None:
    """TRL copies fresh adapters as a reference; without them it takes the model with its adapters off, which is the
    same, costs nothing and leaves one adapter to keep and to load."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")


class Table:
    """The columns of several sources, fetched by (source, row)."""

    def __init__(self, sources: Sequence[Rows], replies: Sequence[str], numbers: Sequence[str] = ()) -> None:
        self.lists = {name: [lists(rows.table[name]) for rows in sources] for name in ("prompt_ids", *replies)}
        self.numbers = {name: [rows.table[name].to_numpy() for rows in sources] for name in numbers}

    def examples(self, rows: Sequence[Mapping[str, int]], reply: str) -> list[Example]:
        """Prompts with the replies in a column."""
        prompts, replies = self.lists["prompt_ids"], self.lists[reply]
        return [(prompts[r["source"]][r["row"]], replies[r["source"]][r["row"]]) for r in rows]

    def column(self, rows: Sequence[Mapping[str, int]], name: str) -> torch.Tensor:
        """A column of numbers, float32 (bool where it is bool); what is null is 0."""
        values = np.array([self.numbers[name][r["source"]][r["row"]] for r in rows])
        if values.dtype == bool:
            return torch.from_numpy(values)
        return torch.from_numpy(np.nan_to_num(values.astype(np.float32)))


def tensors(examples: Sequence[Example], pad_id: int, prefix: str = "") -> dict[str, torch.Tensor]:
    """Under the names of TRL's collators."""
    rows = pad(examples, pad_id)
    return {
        f"{prefix}input_ids": rows.tokens,
        f"{prefix}attention_mask": rows.real.long(),
        f"{prefix}completion_mask": rows.reply.long(),
    }


def pair_collator(table: Table, pad_id: int, numbers: Sequence[str]) -> Collator:
    """Chosen sequences, then rejected ones, in one block; and columns of numbers."""

    def collate(rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        both = table.examples(rows, "chosen_ids") + table.examples(rows, "rejected_ids")
        return tensors(both, pad_id) | {name: table.column(rows, name) for name in numbers}

    return collate


def thumb_collator(table: Table, pad_id: int, window: int | None) -> Collator:
    """Completions, and for KTO's KL each prompt with the completion of the row before it in the piece (the first with
    the last's), cut where it would pass the window."""

    def collate(rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        own = table.examples(rows, "completion_ids")
        other = [own[-1][1], *(reply for _, reply in own[:-1])]
        room = [None if window is None else window - len(prompt) for prompt, _ in own]
        mismatched = [(prompt, reply[:most]) for (prompt, _), reply, most in zip(own, other, room, strict=True)]
        return tensors(own, pad_id) | tensors(mismatched, pad_id, "KL_") | {"label": table.column(rows, "label")}

    return collate


def scored_collator(table: Table, pad_id: int, numbers: Sequence[str]) -> Collator:
    """As `pair_collator`, without the mask of replies: a reward model reads whole conversations."""
    collate = pair_collator(table, pad_id, numbers)

    def scored(rows: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        found = collate(rows)
        del found["completion_mask"]
        return found

    return scored


def mean_loss(trainer: Any, collate: Collator, count: int, rows: int) -> float:
    """The trainer's own loss over the first `count` rows of a table's first source, `rows` at a time."""
    model = trainer.model
    was_training = model.training
    model.eval()
    total = 0.0
    with torch.no_grad(), trainer.compute_loss_context_manager():
        for start in range(0, count, rows):
            piece = [{"source": 0, "row": row} for row in range(start, min(start + rows, count))]
            inputs = {name: value.to(trainer.args.device) for name, value in collate(piece).items()}
            total += float(trainer.compute_loss(model, inputs)) * len(piece)
    model.train(was_training)
    return total / count
