"""The store: accounting, caching, resume, tags, views, and what happens when workers or other runs get in the way."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import polars as pl
import pytest
import toys

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.executor import InProcess, LocalPool, WorkerDied
from gristmill.dataops.fsck import fsck
from gristmill.dataops.passes import AccountingError
from gristmill.dataops.store import Store, _there


def chain(store: Store, parts: int = 3, **context) -> Dataset:
    return store.build("numbers", [toys.numbers(rows=100, parts_context=parts), toys.square(**context)], [])


def test_rows_are_kept_or_in_the_ledger(tmp_path):
    made = chain(Store(tmp_path))
    rows, lost = made.scan().collect(), made.ledger().collect()
    assert rows["n"].to_list() == [n for n in range(100) if n % 7 != 6]
    assert sorted([*rows["id"], *lost["id"]]) == sorted(toys.row_id(str(n)) for n in range(100))
    assert set(lost["reason"]) == {"seventh"} and set(lost["op"]) == {"toy.numbers"}
    assert made.manifest["counts"]["toy.numbers"]["in"] == 100
    assert made.manifest["counts"]["toy.square"] == {"in": 86, "kept": 86, "dropped": 0, "reasons": {}, "losses": {}}


@pytest.mark.parametrize("broken", [toys.loses, toys.doubles])
def test_an_op_that_loses_or_doubles_a_row_publishes_nothing(tmp_path, broken):
    store = Store(tmp_path)
    with pytest.raises(AccountingError, match=broken().name):
        store.build("numbers", [toys.numbers(rows=10), broken()], [])
    assert store.names() == []


@pytest.mark.parametrize("parts", [1, 7])
def test_shards_and_workers_do_not_show(tmp_path, parts):
    reference = chain(Store(tmp_path / "reference"))
    with LocalPool(2) as pool:
        other = chain(Store(tmp_path / "other", pool), parts)
    assert (other.key, other.digest) == (reference.key, reference.digest)
    assert len(other.manifest["shards"]) == parts


def test_what_stands_is_not_built_again_and_parameters_are_identity(tmp_path):
    store = Store(tmp_path)
    marks = tmp_path / "marks"
    marks.mkdir()
    first = chain(store, marks_context=str(marks))
    again = chain(store, marks_context=str(marks))
    assert again == first and len(list(marks.iterdir())) == 3
    other = store.build("numbers", [toys.numbers(rows=99), toys.square()], [])
    assert other.key != first.key and other.digest != first.digest
    assert store.get("numbers") == other
    assert store.get(f"numbers:{first.key[:8]}") == first


def test_a_view_leaves_rows_out_without_copying_them(tmp_path):
    store = Store(tmp_path)
    base = chain(store)
    view = store.build("small", toys.small(limit=20), [base])
    deeper = store.build("odd", toys.odd(), [view])
    assert view.kind == deeper.kind == "view" and not (Path(view.path) / "shards").exists()
    expected = [n for n in range(21) if n % 7 != 6]
    assert view.scan().collect()["n"].to_list() == expected
    assert [n for batch in view.batches(5, ["n"]) for n in batch.column("n").to_pylist()] == expected
    assert deeper.scan().collect()["n"].to_list() == [n for n in expected if n % 2]
    lost = view.ledger().collect()
    assert set(lost["reason"]) == {"too_big"} and set(lost["threshold"]) == {20.0}
    assert lost["value"].to_list() == [float(n) for n in range(21, 100) if n % 7 != 6]
    assert deeper.manifest["counts"]["toy.odd"]["in"] == view.rows


def test_a_view_has_the_digest_of_a_copy(tmp_path):
    store = Store(tmp_path)
    base = store.build("numbers", [toys.numbers(rows=21), toys.square()], [])
    view = store.build("all", toys.small(limit=1000), [base])
    assert view.digest == base.digest
    fewer = store.build(
        "small", toys.small(limit=13), [store.build("more", [toys.numbers(rows=40), toys.square()], [])]
    )
    copy = store.build("copy", [toys.numbers(rows=14), toys.square()], [])
    assert fewer.digest == copy.digest


def test_a_rebuild_with_the_same_content_stops_there(tmp_path):
    store = Store(tmp_path)
    base = chain(store)
    one, other = (store.build("small", toys.small(limit=limit), [base]) for limit in (50, 50.5))
    assert one.key != other.key and one.digest == other.digest
    assert store.build("odd", toys.odd(), [one]) == store.build("odd", toys.odd(), [other])


def test_finished_parts_survive_a_failure(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    store = Store(tmp_path / "root")
    ops = [toys.numbers(rows=100, parts_context=5), toys.square(marks_context=str(marks)), toys.loses()]
    with pytest.raises(AccountingError):  # row 3 is in the first part
        store.build("numbers", ops, [])
    count = len(list(marks.iterdir()))
    with LocalPool(1) as pool:
        slow = [toys.numbers(rows=100, parts_context=5), toys.square(marks_context=str(marks)), toys.dies(at=50)]
        with pytest.raises(WorkerDied, match="part 2"):
            Store(tmp_path / "root", pool).build("numbers", slow, [])
    done = sorted((tmp_path / "root" / ".building").glob("*/parts/*.json"))
    assert [path.name for path in done] == ["00000.json", "00001.json", "00003.json", "00004.json"]
    before = len(list(marks.iterdir()))
    assert before > count
    with pytest.raises(WorkerDied), LocalPool(1) as pool:
        Store(tmp_path / "root", pool).build("numbers", slow, [])
    assert {path.name.split("-")[0] for path in marks.iterdir()} >= {"40"}
    assert len(list(marks.iterdir())) == before + 2  # only the part that is missing was tried, twice


def test_a_crash_that_does_not_come_back_costs_nothing(tmp_path):
    ops = [toys.numbers(rows=100, parts_context=4), toys.dies(at=30, only_once_context=str(tmp_path / "died"))]
    with LocalPool(2) as pool:
        made = Store(tmp_path / "root", pool).build("numbers", ops, [])
    assert (tmp_path / "died").exists() and made.rows == 86


def test_a_torn_part_is_made_again(tmp_path):
    store = Store(tmp_path)
    reference = chain(Store(tmp_path / "other"), 4)
    with pytest.raises(AccountingError):
        store.build("x", [toys.numbers(rows=100, parts_context=4), toys.square(), toys.loses()], [])
    # A part whose shard was cut short behind its back is not taken.
    building = tmp_path / ".building" / f"numbers-{reference.key[:12]}"
    for sub in ("parts", "shards", "ledger"):
        (building / sub).mkdir(parents=True)
    (building / "parts" / "00000.json").write_text(
        json.dumps(
            {
                "index": 0,
                "ledger": {"file": "ledger/00000.arrow", "bytes": 5},
                "shard": {"file": "shards/00000.arrow", "bytes": 9},
                "hashes": {"file": "h", "bytes": 1},
            }
        )
    )
    assert chain(store, 4).digest == reference.digest


def test_two_runs_that_want_the_same_get_the_same(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    results: list[Dataset] = []

    def run() -> None:
        results.append(chain(Store(tmp_path / "root", InProcess()), marks_context=str(marks), wait_context=0.1))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1 and len(results) == 4
    assert len(list(marks.iterdir())) == 3  # one of them built, the others waited


def test_tags_name_versions_and_do_not_move(tmp_path):
    store = Store(tmp_path)
    first = chain(store)
    store.tag("numbers", "golden", first.key)
    other = store.build("numbers", [toys.numbers(rows=99), toys.square()], [])
    assert store.get("numbers@golden") == first and store.get("numbers") == other
    with pytest.raises(InputError, match="do not move"):
        store.tag("numbers", "golden", other.key)
    with pytest.raises(InputError, match="has: golden, latest"):
        store.get("numbers@silver")
    with pytest.raises(InputError, match="there are: numbers"):
        store.get("letters")


def test_fsck_finds_every_kind_of_damage(tmp_path):
    store = Store(tmp_path)
    base = chain(store)
    view = store.build("small", toys.small(), [base])
    files, problems = fsck(store)
    assert problems == [] and files == 2 + 3 * 3 + 3
    shard = Path(base.path) / "shards" / "00001.arrow"
    whole = shard.read_bytes()
    for damaged, told in ((bytes([whole[200] ^ 1]), "SHA-256 differs"), (b"", "bytes, the manifest says")):
        shard.write_bytes(whole[:200] + damaged + whole[201:] if damaged else whole[:-8])
        found = fsck(store)[1]
        assert [(item["file"], told in item["problem"]) for item in found] == [(str(shard), True)]
    shard.unlink()
    assert fsck(store)[1][0]["problem"] == "missing"
    shard.write_bytes(whole)
    (Path(view.path) / "ledger" / "stray").touch()
    assert fsck(store)[1] == [
        {
            "dataset": f"small:{view.key[:12]}",
            "file": f"{view.path}/ledger/stray",
            "problem": "not named by the manifest",
        }
    ]
    manifest = Path(view.path) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"limit": 50', '"limit": 51'))
    assert any("key does not follow" in item["problem"] for item in fsck(store)[1])


def test_a_dataset_is_read_by_url_as_by_path(tmp_path):
    import fsspec

    made = chain(Store(tmp_path))
    remote = fsspec.filesystem("memory")
    remote.put(str(tmp_path / "numbers"), "/bucket/numbers", recursive=True)
    there = Dataset.load(f"memory://bucket/numbers/{made.key[:12]}")
    assert there.scan().collect().equals(made.scan().collect())
    assert there.digest == made.digest


def test_rules_report_the_first_reason_with_value_and_threshold():
    rows = pl.DataFrame({"id": [bytes(16), bytes([1]) * 16, bytes([2]) * 16], "n": [60, 7_000, None]})
    split = toys.small()(rows)
    assert split.kept["n"].to_list() == [None]
    assert split.drops.select("reason", "value", "threshold").rows() == [
        ("too_big", 60.0, 50.0),
        ("too_big", 7000.0, 50.0),
    ]


def test_a_version_without_tags_is_found_by_its_name(tmp_path):
    store = Store(tmp_path)
    made = chain(store)
    (tmp_path / "numbers" / "tags" / "latest").unlink()
    assert store.get("numbers") == made
    with pytest.raises(InputError, match="no tag 'golden'"):
        store.get("numbers@golden")


def test_a_name_that_is_not_there_is_told_with_the_nearest_of_many():
    assert _there("x", []) == "there are: none"
    assert _there("chat", ["chats", "pairs"]) == "there are: chats, pairs"
    many = [f"set-{n}" for n in range(90)] + ["preferences"]
    assert "nearest of 91 (`gristmill ls`): preferences" in _there("preference", many)
    assert "set-0, set-1" in _there("zzz", many) and len(_there("zzz", many)) < 300
