"""Deployments: one list, forms for all of them, and a closed batch starts align, by its event or by the sweep."""

from __future__ import annotations

import importlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from feedbackdb import fill, work

from gristmill.dataops.crawl import crawl
from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.batches import close, pending
from gristmill.dataops.feedback.database import Database, open_database
from gristmill.dataops.store import Store

ROOT = Path(__file__).parent.parent
#: What only the person who starts a run can say.
ASKED = {
    "pretrain-data": {"crawl"},
    "align": {"batch"},
    "build-sft": {"chats", "tokenizer"},
    "build-preferences": {"judgements"},
    "ai-feedback": {"prompts", "engines", "judges"},
    "red-team": {"seeds", "engine"},
}


def made(root: str | Path, **more: Any) -> list[Any]:
    from gristmill.flows.deploy import deployments

    return deployments(root, **more)


def closed(root: Path, queue: str = "q") -> tuple[Database, int]:
    """A root's database with one closed batch that was not announced; the batch's id."""
    db = open_database(root)
    [rater] = fill(db, 1, queue=queue)
    work(db, rater, 1, queue=queue)
    return db, close(db, root, queue).id


def test_every_parameter_is_a_field_of_a_form_with_a_default() -> None:
    for one in made("r"):
        schema = one._parameter_openapi_schema.model_dump()
        for name, field in schema["properties"].items():
            assert {"type", "anyOf", "$ref", "allOf"} & set(field), f"{one.full_name}: {name} has no type"
        assert set(schema["required"]) == ASKED.get(one.flow_name, set()), one.full_name
        assert set(one.parameters) <= set(schema["properties"])
        assert one.description


def test_prefect_yaml_is_the_list() -> None:
    from gristmill.flows.deploy import as_yaml

    wanted = yaml.safe_dump(as_yaml(), sort_keys=False)
    assert yaml.safe_load((ROOT / "prefect.yaml").read_text()) == as_yaml(), f"prefect.yaml has to say:\n{wanted}"


def test_no_flow_is_forgotten() -> None:
    from prefect import Flow

    from gristmill.flows.deploy import DEPLOYED

    found = set()
    for path in (ROOT / "flows").rglob("*.py"):
        if "@flow(" in path.read_text():
            module = importlib.import_module(".".join(["gristmill", *path.relative_to(ROOT).with_suffix("").parts]))
            flows = {name for name, item in vars(module).items() if isinstance(item, Flow)}
            found |= {
                f"{module.__name__}.{name}" for name in flows if vars(module)[name].fn.__module__ == module.__name__
            }
    assert found == {one.flow for one in DEPLOYED}


def test_paths_are_absolute_and_no_crawl_is_no_schedule() -> None:
    [nightly, *_] = made("r", crawl=["pages", "s3://bucket/crawl"])
    assert nightly.parameters["crawl"] == [str(Path("pages").resolve()), "s3://bucket/crawl"]
    assert nightly.parameters["root"] == str(Path("r").resolve())
    assert [one.active for one in nightly.schedules] == [True]
    assert [one.active for one in made("r")[0].schedules] == [False]


