"""Batches: each judgement in exactly one, whoever writes, closes or dies meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from feedbackdb import KINDS, fill, opened, rows_of, work
from realdata import real

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.feedback.batches import batch_of, close, close_due, due, pending, sent
from gristmill.dataops.feedback.candidates import candidate
from gristmill.dataops.feedback.imports import import_judgements
from gristmill.dataops.feedback.judge import judge
from gristmill.dataops.feedback.queues import make_queue, next_item, put
from gristmill.dataops.feedback.standing import status, tables
from gristmill.dataops.feedback.tables import BATCHES, JUDGEMENTS, OUTBOX
from gristmill.dataops.preferences.imports import read_judgements
from gristmill.dataops.preferences.judgements import JUDGEMENT
from gristmill.dataops.preferences.pairs import make_pairs
from gristmill.dataops.preferences.trust import latest
from gristmill.dataops.store import Store
from gristmill.verifiers.agreement.summary import agreement


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    with opened(request.param, tmp_path) as both:
        yield both


@pytest.fixture
def lite(tmp_path):
    with opened("sqlite", tmp_path) as (db, _):
        yield db


def _data(root, batch):
    return Dataset.load(root / batch.dataset / batch.key[:12])


def _seqs(root, batches):
    return [_data(root, batch).scan().collect()["seq"].to_list() for batch in batches]


def _whole(db, root):
    """Every judgement is in exactly one closed batch, whose dataset is what was judged, with one event each."""
    batches = [batch_of(db, row.id) for row in rows_of(db, BATCHES)]
    judged = [row.seq for row in rows_of(db, JUDGEMENTS)]
    assert sorted(sum(_seqs(root, batches), [])) == judged
    assert [row.batch for row in rows_of(db, OUTBOX)] == [batch.id for batch in batches]
    assert all(_data(root, batch).check_files().digest == batch.digest for batch in batches)
    return batches


# ---- what is in a batch


def test_a_batch_is_what_was_judged_since_the_last(made, tmp_path):
    db, _ = made
    raters = fill(db, 6, 2, wanted=2)
    work(db, raters[0], 6)
    work(db, raters[1], 1)
    first = close(db, tmp_path, "q")
    assert (first.number, first.judgements, first.reason) == (1, 7, "hand")
    assert close(db, tmp_path, "q") is None
    work(db, raters[1], 2)
    second = close(db, tmp_path, "q")
    assert (second.number, second.judgements) == (2, 2) and _whole(db, tmp_path) == [first, second]


def test_a_batch_says_what_was_shown_and_said(made, tmp_path):
    db, clock = made
    make_queue(db, "q", "pairwise")
    rows = [
        {"prompt": f"p{n}", "responses": [{"text": f"a{n}", "policy": "old"}, {"text": f"b{n}", "policy": "new"}]}
        for n in range(9)
    ]
    put(db, "q", [candidate(row, "") for row in rows], strategy="random")
    fill(db, 0, 1)
    clock.at += 1234
    while (shown := next_item(db, "q", "r0")) is not None:
        says_a = [2.0 * message["content"].startswith("a") for message in shown.responses]
        judge(db, shown.item, "r0", says_a, key=shown.item, client_at="noon")
    found = _data(tmp_path, close(db, tmp_path, "q"))
    data = found.scan().collect()
    assert set(JUDGEMENT) < set(data.columns) and found.manifest["reproducible"] is False
    liked = data.select(pl.col("responses").list.get(pl.col("value").list.arg_max()).struct.field("content"))
    assert liked.to_series().str.starts_with("a").all()
    policy = data.select(pl.col("policies").list.get(pl.col("value").list.arg_max())).to_series()
    assert set(policy) == {"old"} and data["value"].list.max().unique().to_list() == [2.0]
    assert {order[0] for order in data["order"].to_list()} == {0, 1}
    for column in ("at", "shown_at"):
        assert data[column].dt.epoch("ms").unique().to_list() == [clock.at]
    assert set(data["client_at"]) == {"noon"} and data["id"].n_unique() == 9


def test_corrections_and_what_could_not_be_judged_are_said(lite, tmp_path):
    fill(lite, 3)
    shown = next_item(lite, "q", "r0")
    for key, value in (("one", [1, 0]), ("two", [0, 1])):
        judge(lite, shown.item, "r0", value, key=key)
    work(lite, "r0", 1, value=None)
    first = _data(tmp_path, close(lite, tmp_path, "q")).scan().collect()
    assert first.select("version", "superseded").rows() == [(1, True), (2, False), (1, False)]
    assert first["value"].null_count() == 1
    judge(lite, shown.item, "r0", [1, 0], key="three")  # after the freeze: the next batch says it, the first stays
    second = _data(tmp_path, close(lite, tmp_path, "q")).scan().collect()
    assert second.select("version", "superseded", "item").rows() == [(3, False, first["item"][0])]


@pytest.mark.parametrize(
    ("kind", "said", "value", "replies"),
    [
        ("thumbs", [1], [[1.0]], 1),
        ("ranking", [2, 1, 2], [[2.0, 1.0, 2.0]], 3),
        ("rating", {"clear": [4], "true": [5]}, [[4.0], [5.0]], 1),
        ("edit", "better", [[0.0, 1.0]], 2),
        ("edit", "x0 ", [[0.0, 0.0]], 2),
    ],
)
def test_every_kind_becomesrows_of(lite, tmp_path, kind, said, value, replies):
    make_queue(lite, "k", kind)
    row = {"prompt": "p", "responses": ["x0", "x1", "x2"][: 3 if kind == "ranking" else 1], "tools": "[]"}
    put(lite, "k", [candidate(row, "")], strategy="random")
    fill(lite, 0)
    shown = next_item(lite, "k", "r0")
    judge(lite, shown.item, "r0", said, key="k")
    data = _data(tmp_path, close(lite, tmp_path, "k")).scan().collect()
    assert data["value"].to_list() == value and data["responses"].list.len().to_list() == [replies] * len(value)
    assert data["aspect"].to_list() == (["clear", "true"] if kind == "rating" else [None])
    assert data["id"].n_unique() == len(value) and set(data["tools"]) == {"[]"}


def test_the_batch_names_the_dataset_that_items_came_from(lite, tmp_path):
    fill(lite, 1)
    work(lite, "r0", 1)
    origin = _data(tmp_path, close(lite, tmp_path, "q"))
    source = origin.scan().collect()["id"][0].hex()
    put(
        lite,
        "q",
        [candidate({"prompt": "n", "responses": ["a", "b"], "id": source}, "")],
        strategy="random",
        dataset=origin,
    )
    with pytest.raises(InputError, match="row-7.*names no row of feedback-q"):
        named = candidate({"prompt": "o", "responses": ["a", "b"], "id": "row-7"}, "")
        put(lite, "q", [named], strategy="random", dataset=origin)
    work(lite, "r0", 1)
    second = _data(tmp_path, close(lite, tmp_path, "q"))
    assert [item.key for item in second.inputs] == [origin.key]
    assert second.scan().collect()["sources"].to_list() == [[bytes.fromhex(source)]]


def test_pairs_are_made_of_a_batch_as_of_any_file(lite, tmp_path):
    fill(lite, 4, 3, wanted=3)
    for rater in ("r0", "r1", "r2"):
        while (shown := next_item(lite, "q", rater)) is not None:
            lite.clock.at += 1
            for turn, liked in enumerate("ba"):  # each thinks again, and likes the a
                lite.clock.at += 1
                value = [float(message["content"].startswith(liked)) for message in shown.responses]
                judge(lite, shown.item, rater, value, key=f"{rater} {shown.item} {turn}")
    root = tmp_path / "root"
    batch = _data(root, close(lite, root, "q"))
    stands = Store(root).build("stands", latest(), [batch])
    assert (batch.rows, stands.rows) == (24, 12)
    pairs = Store(root).build("pairs", make_pairs(), [stands]).scan().collect()
    assert len(pairs) == 4 and set(pairs["votes"]) == {3} and set(pairs["agree"]) == {1.0}
    chosen = [
        pair[0]["content"][0] + pair[1]["content"][0]
        for pair in zip(*(sum(pairs[name].to_list(), []) for name in ("chosen", "rejected")), strict=True)
    ]
    assert chosen == ["ab"] * 4


# ---- when


def test_a_threshold_and_a_time_close_batches(made, tmp_path):
    db, clock = made
    fill(db, 9, threshold=4, max_age_seconds=60)
    work(db, "r0", 3)
    assert due(db, "q") is None and close_due(db, tmp_path) == []
    work(db, "r0", 2)
    assert due(db, "q") == "threshold"
    assert [(one.reason, one.judgements) for one in close_due(db, tmp_path)] == [("threshold", 5)]
    work(db, "r0", 1)
    clock.at += 59_999
    assert due(db, "q") is None
    clock.at += 1
    assert [(one.reason, one.judgements) for one in close_due(db, tmp_path)] == [("time", 1)]
    assert close_due(db, tmp_path) == [] and len(_whole(db, tmp_path)) == 2


def test_an_event_is_pending_until_it_was_sent(made, tmp_path):
    db, clock = made
    fill(db, 1)
    work(db, "r0", 1)
    batch = close(db, tmp_path, "q")
    [event] = pending(db)
    assert event.payload == {
        "batch": batch.id, "queue": "q", "number": 1, "judgements": 1, "dataset": batch.dataset,
        "dataset_key": batch.key, "digest": batch.digest,
    }  # fmt: skip
    sent(db, event.id)
    clock.at += 5
    sent(db, event.id)
    assert pending(db) == [] and rows_of(db, OUTBOX)[0].sent_at == clock.at - 5
    assert status(db)[0]["batches"][0]["event_sent"] is True


def test_unknown_names_are_said(lite, tmp_path):
    for wrong in (lambda: close(lite, tmp_path, "q"), lambda: batch_of(lite, 1), lambda: due(lite, "q")):
        with pytest.raises(InputError):
            wrong()


# ---- at once, and after a crash


def test_closing_twice_at_once_is_one_batch(made, tmp_path):
    db, _ = made
    fill(db, 40)
    work(db, "r0", 40)
    with ThreadPoolExecutor(4) as pool:
        found = [one for one in pool.map(lambda _: close(db, tmp_path, "q"), range(4)) if one is not None]
    assert len({one.id for one in found}) == 1 and len(_whole(db, tmp_path)) == 1


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from feedbackdb import work
from gristmill.dataops.feedback.database import open_database
print(len(work(open_database(sys.argv[2]), sys.argv[3], 99)))
"""


