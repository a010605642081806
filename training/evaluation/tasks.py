"""The measures of a task: right and wrong, how sure, how long, how it looks, and what nobody could judge.

    score, pass@k, maj@k             of scorers; see accuracy.py
    unjudged                         share of responses without a score, always told beside them
    refusal (over_refusal)           share that decline (of a task of harmless prompts)
    length, length_p05, _p50, _p95   in tokens; cut: share that reached max_tokens
    entropy, kl                      per token of the responses; see likelihood.py
    distinct_1, _2, _3, self_bleu    diversity; see texts.py
    opener, list, markdown           share with the commonest first three words, with a list, with Markdown

The unit of every interval is the prompt. The law: what has no score is in `unjudged` and in nothing else; a measure
that nothing can be said of is left out, never 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gristmill.training.evaluation import texts
from gristmill.training.evaluation.accuracy import majorities, mean_scores, pass_rates
from gristmill.training.evaluation.asking import Asked, total
from gristmill.training.evaluation.intervals import Measure, mean, ratio, share
from gristmill.training.evaluation.likelihood import Sums
from gristmill.training.evaluation.refusals import refuses
from gristmill.training.evaluation.spec import Task
from gristmill.training.scoring import Score

Responses = Sequence[Sequence[str | None]]
Found = dict[str, Measure]


def accuracy(task: Task, responses: Responses, scores: Sequence[Sequence[Score]], *, seed: int) -> Found:
    """What the scorer says. Without an answer from it, a response's own text is what it answers."""
    values = [[score.score for score in prompt] for prompt in scores]
    found: dict[str, Measure | None] = {"score": mean(mean_scores(values), seed=seed)}
    if task.right is not None:
        for k in task.ks:
            found[f"pass@{k}"] = share(pass_rates(values, task.right, k), seed=seed)
        if task.samples > 1:
            told = any(score.answer is not None for prompt in scores for score in prompt)
            answers = [
                [score.answer if told else _text(response) for score, response in zip(*pair, strict=True)]
                for pair in zip(scores, responses, strict=True)
            ]
            votes = majorities(list(zip(values, answers, strict=True)), task.right)
            found[f"maj@{task.samples}"] = share(votes, seed=seed)
    found["unjudged"] = share([_mean([value is None for value in prompt]) for prompt in values], seed=seed)
    return _there(found)


def style(task: Task, asked: Asked, tokens: Sequence[Sequence[int | None]], *, seed: int) -> Found:
    """What the texts say of themselves; responses that there are none of (a prompt too long) do not take part."""
    responses = asked.responses

    def per_prompt(of: Callable[[str], bool]) -> Measure | None:
        return share([_mean([of(text) for text in prompt if text is not None]) for prompt in responses], seed=seed)

    flat = [text for prompt in responses for text in prompt if text is not None]
    split = [texts.words(text) for text in flat]
    bleu = iter(texts.self_bleu(split))
    by_prompt = [[next(bleu) for text in prompt if text is not None] for prompt in responses]
    opens = iter(texts.opener(split)[1])
    words = iter(split)
    starts = [[float(next(opens)) for text in prompt if text is not None and next(words)] for prompt in responses]
    sizes = [[size for size in prompt if size is not None] for prompt in tokens]
    every = np.array([size for prompt in sizes for size in prompt], dtype=np.float64)
    found: dict[str, Measure | None] = {
        "over_refusal" if task.harmless else "refusal": per_prompt(refuses),
        "length": mean([_mean(prompt) for prompt in sizes], seed=seed),
        "cut": share([_mean([was for was in prompt if was is not None]) for prompt in asked.cut], seed=seed),
        "self_bleu": mean([_mean([x for x in prompt if x is not None]) for prompt in by_prompt], seed=seed),
        "opener": share([_mean(prompt) for prompt in starts], seed=seed),
        "list": per_prompt(texts.has_list),
        "markdown": per_prompt(texts.has_markdown),
    }
    if len(every):
        for q in (5, 50, 95):
            found[f"length_p{q:02d}"] = _plain(float(np.quantile(every, q / 100, method="inverted_cdf")), len(every))
    for n in (1, 2, 3):
        value = texts.distinct(split, n)
        found[f"distinct_{n}"] = None if value is None else _plain(value, len(flat))
    return _there(found)


def per_token(told: Sequence[Sequence[Sums | None]], *, seed: int) -> Found:
    """Entropy and, beside a reference, KL over all tokens of the responses, with intervals over prompts."""
    names = next((list(item.columns) for prompt in told for item in prompt if item is not None), [])
    targets = np.array([total(prompt, None) for prompt in told])
    there = targets > 0
    return _there(
        {
            name: ratio(np.array([total(prompt, name) for prompt in told])[there], targets[there], seed=seed)
            for name in ("entropy", "kl")
            if name in names
        }
    )


def reasons(scores: Sequence[Sequence[Score]]) -> dict[str, int]:
    """Why responses were not judged, the commonest first; of a failure its kind alone."""
    told = Counter(
        ":".join(score.reason.split(":")[:2]) for prompt in scores for score in prompt if score.score is None
    )
    return dict(sorted(told.items(), key=lambda item: (-item[1], item[0]))[:20])


def commonest_opener(responses: Responses) -> dict[str, Any]:
    """The words, and how many responses begin with them."""
    split = [texts.words(text) for prompt in responses for text in prompt if text is not None]
    words, those = texts.opener(split)
    return {"words": words, "responses": int(those.sum()), "of": len(those)}


def _text(response: str | None) -> str | None:
    return None if response is None else " ".join(response.split())


def _mean(values: Sequence[Any]) -> float | None:
    return math.fsum(values) / len(values) if len(values) else None


def _plain(value: float, n: int) -> Measure:
    return Measure(value, None, None, n)


def _there(found: dict[str, Measure | None]) -> Found:
    return {name: measure for name, measure in found.items() if measure is not None}
