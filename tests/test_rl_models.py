"""Models that judge, reward models and judges, as the rewards of reinforcement learning."""

from __future__ import annotations

import json
import shutil

import pytest
from fake_server import serving
from preferred import one_thread, pairs, replies
from rltasks import LAST, asked, named, scorer, speaker, tasks
from tinymodel import checkpoint

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.flows.cli import main
from gristmill.flows.models import ancestry
from gristmill.flows.scoring import judge
from gristmill.training import reward
from gristmill.training.engines.local import TransformersEngine
from gristmill.training.online.rewards import Outage
from gristmill.training.rl import RlSpec, dry, run
from gristmill.training.scoring import Scorer, open_scorer
from gristmill.verifiers.judge import constitution, verify

ANSWERS = ["Blue.", "It is blue, or green at times.", ""]
ROWS = [{"prompt": [{"role": "user", "content": "Which colour is the sea?"}], "against": "Red."}] * len(ANSWERS)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    with one_thread():
        chat, start = speaker(root)
        learned = reward.RewardSpec(
            data=(named(pairs(root, chat, replies(64, words=16))),), start=named(start), root=str(root), steps=5,
            rows=8, name="judge", optimiser={"learning_rate": 3e-3},
        )  # fmt: skip
        yield root, start, tasks(root, asked(50, 1)), reward.run(learned)


@pytest.fixture(scope="module")
def asking(tmp_path_factory) -> Dataset:
    return checkpoint(tmp_path_factory.mktemp("asking"))


def spec_of(world, *rewards, **more) -> RlSpec:
    root, start, train, _ = world
    given = {
        "data": [named(train)], "start": named(start), "root": str(root), "steps": 3, "rows": 4, "group": 4,
        "max_tokens": 3, "rewards": rewards, "optimiser": {"learning_rate": 1e-3},
    }  # fmt: skip
    return RlSpec(**given | more)


def drawn(model: Dataset) -> list[dict]:
    told = model.manifest["stats"]["rollouts"]
    found = Dataset.load(f"{model.root}/{told['name']}/{told['key'][:12]}")
    return [row for shard in found.shards() for row in shard.read().to_pylist()]


def told_of(model: Dataset, number: int, capsys) -> dict:
    """What `gristmill trace` tells of a rollout, held against the dataset of its task."""
    rollouts = Dataset.load(f"{model.root}/rl-rollouts/{model.manifest['stats']['rollouts']['key'][:12]}")
    command = ["trace", f"rl-rollouts:{rollouts.key}", str(number), "--root", str(model.root)]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    story = json.loads(capsys.readouterr().out)
    task = model.inputs[0].shards()[0].read().to_pylist()[story["task"]["row"]]
    assert (task["id"].hex(), task["prompt"]) == (story["task"]["id"], story["prompt"])
    assert [item["name"] for item in story["models"]] == ["speaker", "base"]
    assert story["response"] in text and story["task"]["id"] in text and "proxy: " in text
    return story


def test_a_reward_model_and_a_verifier_reward_together(world, tmp_path, capsys):
    _, start, train, learned = world
    proxy = {"name": "proxy", "call": "gristmill.training.reward:scorer", "settings": named(learned), "weight": 0.5}
    model = run(spec_of(world, proxy, LAST))
    score = open_scorer(Scorer("proxy", proxy["call"], named(learned)))
    for row in drawn(model):
        one, two = (item["score"] for item in row["scores"])
        assert one == pytest.approx(score([{"prompt": row["prompt"]}], [row["response"]])[0].score, abs=1e-5)
        assert row["total"] == pytest.approx(0.5 * one + two)
    assert [item.digest for item in model.inputs] == [train.digest, start.digest, learned.digest]
    assert [item.name for item in ancestry(model)] == ["rl", "speaker", "base"]
    assert told_of(model, 7, capsys)["scores"] == drawn(model)[7]["scores"]
    moved = shutil.copytree(learned.path, tmp_path / "judge" / learned.key[:12])
    elsewhere = {"path": str(moved), "digest": learned.digest}
    assert dry(spec_of(world, proxy | {"settings": elsewhere}, LAST))["standing"], "the same, wherever it lies"
    with pytest.raises(InputError, match="has digest"):
        run(spec_of(world, proxy | {"settings": named(learned, digest="another")}))
    with pytest.raises(InputError, match="not by the reward step"):
        run(spec_of(world, proxy | {"settings": named(start)}))


def test_a_judge_scores_as_its_verifier_does(asking):
    engine = TransformersEngine(asking.file(""))
    laws = constitution.Constitution(constitution.principles(["It is true.", "It is short."], "judge"))
    plain = ROWS[0] | {"prompt": "Which colour is the sea?"}
    asked_for = [plain | {"response": said} for said in ANSWERS]
    for settings, wanted in (
        ({"by": "logprobs", "scale": 4}, verify.pointwise(engine, by="logprobs", scale=4)),
        ({"principles": ["It is true.", "It is short."]}, verify.pointwise(engine, laws)),
        ({"against": True, "by": "logprobs"}, verify.pairwise(engine, by="logprobs")),
    ):
        found = judge(**named(asking), **settings)(ROWS, ANSWERS)
        assert [item.score for item in found] == [verdict.score for verdict in wanted.rows(asked_for)]
        assert all(0 < item.score < 1 or settings.get("by") is None for item in found[:2])
        assert judge(engine={"folder": asking.file("")}, **settings)(ROWS, ANSWERS) == found
    assert found[0].score != found[1].score
    assert judge(**named(asking))([], []) == []
    for wrong, why in (
        ({}, "a checkpoint's path and digest, or an engine"),
        ({"path": asking.path}, "by its path and its digest"),
        ({**named(asking), "by": "guess"}, "letters, reasons, logprobs"),
        ({**named(asking), "principles": []}, "at least one entry"),
        ({**named(asking), "engine": {"kind": "server"}}, "needs its url"),
    ):
        with pytest.raises(InputError, match=why):
            judge(**wrong)


def test_a_judge_that_goes_away_stops_the_run_and_the_same_spec_goes_on(world, asking, tmp_path):
    """Over HTTP: the judge is a server, which ends in the middle of the run and stands again later."""
    engine = TransformersEngine(asking.file(""))
    with serving(engine) as server:
        port = server.server_address[1]
        settings = {
            "engine": {"kind": "server", "url": server.url, "tries": 1}, "by": "letters", "principles": ["It is true."]
        }  # fmt: skip
        asks = {"name": "asks", "call": "gristmill.flows.scoring:judge", "settings": settings}
        ends = scorer("last", weight=0.0) | {"name": "ends"}
        spec = spec_of(world, asks, ends, root=str(tmp_path), steps=6)
        server.faults = [None] * 2 * 16 + ["500"] * 3 * 16  # two batches of sixteen, and then no more
        with pytest.raises(Outage, match=r"asks: engine_failed \(16 of 16\)"):
            run(spec)
    with serving(engine, port=port):
        rows = drawn(run(spec))
    missing = {row["step"] for row in rows if row["total"] is None}
    assert missing == {2, 3} and len(rows) == 6 * 16
    assert all(row["scores"][1]["score"] is not None for row in rows), "the other scorer was asked nevertheless"
