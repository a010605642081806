"""The post-training flow: a closed batch of feedback becomes a better model, or a reason why not.

A flow run hands over a batch id; what it means and how far it is done stands in the database and the store, so runs may
be started twice, killed and started again (flows/wheel/turn.py). A step that fails for a reason that may pass (its
process was killed, a disk or the server was away) is tried again; bad input and a gate that blocks are not. Policy
only: what is done is a recipe.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from prefect import Flow, flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL
from prefect.states import Scheduled

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.store import Store
from gristmill.flows.stages import Blocked
from gristmill.flows.wheel.page import markdown
from gristmill.flows.wheel.recipe import Recipe
from gristmill.flows.wheel.turn import align_batch

#: The concurrency limit of one slot that keeps runs on a GPU apart; `gristmill deploy` makes it.
GPU_LIMIT = "gristmill-gpu"
DEFAULT = Recipe()
RESTARTS = 5  # of a run whose process was killed
#: Seconds before a step that failed is tried again. It goes on from what it had written down.
AGAIN = (5.0, 30.0, 120.0)


def _once_more(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A run whose process was killed starts again where it was; not for ever, since it may be what kills it."""
    with get_client(sync_client=True) as client:
        if flow_run.deployment_id is not None and client.read_flow_run(flow_run.id).run_count <= RESTARTS:
            client.set_flow_run_state(flow_run.id, Scheduled(message=f"again, after: {state.message}"), force=True)


@flow(name="align", persist_result=False, on_crashed=[_once_more])
def align(
    batch: int, root: str = ".gristmill", database: str | None = None, recipe: Recipe = DEFAULT
) -> dict[str, Any]:
    """Align a model by a closed batch of feedback and all before it that nobody took; returns the result.

    `root` is where datasets stand; `database` the URL of the feedback's, by default `feedback.db` in the root. The
    same batch again gives the same result and trains nothing. Raises InputError for bad input.
    """
    found = align_batch(Store(Path(root)), open_database(database or Path(root)), batch, recipe, step=_step, gpu=_gpu)
    shown = {"key": f"align-{found['alignment']}", "markdown": markdown(found), "description": found["verdict"]}
    _step("show", lambda: create_markdown_artifact(**shown))
    return found


def _step(name: str, work: Callable[[], Any]) -> Any:
    return task(
        name=name, cache_policy=NO_CACHE, persist_result=False, retries=len(AGAIN), retry_delay_seconds=list(AGAIN),
        retry_condition_fn=_may_pass,
    )(work)()  # fmt: skip


def _may_pass(_: object, __: object, state: State[Any]) -> bool:
    """Whether a step that failed may do better the next time."""
    return not isinstance(state.data, InputError | Blocked)


@contextlib.contextmanager
def _gpu() -> Iterator[None]:
    """A slot of the limit; where no Prefect server is configured there is none, and the lock of the root is all.

    The slot of a killed run is free a minute after it. A server that goes away ends no run that has its slot, and who
    waits for one waits on. Raises ConcurrencySlotAcquisitionError where there is no such limit."""
    if PREFECT_API_URL.value() is None:
        yield
        return
    held = contextlib.ExitStack()
    while True:
        slot = concurrency(GPU_LIMIT, occupy=1, strict=True, lease_duration=60, raise_on_lease_renewal_failure=False)
        try:
            held.enter_context(slot)
            break
        except ConcurrencySlotAcquisitionError:
            if not _was_away():
                raise
    try:
        yield
    finally:
        with contextlib.suppress(httpx.HTTPError):  # what was done is done, and the slot is free a minute later
            held.close()


def _was_away() -> bool:
    """Whether Prefect's server does not answer; if so, until it does, or for ten minutes."""
    with get_client(sync_client=True) as client:
        end = time.monotonic() + 600
        away = client.api_healthcheck() is not None
        while away and client.api_healthcheck() is not None and time.monotonic() < end:
            time.sleep(1)
    return away