def test_four_writers_and_a_closer_lose_nothing(made, tmp_path):
    db, _ = made
    raters = fill(db, 30, 4, wanted=4)
    where = db.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), where]
    running = [subprocess.Popen([*command, rater], stdout=subprocess.PIPE) for rater in raters]
    while any(process.poll() is None for process in running):
        close(db, tmp_path, "q")
    assert [int(process.communicate()[0]) for process in running] == [30] * 4
    close(db, tmp_path, "q")
    batches = _whole(db, tmp_path)
    assert sum(batch.judgements for batch in batches) == 120 == status(db)[0]["standing"]


CLOSER = """
import os, signal, sys
from pathlib import Path
from gristmill.dataops.feedback.batches import close
from gristmill.dataops.feedback.database import open_database
step = sys.argv[3]
def die(at):
    if at == step:
        os.kill(os.getpid(), signal.SIGKILL)
close(open_database(sys.argv[1]), Path(sys.argv[2]), "q", before=die)
"""


@pytest.mark.parametrize("step", ["publish", "close"])
def test_killed_while_closing_the_next_close_goes_on(made, tmp_path, step):
    db, _ = made
    fill(db, 8)
    work(db, "r0", 5)
    where = db.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", CLOSER, where, str(tmp_path), step], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert rows_of(db, OUTBOX) == [] and status(db)[0]["batches"][0]["state"] == "frozen"
    left = sorted((tmp_path / "feedback-q").glob("*")) if step == "close" else []
    work(db, "r0", 3)  # after the freeze: of the next batch
    [first] = close_due(db, tmp_path)
    assert first.judgements == 5 and all(path.name == first.key[:12] for path in left) and len(left) <= 1
    assert close(db, tmp_path, "q").judgements == 3 and len(_whole(db, tmp_path)) == 2
    assert not list((tmp_path / ".building").glob("*"))


