"""Alignments: judgements become a promoted model, or a reason why not; once, whatever stops them on the way."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import wheeled
from inprocess import steps_here
from preferred import one_thread

from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.feedback.standing import status
from gristmill.dataops.gates.record import promotions, state_of
from gristmill.dataops.store import Store
from gristmill.flows import train as steps
from gristmill.flows.cli import main
from gristmill.flows.wheel.claims import unaligned
from gristmill.flows.wheel.recipe import Recipe, made_of, pinned, read_recipe, start_of, steps_of
from gristmill.flows.wheel.turn import align_batch

NO_TRAINING = {"least": 10_000}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    wheeled.make_root(folder)
    return folder


@pytest.fixture
def wheel(published, tmp_path):
    """A root of its own, its store and its database, with training steps in this process."""
    root = tmp_path / "root"
    shutil.copytree(published, root)
    db = open_database(root)
    with one_thread(), steps_here():
        yield root, Store(root), db
    db.engine.dispose()


def test_rounds_of_feedback_end_promoted_blocked_or_with_nothing(wheel):
    root, store, db = wheel
    recipe = wheeled.recipe(root)
    good = wheeled.judged(db, root, wheeled.right)
    first = align_batch(store, db, good.id, recipe)
    assert (first["verdict"], first["reasons"], first["start"]["name"]) == ("promoted", [], "seed")
    model = store.get("assistant@promoted")
    assert first["promoted"] == {"name": "assistant", "key": model.key} and state_of(store, model).state == "passed"
    measure = first["measures"]["preferences/accuracy"]
    assert measure["before"]["value"] < 0.6 and measure["after"]["value"] > 0.9 and measure["after"]["n"] == 60
    assert first["judgements"]["given"] == first["judgements"]["counted"] == 80
    assert first["judgements"]["standing"]["choice"]["agreement"]["percent"] == 1.0
    assert rows_of(first)["encoded"] == 40
    assert [one["name"] for one in first["lineage"]] == ["assistant", "seed"]

    poisoned = wheeled.judged(db, root, wheeled.flipped, start=100)
    second = align_batch(store, db, poisoned.id, recipe)
    assert second["verdict"] == "blocked" and second["promoted"] == second["start"] == first["promoted"]
    assert "trusted preferences are not lost: preferences/accuracy" in second["reasons"][0]
    assert store.get("assistant@promoted") == model
    assert state_of(store, store.get("assistant@blocked")).reasons == tuple(second["reasons"])
    assert [one.key for one in map(store.get, ["assistant@blocked"])] == [second["stages"][0]["model"]["key"]]

    empty = wheeled.judged(db, root, wheeled.tied, start=200)
    third = align_batch(store, db, empty.id, recipe)
    assert (third["verdict"], third["stages"]) == ("nothing", []) and "tie" in third["reasons"][0]
    assert third["promoted"] == first["promoted"] and len(promotions(store, "assistant")) == 1
    assert unaligned(db) == []


def test_the_same_batch_again_is_the_same_result_and_trains_nothing(wheel, monkeypatch):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.right)
    first = align_batch(store, db, batch.id, wheeled.recipe(root))
    versions = [item.path for item in store.all()]
    monkeypatch.setattr(steps, "launch", None)
    assert align_batch(store, db, batch.id, wheeled.recipe(root, model="other")) == first
    assert [item.path for item in store.all()] == versions


def test_two_at_once_train_once(wheel):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.right)
    other = []
    with ThreadPoolExecutor(1) as pool:

        def step(name, work):
            if not other:  # begins once the first has begun, and before it has claimed
                again = Store(root), open_database(root), batch.id, wheeled.recipe(root)
                other.append(pool.submit(align_batch, *again))
            return work()

        first = align_batch(store, db, batch.id, wheeled.recipe(root), step=step)
        assert other[0].result() == first and first["verdict"] == "promoted"
    assert [item.name for item in store.all()].count("assistant") == 1 == len(promotions(store, "assistant"))


def test_fresh_responses_of_the_promoted_model_are_asked_next(wheel):
    root, store, db = wheel
    recipe = wheeled.recipe(root)
    asked = []
    for start in (0, 100):
        batch = wheeled.judged(db, root, wheeled.right, start=start)
        asked.append(align_batch(store, db, batch.id, recipe)["asked"])
    model = store.get("assistant@promoted")
    assert asked[1]["policy"] == f"assistant:{model.key[:12]}" != asked[0]["policy"]
    assert all(one["prompts"] == 8 and one["items"] + one["same_responses"] == 8 for one in asked)
    (queue,) = status(db)
    assert queue["items"] == 80 + sum(one["items"] for one in asked)
    prompts = [
        {row[0]["content"] for row in store.get(f"{one['responses']['name']}:{one['responses']['key']}").scan()
         .select("prompt").collect()["prompt"].to_list()}
        for one in asked
    ]  # fmt: skip
    assert len(prompts[0]) == len(prompts[1]) == 8 and not prompts[0] & prompts[1]


def rows_of(result):
    """Rows of each part of the preference set."""
    return {one["part"]: one["rows"] for one in result["data"]}


class Killed(BaseException):
    """What no handler of ours may catch."""


def killing(names: list[str]):
    """Runs steps; the first time that the next of `names` has been done, it dies."""

    def step(name, work):
        done = work()
        if names and name == names[0]:
            names.pop(0)
            raise Killed(name)
        return done

    return step


@pytest.mark.parametrize("word", [wheeled.right, wheeled.flipped, wheeled.tied], ids=["right", "flipped", "tied"])
def test_killed_after_any_step_it_goes_on_and_makes_the_same(wheel, tmp_path, word):
    root, store, db = wheel
    if word is wheeled.flipped:  # what a poisoned batch can spoil
        learned = wheeled.judged(db, root, wheeled.right, start=100)
        assert align_batch(store, db, learned.id, wheeled.recipe(root))["verdict"] == "promoted"
    batch = wheeled.judged(db, root, word)
    db.engine.dispose()  # all of it is in the one file then
    calm = tmp_path / "calm"
    shutil.copytree(root, calm)
    whole = align_batch(Store(calm), open_database(calm), batch.id, wheeled.recipe(calm))

    names = ["claim", "measure", "preferences", "preference", "gate", "promote", "generate", "ask", "tell"]
    if word is wheeled.flipped:
        names = [name for name in names if name not in ("gate", "promote")]
    if word is wheeled.tied:
        names = [name for name in names if name not in ("preferences", "preference", "gate", "promote")]
    step, deaths = killing(names), len(names)
    for _ in range(deaths):
        with pytest.raises(Killed):
            align_batch(store, db, batch.id, wheeled.recipe(root), step=step)
    result = align_batch(store, db, batch.id, wheeled.recipe(root), step=step)

    assert unkeyed(result, root) == unkeyed(whole, calm)
    made = [[item.name for item in where.all()] for where in (store, Store(calm))]
    assert made[0] == made[1]  # nothing was made twice
    models = [
        Path(where.get("assistant").file("model.safetensors")) for where in (store, Store(calm)) if word != wheeled.tied
    ]
    assert len({path.read_bytes() for path in models}) <= 1


def unkeyed(value, root):
    """A result without what two trainings differ in: seconds, and keys of what was made of them."""
    if isinstance(value, dict):
        return {name: unkeyed(item, root) for name, item in value.items() if name not in ("key", "seconds")}
    if isinstance(value, list):
        return [unkeyed(item, root) for item in value]
    return value.replace(str(root), "") if isinstance(value, str) else value


def test_thumbs_are_learned_too(wheel):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.liked, kind="thumbs", queue="thumbs")
    result = align_batch(store, db, batch.id, wheeled.recipe(root))
    model = store.get(f"{result['stages'][0]['model']['name']}:{result['stages'][0]['model']['key']}")
    assert model.manifest["ops"][-1]["params"]["loss"] == "kto" and rows_of(result)["encoded"] == 40
    assert result["asked"]["queue"] == "thumbs" and result["asked"]["items"] == 8


def test_stages_follow_each_other_and_read_other_data_too(wheel):
    root, store, db = wheel
    settings = {"rows": 8, "optimiser": {"learning_rate": 1e-3, "weight_decay": 0.0}}
    stages = [
        {"step": "preference", "epochs": 1, "settings": settings},
        {"step": "preference", "data": {"new": 1.0, "trusted": 0.5}, "settings": {**settings, "steps": 2, "seed": 1}},
    ]
    batch = wheeled.judged(db, root, wheeled.right)
    result = align_batch(store, db, batch.id, wheeled.recipe(root, stages=stages, holdout=0.3, asking=None))
    one, two = (store.get(f"assistant:{stage['model']['key']}") for stage in result["stages"])
    rows = rows_of(result)["encoded"]
    assert 10 < rows < 40 and rows + rows_of(result)["heldout-encoded"] == 40
    assert one.manifest["stats"]["steps"] == -(-rows // 8) and two.manifest["stats"]["steps"] == 2
    assert two.input(0).name == "assistant-pairs" and two.input(1).name == "trusted"
    assert [item["key"] for item in result["lineage"]][:2] == [two.key, one.key] and result["promoted"][
        "key"
    ] == two.key
    assert list(one.manifest["stats"]["validation"])[0].startswith("assistant-pairs-heldout-encoded")
    assert result["asked"] is None


def test_what_cannot_be_trained_on_gives_the_batches_back_or_blocks(wheel):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.right)
    bad = [{"step": "preference", "settings": {"steps": 1, "rows": 8, "beta": -1.0}}]
    for fields, why in [
        ({"stages": bad}, "beta is above 0"),
        ({"evaluation": {"slices": [{"name": "text", "dataset": "trusted"}]}}, "trusted"),
        ({"evaluation": {"slices": [{"name": "text", "dataset": "nowhere"}]}}, "no dataset named 'nowhere'"),
        ({"gates": str(root / "none.yaml")}, "none.yaml"),
        ({"first": None}, "no assistant is promoted"),
        ({"first": "text"}, "no model that chats"),
        ({"asking": {"prompts": "questions", "queue": "none"}}, "no queue 'none'"),
    ]:
        with pytest.raises(InputError, match=why):
            align_batch(store, db, batch.id, wheeled.recipe(root, **fields))
        assert unaligned(db) == [batch.id]
    later = [wheeled.recipe(root).stages[0].model_dump(), bad[0]]
    result = align_batch(store, db, batch.id, wheeled.recipe(root, stages=later))
    assert result["verdict"] == "blocked" and "beta is above 0" in result["reasons"][0]
    assert len(result["stages"]) == 1 and unaligned(db) == []
    assert promotions(store, "assistant") == []


def test_too_few_pairs_are_nothing(wheel):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.right, items=6)
    result = align_batch(store, db, batch.id, wheeled.recipe(root))
    assert (result["verdict"], result["reasons"]) == ("nothing", ["6 pairs are left, and the recipe wants 10 at least"])


def test_an_alignment_that_was_left_undone_comes_first(wheel):
    root, store, db = wheel
    first = wheeled.judged(db, root, wheeled.right)
    with pytest.raises(Killed):
        align_batch(store, db, first.id, wheeled.recipe(root, **NO_TRAINING), step=killing(["claim"]))
    second = wheeled.judged(db, root, wheeled.right, start=100)
    result = align_batch(store, db, second.id, wheeled.recipe(root))
    assert (result["alignment"], result["verdict"]) == (2, "promoted")
    assert align_batch(store, db, first.id, wheeled.recipe(root))["verdict"] == "nothing"  # by its own recipe


def test_the_command_aligns_what_is_not_aligned(wheel, capsys):
    root, store, db = wheel
    batch = wheeled.judged(db, root, wheeled.right)
    path = root / "align.json"
    path.write_text(wheeled.recipe(root, asking=None).model_dump_json())
    assert main(["align", "--root", str(root), "--recipe", str(path)]) == 0
    told = capsys.readouterr().out
    model = store.get("assistant@promoted")
    assert told.startswith("# Alignment 1: promoted") and f"assistant:{model.key[:12]} ← seed:" in told
    assert "| trusted preferences are not lost | passed |" in told and "queue better, batch 1" in told.lower()
    assert (root / "reports/align-1/result.md").read_text() == told.removesuffix("\n")
    assert main(["align", "--root", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"alignments": []}
    assert main(["align", str(batch.id), "--root", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["alignments"][0]["verdict"] == "promoted"
    assert main(["align", "9", "--root", str(root)]) == 2 and "no closed batch 9" in capsys.readouterr().err


def test_a_recipe_says_what_is_wrong_with_it(tmp_path):
    for fields, why in [
        ({"stages": [{"step": "rl", "data": {"tasks": 1}, "epochs": 1}]}, 'no stage reads "new"'),
        ({"stages": [{"step": "rl", "epochs": 1}]}, '"new" is a set of preferences, which rl cannot read'),
        ({"stages": [{"step": "preference"}]}, "give `epochs`, or `steps`"),
        ({"stages": [{"step": "preference", "epochs": 1, "settings": {"name": "x"}}]}, "settings have name"),
        ({"evaluation": {"model": "x"}}, "evaluation has model"),
        ({"models": "x"}, "models: Extra inputs"),
        ({"least": 0}, "least: Input should be greater"),
        ({"model": "a/b"}, "model: String should match"),
    ]:
        with pytest.raises(InputError, match=why):
            made_of(fields)
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\nstages:\n  - step: preference\n    epochs: 0.5\n    settings: {rows: 4}\n")
    assert (read_recipe(path).model, steps_of(read_recipe(path).stages[0], 17)) == ("m", 3)
    for text, why in (("[1]", "a recipe is an object"), ("{a: [", "no recipe can be read")):
        path.write_text(text)
        with pytest.raises(InputError, match=f"recipe.yaml: {why}"):
            read_recipe(path)
    assert Recipe.model_json_schema()["properties"]["least"]["default"] == 20  # what Prefect shows as a form


def test_what_is_pinned_stays_where_tags_move(wheel):
    root, store, _ = wheel
    recipe = wheeled.recipe(root)
    before = pinned(store, recipe)
    assert start_of(store, recipe) == store.get("seed")
    assert before["recipe"]["evaluation"]["pairs"][0]["dataset"] == f"trusted:{store.get('trusted').key}"
    assert before["recipe"]["asking"]["prompts"] == f"questions:{store.get('questions').key}"
    store.tag("trusted", "latest", "0" * 64)
    (root / "gates.yaml").unlink()
    assert before["gates"] == wheeled.GATES and json.loads(json.dumps(before)) == before


def test_the_flow_runs_in_prefect(wheel, prefect):
    from prefect.client.orchestration import get_client

    from gristmill.flows.posttrain import GPU_LIMIT, align

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_LIMIT, 1)
    root, _, db = wheel
    batch = wheeled.judged(db, root, wheeled.right)
    result = align(batch.id, str(root), recipe=wheeled.recipe(root, asking=None))
    assert result["verdict"] == "promoted" and Store(root).get("assistant@promoted").key == result["promoted"]["key"]
    parameters = align.parameters.properties
    assert set(parameters) == {"batch", "root", "database", "recipe"} and align.parameters.required == ["batch"]
    assert "Recipe" in str(parameters["recipe"])
