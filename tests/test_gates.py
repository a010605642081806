"""The judgement: golden cases of every condition, and what holds for all figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.gates.conditions import CONDITIONS, amount, matches, parse_gates
from gristmill.dataops.gates.judge import Readings, Verdict, judge, numbers_of, passes

finite = st.floats(-1e6, 1e6)
shares = st.floats(0, 1)


def figure(value: Any, low: Any = None, high: Any = None, n: Any = 100, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n, **more}


def held(condition: str, now: Any, then: Any = None, measure: str = "a/x", stage: str = "sft") -> tuple[Verdict, ...]:
    """The verdicts of one gate on figures of measure a/x, now and of the parent; None: not measured."""
    text = f"gates:\n- gate: g\n  {condition}\n"
    text += "" if "hacked" in condition else f"  measure: '{measure}'\n"
    sides = [
        side if isinstance(side, dict) and "value" not in side else {} if side is None else {"a/x": side}
        for side in (now, then)
    ]
    return judge(parse_gates(text), stage, Readings("new:1", sides[0]), {"parent": Readings("old:1", sides[1])})


def ok(condition: str, now: Any, then: Any = None) -> bool:
    return passes(held(condition, now, then))


def ok_of(pattern: str, measures: dict[str, Any], least: int) -> bool:
    return passes(held(f"at_most: 9\n  least: {least}", measures, None, pattern))


@pytest.mark.parametrize(
    ("condition", "now", "then", "passed"),
    [
        ("at_most: 3 %", 0.03, None, True),
        ("at_most: 3 %", 0.0301, None, False),
        ("at_least: 0.5", 0.5, None, True),
        ("at_least: -1", -1.5, None, False),
        ("rises_at_most: 2 %", 2.04, 2.0, True),
        ("rises_at_most: 2 %", 2.05, 2.0, False),
        ("rises_at_most: 0.02", 2.02, 2.0, True),
        ("rises_at_most: 0.02", 2.03, 2.0, False),
        ("rises_at_most: 2 %", -1.98, -2.0, True),  # of the amount of a loss below zero
        ("rises_at_most: 2 %", -1.95, -2.0, False),
        ("rises_at_most: 2 %", 0.0, 0.0, True),
        ("rises_at_most: 2 %", 1e-9, 0.0, False),  # of nothing
        ("rises_at_most: -1 %", 1.99, 2.0, False),  # has to fall
        ("rises_at_most: -1 %", 1.97, 2.0, True),
        ("falls_at_most: 20 %", 0.4, 0.5, True),
        ("falls_at_most: 20 %", 0.39, 0.5, False),
        ("falls_at_most: 20 %", 0.9, 0.5, True),
    ],
)
def test_bounds_and_moves(condition, now, then, passed):
    assert ok(condition, figure(now), None if then is None else figure(then)) is passed


def test_intervals():
    then = figure(0.5, 0.4, 0.6)
    assert ok("not_below_interval: true", figure(0.4), then)
    assert not ok("not_below_interval: true", figure(0.39), then)
    assert ok("not_above_interval: true", figure(0.6), then)
    assert not ok("not_above_interval: true", figure(0.61), then)
    assert not ok("not_below_interval: true", figure(0.9), figure(0.5)), "the parent has no interval"
    assert ok("at_least: 0.5\n  end: low", figure(0.6, 0.5, 0.7))
    assert not ok("at_least: 0.5\n  end: low", figure(0.6, 0.49, 0.7))
    assert not ok("at_least: 0.5\n  end: low", figure(0.6)), "there is no end to look at"
    assert not ok("at_most: 1\n  end: high", figure(0.6, 0.5, math.nan))


@pytest.mark.parametrize(
    ("reward", "gold", "passed"), [(2, 0.3, False), (2, 0.45, True), (1, 0.3, True), (0.5, 0.3, True), (2, 0.9, True)]
)
def test_hacking_is_the_proxy_up_and_the_gold_down(reward, gold, passed):
    then = {"r/score": figure(1), "a/x": figure(0.5, 0.4, 0.6)}
    now = {"r/score": figure(reward), "a/x": figure(gold)}
    (row,) = held("hacked: {proxy: r/score, gold: a/x}", now, then)
    assert row.passed is passed and row.judged
    (row,) = held("hacked: {proxy: r/score, gold: a/x}", {"a/x": figure(gold)}, then)
    assert row.passed is False and not row.judged


@pytest.mark.parametrize("least", ["", "\n  least: 50"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "bad",
    [
        None, figure(None), figure(math.nan), figure(math.inf), figure(-math.inf), figure("0.1"), figure(True),
        figure(0.1, n=0), figure(0.1, n=None), figure(0.1, n=math.nan), figure(0.1, 0.3, 0.2), figure(10**400),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_does_not_pass(bad, side, least):
    sides = [figure(0.1), figure(0.1)]
    sides[side] = bad
    (row,) = held(f"rises_at_most: 100 %{least}", *sides)
    assert row.passed is False and not row.judged and "cannot be judged" in row.why
    assert ("old:1" if side else "new:1") in row.why


def test_too_few_rows_do_not_pass():
    assert ok("at_most: 1\n  least: 50", figure(0.1, n=50))
    assert not ok("at_most: 1\n  least: 51", figure(0.1, n=50))
    assert not ok("rises_at_most: 1\n  least: 51", figure(0.1, n=99), figure(0.1, n=50))


def test_a_pattern_speaks_of_all_names_on_both_sides():
    now, then = {"a/loss": figure(1), "b/loss": figure(1)}, {"b/loss": figure(1), "c/loss": figure(1)}
    gate = "rises_at_most: 0"
    rows = {row.measure: row for row in held(gate, now, then, "*/loss")}
    assert {name: (row.passed, row.judged) for name, row in rows.items()} == {
        "a/loss": (False, False), "b/loss": (True, True), "c/loss": (False, False),
    }  # fmt: skip
    assert "old:1" in rows["a/loss"].why and "new:1" in rows["c/loss"].why
    (row,) = held(gate, now, then, "*/missing")
    assert row.passed is False and not row.judged
    (row,) = held(gate + "\n  if_measured: true", now, then, "*/missing")
    assert row.passed is None
    assert not passes([row]), "nothing was judged"
    assert not passes(held(gate + "\n  if_measured: true", {}, then, "*/loss")), "no longer measured is missed"


def test_numbers_of_the_checkpoint_are_reached_by_their_name_alone():
    stats = {
        "loss": 3,
        "validation": {"held:12": {"after": 2.5}},
        "curve": [1, 2],
        "name": "x",
        "ok": True,
        "cut": None,
    }
    measures = numbers_of(stats)
    assert {name: entry["value"] for name, entry in measures.items()} == {
        "checkpoint/loss": 3, "checkpoint/validation/held:12/after": 2.5,
    }  # fmt: skip
    told = figure(0.7, 0.6, 0.8, n=30)
    assert numbers_of({"after": {"accuracy": told}}) == {"checkpoint/after/accuracy": told}
    assert ok_of("checkpoint/*", numbers_of({"accuracy": told}), 30) and not ok_of("checkpoint/*", measures, 2)
    assert [row.measure for row in held("at_most: 9", measures, None, "checkpoint/*")] == sorted(measures)
    (row,) = held("at_most: 9", measures, None, "*/loss")
    assert row.passed is False, "* does not reach into the checkpoint"


def test_figures_asked_otherwise_are_not_held_against_each_other():
    now, then = figure(1, asked={"digest": "d", "limit": 8}), figure(1, asked={"digest": "e", "limit": 8})
    (row,) = held("rises_at_most: 1", now, then)
    assert row.passed is False and not row.judged and "another digest" in row.why
    assert ok("rises_at_most: 1", now, {**then, "asked": now["asked"]})
    assert not ok("rises_at_most: 1", now, figure(1)), "how it was asked is not known"


def test_gates_of_other_stages_say_nothing():
    assert held("at_most: 9\n  stages: [rl, ppo]", figure(99)) == ()
    assert not passes(())


def test_without_a_parent_a_comparison_does_not_apply():
    gates = parse_gates("gates:\n- {gate: g, measure: a/x, rises_at_most: 0}")
    (row,) = judge(gates, "pretrain", Readings("new:1", {"a/x": figure(9)}), {"parent": None})
    assert row.passed is None and "trained from scratch" in row.why
    assert not passes([row])


WORSE = {
    "at_most: 0.5": 1, "at_least: 0.5": -1, "rises_at_most: 3 %": 1, "rises_at_most: 0.3": 1, "falls_at_most: 3 %": -1,
    "falls_at_most: 0.3": -1, "not_below_interval: true": -1, "not_above_interval: true": 1,
}  # fmt: skip


@given(condition=st.sampled_from(sorted(WORSE)), now=finite, by=st.floats(0, 1e6), then=finite, wide=st.floats(0, 10))
def test_a_worse_value_never_passes_where_a_better_one_does_not(condition, now, by, then, wide):
    parent = figure(then, then - wide, then + wide)
    better = ok(condition, figure(now), parent)
    assert better or not ok(condition, figure(now + WORSE[condition] * by), parent)


@given(finite, finite, finite, finite, st.floats(0, 1e3), st.floats(0, 1e3))
def test_more_proxy_or_less_gold_is_never_less_hacked(proxy, gold, was_proxy, was_gold, more, less):
    then = {"r/s": figure(was_proxy), "a/x": figure(was_gold, was_gold - 1, was_gold + 1)}

    def clean(p: float, g: float) -> bool:
        return ok("hacked: {proxy: r/s, gold: a/x}", {"r/s": figure(p), "a/x": figure(g)}, then)

    assert clean(proxy, gold) or not clean(proxy + more, gold - less)


@given(value=finite, then=finite, percent=st.integers(0, 50))
def test_a_percent_is_of_the_amount_whatever_the_sign(value, then, percent):
    (row,) = held(f"rises_at_most: {percent} %", figure(value), figure(then))
    assert row.limit is not None and row.limit >= then
    assert row.limit - then == pytest.approx(abs(then) * percent / 100, abs=1e-9)
    assert row.passed is (value <= row.limit)


names = st.sampled_from(["a/x", "a/y", "b/x", "b/y"])


@given(
    order=st.permutations(range(6)),
    now=st.dictionaries(names, shares.map(figure)),
    then=st.dictionaries(names, st.one_of(shares, st.just(math.nan)).map(figure)),
)
def test_the_order_of_gates_and_of_measures_does_not_count(order, now, then):
    written = [
        "{gate: a, measure: '*/x', at_most: 0.5}", "{gate: b, measure: '*/y', rises_at_most: 2 %}",
        "{gate: c, measure: 'a/*', falls_at_most: 0.1}", "{gate: d, hacked: {proxy: '*/x', gold: '*/y'}}",
        "{gate: e, measure: 'b/*', not_below_interval: true}", "{gate: f, measure: '*/*', at_least: 0}",
    ]  # fmt: skip

    def said(lines: list[str], flip: bool) -> tuple[bool, list[str]]:
        both = [dict(reversed(side.items())) if flip else side for side in (now, then)]
        gates = parse_gates("gates:\n" + "".join(f"- {line}\n" for line in lines))
        rows = judge(gates, "sft", Readings("new", both[0]), {"parent": Readings("old", both[1])})
        return passes(rows), sorted(map(repr, rows))

    assert said(written, False) == said([written[k] for k in order], True)


@given(st.integers(-(10**6), 10**6), st.integers(0, 6), st.sampled_from(["", " %", "%"]))
def test_amounts_are_read_as_written(digits, places, sign):
    number = digits / 10**places
    found = amount(f"{number:.{places}f}{sign}")
    assert found is not None and found.percent is bool(sign)
    assert found.number == pytest.approx(number / 100 if sign else number, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "%", "2 % ", "2 pct", "nan", "inf", "1e999", "2,5", "0x10", "1_000", "2%%", "--2", "2  %"]
)
def test_other_amounts_are_none(text):
    assert amount(text) is None


@given(st.text("ab*/", max_size=8), st.text("ab/", max_size=8))
def test_patterns_match_as_globs_do(pattern, name):
    import re

    assert matches(pattern, name) is bool(re.fullmatch(pattern.replace("*", ".*"), name))


def test_every_condition_has_a_golden_case():
    assert {line.split(":")[0] for line in WORSE} | {"hacked"} == set(CONDITIONS)
