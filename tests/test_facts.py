"""Facts: a claim is supported or contradicted only where the knowledge says so; otherwise nothing is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.claims.text import sentences, statement
from gristmill.verifiers.facts import facts

ROWS = [
    {"subject": "France", "relation": "capital", "object": "Paris", "functional": True},
    {"subject": "Germany", "relation": "capital", "object": "Berlin"},
    {"subject": "Paris", "relation": "located_in", "object": "France"},
    {
        "subject": "Albert Einstein", "relation": "wasBornOn", "object": "1879-03-14", "functional": True,
        "aliases": ["Einstein"],
    },
    {
        "subject": "Inception", "relation": "directed by", "object": "Christopher Nolan", "functional": True,
        "object_aliases": ["C. Nolan"],
    },
    {"subject": "Everest", "relation": "height", "object": "8,849 m", "functional": True},
    {"subject": "Spain", "relation": "member of", "object": "the EU"},
    {"subject": "Norway", "relation": "member of", "object": "the EU", "negated": True},
]  # fmt: skip
PASSAGES = [
    "The Eiffel Tower is 330 m tall and 120 m wide. Marie Curie, born in Warsaw in 1867, won the Nobel Prize in 1903 "
    "and discovered radium. The capital of Australia is Canberra.",
    "Bob, whose brother Tom died in 1990, lives in Rome. Some people believe that cats fly. Ada did not win the race. "
    "The sister of Ada lives in Oslo. Ada praised the man who killed Bob. Revenue was 1.5 million dollars. It is red. "
    "Lima is the largest city of Peru. Ada visited Rome. The night was -5 °C cold. Ada was born in Rome.",
]


def finding(claim, **params):
    verdict = facts(**params)("?", claim, facts=ROWS + PASSAGES)
    assert verdict.score == {"supported": 1.0, "contradicted": 0.0, "unknown": None}[verdict.reason]
    return verdict.reason


@pytest.mark.parametrize(
    "claim",
    [
        "Paris is the capital of France.", "The capital of France is Paris", "France's capital is Paris.",
        "Paris is France's capital!", "**Paris** is located in France.", "Lyon is not the capital of France.",
        "Einstein was born on 14 March 1879.", "Albert Einstein was born on March 14th, 1879.",
        "Inception was directed by C. Nolan.", "Everest's height is 8849 m.", "Spain is a member of the EU.",
        "Norway isn't a member of the EU.",
    ],
)  # fmt: skip
def test_rows_support(claim):
    assert finding(claim) == "supported"


@pytest.mark.parametrize(
    "claim",
    [
        "Lyon is the capital of France.", "The capital of Germany is Munich.", "Paris is not the capital of France.",
        "Einstein was born on 15 March 1879.", "Inception was directed by Steven Spielberg.",
        "The height of Everest is 8848 m.", "Norway is a member of the EU.", "Spain is not a member of the EU.",
    ],
)  # fmt: skip
def test_rows_contradict(claim):
    assert finding(claim) == "contradicted"


@pytest.mark.parametrize(
    "claim",
    [
        "France is the capital of Paris.", "France is located in Paris.", "Paris is located in Spain.",
        "Spain is a member of NATO.", "The capital of France is a beautiful city.", "It is the capital of France.",
        "The capital of France is Paris or Lyon.", "Is Lyon the capital of France?", "Einstein was born on 1879.",
        "It is false that Paris is the capital of France.", "The height of Everest is 29,032 feet.",
        "Perhaps Lyon is the capital of France.", "Nothing is the capital of France.", "Nobody likes Paris.",
    ],
)  # fmt: skip
def test_rows_tell_nothing(claim):
    assert finding(claim) == "unknown"


@pytest.mark.parametrize(
    "claim",
    [
        "The Eiffel Tower is 330 m tall.", "Marie Curie won the Nobel Prize.", "Marie Curie discovered radium.",
        "Marie Curie won the Nobel Prize in 1903.", "Bob lives in Rome.", "Ada didn't win the race.",
        "the capital of australia is canberra",
    ],
)  # fmt: skip
def test_passages_support(claim):
    assert finding(claim) == "supported"


@pytest.mark.parametrize(
    "claim",
    [
        "The capital of Australia is Sydney.", "The capital of Australia isn't Canberra.", "Ada did win the race.",
        "The Eiffel Tower is 331 m tall and 120 m wide.", "Quito is the largest city of Peru.",
        "The night was 5 °C cold.",
    ],
)  # fmt: skip
def test_passages_contradict(claim):
    assert finding(claim) == "contradicted"


@pytest.mark.parametrize(
    "claim",
    [
        "The Eiffel Tower is 330 m wide.", "The Eiffel Tower is 330.", "Bob died in 1990.", "Cats fly.",
        "Ada lives in Oslo.", "Ada killed Bob.", "Ada won the race.", "Revenue was 1.5.", "It is red.",
        "Marie Curie discovered polonium.", "Ada visited Paris.", "Ada was born in Paris.", "Bob visited Rome.",
        "Tom lives in Rome.", "Marie Curie never did not win.",
    ],
)  # fmt: skip
def test_words_of_a_passage_are_not_what_it_says(claim):
    assert finding(claim) == "unknown"


def test_a_functional_relation_may_be_named_by_the_caller():
    assert finding("Ada was born in Paris.", functional=["born in"]) == "contradicted"
    assert finding("Tom was born in Rome.", functional=["born in"]) == "unknown"
    assert finding("Spain is a member of NATO.", functional=["member of"]) == "contradicted"


def test_the_score_is_what_can_be_told_and_a_repeated_claim_counts_once():
    judge = facts()
    three = "Paris is the capital of France. Lyon is the capital of France. I like cheese."
    verdict = judge("?", three, facts=ROWS)
    assert (verdict.score, verdict.reason) == (0.5, "partly_supported")
    assert [verdict.evidence[name] for name in ("supported", "contradicted", "unknown")] == [1, 1, 1]
    padded = "Paris is the capital of France. " * 50 + "\n- **Paris** is the capital of France!\n" + three
    assert judge("?", padded, facts=ROWS).score == 0.5
    assert len(json.dumps(judge("?", padded, facts=ROWS).evidence)) < 4000


def test_claims_taken_out_by_the_caller_are_judged_instead_of_the_sentences():
    claims = [
        {"subject": "the France", "relation": "capital", "object": "Lyon"},
        {"subject": "Einstein", "relation": "was born on", "object": "14 March 1879"},
        {"subject": "Norway", "relation": "member_of", "object": "EU", "negated": True},
        "Bob lives in Rome.",
    ]
    verdict = facts()("?", "(anything)", facts=ROWS + PASSAGES, claims=claims)
    assert (verdict.score, verdict.evidence["supported"], verdict.evidence["contradicted"]) == (0.75, 3, 1)
    assert facts()("?", " ", facts=ROWS, claims=claims).reason == "empty_response"


def test_knowledge_that_speaks_against_itself_tells_nothing():
    claim = {"subject": "a", "relation": "r", "object": "b"}
    assert facts()("?", "x", facts=[claim, {**claim, "negated": True}], claims=[claim]).score is None
    assert facts()("?", "Lima is big.", facts=["Lima is big.", "Lima is not big."]).reason == "unknown"


@pytest.mark.parametrize(
    "given_facts", [[], "", ["..."], [7], [{"subject": "x"}], [{"subject": "x", "relation": "", "object": "y"}], "{"]
)
def test_facts_that_are_none_are_not_judged(given_facts):
    verdict = facts()("?", "Paris is the capital of France.", facts=given_facts)
    assert (verdict.score, verdict.reason) == (None, "bad_facts")


def test_without_knowledge_nothing_is_judged_and_an_empty_response_is_wrong():
    assert facts()("?", "Paris.").reason == "no_knowledge"
    assert (facts()("?", "", facts=ROWS).score, facts()("?", "\n", facts=ROWS).reason) == (0.0, "empty_response")


def test_a_file_is_knowledge_whose_digest_is_told(tmp_path):
    file = tmp_path / "known.jsonl"
    file.write_text("\n".join(json.dumps(item) for item in [*ROWS, {"text": PASSAGES[0]}]))
    judge = facts(knowledge_context=file)
    first = judge("?", "The capital of Australia is Sydney.")
    assert (first.reason, len(first.evidence["knowledge"])) == ("contradicted", 12)
    file.write_text(json.dumps("The capital of Australia is Sydney."))
    second = judge("?", "The capital of Australia is Sydney.")
    assert second.reason == "supported" and second.evidence["knowledge"] != first.evidence["knowledge"]
    text = tmp_path / "known.txt"
    text.write_text("The tower is\nin Rome.\n\nThe bridge is in Oslo.")
    assert facts(knowledge_context=text)("?", "The tower is in Rome.\nThe bridge is in Oslo.").score == 1.0
    file.write_text("{not json")
    with pytest.raises(InputError, match="known.jsonl"):
        judge("?", "Paris.")
    with pytest.raises(InputError, match="gone.txt"):
        facts(knowledge_context=tmp_path / "gone.txt")("?", "Paris.")


@pytest.mark.parametrize("item", ROWS + PASSAGES, ids=str)
def test_a_fact_supports_itself(item):
    judge = facts()
    row = {"prompt": "?", "facts": [item]}
    response = judge.reference(row)
    if response is None:
        assert item["negated"]
    else:
        assert judge.rows([{**row, "response": response}])[0].score == 1.0


def test_a_gold_answer_is_a_fact_that_can_be_told():
    row = {"prompt": "?", "facts": ["It is red. Is Ada tall? Ada is tall.", "Bob is not tall."]}
    assert facts().reference(row) == "Ada is tall."
    assert facts().reference({**row, "facts": ["It is red."]}) is None
    assert facts().reference({**row, "claims": ["Ada is tall."]}) is None


def test_sentences_end_where_they_should():
    text = "Dr. No met J. R. Smith at 3.5 p.m. on Monday. It rained!\n- First point\n- Second (see fig. 2). Done"
    assert sentences(text, lines=True) == [
        "Dr. No met J. R. Smith at 3.5 p.m. on Monday.", "It rained!", "First point", "Second (see fig. 2).", "Done",
    ]  # fmt: skip
    assert sentences("one\ntwo\n\nthree", lines=False) == ["one two", "three"]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("1,000.50 m", "1000.5 m", True), ("on 3 May 1990", "on May 3rd, 1990", True), ("The C++", "c++", True),
        ("It isn’t", "it is not", True), ("-5", "−5.0", True), ("C++", "C", False), ("-5", "5", False),
        ("3.5", "35", False), ("Bob's dog", "Bob dog", False), ("5 %", "5", False),
    ],
)  # fmt: skip
def test_tokens_are_what_is_said(one, two, same):
    left, right = statement(one), statement(two)
    assert ((left.forms, left.negations) == (right.forms, right.negations)) is same


@given(st.text(max_size=60), st.sampled_from(["", "Paris is ", "The capital of France is ", "Ada ", "not "]))
def test_no_text_breaks_the_reader(text, start):
    verdict = facts()("?", start + text, facts=ROWS + PASSAGES)
    assert verdict.reason != "verifier_failed", verdict


@pytest.mark.parametrize(
    "response",
    [
        "x" * 1_000_000, "France " * 14_000, "e.g. " * 20_000, "Ada " * 25_000, "1 " * 50_000, "a. B" * 25_000,
        "(" * 99_999, '."' * 49_999,
    ],
    ids=lambda text: text[:5],
)  # fmt: skip
def test_hostile_responses_earn_nothing(response):
    verdict = facts()("?", response, facts=ROWS + PASSAGES)
    assert verdict.score in (0.0, None) and verdict.reason in ("too_long", "unknown", "empty_response")
