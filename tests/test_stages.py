"""A stage trains, evaluates and judges; a model that does not pass ends the chain."""

from __future__ import annotations

import pytest

from gristmill.dataops.dataset import InputError
from gristmill.dataops.gates.record import state_of
from gristmill.dataops.store import Store
from gristmill.flows.stages import Blocked, stage
from gristmill.flows.train import named

GATES = 'gates:\n  - gate: it reads\n    measure: "text/loss"\n    at_most: {limit}\n'


@pytest.fixture
def pretraining(own):
    packed = named(own[1]["packed"])
    spec = {"name": "staged", "data": [packed], "steps": 2, "rows": 2, "model": {"depth": 1, "width": 32, "heads": 2}}
    return Store(own[0]), spec, {"slices": [{**packed, "name": "text", "limit": 4}]}


def test_a_model_that_passes_comes_with_its_evaluation_and_judgement(pretraining, tmp_path):
    store, spec, evaluation = pretraining
    (tmp_path / "gates.yaml").write_text(GATES.format(limit=50))
    made = stage(store, "pretrain", spec, evaluation, tmp_path / "gates.yaml")
    assert made.model.digest == store.get("staged").digest == made.told["digest"]
    assert made.value("text/loss") == pytest.approx(6.9, abs=1.0) and made.value("text/pass@1") is None
    assert made.evaluation.manifest["stats"]["model"]["digest"] == made.model.digest
    assert (state_of(store, made.model).state, made.judgement.manifest["stats"]["verdict"]) == ("passed", "passed")


def test_a_model_that_does_not_pass_ends_the_chain_with_the_reason(pretraining, tmp_path):
    store, spec, evaluation = pretraining
    (tmp_path / "gates.yaml").write_text(GATES.format(limit=0.5))
    with pytest.raises(Blocked, match=r"(?s)staged:\w{12} is blocked.*it reads.*0\.5"):
        stage(store, "pretrain", spec, evaluation, tmp_path / "gates.yaml")
    assert state_of(store, store.get("staged")).state == "blocked"
    with pytest.raises(InputError, match="steps"):
        stage(store, "pretrain", {**spec, "steps": 0}, evaluation, tmp_path / "gates.yaml")
