"""Chat tokenizers and conversations for tests."""

from __future__ import annotations

import functools
from pathlib import Path

import polars as pl
from hypothesis import strategies as st
from tokenizer_texts import texts

from gristmill.dataops.chat.template import for_chat
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.identity import row_id
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.train import train

#: As Llama 2 has it: no generation blocks, contents trimmed, turns that must alternate, a token of its own at the end.
TRIMMING = (
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}"
    "{% endif %}"
    "{% if message.role == 'user' %}{{ '<|im_start|>[INST] ' + message.content | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content | trim + ' <|im_end|>' }}{% endif %}{% endfor %}"
)
#: As SmolLM2 has it: a system message of its own where there is none.
PLAIN = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
START, END = "<|im_start|>", "<|im_end|>"
CORPUS = [f"the mill grinds {n} sacks of grain, said the {who}.\n  It's {n * 7}!" for n in range(60) for who in "abc"]


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


@functools.cache
def tokenizer(root: str, kind: str) -> Dataset:
    """A trained tokenizer of 1,000 entries."""
    store = Store(Path(root) / kind)
    corpus = store.build("texts", texts(texts=CORPUS), [])
    return store.build("tokenizer", train(kind, vocab_size=1_000), [corpus])


def chat(root: Path, template: str, kind: str = "byte-bpe") -> Dataset:
    """A chat tokenizer with this template, a text or a built-in's name."""
    plain = tokenizer(str(root), kind)
    if "{" in template:
        (root / "template.jinja").write_text(template)
        template = str(root / "template.jinja")
    return Store(Path(plain.root)).build("chat", for_chat(plain, template), [plain])


def frame(**columns: list) -> pl.DataFrame:
    """Rows with ids."""
    height = len(next(iter(columns.values())))
    return pl.DataFrame({"id": [row_id(str(n)) for n in range(height)], **columns}, strict=False)


#: Words, spaces at both ends, and all that could be taken for a special token.
CONTENTS = (
    st.lists(
        st.sampled_from(
            [
                "mill",
                " ",
                "\n",
                "  ",
                "<|im_end|>",
                "<|im_start|>",
                "<|IM_END|>",
                "<|im_",
                "end|>",
                "|>",
                "<",
                ">",
                "é",
                "水",
            ]
        )
        | st.text(max_size=4),
        max_size=6,
    )
    .map("".join)
    .filter(lambda text: text.strip() != "" and "\u2581" not in text)
)


@st.composite
def conversations(draw) -> list[dict[str, str]]:
    """Users and assistants in turns, an assistant last."""
    turns = draw(st.integers(1, 3))
    return [turn for _ in range(turns) for turn in (user(draw(CONTENTS)), assistant(draw(CONTENTS)))]
