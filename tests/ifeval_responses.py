"""For each of IFEval's instructions a response that just keeps it and one that just breaks it, and real responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

#: Has no keyword, capital, comma, bracket, star or letter that an instruction of IFEval's asks for or forbids.
NOTHING = "77"
SENTENCE = "We walk along the river to the old mill."


def instructions(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ids and arguments of all instructions in a file of IFEval's."""
    for row in rows(path):
        yield from zip(row["instruction_id_list"], row["kwargs"], strict=True)


def rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def real_responses(path: Path) -> list[str]:
    """What models answered, chosen and rejected, in a file of preference pairs."""
    return [pair[side]["value"] for pair in json.loads(path.read_text()) for side in ("chosen", "rejected")]


def spoken(texts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of (language code, text) the head of the longest in each language: Vietnamese has one in Chinese characters."""
    found: dict[str, str] = {}
    for code, text in texts:
        found[code] = max(found.get(code, ""), text, key=len)
    return {code: text[:1_000] for code, text in found.items()}


def counted(make: Callable[[int], str], relation: str, limit: int) -> tuple[str, str]:
    """Texts with as many of something as just keeps a comparison, and just breaks it."""
    return (make(limit), make(limit - 1)) if relation == "at least" else (make(limit - 1), make(limit))


def kept_and_broken(name: str, kwargs: Mapping[str, Any], speak: Callable[[str], str]) -> tuple[str, str]:
    """A response that keeps an instruction and one that breaks it; `speak` gives a text in a language of a code."""
    kind = name.removeprefix("en:")
    ask = {key: value for key, value in kwargs.items() if value is not None}
    if kind == "keywords:existence":
        words = ask["keywords"]
        return f"{NOTHING} {' '.join(words)}.", " ".join([NOTHING, *words[1:]])
    if kind == "keywords:frequency":
        return counted(lambda n: " ".join([NOTHING] + [ask["keyword"].title()] * n), ask["relation"], ask["frequency"])
    if kind == "keywords:forbidden_words":
        return " ".join(
            f"x{word}x" for word in ask["forbidden_words"]
        ), f"{NOTHING} {ask['forbidden_words'][-1].upper()}."
    if kind == "keywords:letter_frequency":
        make = lambda n: " ".join([NOTHING] + [ask["letter"]] * n)  # noqa: E731
        return counted(make, ask["let_relation"], ask["let_frequency"])
    if kind == "language:response_language":
        return speak(ask["language"]), speak("fr" if ask["language"] != "fr" else "de")
    if kind == "length_constraints:number_sentences":
        return counted(lambda n: " ".join([SENTENCE] * n) or NOTHING, ask["relation"], ask["num_sentences"])
    if kind == "length_constraints:number_words":
        return counted(lambda n: ", ".join(["word"] * n) or "...", ask["relation"], ask["num_words"])
    if kind == "length_constraints:number_paragraphs":
        n = ask["num_paragraphs"]
        return "\n***\n".join([SENTENCE] * n), "\n***\n".join([SENTENCE] * (n + 1))
    if kind == "length_constraints:nth_paragraph_first_word":
        n, place, word = ask["num_paragraphs"], ask["nth_paragraph"], ask["first_word"]
        parts = [f"{word.title()}, it is so." if k == place else SENTENCE for k in range(1, n + 1)]
        return "\n\n".join(parts), "\n\n".join(part.replace(word.title(), f"Un{word}") for part in parts)
    if kind == "detectable_content:number_placeholders":
        return counted(lambda n: " ".join([NOTHING] + ["[name]"] * n), "at least", ask["num_placeholders"])
    if kind == "detectable_content:postscript":
        return f"{SENTENCE}\n\n{ask['postscript_marker']} {SENTENCE}", SENTENCE
    if kind == "detectable_format:number_bullet_lists":
        n = ask["num_bullets"]
        return "\n".join([SENTENCE] + ["* One thing."] * n), "\n".join([SENTENCE] + ["- One thing."] * (n + 1))
    if kind == "detectable_format:constrained_response":
        return "My answer is maybe.", "My answer is perhaps."
    if kind == "detectable_format:number_highlighted_sections":
        return counted(lambda n: " ".join([NOTHING] + ["*so much*"] * n), "at least", ask["num_highlights"])
    if kind == "detectable_format:multiple_sections":
        head = ask["section_spliter"]
        make = lambda n: "\n".join([NOTHING] + [f"{head} {k}\n{SENTENCE}" for k in range(1, n + 1)])  # noqa: E731
        return counted(make, "at least", ask["num_sections"])
    return _fixed(kind, ask)


def _fixed(kind: str, ask: Mapping[str, Any]) -> tuple[str, str]:
    """Those that count nothing."""
    if kind == "detectable_format:json_format":
        return '```json\n{"river": ["mill", 1.5, null]}\n```', '{"river": ["mill", 1.5, null}'
    if kind == "detectable_format:title":
        return f"<<The Mill>>\n{SENTENCE}", f"<The Mill>\n{SENTENCE}"
    if kind == "combination:two_responses":
        return f"{SENTENCE}\n******\n{NOTHING}", f"{SENTENCE}\n******\n{SENTENCE}"
    if kind == "combination:repeat_prompt":
        return f"{ask['prompt_to_repeat']}\n\n{SENTENCE}", f"{SENTENCE}\n\n{ask['prompt_to_repeat']}"
    if kind == "startend:end_checker":
        return f"{SENTENCE} {ask['end_phrase']}", f"{SENTENCE} {ask['end_phrase']} {NOTHING}"
    if kind == "startend:quotation":
        return f'"{SENTENCE}"', f'"{SENTENCE}" {NOTHING}'
    if kind == "change_case:capital_word_frequency":
        make = lambda n: " ".join(["Quiet"] + ["LOUD"] * n)  # noqa: E731
        return counted(make, ask["capital_relation"], ask["capital_frequency"])
    if kind == "change_case:english_capital":
        return SENTENCE.upper(), SENTENCE
    if kind == "change_case:english_lowercase":
        return SENTENCE.lower(), SENTENCE
    if kind == "punctuation:no_comma":
        return SENTENCE, SENTENCE.replace("river", "river,")
    raise LookupError(kind)
