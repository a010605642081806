"""The step that generates: what its rows say, what a stop or an outage leaves, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_server import serving
from tinymodel import checkpoint, prompts, save, talk

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.training.engines.local import TransformersEngine
from gristmill.training.generate import TOO_LONG, GenerateSpec, dry, run

pytestmark = pytest.mark.usefixtures("short_waits")
QUESTIONS = talk("one?", "is the second one better?", "é" * 20, "yes or no", "one?", "x" * 60, "two?")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Dataset:
    return checkpoint(tmp_path_factory.mktemp("model"), window=512)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TransformersEngine:
    return TransformersEngine(save(tmp_path_factory.mktemp("tiny")), device="cpu")


def spec(root: Path, data: Dataset, **fields) -> GenerateSpec:
    told = {"samples": 2, "max_tokens": 6, "chunk": 2, **fields}
    return GenerateSpec(data={"path": data.path, "digest": data.digest}, root=str(root), **told)  # type: ignore[arg-type]


def named(dataset: Dataset) -> dict[str, str]:
    return {"path": dataset.path, "digest": dataset.digest}


def rows(dataset: Dataset) -> list[dict]:
    return [row for batch in dataset.batches() for row in batch.to_pylist()]


def told(dataset: Dataset) -> list[tuple]:
    return [(row["id"], row["sources"], row["sample"], row["response"], row["finish"]) for row in rows(dataset)]


def test_each_prompt_makes_its_samples_and_none_is_lost(model, tmp_path):
    long = [{"role": "user", "content": "long " * 500}]
    data = prompts(tmp_path, [*QUESTIONS, long], gold=[str(n) for n in range(8)])
    made = run(spec(tmp_path, data, model=named(model)))
    ids = [row["id"] for batch in data.batches() for row in batch.to_pylist()]
    found = rows(made)
    assert [(row["sources"], row["sample"]) for row in found] == [([name], n) for name in ids for n in range(2)]
    assert len({row["id"] for row in found}) == 16 and [row["gold"] for row in found[::2]] == list("01234567")
    assert found[2]["prompt"] == QUESTIONS[1]
    assert [row["response"] is None for row in found] == [False] * 14 + [True] * 2
    assert {row["finish"] for row in found[-2:]} == {TOO_LONG} and found[-1]["tokens"] is None
    assert all(row["response"] != again["response"] for row, again in zip(found[:14:2], found[1:14:2], strict=True))
    assert all(1 <= row["tokens"] <= 6 and row["logprob"] < 0 for row in found[:14])
    manifest = made.manifest
    assert manifest["stats"] | {"tokens": 0} == {
        "responses": 16, TOO_LONG: 2, "unheld": 0, "finish": {"length": 14}, "tokens": 0,
    }  # fmt: skip
    assert manifest["reproducible"] is False and [item["digest"] for item in manifest["inputs"]] == [
        data.digest,
        model.digest,
    ]
    engine = manifest["ops"][0]["params"]["engine"]
    assert {(row["engine"], row["engine_version"]) for row in found} == {(engine["name"], engine["version"])}
    assert not list(tmp_path.glob(".generating/*"))


def test_a_text_is_what_a_user_says_and_chunks_are_no_identity(model, tmp_path, capfd):
    data = prompts(tmp_path, ["one?", "two?"])
    first = run(spec(tmp_path, data, model=named(model), temperature=0.0, samples=1))
    assert rows(first)[0]["prompt"] == [{"role": "user", "content": "one?"}]
    again = run(spec(tmp_path, data, model=named(model), temperature=0.0, samples=1, chunk=1))
    assert again == first and "stands already" in capfd.readouterr().err
    assert run(spec(tmp_path, data, model=named(model), temperature=0.0, samples=1, seed=1)).key != first.key


def test_what_was_generated_before_an_outage_is_kept_and_not_asked_again(tiny, tmp_path):
    data = prompts(tmp_path, QUESTIONS)
    with serving(tiny) as server:
        engine = {"kind": "server", "url": server.url, "tries": 2, "concurrent": 1}
        whole = told(run(spec(tmp_path / "whole", data, engine=engine, name="whole")))
        server.asked.clear()
        server.faults, server.always = [None] * 9, "closed"  # two chunks of two prompts, twice, and one more
        with pytest.raises(OSError, match=r"no answer in 2 tries.*4 of 7 prompts are kept.*run the same spec again"):
            run(spec(tmp_path, data, engine=engine))
        server.asked.clear()
        server.always = None
        chunk = next(tmp_path.glob(".generating/*/0000000002-*.arrow"))
        chunk.write_bytes(chunk.read_bytes()[:100])  # damaged meanwhile: made again, and no more than that
        made = run(spec(tmp_path, data, engine=engine, chunk=50))
        assert len(server.bodies()) == 2 * (2 + 3)
        assert told(made) == whole


def test_a_schema_is_asked_for_and_what_does_not_keep_to_it_is_null_and_counted(tiny, tmp_path):
    data = prompts(tmp_path, QUESTIONS)
    schema = {"type": "object", "properties": {"winner": {"enum": ["A", "B"]}}, "required": ["winner"]}
    with serving(tiny) as server:
        given = {"engine": {"kind": "server", "url": server.url}, "max_tokens": 30, "samples": 1}
        made = run(spec(tmp_path, data, schema=schema, **given))
        assert {json.loads(row["response"])["winner"] for row in rows(made)} <= {"A", "B"}
        assert made.manifest["stats"]["unheld"] == 0 and made.manifest["ops"][0]["params"]["schema"] == schema
        # A schema that this server passes over.
        other = run(spec(tmp_path, data, schema={"type": "string"}, **given))
    assert other.key != made.key and other.manifest["stats"]["unheld"] == 7
    assert {(row["response"], row["finish"]) for row in rows(other)} <= {(None, "length"), (None, "stop")}


def test_from_the_command_line_it_stops_goes_on_and_says_what_is_wrong(tiny, tmp_path):
    data = prompts(tmp_path, QUESTIONS)
    file = tmp_path / "spec.json"

    def step(*more: str, **fields) -> subprocess.Popen:
        settings = {"data": named(data), "root": str(tmp_path), "max_tokens": 2, "chunk": 1, **fields}
        file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "gristmill.training.generate", "--spec", str(file), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with serving(tiny, slow=0.3) as server:
        engine = {"kind": "server", "url": server.url}
        stopped = step(engine=engine)
        while not list(tmp_path.glob(".generating/*/*.arrow")) and stopped.poll() is None:
            time.sleep(0.02)
        server.slow = 60  # a request that hangs does not hold up the stop
        time.sleep(0.5)
        stopped.send_signal(signal.SIGTERM)
        _, error = stopped.communicate(timeout=20)
        assert stopped.returncode == 143 and "of 7 prompts are kept; the same spec goes on" in error
        server.slow, before = 0, len(server.bodies())
        done = step(engine=engine)
        out, error = done.communicate(timeout=60)
        assert done.returncode == 0 and len(server.bodies()) - before < 7, error
        answer = json.loads(out)
        assert answer["responses"] == 7 and Dataset.load(answer["path"]).digest == answer["digest"]
    gone = step(engine=engine | {"tries": 1})
    _, error = gone.communicate(timeout=60)
    assert gone.returncode == 1 and "no answer in 1 tries" in error and "Traceback" not in error
    refused = step(engine={"kind": "server"})
    _, error = refused.communicate(timeout=60)
    assert refused.returncode == 2 and "needs its url" in error


def test_a_dry_run_says_how_much_there_is(model, tmp_path):
    data = prompts(tmp_path, QUESTIONS)
    told = dry(spec(tmp_path, data, model=named(model)))
    memory = told.pop("memory")
    assert memory["total"] == memory["weights"] + memory["cache"] and memory["weights"] > 10_000
    assert told == {
        "prompts": 7, "responses": 14, "most_tokens": 84, "chunks": 4, "engine": "transformers", "model": "tiny",
    }  # fmt: skip


def test_what_it_refuses(model, tmp_path):
    data = prompts(tmp_path, QUESTIONS)
    for fields, message in (
        ({"samples": 0}, "samples is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": 0}, "all samples of a prompt are one"),
        ({"model": named(model), "engine": {"folder": "m"}}, "both say which model"),
        ({"engine": {"kind": "server"}}, "needs its url"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"schema": {"type": "string"}}, "let `engine` be vllm or a server"),
    ):
        with pytest.raises(InputError, match=message):
            spec(tmp_path, data, **fields)
    for call in (run, dry):
        with pytest.raises(InputError, match="needs the folder of a model"):
            call(spec(tmp_path, data))
        with pytest.raises(InputError, match="no config.json; a model's folder is wanted"):
            call(spec(tmp_path, data, engine={"folder": str(tmp_path)}))
    with pytest.raises(InputError, match="is a dataset of checkpoint"):
        run(spec(tmp_path, model))
    with pytest.raises(InputError, match="it is a dataset of rows"):
        run(spec(tmp_path, data, model=named(data)))
    with pytest.raises(InputError, match="has a column 'response'"):
        run(spec(tmp_path, prompts(tmp_path / "a", ["x"], response=["y"]), model=named(model)))
    for bad in ([], [{"role": "user", "content": None}]):
        with pytest.raises(InputError, match=r"row [0-9a-f]{32}: the prompt is"):
            run(spec(tmp_path, prompts(tmp_path / str(len(bad)), [QUESTIONS[0], bad]), model=named(model)))
    with pytest.raises(InputError, match="has no rows"):
        run(spec(tmp_path, prompts(tmp_path / "none", []), model=named(model)))
