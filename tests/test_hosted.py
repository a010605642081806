"""Hand-over to managed fine-tuning: all is written or accounted for, and what is written keeps every stated limit."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from gristmill.dataops.dataset import InputError
from gristmill.dataops.export.hosted import BOM, export_hosted, render, write
from gristmill.dataops.export.hosted_forms import FORMS
from gristmill.dataops.export.hosted_rows import Refused, read
from gristmill.dataops.identity import row_id
from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.store import Store, Task

WEATHER = {
    "name": "weather",
    "description": "Weather of a town",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def says(role: str, content: str, **more: object) -> dict:
    return {"role": role, "content": content, **more}


ASKED = [says("system", "Be brief."), says("user", "Rain in Bern?")]
CALL = {"id": "a", "function": {"name": "weather", "arguments": '{"town": "Bern"}'}}
CALLED = [
    *ASKED,
    {"role": "assistant", "tool_calls": [CALL]},
    says("tool", '{"rain": true}', tool_call_id="a"),
    says("assistant", "Yes."),
]  # fmt: skip
SFT = {"messages": CALLED, "tools": [WEATHER]}
PLAIN = {"messages": [*ASKED, says("assistant", "Yes.")]}
DPO = {"prompt": ASKED, "chosen": "Yes.", "rejected": "Perhaps."}
RFT = {"prompt": "What is 17 * 23?", "gold": "391"}
STAGE = {"sft": PLAIN, "dpo": DPO, "rft": RFT}


def rendered(row: dict, form: str, fields=("gold",)) -> dict:
    return json.loads(render(row, FORMS[form], fields)[0])


def refused(row: dict, form: str, **limits: object) -> str:
    with pytest.raises(Refused) as caught:
        render(row, replace(FORMS[form], **limits), ("gold",))
    return caught.value.reason


def test_the_lines_that_the_pages_show():
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Bern"}'}}
    tool = {"type": "function", "function": WEATHER}
    chat = [*ASKED, {"role": "assistant", "tool_calls": [call]}, says("tool", '{"rain": true}', tool_call_id="a")]
    assert rendered(SFT, "openai-sft") == {"messages": [*chat, says("assistant", "Yes.")], "tools": [tool]}
    assert rendered(DPO, "openai-dpo") == {
        "input": {"messages": ASKED},
        "preferred_output": [says("assistant", "Yes.")],
        "non_preferred_output": [says("assistant", "Perhaps.")],
    }
    assert rendered({**RFT, "prompt": ASKED}, "openai-rft") == {
        "messages": [says("developer", "Be brief."), ASKED[1]],
        "gold": "391",
    }
    assert rendered(RFT, "bedrock-rft") == {"messages": [says("user", "What is 17 * 23?")], "reference_answer": "391"}


def test_gemini_and_converse():
    text = [{"text": "Be brief."}], [{"text": "Rain in Bern?"}]
    assert rendered(SFT, "vertex-sft") == {
        "systemInstruction": {"parts": text[0]},
        "contents": [
            {"role": "user", "parts": text[1]},
            {"role": "model", "parts": [{"functionCall": {"name": "weather", "args": {"town": "Bern"}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "weather", "response": {"output": '{"rain": true}'}}}],
            },
            {"role": "model", "parts": [{"text": "Yes."}]},
        ],
        "tools": [{"functionDeclarations": [WEATHER]}],
    }
    line = rendered(DPO, "vertex-dpo")
    assert line["completions"][0] == {"score": 1, "completion": {"role": "model", "parts": [{"text": "Yes."}]}}
    assert line["system_instruction"] == {"parts": text[0]}
    assert rendered({**RFT, "gold": [1, 2]}, "vertex-rft")["references"] == {"gold": "[1, 2]"}
    assert rendered(PLAIN, "bedrock-sft") == {
        "schemaVersion": "bedrock-conversation-2024",
        "system": text[0],
        "messages": [{"role": "user", "content": text[1]}, {"role": "assistant", "content": [{"text": "Yes."}]}],
    }


def test_results_of_one_turn_are_one_turn_for_gemini():
    calls = [{"name": "weather", "arguments": "{}"}, {"name": "weather", "arguments": {"town": "Bern"}}]
    messages = [*ASKED, {"role": "assistant", "tool_calls": calls}, says("tool", "dry"), says("tool", "wet"), CALLED[4]]
    contents = rendered({"messages": messages, "tools": [WEATHER]}, "vertex-sft")["contents"]
    assert [(turn["role"], len(turn["parts"])) for turn in contents] == [
        ("user", 1),
        ("model", 2),
        ("user", 2),
        ("model", 1),
    ]
    assert [part["functionResponse"]["response"]["output"] for part in contents[2]["parts"]] == ["dry", "wet"]


def test_mistral_ids_have_nine_characters_in_call_and_result():
    messages = rendered(SFT, "mistral-sft")["messages"]
    id = messages[2]["tool_calls"][0]["id"]
    assert len(id) == 9 and id.isalnum() and messages[3]["tool_call_id"] == id
    kept = json.loads(json.dumps(SFT).replace('"a"', '"TX92Jm8Zi"'))
    assert rendered(kept, "mistral-sft")["messages"][3]["tool_call_id"] == "TX92Jm8Zi"


def test_every_spelling_of_a_row_is_the_same_line():
    expected = render(SFT, FORMS["openai-sft"])
    struct = {**SFT["messages"][2], "content": None, "name": None, "weight": None, "tool_call_id": None}
    struct["tool_calls"] = [{"id": "a", "type": None, "function": {"name": "weather", "arguments": {"town": "Bern"}}}]
    spelled = [
        {**SFT, "messages": json.dumps(CALLED), "tools": json.dumps([WEATHER])},
        {**SFT, "messages": [*CALLED[:2], struct, *CALLED[3:]], "tools": [{"type": "function", "function": WEATHER}]},
        {"messages": CALLED, "tools": [{**WEATHER, "parameters": json.dumps(WEATHER["parameters"])}]},
        {"messages": [*CALLED[:3], {**CALLED[3], "name": "weather"}, CALLED[4]], "tools": [WEATHER]},
        {"messages": [CALLED[0], says("user", [{"type": "text", "text": "Rain in Bern?"}]), *CALLED[2:]],
         "tools": [WEATHER]},
    ]  # fmt: skip
    assert [render(row, FORMS["openai-sft"]) for row in spelled] == [expected] * len(spelled)
    text = {"prompt": "Rain?", "completion": "Yes."}
    assert render(text, FORMS["openai-sft"]) == render(
        {"messages": [says("user", "Rain?"), says("assistant", "Yes.")]}, FORMS["openai-sft"]
    )
    whole = {"chosen": [*ASKED, says("assistant", "Yes.")], "rejected": [*ASKED, says("assistant", "Perhaps.")]}
    assert render(whole, FORMS["openai-dpo"]) == render(DPO, FORMS["openai-dpo"])
    assert read({**DPO, "prompt": "[1] is text"}, "dpo").messages == [says("user", "[1] is text")]


NO_TOOL = [*CALLED[:3], CALLED[4]]
BAD_SFT = [
    ("no_messages", {}), ("no_messages", {"messages": []}), ("bad_messages", {"messages": "hello"}),
    ("bad_messages", {"messages": ["hello"]}), ("bad_messages", {"messages": '[{"role": NaN}]'}),
    ("unknown_role", {"messages": [says("human", "hi")]}),
    ("unknown_key", {"messages": [says("user", "hi", image="x")]}),
    ("empty_content", {"messages": [says("user", " ")]}), ("empty_content", {"messages": [{"role": "user"}]}),
    ("content_not_text", {"messages": [says("user", [{"type": "image_url"}])]}),
    ("last_role", {"messages": ASKED}), ("bad_weight", {"messages": [*ASKED, says("assistant", "x", weight=0.5)]}),
    ("bad_weight", {"messages": [says("user", "x", weight=1), says("assistant", "x")]}),
    ("nothing_trained", {"messages": [*ASKED, says("assistant", "x", weight=0)]}),
    ("misplaced_key", {"messages": [{**CALLED[2], "role": "user"}]}),
    ("call_unanswered", {"messages": NO_TOOL}), ("tool_without_call", {"messages": [*ASKED, *CALLED[3:]]}),
    ("tool_without_call", {"messages": [*CALLED[:3], {**CALLED[3], "tool_call_id": "b"}]}),
    ("tool_without_call", {"messages": [*CALLED[:3], {**CALLED[3], "name": "other"}]}),
    ("tool_without_call", {"messages": [*CALLED[:4], CALLED[3], CALLED[4]]}),
    ("call_id_twice", {"messages": [*CALLED[:2], {"role": "assistant", "tool_calls": [CALL, CALL]}]}),
    ("bad_call", {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom"}]}]}),
    ("bad_arguments", {"messages": [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[]"}]}]}),
    ("bad_tool", {**SFT, "tools": [{**WEATHER, "parameters": {"type": "string"}}]}),
    ("bad_tool", {**SFT, "tools": [{**WEATHER, "parameters": {"type": "objekt"}}]}),
    ("bad_tool", {**SFT, "tools": "weather"}), ("unknown_key", {**SFT, "tools": [{**WEATHER, "returns": {}}]}),
    ("tool_name", {**SFT, "tools": [{**WEATHER, "name": "the weather"}]}),
    ("tool_twice", {**SFT, "tools": [WEATHER, WEATHER]}),
    ("too_many_tools", {**SFT, "tools": [{**WEATHER, "name": f"f{n}"} for n in range(129)]}),
    ("not_unicode", {"messages": '[{"role": "assistant", "content": "\\ud800"}]'}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "row"), BAD_SFT, ids=lambda value: value if isinstance(value, str) else "")
def test_a_row_that_breaks_a_rule_is_refused_with_the_reason(reason, row):
    assert refused(row, "openai-sft") == reason


def test_rules_of_one_service():
    two = {"messages": [says("user", "a"), says("user", "b"), says("assistant", "c")]}
    rendered(two, "openai-sft"), rendered(two, "mistral-sft")
    assert refused(two, "together-sft") == refused(two, "bedrock-sft") == "role_order"
    late = {"messages": [says("user", "a"), *ASKED, says("assistant", "c")]}
    rendered(late, "openai-sft")
    assert refused(late, "fireworks-sft") == refused(late, "vertex-sft") == "system_not_first"
    opened = {"messages": [says("assistant", "hi"), says("user", "a"), says("assistant", "c")]}
    assert refused(opened, "together-sft") == refused(opened, "bedrock-sft") == "first_role"
    after = {**SFT, "messages": [*CALLED[:4], says("user", "so?"), says("assistant", "Yes.")]}
    rendered(after, "openai-sft")
    assert refused(after, "mistral-sft") == refused(after, "together-sft") == "role_order"
    assert refused(SFT, "bedrock-sft") == "tools_not_supported"
    assert refused({"messages": CALLED}, "mistral-sft") == refused({"messages": CALLED}, "vertex-sft") == "unknown_tool"
    both = {**SFT, "messages": [*CALLED[:2], {**CALLED[2], "content": "Let me see."}, *CALLED[3:]]}
    rendered(both, "openai-sft")
    assert refused(both, "mistral-sft") == "content_with_calls"
    named = {"messages": [says("user", "a", name="Ada"), says("assistant", "c")]}
    assert rendered(named, "openai-sft")["messages"][0]["name"] == "Ada"
    assert refused(named, "together-sft") == "name_not_supported"
    weighed = {
        "messages": [says("user", "a"), says("assistant", "b", weight=0.0), says("user", "c"), PLAIN["messages"][2]]
    }
    assert rendered(weighed, "openai-sft")["messages"][1]["weight"] == 0
    assert refused(weighed, "vertex-sft") == refused(weighed, "bedrock-sft") == "weight_not_supported"
    odd = {**SFT, "tools": [{**WEATHER, "parameters": {"type": "object", "properties": {"town": {"const": "Bern"}}}}]}
    rendered(odd, "openai-sft")
    assert refused(odd, "vertex-sft") == "bad_tool"
    marked = {"messages": [says("user", "User: hello"), says("assistant", "c")]}
    assert refused(marked, "bedrock-sft") == "reserved_word"


def test_pairs_and_prompts_that_are_refused():
    assert refused({**DPO, "rejected": "Yes."}, "openai-dpo") == "outputs_equal"
    assert refused({**DPO, "rejected": None}, "openai-dpo") == "no_pair"
    assert refused({"chosen": "a", "rejected": "b"}, "openai-dpo") == "no_messages"
    assert refused({**DPO, "chosen": [*ASKED, says("assistant", "Yes.")]}, "openai-dpo") == "output_not_one_message"
    assert refused({**DPO, "prompt": CALLED}, "together-dpo") == "last_role"
    assert refused({**RFT, "prompt": CALLED[:4]}, "openai-rft") == "last_role"
    assert refused({**RFT, "gold": None}, "openai-rft") == "no_grader_field"
    assert refused({**RFT, "gold": float("nan")}, "openai-rft") == refused({**RFT, "gold": b"1"}, "openai-rft")
    with pytest.raises(Refused, match="no_grader_field"):
        render({**RFT, "tests": "x", "solution": "y"}, FORMS["bedrock-rft"], ("tests", "solution"))


def test_tokens_are_counted_or_said_to_be_unjudged():
    form = replace(FORMS["openai-sft"], max_tokens=20, min_examples=1)
    words = lambda text: len(text.split())  # noqa: E731
    # Three messages of 3 tokens, 3 for the reply, and the words: "Be brief." "Rain in Bern?" "Yes."
    assert render(PLAIN, replace(form, max_tokens=18), count=words)[1] is None
    with pytest.raises(Refused, match="too_many_tokens") as caught:
        render(PLAIN, replace(form, max_tokens=17), count=words)
    assert (caught.value.value, caught.value.threshold) == (18, 17)
    with tempfile.TemporaryDirectory() as folder:
        note = write([("x", PLAIN)], Path(folder), form)
        (entry,) = map(json.loads, Path(folder, "ledger.ndjson").read_text().splitlines())
    assert note["rows"] == note["tokens_not_counted"] == 1 and note["refused"] == 0
    assert entry["reason"] == "tokens_not_counted" and entry["unit"] == "tokens" and entry["lost"] is None
    assert entry["value"] == 12 + len("Be brief.Rain in Bern?Yes.")


def test_a_tokenizer_decides_where_bytes_cannot(tmp_path):
    words = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    long = [{"prompt": "a", "completion": word * 65_000} for word in ("a ", "aaaaa", "aa, ")]
    made = dataset(tmp_path / "root", [*ROWS[:20], *long])
    guessed = export_hosted(made, tmp_path / "guessed", "openai-sft")
    assert guessed["tokens_not_counted"] == 3 and "too_many_tokens" not in guessed["reasons"]
    counted = export_hosted(made, tmp_path / "counted", "openai-sft", tokenizer=tmp_path / "tokenizer.json")
    assert counted["tokens_not_counted"] == 0 and counted["reasons"]["too_many_tokens"] == 1
    last = json.loads((tmp_path / "counted" / "ledger.ndjson").read_text().splitlines()[-1])
    assert (last["row"], last["value"], last["threshold"]) == (22, 130_000 + 1 + 9, 65_536)
    assert counted["tokenizer"] is not None and guessed["tokenizer"] is None


@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize(("lines", "counts"), [(4, [4]), (8, [4, 4]), (9, [4, 3, 2]), (10, [4, 4, 2]), (5, [3, 2])])
def test_files_are_split_at_a_limit_and_none_is_too_short(tmp_path, lines, counts, mark):
    rows = [(str(n), {"prompt": f"{n:04d}", "completion": "yes"}) for n in range(lines)]
    size = len(render(rows[0][1], FORMS["openai-sft"])[0])
    limits = {"min_examples": 2, "bom": mark}
    by_bytes = replace(FORMS["openai-sft"], max_bytes=4 * size + len(BOM) * mark, **limits)
    by_count = replace(FORMS["openai-sft"], max_examples=4, **limits)
    for name, form in {"bytes": by_bytes, "count": by_count}.items():
        (folder := tmp_path / name).mkdir()
        files = write(rows, folder, form)["files"][:-1]
        assert [file["examples"] for file in files] == counts
        read_back = [(folder / file["file"]).read_text("utf-8-sig" if mark else "utf-8") for file in files]
        assert [json.loads(line)["messages"][0]["content"] for text in read_back for line in text.splitlines()] == [
            f"{n:04d}" for n in range(lines)
        ]
        assert [(folder / file["file"]).stat().st_size for file in files] == [file["bytes"] for file in files]
        assert [file["first_row"] for file in files[1:]] == [file["last_row"] + 1 for file in files[:-1]]
        assert all((folder / file["file"]).read_bytes().startswith(BOM) == mark for file in files)


def test_a_line_above_the_size_of_a_file_is_refused():
    size = len(render(PLAIN, FORMS["openai-sft"])[0])
    render(PLAIN, replace(FORMS["openai-sft"], max_bytes=size))
    assert refused(PLAIN, "openai-sft", max_bytes=size - 1) == "too_many_bytes"
    assert refused(PLAIN, "azure-sft", max_bytes=size + 2) == "too_many_bytes"


def _plan(inputs, building, workers, *, rows, parts_context):
    cuts = [len(rows) * i // parts_context for i in range(parts_context + 1)]
    return [Task((a, b), b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]


@op("toy.examples", version=1, kind="source", plan=_plan)
def examples(task, *, rows, parts_context: int = 1):
    """Rows of text columns, named by their place."""
    made = [{"id": row_id(str(at)), **rows[at]} for at in range(*task)]
    yield Split(pl.DataFrame(made, infer_schema_length=None), ledger())


def dataset(root: Path, rows: list[dict], parts: int = 1):
    return Store(root).build("examples", examples(rows=rows, parts_context=parts), [])


ROWS = [
    {"prompt": f"question {n}", "completion": "" if n % 5 == 3 else f"answer {n}", "gold": str(n)} for n in range(300)
]


def test_a_dataset_becomes_a_folder_and_shards_do_not_show(tmp_path):
    notes, files = [], []
    for parts in (1, 7):
        made = dataset(tmp_path / str(parts), ROWS, parts)
        notes.append(export_hosted(made, tmp_path / f"out{parts}", "openai-sft"))
        files.append({path.name: path.read_bytes() for path in sorted((tmp_path / f"out{parts}").iterdir())})
    assert files[0] == files[1] and set(files[0]) == {"00000.jsonl", "ledger.ndjson", "gristmill.json"}
    note = notes[0]
    assert (note["rows"], note["read"], note["refused"], note["reasons"]) == (240, 300, 60, {"empty_content": 60})
    assert note["key"] == made.key and note["limits"]["min_examples"] == 10 and note["limits"]["sources"]
    refused_rows = [json.loads(line) for line in files[0]["ledger.ndjson"].splitlines()]
    assert [(entry["row"], entry["id"]) for entry in refused_rows] == [
        (n, row_id(str(n)).hex()) for n in range(3, 300, 5)
    ]
    written = [json.loads(line)["messages"][0]["content"] for line in files[0]["00000.jsonl"].splitlines()]
    assert written == [row["prompt"] for row in ROWS if row["completion"]]
    assert export_hosted(made, tmp_path / "out7", "openai-sft")["already"]
    with pytest.raises(InputError, match="holds something else"):
        export_hosted(made, tmp_path / "out7", "fireworks-sft")


def test_an_export_is_whole_or_not_there(tmp_path):
    made = dataset(tmp_path / "root", ROWS[:9])
    with pytest.raises(InputError, match="at least 10 examples and 7 of 9 rows are left: empty_content 2"):
        export_hosted(made, tmp_path / "out", "openai-sft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]
    for form, columns, said in [
        ("openai", None, "no form 'openai'; there are: openai-sft"), ("openai-dpo", None, "no column chosen"),
        ("openai-sft", ["gold"], "no room for columns"), ("openai-rft", ["nope"], "no column nope for a grader"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=said):
            export_hosted(made, tmp_path / "out", form, columns)
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        export_hosted(made, tmp_path / "out", "openai-sft", tokenizer=tmp_path / "missing.json")
