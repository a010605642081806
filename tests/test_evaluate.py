"""The evaluation step from spec to dataset: what stands in it, that it comes again, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import evaluate, main_, named, scorer, tasks, text
from tinychat import base, chat_tokenizer

from gristmill.dataops.dataset import Dataset, publish_files, row_id
from gristmill.training.checkpoint import load_model
from gristmill.training.shards import IGNORED, Shards

QUESTIONS = [f"w{a} w{b}" for a in range(4) for b in range(3)]
CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU an evaluation is not reproducible")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A chat tokenizer, two models of other seeds, tasks and held-out text."""
    root = tmp_path_factory.mktemp("toys")
    chat = chat_tokenizer(root)
    size = chat.manifest["stats"]["vocab_size"]
    rng = np.random.default_rng(0)
    rows = [[rng.integers(3, size, n).tolist() for n in rng.integers(2, 14, 2)] for _ in range(10)]
    return {
        "root": root,
        "chat": chat,
        "model": base(root, chat, seed=0),
        "other": base(root, chat, seed=1),
        "tasks": tasks(root, QUESTIONS),
        "text": text(root, rows, size),
        "rows": rows,
        "size": size,
    }


def whole(toys, **changes):
    """A spec of everything."""
    sampled = {"samples": 4, "temperature": 1.0, "max_tokens": 6}
    return {
        "model": named(toys["model"]),
        "reference": named(toys["other"]),
        "tokenizer": named(toys["chat"]),
        "slices": [named(toys["text"], name="held")],
        "tasks": [
            named(toys["tasks"], name="words", scorer=scorer("has", word="w1", none_for="w2"), **sampled),
            named(toys["tasks"], name="greedy", max_tokens=5, harmless=True, limit=7),
        ],
        "comparisons": [{"task": "words", "judge": scorer("longer", bias=0.25)}],
        **changes,
    }


@pytest.fixture(scope="module")
def evaluated(toys, tmp_path_factory):
    """The evaluation of `whole`."""
    import contextlib
    import io

    folder, out = tmp_path_factory.mktemp("whole"), io.StringIO()
    (folder / "spec.json").write_text(json.dumps({"root": str(folder / "root"), **whole(toys)}))
    with contextlib.redirect_stdout(out):
        assert main_(["--spec", str(folder / "spec.json")]) == 0
    return Dataset.load(json.loads(out.getvalue())["path"])


def rows_of(dataset: Dataset, name: str) -> list[dict]:
    return [row for batch in dataset.batches() for row in batch.to_pylist() if row["task"] == name]


def test_every_response_is_a_row_that_names_its_task(toys, evaluated):
    manifest = evaluated.manifest
    assert (evaluated.kind, manifest["ops"][0]["name"]) == ("rows", "evaluate")
    assert manifest["stats"]["model"]["digest"] == toys["model"].digest
    assert [item["digest"] for item in manifest["inputs"]][:3] == [
        toys[name].digest for name in ("model", "other", "chat")
    ]
    sampled, greedy = rows_of(evaluated, "words"), rows_of(evaluated, "greedy")
    sources = {row_id("tasks", question): question for question in QUESTIONS}
    assert len(sampled) == 4 * len(QUESTIONS) and len(greedy) == 7
    assert {row["sources"][0] for row in sampled} == set(sources)
    assert {row["sources"][0] for row in greedy} == set(sorted(sources)[:7])
    assert all(row["prompt"][0]["content"] == sources[row["sources"][0]] for row in sampled)
    ids = [row["id"] for row in sampled + greedy]
    assert len(set(ids)) == len(ids)
    assert all(row["score"] is None and row["reason"] == "no_scorer" for row in greedy)


def test_measures_are_those_of_the_rows(toys, evaluated):
    measures, rows = evaluated.manifest["stats"]["measures"], rows_of(evaluated, "words")
    by_prompt = defaultdict(list)
    for row in rows:
        expected = None if "w2" in row["response"].split() else float("w1" in row["response"].split())
        assert row["score"] == expected and (expected is not None or row["reason"] == "unreadable")
        by_prompt[row["sources"][0]].append(row)
    judged = [[row["score"] for row in prompt if row["score"] is not None] for prompt in by_prompt.values()]
    rates = [np.mean(scores) for scores in judged if scores]
    assert measures["words/pass@1"]["value"] == pytest.approx(np.mean(rates))
    assert measures["words/pass@1"]["n"] == len(rates)
    full = [max(scores) for scores in judged if len(scores) == 4]
    assert measures["words/pass@4"]["value"] == pytest.approx(np.mean(full)) and measures["words/pass@4"]["n"] == len(
        full
    )
    unjudged = sum(row["score"] is None for row in rows)
    assert 0 < unjudged < len(rows)
    assert measures["words/unjudged"]["value"] == pytest.approx(unjudged / len(rows))
    assert evaluated.manifest["stats"]["unjudged"]["words"] == {"unreadable": unjudged}
    assert "maj@4" in {name.split("/")[1] for name in measures}
    assert "greedy/score" not in measures and "greedy/unjudged" not in measures
    assert "greedy/over_refusal" in measures and "words/refusal" in measures
    for name, measure in measures.items():
        assert set(measure) == {"value", "low", "high", "n"}
        if measure["low"] is not None:
            assert measure["low"] <= measure["value"] <= measure["high"], name
    kl = sum(row["kl"] * (row["tokens"] + (not row["cut"])) for row in rows)
    assert measures["words/kl"]["value"] == pytest.approx(kl / sum(row["tokens"] + (not row["cut"]) for row in rows))
    # fresh weights are near to undecided
    assert measures["words/entropy"]["value"] == pytest.approx(math.log(toys["size"]), abs=0.5)


