"""Words as phrase rules want them: lower case, disguises undone, contractions spelt out, sentences told apart.

Undone are: zero-width characters and combining marks, full-width and other compatibility forms, Cyrillic and Greek
letters that look Latin, digits and signs for letters inside a word ("b0mb", "k!ll", "$arin"), letters set apart
("b o m b", "b.o.m.b") and letters held for long ("bommmb"). Not undone are letters left out, swapped or starred
("b*mb"), words cut in two ("bo mb"), other spellings, encodings, scripts and languages.

The law: work is linear in the text. Every character is folded by itself, through a table filled as characters come up,
so no run of combining marks is ever put in order.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator

#: The end of a sentence among the words.
STOP = "."

#: Letters of other scripts that are drawn like a Latin one: Cyrillic, Greek, others.
_LOOKALIKES = dict(zip("авекмнорстухіјѕԁԛԝһӏαβεικνορτυχωηıɡɑ", "abekmhopctyxijsdqwhlabeikvoptuxwniga", strict=True))
#: Letters of Hangul that show nothing.
_FILLERS = "\u115f\u1160\u3164\uffa0"
_PLAIN = {"‘": "'", "’": "'", "ʼ": "'", "′": "'", "`": "'", "“": '"', "”": '"', "…": ".", "。": "."}

_LEET = str.maketrans("0134578@$!", "oieastbasi")
_LEET_L = str.maketrans("0134578@$!", "oleastbasl")

_GAP = re.compile(r"\n[ \t\r]*\n")
_APART = re.compile(r"(?<![a-z0-9])(?:[a-z0-9@$][ .*_-]){2,}[a-z0-9@$](?![a-z0-9])")
_TOKEN = re.compile(r"[a-z0-9@$][a-z0-9@$']*+(?:![a-z0-9@$']++)*+|[.?!;]")
_HELD = re.compile(r"([a-z])\1\1")
_HELD_RUN = re.compile(r"([a-z])\1{2,}")

_VERBS = (
    "do", "does", "did", "is", "are", "was", "were", "would", "could", "should", "has", "have", "had", "must", "need",
)  # fmt: skip
_PRONOUNS = ("that", "it", "he", "she", "here", "there", "what", "how", "where", "who")
#: Contractions, with and without their apostrophe, where the latter is no other word.
_SPELT: dict[str, tuple[str, ...]] = {
    **{f"{word}{end}": (word, "not") for word in _VERBS for end in ("n't", "nt")},
    **{f"{word}'re": (word, "are") for word in ("you", "we", "they")},
    **{f"{word}'ve": (word, "have") for word in ("i", "you", "we", "they")},
    **{f"{word}'ll": (word, "will") for word in ("i", "you", "we", "they", "he", "she", "it", "that")},
    **{f"{word}'d": (word, "would") for word in ("i", "you", "we", "they", "he", "she", "it")},
    **{f"{word}'s": (word, "is") for word in _PRONOUNS},
    "can't": ("can", "not"), "cant": ("can", "not"), "cannot": ("can", "not"), "won't": ("will", "not"),
    "wont": ("will", "not"), "shan't": ("shall", "not"), "i'm": ("i", "am"), "im": ("i", "am"), "ive": ("i", "have"),
    "ima": ("i", "will"), "gonna": ("going", "to"), "wanna": ("want", "to"), "let's": ("let", "us"),
    "lets": ("let", "us"), "whats": ("what", "is"), "hows": ("how", "is"), "thats": ("that", "is"), "u": ("you",),
    "pls": ("please",), "neighbour": ("neighbor",), "neighbours": ("neighbors",), "programme": ("program",),
}  # fmt: skip


class _Folds(dict[int, str | None]):
    """What becomes of each character, found when it first comes up."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        plain = _PLAIN.get(character)
        if plain is None:
            kind = unicodedata.category(character)
            if kind in ("Mn", "Me", "Cf", "Cs") or character in _FILLERS:
                plain = ""
            else:
                parts = unicodedata.normalize("NFKD", character).lower()
                plain = "".join(_LOOKALIKES.get(part, part) for part in parts if unicodedata.category(part) != "Mn")
        self[code] = plain or None
        return self[code]


_FOLDS = _Folds()


def folded(text: str) -> str:
    """The text in lower case, without marks and zero-width characters, look-alikes made Latin."""
    return text.lower() if text.isascii() else text.translate(_FOLDS).lower()


def blank(text: str) -> bool:
    """Whether a text holds no letter and no digit that can be seen."""
    return not any(map(str.isalnum, folded(text)))


def words(text: str, known: Collection[str] = ()) -> list[str]:
    """The words of a text and STOP where a sentence ends; digits are read as letters where that gives a known word."""
    text = folded(text)
    text = _APART.sub(lambda match: _together(match[0], known), _GAP.sub(" . ", text))
    held = _HELD.search(text) is not None
    found: list[str] = []
    for token in _TOKEN.findall(text):
        spelt = _SPELT.get(token)
        if spelt is not None:
            found += spelt
        elif token.isalpha():
            found.append(token if not held else _unheld(token, known))
        elif token in "?!;":
            found.append(STOP)
        else:
            found.append(_mended(token, known))
    return found


def sentences(found: list[str]) -> Iterator[list[str]]:
    """The runs of words between STOPs."""
    first = 0
    for at, word in enumerate(found):
        if word == STOP:
            if at > first:
                yield found[first:at]
            first = at + 1
    if first < len(found):
        yield found[first:]


def any_of(phrases: str) -> str:
    """A group of a regular expression for one of the phrases, which are separated by a comma and space or new line."""
    return "(?:" + "|".join(re.split(r",\s+", phrases.strip())) + ")"


def _together(letters: str, known: Collection[str]) -> str:
    """Letters set apart as one word, "a" and "i" before it left alone where that gives a known one."""
    word = re.sub(r"[ .*_-]", "", letters)
    return f"{word[0]} {word[1:]}" if word not in known and word[0] in "ai" and word[1:] in known else word


def _unheld(token: str, known: Collection[str]) -> str:
    """A word with held letters as known with one of them, or with two."""
    if token in known or not _HELD.search(token):
        return token
    for letters in (r"\1", r"\1\1"):
        if (tried := _HELD_RUN.sub(letters, token)) in known:
            return tried
    return token


def _mended(token: str, known: Collection[str]) -> str:
    """A token that is no plain word: an apostrophe taken off, signs and digits read as letters where that is known."""
    token = token.rstrip("'")
    bare = token.removesuffix("'s")
    if bare.isalpha() or bare in known or bare.isdigit():
        return bare
    for table in (_LEET, _LEET_L):
        if (tried := bare.translate(table).replace("'", "")) in known:
            return tried
    return bare