# ---- what was said elsewhere


def _judged(tmp_path, name, rows, **options):
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_judgements(Store(tmp_path / "root"), name, [str(path)], "judgements", **options)


def _said(item, rater, value, **more):
    return {"prompt": item, "responses": ["a", "b"], "kind": "pairwise", "value": value, "rater": rater, **more}


def test_pandalm_has_the_agreement_that_is_known(made, tmp_path):
    db, _ = made
    path = real("pref/pandalm-testset-v1-3annotators.json")
    judged = read_judgements(Store(tmp_path / "root"), "panda", [str(path)], "pandalm")
    for known in (0, 2997):
        found = import_judgements(db, "panda", judged)
        assert (found.items, found.raters, found.judgements + found.known, found.known) == (999, 3, 2997, known)
    assert round(agreement(tables(db, "panda")["value"], replicates=0).fleiss_kappa, 4) == 0.8642
    batch = close(db, tmp_path / "root", "panda")
    assert batch.judgements == 2997 and _data(tmp_path / "root", batch).inputs[0].key == judged.key


def test_importing_a_file_that_grew_adds_what_is_new(lite, tmp_path):
    rows = [_said("p", "ann", [1, 0]), _said("p", "bob", [1, 0]), _said("q", "ann", [0, 0]), _said("p", "ann", [1, 0])]
    first = import_judgements(lite, "q", _judged(tmp_path, "one", rows))
    assert (first.items, first.judgements, first.corrections, first.known) == (2, 3, 0, 1)  # said twice counts once
    rows += [_said("p", "ann", [0, 1]), _said("q", "bob", None), _said("p", "ann", [1, 0])]
    second = import_judgements(lite, "q", _judged(tmp_path, "two", rows))
    assert (second.judgements, second.corrections, second.known) == (3, 2, 4)
    assert tables(lite, "q") == {"value": [["first", "first"], ["tie", None]]}


