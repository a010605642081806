"""IFEval's 25 constraint types (Zhou et al. 2023, arXiv:2311.07911), by their ids and argument names.

The meaning is that of google-research's instruction_following_eval, so that figures compare, down to keywords found
inside longer words and "less than" without the limit itself. Where its code is wrong or can be gamed, it is put right
here, and each function says so. Two cases are common: a keyword, splitter or marker is text here, where upstream runs
it as a regular expression; and an argument that is missing, negative or out of range is `bad_kwargs`, where upstream
draws a random one ("!" as the letter to count becomes a random letter there).

Not covered: whether what the text says is right, or means anything; "Section 1" with nonsense behind it is a section.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from gristmill.verifiers.instructions import strictjson, texts
from gristmill.verifiers.instructions.constraint import BadArguments, Finding, Relation, compare, constraint

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
#: A list's item in Markdown: a marker, white space, and something; a rule ("---", "* * *") has nothing but markers.
_BULLET = re.compile(r"^[^\S\n]*+[*-][^\S\n]++(?=[^\n]*?[^\s*-])", re.MULTILINE)
_EMPHASIS = re.compile(r"(\*{1,3})(?=[^\s*])[^*\n]*+(?<=[^\s*])\1")
_COMMAS = re.compile("[,\u060c\u3001\uff0c\ufe50\ufe51\uff64\u201a]")
_ENDS = " .,;:!?\"'*_`"
_CODE = re.compile(r"[a-z]{2,3}(-[a-z]{2,4})?")
#: Where other codes than lid.176's are in use for a language.
_CODES = {"zh-cn": "zh", "zh-tw": "zh", "iw": "he", "nb": "no", "fil": "tl", "in": "id", "ji": "yi"}


@constraint("keywords:existence")
def existence(text: str, *, keywords: list[str]) -> Finding:
    """Every keyword stands in the text, in any case, also inside a longer word."""
    small = text.lower()
    lacking = [word for word in keywords if word.lower() not in small]
    return Finding(not lacking, {"missing": [word[:40] for word in lacking[:5]]} if lacking else None)


@constraint("keywords:frequency")
def frequency(text: str, *, keyword: str, frequency: int, relation: Relation) -> Finding:
    """How often a keyword stands in the text, in any case, also inside longer words, without overlap."""
    return compare(text.lower().count(keyword.strip().lower()), relation, frequency)


@constraint("keywords:forbidden_words")
def forbidden_words(text: str, *, forbidden_words: list[str]) -> Finding:
    """No forbidden word stands in the text as a whole word, in any case.

    Upstream's word boundary never holds beside a word that begins or ends in a sign ("C++"); here it does.
    """
    found = [word for word in forbidden_words if _whole(word).search(text)]
    return Finding(not found, {"found": [word[:40] for word in found[:5]]} if found else None)


@functools.lru_cache(maxsize=4096)
def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE)


@constraint("keywords:letter_frequency")
def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: Relation) -> Finding:
    """How often one character stands in the text, in any case; upstream counts a random letter for "!" and "#"."""
    if len(letter.strip()) != 1:
        raise BadArguments(f"keywords:letter_frequency: letter is {letter[:20]!r}, which is not one character")
    return compare(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


@constraint("language:response_language")
def response_language(text: str, *, language: str) -> Finding:
    """The model names this language first. A text without letters is in none; upstream passes it."""
    wanted = language.strip().lower()
    if not _CODE.fullmatch(wanted):
        raise BadArguments(f"language:response_language: language is {language[:20]!r}, which is no ISO 639 code")
    code, score = texts.language(text)
    return Finding(code == _CODES.get(wanted, wanted), {"language": code, "score": score})


@constraint("length_constraints:number_sentences")
def number_sentences(text: str, *, num_sentences: int, relation: Relation) -> Finding:
    """Sentences by the rule of `texts.sentences`; upstream's Punkt counts each "1." of a list as one."""
    return compare(texts.sentences(text), relation, num_sentences)


