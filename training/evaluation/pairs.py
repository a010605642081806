"""Held-out preferences: of two replies, does the model find the better one more likely?

A pair is told apart where the mean log-probability per token of the chosen reply, given the prompt, is above that of
the rejected one. It is the model's own likelihood, without a reference model, so the figure means the same of a base
model, of the model that training started from and of the one that came out; and it is per token, since in a sum the
shorter reply wins by being short.

The laws: what is said of a pair depends on the pairs, not on their order; a prompt with many pairs counts as one unit.
Pairs longer than the model's window are left out, and told. Not covered: DPO's implicit reward, which speaks of the
change from one model to another alone and which that step itself measures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.dataops.dataset import Dataset
from gristmill.training.chat import Chat
from gristmill.training.evaluation.intervals import Measure, mean, share
from gristmill.training.evaluation.likelihood import Reader
from gristmill.training.preferences.logprobs import Example, score
from gristmill.training.preferences.rows import PAIRS, lists, read_rows


@dataclass(frozen=True)
class Told:
    """What a model says of some pairs, float64 [pairs]: `margin` is the chosen reply's log-probability per token less
    the rejected one's, `loss` the chosen one's negated; `tokens` are those of the chosen replies. `prompts` are equal
    where pairs are of one prompt."""

    ids: list[bytes]
    prompts: list[bytes]
    margin: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray


def read_pairs(data: Dataset, limit: int | None, model: Reader, chat: Chat) -> Told:
    """Ask about at most `limit` pairs, those with the lowest ids. Raises InputError for rows that are no pairs, or are
    encoded for another tokenizer or template."""
    table = read_rows(data, chat, model.model.config, PAIRS).table.sort_by("id").slice(0, limit)
    prompts, *replies = (lists(table[name]) for name in ("prompt_ids", *PAIRS))
    means = []
    for side in replies:
        given: list[Example] = list(zip(prompts, side, strict=True))
        sums = score(model.model, given, chat.tokenizer.pad_token_id)
        means.append(sums / np.array([len(reply) for reply in side]))
    chosen, rejected = means
    tokens = np.array([len(reply) for reply in replies[0]], dtype=np.int64)
    ids = table["id"].to_pylist()
    return Told(ids, [prompt.tobytes() for prompt in prompts], chosen - rejected, -chosen, tokens)


def pair_tokens(data: Dataset, limit: int | None) -> int:
    """Tokens that are read of at most `limit` pairs: the prompt with each reply."""
    sizes = [
        2 * prompt + chosen + rejected
        for batch in data.batches(4_096, ["prompt_ids", *PAIRS])
        for prompt, chosen, rejected in zip(
            *(batch.column(n).value_lengths().to_pylist() for n in range(3)), strict=True
        )
    ]
    return sum(sorted(sizes, reverse=True)[:limit])


def measures(told: Told, *, seed: int) -> dict[str, Measure]:
    """`accuracy`, the share of pairs that are told apart (a tie is half), and `margin` (nats per token), over prompts:
    each is the mean of its pairs, and intervals are over prompts."""
    right = (told.margin > 0) + 0.5 * (told.margin == 0)
    _, unit, pairs = np.unique(np.array(told.prompts, dtype=object), return_inverse=True, return_counts=True)
    by_prompt = [np.bincount(unit, weights=column) / pairs for column in (right, told.margin)]
    found = {"accuracy": share(by_prompt[0], seed=seed), "margin": mean(by_prompt[1], seed=seed)}
    return {name: measure for name, measure in found.items() if measure is not None}
