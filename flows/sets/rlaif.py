"""Preferences by a model's judgement (RLAIF): sample responses, judge pairs of them by a constitution.

    <name>-responses   what the engines answered, one version for each engine (training/generate.py)
    <name>             what the judge said of pairs of one prompt's responses; of several judges <name>-1, <name>-2, ...

Each judge is a rater of its own, as people are: agreement and pairs are made of their judgements as of anybody's
(dataops/preferences). Which pairs are asked is one of

    all    every two, or `most` of them for each prompt, drawn
    best   the best so far against the next, then the winner against those that it has not met: at most 2 (n - 1)

The law: a response that is null, or equal to another to the same prompt, meets nobody, and is counted. Bai et al. 2022
(Constitutional AI) and Lee et al. 2023 (RLAIF) say what such preferences are good for.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.identity import canonical_json, row_id
from gristmill.dataops.store import Store
from gristmill.flows.sets.engines import sample
from gristmill.flows.sets.judging import (
    Ask,
    Group,
    Judge,
    Pair,
    Response,
    Strategy,
    checked,
    judge_pairs,
    opened,
)
from gristmill.verifiers.verdict import Verdict

Which = Literal["all", "best"]


def grouped(responses: Sequence[Dataset]) -> tuple[list[Group], dict[str, Any]]:
    """The different responses to each prompt, over all datasets, and how many were null or the same. Raises InputError
    for datasets that are no responses."""
    prompts: dict[str, Any] = {}
    found: dict[str, dict[str, Response]] = {}
    total = missing = same = 0
    for dataset in responses:
        columns = ["id", "prompt", "response", "engine"]
        if dataset.base.kind != "rows" or not set(columns) <= set(dataset.schema().names):
            raise InputError(f"{dataset.name} holds no responses: name what `gristmill train generate` made")
        for batch in dataset.batches(4_096, columns):
            for row in batch.to_pylist():
                key = canonical_json(row["prompt"])
                prompts.setdefault(key, row["prompt"])
                texts, text = found.setdefault(key, {}), row["response"]
                total += 1
                if text is None:
                    missing += 1
                elif text.strip() in texts:
                    same += 1
                else:
                    texts[text.strip()] = Response(row["id"], text, row["engine"])
    groups = [Group(prompts[key], tuple(texts.values())) for key, texts in found.items()]
    alone = sum(len(group.responses) < 2 for group in groups)
    told = {"prompts": len(groups), "responses": total, "null": missing, "same": same, "alone": alone}
    return groups, told


def every(most: int | None, seed: int) -> Strategy:
    """Every two of a group, `most` of them drawn by a hash."""

    def strategy(groups: Sequence[Group], ask: Ask) -> list[tuple[Pair, Verdict]]:
        wanted: list[Pair] = []
        for n, group in enumerate(groups):
            here = list(itertools.combinations(range(len(group.responses)), 2))
            if most is not None and len(here) > most:
                ids = [response.id for response in group.responses]
                drawn = sorted((row_id(str(seed), ids[i], ids[j]), i, j) for i, j in here)[:most]
                here = sorted((i, j) for _, i, j in drawn)
            wanted += [(n, i, j) for i, j in here]
        return list(zip(wanted, ask(wanted), strict=True))

    return strategy


def best(groups: Sequence[Group], ask: Ask) -> list[tuple[Pair, Verdict]]:
    """The best so far meets the next response, and stays where it is not worse; then it meets those that are left."""
    champions = [0] * len(groups)
    asked: dict[Pair, Verdict] = {}
    for challenger in range(1, max((len(group.responses) for group in groups), default=0)):
        wanted = [(n, champions[n], challenger) for n, group in enumerate(groups) if challenger < len(group.responses)]
        for pair, verdict in zip(wanted, ask(wanted), strict=True):
            asked[pair] = verdict
            if verdict.score is not None and verdict.score < 0.5 and verdict.reason != "order_disagrees":
                champions[pair[0]] = challenger
    rest = [
        (n, champions[n], other)
        for n, group in enumerate(groups)
        for other in range(len(group.responses))
        if other != champions[n] and (n, champions[n], other) not in asked and (n, other, champions[n]) not in asked
    ]
    asked |= dict(zip(rest, ask(rest), strict=True))
    return sorted(asked.items())


def judged(
    store: Store,
    responses: Sequence[Dataset],
    judges: Sequence[Judge],
    *,
    which: Which = "all",
    most: int | None = None,
    seed: int = 0,
    name: str = "ai-feedback",
) -> list[Dataset]:
    """The judgements of each judge as a dataset. `most` and `seed` are of the strategy `all`. Raises InputError,
    and OSError where a judge goes away: the same call goes on."""
    _check(judges, which, most)
    groups, told = grouped(responses)
    strategy = every(most, seed) if which == "all" else best
    params = {"which": which, **({"most": most, "seed": seed} if most is not None else {})}
    made = []
    for number, judge in enumerate(judges, 1):
        with opened(store, judge) as panelist:
            called = name if len(judges) == 1 else f"{name}-{number}"
            made.append(
                judge_pairs(store, called, panelist, groups, strategy, inputs=responses, params=params, told=told)
            )
    return made


def _check(judges: Sequence[Judge], which: str, most: int | None) -> None:
    if which not in get_args(Which):
        raise InputError(f"no strategy {which!r}; there are: {', '.join(get_args(Which))}")
    if which == "best" and most is not None:
        raise InputError("a bound is of the strategy all: leave it out for best, which asks 2 (n - 1) at most")
    if most is not None and most < 1:
        raise InputError(f"at most {most} pairs of a prompt: give 1 or more")
    if not judges:
        raise InputError("no judge: name a checkpoint, a model's folder, or a server's URL")


def ai_feedback(
    store: Store,
    prompts: Dataset,
    engines: Sequence[str],
    judges: Sequence[Judge],
    *,
    samples: int = 2,
    max_tokens: int = 512,
    temperature: float = 1.0,
    which: Which = "all",
    most: int | None = None,
    seed: int = 0,
    name: str = "ai-feedback",
) -> dict[str, list[Dataset]]:
    """Sample and judge: {"responses": [...], "judged": [...]}, what stands is taken. See `sample` and `judged`."""
    for judge in judges:
        checked(store, judge)
    _check(judges, which, most)
    answered = sample(
        store, prompts, engines, samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed,
        name=f"{name}-responses",
    )  # fmt: skip
    return {
        "responses": answered,
        "judged": judged(store, answered, judges, which=which, most=most, seed=seed, name=name),
    }


def between(judgements: Sequence[Dataset]) -> dict[str, Any] | None:
    """How often two judges say the same of a pair that both judged: better, worse or a tie. None for one judge."""
    votes: dict[bytes, dict[str, int]] = {}
    for dataset in judgements:
        for batch in dataset.batches(4_096, ["item", "replies", "rater", "value"]):
            for row in batch.to_pylist():
                if row["value"] is None:
                    continue
                first, second = row["value"] if row["replies"][0] <= row["replies"][1] else row["value"][::-1]
                votes.setdefault(row["item"], {})[row["rater"]] = (first > second) - (first < second)
    both = [list(told.values()) for told in votes.values() if len(told) > 1]
    if not both:
        return None
    two = [a == b for told in both for a, b in itertools.combinations(told, 2)]
    return {"pairs": len(both), "agree": sum(two) / len(two)}


def summary(dataset: Dataset) -> Mapping[str, Any]:
    """What a judge's dataset says of itself."""
    return {"name": dataset.name, "key": dataset.key, "digest": dataset.digest, **dataset.manifest["stats"]}