def test_held_out_text_is_read_document_by_document(toys, evaluated):
    model = load_model(toys["model"]).eval()
    losses, tokens = [], []
    for documents in toys["rows"]:
        total = 0.0
        for document in documents:
            ids = torch.tensor([document])
            with torch.no_grad():
                scores = model(input_ids=ids).logits[0, :-1]
            total += torch.nn.functional.cross_entropy(scores, ids[0, 1:], reduction="sum").item()
        losses.append(total)
        tokens.append(sum(len(document) - 1 for document in documents))
    measure = evaluated.manifest["stats"]["measures"]
    assert measure["held/loss"]["value"] == pytest.approx(sum(losses) / sum(tokens), rel=1e-4)
    assert measure["held/perplexity"]["value"] == pytest.approx(math.exp(measure["held/loss"]["value"]))
    rows = rows_of(evaluated, "held")
    assert sorted(row["tokens"] for row in rows) == sorted(tokens)
    assert sorted(row["loss"] * row["tokens"] for row in rows) == pytest.approx(sorted(losses), rel=1e-4)
    labels = Shards(toys["text"]).gather(np.arange(10)).labels
    assert sum(tokens) == (labels != IGNORED).sum().item()


def test_the_win_rate_is_of_both_orders(evaluated):
    measures = evaluated.manifest["stats"]["measures"]
    rows = rows_of(evaluated, "words")
    for row in rows:
        ours, theirs = len(row["response"]), len(row["against"])
        assert row["preference"] == pytest.approx((row["first"] + 1 - row["second"]) / 2)
        if row["response"] != row["against"]:
            sides = (ours > theirs) - (ours < theirs)
            assert row["first"] == min(1.0, max(0.0, 0.75 + sides / 2))
            assert row["second"] == min(1.0, max(0.0, 0.75 - sides / 2))
    assert measures["words/win_rate"]["value"] == pytest.approx(np.mean([row["preference"] for row in rows]))
    assert measures["words/first_seat"]["value"] > 0.5
    assert measures["words/win_rate_unjudged"]["value"] == 0.0
    assert {"words/ties", "words/consistency", "words/win_rate_length_controlled"} <= set(measures)


@CPU
def test_the_same_again_whatever_the_order_of_rows(toys, evaluated, tmp_path, capsys):
    turned = tasks(tmp_path, QUESTIONS[::-1])
    assert turned.digest != toys["tasks"].digest
    spec = whole(toys)
    again = evaluate(tmp_path / "again", capsys, **spec)
    assert (again.digest, again.manifest["stats"]) == (evaluated.digest, evaluated.manifest["stats"])
    assert again.manifest["reproducible"] is True
    for task in spec["tasks"]:
        task |= named(turned)
    other = evaluate(tmp_path / "turned", capsys, **spec)
    assert (other.digest, other.manifest["stats"]) == (evaluated.digest, evaluated.manifest["stats"])
    assert other.key != evaluated.key


def test_what_stands_is_not_evaluated_again(toys, tmp_path, capsys):
    fields = {"model": named(toys["model"]), "slices": [named(toys["text"], name="held")]}
    one = evaluate(tmp_path, capsys, **fields)
    before = one.manifest["made"]
    two = evaluate(tmp_path, capsys, **fields)
    assert two.manifest["made"] == before and two.path == one.path
    fields["seed"] = 1
    assert evaluate(tmp_path, capsys, **fields).key != one.key


def test_a_model_against_itself_has_no_kl_and_wins_half(toys, tmp_path, capsys):
    spec = whole(toys, reference=named(toys["model"]))
    measures = evaluate(tmp_path, capsys, **spec).manifest["stats"]["measures"]
    for name in ("held/kl", "words/kl", "greedy/kl", "held/loss_change"):
        assert measures[name]["value"] == 0.0, name
    assert measures["words/win_rate"]["value"] == measures["words/win_rate_length_controlled"]["value"] == 0.5


