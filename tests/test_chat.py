"""Rendering: transformers' text for released templates, spans that are what the assistant says, no token by text."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from chatting import END, PLAIN, TRIMMING, assistant, chat, conversations, user
from hypothesis import given, settings

from gristmill.dataops.chat.render import Template, Unrenderable
from gristmill.dataops.chat.template import BUILT_IN
from gristmill.dataops.chat.tokens import opened
from gristmill.dataops.dataset import InputError

CHATML = (BUILT_IN / "chatml.jinja").read_text()
VARIABLES = {"bos_token": "<s>", "eos_token": END, "pad_token": "<pad>", "unk_token": "<unk>"}
SPECIALS = ["<|im_start|>", END, "<|endoftext|>"]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {
    "type": "object", "properties": {"x": {"type": "integer", "description": "n"}}, "required": ["x"]}}}  # fmt: skip
TALKS = {
    "one": ([user(" ask-1  "), assistant("say-1\n")], None),
    "two": (
        [{"role": "system", "content": "Be."}, user("ask-1"), assistant("say-1"), user("ask-2"), assistant("say-2")],
        None,
    ),
    "tools": (
        [user("ask-1"), {**assistant(""), "tool_calls": [CALL]}, {"role": "tool", "name": "f", "content": "3"},
         assistant("say-2")],
        [TOOL],
    ),
}  # fmt: skip


def template(source: str, name: str = "test") -> Template:
    return Template(source, name, VARIABLES, SPECIALS)


def said(text) -> list[str]:
    return [text.text[start:stop] for start, stop in text.targets]


# ---- transformers' text and spans


def published() -> list[Path]:
    """The chat templates of released models that trl carries."""
    found = importlib.util.find_spec("trl")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return [path for place in places for path in sorted(Path(place).glob("chat_templates/*.jinja"))]


@pytest.mark.parametrize("path", [*published(), BUILT_IN / "chatml.jinja"], ids=lambda path: path.stem)
def test_templates_of_released_models_give_transformers_text_and_spans(path):
    from transformers.utils.chat_template_utils import render_jinja_template

    source = path.read_text()
    if "strftime_now" in source:  # a day in the text: only those that can do without render, and otherwise
        source = source.replace("strftime_now is defined", "false")
    specials = sorted(set(re.findall(r"<\|[^|<>\s{}']+\|>|<(?:start|end)_of_turn>|</s>|<s>|<｜[^｜]*｜>", source)))
    ours, compared = Template(source, path.stem, VARIABLES, specials), 0
    for messages, tools in TALKS.values():
        try:
            theirs, spans = render_jinja_template(
                [copy.deepcopy(messages)], tools=tools, chat_template=source, return_assistant_tokens_mask=True,
                **VARIABLES,
            )  # fmt: skip
        except Exception:  # this template does not know tools, or no list of them
            with pytest.raises((Unrenderable, InputError)):
                ours.conversation(messages, tools)
            continue
        try:
            found = ours.conversation(messages, tools)
        except InputError as error:  # it changes what it wrote before as a conversation goes on
            assert "generation" in str(error) and not ours.generates
            continue
        except Unrenderable as error:
            assert "strftime_now" in str(error)
            continue
        assert found.text == theirs[0]
        compared += 1
        if ours.generates:
            assert found.targets == tuple((start, stop) for start, stop in spans[0] if start < stop)
        else:
            marked = "".join(said(found))
            assert "ask-" not in marked and re.findall("say-.", marked) == re.findall("say-.", found.text)
    if not compared:
        pytest.skip("it takes no conversation of plain texts, or changes what it wrote before, or asks for the date")


def test_a_training_template_and_the_released_one_mark_the_same(tmp_path):
    """Two ways to know what the assistant says: the model's own template by prefixes, trl's for training by blocks."""
    folder = next((path.parent for path in published()), None)
    if folder is None:
        pytest.skip("trl is not installed: it carries the templates")
    messages = TALKS["two"][0]
    for name in ("qwen2_5", "llama3", "cohere"):
        source, blocks = ((folder / f"{name}{end}.jinja").read_text() for end in ("", "_training"))
        specials = sorted(set(re.findall(r"<\|[^|<>\s{}']+\|>", source)))
        released, training = (Template(text, name, VARIABLES, specials) for text in (source, blocks))
        assert training.generates and not released.generates
        found, marked = released.conversation(messages), training.conversation(messages)
        assert found.text == marked.text
        assert [text.strip() for text in said(found)] == [text.strip() for text in said(marked)]


# ---- spans


def test_what_the_assistant_says_ends_with_the_end_of_its_turn():
    messages = [user("a"), assistant("first"), user("b"), assistant("second")]
    for source in (CHATML, PLAIN):
        assert said(template(source).conversation(messages)) == [f"first{END}", f"second{END}"]
        assert said(template(source).conversation(messages, loss="completion")) == [f"second{END}"]


def test_a_template_that_trims_marks_what_it_writes():
    found = template(TRIMMING).conversation([user(" a "), assistant("  two words\n"), user("b"), assistant("c")])
    assert said(found) == [f" two words {END}", f" c {END}"]


def test_a_conversation_goes_on_after_the_last_reply():
    found = template(PLAIN).conversation([user("a"), assistant("b"), user("thanks")], loss="completion")
    assert said(found) == [f"b{END}"] and "thanks" in found.text


def test_a_reply_is_the_conversation_behind_its_prompt():
    for source in (CHATML, PLAIN, TRIMMING):
        ours = template(source)
        found = ours.reply([user("a"), assistant("b"), user("c")], assistant("d"))
        ((start, stop),) = found.targets
        assert found.text[:start] == ours.prompt([user("a"), assistant("b"), user("c")]).text
        assert (start, stop) == ours.conversation([user("a"), assistant("b"), user("c"), assistant("d")]).targets[-1]


FORGETFUL = (  # as Qwen 3: only the last turn keeps what was thought
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think></think>' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_template_that_changes_what_it_wrote_before_is_refused():
    messages = [user("a"), assistant("b"), user("c"), assistant("d")]
    with pytest.raises(InputError, match=r"chat template forgetful: in row 7 .*message 2 of 4.*endgeneration"):
        template(FORGETFUL, "forgetful").conversation(messages, row="row 7")
    found = template(FORGETFUL).conversation(messages, loss="completion")  # whose last turn alone can be known
    assert said(found) == [f"<think></think>d{END}"]


def test_blocks_that_mark_nothing_are_refused():
    source = PLAIN.replace("{% if add", "{% generation %}{% endgeneration %}{% if add")
    with pytest.raises(InputError, match="mark nothing in row 7"):
        template(source).conversation([user("a"), assistant("b")], row="row 7")


def test_a_block_whose_place_is_not_known_is_refused():
    source = (
        "{% macro say(m) %}[{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}]{% endmacro %}"
        "{% for m in messages %}{{ 'x' + say(m) }}{% endfor %}"
    )
    with pytest.raises(InputError, match="inside a macro"):
        template(source).conversation([user("a"), assistant("b")])


# ---- no token by text


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("chat")


def pieces_of(chat, *chunks):
    """The ids of each chunk, and which are spelled."""
    ids, begins, spelled = chat.encode(chunks)
    return np.split(ids, begins[1:-1]), spelled


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram"])
@pytest.mark.parametrize("source", [CHATML, PLAIN, TRIMMING], ids=["chatml", "plain", "trimming"])
@given(messages=conversations())
@settings(deadline=None, max_examples=40)
def test_text_never_yields_a_special_token(root, source, kind, messages):
    made = chat(root, source, kind)
    ours = opened(made.file(""), made.digest)
    found = ours.template.conversation(messages)
    harmless = [{**message, "content": "x"} for message in messages]
    wanted = ours.template.conversation(harmless)
    special = set(ours.ids.values())
    (ids, expected), _ = pieces_of(ours, (found, 0, len(found.text)), (wanted, 0, len(wanted.text)))
    assert [id for id in ids.tolist() if id in special] == [id for id in expected.tolist() if id in special]


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram"])
@pytest.mark.parametrize("source", [CHATML, TRIMMING], ids=["chatml", "trimming"])
@given(messages=conversations())
@settings(deadline=None, max_examples=40)
def test_tokens_say_the_text_and_no_token_straddles(root, source, kind, messages):
    made = chat(root, source, kind)
    ours = opened(made.file(""), made.digest)
    found = ours.template.conversation(messages)
    places = [0, *(place for span in found.targets for place in span), len(found.text)]
    pieces, spelled = pieces_of(ours, *((found, a, b) for a, b in zip(places[:-1], places[1:], strict=True)))
    assert spelled.all()
    decoded = [ours.plain.truth.decode(ids.tolist(), skip_special_tokens=False) for ids in pieces]
    if kind == "byte-bpe":  # SentencePiece's decoder takes a space from the front of each text
        assert decoded == [found.text[a:b] for a, b in zip(places[:-1], places[1:], strict=True)]
    reply = ours.template.reply(messages[:-1], messages[-1])
    ((start, stop),) = reply.targets
    prompt = ours.template.prompt(messages[:-1])
    (alone, before, after), _ = pieces_of(ours, (prompt, 0, len(prompt.text)), (reply, 0, start), (reply, start, stop))
    assert alone.tolist() == before.tolist()  # what generation is given is what was trained on
    assert after.tolist() == pieces[-2].tolist()  # and a reply has the tokens of the last turn


def test_what_text_spells_is_written_in_letters():
    found = template(PLAIN).conversation([user(f"say {END} twice"), assistant("<|im_start")])
    assert found.text.count(END) == 4 and found.safe.count(END) == 3
    assert said(found) == [f"<|im_start{END}"]


def test_a_template_that_takes_apart_what_spells_a_token_cannot_render_it():
    source = PLAIN.replace("m['content']", "m['content'].split('<|im_end|>')[0]")
    assert said(template(source).conversation([user("a"), assistant("b")])) == [f"b{END}"]
    with pytest.raises(Unrenderable, match="more than letters"):
        template(source).conversation([user(f"a{END}b"), assistant("b")])


def test_a_template_cannot_make_a_token_of_a_text_that_it_changes():
    source = PLAIN.replace("m['content']", "m['content'] | lower")
    found = template(source).conversation([user("a <|IM_END|> b"), assistant("c")])
    assert found.text.count(END) == 4 and found.safe.count(END) == 3
