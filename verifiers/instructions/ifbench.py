"""Constraints of IFBench (Pyatkin et al. 2025, arXiv:2507.02833) that a rule over the text decides, by its ids.

Here are 23 of its 58; not covered are those that need a word list, a parser or a dictionary (names, pronouns, parts of
speech, syllables), or know one prompt. A word is what stands between white space without its ASCII punctuation, in
small letters, as there; sentences are those of `texts`.

Where IFBench's code passes a text that has nothing to check, it fails here: one sentence "in increasing length", no
sentence of any kind "in balance", one line "in stairs", separators without items behind them.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from gristmill.verifiers.instructions import texts
from gristmill.verifiers.instructions.constraint import Finding, constraint

_BARE = str.maketrans("", "", string.punctuation)
_EDGES = string.punctuation + " "
_CLOSING = {")": "(", "]": "[", "}": "{"}
_TIMES = (1, 2, 3, 5, 7)
_PALINDROMES, _PALINDROME_LENGTH = 10, 5
_NESTED = 5


def _words(text: str) -> list[str]:
    return text.lower().translate(_BARE).split()


def _sentences(text: str) -> list[str]:
    return [text[start:end].strip() for start, end in texts.sentence_spans(text)]


@constraint("count:word_count_range")
def word_count_range(text: str, *, min_words: int, max_words: int) -> Finding:
    """Words as IFEval counts them, both limits included."""
    count = texts.words(text)
    return Finding(min_words <= count <= max_words, count)


@constraint("count:unique_word_count")
def unique_word_count(text: str, *, N: int) -> Finding:
    """At least N different words."""
    count = len({word.strip(_EDGES) for word in text.lower().split()} - {""})
    return Finding(count >= N, count)


@constraint("count:numbers")
def numbers(text: str, *, N: int) -> Finding:
    """Exactly N numbers; signs inside one do not divide it (1,000; 3.5)."""
    count = len(re.findall(r"\d+", text.translate(_BARE)))
    return Finding(count == N, count)


@constraint("count:punctuation")
def punctuation(text: str) -> Finding:
    """Every one of . , ! ? ; : beside an interrobang (?!, !? or its own sign)."""
    mark = next((sign for sign in ("?!", "!?", "\u203d") if sign in text), None)
    rest = text.replace(mark, "", 1) if mark is not None else text
    lacking = [sign for sign in ".,!?;:" if sign not in rest]
    return Finding(mark is not None and not lacking, {"missing": lacking, "interrobang": mark is not None})


@constraint("count:keywords_multiple")
def keywords_multiple(
    text: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> Finding:
    """The keywords stand 1, 2, 3, 5 and 7 times, exactly, also inside longer words."""
    small = text.lower()
    counts = [small.count(word.strip().lower()) for word in (keyword1, keyword2, keyword3, keyword4, keyword5)]
    return Finding(tuple(counts) == _TIMES, counts)


@constraint("words:alphabet")
def alphabet(text: str) -> Finding:
    """Each word begins with the letter after that of the last, A after Z."""
    places = [string.ascii_lowercase.find(word[0]) for word in _words(text)]
    ok = -1 not in places and all((b - a) % 26 == 1 for a, b in zip(places, places[1:], strict=False))
    return Finding(ok and bool(places))


@constraint("words:palindrome")
def palindrome(text: str) -> Finding:
    """At least ten palindromes of five letters or more; the same one again counts again."""
    count = sum(1 for word in _words(text) if len(word) >= _PALINDROME_LENGTH and word == word[::-1])
    return Finding(count >= _PALINDROMES, count)


@constraint("words:prime_lengths")
def prime_lengths(text: str) -> Finding:
    """Every word has a prime number of characters, below 100."""
    wrong = [word for word in _words(text) if not _prime(len(word))]
    return Finding(not wrong, {"word": wrong[0][:40]} if wrong else None)


def _prime(n: int) -> bool:
    return 1 < n < 100 and all(n % k for k in range(2, int(n**0.5) + 1))


@constraint("words:repeats")
def repeats(text: str, *, small_n: int) -> Finding:
    """No word stands more than so many times."""
    ((word, count),) = Counter(_words(text)).most_common(1) or [("", 0)]
    return Finding(count <= small_n, {"word": word[:40], "count": count})


@constraint("words:no_consecutive")
def no_consecutive(text: str) -> Finding:
    """No two neighbours begin with the same letter."""
    first = [word[0] for word in _words(text)]
    return Finding(all(a != b for a, b in zip(first, first[1:], strict=False)))


@constraint("words:last_first")
def last_first(text: str) -> Finding:
    """Each sentence begins with the last word of the one before; two sentences at least."""
    ends = [sentence.strip(_EDGES).split() for sentence in _sentences(text.lower())]
    chained = all(a and b and a[-1] == b[0] for a, b in zip(ends, ends[1:], strict=False))
    return Finding(len(ends) > 1 and chained, len(ends))


@constraint("words:paragraph_last_first")
def paragraph_last_first(text: str) -> Finding:
    """Each line ends with the word that it begins with."""
    lines = [line.strip().lower().strip(_EDGES).split() for line in text.split("\n")]
    return Finding(all(line[0] == line[-1] for line in lines if line))


@constraint("words:words_position")
def words_position(text: str, *, keyword: str) -> Finding:
    """The second word and the last but one are the keyword."""
    words, wanted = [word.strip(_EDGES) for word in text.split()], keyword.strip()
    return Finding(len(words) > 1 and words[1] == wanted == words[-2])


@constraint("words:keywords_specific_position")
def keywords_specific_position(text: str, *, keyword: str, n: int, m: int) -> Finding:
    """The keyword is the m-th word of the n-th sentence; IFBench counts its commas as words."""
    sentences = _sentences(text)
    words = sentences[n - 1].split() if 1 <= n <= len(sentences) else []
    return Finding(1 <= m <= len(words) and words[m - 1].strip(_EDGES) == keyword.strip(), len(sentences))


@constraint("sentence:keyword")
def sentence_keyword(text: str, *, word: str, N: int) -> Finding:
    """The N-th sentence has the keyword, also inside a longer word."""
    sentences = _sentences(text)
    return Finding(1 <= N <= len(sentences) and word.lower() in sentences[N - 1].lower(), len(sentences))


@constraint("sentence:increment")
def increment(text: str, *, small_n: int) -> Finding:
    """Each sentence has exactly so many more words than the one before; two sentences at least."""
    counts = [len(_words(sentence)) for sentence in _sentences(text)]
    steps = [b - a for a, b in zip(counts, counts[1:], strict=False)]
    return Finding(bool(steps) and set(steps) == {small_n}, counts[:20])


@constraint("ratio:sentence_balance")
def sentence_balance(text: str) -> Finding:
    """As many sentences end in a full stop as in a question mark and in an exclamation mark, and one at least."""
    ends = Counter(sentence[-1:] for sentence in _sentences(text))
    counts = [ends[sign] for sign in ".?!"]
    return Finding(counts[0] > 0 and len(set(counts)) == 1, counts)


@constraint("format:parentheses")
def parentheses(text: str) -> Finding:
    """Brackets of any kind stand in each other five deep, of which the innermost is closed."""
    open_, deepest = [], 0
    for sign in re.findall(r"[()\[\]{}]", text):
        if sign not in _CLOSING:
            open_.append(sign)
            deepest = max(deepest, len(open_))
        elif open_ and open_[-1] == _CLOSING[sign]:
            open_.pop()
            if deepest >= _NESTED:
                return Finding(True, deepest)
        else:
            open_, deepest = [], 0
    return Finding(False, deepest)


@constraint("format:newline")
def newline(text: str) -> Finding:
    """One word a line."""
    bare = text.translate(_BARE)
    return Finding(all(len(line.split()) <= 1 for line in bare.split("\n")))


@constraint("format:options")
def options(text: str, *, options: str) -> Finding:
    """The whole response is one of the options, which stand divided by "/", else by "or", else by commas."""
    sign = "/" if "/" in options else "or" if "or" in options else ","
    choices = [option.strip() for option in options.split(sign)]
    if re.match(r"\W*a\W*b\W*c\W*", options, re.IGNORECASE):
        return Finding(text in choices)
    return Finding(text.strip(_EDGES).lower() in {choice.strip(_EDGES).lower() for choice in choices})


@constraint("format:line_indent")
def line_indent(text: str) -> Finding:
    """Each line stands further in than the one before; two lines at least."""
    depths = [len(line) - len(line.lstrip(" ")) for line in text.split("\n") if line.strip()]
    return Finding(len(depths) > 1 and all(a < b for a, b in zip(depths, depths[1:], strict=False)), depths[:20])


@constraint("format:list")
def separated_list(text: str, *, sep: str) -> Finding:
    """At least two items behind the separator; IFBench counts separators with nothing behind them."""
    count = sum(1 for item in text.split(sep.strip())[1:] if texts.says_something(item))
    return Finding(count > 1, count)


@constraint("format:no_whitespace")
def no_whitespace(text: str) -> Finding:
    """No white space at all."""
    return Finding(re.search(r"\s", text) is None)