def test_a_parent_is_compared_prompt_by_prompt(toys, evaluated, tmp_path, capsys):
    spec = whole(toys, model=named(toys["other"]), reference=None, comparisons=[], parent=named(evaluated))
    spec["tasks"][1]["limit"] = 5
    stats = evaluate(tmp_path, capsys, **spec).manifest["stats"]
    measures, before = stats["measures"], evaluated.manifest["stats"]["measures"]
    expected = measures["held/loss"]["value"] - before["held/loss"]["value"]
    assert measures["held/parent_loss_change"]["value"] == pytest.approx(expected)
    assert before["held/loss_change"]["value"] == pytest.approx(-expected)
    assert measures["words/pass@1_change"]["n"] <= len(QUESTIONS)
    assert stats["notes"] == ["greedy was asked otherwise in the parent: no change is told"]
    same = evaluate(tmp_path / "same", capsys, **whole(toys, parent=named(evaluated))).manifest["stats"]["measures"]
    assert same["words/score_change"]["value"] == same["held/parent_loss_change"]["value"] == 0.0


def test_a_scorer_that_raises_leaves_its_row_alone_unjudged(toys, tmp_path, capsys):
    task = named(toys["tasks"], name="t", scorer=scorer("fails_on", gold="w3"), max_tokens=3)
    found = evaluate(tmp_path, capsys, model=named(toys["model"]), tokenizer=named(toys["chat"]), tasks=[task])
    rows, measures = rows_of(found, "t"), found.manifest["stats"]["measures"]
    assert [row["score"] for row in rows].count(None) == 3
    assert all(("nobody answers" in row["reason"]) is (row["score"] is None) for row in rows)
    assert measures["t/pass@1"]["value"] == 1.0 and measures["t/pass@1"]["n"] == 9
    assert measures["t/unjudged"]["value"] == 0.25
    assert found.manifest["stats"]["unjudged"] == {"t": {"scorer_failed: ConnectionError": 3}}


def test_a_score_that_is_no_number_is_none(toys, tmp_path, capsys):
    task = named(toys["tasks"], name="t", scorer=scorer("number", value="inf"), max_tokens=3)
    found = evaluate(tmp_path, capsys, model=named(toys["model"]), tokenizer=named(toys["chat"]), tasks=[task])
    measures = found.manifest["stats"]["measures"]
    assert measures["t/unjudged"]["value"] == 1.0
    assert not {"t/score", "t/pass@1"} & set(measures)


def test_a_prompt_that_does_not_fit_is_not_judged(toys, tmp_path, capsys):
    data = tasks(tmp_path, ["w0 " * 400, "w1"], name="long")
    task = named(data, name="t", scorer=scorer("number", value=1.0), max_tokens=3)
    found = evaluate(tmp_path, capsys, model=named(toys["model"]), tokenizer=named(toys["chat"]), tasks=[task])
    told = {row["reason"]: row for row in rows_of(found, "t")}
    assert told["prompt_too_long"]["response"] is told["prompt_too_long"]["tokens"] is None
    assert found.manifest["stats"]["measures"]["t/unjudged"]["value"] == 0.5
    assert found.manifest["stats"]["measures"]["t/length"]["n"] == 1