def test_raters_who_saw_the_responses_swapped_judged_the_same_item(lite, tmp_path):
    swapped = _said("p", "bob", [0, 1]) | {"responses": ["b", "a"]}
    judged = _judged(tmp_path, "one", [_said("p", "ann", [1, 0]), swapped])
    assert import_judgements(lite, "q", judged).items == 1
    assert tables(lite, "q") == {"value": [["first", "first"]]}
    data = _data(tmp_path / "root", close(lite, tmp_path / "root", "q")).scan().collect()
    assert data["value"].to_list() == [[1, 0], [0, 1]] and data["item"].n_unique() == 1


def test_aspects_are_one_rating_and_edits_of_one_reply_one_item(lite, tmp_path):
    rated = {"prompt": "p", "responses": ["a"], "kind": "rating", "rater": "ann"}
    said = (("true", [5]), ("kind", None), ("clear", [3]))  # a null aspect takes nothing back
    rows = [rated | {"aspect": aspect, "value": scores} for aspect, scores in said]
    whole = rated | {"value": [2], "prompt": "whole"}
    rows.insert(1, rows[0] | {"prompt": "another", "rater": "bob"})
    found = import_judgements(lite, "rated", _judged(tmp_path, "one", rows))
    assert (found.judgements, found.known) == (2, 0)
    assert tables(lite, "rated") == {"clear": [[3, None]], "true": [[5, None], [None, 5]]}
    rows.append(rows[0] | {"value": [1]})
    assert import_judgements(lite, "rated", _judged(tmp_path, "more", rows)).corrections == 1
    assert tables(lite, "rated") == {"clear": [[3, None]], "true": [[1, None], [None, 5]]}
    root = tmp_path / "root"
    import_judgements(lite, "whole", _judged(tmp_path, "whole", [whole]))
    assert _data(root, close(lite, root, "whole")).scan().collect()["aspect"].to_list() == [None]
    edited = {"prompt": "p", "kind": "edit", "value": [0, 1]}
    rows = [edited | {"responses": ["a", new], "rater": name} for new, name in (("A", "ann"), ("B", "bob"))]
    found = import_judgements(lite, "edited", _judged(tmp_path, "two", rows))
    assert (found.items, found.judgements) == (1, 2)
    data = _data(root, close(lite, root, "edited")).scan().collect()
    assert [[reply["content"] for reply in said] for said in data["responses"]] == [["a", "A"], ["a", "B"]]


def test_what_cannot_be_imported_is_said(lite, tmp_path):
    thumb = {"prompt": "p", "responses": ["a"], "kind": "thumbs", "value": [1], "rater": "ann"}
    mixed = _judged(tmp_path, "mixed", [_said("p", "ann", [1, 0]), thumb])
    with pytest.raises(InputError, match="several kinds: pairwise, thumbs"):
        import_judgements(lite, "q", mixed)
    assert import_judgements(lite, "q", mixed, kind="thumbs").judgements == 1
    with pytest.raises(InputError, match="asks for a thumbs"):
        import_judgements(lite, "q", mixed, kind="pairwise")
    with pytest.raises(InputError, match="mixed.jsonl, record 1: nobody is named"):
        import_judgements(lite, "n", _judged(tmp_path, "mixed", [_said("p", None, [1, 0])]))
    assert [(one["queue"], one["judgements"]) for one in status(lite)] == [("q", 1)]
