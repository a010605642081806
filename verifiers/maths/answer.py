r"""The one final answer of a response: its box, else what it states to be the answer, else how its last line ends.

What was only thought (`<think>...</think>`) is no answer. A box that cannot be closed is no box. Everything is linear
in the response.

The law: exactly one place of a response counts, and where it is does not depend on the gold answer. Not covered:
whether the answer is right, and boxes that say different things, which are all handed over (see verify.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What was found and where: "boxed", "tagged", "stated", "last".

    `groups` are boxes apart from each other (else there is one); a group's members stood side by side.
    """

    groups: tuple[tuple[str, ...], ...]
    how: str


def _one(text: str, how: str) -> Answer:
    return Answer(((text,),), how)


_BOX_TOKENS = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(r"[^\s${}\\.,;]+")
#: What stands in a box that was left open for an answer.
EMPTY = re.compile(r"(?:\\phantom\s*\{[^{}]*\}|\\[,;:! ]|\s|\\square|\\ldots|\.\.\.|\?|_)*")
_BETWEEN_BOXES = re.compile(r"(?:[\s,;$&]|\\[,;:! ()\[\]]|\\q?quad|\\text\s*\{\s*(?:and|or)\s*,?\s*\}|\band\b|\bor\b)*")
_STATED = re.compile(
    r"answers?\b\W{0,4}(?:\s+(?:to|for|of|in)\b[^.:\n]{0,120}?)?"
    r"(?:\s*\b(?:is|are|was|(?:would|should|will|must) be)\b|\s*[:=：])"
    r"[\s*_]*:?[\s*_]*(?:\b(?:therefore|thus|equal to|simply|indeed|exactly|clearly|just|"
    r"still|approximately|about|only)\b)?[\s*_]*"
    r"(?P<answer>\\\[\s*[^\n]+?\s*\\\]|[^\n]+)",
    re.IGNORECASE,
)
_SHORT_STATED = re.compile(r"\s*\**A\s*:\**\s*(?P<answer>\S[^\n]*)")
_SENTENCE_END = re.compile(r"(?<=[\w)}\]%$*!])[.](?:\s|$)|\s+I hope it is correct|\s*(?:<\||</)")
_MATHS = re.compile(r"\$\$([^$]+)\$\$|(?<![\\$])\$([^$\n]+?)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_NUMBER = re.compile(
    r"(?<![\w.])(?<![\d],)[-−]?[$€£]?\s?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.?|\.(?=\d))\d*(?:/\d+)?(?:\s?%|\\%)?(?![\w]*[A-Za-z_])"
)
_PROSE = re.compile(r"(?<![\\A-Za-z{])(?!and\b|or\b|sqrt\b|frac\b|sin\b|cos\b|tan\b|log\b|mod\b)[A-Za-z]{3,}")
_QUANTITY = re.compile(r"[-+$€£]?\s?[\d.,/]+\s*[A-Za-z²³]+(?:\s[A-Za-z]+){0,2}[²³]?\.?")
_LEADING = re.compile(
    r"(?:(?:thus|so|therefore|hence|then|finally|and|we (?:get|have|find)|that is|this gives|it is|it's)\b[\s,:]*)+",
    re.IGNORECASE,
)
_LOOK_BACK, _MOST_TIED = 6, 100
#: What ties one value to the next, so that both are said: `5 or 6`, `either 5 apples or 6`, `from 4 to 5`.
_TIE = r"\s*(?:[,;/]|\b(?:and|or|to|nor)\b)+(?:\s*\b(?:and|or|even|maybe|perhaps|possibly|rather|might be|but)\b)*\s*"
_TIED = re.compile(_TIE)
_TIED_NUMBERS = re.compile(rf"(?:{_TIE}|\s*(?:[A-Za-z]+\s+){{1,2}}(?:or|to)\s+)")
_TAIL = re.compile(
    r"\s?(?:,?\s*\(?\b(?:because|since|which|as|so that)\b|,\s*(?:that is|i\.e\.)|"
    r"\s[-–—]\s(?=[A-Za-z]{3})|!(?=\s+[A-Z])).*",
    re.DOTALL,
)
_DOUBT = re.compile(r"\b(?:or|maybe|perhaps|possibly|might|may|could|otherwise)\b[^.\n]{0,40}?\d")
_DENIED = re.compile(
    r"(?:\bnot|n[’']t|\bnever|"
    r"\bother than|\banything but|\b(?:more|less|greater|fewer|larger|smaller) than|\bnot equal to)"
    r"(?:\s+(?:exactly|equal to|just))?\s*\W{0,3}$",
    re.IGNORECASE,
)
_FENCE = re.compile(
    r"^[ \t]{0,9}(?:```\w*|-{3,}|\\end\{[a-z*]+\}|"
    r"\\begin\{(?:align|equation|gather)\*?\})[ \t]{0,9}$",
    re.MULTILINE,
)
_OR_NEXT = re.compile(r"[ \t.]{0,9}\n\s{0,9}or\b[^\n]*\d[^\n]*")
_COMPUTED = re.compile(r"<<[^<>\n]*>>")
_DISPLAY = re.compile(r"(?:\\\[|\$\$)\s{0,9}\n\s{0,9}([^\n$\\][^\n]*?|\\[A-Za-z][^\n]*?)\s{0,9}\n\s{0,9}(?:\\\]|\$\$)")


