"""The page of a checkpoint: what it shows, what it does with broken or hostile content, and that it stays inert."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from gated import checkpoint, evaluation
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import Dataset, InputError, publish_files
from gristmill.dataops.gates.conditions import parse_gates
from gristmill.dataops.gates.judge import judge
from gristmill.dataops.gates.record import promote, record
from gristmill.dataops.gates.sides import sides
from gristmill.dataops.report.checkpoint import write_checkpoint
from gristmill.dataops.report.curves import POINTS, curves
from gristmill.dataops.report.lines import Line, lines_svg
from gristmill.dataops.report.trained import trained
from gristmill.dataops.store import Store
from gristmill.flows import cli

METRICS = [
    {"step": k, "tokens": 10 * k, "loss": 3.0 / k, "grad_norm": 1.0, "learning_rate": 1e-4, "rewards": {"maths": k / 4},
     "taken": k != 3}
    for k in range(1, 5)
]  # fmt: skip
VALIDATION = {"held:0123456789ab": {"before": 2.5, "after": 1.5}, "news:0123456789ab": 2.0}


def page(dataset: Dataset, folder: Path) -> tuple[str, dict[str, Any]]:
    """The page as text and its numbers, written into a folder."""
    html, numbers = write_checkpoint(dataset, folder)
    return html.read_text(), json.loads(numbers.read_text())


def judged(root: Path, model: Dataset, rule: str) -> None:
    gates = parse_gates(f"gates:\n- gate: g\n  measure: text/loss\n  {rule}\n")
    found = sides(Store(root), model, gates)
    record(Store(root), model, gates, judge(gates, found.stage, found.model, found.others), found.held)


def test_a_page_shows_training_gates_measures_settings_and_lineage(tmp_path):
    base = checkpoint(tmp_path, "base", op="pretrain", metrics=METRICS)
    sft = checkpoint(
        tmp_path, "sft", base, metrics=METRICS, params={"optimiser": {"learning_rate": 2e-5}, "rows": 4},
        stats={"first_loss": 3.0, "last_loss": 0.75, "steps": 4, "parameters": 12_345, "validation": VALIDATION},
    )  # fmt: skip
    evaluation(tmp_path, base, {"text/loss": (2.0, 1.9, 2.1)})
    evaluation(tmp_path, sft, {"text/loss": (2.2, 2.1, 2.3)})
    judged(tmp_path, sft, "rises_at_most: 2 %")
    told, numbers = page(sft, tmp_path / "reports" / "sft")
    assert "Made by sft from base:" in told and "4 steps" in told and "blocked by its gates" in told
    assert "Blocked: g: text/loss rose from 2 to 2.2" in told and "12,345" in told
    assert "optimiser.learning_rate" in told and base.digest in told and "1 step could not be taken" in told
    assert numbers["curves"]["series"]["rewards/maths"]["mean"] == [0.25, 0.5, 0.75, 1]
    assert [row["after"]["value"] for row in numbers["held_out"]] == [1.5, 2.0]
    assert numbers["measures"] == [
        {"measure": "text/loss", "value": 2.2, "low": 2.1, "high": 2.3, "n": 100, "parent": 2.0}
    ]
    judged(tmp_path, sft, "rises_at_most: 20 %")
    promote(Store(tmp_path), sft)
    told, _ = page(sft, tmp_path / "reports" / "sft")
    assert "It passed its gates." in told and "promoted one of its name" in told and "Blocked" not in told


def test_held_out_numbers_are_read_wherever_before_and_after_stand(tmp_path):
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 20}
    validation = {
        "a": {"before": {"loss": 2, "accuracy": share}, "after": {"loss": 1, "accuracy": None}, "kl": 0.1},
        "b": {"maths": {"before": share, "after": share, "change": share, "unjudged": {"before": 0, "after": 1}}},
        "c": {"loss": 3.0, "accuracy": share}, "d": 4.0, "e": None, "f": {},
    }  # fmt: skip
    made = checkpoint(tmp_path, "x", stats={"validation": validation})
    rows = {
        (row["data"], row["measure"]): [side and side["value"] for side in (row["before"], row["after"])]
        for row in trained(made)["held_out"]
    }
    assert rows == {
        ("a", "loss"): [2, 1], ("a", "accuracy"): [0.5, None], ("a", "kl"): [None, 0.1], ("b", "maths"): [0.5, 0.5],
        ("b", "maths/unjudged/before"): [None, 0], ("b", "maths/unjudged/after"): [None, 1],
        ("c", "loss"): [None, 3.0], ("c", "accuracy"): [None, 0.5], ("d", "loss"): [None, 4.0],
    }  # fmt: skip
    page(made, tmp_path / "reports" / "x")


def test_figures_asked_otherwise_are_not_set_side_by_side(tmp_path):
    base = checkpoint(tmp_path, "base", op="pretrain")
    sft = checkpoint(tmp_path, "sft", base)
    evaluation(tmp_path, base, {"text/loss": 2.0}, text={"limit": 5})
    evaluation(tmp_path, sft, {"text/loss": 2.2})
    assert trained(sft)["measures"][0]["parent"] is None


def test_only_reports_that_stand_beside_it_are_linked_to(tmp_path):
    base = checkpoint(tmp_path, "base", op="pretrain")
    sft = checkpoint(tmp_path, "sft", base)
    place = f"base-{base.key[:12]}"
    assert 'href="../' not in page(sft, tmp_path / "reports" / "sft")[0]
    page(base, tmp_path / "reports" / place)
    assert f'<a href="../{place}/report.html">base:{base.key[:12]}</a>' in page(sft, tmp_path / "reports" / "sft")[0]


NASTY = '"><script>alert(1)</script><a href="javascript:x" onclick=\'y\'>&amp;'


def test_a_page_is_inert_whatever_is_in_it(tmp_path):
    metrics = [{"step": k, "loss": 1.0, NASTY: k} for k in range(3)]
    stats = {NASTY: NASTY, "validation": {NASTY: {"before": 1.0, "after": {"loss": 2.0, NASTY: 1}}}, "steps": NASTY}
    bad = checkpoint(tmp_path, "bad", metrics=metrics, stats=stats, params={NASTY: [NASTY], "x": {NASTY: NASTY}})
    evaluation(tmp_path, bad, {f"{NASTY}/loss": 1.0}, name="evaluation")
    told, _ = page(bad, tmp_path / "reports" / "bad")
    assert "<script" not in told and "javascript:" not in re.sub(r">[^<]*<", "><", told)
    assert "default-src 'none'" in told
    tags = re.findall(r"<(\w+)", told)
    assert not {"script", "iframe", "object", "img", "form", "link"} & set(tags)
    assert not re.search(r"<[^>]*\son\w+\s*=", re.sub(r'"[^"]*"', '""', told))


def test_broken_metrics_are_counted_and_the_rest_is_drawn(tmp_path):
    made = checkpoint(tmp_path, "sft")
    lines = [
        '{"step": 2, "loss": 2.0}', "{", "[]",
        '{"loss": 1.0}', '{"step": 1, "loss": NaN}', '{"step": 3, "loss": 1e999}',
        '{"step": 4, "loss": "1.0"}', '{"step": 5, "loss": true}', '{"step": 6, "loss": 1' + "0" * 400 + "}", "",
        '{"step": NaN, "loss": 1}', '{"step": 7, "loss": 1.0}', "\ufffd", "[" * 100_000,
    ]  # fmt: skip
    told = curves(with_file(tmp_path, made, "metrics.jsonl", "\n".join(lines)))
    assert told["unread"] == 6 and told["steps"] == 7
    series = told["series"]["loss"]
    assert (series["step"], series["mean"], series["not_finite"]) == ([2, 7], [2, 1], 3)


def with_file(root: Path, like: Dataset, name: str, content: str) -> Dataset:
    building = root / ".building" / "more"
    (building / "files").mkdir(parents=True)
    (building / "files" / name).write_text(content)
    ops = [{"name": "sft", "version": 1, "params": {"file": name, "content": content[:99]}}]
    return publish_files(root, f"{like.name}-more", building, ops=ops, inputs=[], made={})


@pytest.mark.parametrize("content", ["", "{", "[]", '{"step": 3}', '{"loss": [1]}', '{"step": ["a"], "loss": [1]}'])
def test_a_curve_that_cannot_be_read_draws_nothing(tmp_path, content):
    made = with_file(tmp_path, checkpoint(tmp_path, "sft"), "loss_curve.json", content)
    assert curves(made)["series"] == {}
    assert "How training went" not in page(made, tmp_path / "reports" / "x")[0]


def test_without_metrics_the_stored_curve_is_drawn(tmp_path):
    drawn = {"step": [10, 20], "loss": [2.0, 1.0], "unigram_entropy": [3.0, 3.0]}
    made = with_file(tmp_path, checkpoint(tmp_path, "sft"), "loss_curve.json", json.dumps(drawn))
    assert curves(made)["series"]["loss"]["mean"] == [2, 1]
    assert "unigram entropy" in page(made, tmp_path / "reports" / "x")[0]


def test_a_long_run_makes_a_small_page_that_shows_its_one_spike(tmp_path):
    metrics = [{"step": k, "loss": 100.0 if k == 31_234 else 1.0 + 1 / k, "grad_norm": 1.0} for k in range(1, 50_001)]
    made = checkpoint(tmp_path, "base", op="pretrain", metrics=metrics)
    told, numbers = page(made, tmp_path / "reports" / "base")
    series = numbers["curves"]["series"]["loss"]
    assert len(series["step"]) == POINTS and max(series["high"]) == 100 and series["least"] == 1.00002
    assert len(told) < 120_000


def test_a_checkpoint_that_is_no_model_and_inputs_that_are_gone(tmp_path):
    base = checkpoint(tmp_path, "base", op="pretrain")
    sft = checkpoint(tmp_path, "sft", base)
    shutil.rmtree(base.path)
    told, numbers = page(sft, tmp_path / "reports" / "sft")
    assert "base:" in told and "which is gone" in told and numbers["inputs"][0]["gone"]
    building = tmp_path / ".building" / "tokenizer"
    (building / "files").mkdir(parents=True)
    (building / "files" / "tokenizer.json").write_text("{}")
    tokenizer = publish_files(tmp_path, "tokenizer", building, ops=[], inputs=[], made={}, stats={"vocab_size": 512})
    told, numbers = page(tokenizer, tmp_path / "reports" / "tokenizer")
    assert numbers["state"] is None and "vocab_size" in told and "No gate" not in told
    other = checkpoint(tmp_path, "other", op="pretrain")
    with pytest.raises(InputError, match="no checkpoint"):
        trained(evaluation(tmp_path, other, {"a/b": 1.0}))


def test_the_command_writes_the_page_that_fits(tmp_path, capsys):
    checkpoint(tmp_path, "base", op="pretrain", metrics=METRICS)
    assert cli.main(["report", "base", "--json", "--root", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "gristmill checkpoint" in Path(told["html"]).read_text()


positions = st.lists(
    st.tuples(st.integers(0, 10**7), st.floats(-1e12, 1e12)), min_size=1, max_size=20, unique_by=lambda point: point[0]
)


@given(positions, positions, st.sampled_from([340, 900]))
def test_every_point_is_inside_the_picture(one, two, width):
    lines = [Line(name, *map(list, zip(*sorted(points), strict=True))) for name, points in (("a", one), ("b", two))]
    root = ElementTree.fromstring(lines_svg(lines, "<&>", [1, 2], width, 150))
    for element in root.iter():
        assert "nan" not in (drawn := element.get("d", "")) and "inf" not in drawn
        if element.get("class") in ("sb", "th") and "L" in drawn:
            for pair in drawn[1:].split("L"):
                x, y = map(float, pair.split())
                assert 0 <= x <= width and 0 <= y <= 150
    assert root.get("aria-label") == "<&>"


def test_a_wide_range_gets_a_logarithmic_axis_and_nothing_gives_nothing():
    assert lines_svg([], "x") == "" and lines_svg([Line("a", [], [])], "x") == ""
    near, far = (lines_svg([Line("a", [1, 2, 3], [1.0, 2.0, top])], "x") for top in (3.0, 1000.0))
    heights = [
        [float(pair.split()[1]) for pair in re.search(r'class="sb" d="M([^"]*)"', svg)[1].split("L")]  # type: ignore[index]
        for svg in (near, far)
    ]
    assert math.isclose(heights[0][0] - heights[0][1], heights[0][1] - heights[0][2], abs_tol=0.2)
    assert heights[1][0] - heights[1][1] > 5, "2 is still told from 1 beside 1000"
