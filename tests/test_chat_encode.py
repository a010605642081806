"""Chat tokenizers and encoded rows: transformers' ids and masks, every row kept or in the ledger."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from chatting import CORPUS, END, PLAIN, START, TRIMMING, assistant, chat, frame, tokenizer, user
from tokenizers import Tokenizer

from gristmill.dataops.chat.encode import encode_chats, encode_pairs, encode_thumbs
from gristmill.dataops.chat.template import built_in, for_chat
from gristmill.dataops.dataset import InputError
from gristmill.dataops.op import Split
from gristmill.dataops.passes import check_accounting
from gristmill.dataops.store import Store
from gristmill.dataops.tokenizer.given import import_tokenizer

TALK = [user("the mill grinds"), assistant("sacks of grain."), user("It's?"), assistant("7!\n  12")]
KINDS = ["byte-bpe", "unigram", "bpe"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("chat")


def run(op, rows) -> Split:
    split = op(rows)
    check_accounting(op, rows, split)
    return split


def reasons(split: Split) -> list[str]:
    return split.drops["reason"].to_list()


# ---- chat tokenizers


def test_a_chat_tokenizer_is_what_transformers_loads(root):
    from transformers import AutoTokenizer

    made, plain = chat(root, "chatml"), tokenizer(str(root), "byte-bpe")
    loaded, stats = AutoTokenizer.from_pretrained(made.file("")), made.manifest["stats"]
    template = Path(made.file("chat_template.jinja")).read_bytes()
    assert loaded.chat_template == template.decode()
    assert stats["template"] == hashlib.sha256(template).hexdigest() and stats["tokenizer"] == plain.digest
    assert (loaded.eos_token, loaded.eos_token_id) == (END, stats["eos"])
    assert loaded.pad_token_id == stats["pad"] != stats["eos"]
    assert {key: stats[key] for key in ("vocab_size", "eod")} == {
        key: plain.manifest["stats"][key] for key in ("vocab_size", "eod")
    }
    assert len(loaded) == stats["vocab_size"]


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_trained_here_reserve_what_chats_need(root, kind):
    plain = tokenizer(str(root), kind)
    made = Tokenizer.from_file(plain.file("tokenizer.json"))
    special = {token.content: id for id, token in made.get_added_tokens_decoder().items() if token.special}
    assert {START, END, "<|endoftext|>"} <= set(special)
    assert made.get_vocab_size() <= plain.manifest["stats"]["asked"]
    assert made.encode(f"a {END} b").ids.count(special[END]) == 1


def test_a_tokenizer_without_the_markers_is_refused(root):
    spec = json.loads(Path(tokenizer(str(root), "byte-bpe").file("tokenizer.json")).read_bytes())
    spec["added_tokens"] = spec["added_tokens"][:1]
    folder = root / "without"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    store = Store(root / "without-root")
    bring = import_tokenizer(end_of_document="<|endoftext|>", path_context=str(folder / "tokenizer.json"))
    plain = store.build("tokenizer", bring, [])
    with pytest.raises(InputError, match=r"chatml writes <\|im_start\|>, <\|im_end\|>, which tokenizer does not have"):
        store.build("chat", for_chat(plain, "chatml"), [plain])
    assert store.names() == ["tokenizer"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (PLAIN.replace("<|im_end|>' + '\n'", "\n'"), "holds no special token"),
        (PLAIN.replace("m['content']", "''"), "does not write what the assistant says"),
        (TRIMMING.replace("== 'user'", "== 'assistant'"), "fails on a trial conversation: turns must alternate"),
        ("{% if %}", r"line 1 cannot be used"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% else %}{% generation %}{{ m.content }}"
            "{% endgeneration %}<|im_end|>{% endif %}{% endfor %}",
            r"block ends before <\|im_end\|>.*never learn",
        ),
        (PLAIN[: -len("{% endif %}")] + "{% else %}{{ eos_token }}{% endif %}", "asks for eos_token"),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(root, source, said):
    with pytest.raises(InputError, match=said):
        chat(root, source)


def test_where_a_template_comes_from(root, tmp_path):
    plain = tokenizer(str(root), "byte-bpe")
    assert "chatml" in built_in()
    sha = {for_chat(plain, "chatml").params["template"], for_chat(plain).params["template"]}
    assert len(sha) == 1  # a tokenizer without a template of its own speaks ChatML
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": PLAIN}))
    (tmp_path / "a.jinja").write_text(PLAIN)
    assert for_chat(plain, str(tmp_path)).identity == for_chat(plain, str(tmp_path / "a.jinja")).identity
    (tmp_path / "chat_template.jinja").write_text(TRIMMING)  # the newer way comes first
    assert for_chat(plain, str(tmp_path)).identity != for_chat(plain, str(tmp_path / "a.jinja")).identity
    with pytest.raises(InputError, match="no chat template 'chatmx'.*chatml"):
        for_chat(plain, "chatmx")
    config = {"chat_template": [{"name": "rag", "template": PLAIN}]}
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="chat templates rag"):
        for_chat(plain, str(tmp_path / "named"))


# ---- conversations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", ["chatml", PLAIN, TRIMMING], ids=["chatml", "plain", "trimming"])
def test_ids_and_masks_are_those_of_transformers(root, kind, source):
    from transformers import AutoTokenizer

    made = chat(root, source, kind)
    loaded = AutoTokenizer.from_pretrained(made.file(""))
    talks = [TALK, TALK[:2], *([user(text), assistant(other)] for text, other in zip(CORPUS, CORPUS[1:], strict=False))]
    split = run(encode_chats(made, max_tokens=4096), frame(messages=talks))
    assert split.kept.height == len(talks)
    for messages, tokens, targets, size in zip(talks, *split.kept.select("tokens", "targets", "n_tokens"), strict=True):
        marked = source == "chatml"
        theirs = loaded.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=marked)
        assert tokens.to_list() == theirs["input_ids"]
        assert not marked or targets.cast(int).to_list() == theirs["assistant_masks"]
        assert len(tokens) == len(targets) == size


def metaspace(scheme: str):
    """Llama's tokenizer.json as newer versions of transformers write it."""

    def changed(spec: dict) -> None:
        spec["normalizer"] = None
        spec["pre_tokenizer"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}

    return changed