def test_a_dry_run_says_how_much_and_loads_nothing(toys, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gristmill.training.evaluate.load_model", None)
    (tmp_path / "spec.json").write_text(json.dumps({"root": str(tmp_path / "root"), **whole(toys)}))
    assert main_(["--spec", str(tmp_path / "spec.json"), "--dry-run"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tokens_read"] == 2 * 10 * 32
    assert told["responses"] == 2 * 4 * 12 + 7 and told["tokens_generated"] == 2 * 4 * 12 * 6 + 7 * 5
    parameters = sum(p.numel() for p in load_model(toys["model"]).parameters())
    assert told["memory"]["weights"] == 2 * parameters * (2 if torch.cuda.is_available() else 4)
    assert told["memory"]["total"] == sum(size for name, size in told["memory"].items() if name != "total")
    assert not (tmp_path / "root").exists()


def _wrong_text(toys, **changes):
    return {"slices": [named(text(toys["root"] / "wrong", toys["rows"], toys["size"], **changes), name="held")]}


def _task(toys, **more):
    return {"tasks": [named(toys["tasks"], name="t") | more], "tokenizer": named(toys["chat"])}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (lambda toys: {}, "nothing to evaluate"),
        (lambda toys: _wrong_text(toys, tokenizer="another"), "packed with tokenizer another"),
        (lambda toys: _wrong_text(toys, seq_len=512), "window is 256"),
        (lambda toys: _wrong_text(toys | {"root": toys["root"] / "none", "rows": []}), "has no rows"),
        (
            lambda toys: _wrong_text(toys | {"root": toys["root"] / "single", "rows": [[[5]], [[6]]]}),
            "no token that follows another",
        ),
        (lambda toys: {"slices": [named(toys["tasks"], name="held")]}, "training reads packed 'tokens'"),
        (lambda toys: {"slices": [named(toys["text"], name="a/b")]}, "without a slash"),
        (lambda toys: {"slices": [named(toys["text"], name="held", limit=0)]}, "limit is 0"),
        (lambda toys: {"slices": [named(toys["text"], name="held")] * 2}, "'held' names several"),
        (lambda toys: {"tasks": [named(toys["tasks"], name="t")]}, "name a chat tokenizer in `tokenizer`"),
        (lambda toys: _task(toys, **named(toys["text"])), "a task is rows with a prompt"),
        (lambda toys: _task(toys, samples=2), "at temperature 0 are all the same"),
        (lambda toys: _task(toys, scorer=scorer("nothing")), "evaluated:nothing cannot be found"),
        (lambda toys: _task(toys, scorer=scorer("has", words="x")), "does not take its settings"),
        (lambda toys: _task(toys) | {"engine": {"kind": "server"}}, "a server needs its url"),
        (lambda toys: _task(toys, **named(tasks(toys["root"], [], name="none"))), "has no rows"),
        (
            lambda toys: _task(toys, **named(tasks(toys["root"], ["w1"], name="bare", columns={"prompt": []}))),
            "no column 'prompt'",
        ),
        (
            lambda toys: _task(toys, **named(tasks(toys["root"], ["w1"], name="gap", columns={"prompt": [""]}))),
            f"row {row_id('gap', 'w1').hex()}: the prompt is ''",
        ),
        (lambda toys: _task(toys) | {"comparisons": [{"task": "u", "judge": scorer("longer")}]}, "no such one"),
        (lambda toys: _task(toys) | {"comparisons": [{"task": "t", "judge": scorer("longer")}]}, "need a reference"),
        (
            lambda toys: _task(toys, max_tokens=4, temperature=1.0)
            | {"comparisons": [{"task": "t", "judge": scorer("number", value=7)}], "reference": named(toys["other"])},
            "a preference lies in [0, 1]",
        ),
        (lambda toys: _task(toys) | {"parent": named(toys["tasks"])}, "is no evaluation"),
        (lambda toys: _task(toys) | {"model": named(toys["tasks"])}, "what is evaluated is a checkpoint"),
        (lambda toys: _wrong_text(toys) | {"model": named(toys["chat"])}, "holds no model"),
        (lambda toys: {"lm_eval": ["nowhere.yaml"]}, "lm_eval"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(toys, tmp_path, capsys, changes, says):
    said = evaluate(tmp_path, capsys, 2, **{"model": named(toys["model"]), **changes(toys)})
    assert said.startswith("error: ") and says in said
    assert not list((tmp_path / "root").glob("evaluation/*"))


def test_a_damaged_model_is_not_evaluated(toys, tmp_path, capsys):
    copy = tmp_path / "toys" / "base" / Path(toys["model"].path).name
    shutil.copytree(toys["model"].path, copy)
    weights = copy / "files" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    slices = [named(toys["text"], name="held")]
    said = evaluate(tmp_path, capsys, 1, model={"path": str(copy), "digest": toys["model"].digest}, slices=slices)
    assert "model.safetensors is damaged" in said


def test_a_model_from_another_tokenizer_is_compared_by_its_responses_alone(toys, tmp_path, capsys):
    chat = chat_tokenizer(tmp_path, count=20)
    stats = chat.manifest["stats"] | {"tokenizer": "another"}
    manifest = Path(chat.path) / "manifest.json"
    manifest.write_text(json.dumps(chat.manifest | {"stats": stats}))
    model = base(tmp_path, Dataset.load(chat.path), seed=3)
    (both := tmp_path / "both").mkdir()
    shutil.copytree(Path(model.path) / "files", both / "files")
    for file in (Path(chat.path) / "files").iterdir():
        shutil.copy(file, both / "files")
    reference = publish_files(
        tmp_path, "spoken", both, ops=[{"name": "x", "version": 1, "params": {}}], inputs=[], made={}, stats=stats
    )
    spec = whole(toys, reference=named(reference), slices=[])
    stats = evaluate(tmp_path, capsys, **spec).manifest["stats"]
    assert "words/win_rate" in stats["measures"] and not [name for name in stats["measures"] if name.endswith("kl")]
    assert stats["notes"] == ["the reference has another tokenizer: no KL, no change of loss"]
    said = evaluate(tmp_path, capsys, 2, **(spec | {"comparisons": []}))
    assert "KL needs one tokenizer" in said