@constraint("length_constraints:number_words")
def number_words(text: str, *, num_words: int, relation: Relation) -> Finding:
    r"""Words as runs of `\w`, so "don't" is two, as upstream; underscores alone are none."""
    return compare(texts.words(text), relation, num_words)


@constraint("length_constraints:number_paragraphs")
def number_paragraphs(text: str, *, num_paragraphs: int) -> Finding:
    """Exactly so many paragraphs divided by `***`, each with a letter or digit; a divider at an end divides nothing."""
    parts = [texts.says_something(part) for part in text.split("***")]
    return Finding(all(parts[1:-1]) and sum(parts) == num_paragraphs, sum(parts))


@constraint("length_constraints:nth_paragraph_first_word")
def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> Finding:
    """Exactly so many paragraphs, divided by empty lines, and the n-th begins with the word, in any case.

    Blank ones do not count; upstream leaves them out of the number and not out of the place.
    """
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise BadArguments(
            f"length_constraints:nth_paragraph_first_word: paragraph {nth_paragraph} of {num_paragraphs} is none"
        )
    parts = [part for part in text.split("\n\n") if not texts.blank(part)]
    if len(parts) != num_paragraphs:
        return Finding(False, {"paragraphs": len(parts)})
    head = parts[nth_paragraph - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
    word = re.split(r"[.,?!'\"]", head, maxsplit=1)[0].lower()
    return Finding(word == first_word.strip().lower(), {"first_word": word[:40]})


@constraint("detectable_content:number_placeholders")
def number_placeholders(text: str, *, num_placeholders: int) -> Finding:
    """At least so many of the form [address], each on one line; upstream counts the empty "[]" and "[ ]" too."""
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count += texts.says_something(line[start:end])
            start = line.find("[", end)
    return Finding(count >= num_placeholders, count)


@constraint("detectable_content:postscript")
def postscript(text: str, *, postscript_marker: str) -> Finding:
    """The marker, in any case, not inside a word, with something behind it.

    Upstream takes the "p.s" inside a word ("maps. s.") and the bare marker, and lets "P.P.S." stand for "P.S.".
    """
    found = [match.end() for match in _marker(postscript_marker.strip()).finditer(text)]
    return Finding(bool(found) and texts.says_something(text[found[0] :]), len(found))


@functools.lru_cache(maxsize=256)
def _marker(marker: str) -> re.Pattern[str]:
    letters = [re.escape(letter) for letter in marker.rstrip(".").split(".")]
    if marker.upper() in ("P.S.", "P.S", "P.P.S", "P.P.S."):
        last = r"\." if marker.upper() == "P.S." else r"\.?(?!\w)"
        return re.compile(r"(?<![\w.])(?<!\Wp\.\s)" + r"\.\s?".join(letters) + last, re.IGNORECASE)
    return re.compile(rf"(?<!\w){re.escape(marker)}(?!\w)", re.IGNORECASE)


@constraint("detectable_format:number_bullet_lists")
def number_bullet_lists(text: str, *, num_bullets: int) -> Finding:
    """Exactly so many items of Markdown lists, marked by `* ` or `- `.

    Upstream also counts rules ("---"), negative numbers and lines that begin with an *emphasised* word.
    """
    count = sum(1 for _ in _BULLET.finditer(text))
    return Finding(count == num_bullets, count)


@constraint("detectable_format:constrained_response")
def constrained_response(text: str) -> Finding:
    """One of IFEval's three answers stands in the text; with two of them it is no answer, which upstream passes."""
    found = [option for option in OPTIONS if option in text]
    return Finding(len(found) == 1, {"answers": len(found)}, "hedging" if len(found) > 1 else None)


@constraint("detectable_format:number_highlighted_sections")
def number_highlighted_sections(text: str, *, num_highlights: int) -> Finding:
    """At least so many spans *so* or **so**, with no white space inside the stars, as Markdown has it.

    Upstream takes what stands between a bullet's star and the next one for a highlight, counts ***so*** twice, and
    passes spans of signs alone.
    """
    count = sum(1 for span in _EMPHASIS.finditer(text) if texts.says_something(span[0]))
    return Finding(count >= num_highlights, count)


@constraint("detectable_format:multiple_sections")
def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> Finding:
    """At least so many sections under the splitter and a number, each with another number and with something in it.

    Upstream counts every mention, so that "Section 1 Section 1" are two.
    """
    heads = list(_section(section_spliter.strip()).finditer(text))
    ends = [*(head.start() for head in heads[1:]), len(text)]
    filled = {head[1] for head, end in zip(heads, ends, strict=False) if texts.says_something(text[head.end() : end])}
    ok = len(filled) >= num_sections
    return Finding(ok, len(filled), "repeated" if not ok and len(heads) >= num_sections else None)


@functools.lru_cache(maxsize=256)
def _section(splitter: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(splitter)}\s?(\d+)")


@constraint("detectable_format:json_format")
def json_format(text: str) -> Finding:
    """The whole text is one JSON object or array, in a Markdown fence or not; upstream passes a bare number and NaN."""
    found = strictjson.read(strictjson.unfenced(text))
    if found.problem is not None:
        return Finding(False, found.problem, found.attack)
    return Finding(isinstance(found.value, dict | list), type(found.value).__name__)


@constraint("detectable_format:title")
def title(text: str) -> Finding:
    """A title in double angle brackets on one line, with a letter or a digit in it: <<so>>."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 1 and texts.says_something(line[start:end]):
            return Finding(True)
    return Finding(False)


@constraint("combination:two_responses")
def two_responses(text: str) -> Finding:
    """Two different answers with six stars between them; nothing blank but before the first and after the last.

    An answer has a letter or a digit; case, white space, what is unseen and punctuation at the ends make no other one.
    """
    parts = [" ".join(texts.UNSEEN.sub("", part).casefold().split()).strip(_ENDS) for part in text.split("******")]
    said = [part for part in parts if texts.says_something(part)]
    twice = len(said) == 2 and said[0] == said[1]
    ok = all(map(texts.says_something, parts[1:-1])) and len(said) == 2 and not twice
    return Finding(ok, len(said), "repeated" if twice else None)


@constraint("combination:repeat_prompt")
def repeat_prompt(text: str, *, prompt_to_repeat: str) -> Finding:
    """The request first, word for word in any case, then an answer; upstream passes the request alone."""
    said, request = text.strip(), prompt_to_repeat.strip()
    repeated = said.lower().startswith(request.lower())
    answered = texts.says_something(said[len(request) :])
    return Finding(repeated and answered, {"repeated": repeated}, "echo" if repeated and not answered else None)


@constraint("startend:end_checker")
def end_checker(text: str, *, end_phrase: str) -> Finding:
    """The last words are the phrase, in any case; quotation marks around the text are left out."""
    return Finding(text.strip().strip('"').lower().endswith(end_phrase.strip().lower()))


@constraint("startend:quotation")
def quotation(text: str) -> Finding:
    """Straight double quotation marks around the whole text."""
    said = text.strip()
    return Finding(len(said) > 1 and said[0] == '"' == said[-1])


@constraint("change_case:capital_word_frequency")
def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: Relation) -> Finding:
    """How many words are in capitals, by the rule of `texts.capital_words`."""
    return compare(texts.capital_words(text), capital_relation, capital_frequency)


@constraint("change_case:english_capital")
def english_capital(text: str) -> Finding:
    """No small letter, and English. Upstream's detector, unused to capitals, often names another language."""
    return _english(text, text.isupper())


@constraint("change_case:english_lowercase")
def english_lowercase(text: str) -> Finding:
    """No capital letter, and English."""
    return _english(text, text.islower())


def _english(text: str, case: bool) -> Finding:
    if not case:
        return Finding(False, {"case": False})
    code, score = texts.language(text)
    found: dict[str, Any] = {"language": code, "score": score}
    return Finding(code == "en", found)


@constraint("punctuation:no_comma")
def no_comma(text: str) -> Finding:
    """No comma of any script; upstream knows the ASCII one alone."""
    return Finding(_COMMAS.search(text) is None)
