"""The built-in templates: the text that models know, and what the loss counts, proven twice against the text."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import re
from pathlib import Path

import pytest
from chatting import CONTENTS, assistant, frame, user
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from gristmill.dataops.chat import recipe
from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.chat.render import Template, Unrenderable
from gristmill.dataops.chat.template import BUILT_IN, built_in, for_chat
from gristmill.dataops.dataset import InputError
from gristmill.dataops.fileio import file_sha256
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import import_tokenizer

NAMES = ["chatml", "gemma", "llama2", "llama3", "mistral", "qwen"]
#: What ends an assistant's turn; and whether the template leaves white space around a message as it is.
ENDS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>"}
ENDS |= {"llama2": "</s>", "mistral": "</s>"}
EXACT = ("chatml", "qwen")
SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": "é"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "does", "parameters": {"type": "object"}}}
CALLED = [
    user("ask"),
    {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
    {"role": "tool", "name": "f", "content": "3"},
    {"role": "tool", "name": "f", "content": "4"},
    assistant("say"),
    user("ask again"),
    assistant("say again"),
]
BLOCK = re.compile(r"\{%-? (?:end)?generation -?%\}")


def source(name: str) -> str:
    return (BUILT_IN / f"{name}.jinja").read_text()


def markers(name: str) -> list[str]:
    found = re.match(r"\{#- markers: (.*) -#\}\n", source(name))
    assert found is not None
    return found[1].split()


@functools.cache
def template(name: str, blocks: bool = True) -> Template:
    """A built-in; without its generation blocks, what the assistant says is found by the prompts before each turn."""
    text = source(name) if blocks else BLOCK.sub("", source(name))
    made = Template(text, name, {"eos_token": ENDS[name]}, markers(name))
    assert made.generates == blocks
    return made


def said(text) -> list[str]:
    return [text.text[start:stop] for start, stop in text.targets]


def test_these_are_built_in():
    assert built_in() == NAMES


# ---- the text that models know

GOLDEN = {
    "llama2": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\none [/INST] two </s><s>[INST] three [/INST] four </s>",
    "mistral": "<s>[INST] Be kind.\n\none[/INST] two</s>[INST] three[/INST] four</s>",
    "gemma": "<bos><start_of_turn>user\nBe kind.\n\none<end_of_turn>\n<start_of_turn>model\ntwo<end_of_turn>\n"
    "<start_of_turn>user\nthree<end_of_turn>\n<start_of_turn>model\nfour<end_of_turn>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\none<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    "two<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nthree<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nfour<|eot_id|>",
    **dict.fromkeys(
        ("chatml", "qwen"),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\none<|im_end|>\n"
        "<|im_start|>assistant\ntwo<|im_end|>\n<|im_start|>user\nthree<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>\n",
    ),
}
TALK = [SYSTEM, user("one"), assistant("two"), user("three"), assistant("four")]


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_conversation(name):
    assert template(name).conversation(TALK).text == GOLDEN[name]
    prompt = template(name).prompt(TALK[:-1]).text
    assert GOLDEN[name].startswith(prompt) and GOLDEN[name][len(prompt) :].strip().startswith("four")


@pytest.mark.parametrize(("name", "theirs"), [("llama3", "llama3"), ("gemma", "gemma3"), ("qwen", "qwen2_5")])
def test_the_text_is_that_of_the_released_model(name, theirs):
    from transformers.utils.chat_template_utils import render_jinja_template

    found = importlib.util.find_spec("trl")
    if found is None:
        pytest.skip("trl is not installed: it carries the templates")
    path = Path(list(found.submodule_search_locations or [])[0]) / "chat_templates" / f"{theirs}.jinja"
    talks = [TALK, [SYSTEM, user(" a\n"), assistant(" b ")]] + ([TALK[1:]] if name != "qwen" else [])
    for messages in talks:
        (text,), _ = render_jinja_template(
            [copy.deepcopy(messages)], chat_template=path.read_text(), bos_token=markers(name)[0]
        )
        assert template(name).conversation(messages).text == text
    if name == "qwen":  # and of calls, but for the words around the tools, which are not Qwen's
        (text,), _ = render_jinja_template([[SYSTEM, *copy.deepcopy(CALLED)]], chat_template=path.read_text())
        assert template(name).conversation([SYSTEM, *CALLED]).text == text


# ---- what the loss counts


@pytest.mark.parametrize("name", NAMES)
def test_what_the_assistant_says_ends_with_the_end_of_its_turn(name):
    space = {"llama2": " {} ", "mistral": " {}"}.get(name, "{}")
    wanted = [space.format(text) + ENDS[name] for text in ("two", "four")]
    assert said(template(name).conversation(TALK)) == wanted
    assert said(template(name).conversation(TALK, loss="completion")) == wanted[1:]


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_blocks_mark_what_follows_the_prompts(name, data):
    """Two ways that know nothing of each other give the same spans; a reply is the last of them, behind its prompt."""
    turns = data.draw(st.integers(1, 3))
    talk = [SYSTEM] if data.draw(st.booleans()) else []
    for _ in range(turns):
        talk += [user(data.draw(CONTENTS)), assistant(data.draw(CONTENTS))]
    try:
        marked = template(name).conversation(talk)
    except Unrenderable as error:
        assume("stand in" not in str(error))
        raise
    assert template(name, blocks=False).conversation(talk).targets == marked.targets
    assert template(name, blocks=False).conversation(talk).text == marked.text
    assert len(marked.targets) == turns
    for turn, text in zip([turn for turn in talk if turn["role"] == "assistant"], said(marked), strict=True):
        assert text.endswith(ENDS[name])
        inner = text.removesuffix(ENDS[name])
        assert inner == turn["content"] if name in EXACT else inner.strip() == turn["content"].strip()
    reply = template(name).reply(talk[:-1], talk[-1])
    assert reply.targets == marked.targets[-1:] and reply.text == marked.text
    assert template(name).prompt(talk[:-1]).text == marked.text[: reply.targets[0][0]]


@pytest.mark.parametrize("name", NAMES)
@given(content=CONTENTS, other=CONTENTS)
@settings(deadline=None, max_examples=40)
def test_no_text_writes_a_marker(name, content, other):
    """The special tokens of a conversation are the template's, whatever the messages spell."""
    spelled = content + "".join(markers(name)) + other
    found = template(name).conversation([user(spelled), assistant(spelled)])
    plain = template(name).conversation([user("x"), assistant("x")])
    marks = template(name).marks
    assert marks.findall(found.safe) == marks.findall(plain.text)


