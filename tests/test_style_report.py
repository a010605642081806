"""The style report: what a habit is, how it is told by source, and that the page is inert."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sftchats import dataset, demonstration_rows, rows, said

from gristmill.dataops.dataset import InputError
from gristmill.dataops.report.chats import render, write_style
from gristmill.dataops.sft.style import FEWEST, LIMITS, SOURCES, measure


def measured(root, answers: list[str], sources: list[str] | None = None, parts: int = 1, **columns: list):
    named = {"source": sources} if sources is not None else {}
    return measure([dataset(root, rows([said("Q", answer) for answer in answers], **named, **columns), parts)])


def test_what_is_told_of_a_set(tmp_path):
    answers = [
        "Certainly! Here it is.",
        "Certainly, here it is not",
        "Perhaps it may be a mill.",
        "- one\n- **two**",
        "🙂?",
    ]
    numbers = measured(tmp_path, answers)
    (source,) = numbers["sources"]
    assert source["source"] == "chats" and source["answers"] == 5 and source["words"] == 4 + 5 + 6 + 2
    assert source["openers"] == [{"text": "certainly here it", "answers": 2, "share": 0.4}]
    assert source["closers"] == []  # only from seven words on is the end not the beginning
    assert source["phrases"] == [{"text": "certainly here it is", "answers": 2, "share": 0.5}]
    assert source["hedges_per_1000"] == pytest.approx(2000 / 17, rel=1e-4)
    assert source["length"]["p50"] == 4 and source["different_openers"] == 0.75
    shares = {name: share for name, share in source["forms"].items() if share}
    assert shares == {"markdown": 0.2, "list": 0.2, "bold": 0.2, "exclamation": 0.2, "emoji": 0.2, "asks back": 0.2}
    assert numbers["warnings"] == [] and numbers["overlap"] == []  # too few to warn of


def test_each_answer_of_a_conversation_counts(tmp_path):
    chats = [said("Q", "Well now then.", "Q", "Well now then.", "Q"), said("Well now then.")]
    numbers = measure([dataset(tmp_path, rows(chats))])
    assert numbers["conversations"] == 2
    assert numbers["all"]["answers"] == 2 and numbers["all"]["conversations"] == 1
    assert numbers["all"]["openers"][0]["share"] == 1


PLAIN = [
    f"word{n} other{n} third{n} " + " ".join(f"fill{n}x{k}" for k in range(n % 30)) + f" end{n}" for n in range(200)
]


@pytest.mark.parametrize(
    ("answer", "share", "told"),
    [
        ("Great question! Number {n} is {m}.", 0.12, r"12% .* begin with “great question number”"),
        ("{n} {m} is what I found and I hope this helps you", 0.12, r"12% .* end with “hope this helps you”"),
        ("{n} is what {m} we must bear in mind {n}", 0.22, r"22% .* hold “(we must bear in|must bear in mind)”"),
        ("- {n} a\n- {m}", 0.85, r"85% .* have a list"),
        ("**{n}** {m}", 0.95, r"95% .* have Markdown"),
        ("{n} {m}!", 0.65, r"65% .* have an exclamation mark"),
        ("{n} {m} 🚀", 0.35, r"35% .* have emoji"),
        ("{n} perhaps {m}", 1.0, r"333 of 1,000 words .* are hedges"),
    ],
)
def test_near_uniform_sets_are_warned_of(tmp_path, answer, share, told):
    count = int(share * len(PLAIN))
    made = [answer.format(n=f"n{n}", m=f"m{n}") for n in range(count)]
    numbers = measured(tmp_path, made + PLAIN[count:])
    assert any(re.search(told, note) for note in numbers["warnings"]), numbers["warnings"]
    assert measured(tmp_path, PLAIN)["warnings"] == []


def test_lengths_without_spread_and_a_source_that_is_nearly_all(tmp_path):
    even = [" ".join(f"w{n}x{k}" for k in range(40 + n % 5)) for n in range(FEWEST)]
    numbers = measured(tmp_path, even + PLAIN[: FEWEST // 10], ["even"] * FEWEST + ["rest"] * (FEWEST // 10))
    notes = " ".join(numbers["warnings"])
    assert "Half of the answers of even have 41 to 43 words" in notes
    assert "of all words are of even" in notes and "rest" not in notes


def test_sources_side_by_side(tmp_path):
    corn = [f"the corn grows tall in row {n}" for n in range(60)]
    wind = [f"the wind turns sails of mill {n}" for n in range(30)]
    numbers = measured(tmp_path, corn + wind + corn[:1], ["corn"] * 60 + ["wind"] * 30 + ["tiny"])
    assert [item["source"] for item in numbers["sources"]] == ["corn", "wind", "tiny"]
    overlap = {(row["a"], row["b"]): row["overlap"] for row in numbers["overlap"]}
    assert overlap["corn", "wind"] == pytest.approx(1 / 7 + 30 / 420, rel=1e-4)  # "the", and the numbers that both have
    assert 0.8 < overlap["corn", "tiny"] < 1
    own = {name: {item["word"] for item in found} for name, found in numbers["own_words"].items()}
    assert own["wind"] == {"wind", "turns", "sails", "of", "mill"} and "the" not in own["corn"] >= {"corn", "row"}
    many = measured(tmp_path, PLAIN[:100], [f"s{n % 50}" for n in range(100)])
    assert len(many["sources"]) == SOURCES and "(27 others)" in {item["source"] for item in many["sources"]}


@given(st.lists(st.text("ab !*-\n.?", max_size=30), min_size=1, max_size=12), st.integers(1, 3), st.randoms())
@settings(deadline=None, max_examples=25)
def test_neither_order_nor_shards_show(tmp_path_factory, answers, parts, rng):
    root = tmp_path_factory.mktemp("style")
    frame = rows(
        [said("Q", answer) for answer in [*answers, "fine"]], source=[str(n % 2) for n in range(len(answers) + 1)]
    )
    shuffled = frame[sorted(range(frame.height), key=lambda _: rng.random())]
    told = [measure([dataset(root, each, n)]) for each, n in ((frame, 1), (shuffled, parts))]
    assert {**told[0], "datasets": 0} == {**told[1], "datasets": 0}


def test_what_is_no_chat_is_refused(tmp_path):
    with pytest.raises(InputError, match="no answer"):
        measure([dataset(tmp_path, rows([said("Q")]))])
    with pytest.raises(InputError, match="no column 'licence'"):
        measure([dataset(tmp_path, rows([said("Q", "A")]))], "licence")
    with pytest.raises(InputError, match="no column 'messages'"):
        measure([dataset(tmp_path, rows([said("Q", "A")]).drop("messages").with_columns(n=1))])


def test_real_sets_and_their_habits(tmp_path):
    """LMSYS names itself in half of its identity answers; what people wrote has no habit."""
    data = dataset(tmp_path / "root", demonstration_rows())
    page, numbers = write_style([data], tmp_path / "report")
    told = json.loads(numbers.read_text())
    by = {item["source"]: item for item in told["sources"]}
    assert {name: item["answers"] for name, item in by.items()} == {
        "fastchat": 1000, "alpaca_en_demo": 999, "glaive": 957, "v1": 500, "people": 175, "identity": 91,
    }  # fmt: skip
    notes = told["warnings"]
    assert "50% of the answers of fastchat hold “large model systems organization”." in notes
    assert not any("people" in note or "alpaca" in note for note in notes)
    people = by["people"]
    assert people["openers"][0]["share"] < LIMITS["opener"] / 5
    nearest = max(told["overlap"], key=lambda row: row["overlap"])
    assert {nearest["a"], nearest["b"]} == {"alpaca_en_demo", "v1"}  # the one is cut from the other
    html = page.read_text()
    assert all(name in html for name in by) and len(html) < 300_000


def test_the_page_shows_text_as_text(tmp_path):
    hostile = "<script>alert(1)</script> & \u202eevil"
    answers = [f"{hostile} {n // 2} <img src=x onerror=y> and more" for n in range(FEWEST)]
    frame = rows([said("Q", answer) for answer in answers], source=[hostile] * 30 + ["b"] * (FEWEST - 30))
    html = render(measure([dataset(tmp_path, frame)]))
    assert not re.search(r"<(?:script|img)|\u202e|javascript:|https?://|<link|url\(", html)
    assert "&lt;script&gt;" in html and "default-src 'none'" in html
    assert html.count('<section id="') == 4
    alone = render(measured(tmp_path, ["Yes."], None))
    assert "too few to call" in alone and alone.count('<section id="') == 2
    assert "Nothing is near uniform." in render(measured(tmp_path, PLAIN))


def test_other_columns_name_the_sources(tmp_path):
    frame = rows([said("Q", "A b c"), said("Q", "D e f")], licence=["MIT", None]).with_columns(source=pl.lit("one"))
    data = dataset(tmp_path, frame)
    assert [item["source"] for item in measure([data])["sources"]] == ["one"]
    assert [item["source"] for item in measure([data], "licence")["sources"]] == ["(none)", "MIT"]
    told = {"source": ["mine", None, None], "source_file": ["a", "b", None]}
    other = dataset(tmp_path, rows([said("Q", "A b c")] * 3, **told), name="other")
    assert {item["source"] for item in measure([data, other])["sources"]} == {"one", "mine", "b", "other"}
