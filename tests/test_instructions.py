"""Instruction following: every constraint of IFEval, where we differ from its code, and what is no score."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ifeval_responses import SENTENCE, instructions, kept_and_broken, real_responses, rows, spoken
from lid_texts import declarations
from realdata import real

from gristmill.dataops.language import language
from gristmill.verifiers.instructions import ifeval, texts
from gristmill.verifiers.instructions.constraint import CONSTRAINTS, Finding, Relation, compare, constraint
from gristmill.verifiers.instructions.verify import variants
from gristmill.verifiers.verifier import find

STRICT = find("instructions")()
LOOSE = find("instructions")(mode="loose")

#: Arguments with which every constraint can be asked.
ARGUMENTS = {
    "keywords": ["alpha"], "keyword": "alpha", "frequency": 2, "relation": "at least", "forbidden_words": ["alpha"],
    "letter": "a", "let_frequency": 2, "let_relation": "less than", "language": "en", "num_sentences": 2,
    "num_words": 2, "num_paragraphs": 2, "nth_paragraph": 2, "first_word": "alpha", "num_placeholders": 1,
    "postscript_marker": "P.S.", "num_bullets": 1, "num_highlights": 1, "section_spliter": "Section",
    "num_sections": 1, "prompt_to_repeat": "alpha", "end_phrase": "alpha", "capital_frequency": 1,
    "capital_relation": "at least", "min_words": 1, "max_words": 9, "N": 1, "small_n": 1, "keyword1": "a",
    "keyword2": "b", "keyword3": "c", "keyword4": "d", "keyword5": "e", "n": 1, "m": 1, "word": "alpha",
    "options": "yes/no", "sep": "...",
}  # fmt: skip


def asked(name: str, **kwargs) -> list[dict]:
    return [{"id": name, "kwargs": kwargs}]


def every() -> list[dict]:
    return [{"id": name, "kwargs": {key: ARGUMENTS[key] for key in item.kinds}} for name, item in CONSTRAINTS.items()]


def judge(response: str, name: str, **kwargs):
    return STRICT("p", response, instructions=asked(name, **kwargs))


def test_all_constraints_of_ifeval_are_there_and_real_instructions_tell_kept_from_broken():
    by_code = spoken(declarations(real("lid/udhr-declarations.tar.xz")).iter_rows())
    seen = set()
    for name, kwargs in instructions(real("verify/ifeval-en_input_data.jsonl")):
        seen.add(name.removeprefix("en:"))
        kept, broken = kept_and_broken(name, kwargs, by_code.__getitem__)
        ask = asked(name, **kwargs)
        assert STRICT("p", kept, instructions=ask).score == 1.0, (name, kwargs, kept)
        assert LOOSE("p", kept, instructions=ask).score == 1.0, (name, kwargs, kept)
        assert STRICT("p", broken, instructions=ask).score == 0.0, (name, kwargs, broken)
    assert len(seen) == 25
    assert seen == {name for name, item in CONSTRAINTS.items() if item.check.__module__ == ifeval.__name__}


def test_rows_of_ifeval_are_judged_as_they_come():
    asked_rows = rows(real("verify/ifeval-en_input_data.jsonl"))
    answers = real_responses(real("pref/lf-dpo_en_demo.json"))
    given_rows = [{**row, "response": answers[i % len(answers)]} for i, row in enumerate(asked_rows)]
    verdicts = STRICT.rows(given_rows)
    assert len(verdicts) == 541 and all(verdict.judged for verdict in verdicts)
    assert {verdict.score for verdict in verdicts} == {0.0, 1.0}
    pairs = [
        {
            "prompt": row["prompt"],
            "response": row["response"],
            "instructions": [
                {"id": name.removeprefix("en:"), "kwargs": {**kwargs, "not_given": None}}
                for name, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
            ],
        }
        for row in given_rows
    ]
    assert [verdict.score for verdict in STRICT.rows(pairs)] == [verdict.score for verdict in verdicts]
    for strict, loose in zip(verdicts, LOOSE.rows(given_rows), strict=True):
        assert loose.score >= strict.score


@pytest.mark.parametrize(
    ("name", "kwargs", "response", "ok"),
    [
        # As IFEval's code has it.
        ("keywords:existence", {"keywords": ["War", "peace"]}, "Towards PEACE", True),
        ("keywords:frequency", {"keyword": "an", "frequency": 3, "relation": "at least"}, "banana and", True),
        ("keywords:frequency", {"keyword": "an", "frequency": 3, "relation": "less than"}, "banana and", False),
        ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "rocket", True),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "don't go", True),
        ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "don't go", False),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "*** a *** b ***", True),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a *** *** b", False),
        ("detectable_format:title", {}, "<<\nTitle>>", False),
        ("startend:end_checker", {"end_phrase": "The end."}, '"So it goes. the END."\n', True),
        ("combination:two_responses", {}, "a ****** b ****** c", False),
        ("change_case:english_lowercase", {}, "nothing is large in this quiet little sentence.", True),
        # Where it is wrong, or can be gamed.
        ("keywords:existence", {"keywords": ["C++ (new"]}, "we use c++ (new) here", True),
        ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "we use c++ here", False),
        ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "at least"}, "a! b!", True),
        ("language:response_language", {"language": "hi"}, "130.9157", False),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a _ _ _ _", False),
        ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, "a 1. 2. 3. 4.", False),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[] [ ] [name]", False),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "We had maps. so", False),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Yours.\nP.S.", False),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Yours.\nP.P.S. Write soon", False),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Yours. P. s. Write soon", True),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Yours.\n*p.p.s.* Write soon", True),
        ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "---\n-5 below\n*so* it is\n* one\n* * *", True),
        ("detectable_format:constrained_response", {}, "My answer is yes. My answer is no.", False),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "* 2 * 3\n* 4 * 5", False),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "***so***", False),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "* *so* and **so on**", True),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "Section", "num_sections": 2},
            "Section 1 a Section 1 b",
            False,
        ),
        ("detectable_format:json_format", {}, "5", False),
        ("detectable_format:json_format", {}, '{"a": NaN}', False),
        ("detectable_format:json_format", {}, "[" * 5_000 + "1" + "]" * 5_000, False),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say why."}, "Say why.", False),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "less than"},
            "CAN'T",
            True,
        ),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "at least"},
            "NASA's A",
            True,
        ),
        ("change_case:english_capital", {}, "THE CHILDREN WENT TO SCHOOL IN THE RAIN TODAY.", True),
        ("punctuation:no_comma", {}, "没有逗号，真的", False),
    ],
)
def test_golden_verdicts(name, kwargs, response, ok):
    verdict = judge(response, name, **kwargs)
    assert verdict.score == float(ok), verdict
    assert verdict.evidence["constraints"][0]["ok"] is ok


def test_a_blank_paragraph_has_no_place_either():
    ask = {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}
    text = "First so.\n\n\n\nThen so."
    assert judge(text, "length_constraints:nth_paragraph_first_word", **ask).score == 1.0


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("Dr. Smith met J. R. Jones. They spoke.", 2),
        ("It was 5 p.m. in the U.S. and late, i.e. dark. We left.", 2),
        ("We sell pens, ink, etc. They sell none.", 2),
        ("Is it No. 5? No. It is 6!", 3),
        ('She said "Go." Then... nothing. And so on… Then all.', 4),
        ("List:\n1. Go there.\n2. Come back.", 2),
        ("small. letters. only.", 3),
        ("一句话。两句话！三句话？", 3),
        ("यह एक वाक्य है। यह दूसरा है।", 2),
        ("no stop at all", 1),
        ("1984 + 1 = 1985.", 0),
    ],
)
def test_sentences(text, n):
    assert texts.sentences(text) == n


def test_loose_takes_the_eight_variants():
    response = "Sure:\n**go on**\nBye"
    assert variants(response) == [
        response, "Sure:\ngo on\nBye", "**go on**\nBye", "Sure:\n**go on**", "**go on**",
        "go on\nBye", "Sure:\ngo on", "go on",
    ]  # fmt: skip
    ask = asked("startend:end_checker", end_phrase="go on")
    assert STRICT("p", response, instructions=ask).score == 0.0
    assert LOOSE("p", response, instructions=ask).score == 1.0
    short = asked("length_constraints:number_words", num_words=1, relation="less than")
    assert LOOSE("p", "word", instructions=short).score == 0.0, "a variant that says nothing keeps nothing"


def test_all_must_hold_and_partial_gives_the_share():
    ask = asked("punctuation:no_comma") + asked("startend:quotation") + asked("detectable_format:title")
    partial = find("instructions")(partial=True)
    for response, held in (("a, b", 0), ("a b", 1), ('"a b"', 2), ('"<<a>> b"', 3)):
        assert STRICT("p", response, instructions=ask).score == float(held == 3)
        verdict = partial("p", response, instructions=ask)
        assert verdict.score == held / 3
        assert sum(item["ok"] for item in verdict.evidence["constraints"]) == held


@pytest.mark.parametrize("mode", ["strict", "loose"])
@pytest.mark.parametrize("response", ["", " \n\t", "\u200b", "...", "\0", "\n\n"])
def test_an_empty_response_keeps_nothing(mode, response):
    verifier = find("instructions")(mode=mode, partial=True)
    for item in every():
        assert verifier("p", response, instructions=[item]).score == 0.0, item


@pytest.mark.parametrize(
    ("columns", "reason", "said"),
    [
        ({}, "no_instructions", ""),
        ({"instructions": []}, "no_instructions", ""),
        ({"instructions": asked("nothing:known")}, "unknown_instruction", "nothing:known"),
        ({"instructions": [{"kwargs": {}}]}, "bad_kwargs", "an instruction is"),
        ({"instructions": "punctuation:no_comma"}, "bad_kwargs", "no list"),
        ({"instructions": asked("length_constraints:number_words")}, "bad_kwargs", "missing: num_words, relation"),
        ({"instructions": asked("punctuation:no_comma", n=3)}, "bad_kwargs", "unknown: n"),
        ({"instructions": asked("keywords:existence", keywords="one")}, "bad_kwargs", "list of texts"),
        ({"instructions": asked("keywords:existence", keywords=[])}, "bad_kwargs", "list of texts"),
        ({"instructions": asked("startend:end_checker", end_phrase=" ")}, "bad_kwargs", "no text"),
        (
            {"instructions": asked("detectable_format:number_bullet_lists", num_bullets=-1)},
            "bad_kwargs",
            "count from 0",
        ),
        ({"instructions": asked("detectable_format:number_bullet_lists", num_bullets=1.5)}, "bad_kwargs", "count from"),
        (
            {"instructions": asked("detectable_format:number_bullet_lists", num_bullets=True)},
            "bad_kwargs",
            "count from",
        ),
        ({"instructions": asked("language:response_language", language="English")}, "bad_kwargs", "ISO 639"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}, "bad_kwargs", "1 ids"),
        (
            {"instructions": asked("length_constraints:number_words", num_words=5, relation="at most")},
            "bad_kwargs",
            '"less than" or "at least"',
        ),
        (
            {
                "instructions": asked(
                    "length_constraints:nth_paragraph_first_word", num_paragraphs=2, nth_paragraph=3, first_word="a"
                )
            },
            "bad_kwargs",
            "paragraph 3 of 2",
        ),
    ],
)
def test_a_fault_of_the_data_is_no_score(columns, reason, said):
    verdict = STRICT("p", "Some text.", **columns)
    assert (verdict.score, verdict.reason) == (None, reason)
    assert said in json.dumps(verdict.evidence, ensure_ascii=False).replace('\\"', '"')
    assert find("instructions")(mode="lose")("p", "r", **columns).score is None


def test_null_arguments_and_integral_floats_are_read():
    kwargs = {"num_words": 2.0, "relation": "at least", "num_sentences": None}
    assert judge("two words", "length_constraints:number_words", **kwargs).score == 1.0


def test_attacks_are_named():
    assert judge("My answer is yes. My answer is no.", "detectable_format:constrained_response").evidence["attack"]
    assert judge("Say why.", "combination:repeat_prompt", prompt_to_repeat="Say why.").evidence["attack"] == "echo"
    assert judge("[" * 999, "detectable_format:json_format").reason == "empty"
    assert judge("[1," * 9_999, "detectable_format:json_format").evidence["attack"] == "depth_bomb"


def test_the_registry_is_open_to_one_more_in_one_line():
    assert judge("Oh!", "house:exclamations", n=1, relation="at least").reason == "unknown_instruction"

    @constraint("house:exclamations")
    def exclamations(text: str, *, n: int, relation: Relation) -> Finding:
        return compare(text.count("!"), relation, n)

    try:
        assert judge("Oh! Ah!", "house:exclamations", n=2, relation="at least").score == 1.0
        assert judge("Oh! Ah!", "house:exclamations", n=2, relation="less than").score == 0.0
        assert judge("Oh!", "house:exclamations", n="2", relation="less than").reason == "bad_kwargs"
        exclamations.__module__ = "elsewhere"
        with pytest.raises(ValueError, match="two constraints"):
            constraint("punctuation:no_comma")(exclamations)
    finally:
        del CONSTRAINTS["house:exclamations"]


def test_the_language_of_a_response_is_that_of_a_page():
    by_code = spoken(declarations(real("lid/udhr-declarations.tar.xz")).iter_rows())
    pages = [text[:size] for text in by_code.values() for size in (60, 300, 1_000)]
    pages += [page * 5 for page in pages[:60]] + [page.upper() for page in pages[:90]]
    pages += ["see https://example.org/a or a.b@example.org", "123", ""]
    frame = pl.DataFrame({"id": [str(n).zfill(16).encode() for n in range(len(pages))], "text": pages})
    assert [texts.language(page)[0] for page in pages] == language()(frame).kept["language"].to_list()


@given(st.integers(1, 60), st.integers(0, 1 << 30))
def test_n_words_are_n_words_however_they_are_set(n, seed):
    gaps = [" ", "\n", ", ", " - ", ". ", "\u00a0", "/"]
    text = "".join(f"w{k}{gaps[(seed >> k % 30) % len(gaps)]}" for k in range(n))
    for limit, at_least in ((n, 1.0), (n + 1, 0.0)):
        for relation, score in (("at least", at_least), ("less than", 1.0 - at_least)):
            kwargs = {"num_words": limit, "relation": relation}
            assert judge(text, "length_constraints:number_words", **kwargs).score == score


@given(st.lists(st.sampled_from([SENTENCE, "Did it?", 'He said "no."', "(It did.)", "Well…"]), min_size=1, max_size=20))
def test_sentences_add_up(parts):
    assert texts.sentences(" ".join(parts)) == texts.sentences("\n\n".join(parts)) == len(parts)


@settings(max_examples=60)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=300))
def test_any_text_is_judged_the_same_twice_and_loose_is_never_stricter(text):
    for item in every():
        strict, loose = (verifier("p", text, instructions=[item]) for verifier in (STRICT, LOOSE))
        assert strict.judged and loose.judged and loose.score >= strict.score
        assert STRICT("p", text, instructions=[item]) == strict


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        ".",
        "A. ",
        "1.\n",
        "[a",
        "<<",
        "*a",
        "**",
        "\n",
        "\n ",
        '\\"',
        "\0",
        "\ud800",
        '{"a":',
        "a@",
        "_",
        "a'",
    ],
)
def test_a_million_characters_are_answered(unit):
    text = unit * (1_000_000 // len(unit)) + " a"
    assert STRICT("p", text, instructions=every()).judged
