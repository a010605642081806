"""The preference report: planted biases, conflicts, judgements and log-probabilities are what it says, and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from gristmill.dataops.chat.messages import MESSAGES
from gristmill.dataops.dataset import Dataset, InputError, publish_rows, row_id
from gristmill.dataops.noise.overview import LISTED, READ, SHOWN, numbers_of
from gristmill.dataops.noise.topics import topics
from gristmill.dataops.report.preferences import render, share_svg, write_preferences
from gristmill.flows import cli

HOSTILE = "<script>alert(1)</script> \u202egnp </td>"
Pair = tuple[str, str, str]


def said(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def name_of(number: int) -> bytes:
    return row_id("pair", str(number))


def publish(
    root: Path, name: str, rows: Sequence[dict[str, Any]], schema: Any, *, inputs: Sequence[Dataset] = (),
    op: str = "made", parts: int = 1, stats: dict[str, Any] | None = None,
) -> Dataset:  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema)
    size = max(1, -(-frame.height // parts))
    tables = [frame.slice(at, size).to_arrow() for at in range(0, max(1, frame.height), size)]
    ops = [{"name": op, "version": 1, "params": {"name": name, "rows": str(rows)}}]
    made = {"at": "2026-01-02T00:00:00Z"}
    building = root / ".building" / name
    return publish_rows(root, name, building, tables, ops=ops, inputs=list(inputs), made=made, stats=stats or {})


def pairs(root: Path, found: Sequence[Pair], *, parts: int = 1, inputs: Sequence[Dataset] = (), **more: Any) -> Dataset:
    """(prompt, chosen, rejected), with columns `more` of one value per pair."""
    rows = [
        {"id": name_of(n), "prompt": said("user", prompt), "chosen": said("assistant", one),
         "rejected": said("assistant", two), **{column: values[n] for column, (_, values) in more.items()}}
        for n, (prompt, one, two) in enumerate(found)
    ]  # fmt: skip
    schema = {"id": pl.Binary, **dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES)}
    schema |= {column: kind for column, (kind, _) in more.items()}
    return publish(root, "pairs", rows, schema, inputs=inputs, parts=parts)


#: 80 pairs of 80 prompts: the longer reply is chosen in 60, and lists in 30 of the 40 pairs that have them.
PLANTED: list[Pair] = []
for _n in range(80):
    _long, _short = f"word{_n} and some more of the same words", f"word{_n} alone"
    _sides = (_long, _short) if _n < 60 else (_short, _long)
    if _n < 40:
        _sides = (f"- {_sides[0]}", _sides[1]) if _n < 30 else (_sides[0], f"- {_sides[1]}")
    PLANTED.append((f"prompt number {_n}", *_sides))


def amount(numbers: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in numbers["amounts"] if item["name"] == name)["more"]


def test_planted_biases_are_told_with_their_intervals(tmp_path: Path) -> None:
    numbers = numbers_of(pairs(tmp_path, PLANTED))
    assert (amount(numbers, "chars")["value"], amount(numbers, "chars")["n"]) == (0.75, 80)
    assert (amount(numbers, "lists")["value"], amount(numbers, "lists")["n"]) == (0.75, 40)
    assert amount(numbers, "headings") is None
    assert 0.5 < amount(numbers, "lists")["low"] < 0.75 < amount(numbers, "lists")["high"] < 0.9
    steps = {item["ratio"]: item["longer"] for item in numbers["lengths"]["by_ratio"]}
    assert sum(found["n"] for found in steps.values() if found) == 80
    page = render(numbers)
    assert "Where the characters differ, 75.0% of the chosen replies have more." in page
    assert "Where the list items differ, 75.0% of the chosen replies have more." in page
    assert "Not known: no log-probabilities" in page


def test_copies_and_conflicts_are_counted_and_shown(tmp_path: Path) -> None:
    found = [
        ("q", "yes", "no"), ("q", "yes", "no"), ("q", "no", "yes"), ("q", "maybe", "no"),
        ("r", "yes", "no"), ("s", "same", "same"), ("t", "one", "two"), ("t", "two", "three"),
    ]  # fmt: skip
    numbers = numbers_of(pairs(tmp_path, found, margin=(pl.Float64, [1.0, 0.0, -1.0, None, 2.0, 1.0, 1.0, 1.0])))
    twice = numbers["twice"]
    assert (twice["prompts"], twice["copies"], twice["equal_sides"]) == (4, 1, 1)
    assert (twice["conflicts"], twice["in_conflict"], twice["outvoted"]) == (1, 3, 1)
    assert (twice["most_of_one_prompt"], twice["wide_replies"], twice["widest_reply"]) == (4, 2, 2)
    (shown,) = twice["shown"]
    assert sorted(shown["votes"]) == [1, 2] and {shown["chosen"], shown["rejected"]} == {"yes", "no"}
    assert name_of(2).hex() in shown["ids"]
    assert (numbers["margins"]["known"], numbers["margins"]["not_above_zero"]) == (7, 2)
    assert numbers["noise"]["why_not"] is not None and numbers["noisy"] == []
    page = render(numbers)
    for words in ("3 pairs contradict another", "1 pair with equal replies", "2 pairs with a margin of 0 or less"):
        assert words in page


def test_slices_are_columns_of_few_values(tmp_path: Path) -> None:
    source = ["web" if n < 60 else "forum" for n in range(80)]
    dataset = pairs(
        tmp_path, PLANTED, source=(pl.String, source), topic=(pl.String, [str(n) for n in range(80)]),
        chance=(pl.Float64, [9.0] * 80), one=(pl.String, ["only"] * 80),
    )  # fmt: skip
    numbers = numbers_of(dataset)
    (group,) = numbers["slices"]
    assert group["column"] == "source"
    assert [(row["value"], row["pairs"], row["longer"]["value"]) for row in group["rows"]] == [
        ("web", 60, 1),
        ("forum", 20, 0),
    ]
    assert numbers["whole"]["suspect"] is not None  # a column of that name in the dataset is not taken for ours
    assert all(item["chance"] <= 1 for item in numbers["noisy"])


def judgements(root: Path, rows: Sequence[tuple[str, list[str], str | None, str, list[float] | None]]) -> Dataset:
    """(id, replies as shown, rater, kind, value)."""
    found = [
        {"id": row_id("judged", name), "responses": sum((said("assistant", reply) for reply in shown), []),
         "rater": rater, "kind": kind, "value": value}
        for name, shown, rater, kind, value in rows
    ]  # fmt: skip
    kinds = {"rater": pl.String, "kind": pl.String, "value": pl.List(pl.Float64)}
    return publish(root, "judged", found, {"id": pl.Binary, "responses": MESSAGES, **kinds})


def test_agreement_and_the_place_of_replies_come_from_the_judgements(tmp_path: Path) -> None:
    judged = judgements(
        tmp_path,
        [
            ("a1", ["yes", "no"], "ann", "pairwise", [2.0, 0.0]),  # the first shown
            ("a2", ["no", "yes"], "bob", "pairwise", [0.0, 1.0]),
            ("a3", ["no", "yes"], "cem", "pairwise", [1.0, 0.0]),  # the other one, shown first
            ("b1", ["x", "y", "z"], "ann", "ranking", [2.0, 1.0, 3.0]),  # y before x
            ("b2", ["x", "y", "z"], "bob", "ranking", [1.0, 1.0, None]),  # a tie
            ("b3", ["x", "y", "z"], "cem", "ranking", None),  # not judged
            ("c1", ["up", "down"], None, "rating", [5.0, 1.0]),
        ],
    )
    sources = [["a1", "a2", "a3"], ["b1", "b2", "b3"], ["c1"]]
    dataset = pairs(
        tmp_path, [("p", "yes", "no"), ("q", "y", "x"), ("r", "up", "down")], inputs=[judged],
        sources=(pl.List(pl.Binary), [[row_id("judged", name) for name in names] for names in sources]),
    )  # fmt: skip
    numbers = numbers_of(dataset)
    told = numbers["judgements"]
    assert (told["judgements"], told["raters"], told["pairs"], told["ties"], told["against"]) == (6, 4, 3, 1, 1)
    # Of three raters on the first pair one couple agrees of three; on the second none of one.
    assert (told["agree"]["value"], told["agree"]["n"]) == (pytest.approx(1 / 6, abs=1e-5), 2)
    assert (numbers["position"]["value"], numbers["position"]["n"]) == (0.6, 5)  # a1, a3 and c1 of all but the tie
    assert "6 judgements of 4 raters on 3 pairs" in render(numbers)


def test_without_judgements_nothing_is_said_of_raters(tmp_path: Path) -> None:
    numbers = numbers_of(pairs(tmp_path, PLANTED))
    assert numbers["position"] is None and numbers["judgements"] is None and numbers["whole"]["agree"] is None
    assert "shown first" not in render(numbers)


def test_the_on_policy_share_is_of_nats_per_token(tmp_path: Path) -> None:
    dataset = pairs(tmp_path, PLANTED)
    assert numbers_of(dataset)["policy"] is None
    tokens = [{"id": name_of(n), "chosen_ids": [1] * 10, "rejected_ids": [1] * 4} for n in range(60)]
    lists = {"chosen_ids": pl.List(pl.UInt32), "rejected_ids": pl.List(pl.UInt32)}
    encoded = publish(tmp_path, "encoded", tokens, {"id": pl.Binary, **lists}, inputs=[dataset])
    # Ten tokens: 1 nat each in half of the pairs, else 2; four tokens of 1.5 nats, which is still on-policy.
    rows = [
        {"id": row_id("l", str(n)), "pair": name_of(n), "ref_chosen_logps": -10.0 - 10.0 * (n % 2),
         "ref_rejected_logps": -6.0}
        for n in range(60)
    ]  # fmt: skip
    sums = {"ref_chosen_logps": pl.Float32, "ref_rejected_logps": pl.Float32}
    model = {"model": {"name": "mine"}}
    publish(
        tmp_path, "reference", rows, {"id": pl.Binary, "pair": pl.Binary, **sums}, inputs=[encoded], op="logprobs",
        stats=model,
    )  # fmt: skip
    numbers = numbers_of(dataset)
    found = numbers["policy"]
    assert (found["model"], found["pairs"]) == ("mine", 60)
    shares = {name: found[name]["value"] for name in ("chosen", "rejected", "both", "likelier", "likelier_per_token")}
    assert shares == {"chosen": 0.5, "rejected": 1, "both": 0.5, "likelier": 0, "likelier_per_token": 0.5}
    assert "Under mine, of 60 of 80 pairs" in render(numbers)


def test_noisy_pairs_are_ranked_with_their_texts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found, wrong = [], set()
    for n in range(400):
        tail = " ".join(rng.choice([f"w{k}" for k in range(50)], 8))
        sides = (f"helpful clear answer {tail}", f"rude vague answer {tail}")
        if n % 20 == 0:
            wrong.add(name_of(n).hex())
        found.append((f"question {n}", *(sides[::-1] if n % 20 == 0 else sides)))
    numbers = numbers_of(pairs(tmp_path, found))
    listed = numbers["noisy"]
    assert len(listed) == LISTED and sum("prompt" in item for item in listed) == READ
    assert {item["id"] for item in listed[:20]} == wrong and all(item["suspect"] for item in listed[:20])
    assert [item["chance"] for item in listed] == sorted(item["chance"] for item in listed)
    assert listed[0]["chosen"].startswith("rude") and listed[0]["prompt"].startswith("user: question ")
    assert numbers["noise"]["suspect"] == 20 and numbers["noise"]["told"]


def test_prompts_fall_into_the_topics_that_were_planted() -> None:
    rng = np.random.default_rng(0)
    kinds = [[f"{topic}{k}" for k in range(12)] for topic in ("cook", "code", "law", "moon", "farm", "song", "ship")]
    truth = rng.integers(0, len(kinds), 700)
    asked = pl.Series([" ".join([*rng.choice(kinds[kind], 6, replace=False), "please"]) for kind in truth])
    place, names = topics(asked, np.arange(700))
    best = sum(np.bincount(truth[place == at]).max() for at in range(len(names)) if (place == at).any())
    assert best / 700 > 0.9
    assert all(len({re.sub(r"\d", "", word) for word in name.split()}) == 1 for name in names)
    assert np.array_equal(topics(asked, np.arange(700))[0], place)
    assert topics(asked.head(20), np.arange(20))[1] == []


def test_numbers_do_not_depend_on_how_the_rows_are_cut(tmp_path: Path) -> None:
    one, many = (numbers_of(pairs(tmp_path / str(parts), PLANTED, parts=parts)) for parts in (1, 7))
    for numbers in (one, many):
        del numbers["dataset"]
    assert json.dumps(one) == json.dumps(many)


def test_text_on_the_page_does_nothing_and_is_cut(tmp_path: Path) -> None:
    found = [(f"{HOSTILE} {n} " + "x " * 5_000, f"{HOSTILE} a{n % 7}" + " y" * 50_000, HOSTILE) for n in range(60)]
    html, data = write_preferences(pairs(tmp_path, found, source=(pl.String, [HOSTILE, "b"] * 30)), tmp_path / "out")
    page = html.read_text()
    assert "<script" not in page and "\u202e" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert len(page) < 400_000
    numbers = json.loads(data.read_text())
    assert (
        max(len(item[side]) for item in numbers["noisy"][:READ] for side in ("prompt", "chosen", "rejected")) <= SHOWN
    )


def test_the_command_writes_this_page_for_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs(tmp_path, PLANTED)
    assert cli.main(["report", "pairs", "--root", str(tmp_path), "--json"]) in (0, None)
    told = json.loads(capsys.readouterr().out)
    assert "gristmill preference report" in Path(told["html"]).read_text()
    assert json.loads(Path(told["numbers"]).read_text())["pairs"] == 80


def test_other_rows_are_refused_and_few_are_no_trouble(tmp_path: Path) -> None:
    other = publish(tmp_path, "other", [{"id": b"1" * 16, "text": "t"}], {"id": pl.Binary, "text": pl.String})
    with pytest.raises(InputError, match="holds no preference pairs"):
        numbers_of(other)
    with pytest.raises(InputError, match="has no rows"):
        numbers_of(pairs(tmp_path, []))
    page = render(numbers_of(pairs(tmp_path, [("q", "a", "")])))
    assert "1 pair of 1 prompt." in page and "Not looked for" in page


def test_a_share_is_drawn_inside_its_picture() -> None:
    for value, low, high in ((0.0, 0.0, 1.0), (1.0, 0.2, 1.0), (0.5, 0.5, 0.5)):
        drawn = share_svg({"value": value, "low": low, "high": high, "n": 3})
        (x, width), (centre,) = (
            [float(found) for found in re.findall(r'<rect [^>]*x="([\d.]+)"[^>]*width="([\d.]+)"', drawn)[0]],
            [float(found) for found in re.findall(r'cx="([\d.]+)"', drawn)],
        )
        assert x >= 0 and x + width <= 170 and 0 <= centre <= 170
