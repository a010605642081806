"""The page of an evaluation: what it shows, beside what, and that text from models does nothing on it."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import pytest
from gated import checkpoint
from gated import evaluation as judged_by

from gristmill.dataops.dataset import Dataset, InputError, publish_rows, row_id
from gristmill.dataops.report.evaluation import interval_svg, numbers_of, render, write_evaluation
from gristmill.flows import cli
from gristmill.training.evaluation import record
from gristmill.training.evaluation.intervals import Measure

HOSTILE = "<script>alert(1)</script> \u202egnp </td>"


def evaluation(root: Path, measures: dict[str, Measure], *, parent: Dataset | None = None, seed: int = 0) -> Dataset:
    """Made-up figures over rows of one task and one slice."""
    rows = [
        {
            "id": row_id("t", str(n)), "sources": [row_id(str(n))], "part": "task", "task": "quiz", "sample": 0,
            "prompt": [{"role": "user", "content": f"question {n}"}], "response": f"answer {n} {HOSTILE}",
            "score": None if n == 3 else float(n), "reason": "time_out" if n == 3 else "told", "tokens": n + 1,
            "cut": n > 4, "refused": n == 1, "against": "other", "preference": 0.25 * (n % 3), "judged": "tie",
        }
        for n in range(6)
    ]  # fmt: skip
    rows.append(
        {"id": row_id("s"), "sources": [row_id("x")], "part": "slice", "task": "held", "sample": 0, "tokens": 9}
    )
    stats = {
        "measures": {name: measure.as_json() for name, measure in measures.items()},
        "model": {"name": "mine", "key": "k" * 64, "digest": "d"},
        "parent": None if parent is None else {"name": parent.name, "key": parent.key, "digest": parent.digest},
        "reference": None, "notes": ["a note"], "unjudged": {"quiz": {"time_out": 1}},
        "openers": {"quiz": {"words": "answer 0 <", "responses": 1, "of": 6}},
    }  # fmt: skip
    building = root / ".building" / uuid.uuid4().hex
    op = {"name": "evaluate", "version": 1, "params": {"seed": seed}}
    made = {"at": "2026-01-02T00:00:00Z", "seconds": 3.0, "device": "cpu", "versions": {"torch": "2"}}
    inputs = [] if parent is None else [parent]
    return publish_rows(
        root, "evaluation", building, [record.table(rows)], ops=[op], inputs=inputs, made=made, stats=stats
    )


FIGURES = {
    "quiz/pass@1": Measure(0.5, 0.25, 0.75, 5),
    "quiz/unjudged": Measure(1 / 6, 0.0, 0.4, 6),
    "quiz/distinct_2": Measure(0.875, None, None, 6),
    "held/loss": Measure(2.5, 2.25, 2.75, 40),
}


def test_every_measure_stands_on_the_page_beside_the_parents(tmp_path):
    before = evaluation(tmp_path, {**FIGURES, "quiz/pass@1": Measure(0.125, 0.0625, 0.1875, 5)}, seed=1)
    html, data = write_evaluation(evaluation(tmp_path, FIGURES, parent=before), tmp_path / "page")
    page, numbers = html.read_text(), json.loads(data.read_text())
    told = {f"{group['name']}/{item['name']}": item for group in numbers["groups"] for item in group["measures"]}
    assert told.keys() == FIGURES.keys()
    for name, measure in FIGURES.items():
        assert {key: told[name][key] for key in ("value", "low", "high", "n")} == measure.as_json()
    for shown in ("0.5", "0.25 to 0.75", "0.125", "<b>+0.375</b>", "2.5", "2.25 to 2.75", "+0", "0.875"):
        assert f"{shown}</td>" in page, shown
    assert numbers["parent"]["key"] == before.key
    assert (numbers["responses"], numbers["scored"], numbers["unjudged"]) == (6, 6, 1)
    assert "1 response could not be judged" in page and "time_out" in page and "a note" in page
    assert page.count("<svg") == 5  # an interval each, and the lengths


def test_without_a_parent_there_is_no_column_for_it(tmp_path):
    dataset = evaluation(tmp_path, FIGURES)
    page = render(numbers_of(dataset))
    assert '<th class="n">parent</th>' not in page and "<b>+" not in page
    gone = evaluation(tmp_path / "other", FIGURES, parent=dataset, seed=2)  # its parent is of another root
    assert numbers_of(gone)["parent"] is None
    html, _ = write_evaluation(gone, tmp_path / "page", dataset)
    assert '<th class="n">parent</th>' in html.read_text()


def test_the_worst_responses_come_first_and_the_unjudged_apart(tmp_path):
    (group,) = [group for group in numbers_of(evaluation(tmp_path, FIGURES))["groups"] if group["name"] == "quiz"]
    folds = {kind["title"]: kind for kind in group["samples"]}
    assert [row["score"] for row in folds["Lowest scores"]["rows"]] == [0, 1, 2, 4, 5]
    assert [row["score"] for row in folds["Highest scores"]["rows"]] == [5, 4, 2, 1, 0]
    assert [row["reason"] for row in folds["Not judged"]["rows"]] == ["time_out"]
    assert [row["preference"] for row in folds["The reference's response was preferred"]["rows"]] == [0, 0, 0.25, 0.25]
    assert folds["Declined"]["of"] == 1
    assert sum(group["lengths"]["all"]) == 6 and sum(group["lengths"]["kept"]) == 5


def test_text_of_models_is_shown_and_does_nothing(tmp_path):
    page = render(numbers_of(evaluation(tmp_path, FIGURES)))
    assert "<script" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_intervals_are_drawn_to_scale():
    def xs(svg: str) -> tuple[float, float]:
        rect = re.search(r'<rect class="b1" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', svg)
        return float(rect[1]), float(rect[1]) + float(rect[2])

    share = {"name": "pass@1", "value": 0.5, "low": 0.25, "high": 0.75, "n": 9}
    assert xs(interval_svg(share, None)) == pytest.approx((8 + 224 * 0.25, 8 + 224 * 0.75))
    loss = {"name": "loss", "value": 3.0, "low": 2.0, "high": 4.0, "n": 9}
    assert xs(interval_svg(loss, None)) == pytest.approx((8 + 112, 8 + 224))
    assert xs(interval_svg(loss, loss | {"low": 3.0, "high": 6.0})) == pytest.approx((8, 8 + 112))
    assert interval_svg(loss | {"value": 0.0, "low": None, "high": None}, None) == ""


def test_what_is_no_evaluation_has_no_such_page(tmp_path):
    dataset = evaluation(tmp_path, FIGURES)
    manifest = Path(dataset.path) / "manifest.json"
    manifest.write_text(json.dumps(dataset.manifest | {"stats": {}}))
    with pytest.raises(InputError, match="is no evaluation"):
        write_evaluation(Dataset.load(dataset.path), tmp_path / "page")


def test_the_command_writes_an_evaluations_page(tmp_path, capsys):
    dataset = evaluation(tmp_path, FIGURES)
    assert cli.main(["report", f"evaluation:{dataset.key}", "--json", "--root", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["html"].startswith(f"{tmp_path}/reports/evaluation-")
    assert "gristmill evaluation" in Path(told["html"]).read_text()
    assert json.loads(Path(told["numbers"]).read_text())["dataset"]["digest"] == dataset.digest


def test_models_are_listed_with_where_they_stand(tmp_path, capsys):
    def models() -> dict[str, dict]:
        assert cli.main(["ls", "models", "--json", "--root", str(tmp_path)]) == 0
        return {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}

    assert models() == {}
    good, bad = (checkpoint(tmp_path, name, op="pretrain") for name in ("good", "bad"))
    checkpoint(tmp_path, "new", op="pretrain")
    for model, loss in ((good, 1.0), (bad, 3.0)):
        judged_by(tmp_path, model, {"text/loss": loss}, name=f"eval-{model.name}")
    rules = tmp_path / "rules.yaml"
    rules.write_text("gates:\n- gate: learned\n  measure: text/loss\n  at_most: 2\n")
    for name, status in (("good", 0), ("bad", 1)):
        assert cli.main(["gate", name, "--gates", str(rules), "--root", str(tmp_path)]) == status
    assert cli.main(["promote", "good", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    found = models()
    assert {name: row["state"] for name, row in found.items()} == {
        "good": "passed", "bad": "blocked", "new": "not judged"
    }  # fmt: skip
    assert [name for name, row in found.items() if row["promoted"]] == ["good"]
    assert cli.main(["ls", "models", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("bad")]
    assert "blocked" in line and "learned: " in line and len(lines) == 4
