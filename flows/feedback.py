"""What happens to feedback without anyone typing: batches close when they are due, are announced, and are aligned.

The idea: an event is quick and may be lost, the tables are slow and may not. Closing writes the batch and a row of the
outbox; `announce` posts that row as an event and marks it sent once the server has answered for it; an automation
starts `align` with the batch id (flows/deploy.py). The `sweep` flow does all of it again by the clock, and starts
`align` for every batch that is not aligned and has no run under way. The laws: an event is marked sent only after the
server took it, and may be sent twice; a run that died is no reason to wait, one that lives is no reason for a second.
Not covered: who is told when a run fails (Prefect's automations can).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sql
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event
from prefect.events.filters import EventFilter, EventOrder, EventResourceFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.states import Crashed, Scheduled

from gristmill.dataops.feedback.batches import Batch, close_due, pending, sent
from gristmill.dataops.feedback.batches import Event as Outgoing
from gristmill.dataops.feedback.database import Database, open_database
from gristmill.dataops.feedback.tables import BATCHES, OUTBOX, QUEUES, TAKEN

ALIGN = "align/on-feedback"  # FLOW/DEPLOYMENT that the event and the sweep start
RESOURCE = "gristmill.feedback."  # before the queue's name: what an event is about
UNDER_WAY = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED)
#: A run says every 3 minutes that it lives (PREFECT_FLOWS_HEARTBEAT_FREQUENCY); after three such and a bit it is dead.
SILENCE = timedelta(minutes=10)
GRACE_MS = 60_000  # that an event has to start a run before the sweep does

_log = logging.getLogger(__name__)
_PAGE = 200  # runs that Prefect lists at a time


def close_and_announce(db: Database, root: str | Path) -> list[Batch]:
    """Close what is due in all queues, and announce what was not; returns what was closed."""
    closed = close_due(db, root)
    announce(db)
    return closed


def announce(db: Database) -> int:
    """Send every event of the outbox that was not sent; returns how many the server took.

    Where no Prefect API is configured, or it does not answer, they stay pending for the next time. Prefect's own
    `emit_event` queues in the background and swallows what goes wrong, so this posts and waits for the answer.
    """
    if get_current_settings().api.url is None or not (waiting := pending(db)):
        return 0
    taken = 0
    try:
        with get_client(sync_client=True) as client:
            while waiting:
                for event in waiting:
                    client.request("POST", "/events", json=[_told(event).model_dump(mode="json")])
                    sent(db, event.id)
                    taken += 1
                waiting = pending(db)
    except httpx.HTTPError as error:
        _log.warning("closed batches wait to be announced until the next sweep: %s", error)
    return taken


def _told(event: Outgoing) -> Event:
    """As Prefect takes it; a second sending has the same id."""
    return Event.model_validate({
        "id": uuid.uuid5(uuid.NAMESPACE_OID, f"{event.event}/{event.payload['dataset_key']}"),
        "event": event.event,
        "resource": {"prefect.resource.id": RESOURCE + event.payload["queue"]},
        "payload": event.payload,
    })  # fmt: skip


@flow(name="sweep", persist_result=False)
def sweep(root: str = ".gristmill", database: str | None = None) -> dict[str, Any]:
    """Close feedback that is due, announce it, and start `align` for closed batches that nothing aligns.

    `root` is where datasets stand; `database` is the URL of the feedback's, none for the root's own.
    """
    db = open_database(database or Path(root))
    closed = close_due(db, root)
    return {
        "closed": [batch.id for batch in closed],
        "announced": announce(db),
        "started": start_missing(db),
        "waiting": len(pending(db)),
    }


def start_missing(db: Database) -> list[int]:
    """Start a run of `align` for each batch that needs one; returns their ids, in the order of closing.

    None is started for a batch whose event was sent in the last minute. Where no Prefect API or no such deployment is
    there, nothing is started.
    """
    if get_current_settings().api.url is None:
        return []
    wanted = _needed(db)
    if not wanted:
        return []
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(ALIGN)
        except ObjectNotFound:
            return []
        lives = {run.parameters.get("batch") for run in under_way(client, [deployment.id])}
        missing = [batch for batch in wanted if batch not in lives]
        for batch in missing:
            # Two sweeps at once see the same last run, so they ask for the same one.
            last = _last(client, deployment.id, batch)
            client.create_flow_run_from_deployment(
                deployment.id, parameters={"batch": batch}, state=Scheduled(), tags=["sweep"],
                idempotency_key=f"align-{batch}-after-{last or 'none'}",
            )  # fmt: skip
    return missing


def under_way(client: SyncPrefectClient, deployments: Collection[uuid.UUID]) -> list[FlowRun]:
    """Runs of deployments that have not ended. One that was running and has been silent for too long is marked as
    crashed and left out: whoever ran it was killed, and Prefect would show it as running for ever."""
    living = []
    for run in list(runs(client, deployments, UNDER_WAY)):
        if run.state is None or run.state.type in (StateType.SCHEDULED, StateType.PAUSED) or _breathes(client, run):
            living.append(run)
        else:
            client.set_flow_run_state(run.id, Crashed(message=f"silent for {SILENCE}"), force=True)
    return living


def _needed(db: Database) -> list[int]:
    """Of the batches that are not aligned those to start: of each alignment under way one; of each queue's others the
    newest, which takes those before it."""
    from gristmill.flows.wheel.claims import unaligned

    with db.read() as connection:
        query = (
            sql.select(BATCHES.c.id, QUEUES.c.name, TAKEN.c.alignment, OUTBOX.c.sent_at)
            .join(QUEUES, BATCHES.c.queue == QUEUES.c.id)
            .outerjoin(TAKEN, TAKEN.c.batch == BATCHES.c.id)
            .outerjoin(OUTBOX, OUTBOX.c.batch == BATCHES.c.id)
            .where(BATCHES.c.id.in_(unaligned(db)))
            .order_by(BATCHES.c.id)
        )
        rows = list(connection.execute(query))
    newest: dict[tuple[str, int | None], Any] = {}
    for row in rows:
        newest["" if row.alignment else row.name, row.alignment] = row
    just_now = db.clock() - GRACE_MS
    return sorted(row.id for row in newest.values() if row.sent_at is None or row.sent_at < just_now)


def runs(
    client: SyncPrefectClient, deployments: Collection[uuid.UUID], types: Collection[StateType]
) -> Iterator[FlowRun]:
    """Runs in states of these types, those that ended last first."""
    chosen = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(deployments)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types))),
    )
    seen = 0
    while True:
        page = client.read_flow_runs(flow_run_filter=chosen, sort=FlowRunSort.END_TIME_DESC, limit=_PAGE, offset=seen)
        yield from page
        seen += len(page)
        if len(page) < _PAGE:
            return


def _last(client: SyncPrefectClient, deployment: uuid.UUID, batch: int) -> uuid.UUID | None:
    """The run of a batch that ended last."""
    ended = runs(client, [deployment], [kind for kind in StateType if kind not in UNDER_WAY])
    return next((run.id for run in ended if run.parameters.get("batch") == batch), None)


def _breathes(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether anything was heard of a run of late: its state, or an event about it."""
    since = datetime.now(UTC) - SILENCE
    if run.state is not None and run.state.timestamp > since:
        return True
    about = EventResourceFilter(id=[f"prefect.flow-run.{run.id}"])
    page = client.read_events(EventFilter(resource=about, order=EventOrder.DESC), limit=1)
    return bool(page.events) and page.events[0].occurred > since
