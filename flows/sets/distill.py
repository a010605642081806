"""Distillation: a teacher's answers as rows to learn from, those that a verifier or a judge lets pass.

    <name>-answers   what the teacher answered, `samples` times each prompt (training/generate.py)
    <name>-scored    with the score of each, where somebody scores (scored.py)
    <name>           prompt and answer as `messages`, with the teacher, and the answer's log-probability under it

`logprob` is the sum over the answer's tokens at temperature 1 (nats), null where the teacher's engine does not tell it;
log-probabilities of single tokens, and of the other tokens that might have stood there, no engine here gives. Who
taught, by its own word, and how it was sampled are parameters of the op that makes <name>, and so part of its identity.

The laws: every answer is a row or in the ledger with a reason; what could not be judged is not learnt. Reasons:
"no_response" (null, or nothing), "truncated" (at the most tokens), "unjudged", "below".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store
from gristmill.flows.sets.engines import sample
from gristmill.flows.sets.judging import message
from gristmill.flows.sets.scored import By, scored

#: What of the step that generated says how the teacher was asked.
_SAMPLING = ("samples", "max_tokens", "temperature", "seed")


@op("distill.learn", version=1)
def learn(
    rows: pl.DataFrame, *, teacher: Mapping[str, str], sampling: Mapping[str, Any], at_least: float | None
) -> Split:
    """Answers into rows to learn from; those below a score of `at_least` and without one are dropped, where it is
    given."""
    reason = (
        pl.when(pl.col("response").fill_null("").str.strip_chars() == "").then(pl.lit("no_response"))
        .when(pl.col("finish") == "length").then(pl.lit("truncated"))
    )  # fmt: skip
    score = pl.lit(None, pl.Float64)
    if at_least is not None:
        score = pl.col("score")
        reason = reason.when(score.is_null()).then(pl.lit("unjudged")).when(score < at_least).then(pl.lit("below"))
    told = rows.with_columns(reason=reason)
    kept, gone = told.filter(pl.col("reason").is_null()), told.filter(pl.col("reason").is_not_null())
    talks = [
        [*(message(item["role"], item["content"]) for item in prompt), message("assistant", text)]
        for prompt, text in zip(kept["prompt"].to_list(), kept["response"].to_list(), strict=True)
    ]
    made = kept.select("id", "sources").with_columns(
        pl.Series("messages", talks, dtype=MESSAGES),
        tools=pl.lit(None, pl.String),
        source=pl.lit(f"{teacher['name']}@{teacher['version']}"),
        licence=pl.lit(None, pl.String),
        ids=pl.lit([], pl.List(pl.String)),
        logprob=kept["logprob"],
        answer_tokens=kept["tokens"],
        score=kept.with_columns(score=score)["score"],
    )
    threshold = pl.when(pl.col("reason") == "below").then(pl.lit(at_least, pl.Float64))
    value = score if at_least is not None else None
    return Split(made, ledger(gone, value=value, threshold=threshold))


def distill(
    store: Store,
    given: Dataset,
    teacher: str | None = None,
    *,
    by: By | None = None,
    at_least: float | None = None,
    samples: int = 1,
    max_tokens: int = 512,
    temperature: float = 1.0,
    seed: int = 0,
    name: str = "distilled",
) -> dict[str, Dataset]:
    """The teacher's answers to prompts, or the answers that a dataset of responses has already (without a teacher),
    scored by `by` where it is given, as rows to learn from: "answers", "scored", "sft".

    `at_least` is the least score of an answer that is learnt; left out, the one that passes by the scorer's own word.
    Raises InputError, and OSError where the teacher or a judge goes away: the same call goes on.
    """
    if by is None and at_least is not None:
        raise InputError(f"at_least {at_least:g} is a score's: name a verifier or a judge that gives one")
    least = at_least if by is None or at_least is not None else by.passes
    if by is not None and least is None:
        raise InputError("this scorer does not say which score passes: give the least one that is learnt (at_least)")
    if ("response" in given.schema().names) == (teacher is not None):
        what = "prompts: name the teacher that answers them" if teacher is None else "answers: leave the teacher out"
        raise InputError(f"{given.name} has {what}")
    answers = given
    if teacher is not None:
        [answers] = sample(
            store, given, [teacher], samples=samples, max_tokens=max_tokens, temperature=temperature, seed=seed,
            name=f"{name}-answers",
        )  # fmt: skip
    built = {"answers": answers}
    if by is not None:
        built["scored"] = scored(store, answers, by, name=f"{name}-scored")
    asked = answers.manifest["ops"][0]
    if asked["name"] != "generate":
        raise InputError(f"{answers.name} does not say who answered: name what `gristmill train generate` made")
    sampling = {key: asked["params"][key] for key in _SAMPLING}
    learning = learn(teacher=asked["params"]["engine"], sampling=sampling, at_least=least)
    built["sft"] = store.build(name, learning, [built.get("scored", answers)])
    return built
