"""IFBench's constraints: for each a text that keeps it and texts that break it."""

from __future__ import annotations

import pytest

from gristmill.verifiers.instructions import ifbench
from gristmill.verifiers.instructions.constraint import CONSTRAINTS
from gristmill.verifiers.verifier import find

FIVE = {"keyword1": "ant", "keyword2": "bee", "keyword3": "cat", "keyword4": "dog", "keyword5": "elk"}
TIMES = "ant " + "bee " * 2 + "cat " * 3 + "dog " * 5 + "elk " * 7
CASES = [
    ("count:word_count_range", {"min_words": 2, "max_words": 3}, "one two three", ["one", "one two three four"]),
    ("count:unique_word_count", {"N": 3}, "a B c a", ["a b, a. A b!", "a b ! ?"]),
    ("count:numbers", {"N": 2}, "1,000 men and 3.5 boats", ["1 000 men and 3 boats", "one"]),
    ("count:punctuation", {}, "So: what?! Go; stay, or not? Yes! So.", ["So: what? Go; stay, or not. Yes!", "?!"]),
    ("count:keywords_multiple", FIVE, TIMES, [TIMES + "bee", TIMES[4:]]),
    ("words:alphabet", {}, "Xylophones, yes: zebras and boats.", ["A cat.", "a b 3", "a c"]),
    ("words:palindrome", {}, "Level radar, civic " * 4, ["level " * 9 + "noon abba pop"]),
    ("words:prime_lengths", {}, "We see three nations.", ["We see four nations.", "a"]),
    ("words:repeats", {"small_n": 2}, "so it is, so it was", ["so it is so it was. So!"]),
    ("words:no_consecutive", {}, "We go home.", ["We went home.", "a (a)"]),
    ("words:last_first", {}, "I see you. You see him! Him?", ["I see you. Then go.", "One sentence."]),
    ("words:paragraph_last_first", {}, "So it is so.\n\nAnd now and", ["So it is.", "so so\nso it"]),
    (
        "words:words_position",
        {"keyword": "cat"},
        "A cat is a cat indeed.",
        ["A cat is a dog.", "cat", "A cat is a Cat so"],
    ),
    (
        "words:keywords_specific_position",
        {"keyword": "cat", "n": 2, "m": 3},
        "So it is. See the cat, there.",
        ["See the cat.", "So. See a fat cat.", "So. See the cats."],
    ),
    ("sentence:keyword", {"word": "Cat", "N": 2}, "Dr. No left. Two cats came.", ["Two cats came. He left.", "cat"]),
    ("sentence:increment", {"small_n": 2}, "One. Now there three. And so it is five.", ["One.", "One. Two now. So."]),
    ("ratio:sentence_balance", {}, "It is. Is it? Is!", ["It is. Is it?", "no end", "Is it? It is. So. Yes!"]),
    ("format:parentheses", {}, "f(a[b{c(d[e])}])", ["((((a))))", "(((((", "([{([)"]),
    ("format:newline", {}, "One,\n\ntwo\n - three", ["One two", "one\ntwo three"]),
    ("format:options", {"options": "yes/no/maybe"}, "Maybe.", ["yes or no", "I say yes"]),
    ("format:options", {"options": "a), b), c)"}, "b)", ["b", "B)"]),
    ("format:line_indent", {}, "a\n b\n\n   c", ["a", "a\n b\n b", " a\nb"]),
    ("format:list", {"sep": "..."}, "...one\n...two", ["...", "... ... ...", "...one"]),
    ("format:no_whitespace", {}, "one_two", ["one two", "one\u00a0two"]),
]


@pytest.mark.parametrize(("name", "kwargs", "kept", "broken"), CASES, ids=[case[0] for case in CASES])
def test_kept_and_broken(name, kwargs, kept, broken):
    judge = find("instructions")()
    ask = [{"id": name, "kwargs": kwargs}]
    assert judge("p", kept, instructions=ask).score == 1.0
    for response in broken:
        assert judge("p", response, instructions=ask).score == 0.0, response


def test_every_constraint_is_in_the_list():
    there = {name for name, item in CONSTRAINTS.items() if item.check.__module__ == ifbench.__name__}
    assert there == {case[0] for case in CASES} and len(there) == 23
