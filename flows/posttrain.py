"""The post-training flow: a closed batch of feedback becomes a better model, or a reason why not.

A flow run hands over a batch id; what it means and how far it is done stands in the database and the store, so runs may
be started twice, killed and started again (flows/wheel/turn.py). Policy only: what is done is a recipe.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.store import Store
from gristmill.flows.wheel.page import markdown
from gristmill.flows.wheel.recipe import Recipe
from gristmill.flows.wheel.turn import Step, align_batch

#: The concurrency limit of one slot that keeps runs on a GPU apart; `gristmill deploy` makes it.
GPU_LIMIT = "gristmill-gpu"
DEFAULT = Recipe()


@flow(name="align", persist_result=False)
def align(
    batch: int, root: str = ".gristmill", database: str | None = None, recipe: Recipe = DEFAULT
) -> dict[str, Any]:
    """Align a model by a closed batch of feedback and all before it that nobody took; returns the result.

    `root` is where datasets stand; `database` the URL of the feedback's, by default `feedback.db` in the root. The
    same batch again gives the same result and trains nothing. Raises InputError for bad input.
    """
    step: Step = lambda name, work: task(name=name, cache_policy=NO_CACHE, persist_result=False)(work)()  # noqa: E731
    found = align_batch(Store(Path(root)), open_database(database or Path(root)), batch, recipe, step=step, gpu=_gpu)
    create_markdown_artifact(key=f"align-{found['alignment']}", markdown=markdown(found), description=found["verdict"])
    return found


def _gpu() -> contextlib.AbstractContextManager[Any]:
    """A slot of the limit; where no Prefect server is configured there is none, and the lock of the root is all.

    The slot of a killed run is free a minute after it; a server that goes away ends no run that has its slot."""
    if PREFECT_API_URL.value() is None:
        return contextlib.nullcontext()
    return concurrency(GPU_LIMIT, occupy=1, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False)