def swallowing(side: str):
    """Special tokens that take the white space on a side, as Phi 3's do."""

    def changed(spec: dict) -> None:
        for token in spec["added_tokens"]:
            token[side] = True

    return changed


def spaced(spec: dict) -> None:
    """GPT-2's kind with a space before every text."""
    spec["pre_tokenizer"]["add_prefix_space"] = True


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("unigram", metaspace("first")),
        ("unigram", metaspace("always")),
        ("bpe", metaspace("never")),
        ("byte-bpe", swallowing("rstrip")),
        ("byte-bpe", swallowing("lstrip")),
        ("byte-bpe", spaced),
    ],
    ids=["first", "always", "never", "rstrip", "lstrip", "spaced"],
)
def test_ways_to_treat_spaces(root, tmp_path, kind, change):
    from transformers import AutoTokenizer

    spec = json.loads(Path(tokenizer(str(root), kind).file("tokenizer.json")).read_bytes())
    change(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    store = Store(tmp_path / "root")
    bring = import_tokenizer(end_of_document="<|endoftext|>", path_context=str(tmp_path / "tokenizer.json"))
    plain = store.build("tokenizer", bring, [])
    (tmp_path / "plain.jinja").write_text("Talk: " + PLAIN)  # a text that does not begin with a special token
    for source in ("chatml", str(tmp_path / "plain.jinja")):
        made = store.build("chat", for_chat(plain, source), [plain])
        loaded = AutoTokenizer.from_pretrained(made.file(""))
        kept = run(encode_chats(made, max_tokens=999), frame(messages=[TALK])).kept
        theirs = loaded.apply_chat_template(
            TALK, return_dict=True, return_assistant_tokens_mask=source == "chatml"
        )  # fmt: skip
        assert kept["tokens"][0].to_list() == theirs["input_ids"]
        if source == "chatml":
            assert kept["targets"][0].cast(int).to_list() == theirs["assistant_masks"]


def test_the_loss_counts_all_turns_or_the_last(root):
    made = chat(root, "chatml")
    truth = Tokenizer.from_file(made.file("tokenizer.json"))
    for loss, wanted in (("assistant", f"sacks of grain.{END}7!\n  12{END}"), ("completion", f"7!\n  12{END}")):
        kept = run(encode_chats(made, max_tokens=4096, loss=loss), frame(messages=[TALK])).kept
        learned = [t for t, flag in zip(kept["tokens"][0], kept["targets"][0], strict=True) if flag]
        assert truth.decode(learned, skip_special_tokens=False) == wanted


def test_every_conversation_is_encoded_or_says_why_not(root):
    rows = {
        "kept": TALK,
        "empty": [],
        "no_targets": TALK[:1],
        "bad_roles": [{"role": "robot", "content": "x"}, assistant("y")],
        "bad_roles ": [assistant("y"), user("x"), assistant("z")],
        "bad_roles  ": [*TALK, {"role": "system", "content": "x"}],
        "empty ": [user("x"), assistant(" \n")],
        "too_long": [user("x" * 500), assistant("y")],
        "null": None,
    }
    split = run(encode_chats(chat(root, "chatml"), max_tokens=100), frame(messages=list(rows.values())))
    assert split.kept.height == 1
    found = dict(zip(split.drops["id"], reasons(split), strict=True))
    ids = frame(messages=list(rows.values()))["id"]
    wanted = {id: "empty" if name == "null" else name.strip() for id, name in zip(ids, rows, strict=True)}
    assert found == {id: name for id, name in wanted.items() if name != "kept"}
    (long,) = split.drops.filter(reason="too_long").select("value", "threshold").rows()
    assert long[0] > 100 == long[1]


def test_what_a_template_refuses_is_a_row_in_the_ledger(root):
    split = run(encode_chats(chat(root, TRIMMING), max_tokens=99), frame(messages=[[user("a"), *TALK[:2]], TALK]))
    assert split.kept.height == 1 and reasons(split) == ["unrenderable"]
    assert split.drops["evidence"][0] == "turns must alternate"


def test_a_template_that_cannot_say_what_is_learned_stops_the_run(root):
    once = PLAIN.replace(
        "{% if loop.first and", "{% if loop.last and loop.index > 2 %}!{% endif %}{% if loop.first and"
    )
    rows = frame(messages=[TALK])
    with pytest.raises(InputError, match=f"in row {rows['id'][0].hex()} the text before"):
        encode_chats(chat(root, once), max_tokens=99)(rows)


def test_tools_and_calls_reach_the_template(root):
    call = json.dumps([{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}])
    tool = json.dumps([{"type": "function", "function": {"name": "f"}}])
    messages = [user("a"), {"role": "assistant", "content": "", "tool_calls": call}, {"role": "tool", "content": "3"}]
    rows = frame(messages=[[*messages, assistant("b")], messages[:2], TALK], tools=[tool, "{", None])
    split = run(encode_chats(chat(root, "chatml"), max_tokens=999), rows)
    assert reasons(split) == ["unrenderable"] and "tools" in split.drops["evidence"][0]
    truth = Tokenizer.from_file(chat(root, "chatml").file("tokenizer.json"))
    text = truth.decode(split.kept["tokens"][0].to_list(), skip_special_tokens=False)
    assert '<tools>\n{"type": "function"' in text and '<tool_call>\n{"name": "f", "arguments": {"x": 1}}' in text


def test_length_and_loss_are_checked(root):
    with pytest.raises(InputError, match="max_tokens 1"):
        encode_chats(chat(root, "chatml"), max_tokens=1)
    with pytest.raises(InputError, match="no loss 'all'"):
        encode_chats(chat(root, "chatml"), max_tokens=9, loss="all")
    with pytest.raises(InputError, match="no chat tokenizer"):
        encode_pairs(tokenizer(str(root), "byte-bpe"), max_tokens=9)


# ---- pairs and thumbs


@pytest.mark.parametrize("kind", ["byte-bpe", "unigram"])
@pytest.mark.parametrize("source", ["chatml", PLAIN, TRIMMING], ids=["chatml", "plain", "trimming"])
def test_a_pair_is_the_prompt_of_generation_and_the_last_turn_of_a_conversation(root, kind, source):
    from transformers import AutoTokenizer

    made = chat(root, source, kind)
    loaded = AutoTokenizer.from_pretrained(made.file(""))
    rows = frame(prompt=[TALK[:3]], chosen=["7!\n  12"], rejected=["no."])
    kept = run(encode_pairs(made, max_tokens=999), rows).kept.row(0, named=True)
    prompt = loaded.apply_chat_template(TALK[:3], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert kept["prompt_ids"] == prompt
    whole = run(encode_chats(made, max_tokens=999, loss="completion"), frame(messages=[TALK])).kept.row(0, named=True)
    assert kept["chosen_ids"] == [t for t, flag in zip(whole["tokens"], whole["targets"], strict=True) if flag]
    assert kept["prompt_ids"] + kept["chosen_ids"] == whole["tokens"][: len(prompt) + len(kept["chosen_ids"])]
    assert kept["margin"] is None
    assert kept["n_tokens"] == len(prompt) + max(len(kept["chosen_ids"]), len(kept["rejected_ids"]))
    thumb = run(encode_thumbs(made, max_tokens=999), frame(prompt=[TALK[:3]], response=["no."], label=[False])).kept
    assert thumb.row(0, named=True)["completion_ids"] == kept["rejected_ids"]
    assert thumb["label"].to_list() == [False] and thumb["n_tokens"][0] == len(prompt) + len(kept["rejected_ids"])


def test_every_pair_is_encoded_or_says_why_not(root):
    rows = frame(
        prompt=["a", "b", "c", "", "e", "f"],
        chosen=["x", "y", "z", "x", " ", "x" * 500],
        rejected=["y", "y", " z", "y", "y", "z"],
        margin=[1.5, None, None, None, None, None],
    )
    split = run(encode_pairs(chat(root, TRIMMING), max_tokens=100), rows)
    assert split.kept["margin"].to_list() == [1.5]
    assert reasons(split) == ["equal", "equal", "empty", "empty", "too_long"]
    talk = frame(prompt=[TALK, TALK[:1]], chosen=[[assistant("x")], TALK[:2]], rejected=[[assistant("y")]] * 2)
    split = run(encode_pairs(chat(root, "chatml"), max_tokens=100), talk)
    assert reasons(split) == ["bad_roles", "bad_roles"]
    assert "ends with 'assistant'" in split.drops["evidence"][0] and "one message" in split.drops["evidence"][1]


def test_every_thumb_is_encoded_or_says_why_not(root):
    rows = frame(prompt=["a", "b", "c"], response=["x", "", "y" * 300], label=[True, True, False])
    split = run(encode_thumbs(chat(root, "chatml"), max_tokens=100), rows)
    assert split.kept["label"].to_list() == [True] and reasons(split) == ["empty", "too_long"]


def test_no_rows_make_no_rows(root):
    made = chat(root, "chatml")
    empty = frame(messages=[TALK]).head(0)
    kept = run(encode_chats(made, max_tokens=9), empty).kept
    full = run(encode_chats(made, max_tokens=99), frame(messages=[TALK])).kept
    assert kept.height == 0 and kept.schema == full.schema
    with pytest.raises(InputError, match="no column chosen, rejected; they have id, prompt"):
        encode_pairs(made, max_tokens=9)(frame(prompt=["a"]))
