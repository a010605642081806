"""Files of human preferences into judgements: every record a judgement or in the ledger, with the reason."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from realdata import real

from gristmill.dataops.dataset import InputError
from gristmill.dataops.fsck import fsck
from gristmill.dataops.preferences.imports import read_judgements
from gristmill.dataops.preferences.judgements import JUDGEMENT
from gristmill.dataops.preferences.raters import agreement, votes
from gristmill.dataops.preferences.trust import numbers
from gristmill.dataops.store import Store


def written(path: Path, rows: list) -> str:
    """JSON lines, one array or Parquet, by the name."""
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


def read(folder: Path, format: str, rows: list, name: str = "rows.jsonl", **more):
    """(judgements as dicts, ledger) of one file."""
    made = read_judgements(Store(folder / "root"), "judged", [written(folder / name, rows)], format, **more)
    told, lost = made.scan().collect(), made.ledger().collect()
    count = made.manifest["counts"]["judgements.read"]
    lines = set(told["line"]) | {int(text.split(":")[0].split()[1]) for text in lost["evidence"]}
    assert told.schema == JUDGEMENT and count["in"] == len(rows) == len(lines)
    assert told["id"].n_unique() == told.height
    return [plain(row) for row in told.iter_rows(named=True)], lost


def plain(row: dict) -> dict:
    """A judgement with its texts alone."""
    talk = "/".join(f"{one['role'][:1]}:{one['content']}" for one in row["prompt"])
    return row | {"prompt": talk, "responses": [one["content"] for one in row["responses"]]}


def reasons(lost: pl.DataFrame) -> dict[tuple[str, str], int]:
    return {(reason, unit): count for reason, unit, count in lost.group_by("reason", "unit").len().iter_rows()}


# ---- real files


@pytest.mark.parametrize(
    ("file", "format", "records", "made", "lost"),
    [
        ("hh-rlhf-harmless-base-test.jsonl.gz", "hh-rlhf", 2312, 2307, {"different_prompts": 5}),
        ("lf-dpo_en_demo.json", "pairs", 300, 300, {}),
        ("lf-kto_en_demo.json", "thumbs", 300, 300, {}),
        ("pandalm-testset-v1-3annotators.json", "pandalm", 999, 3 * 999, {}),
    ],
)
def test_published_sets_read_whole(tmp_path, file, format, records, made, lost):
    store = Store(tmp_path)
    found = read_judgements(store, "judged", [str(real(f"pref/{file}"))], format)
    count = found.manifest["counts"]["judgements.read"]
    assert (count["in"], count["kept"], count["reasons"]) == (records, made, lost)
    assert found.scan().select(pl.col("line").n_unique()).collect().item() == records - sum(lost.values())
    assert fsck(store)[1] == []


def test_the_three_annotators_of_pandalm_and_its_judges(tmp_path):
    people = read_judgements(
        Store(tmp_path), "people", [str(real("pref/pandalm-testset-v1-3annotators.json"))], "pandalm"
    )
    told = agreement(votes(numbers(people), "choice"))
    assert round(told.fleiss_kappa, 4) == 0.8642 and round(told.percent, 4) == 0.9199
    assert (told.units, told.paired, told.raters, told.votes) == (999, 999, 3, 2997)
    files = [str(path) for path in sorted(real("pref").glob("pandalm-*.json"))]
    assert len(files) == 3
    every = read_judgements(Store(tmp_path), "all", files, "pandalm").scan().collect()
    assert dict(every.group_by("rater").len().iter_rows()) == {
        **dict.fromkeys(("annotator1", "annotator2", "annotator3"), 999), "pandalm": 999, "gpt": 999
    }  # fmt: skip
    assert every["item"].n_unique() == 999
    assert every["value"].null_count() == 25  # "garbage" of GPT-3.5, and no verdict


def test_judges_alone_do_not_know_what_they_judged(tmp_path):
    made, lost = read(tmp_path, "pandalm", [{"idx": 3, "gpt_result": "1"}])
    assert made == [] and reasons(lost) == {("unknown_item", "row"): 1}


# ---- formats


def test_transcripts(tmp_path):
    talk = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    rows = [
        {"chosen": f"{talk} d", "rejected": f"{talk} e"},
        {"chosen": "no turns", "rejected": f"{talk} e"},
        {"chosen": f"{talk} d\n\nHuman: f\n\nAssistant: g", "rejected": f"{talk} e"},
        {"chosen": f"{talk} d\n\nHuman: f", "rejected": f"{talk} e"},
        {"chosen": f"{talk} d"},
    ]
    made, lost = read(tmp_path, "hh-rlhf", rows, "rows.jsonl.gz", rater="crowd")
    assert [(row["prompt"], row["responses"], row["value"], row["rater"]) for row in made] == [
        ("u:a/a:b/u:c", ["d", "e"], [1.0, 0.0], "crowd")
    ]
    assert reasons(lost) == {(reason, "row"): 1 for reason in ("different_prompts", "bad_roles", "missing_column")} | {
        ("wrong_type", "row"): 1
    }


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_pairs_by_any_name(tmp_path, name):
    user, said = {"role": "user", "content": "p"}, [{"role": "assistant", "content": text} for text in "cr"]
    rows = [
        {"prompt": "p", "chosen": "c", "rejected": "r", "margin": 2},
        {"prompt": "p", "chosen": [user, said[0]], "rejected": [user, said[1]], "score_chosen": 8, "score_rejected": 5},
        {"conversations": [{"from": "human", "value": "p"}], "chosen": {"from": "gpt", "value": "c"}} | {
            "rejected": {"from": "gpt", "value": "r"}
        },
        {"question": "p", "system": "s", "chosen": "c", "rejected": "r", "score_chosen": 1, "score_rejected": 2},
        {"prompt": "p", "chosen": "c", "rejected": "r", "margin": 0},
        {"chosen": "c", "rejected": "r"},
        {"prompt": "p", "chosen": "c", "rejected": "r", "margin": "big"},
        {"conversations": [{"from": "alien", "value": "p"}], "chosen": "c", "rejected": "r"},
        {"text": "p", "label": 1},
    ]  # fmt: skip
    made, lost = read(tmp_path, "pairs", rows, name)
    assert [row["value"] for row in made] == [[2, 0], [3, 0], [1, 0], [0, 1], [0, 0]]
    assert [row["prompt"] for row in made] == ["u:p"] * 3 + ["s:s/u:p", "u:p"]
    assert {row["item"] for row in made[:3]} == {made[4]["item"]} != {made[3]["item"]}
    assert reasons(lost) == {("missing_column", "row"): 2, ("wrong_type", "row"): 1, ("bad_roles", "row"): 1}


def test_ratings_by_aspect(tmp_path):
    def one(text, scores, overall):
        notes = {name: {"Rating": score} for name, score in zip(("helpfulness", "honesty"), scores, strict=True)}
        return {"response": text, "annotations": notes, "overall_score": overall}

    rows = [
        {"instruction": "p", "completions": [one("a", ("5", "4"), 8.5), one("b", ("1", "N/A"), 10)]},
        {"instruction": "p", "generations": ["a", "b", "c"], "ratings": [5, None, 1], "rater": 7},
        {"instruction": "p", "generations": ["a", "b"], "ratings": [5]},
        {"instruction": "p", "completions": [{"response": "a", "overall_score": "best"}]},
    ]
    made, lost = read(tmp_path, "ratings", rows, rater="gpt-4")
    assert [(row["aspect"], row["value"], row["rater"]) for row in made] == [
        ("helpfulness", [5, 1], "gpt-4"), ("honesty", [4, None], "gpt-4"), (None, [8.5, None], "gpt-4"),
        (None, [5, None, 1], "7"),
    ]  # fmt: skip
    assert reasons(lost) == {("doubtful_score", "judgements"): 1, ("wrong_type", "row"): 2}


ARGILLA = {"instruction": "p", "response-1": "a", "response-2": "b"}


def test_argilla_nested(tmp_path):
    def said(*values, status=None):
        return [{"value": value, "user_id": f"u{n}", "status": status} for n, value in enumerate(values)]

    rows = [
        {"id": "r1", "fields": ARGILLA, "suggestions": {"best": {"value": "response-1"}}, "responses": {
            "best": said("response-2", "tie", "Response 1"), "comment": said("so so")}},
        {"id": "r2", "fields": ARGILLA, "responses": {"rank": said(["response-2", "response-1"], [
            {"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}])}},
        {"id": "r3", "fields": ARGILLA, "responses": {
            "quality-2": said(4), "best": said("response-1", status="draft")}},
        {"id": "r4", "fields": {"prompt": "p", "response": "a"}, "responses": {
            "quality": said(4), "corrected": said("A")}},
        {"id": "r5", "fields": ARGILLA, "responses": {}},
        {"id": "r6", "fields": {"text": "a"}, "responses": {"best": said("text")}},
    ]  # fmt: skip
    made, lost = read(tmp_path, "argilla", rows, "records.json")
    assert [(row["kind"], row["value"], row["rater"], row["aspect"]) for row in made] == [
        ("pairwise", [0, 1], "u0", None), ("pairwise", [0, 0], "u1", None), ("pairwise", [1, 0], "u2", None),
        ("ranking", [2, 1], "u0", None), ("ranking", [1, 1], "u1", None),
        ("rating", [None, 4], "u0", "quality"),
        ("rating", [4], "u0", "quality"), ("edit", [0, 1], "u0", None),
    ]  # fmt: skip
    assert made[-1]["responses"] == ["a", "A"]
    assert len({row["item"] for row in made[:3]}) == 1 and len({row["item"] for row in made}) == 5
    assert reasons(lost) == {
        ("not_a_judgement", "judgements"): 1, ("not_submitted", "judgements"): 1, ("unjudged", "row"): 1,
        ("missing_column", "row"): 1,
    }  # fmt: skip


def test_argilla_flat_and_with_fields_of_its_own(tmp_path):
    best = {
        "best.responses": ["two", "one"],
        "best.responses.users": ["u", "v"],
        "best.responses.status": [None, "draft"],
    }
    rows = [{"id": "1", "ask": "p", "one": "a", "two": "b", "best.suggestion": "one", **best}]
    made, lost = read(tmp_path, "argilla", rows, "rows.parquet", fields=("ask", "one", "two"))
    assert [(row["prompt"], row["responses"], row["value"]) for row in made] == [("u:p", ["a", "b"], [0, 1])]
    assert reasons(lost) == {("not_submitted", "judgements"): 1}
    made, lost = read(tmp_path, "argilla", rows, "again.jsonl")
    assert made == [] and "name the fields: there is ask, one, two" in lost["evidence"][0]


def test_label_studio(tmp_path):
    def result(kind, value, name="q", on="text1,text2"):
        return {"type": kind, "from_name": name, "to_name": on, "value": {**value}}

    def note(n, *results, **more):
        return {"id": n, "completed_by": n, "created_at": f"2024-05-0{n}T10:00:00.5Z", "result": list(results), **more}

    data = {"prompt": "p", "text1": "a", "text2": "b"}
    listed = {
        "prompt": "p",
        "items": [{"id": f"response{n}", "title": "", "body": text} for n, text in enumerate("abc")],
    }
    rows = [
        {"id": 1, "data": data, "predictions": [{}], "annotations": [
            note(1, result("pairwise", {"selected": "left"})), note(2, result("pairwise", {"selected": "right"})),
            note(3, result("choices", {"choices": ["tie"]})), note(4),
            note(5, result("pairwise", {}), was_cancelled=True)]},
        {"id": 2, "data": data, "annotations": [
            {"completed_by": {"email": "x@y.z"}, "result": [result("rating", {"rating": 3}, "helpful_2", "text2")]}]},
        {"id": 3, "data": listed, "annotations": [
            note(1, result("ranker", {"ranker": {"rank": ["response2", "response0"]}}, on="items"),
                 result("textarea", {"text": ["because"]}, "why"), result("labels", {"labels": ["x"]}))]},
        {"id": 4, "data": {"prompt": "p", "answer": "a"}, "annotations": [
            note(1, result("textarea", {"text": ["A"]}, "correction", "answer"))]},
        {"id": 5, "data": data, "annotations": []},
        {"id": 6, "image": "x.png"},
    ]  # fmt: skip
    made, lost = read(tmp_path, "label-studio", rows, "export.json")
    assert [(row["kind"], row["value"], row["rater"], row["aspect"]) for row in made] == [
        ("pairwise", [1, 0], "1", None), ("pairwise", [0, 1], "2", None), ("pairwise", [0, 0], "3", None),
        ("rating", [None, 3], "x@y.z", "helpful"), ("ranking", [2, None, 1], "1", None), ("edit", [0, 1], "1", None),
    ]  # fmt: skip
    assert made[1]["at"] == datetime(2024, 5, 2, 10, 0, 0, 500_000, UTC)
    assert reasons(lost) == {
        ("not_submitted", "judgements"): 2, ("not_a_judgement", "judgements"): 2, ("unjudged", "row"): 1,
        ("missing_column", "row"): 1,
    }  # fmt: skip


def test_chat_logs_with_thumbs_and_edits(tmp_path):
    def turn(role, content, **more):
        return {"role": role, "content": content, **more}

    rows = [
        {"id": "c1", "user_id": "ann", "messages": [
            turn("user", "a"), turn("assistant", "b", feedback="thumbs_up", timestamp=1_700_000_000), turn("user", "c"),
            turn("assistant", "d", annotation={"rating": -1}, edited="D"), turn("user", "e"), turn("assistant", "f")]},
        {"messages": [turn("user", "a"), turn("assistant", "b")], "label": False},
        {"prompt": "a", "completion": "b", "label": 1},
        {"messages": [turn("user", "a"), turn("assistant", "b")]},
        {"messages": [turn("user", "a"), turn("assistant", "b")], "rating": 4},
        {"messages": [turn("user", "a")], "label": True},
    ]  # fmt: skip
    made, lost = read(tmp_path, "thumbs", rows, rater="someone")
    assert [(row["prompt"], row["responses"], row["kind"], row["value"], row["rater"]) for row in made] == [
        ("u:a", ["b"], "thumbs", [1], "ann"),
        ("u:a/a:b/u:c", ["d", "D"], "edit", [0, 1], "ann"), ("u:a/a:b/u:c", ["d"], "thumbs", [0], "ann"),
        ("u:a", ["b"], "thumbs", [0], "someone"), ("u:a", ["b"], "thumbs", [1], "someone"),
        ("u:a", ["b"], "thumbs", None, "someone"),
    ]  # fmt: skip
    assert made[0]["at"] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert reasons(lost) == {("wrong_type", "row"): 1, ("bad_roles", "row"): 1}


def test_judgements_as_they_are(tmp_path):
    rows = [
        {
            "prompt": "p",
            "responses": ["a", "b", "c"],
            "kind": "ranking",
            "value": [1, 3, 1],
            "rater": "r",
            "unknown": 1,
        },
        {"prompt": "p", "responses": ["a", "b"], "kind": "pairwise", "value": None, "at": "2024-01-01T01:00:00+01:00"},
        {"prompt": "p", "responses": ["a", "b"], "kind": "pairwise", "value": [1, 2]},
        {"prompt": "p", "responses": ["a", "b"], "kind": "pairwise", "value": [1]},
        {"prompt": "p", "responses": ["a", "b"], "kind": "pairwise", "value": [True, 0]},
        {"prompt": "p", "responses": ["a", "b"], "kind": "thumbs", "value": [1, 0]},
        {"prompt": "p", "responses": ["a"], "kind": "thumbs", "value": [0.5]},
        {"prompt": "p", "responses": ["a", "b"], "kind": "guess", "value": [1, 0]},
        {"prompt": "p", "responses": ["a", "b"], "kind": "rating", "value": [1, 0], "at": "yesterday"},
        {"prompt": "p", "responses": ["a", "b"], "kind": "ranking", "value": [0, 1]},
        '{"prompt": "p", "responses": ["a"], "kind": "rating", "value": [NaN]}',
        "[1, 2]",
        "{",
    ]
    made, lost = read(tmp_path, "judgements", rows)
    assert [(row["value"], row["rater"]) for row in made] == [([1, 3, 1], "r"), (None, None)]
    assert made[1]["at"] == datetime(2024, 1, 1, tzinfo=UTC)
    assert reasons(lost) == {("wrong_type", "row"): 8, ("no_replies", "row"): 1, ("bad_json", "row"): 2}


def test_an_item_is_the_same_whatever_the_order_of_its_replies(tmp_path):
    def row(responses, **more):
        return {"prompt": "p", "responses": responses, "kind": "pairwise", "value": [1, 0], **more}

    made, _ = read(
        tmp_path, "judgements", [row(["a", "b"]), row(["b", " a"]), row(["a", "c"]), row(["a", "b"], item=1)]
    )
    items = [one["item"] for one in made]
    assert items[0] == items[1] and len(set(items)) == 3
    assert made[0]["replies"] == made[1]["replies"][::-1]


def test_refused(tmp_path):
    store, path = Store(tmp_path / "root"), written(tmp_path / "rows.jsonl", [{"prompt": "p"}])
    for paths, format, more, said in (
        ([path], "hh", {}, "no format 'hh'; there are: hh-rlhf"),
        ([path], "pairs", {"fields": ("a", "b")}, "fields are of argilla"),
        ([path], "argilla", {"fields": ("a",)}, "one per reply"),
        ([str(tmp_path / "none.jsonl")], "pairs", {}, "no such file"),
        ([written(tmp_path / "table.csv", ["a,b"])], "pairs", {}, "read from JSON lines"),
    ):
        with pytest.raises(InputError, match=said):
            read_judgements(store, "judged", paths, format, **more)


def test_a_damaged_file_keeps_what_stands_before(tmp_path):
    rows = [{"prompt": f"p{n}", "chosen": f"c{n * 7919}", "rejected": f"r{n * 104729}"} for n in range(20_000)]
    path = Path(written(tmp_path / "rows.jsonl.gz", rows))
    path.write_bytes(path.read_bytes()[:-2000])
    made = read_judgements(Store(tmp_path / "root"), "judged", [str(path)], "pairs")
    assert 0 < made.rows < 20_000 and made.ledger().collect()["reason"].to_list() == ["corrupt_member"]
    (tmp_path / "cut.json").write_text(json.dumps(rows[:3])[:-1])
    made = read_judgements(Store(tmp_path / "root"), "cut", [str(tmp_path / "cut.json")], "pairs")
    assert made.rows == 3 and made.ledger().collect()["reason"].to_list() == ["bad_json"]


# ---- hostile exports

NOTE = {"completed_by": 1, "result": [{"type": "pairwise", "from_name": "q", "value": {"selected": "left"}}]}
SOUND = {
    "hh-rlhf": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    "pairs": {"prompt": "p", "chosen": [{"role": "assistant", "content": "c"}], "rejected": "r", "margin": 2},
    "ratings": {"prompt": "p", "completions": [{"response": "a", "annotations": {"h": {"Rating": "5"}}}]},
    "pandalm": {"idx": 1, "instruction": "i", "response1": "a", "response2": "b", "annotator1": 1},
    "thumbs": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "edited": "c"}]},
    "argilla": {"id": 1, "fields": {**ARGILLA}, "responses": {"q": [{"value": [{"value": "response-1", "rank": 1}]}]}},
    "label-studio": {"id": 1, "data": {"prompt": "p", "text1": "a", "text2": "b"}, "annotations": [NOTE]},
    "judgements": {"prompt": "p", "responses": ["a"], "kind": "rating", "value": [1], "at": 0, "rater": "r"},
}
JUNK = (None, True, -1, 1.5, 10**400, "", "x", [], {}, [None], [[]], {"a": 1}, [{"role": "user", "content": 1}], [{}])


def places(value, path=()):
    """Every place inside a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*path, key)
        yield from places(one, (*path, key))


@pytest.mark.parametrize("format", SOUND)
def test_whatever_stands_in_an_export(tmp_path, format):
    rows = [SOUND[format]]
    for place in places(SOUND[format]):
        for junk in JUNK:
            rows.append(json.loads(json.dumps(SOUND[format])))
            inside = rows[-1]
            for key in place[:-1]:
                inside = inside[key]
            inside[place[-1]] = junk
    made, lost = read(tmp_path, format, rows)
    assert made[0]["line"] == 1 and lost["reason"].null_count() == 0 and lost.height > 0
