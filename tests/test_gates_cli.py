"""From an evaluation to a promoted checkpoint, by the command line, on made-up figures."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from gated import checkpoint, evaluation

from gristmill.dataops.catalogue import Index
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.gates.conditions import parse_gates
from gristmill.dataops.gates.judge import judge
from gristmill.dataops.gates.record import judgements, model_states, promote, promotions, put_up, record, state_of
from gristmill.dataops.gates.sides import sides, start_of
from gristmill.dataops.store import Store
from gristmill.flows import cli

LOSS = "gates:\n- gate: held\n  measure: text/loss\n  rises_at_most: 2 %\n"


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """run(*arguments) -> (status, JSON, stderr) on a root in `tmp_path`."""
    for name in ("gate", "promote"):
        monkeypatch.setitem(cli.COMMANDS, name, name)

    def command(*arguments: str) -> tuple[int, dict[str, Any], str]:
        status = cli.main([*arguments, "--json", "--root", str(tmp_path)])
        told = capsys.readouterr()
        return status, json.loads(told.out), told.err

    return command


def pair(root: Path) -> tuple[Dataset, Dataset]:
    """A base with its evaluation, and an SFT of it."""
    base = checkpoint(root, "base", op="pretrain")
    evaluation(root, base, {"text/loss": 2.0})
    return base, checkpoint(root, "sft", base)


def judged(store: Store, model: Dataset, gates: str = LOSS) -> Dataset:
    read = parse_gates(gates)
    found = sides(store, model, read)
    return record(store, model, read, judge(read, found.stage, found.model, found.others), found.held)


def tags(root: Path, name: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / name / "tags").glob("[a-z]*")}


def test_from_candidate_to_promoted(tmp_path, run):
    base, sft = pair(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text(LOSS)
    status, told, stderr = run("promote", "sft")
    assert status == 2 and "never judged" in told["error"] and "gristmill gate sft:" in stderr

    poor = evaluation(tmp_path, sft, {"text/loss": 2.1})
    status, told, _ = run("gate", "sft", "--evaluation", f"{poor.name}:{poor.key}", "--gates", str(rules))
    assert (status, told["verdict"]) == (1, "blocked")
    assert told["rows"][0]["limit"] == 2.04 and "2.1" in told["reasons"][0]
    assert tags(tmp_path, "sft") == {"blocked": sft.key}
    status, told, stderr = run("promote", f"sft:{sft.key[:12]}")
    assert status == 2 and "held: text/loss rose from 2 to 2.1" in told["error"] and "gristmill gate" in stderr
    assert not promotions(Store(tmp_path), "sft")

    evaluation(tmp_path, sft, {"text/loss": 2.03}, at="2026-01-03T00:00:00Z")
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert (status, told["verdict"], told["promoted"]) == (0, "passed", False)
    assert tags(tmp_path, "sft") == {"passed": sft.key}
    status, told, _ = run("promote", "sft@passed")
    assert status == 0 and not told["already"]
    assert tags(tmp_path, "sft")["promoted"] == sft.key
    status, again, _ = run("promote", "sft@passed")
    assert status == 0 and again["already"] and again["promotion"] == told["promotion"]
    assert len(promotions(Store(tmp_path), "sft")) == 1
    assert fsck(Store(tmp_path))[1] == []


def test_the_last_judgement_counts_and_all_are_kept(tmp_path):
    _, sft = pair(tmp_path)
    evaluation(tmp_path, sft, {"text/loss": 2.03})
    store = Store(tmp_path)
    strict = LOSS.replace("2 %", "1 %")
    states = []
    for gates in (LOSS, strict, LOSS, LOSS, strict):
        judged(store, sft, gates)
        states.append(state_of(store, sft).state)
        assert set(tags(tmp_path, "sft")) == {states[-1]}, "never both passed and blocked"
    assert states == ["passed", "blocked", "passed", "passed", "blocked"]
    kept = judgements(store, sft)
    assert [item.manifest["stats"]["verdict"] for item in kept] == ["passed", "blocked", "passed", "blocked"]
    assert [item.manifest["ops"][0]["params"]["number"] for item in kept] == [1, 2, 3, 4]


def test_a_promoted_checkpoint_that_is_blocked_later_stays_and_is_not_promoted_again(tmp_path, run):
    _, sft = pair(tmp_path)
    evaluation(tmp_path, sft, {"text/loss": 2.03})
    store = Store(tmp_path)
    judged(store, sft)
    promote(store, sft)
    judged(store, sft, LOSS.replace("2 %", "1 %"))
    known = state_of(store, sft)
    assert known.state == "blocked" and known.promoted and tags(tmp_path, "sft")["promoted"] == sft.key
    with pytest.raises(InputError, match="is blocked by sft-judgement"):
        promote(store, sft)


def test_history_of_promotions(tmp_path):
    base, first = pair(tmp_path)
    second = checkpoint(tmp_path, "sft", base, weights="v")
    store = Store(tmp_path)
    for model in (first, second):
        evaluation(tmp_path, model, {"text/loss": 2.0})
        judged(store, model)
    for model in (first, second, first, first):
        promote(store, model)
    assert [item.manifest["stats"]["model"]["key"] for item in promotions(store, "sft")] == [
        first.key, second.key, first.key,
    ]  # fmt: skip
    assert {state.model.key: state.promoted for state in model_states(store, "sft")} == {
        first.key: True, second.key: False,
    }  # fmt: skip
    made = Index.open(store).made_from(promotions(store, "sft")[0])
    assert {(item.name, item.key) for item in made} >= {("sft", first.key), ("base", base.key)}
    assert {"evaluation", "sft-judgement"} <= {item.name for item in made}


def test_a_tag_that_a_version_loses_goes_back_to_the_newest_that_it_holds_for(tmp_path):
    base, first = pair(tmp_path)
    second = checkpoint(tmp_path, "sft", base, weights="v", at="2026-01-02T00:00:00Z")
    store = Store(tmp_path)
    for model in (first, second):
        evaluation(tmp_path, model, {"text/loss": 2.03})
        judged(store, model)
    assert tags(tmp_path, "sft") == {"passed": second.key}
    judged(store, second, LOSS.replace("2 %", "1 %"))
    assert tags(tmp_path, "sft") == {"passed": first.key, "blocked": second.key}


def test_states_of_all_models(tmp_path):
    base, sft = pair(tmp_path)
    store = Store(tmp_path)
    put_up(store, sft)
    checkpoint(tmp_path, "ppo", sft, op="ppo")
    rows = [state.as_row() for state in model_states(store)]
    assert [(row["name"], row["state"]) for row in rows] == [
        ("base", "not judged"), ("ppo", "not judged"), ("sft", "candidate"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no model's checkpoint"):
        put_up(store, store.get("evaluation"))
    with pytest.raises(InputError, match="no model's checkpoint"):
        promote(store, store.get("evaluation"))


def test_other_weights_under_the_same_key_are_not_judged(tmp_path):
    base, sft = pair(tmp_path)
    evaluation(tmp_path, sft, {"text/loss": 2.0})
    store = Store(tmp_path)
    judged(store, sft)
    assert state_of(store, sft).state == "passed"
    other = Dataset(sft.name, sft.key, "0" * 64, sft.path, sft.kind)
    assert state_of(store, other).state == "not judged"
    with pytest.raises(InputError, match="never judged"):
        promote(store, other)


def test_the_parent_is_what_training_started_from(tmp_path):
    base, sft = pair(tmp_path)
    reward = checkpoint(tmp_path, "reward", sft, op="reward", weights="r")
    tokenizer = store_tokenizer(tmp_path)
    rl = checkpoint(tmp_path, "rl", tokenizer, reward, sft, op="rl", weights="p")
    assert start_of(rl) == sft and start_of(sft) == base and start_of(base) is None and start_of(reward) == sft
    evaluation(tmp_path, rl, {"text/loss": 2.07})
    evaluation(tmp_path, sft, {"text/loss": 2.04})
    store = Store(tmp_path)
    assert judged(store, rl).manifest["stats"]["verdict"] == "passed"
    told = judged(store, rl, LOSS.replace("rises", "against: origin\n  rises")).manifest["stats"]
    assert told["verdict"] == "blocked" and f"base:{base.key[:12]}" in told["reasons"][0]
    assert {item["role"] for item in told["held"]} == {"evaluation", "origin", "origin evaluation"}
    by_name = judged(store, sft, LOSS.replace("rises", f"against: '{_of(store, base)}'\n  rises"))
    assert by_name.manifest["stats"]["verdict"] == "passed"


def store_tokenizer(root: Path) -> Dataset:
    from gristmill.dataops.dataset import publish_files

    building = root / ".building" / "tokenizer"
    (building / "files").mkdir(parents=True)
    (building / "files" / "tokenizer.json").write_text("{}")
    return publish_files(root, "tokenizer", building, ops=[], inputs=[], made={})


def _of(store: Store, model: Dataset) -> str:
    found = next(item for item in store.all() if item.manifest["stats"].get("model", {}).get("key") == model.key)
    return f"{found.name}:{found.key}"


def test_an_evaluation_of_other_weights_is_refused(tmp_path, run):
    base, sft = pair(tmp_path)
    of_base = _of(Store(tmp_path), base)
    mine = evaluation(tmp_path, sft, {"text/loss": 2.0})
    status, told, _ = run("gate", "sft", "--evaluation", of_base)
    assert status == 2 and "is of base:" in told["error"] and "not of sft:" in told["error"]
    status, told, _ = run("gate", "sft", "--parent-evaluation", f"evaluation:{mine.key}")
    assert status == 2 and "itself" in told["error"]
    status, told, _ = run("gate", "sft", "--evaluation", "base")
    assert status == 2 and "is no evaluation" in told["error"]
    assert state_of(Store(tmp_path), sft).state == "candidate", "put up, and not judged"


def test_equal_weights_share_an_evaluation(tmp_path):
    base, sft = pair(tmp_path)
    same = checkpoint(tmp_path, "same", sft, weights="sft")
    assert same.digest == sft.digest and same.key != sft.key
    evaluation(tmp_path, sft, {"text/loss": 2.0})
    store = Store(tmp_path)
    assert judged(store, same).manifest["stats"]["verdict"] == "passed"
    assert state_of(store, sft).state == "not judged"


def test_what_is_missing_blocks(tmp_path, run):
    base = checkpoint(tmp_path, "base", op="pretrain")
    sft = checkpoint(tmp_path, "sft", base)
    rules = tmp_path / "rules.yaml"
    rules.write_text(LOSS)
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert status == 1 and "of sft:" in told["reasons"][0] and "there is no measure text/loss" in told["reasons"][0]
    evaluation(tmp_path, sft, {"text/loss": 2.0})
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert status == 1 and f"of base:{base.key[:12]} there is no measure" in told["reasons"][0]
    evaluation(tmp_path, base, {"text/loss": 2.0}, text={"digest": "of other data"})
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert status == 1 and "with another digest" in told["reasons"][0]
    evaluation(tmp_path, base, {"text/loss": 2.0}, at="2020-01-01T00:00:00Z")
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert status == 0, "an older evaluation that asked it alike serves"
    rules.write_text(LOSS + "  stages: [rl]\n")
    status, told, _ = run("gate", "sft", "--gates", str(rules))
    assert status == 1 and "no gate applies" in told["reasons"][0]


def test_a_gone_parent_is_said(tmp_path):
    import shutil

    base, sft = pair(tmp_path)
    evaluation(tmp_path, sft, {"text/loss": 2.0})
    shutil.rmtree(base.path)
    with pytest.raises(InputError, match="base:.* is gone.*--parent-evaluation"):
        judged(Store(tmp_path), sft)


def test_judging_at_once_gives_every_judgement_a_number(tmp_path):
    _, sft = pair(tmp_path)
    evaluation(tmp_path, sft, {"text/loss": 2.0})
    store = Store(tmp_path)
    limits = [LOSS.replace("2 %", f"{n} %") for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda gates: judged(store, sft, gates), limits))
    assert [item.manifest["ops"][0]["params"]["number"] for item in judgements(store, sft)] == [1, 2, 3, 4, 5, 6]


def test_the_shipped_gates_judge_a_chain(tmp_path, run, capsys):
    base = checkpoint(tmp_path, "base", op="pretrain", weights="b")
    sft = checkpoint(tmp_path, "sft", base, weights="s")
    dpo = checkpoint(tmp_path, "dpo", sft, op="preference", weights="d")
    grpo = checkpoint(tmp_path, "grpo", dpo, op="rl", weights="g")
    tasks = {"maths/pass@1": (0.4, 0.3, 0.5), "maths/distinct_2": 0.5, "maths/entropy": 1.0, "maths/length": 80.0,
             "maths/unjudged": 0.0, "harmless/over_refusal": 0.01}  # fmt: skip
    evaluation(tmp_path, base, {"text/loss": 2.0})
    evaluation(tmp_path, sft, {"text/loss": 2.02, **tasks})
    evaluation(tmp_path, dpo, {"text/loss": 2.03, **tasks, "maths/win_rate": (0.6, 0.55, 0.65)})
    hacked = {**tasks, "maths/pass@1": (0.2, 0.1, 0.3), "maths/length": 200.0, "maths/distinct_2": 0.3}
    evaluation(tmp_path, grpo, {"text/loss": 2.2, **hacked})
    assert [run("gate", name)[0] for name in ("base", "sft", "dpo", "grpo")] == [0, 0, 0, 1]
    _, told, _ = run("gate", "grpo")
    assert {row["gate"] for row in told["rows"] if row["passed"] is False} == {
        "text is not forgotten", "text is not forgotten little by little", "tasks are not forgotten",
        "responses do not swell", "responses stay diverse",
    }  # fmt: skip
    assert cli.main(["gate", "grpo", "--root", str(tmp_path)]) == 1
    assert "grpo:" in (shown := capsys.readouterr().out) and "is BLOCKED" in shown and "FAIL" in shown
