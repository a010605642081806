"""What is asked next: fresh responses of the promoted model, put into the queue.

The idea (iterative DPO, Xu et al. 2023): pairs teach most where both replies are what the model itself says now, so
each round asks people about the responses of the model that the last round made, to other prompts. The law: putting
them twice adds nothing, since the responses stand as a dataset and an item is a hash of its content. Not covered:
strategies that need scores of a judge (`gristmill feedback queue` puts such candidates).
"""

from __future__ import annotations

from typing import Any

import polars as pl

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.feedback.candidates import Candidate, Response
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.draw import draw
from gristmill.dataops.feedback.queues import put, queue_kind
from gristmill.dataops.feedback.values import KINDS
from gristmill.dataops.store import Store
from gristmill.flows.train import named, train
from gristmill.flows.wheel.recipe import Asking


def sample(store: Store, asking: Asking, model: Dataset, part: int) -> Dataset:
    """Responses of a model to the `part`-th run of the prompts, by the step `generate`. Alignment n takes run n; run 0
    is there for whoever asks first."""
    prompts = store.get(asking.prompts)
    drawn = store.build(f"{prompts.name}-asked", draw(count=asking.count, part=part), [prompts])
    spec = {
        "name": f"{model.name}-responses", "data": named(drawn), "model": named(model), "samples": asking.samples,
        "temperature": asking.temperature, "max_tokens": asking.max_tokens, "engine": asking.engine, "seed": part,
    }  # fmt: skip
    return Dataset.load(train("generate", store, spec)["path"])


def candidates(responses: Dataset, model: Dataset) -> list[Candidate]:
    """Of each prompt a candidate with its responses that are there and differ, by the policy NAME:KEY."""
    policy = f"{model.name}:{model.key[:12]}"
    rows = responses.scan().select("id", "sources", "prompt", "response", "sample").collect()
    rows = rows.filter(pl.col("response").str.strip_chars() != "").with_columns(of=pl.col("sources").list.first())
    made = []
    for one in rows.sort("of", "sample").partition_by("of", maintain_order=True):
        first = one.unique("response", keep="first", maintain_order=True)
        said = tuple(Response({"role": "assistant", "content": text}, policy) for text in first["response"])
        made.append(Candidate(first["prompt"][0].to_list(), said, source=first["id"][0].hex()))
    return made


def ask(db: Database, queue: str, asking: Asking, responses: Dataset, model: Dataset) -> dict[str, Any]:
    """Put the responses into a queue; returns what was put. Raises InputError where there is no such queue."""
    kind = queue_kind(db, queue)
    if kind is None:
        raise InputError(f"no queue {queue!r} to ask in: `gristmill feedback queue` makes it")
    given = candidates(responses, model)
    fit = [one for one in given if len(one.responses) >= KINDS[kind][0]]
    done = put(db, queue, fit, strategy=asking.strategy, dataset=responses)
    return {
        "queue": queue, "responses": {"name": responses.name, "key": responses.key}, "prompts": len(given),
        "same_responses": len(given) - len(fit) + done.same_responses, "items": done.added + done.known,
        "policy": f"{model.name}:{model.key[:12]}",
    }  # fmt: skip