def final(prompt: str, response: str) -> Answer | None:
    """The final answer of a response to a prompt, or None."""
    text = _spoken(prompt, response)
    if "<answer>" in text:
        inner = text.rpartition("<answer>")[2].partition("</answer>")[0]
        found = _boxes(inner)
        said = stated(inner) if "answer" in inner.lower() else None
        return found or said or (_one(inner.strip(), "tagged") if inner.strip() else None)
    return _boxes(text) or stated(text) or _last(text)


def _spoken(prompt: str, response: str) -> str:
    """What comes after the thinking; nothing where the thinking does not end."""
    for tag in ("think", "thinking"):
        head, closed, tail = response.rpartition(f"</{tag}>")
        if closed:
            response = tail
        elif prompt.rstrip().endswith(f"<{tag}>"):
            return ""
        response = response.partition(f"<{tag}>")[0]
    return response


def _boxes(text: str) -> Answer | None:
    start = text.find("\\boxed")
    other = text.find("\\fbox")
    start = other if start < 0 or 0 <= other < start else start
    if start < 0:
        return None
    groups: list[list[str]] = []
    end_of_last = -1
    for begin, end, content in top_boxes(text, start):
        if EMPTY.fullmatch(content):
            continue
        near = 0 <= begin - end_of_last < 40 and groups
        if near and _BETWEEN_BOXES.fullmatch(text, end_of_last, begin):
            groups[-1].append(content)
        else:
            groups.append([content])
        end_of_last = end
    return Answer(tuple(dict.fromkeys(map(tuple, groups))), "boxed") if groups else None


def top_boxes(text: str, start: int = 0) -> list[tuple[int, int, str]]:
    """(start, end, content) of every box that is closed and lies in no other closed box."""
    found: list[tuple[int, int, str]] = []
    opened: list[tuple[int, int]] = []  # (start of the box or -1 for a plain brace, start of its content)
    box = -1
    for token in _BOX_TOKENS.finditer(text, start):
        kind = token[0]
        if kind[1:2] in ("b", "f") and len(kind) > 2:
            box = token.start()
            if text[token.end() : token.end() + 1] != "{":
                bare = _BARE_BOX.match(text, token.end())
                if bare is not None:
                    found.append((box, bare.end(), bare[0]))
                box = -1
        elif kind == "{":
            opened.append((box, token.end()))
            box = -1
        elif kind == "}" and opened:
            begin, content = opened.pop()
            if begin >= 0:
                while found and found[-1][0] >= begin:
                    found.pop()
                found.append((begin, token.end(), text[content : token.start()]))
    return found


def stated(text: str) -> Answer | None:
    """What a text says its answer is: "the answer is 5", "#### 5", a last line "A: 5"."""
    if "\n" in text and ("$$" in text or "\\[" in text):
        text = _DISPLAY.sub(r"\\[\1\\]", text)
    marked = text.rfind("####")
    lowered = text.lower()
    at = len(lowered)
    for _ in range(_LOOK_BACK):
        at = lowered.rfind("answer", 0, at)
        if at <= marked:
            break
        found = _STATED.match(text, at) if len(lowered) == len(text) else _STATED.search(text, at)
        if found is not None:
            also = _OR_NEXT.match(text, found.end())
            return _trimmed(found["answer"] + (also[0].replace("\n", " ") if also else ""))
    if marked >= 0:
        line = text[marked:].lstrip("# \t").partition("\n")[0].strip()
        return _one(line, "stated") if line else None
    stripped = text.rstrip()
    short = _SHORT_STATED.fullmatch(stripped, stripped.rfind("\n") + 1)
    return _one(short["answer"].strip(), "stated") if short else None


