"""Who scores may be away: then nothing is published, and the same command asks again."""

from __future__ import annotations

import json

import pytest
from scoredrows import responses

from gristmill.dataops.store import Store
from gristmill.flows.cli import main
from gristmill.flows.sets.outage import reached


@pytest.fixture
def ask(tmp_path, capsys):
    """Run a command with --json; its object."""

    def asked(*arguments, status=0):
        assert main([*arguments, "--root", str(tmp_path), "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return asked


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ([(1.0, "equal", {}), (None, "engine_failed", {})], "engine_failed"),
        ([(1.0, "equal", {}), (None, "verifier_failed", {"error": "ConnectionRefusedError: no"})], "Refused"),
        ([(None, "verifier_failed", {"error": "KeyError: 'a'"})] * 2, "KeyError"),
        ([(None, "sandbox_lost", {})] * 2, "sandbox_lost"),
        ([(1.0, "", {}), (None, "scorer_failed: OSError: full", {})], "full"),
        ([(1.0, "", {}), (None, "gold_not_judged", {"reason": "engine_failed", "evidence": {}})], "engine_failed"),
        (
            [(1.0, "", {}), (None, "a:engine_failed", {"parts": [{"score": None, "reason": "engine_failed",
                                                                   "evidence": {}}]})],
            "engine_failed",
        ),
        ([(1.0, "equal", {}), (None, "verifier_failed", {"error": "KeyError: 'a'"})], None),
        ([(1.0, "equal", {}), (None, "sandbox_lost", {})], None),
        ([(None, "unreadable_answer", {})] * 2, None),
        ([], None),
    ],
)  # fmt: skip
def test_who_is_away_is_told_from_what_cannot_be_judged(told, why):
    """One response that crashes its own verifier costs itself; a judge that is away costs nobody."""
    if why is None:
        reached("the judge", told)
    else:
        with pytest.raises(OSError, match=f"the judge is gone.*{why}"):
            reached("the judge", told)


VERIFIER = """
from pathlib import Path
from gristmill.verifiers.verdict import Verdict
from gristmill.verifiers.verifier import verifier

@verifier("remote", version=1, needs=("gold",), reference=lambda row: row["gold"])
def remote(prompt, response, gold):
    if Path(__file__).with_suffix(".away").exists() and "odd" in prompt:
        raise ConnectionRefusedError("no server")
    return Verdict(float(response == gold), "asked")
"""


def test_an_outage_of_a_verifier_is_neither_published_nor_remembered(tmp_path, ask):
    responses(tmp_path, {"odd": ["1", "2"], "even": ["1", "2"]}, golds={"odd": "1", "even": "1"})
    (tmp_path / "remote.py").write_text(VERIFIER)
    (tmp_path / "remote.away").touch()
    asked = ("from-scores", "responses", "--make", "judgements", "--verifier", f"{tmp_path / 'remote.py'}:remote")
    told = ask(*asked, status=1)["error"]
    assert "remote is gone" in told and "ConnectionRefusedError" in told
    assert Store(tmp_path).names() == ["responses"]
    (tmp_path / "remote.away").unlink()
    assert ask(*asked)["scored"]["unjudged"] == 0


def test_an_outage_while_tasks_are_probed_drops_no_task(tmp_path, ask):
    (tmp_path / "remote.py").write_text(VERIFIER)
    (tmp_path / "remote.away").touch()
    rows = [{"prompt": f"{kind} {n}", "gold": "1"} for n in range(3) for kind in ("odd", "even")]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("build-tasks", str(tmp_path / "tasks.jsonl"), "--verifier", f"{tmp_path / 'remote.py'}:remote")
    assert "remote is gone" in ask(*asked, status=1)["error"]
    (tmp_path / "remote.away").unlink()
    assert ask(*asked)["rows"] == 6
