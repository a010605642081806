"""Which flows run by themselves, when, and on what: one list, for `gristmill up`, `gristmill deploy` and prefect.yaml.

The idea: a deployment is a flow with a schedule, a trigger or neither (then it is a form in Prefect's UI). Flows are
named by module, so that they are found wherever gristmill is installed. The laws: registering twice is registering
once; one Prefect server holds one root's deployments, another root is refused; the list here and prefect.yaml say the
same (a test). Runs that were under way when their runner was killed start again, where it is known that nobody else
runs them. Times are UTC. What a person changed of a schedule in the UI is set back by the next registration.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.runner import Runner
from prefect.schedules import Cron
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed, Scheduled
from prefect.types.entrypoint import EntrypointType

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.batches import EVENT
from gristmill.dataops.fileio import is_remote
from gristmill.flows.feedback import RESOURCE, runs
from gristmill.flows.posttrain import GPU_LIMIT, RESTARTS
from gristmill.flows.wheel.recipe import Recipe

_TAG = "gristmill"
_AT_ONCE = 10  # runs; those that wait for the GPU are among them
#: From an event to parameters: this form keeps the number a number.
_BATCH = {
    "__prefect_kind": "json",
    "value": {"__prefect_kind": "jinja", "template": "{{ event.payload.batch | tojson }}"},
}


@dataclass(frozen=True)
class Deployed:
    """A flow (by module) under a name; `cron` in UTC, or started by a closed batch, or by hand alone. `given` are those
    of root, database, crawl and recipe that it is told."""

    flow: str
    name: str
    told: str
    cron: str | None = None
    on_batch: bool = False
    given: tuple[str, ...] = ("root",)

    def when(self, crawl: bool) -> str:
        """When it runs, as a person reads it."""
        if self.on_batch:
            return "when a batch of feedback is closed"
        if self.cron is None:
            return "by hand"
        return f"{self.cron} UTC" if crawl or "crawl" not in self.given else "not scheduled: give --crawl"


DEPLOYED = (
    Deployed(
        "gristmill.flows.pretrain.pretrain_data", "nightly",
        "The crawl to packed tokens; what stands already is not built again.",
        cron="0 2 * * *", given=("root", "crawl"),
    ),
    Deployed(
        "gristmill.flows.refilter.refilter", "weekly",
        "The last crawl again, by the rules, takedowns and blocklists of now.", cron="0 4 * * 0",
    ),
    Deployed(
        "gristmill.flows.feedback.sweep", "hourly",
        "Closes feedback that is due, announces it, starts what an event missed.",
        cron="0 * * * *", given=("root", "database"),
    ),
    Deployed(
        "gristmill.flows.posttrain.align", "on-feedback",
        "A closed batch of feedback to a better model, or to the reason why not.",
        on_batch=True, given=("root", "database", "recipe"),
    ),
    Deployed("gristmill.flows.sets.sft.build_sft", "by-hand", "Chats in any format to packed tokens for SFT."),
    Deployed(
        "gristmill.flows.sets.preferences.build_preferences", "by-hand",
        "Judgements of people, AI judges and verifiers to preference pairs or thumbs.",
    ),
    Deployed(
        "gristmill.flows.sets.scheduled.ai_feedback", "by-hand",
        "Responses of engines, compared in both orders by AI judges.",
    ),
    Deployed(
        "gristmill.flows.sets.scheduled.red_team", "by-hand",
        "Attacks on a model, with the rates that succeed and that are declined.",
    ),
)  # fmt: skip


def find(deployed: Deployed) -> Flow[..., Any]:
    """The flow itself."""
    module, _, name = deployed.flow.rpartition(".")
    found: Flow[..., Any] = getattr(importlib.import_module(module), name)
    return found


def deployments(
    root: str | Path,
    database: str | None = None,
    crawl: Sequence[str] = (),
    pool: str | None = None,
    recipe: Recipe | None = None,
) -> list[RunnerDeployment]:
    """All of the list for a root. Without `crawl` the schedule of what needs one is there, and not active; without a
    `recipe` align goes by its own."""
    values: dict[str, Any] = {
        "root": str(Path(root).resolve()),
        "database": database,
        "crawl": [_absolute(path) for path in crawl],
    }
    if recipe is not None:
        values["recipe"] = recipe.model_dump(mode="json")
    made: list[Any] = []  # Prefect types what a synchronous call returns as if it might be awaited
    for one in DEPLOYED:
        active = "crawl" not in one.given or bool(crawl)
        schedules = [Cron(one.cron, timezone="UTC", slug=one.name, active=active)] if one.cron else []
        made.append(
            find(one).to_deployment(
                one.name, description=one.told, tags=[_TAG], schedules=schedules,
                parameters={name: values[name] for name in one.given if name in values},
                triggers=[on_batch()] if one.on_batch else [],
                work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )  # fmt: skip
    return made


def _absolute(path: str) -> str:
    return path if is_remote(path) else str(Path(path).resolve())


def on_batch() -> DeploymentEventTrigger:
    """A closed batch of any queue starts a run with its id."""
    return DeploymentEventTrigger(
        name="gristmill-closed-batch", description="A closed batch of feedback starts align",
        match={"prefect.resource.id": f"{RESOURCE}*"}, expect={EVENT}, parameters={"batch": _BATCH},
    )  # fmt: skip


def register(
    made: Sequence[RunnerDeployment], apply: Callable[[RunnerDeployment], Any] = RunnerDeployment.apply
) -> list[uuid.UUID]:
    """Deployments, their schedules and triggers, and the limit of one run on the GPU, on the configured server.

    A limit that is there stays as it is. Raises InputError where no server is configured, for a work pool that is not
    there, and where the server holds another root's.
    """
    if get_current_settings().api.url is None:
        raise InputError("no Prefect server: set PREFECT_API_URL, or let `gristmill up` start one")
    with get_client(sync_client=True) as client:
        for one in made:
            _check(client, one)
        try:
            client.read_global_concurrency_limit_by_name(GPU_LIMIT)
        except ObjectNotFound:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_LIMIT, limit=1))
    return [apply(one) for one in made]


def _check(client: SyncPrefectClient, one: RunnerDeployment) -> None:
    if one.work_pool_name is not None:
        try:
            client.read_work_pool(one.work_pool_name)
        except ObjectNotFound:
            raise InputError(
                f"no work pool {one.work_pool_name!r}: `prefect work-pool create --type process {one.work_pool_name}`"
            ) from None
    try:
        there = client.read_deployment_by_name(one.full_name)
    except ObjectNotFound:
        return
    root = there.parameters.get("root")
    if root != one.parameters["root"]:
        raise InputError(
            f"{one.full_name} on this server is of the root {root}: one server holds one root; delete it first"
        )


def serve(made: Sequence[RunnerDeployment], *, alone: bool, ready: Callable[[], None]) -> None:
    """Register, and run what is scheduled in processes of this machine, until SIGTERM or Ctrl-C. `ready` is called when
    all is registered.

    `alone`: nobody else runs these, so what looks as if it ran is dead and starts again; and a sweep looks at once for
    what was missed.
    """
    if alone:  # under `gristmill up`, which may have to start the server again too
        with get_client(sync_client=True) as client:
            while client.api_healthcheck() is not None:
                time.sleep(1)
    runner = Runner(name="gristmill", pause_on_shutdown=False, limit=_AT_ONCE)
    # Prefect's own handler stops twice, and the first time it forgets to wait.
    runner.handle_sigterm = lambda *_: sys.exit(0)  # type: ignore[method-assign]
    ids = register(made, runner.add_deployment)
    if alone:
        with get_client(sync_client=True) as client:
            revive(client, ids)
            free(client, get_current_settings().home / "concurrency_leases")
            for one, number in zip(made, ids, strict=True):
                if one.flow_name == "sweep":
                    client.create_flow_run_from_deployment(number, state=Scheduled(), tags=["start"])
    ready()
    asyncio.run(runner.start())


def revive(client: SyncPrefectClient, made: Collection[uuid.UUID]) -> list[uuid.UUID]:
    """Start again what ran when its runner was killed, at most five times. Only for who is alone."""
    again = []
    for run in list(runs(client, made, [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])):
        if run.state is not None and run.state.type is StateType.CANCELLING:
            client.set_flow_run_state(run.id, Cancelled(message="its runner was killed"), force=True)
        elif run.run_count > RESTARTS:
            client.set_flow_run_state(
                run.id, Crashed(message=f"its runner was killed {run.run_count} times"), force=True
            )
        else:
            client.set_flow_run_state(run.id, Scheduled(message="its runner was killed"), force=True)
            again.append(run.id)
    return again


def free(client: SyncPrefectClient, leases: Path) -> None:
    """Give back the GPU that a dead run held; Prefect would do it when its lease ends, or not at all where the server
    was killed between taking a slot and writing down by whom. Only for who is alone."""
    for lease in leases.glob("*-*.json"):
        client.request("POST", "/v2/concurrency_limits/decrement-with-lease", json={"lease_id": lease.stem})
    if client.read_global_concurrency_limit_by_name(GPU_LIMIT).active_slots:
        client.update_global_concurrency_limit(GPU_LIMIT, GlobalConcurrencyLimitUpdate(active_slots=0))


def _file(flow: str) -> str:
    """As `prefect deploy` wants it: the file from the checkout, and the function."""
    _, *folders, function = flow.split(".")
    return f"{'/'.join(folders)}.py:{function}"


def as_yaml() -> dict[str, Any]:
    """What prefect.yaml says, for a checkout as working folder and the root .gristmill in it."""
    listed = []
    for one, made in zip(DEPLOYED, deployments(".gristmill"), strict=True):
        entry: dict[str, Any] = {
            "name": one.name,
            "description": one.told,
            "entrypoint": _file(one.flow),
            "tags": [_TAG],
        }
        entry["parameters"] = {**made.parameters, "root": ".gristmill"}
        if one.cron:
            active = "crawl" not in one.given
            entry["schedules"] = [{"cron": one.cron, "timezone": "UTC", "slug": one.name, "active": active}]
        if one.on_batch:
            kept = {"name", "description", "match", "expect", "parameters"}
            entry["triggers"] = [{"type": "event", **json.loads(on_batch().model_dump_json(include=kept))}]
        listed.append({**entry, "work_pool": {"name": "gristmill"}})
    return {"deployments": listed}
