"""`gristmill trace` of preferences: back from a pair, a thumb or a training step to who said so, of whose responses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import wheeled
from inprocess import steps_here
from preferred import one_thread, pairs, replies
from tinychat import chat_tokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.feedback.batches import close
from gristmill.dataops.feedback.database import open_database
from gristmill.dataops.feedback.judge import Said, judge_all
from gristmill.dataops.feedback.queues import next_item
from gristmill.dataops.preferences.imports import read_judgements
from gristmill.dataops.store import Store
from gristmill.flows import stepped
from gristmill.flows.cli import main
from gristmill.flows.sets.preferences import preference_set
from gristmill.flows.train import named, train
from gristmill.flows.wheel.turn import align_batch
from gristmill.training.preferences import trainer

ASKED = {"prompt": "w1 w2", "responses": ["w3", "w4"], "kind": "pairwise"}


@pytest.fixture
def trace(tmp_path, capsys):
    """The command's JSON, and that its text has these words."""

    def call(*words: str, says: tuple[str, ...] = (), status: int = 0):
        command = ["trace", *words, "--root", str(tmp_path)]
        assert main([*command, "--json"]) == status
        story = json.loads(capsys.readouterr().out)
        assert main(command) == status
        text = capsys.readouterr().out
        assert all(word in text for word in says), text
        return story

    return call


def from_file(root: Path, rows: list[dict], name: str = "judged") -> Dataset:
    path = root / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_judgements(Store(root), name, [str(path)], "judgements")


def test_a_pair_names_its_raters_and_the_line_of_their_file(tmp_path, trace):
    said = [ASKED | {"value": [0, 2], "rater": "ann", "at": "2025-03-01T10:00:00Z"}]
    said += [ASKED | {"responses": ["w4", "w3"], "value": [1, 0], "rater": "ben"}]
    said += [ASKED | {"value": [1, 0], "rater": "cem"}, ASKED | {"value": [0, 0], "rater": "dee"}]
    judged = from_file(tmp_path, said)
    built = preference_set(Store(tmp_path), [judged], chat=chat_tokenizer(tmp_path), max_tokens=64)
    text = ("w1 w2", "ann: chosen (pairwise), 2025-03-01", "judged.jsonl record 1", "cem: rejected", "dee: tie")
    story = trace("preferences-pairs", "0", says=(*text, "votes 4, of which 50% say so"))
    assert [(item["rater"], item["says"], item["line"]) for item in story["judgements"]] == [
        ("ann", "chosen", 1), ("ben", "chosen", 2), ("cem", "rejected", 3), ("dee", "tie", 4),
    ]  # fmt: skip
    ids = [row["id"].hex() for row in judged.scan().collect().iter_rows(named=True)]
    assert [item["id"] for item in story["judgements"]] == ids and story["missing"] == []
    assert {item["dataset"] for item in story["judgements"]} == {"judged"}, "not a view of them"
    assert (story["chosen"][-1]["content"], story["rejected"][-1]["content"]) == ("w4", "w3")
    assert [item["name"] for item in story["made_from"]] == ["preferences-latest", "judged"]

    encoded = trace("preferences", "0", says=("as text", "preferences-pairs:"))
    assert encoded["judgements"] == story["judgements"] and encoded["chosen"] == story["chosen"]
    assert (encoded["texts"]["dataset"], encoded["texts"]["id"]) == ("preferences-pairs", encoded["id"])
    assert encoded["made_from"][0]["digest"] == built["pairs"].digest
    assert "rows 0 to 0" in trace("preferences", "7", status=2)["error"]
    assert "there is no page of a token" in trace("preferences", "0", "1", status=2)["error"]