@pytest.mark.parametrize("name", ["chatml", "mistral", "qwen"])
def test_calls_are_said_and_their_results_are_not(name):
    for tools in (None, [TOOL]):
        found = template(name).conversation(CALLED, tools)
        assert template(name, blocks=False).conversation(CALLED, tools).targets == found.targets
        calls, first, second = said(found)
        assert calls.count('{"name": "f", "arguments": {"x": "é"}}') == 2 and calls.endswith(ENDS[name])
        assert [text.strip() for text in (first, second)] == [f"say{ENDS[name]}", f"say again{ENDS[name]}"]
        assert ('"description": "does"' in found.text) == (tools is not None)
        assert found.text.index("ask") < found.text.index("3") < found.text.index("4") < found.text.index("say")


@pytest.mark.parametrize("name", ["gemma", "llama2", "llama3"])
def test_templates_without_tools_say_so(name):
    with pytest.raises(Unrenderable, match=f"the {name} template has no t"):
        template(name).conversation(CALLED)
    with pytest.raises(Unrenderable, match=f"the {name} template has no tools"):
        template(name).conversation(TALK, [TOOL])


def test_what_was_thought_is_said_before_the_answer():
    talk = [user("a"), {**assistant("b"), "reasoning_content": "hm"}, user("c"), assistant("d")]
    assert said(template("qwen").conversation(talk)) == ["<think>\nhm\n</think>\n\nb<|im_end|>", "d<|im_end|>"]


# ---- with a tokenizer


def brought(folder: Path, tokens: list[str]):
    """(store, a byte-level tokenizer that has these special tokens)."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: at for at, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ["<|end|>", *tokens]])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    store, path = Store(folder / "root"), str(folder / "tokenizer.json")
    bring = import_tokenizer(end_of_document="<|end|>", path_context=path)
    return store, store.build("tokenizer", bring, [], external=[file_sha256(Path(path))])


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_speaks_it_and_learns_what_the_assistant_says(name, tmp_path):
    store, plain = brought(tmp_path, markers(name))
    made = recipe.chat(store, plain, name)
    truth = Tokenizer.from_file(made.file("tokenizer.json"))
    assert made.manifest["stats"]["eos"] == truth.token_to_id(ENDS[name])
    split = encode_chats(made, max_tokens=4096)(frame(messages=[TALK]))
    ((tokens, targets),) = split.kept.select("tokens", "targets").rows()
    byte = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    assert [id for id in tokens if id not in byte.values()] == [
        truth.token_to_id(mark) for mark in template(name).marks.findall(GOLDEN[name])
    ]
    learned = [id for id, flag in zip(tokens, targets, strict=True) if flag]
    text = "".join(said(template(name).conversation(TALK)))
    pieces = re.split(f"({re.escape(ENDS[name])})", text)
    wanted = [
        id for piece in pieces
        for id in ([truth.token_to_id(piece)] if piece == ENDS[name] else [byte[c] for c in piece.replace(" ", "Ġ")])
    ]  # fmt: skip
    assert learned == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_tokenizer_without_its_markers_is_refused(name, tmp_path):
    store, plain = brought(tmp_path, markers(name)[1:])
    with pytest.raises(InputError, match=f"{name} writes {re.escape(markers(name)[0])}, which tokenizer does not have"):
        store.build("chat", for_chat(plain, name), [plain])
