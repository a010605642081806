"""The code of a response: its last fenced Python block, else the whole text.

Nothing is parsed as Python here: a hostile text can bring a parser down, so that happens inside the sandbox. A fence
that never closes runs to the end, as in a response that was cut off.
"""

from __future__ import annotations

import textwrap

#: What a fence may say for Python; with other languages the last block of any name counts.
PYTHON = ("python", "python3", "py", "py3")
#: Longest response that is looked at, in characters.
LONGEST = 1_000_000


def code_of(response: str, fences: tuple[str, ...] = PYTHON) -> str | None:
    """The code, as it stands; None where there is none at all. Unnamed blocks count where no block is named so."""
    if len(response) > LONGEST or not response.strip():
        return None
    blocks = _blocks(response)
    named = [text for name, text in blocks if name in fences]
    unnamed = [text for name, text in blocks if not name or not fences]
    if named or unnamed:
        return (named or unnamed)[-1]
    return None if blocks else response


def _blocks(response: str) -> list[tuple[str, str]]:
    """Fenced blocks in order: the fence's first word in lower case, and the text."""
    found: list[tuple[str, str]] = []
    lines: list[str] | None = None
    fence = name = ""
    for line in response.split("\n"):
        mark = line.strip()
        if lines is None:
            if mark.startswith("```"):
                fence = mark[: len(mark) - len(mark.lstrip("`"))]
                words = mark[len(fence) :].split()
                name, lines = (words[0].lower() if words else ""), []
        elif mark == fence:
            found.append((name, _text(lines)))
            lines = None
        else:
            lines.append(line)
    if lines is not None:
        found.append((name, _text(lines)))
    return found


def _text(lines: list[str]) -> str:
    """A block without the indentation of the list it stands in; a body that goes on with a prompt keeps its own."""
    text = "\n".join(lines) + "\n"
    first = next((line for line in lines if line.strip()), "")
    return textwrap.dedent(text) if first.lstrip().startswith(("def ", "class ", "import ", "from ", "@")) else text