def test_thumbs_and_ranks_and_judges_of_several_files(tmp_path, trace):
    thumb = {"prompt": "w1", "responses": ["w2"], "kind": "thumbs"}
    one = from_file(tmp_path, [thumb | {"value": [1], "rater": "ann"}], "one")
    two = from_file(tmp_path, [thumb | {"value": [1]}, thumb | {"value": [0], "rater": "ben"}], "two")
    store, chat = Store(tmp_path), chat_tokenizer(tmp_path)
    liked = preference_set(store, [one, two], name="liked", kind="thumbs", chat=chat, max_tokens=64)
    for reference in ("liked-thumbs", f"liked:{liked['encoded'].key}"):
        story = trace(reference, "0", says=("somebody: liked", "ben: disliked (thumbs)", "label", "one.jsonl record 1"))
        assert story["label"] is True and [item["says"] for item in story["judgements"]] == [
            "liked",
            "liked",
            "disliked",
        ]
        assert [item["dataset"] for item in story["judgements"]] == ["one", "two", "two"], "not what gathered them"
    ranked = from_file(tmp_path, [ASKED | {"kind": "ranking", "value": [2, 1], "rater": "ann"}], "ranked")
    preference_set(store, [ranked], name="ranks")
    story = trace("ranks-pairs", "0")
    assert story["judgements"][0]["says"] == "chosen" and story["chosen"][-1]["content"] == "w4"


def test_what_is_gone_is_named_and_the_rest_told(tmp_path, trace):
    chat = chat_tokenizer(tmp_path)
    judged = from_file(tmp_path, [ASKED | {"value": [0, 1], "rater": "ann"}])
    built = preference_set(Store(tmp_path), [judged], chat=chat, max_tokens=64)
    latest = built["latest"]
    (id,) = judged.scan().collect()["id"]
    shutil.rmtree(latest.path)
    story = trace("preferences", "0", says=("missing", f"preferences-latest:{latest.key[:12]} is not under this root"))
    assert story["chosen"][-1]["content"] == "w4" and story["judgements"] == []
    assert any(id.hex() in item for item in story["missing"])
    shutil.rmtree(built["pairs"].path)
    story = trace("preferences", "0", says=("token ids, and no dataset of texts",))
    assert "chosen" not in story and len(story["missing"]) == 2
    pairs(tmp_path, chat, replies(2), name="unnamed")
    assert "no dataset of texts" in trace("unnamed", "1")["missing"][0]
    assert "documents" in trace("judged", "0", says=("asked", "w1 w2"))


def test_an_aligned_model_goes_back_to_a_batch_and_to_whose_responses_were_judged(tmp_path, trace):
    wheeled.make_root(tmp_path)
    store, db = Store(tmp_path), open_database(tmp_path)
    recipe = wheeled.recipe(tmp_path, least=1, holdout=0.2)
    with one_thread(), steps_here():
        batch = wheeled.judged(db, tmp_path, wheeled.right)
        first = align_batch(store, db, batch.id, recipe)
        while (item := next_item(db, "better", "ann")) is not None:
            judge_all(db, [Said(item.item, "ann", [1, 0], key=item.item)])
        second = close(db, tmp_path, "better")
        assert second is not None
        align_batch(store, db, second.id, recipe.model_copy(update={"asking": None}))
    db.engine.dispose()
    model = store.get(f"assistant:{first['promoted']['key']}")
    told = (f"queue better, batch {batch.id}", "assistant:", "seed:", f"feedback-better:{batch.key[:12]}", "2 of 25")
    story = trace(f"assistant:{model.key}", "2", "3", says=told)
    assert [item["name"] for item in story["models"]] == ["assistant", "seed"]
    assert {"assistant-pairs", "assistant-pairs-pairs", "feedback-better"} <= {
        item["name"] for item in story["models"][0]["data"]
    }
    assert len(story["rows"]) == 16 and story["first"]["row"] == story["rows"][3]["row"]
    assert {item["dataset"] for item in story["first"]["judgements"]} == {"feedback-better"}
    assert all(item["says"] == "chosen" for item in story["first"]["judgements"])

    newest = next(item for item in store.all() if item.name == "assistant-pairs" and item.key != model.input(0).key)
    asked = store.get("assistant-responses")
    story = trace(f"assistant-pairs:{newest.key}", "0", says=("chosen comes", "rejected comes", "task questions:"))
    (judgement,) = story["judgements"]
    assert (judgement["rater"], judgement["batch"], judgement["number"]) == ("ann", second.id, 2)
    rows = asked.scan().collect()
    for side in ("chosen", "rejected"):
        reply = judgement["replies"][side]
        assert reply["policy"] == f"assistant:{model.key[:12]}" and reply["model"]["key"] == model.key
        row = rows.row(reply["response"]["row"], named=True)
        assert (row["id"].hex(), row["response"]) == (reply["response"]["id"], story[side][-1]["content"])
        task = store.get("questions").scan().collect().row(reply["task"]["row"], named=True)
        assert task["id"] == row["sources"][0] and task["prompt"][-1]["content"] == story["prompt"][-1]["content"]


