"""Conversations as text by a chat template, with the spans that the assistant says.

Two questions a text alone does not answer. *What does the loss count?* Where a template has `{% generation %}` blocks,
they say it. Else the conversation is rendered up to each assistant turn with the prompt for it, and up to its end; both
must be the beginning of the whole text, so that what lies between them is what a model says after that prompt. A turn
ends with the token that ends turns: the line end that many templates put behind it is not learned.

*Which special tokens are the template's?* Those that a message spells are letters. Where a message spells one, or
begins or ends with a part of one, it is rendered a second time with a stand-in, a character of no text, in the place of
one of the letters; both texts must agree everywhere else, and only what still reads as a special token there is one.

Not covered: a template that takes a message's text apart and puts text of its own between the parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jinja2
from jinja2.sandbox import SecurityError

from gristmill.dataops.chat.environment import Bounded, TooMuch
from gristmill.dataops.dataset import InputError

Loss = Literal["assistant", "completion"]
LOSSES = ("assistant", "completion")
Message = Mapping[str, Any]
_STAND_INS = (*range(0xE000, 0xE100), *range(0xF0000, 0xF0100))


class Unrenderable(ValueError):
    """A conversation that its template refuses or fails on; the message says how."""


@dataclass(frozen=True)
class Text:
    """A rendered text. `safe` has its length, and a stand-in where a message spells a special token; `targets` are
    [start, stop) spans in order."""

    text: str
    safe: str
    targets: tuple[tuple[int, int], ...] = ()


@dataclass
class Template:
    """A chat template, compiled. `name` is for messages; `variables` are the tokens it may write, such as `bos_token`;
    `specials` are the special tokens of its tokenizer. Raises InputError where it cannot be compiled.
    """

    source: str
    name: str
    variables: Mapping[str, str]
    specials: Sequence[str]
    _environment: Bounded = field(default_factory=Bounded)

    def __post_init__(self) -> None:
        try:
            self._program = self._environment.program(self.source)
        except (jinja2.TemplateError, TooMuch, RecursionError) as error:
            line = f", line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise InputError(f"chat template {self.name}{line} cannot be used: {_said(error)}") from None
        self.marks = re.compile("|".join(map(re.escape, sorted(self.specials, key=len, reverse=True))) or r"(?!)")
        self._spelled = re.compile(self.marks.pattern, re.IGNORECASE)
        self._heads = {token[:n].lower() for token in self.specials for n in range(1, len(token))}
        self._tails = {token[n:].lower() for token in self.specials for n in range(1, len(token))}
        self._first = {head for head in self._heads if len(head) == 1}
        self._last = {tail for tail in self._tails if len(tail) == 1}
        self._longest = max(map(len, self.specials), default=1)
        edges = sorted({edge for token in self.specials for edge in (token[0], token[-1])})
        # A text without any of these has no part of a special token, whatever its case; of letters, cases are many.
        self._edges = [] if any(not edge.isascii() or edge.isalpha() for edge in edges) else edges

    @property
    def generates(self) -> bool:
        """Whether it has generation blocks."""
        return self._environment.generates

    def prompt(self, messages: Sequence[Message], tools: Any = None, *, row: str = "") -> Text:
        """A conversation with what begins the assistant's next turn. Raises Unrenderable, and InputError."""
        messages, tools, stand_in, plain = self._guarded(messages, tools)
        safe = self._run(messages, tools, True, row)
        return Text(self._checked(safe, stand_in, plain, True, row), safe)

    def conversation(
        self, messages: Sequence[Message], tools: Any = None, *, loss: Loss = "assistant", row: str = ""
    ) -> Text:
        """A conversation with the spans of all assistant turns, or ("completion") of the last one.

        Raises Unrenderable where the template refuses the conversation; InputError where the template does not let its
        spans be known, or is refused itself. `row` names the conversation in messages.
        """
        messages, tools, stand_in, plain = self._guarded(messages, tools)
        safe = self._run(messages, tools, False, row)
        marked = self._environment.spans if self.generates else None
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        if loss == "completion":
            turns = turns[-1:]
        if not turns:
            targets = []
        elif marked is not None:
            targets = self._marked(safe, marked, messages[: turns[0]] if loss == "completion" else (), tools, row)
        else:
            targets = [self._turn(safe, messages, at, tools, row) for at in turns]
        text = self._checked(safe, stand_in, plain, False, row)
        return Text(text, safe, tuple(span for span in targets if span[0] < span[1]))

    def reply(self, prompt: Sequence[Message], message: Message, tools: Any = None, *, row: str = "") -> Text:
        """A prompt and a reply to it; the one target is what a model would say after the prompt."""
        messages, tools, stand_in, plain = self._guarded([*prompt, message], tools)
        safe = self._run(messages, tools, False, row)
        span = self._turn(safe, messages, len(messages) - 1, tools, row)
        return Text(self._checked(safe, stand_in, plain, False, row), safe, (span,))

    def _turn(self, safe: str, messages: Sequence[Message], at: int, tools: Any, row: str) -> tuple[int, int]:
        """The span of one assistant turn, proven: from the end of its prompt to its last special token."""
        before = self._run(messages[:at], tools, True, row)
        until = safe if at + 1 == len(messages) else self._run(messages[: at + 1], tools, False, row)
        stop = self._end(until, len(before))
        # What stands behind the end of a last turn, some templates write behind no other.
        goes_on = safe.startswith(until if self.marks.sub("", until[stop:]).strip() else until[:stop])
        if not (until.startswith(before) and goes_on):
            raise InputError(
                f"chat template {self.name}: in {row or 'a conversation'} the text before the assistant's turn "
                f"(message {at + 1} of {len(messages)}) is not how the whole conversation begins, so what the "
                "assistant says cannot be told from the rest: put {% generation %} and {% endgeneration %} around it "
                "in the template, up to and with what ends the turn; or learn the last turn only (loss 'completion')"
            )
        return len(before), stop

    def _end(self, text: str, start: int) -> int:
        """Where a turn ends that begins at `start` and is the text's last: behind the token that ends turns, or the
        last special token if that is missing, where nothing but white space and special tokens follows."""
        edge, ends = len(text), []
        for found in reversed(list(self.marks.finditer(text, start))):
            if text[found.end() : edge].strip():
                break
            edge = found.start()
            ends.append((found.group() == self.variables.get("eos_token"), found.end()))
        return next((end for known, end in reversed(ends) if known), ends[0][1] if ends else len(text))

    def _marked(
        self, safe: str, spans: list[tuple[int, str]], before: Sequence[Message], tools: Any, row: str
    ) -> list[tuple[int, int]]:
        """The spans of generation blocks, without those of the messages `before`."""
        skip = 0
        if before:
            self._run(before, tools, False, row)
            skip = len(self._environment.spans)
        targets = [(start, start + len(text)) for start, text in spans]
        if any(safe[start:stop] != text for (start, stop), (_, text) in zip(targets, spans, strict=True)):
            raise InputError(
                f"chat template {self.name}: a generation block stands inside a macro, a call or a `set`, where its "
                "place in the text is not known: write it into the loop over the messages"
            )
        if not any(start < stop for start, stop in targets[skip:]):
            raise InputError(
                f"chat template {self.name}: its generation blocks mark nothing in {row or 'a conversation'}, which "
                "has an assistant turn: put {% generation %} and {% endgeneration %} around what the assistant says"
            )
        return targets[skip:]

    def _run(self, messages: Sequence[Message], tools: Any, prompt: bool, row: str) -> str:
        environment = self._environment
        environment.begin(sum(len(value) for message in messages for value in message.values() if type(value) is str))
        pieces = []
        try:
            context = self._program.new_context(
                {
                    **self.variables,
                    "messages": messages,
                    "tools": tools,
                    "documents": None,
                    "add_generation_prompt": prompt,
                }
            )
            for piece in self._program.root_render_func(context):
                pieces.append(piece)
                environment.at += len(piece)
        except (TooMuch, SecurityError) as error:
            raise InputError(
                f"chat template {self.name} is refused at {row or 'a conversation'}: {_said(error)}"
            ) from None
        except Exception as error:  # whatever Python raises for an expression that does not fit this conversation
            dated = ": a date of today would show in the data; write one into the template"
            raise Unrenderable(_said(error) + (dated if "strftime_now" in str(error) else "")) from None
        return "".join(pieces)

    def _guarded(
        self, messages: Sequence[Message], tools: Any
    ) -> tuple[Sequence[Message], Any, str, tuple[Sequence[Message], Any]]:
        """Messages and tools with stand-ins, the stand-in ("" where none is needed), and both as they were."""
        plain = (messages, tools)
        strings = _strings(plain)
        if not any(map(self._spells, strings)):
            return messages, tools, "", plain
        used = set().union(*strings, self.source)
        stand_in = next((chr(code) for code in _STAND_INS if chr(code) not in used), "")
        if not stand_in:
            raise Unrenderable(
                "it spells a special token, and uses every character that could stand in for its letters"
            )
        guarded = _mapped(plain, lambda text: self._guard(text, stand_in))
        return guarded[0], guarded[1], stand_in, plain

    def _spells(self, text: str) -> bool:
        """Whether a text holds a special token, or begins or ends with a part of one."""
        for edge in self._edges:
            if edge in text:
                break
        else:
            if self._edges:
                return False
        if self._spelled.search(text) is not None:
            return True
        text = text.strip()
        tail, head = text[-self._longest :].lower(), text[: self._longest].lower()
        return (any(mark in tail for mark in self._first) and self._cut(tail) > 0) or (
            any(mark in head for mark in self._last) and self._begun(head) > 0
        )

    def _cut(self, tail: str) -> int:
        """Characters at the end that begin a special token."""
        return next((n for n in range(len(tail), 0, -1) if tail[-n:] in self._heads), 0)

    def _begun(self, head: str) -> int:
        """Characters at the start that end a special token."""
        return next((n for n in range(len(head), 0, -1) if head[:n] in self._tails), 0)

    def _guard(self, text: str, stand_in: str) -> str:
        while self._spelled.search(text) is not None:  # again, since tokens may overlap
            text = self._spelled.sub(lambda found: stand_in + found.group()[1:], text)
        left, right = len(text) - len(text.lstrip()), len(text.rstrip())
        while (size := self._cut(text[left:right][-self._longest :].lower())) > 0:
            text = text[: right - size] + stand_in + text[right - size + 1 :]
        while (size := self._begun(text[left:right][: self._longest].lower())) > 0:
            text = text[: left + size - 1] + stand_in + text[left + size :]
        return text

    def _checked(self, safe: str, stand_in: str, plain: tuple[Sequence[Message], Any], prompt: bool, row: str) -> str:
        """The text as it reads, proven to be the safe one but for the stand-ins."""
        if not stand_in:
            return safe
        text = self._run(*plain, prompt, row)
        if len(text) != len(safe) or any(a != b and b != stand_in for a, b in zip(text, safe, strict=True)):
            raise Unrenderable("it spells a special token, and the template treats it as more than letters")
        return text


def _strings(value: Any) -> list[str]:
    """All strings in it, names too."""
    found: list[str] = []
    left = [value]
    for item in left:  # which grows
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, Mapping):
            found += item
            left += item.values()
        elif isinstance(item, (list, tuple)):
            left += item
    return found


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The same with every string changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return value


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or calls itself"
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, (jinja2.TemplateError, TooMuch)) else f"{type(error).__name__}: {text}"