def test_without_a_server_events_wait(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from gristmill.flows.deploy import register
    from gristmill.flows.feedback import announce, close_and_announce, start_missing

    db, _ = closed(tmp_path)
    assert close_and_announce(db, tmp_path) == [] and start_missing(db) == []
    with pytest.raises(InputError, match="PREFECT_API_URL"):
        register(made(tmp_path))
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{taken.getsockname()[1]}/api"}):
            assert announce(db) == 0
    assert len(pending(db)) == 1


def test_a_refilter_reads_what_the_last_crawl_read(tmp_path: Path, sample: tuple[Path, dict[str, Any]]) -> None:
    from gristmill.flows.refilter import crawled, refilter

    assert refilter.fn(str(tmp_path)) == {"root": str(tmp_path), "datasets": {}}
    crawl(Store(tmp_path), [str(sample[0])])
    assert crawled(tmp_path) == [str(sample[0])]
    (tmp_path / "files.json").unlink()
    with pytest.raises(InputError, match="not where they were"):
        crawled(tmp_path)


# With a server: no runner, so a run that is started stays where it is.


@pytest.fixture(scope="module")
def home(prefect_server: tuple[str, Path]) -> Iterator[Path]:
    """The folder of the server, to which this process talks from here on."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server[0]}):
        yield prefect_server[1]


def until(done: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


def client() -> Any:
    from prefect.client.orchestration import get_client

    return get_client(sync_client=True)


@pytest.fixture(scope="module")
def root(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root whose deployments the server has, registered twice."""
    from gristmill.flows.deploy import register

    root = tmp_path_factory.mktemp("deployed")
    assert register(made(root)) == register(made(root))
    return root


def align_runs(batch: int) -> list[Any]:
    with client() as server:
        runs = [run for run in server.read_flow_runs() if run.deployment_id is not None]
    return [run for run in runs if run.parameters.get("batch") == batch]


def test_registering_twice_is_registering_once(root: Path) -> None:
    from gristmill.flows.deploy import DEPLOYED, register

    with client() as server:
        assert len(server.read_deployments()) == len(DEPLOYED)
        assert len(server.request("POST", "/automations/filter").json()) == 1
        limits = server.read_global_concurrency_limits(limit=10, offset=0)
    assert [(limit.name, limit.limit) for limit in limits] == [("gristmill-gpu", 1)]
    with pytest.raises(InputError, match=f"is of the root {root}"):
        register(made(root / "other"))
    with pytest.raises(InputError, match="no work pool 'nowhere'"):
        register(made(root, pool="nowhere"))


def test_the_command_says_what_stands(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gristmill.flows.cli import main

    assert main(["deploy", "--root", str(root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    when = {one["name"]: one["when"] for one in told["deployments"]}
    assert when["pretrain-data/nightly"] == "not scheduled: give --crawl"
    assert when["sweep/hourly"] == "0 * * * * UTC" and when["build-sft/by-hand"] == "by hand"
    assert main(["deploy", "--root", str(root), "--pool", "nowhere"]) == 2
    assert "prefect work-pool create" in capsys.readouterr().err


def test_schedules_make_runs(root: Path) -> None:
    def scheduled() -> set[str]:
        with client() as server:
            return {str(run.created_by.display_value) for run in server.read_flow_runs() if run.auto_scheduled}

    until(lambda: scheduled() == {"weekly", "hourly"})


def test_a_closed_batch_starts_align(root: Path) -> None:
    from gristmill.flows.feedback import announce, start_missing

    db, batch = closed(root, "told")
    assert announce(db) == 1 and not pending(db) and announce(db) == 0
    [run] = until(lambda: align_runs(batch))
    assert run.parameters == {"batch": batch, "root": str(root), "database": None}
    assert start_missing(db) == []  # the event was just sent
    db = Database(db.engine, lambda: time.time_ns() // 1_000_000 + 3_600_000)
    assert start_missing(db) == []  # and its run is on its way


def test_the_sweep_starts_what_an_event_missed_and_what_died(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Completed, Crashed, Running

    from gristmill.flows import feedback

    db, batch = closed(root, "missed")
    wanted = [batch]

    def start() -> list[int]:
        return [one for one in feedback.start_missing(db) if one == batch]

    def to(state: Any) -> None:
        with client() as server:
            for run in align_runs(batch):
                if not run.state.is_final():
                    server.set_flow_run_state(run.id, state, force=True)

    assert start() == wanted and start() == []
    to(Running())
    assert start() == []
    monkeypatch.setattr(feedback, "SILENCE", feedback.SILENCE * 0)
    assert start() == wanted  # it was silent for too long
    assert sorted(run.state_name for run in align_runs(batch)) == ["Crashed", "Scheduled"]
    to(Crashed())
    assert start() == wanted and start() == []
    to(Completed())
    assert start() == wanted  # it ended, and the batch is not aligned all the same
    assert len(align_runs(batch)) == 4


def test_what_ran_when_its_runner_was_killed_starts_again(root: Path) -> None:
    from prefect.states import Cancelling, Running

    from gristmill.flows.deploy import revive

    with client() as server:
        deployment = server.read_deployment_by_name("sweep/hourly").id
        ran, stopped = (server.create_flow_run_from_deployment(deployment) for _ in range(2))
        server.set_flow_run_state(ran.id, Running(), force=True)
        server.set_flow_run_state(stopped.id, Cancelling(), force=True)
        assert revive(server, [deployment]) == [ran.id]
        assert server.read_flow_run(ran.id).state.is_scheduled()
        assert server.read_flow_run(stopped.id).state.is_cancelled()


def test_a_run_whose_process_was_killed_starts_again_but_not_for_ever(root: Path) -> None:
    from prefect.states import Crashed, Running

    from gristmill.flows.posttrain import RESTARTS, align

    [hook] = align.on_crashed_hooks
    with client() as server:
        deployment = server.read_deployment_by_name("align/on-feedback").id
        ran = server.create_flow_run_from_deployment(deployment, parameters={"batch": 77})
        for again in range(RESTARTS + 1):
            server.set_flow_run_state(ran.id, Running(), force=True)
            server.set_flow_run_state(ran.id, Crashed(message="killed"), force=True)
            found = server.read_flow_run(ran.id)
            hook(align, found, found.state)
            assert server.read_flow_run(ran.id).state.is_scheduled() == (again < RESTARTS)
        alone = server.create_flow_run(align, parameters={"batch": 77}, state=Crashed())
        hook(align, alone, alone.state)
        assert server.read_flow_run(alone.id).state.is_crashed()  # nobody would start it


def test_a_dead_run_does_not_keep_the_gpu(root: Path, home: Path) -> None:
    import httpx

    from gristmill.flows.deploy import free

    def take() -> int:
        asked = {"names": ["gristmill-gpu"], "slots": 1, "lease_duration": 3600}
        with client() as server:
            return httpx.post(f"{server.api_url}v2/concurrency_limits/increment-with-lease", json=asked).status_code

    assert take() == 200
    assert take() == 423
    with client() as server:
        free(server, home / "concurrency_leases")
    assert take() == 200