@pytest.mark.parametrize(("made_by", "collator"), [("preference", "pair_collator"), ("reward", "scored_collator")])
def test_the_rows_of_a_step_are_those_that_the_trainer_was_handed(tmp_path, trace, monkeypatch, made_by, collator):
    wheeled.make_root(tmp_path)
    store = Store(tmp_path)
    rows = replies(9)
    rows[4] = (rows[4][0], [6] * 60 + [2], rows[4][2])  # longer than the model's window of 64
    data = pairs(tmp_path, store.get("chat"), rows, name="some")
    given = [named(data), named(store.get("trusted"), weight=0.5)]
    spec = {"name": "made", "data": given, "start": named(store.get("seed")), "rows": 4, "steps": 5, "seed": 3}
    handed, whole = [], getattr(trainer, collator)

    def watched(table, *settings):
        collate = whole(table, *settings)

        def watching(batch):
            handed.append([[ids.tolist() for ids in example] for example in table.examples(batch, "chosen_ids")])
            return collate(batch)

        return watching

    monkeypatch.setattr(trainer, collator, watched)
    with one_thread(), steps_here():
        made = Dataset.load(train(made_by, store, spec)["path"])
    texts = {item.key: item.scan().select("prompt_ids", "chosen_ids").collect().rows() for item in made.inputs[:2]}
    read = [[list(texts[row["key"]][row["row"]]) for row in stepped.step(made, n)["rows"]] for n in range(1, 6)]
    assert read == handed[:5] and len({item["key"] for item in stepped.step(made, 5)["rows"]}) == 2
    assert all(rows[4][1] != chosen for batch in read for _, chosen in batch)
    assert "steps 1 to 5" in trace("made", "0", status=2)["error"]
    assert "rows 0 to 3" in trace("made", "1", "4", status=2)["error"]
    assert trace("made", "1", "3", says=("1 of 5", "seed:"))["first"]["row"] == stepped.step(made, 1)["rows"][3]["row"]
    shutil.rmtree(data.path)
    story = trace("made", "1", says=("a dataset that made was trained on is gone",))
    assert "rows" not in story and [item["name"] for item in story["models"]] == ["made", "seed"]
    assert "fresh has none" in trace("seed", "0")["missing"][0]


def test_a_model_by_sft_goes_back_to_conversations(tmp_path, trace, capsys):
    wheeled.make_root(tmp_path)
    talks = [[{"role": "user", "content": f"w{n} w1"}, {"role": "assistant", "content": f"w{n}"}] for n in range(12)]
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    command = ["encode-chats", str(path), "--tokenizer", "chat", "--name", "talks", "--seq-len", "64", "--workers", "1"]
    assert main([*command, "--root", str(tmp_path)]) == 0
    store = Store(tmp_path)
    with one_thread(), steps_here():
        spec = {"name": "talker", "data": [named(store.get("talks"))], "start": named(store.get("seed"))}
        train("sft", store, spec | {"rows": 2, "steps": 3})
    capsys.readouterr()
    story = trace("talker", "3", "1", says=("first stood", "talks.jsonl", "seed:"))
    (home,) = {(item["dataset"], item["key"]) for item in story["first"]["documents"]}
    segments = store.get("talks").scan().collect()["segments"][story["rows"][1]["row"]]
    assert [item["id"] for item in story["first"]["documents"]] == [part["id"].hex() for part in segments]
    ids = store.get(":".join(home)).scan().collect()["id"].to_list()
    assert all(ids[item["row"]].hex() == item["id"] for item in story["first"]["documents"]) and story["missing"] == []
    assert trace("talks", str(story["rows"][1]["row"]))["documents"] == story["first"]["documents"]
