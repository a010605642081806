"""The command as a user meets it: one run, then every other command on what it made, and bad input."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.dataops.catalogue import Index
from gristmill.dataops.store import Store
from gristmill.flows import cli
from gristmill.flows.cli import _interrupted

COMMAND = [str(Path(sys.executable).with_name("gristmill"))]


def call(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """(status, stdout, stderr) of the command, in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def ask(*arguments: str, status: int = 0) -> dict:
    """With --json, stdout is exactly one object."""
    code, out, err = call(*arguments, "--json")
    assert code == status, err
    assert out.count("\n") == 1
    return json.loads(out)


@pytest.fixture
def configured(prefect_server, monkeypatch) -> None:
    """Flows run in a server that is there, where others start one of their own first."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server[0])


@pytest.fixture(scope="module")
def ran(sample, tmp_path_factory) -> tuple[str, dict]:
    root = str(tmp_path_factory.mktemp("cli") / "root")
    options = ["--vocab-size", "1000", "--seq-len", "128", "--workers", "2", "--root", root]
    return root, ask("run", "pretrain-data", "--crawl", str(sample[0]), *options)


def test_a_run_says_what_it_made(ran, sample, built):
    root, result = ran
    assert {name: item["digest"] for name, item in result["datasets"].items()} == {
        n: d.digest for n, d in built[1].items()
    }
    assert result["counts"]["crawl.read"]["in"] == sum(sample[1]["records"].values())
    assert result["datasets"]["packed"]["tokens"] == result["datasets"]["encoded"]["tokens"] > 0
    assert set(result["seconds"]) == {*result["datasets"], "report"}
    assert Path(result["report"]).is_file() and result["orchestration"]["total"] > 0
    assert Store(Path(root)).get("packed").digest == result["datasets"]["packed"]["digest"]


def test_a_second_run_builds_nothing(ran, sample, configured):
    root, first = ran
    options = ["--vocab-size", "1000", "--seq-len", "128", "--root", root]
    again = ask("run", "pretrain-data", "--crawl", str(sample[0]), *options)
    assert again["datasets"] == first["datasets"]
    assert sum(again["seconds"].values()) < sum(first["seconds"].values())


def test_ls_and_show(ran):
    root, result = ran
    listed = ask("ls", "--root", root)["datasets"]
    assert {row["name"]: row["digest"] for row in listed} == {n: d["digest"] for n, d in result["datasets"].items()}
    shown = ask("show", "clean", "--root", root)
    assert shown["kind"] == "view" and shown["counts"]["quality.gopher"]["in"] > 0 and len(shown["head"]) == 3
    for name in result["datasets"]:
        assert call("show", name, "--root", root)[0] == 0
    text = call("show", "pages", "--root", root)[1]
    assert "text.extract v2" in text and "Lost inside rows that stay" in text


def test_why_tells_the_story_of_every_planted_page(ran, sample):
    root, _ = ran
    told = {"kept": 0, "dropped": 0}
    cases = [case for case in sample[1]["cases"] if case.get("uri")]
    for case in random.Random(3).sample(cases, 6):
        rows = ask("why", case["uri"], "--root", root)["rows"]
        assert rows and all(row["events"] for row in rows)
        told["dropped" if rows[0]["events"][-1]["what"] == "dropped" else "kept"] += 1
    assert told["dropped"]
    twin = next(case for case in cases if case["kind"] == "exact_duplicate")
    text = call("why", twin["uri"], "--root", root)[1]
    assert twin["uri"] in text and ("DROPPED" in text or "packed rows" in text)
    unknown = ask("why", "https://nowhere.example/", "--root", root, status=1)
    assert unknown["rows"] == []


def test_trace_goes_back_to_the_record(ran, sample):
    root, _ = ran
    story = ask("trace", "packed", "0", "5", "--root", root)
    assert story["record"] | {"same_id": True, "file": str(sample[0])} == story["record"]
    assert story["page"]["uri"] in call("trace", "packed", "0", "5", "--root", root)[1]
    for wrong in (["packed", "99999"], ["packed", "0", "99999"], ["tokenizer", "0"]):
        assert "error" in ask("trace", *wrong, "--root", root, status=2)


def test_report_writes_one_page(ran, tmp_path):
    root, _ = ran
    result = ask("report", "packed", "--root", root, "--out", str(tmp_path / "out"))
    assert result["bytes"] == Path(result["html"]).stat().st_size < 3_000_000
    numbers = json.loads(Path(result["numbers"]).read_text())
    assert numbers


def test_fsck_names_the_damaged_file_and_reindex_rebuilds(ran, tmp_path):
    root, result = ran
    assert ask("fsck", "--root", root)["problems"] == []
    shard = next(Path(root, "pages").glob("*/shards/00000.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:300] + bytes([whole[300] ^ 255]) + whole[301:])
    found = ask("fsck", "--root", root, status=1)["problems"]
    assert [item["file"] for item in found] == [str(shard)]
    shard.write_bytes(whole)
    Path(root, "lineage.db").write_bytes(b"not a database")
    assert ask("reindex", "--root", root)["versions"] == len(result["datasets"])
    store = Store(Path(root))
    came_of = Index.open(store).came_of(store.get("crawl"))
    assert {item.name for item in came_of} == set(result["datasets"]) - {"crawl"}
    made_from = Index.open(store).made_from(store.get("packed"))
    assert {item.name for item in made_from} == set(result["datasets"]) - {"packed"}


def test_defaults_from_file_and_environment_and_flags_win(ran, tmp_path, monkeypatch):
    root, _ = ran
    monkeypatch.chdir(tmp_path)
    Path("gristmill.toml").write_text(f'root = "{root}"\n')
    assert len(ask("ls")["datasets"]) > 5
    assert call("ls", GRISTMILL_ROOT="/nowhere")[0] == 2
    assert call("ls", "--root", root, GRISTMILL_ROOT="/nowhere")[0] == 0
    Path("gristmill.toml").write_text("rot = 1\n")
    assert "no setting 'rot'" in ask("ls", status=2)["error"]
    Path("gristmill.toml").write_text("seq_len = 'x'\n")
    assert "seq_len" in ask("ls", status=2)["error"]
    Path("gristmill.toml").unlink()
    assert "GRISTMILL_WORKERS" in json.loads(call("ls", "--json", "--root", root, GRISTMILL_WORKERS="two")[1])["error"]


BAD = {
    "missing": (None, "no such file"),
    "unknown.bin": (b"\x00\x01\x02" * 100, "no known format"),
    "columns.csv": (b"a,b\n1,2\n", "has a, b"),
}


@pytest.mark.parametrize("name", BAD)
def test_input_that_cannot_be_used_is_refused_in_one_line(name, tmp_path):
    content, told = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, out, err = call(
        "run", "pretrain-data", "--crawl", str(tmp_path / name), "--root", str(tmp_path / "root"), "--json"
    )
    assert code == 2 and told in json.loads(out)["error"] and told in err
    assert not list((tmp_path / "root").glob("*/*/manifest.json"))


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["grind"], 2),
        (["run", "pretrain-data"], 2),
        (["run", "pretrain-data", "--crawl", "x", "--seq-len", "0"], 2),
        (["run", "pretrain-data", "--crawl", "x", "--vocab-size", "9", "--tokenizer", "y"], 2),
        (["ls", "--root", "/proc/nowhere"], 2),
        (["show", "x", "--root", "/proc"], 2),
    ],
)
def test_bad_usage(arguments, status):
    code, _, err = call(*arguments)
    assert code == status and err.strip()


def test_ctrl_c_at_work_is_a_line_and_130(tmp_path):
    words = [json.dumps({"prompt": f"{n} + 1?", "gold": str(n + 1)}) for n in range(20_000)]
    (tmp_path / "tasks.jsonl").write_text("\n".join(words))
    root = ["--root", str(tmp_path / "root"), "--workers", "1"]
    asked = [*COMMAND, "build-tasks", str(tmp_path / "tasks.jsonl"), "--verifier", "maths", *root]
    running = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None and running.stderr.read(1)  # the first of its progress
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130 and "Traceback" not in told and "interrupted" in told


def test_ctrl_c_as_early_as_in_the_imports_is_a_line_too(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "parser", interrupted)
    assert cli.main(["ls"]) == 130 and "interrupted" in capsys.readouterr().err


def test_an_interrupt_in_the_clothes_of_another_error_is_one():
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ValueError("a schema cannot be made") from error
    except ValueError as error:
        assert _interrupted(error)
    assert _interrupted(ValueError("Error calling function `ser`: KeyboardInterrupt: "))
    assert not _interrupted(ValueError("a schema cannot be made"))


def test_a_root_that_cannot_be_written_is_said_so(sample, configured):
    result = ask("run", "pretrain-data", "--crawl", str(sample[0]), "--root", "/proc/root-of-mine", status=1)
    assert "/proc/root-of-mine" in result["error"]


def test_damaged_crawls_run_through(sample, tmp_path, configured):
    """A torn WARC, an empty one, text that calls itself gzip, and rows with a broken line: ledger rows, not errors."""
    whole = sample[0].read_bytes()
    (tmp_path / "torn.warc.gz").write_bytes(whole[: len(whole) // 2 + 7])
    (tmp_path / "empty.warc.gz").write_bytes(b"")
    prose = "The miller ground the grain of the valley and the wheel turned with the water of the river that day. " * 12
    lines = [json.dumps({"text": f"{prose} Line {n}.", "url": f"https://mill.example/{n}"}) for n in range(3)]
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress("\n".join([lines[0], "{broken", *lines[1:]]).encode()))
    options = ["--vocab-size", "1000", "--seq-len", "128", "--root", str(tmp_path / "root")]
    result = ask("run", "pretrain-data", "--crawl", str(tmp_path / "*.gz"), *options)
    reasons = result["counts"]["crawl.read"]["reasons"]
    assert reasons["bad_json"] == 1
    store = Store(tmp_path / "root")
    lost = store.get("pages").ledger().collect()
    assert {"empty_file"} <= set(lost["reason"]) and lost["reason"].null_count() == 0
    assert ask("fsck", "--root", str(tmp_path / "root"))["problems"] == []


def test_two_runs_on_one_root_at_once(ran, sample, tmp_path):
    """One builds, the other waits and takes its result; both say the same."""
    _, first = ran
    command = [*COMMAND, "run", "pretrain-data", "--crawl", str(sample[0]), "--vocab-size", "1000", "--seq-len", "128"]
    command += ["--root", str(tmp_path / "root"), "--json"]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    results = [json.loads(out) for out, _ in told]
    assert results[0]["datasets"] == results[1]["datasets"] == first["datasets"]
    assert ask("fsck", "--root", str(tmp_path / "root"))["problems"] == []