def _trimmed(stated: str) -> Answer | None:
    """A stated answer without the rest of its sentence: its maths where it begins with some."""
    stated = stated.strip()
    if stated[:1] in ("$", "\\"):
        found = _tied(stated)
        if found is not None:
            return _one(found, "stated")
    stated = stated[: tail.start()] if (tail := _TAIL.search(stated, 1)) else stated
    end = _SENTENCE_END.search(stated)
    stated = (stated[: end.start()] if end else stated).strip(" *_")
    if len(_PROSE.findall(stated)) > 3 and not _DOUBT.search(stated):
        number = _NUMBER.match(stated)
        stated = number[0] if number and any(char.isdigit() for char in number[0]) else stated
    return _one(stated, "stated") if stated else None


def _tied(text: str) -> str | None:
    """The maths that a text begins with and what is tied to it (`$5$ or $6$`), or None: also for a very long list."""
    said, at, tie = "", 0, ""
    for _ in range(_MOST_TIED):
        found = _MATHS.match(text, at)
        if found is None:
            return said or None
        said += tie + next(group for group in found.groups() if group is not None).strip()
        between = _TIED.match(text, found.end())
        if between is None:
            return said
        at = between.end()
        tie = f" {between[0].strip()} " if between[0].strip() in (",", "and", "or", "/") else " or "
    return text


def _last(text: str) -> Answer | None:
    """How the last lines end: an expression alone on its line, else the last maths or the last number in it."""
    if "```" in text or "---" in text or "\\end{" in text:
        text = _FENCE.sub("", text)
    text = _DISPLAY.sub(r"\\[\1\\]", text) if "\n" in text and ("$$" in text or "\\[" in text) else text
    end = len(text.rstrip())
    for _ in range(_LOOK_BACK):
        start = text.rfind("\n", 0, end) + 1
        line = text[start:end].strip()
        end = len(text[:start].rstrip()) if start else 0
        if line in ("$", "$$", "\\]", "\\["):
            return None
        found = _in_line(line, alone=not start and not end) if line else None
        if found is not None:
            return _one(found, "last")
        if not end:
            break
    return None


def _in_line(line: str, alone: bool) -> str | None:
    line = line[-4000:]
    line = line[found.end() :] if (found := _LEADING.match(line)) else line
    line = _COMPUTED.sub("", line) if "<<" in line else line
    maths = [found for found in _MATHS.finditer(line) if not _money(found)]
    if maths and len(maths[-1][0]) + 2 >= len(line.strip(" .")):
        return next(group for group in maths[-1].groups() if group is not None).strip()
    said = maths and any(char.isalpha() for char in _MATHS.sub("", line))
    if not said and (not _PROSE.search(line) or _QUANTITY.fullmatch(line)):
        return line
    numbers = [found for found in _NUMBER.finditer(line) if any(char.isdigit() for char in found[0])]
    if maths and (not numbers or numbers[-1].start() < maths[-1].end()):
        return _ending(line, maths, _TIED) or next(group for group in maths[-1].groups() if group is not None).strip()
    if numbers:
        return _ending(line, numbers, _TIED_NUMBERS) or numbers[-1][0].strip()
    return line if (alone and len(line) <= 200) or (" " not in line and len(line) <= 40) else None


def _ending(line: str, found: list[re.Match[str]], tie: re.Pattern[str]) -> str | None:
    """The last of several values with all that are tied to it, or what denies it; None where it stands for itself."""
    first = len(found) - 1
    while first and tie.fullmatch(line, found[first - 1].end(), found[first].start()):
        first -= 1
    denied = _DENIED.search(line[max(0, found[first].start() - 60) : found[first].start()])
    if denied:
        return f"{denied[0]}{found[first][0]}"
    values = [next((group for group in one.groups() if group is not None), one[0]).strip() for one in found[first:]]
    names = {value.partition("=")[0].strip() for value in values if "=" in value}
    if len(values) == 1 or (len(names) == len(values) and all("=" in value for value in values)):
        return None  # a = 2 and b = 3: two answers to two questions, of which the last counts
    return (" or " if " or " in line[found[first].end() : found[-1].start()] else ", ").join(values)


def _money(found: re.Match[str]) -> bool:
    """`$2 and $` is no maths."""
    inner = found[2]
    return inner is not None and (inner[-1] == " " or re.match(r"[\d.,]+ [a-z]{2,}", inner) is not None)
