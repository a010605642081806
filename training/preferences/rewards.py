"""A reward model at work: conversations in, numbers out; and how good the numbers are on held-out pairs.

The reward is read at the last token, the end of the assistant's turn (transformers' sequence classification reads it at
the last token that is not padding, so padding must be another token than that end). It is a Bradley-Terry score: only
differences between replies to one prompt mean something, sigmoid(difference) is the chance that the first is preferred.

The laws: what is longer than the model's window is not scored (None), never cut; a reply is rendered as pairs are, so a
conversation has the reward that its pair had in training, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gristmill.dataops.dataset import Dataset, InputError, is_remote
from gristmill.training.chat import open_chat
from gristmill.training.preferences.held import share, wins
from gristmill.training.preferences.logprobs import TOKENS, Example, Replies, each
from gristmill.training.preferences.rows import Rows, lists
from gristmill.training.scoring import Score
from gristmill.training.spec import open_input

OP = "reward"
BINS = 10  # of the expected calibration error, over confidences from 1/2 to 1

Message = Mapping[str, Any]  # role and content
Conversation = Sequence[Message]


def rewards(model: Any, examples: Sequence[Example], pad_id: int, tokens: int = TOKENS) -> np.ndarray:
    """The reward of each prompt with its reply, float64 [n]."""

    def told(rows: Replies) -> torch.Tensor:
        return model(input_ids=rows.tokens, attention_mask=rows.real.long(), use_cache=False).logits[:, 0]

    return each(model, examples, pad_id, told, tokens)


def judged(model: Any, rows: Rows, pad_id: int) -> dict[str, Any]:
    """How a reward model does on held-out pairs.

    `accuracy` (ties half) with its interval, also where the chosen reply is the shorter and the longer one; `brier`,
    the mean squared distance of sigmoid(chosen - rejected) from 1; `ece`, the expected calibration error (Guo et al.
    2017) of the surer side over BINS equal bins; Spearman correlations of reward with length over all replies, and of
    their differences over pairs; `longer`, the share of pairs whose chosen reply is the longer: what length alone gets.
    """
    prompts = lists(rows.table["prompt_ids"])
    sides = [lists(rows.table[name]) for name in ("chosen_ids", "rejected_ids")]
    chosen, rejected = (rewards(model, list(zip(prompts, side, strict=True)), pad_id) for side in sides)
    chosen_length, rejected_length = (np.array([len(reply) for reply in side]) for side in sides)
    margin, longer = chosen - rejected, chosen_length - rejected_length
    right = wins(margin)
    both, lengths = np.concatenate([chosen, rejected]), np.concatenate([chosen_length, rejected_length])
    return {
        "accuracy": share(right),
        "accuracy_chosen_shorter": share(right[longer < 0]) if (longer < 0).any() else None,
        "accuracy_chosen_longer": share(right[longer > 0]) if (longer > 0).any() else None,
        "longer": float(wins(longer).mean()),
        "brier": float(((1 - sigmoid(margin)) ** 2).mean()),
        "ece": calibration(margin),
        "length_correlation": spearman(both, lengths),
        "length_margin_correlation": spearman(margin, longer),
        "margin": float(margin.mean()),
        "mean": float(both.mean()),
        "deviation": float(both.std()),
    }


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Without overflow for large negative values."""
    return np.exp(-np.logaddexp(0.0, -values))


def calibration(margin: np.ndarray) -> float:
    """Over bins of confidence sigmoid(|margin|): the distance between how sure the model was of its side and how often
    that side was the chosen one, weighed by the pairs in the bin."""
    confidence, right = sigmoid(np.abs(margin)), wins(margin)
    place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
    told = np.bincount(place, confidence, BINS)
    true = np.bincount(place, right, BINS)
    return float(np.abs(told - true).sum() / len(margin))


def spearman(one: np.ndarray, other: np.ndarray) -> float | None:
    """The correlation of ranks, ties sharing theirs; None where either is constant."""
    ranks = []
    for values in (one, other):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(count) - (count + 1) / 2)[place])
    if min(rank.std() for rank in ranks) == 0:
        return None
    return float(np.corrcoef(np.stack(ranks))[0, 1])


def open_reward(dataset: Dataset) -> Callable[[Sequence[Conversation]], list[float | None]]:
    """A function that scores conversations whose last message is the assistant's; None where one is longer than the
    model's window. On a GPU where there is one. Raises InputError where the dataset is no reward model, and from a call
    for a conversation that does not end in a reply; DamagedError where a byte of it has changed."""
    from transformers import AutoModelForSequenceClassification

    made = [op["name"] for op in dataset.manifest["ops"]]
    if made != [OP]:
        raise InputError(
            f"{dataset.name} at {dataset.path} was made by {', '.join(made) or 'no op'}, not by the reward step: "
            "its weights hold no reward"
        )
    if is_remote(dataset.path):
        raise InputError(f"{dataset.path}: copy the checkpoint to a local folder first")
    chat = open_chat(dataset)
    dataset.check_files()
    model = AutoModelForSequenceClassification.from_pretrained(dataset.file(""), local_files_only=True)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    window = getattr(model.config, "max_position_embeddings", None)

    def score(conversations: Sequence[Conversation]) -> list[float | None]:
        examples = [rendered(chat.tokenizer, conversation) for conversation in conversations]
        fits = [n for n, (a, b) in enumerate(examples) if window is None or len(a) + len(b) <= window]
        found: list[float | None] = [None] * len(examples)
        if fits:
            values = rewards(model, [examples[n] for n in fits], chat.tokenizer.pad_token_id)
            for n, value in zip(fits, values, strict=True):
                found[n] = float(value)
        return found

    return score


def rendered(tokenizer: Any, conversation: Conversation) -> Example:
    """Prompt and reply as pairs have them: the prompt ends with what opens the assistant's turn, the reply with the
    token that ends it."""
    messages = [dict(message) for message in conversation]
    if not messages or messages[-1].get("role") != "assistant":
        raise InputError("a conversation to score ends with the assistant's message")
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    if whole[: len(prompt)] != prompt:
        raise InputError("the chat template renders a prompt differently once it is answered: no reply can be told")
    reply = whole[len(prompt) :]
    if tokenizer.eos_token_id in reply:  # what a template writes after the end of a turn is not the reply's
        reply = reply[: len(reply) - reply[::-1].index(tokenizer.eos_token_id)]
    return prompt, reply


def scorer(path: str, digest: str) -> Callable[[Sequence[Mapping[str, Any]], Sequence[str]], list[Score]]:
    """A reward model as a scorer of training/scoring.py, for rows with a `prompt` of messages. Scores are any real
    numbers, higher is better."""
    score = open_reward(open_input(path, digest))

    def scored(rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> list[Score]:
        asked = [
            [*row["prompt"], {"role": "assistant", "content": response}]
            for row, response in zip(rows, responses, strict=True)
        ]
        return [Score(found, "reward" if found is not None else "longer_than_window") for found in score(asked)]

    return scored
