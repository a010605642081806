"""Real conversations and pairs in every form that holds them, read back by our reader and by the services' own types.

The packages of the services are no dependency; where one is installed, its types are asked, too.
"""

from __future__ import annotations

import json

import pytest
from hosted_reader import check_line, lines_of
from realdata import real
from test_hosted import dataset, says

from gristmill.dataops.export.hosted import export_hosted

ROLE = {"human": "user", "gpt": "assistant", "system": "system"}


def toolcalls() -> list[dict]:
    """Glaive's conversations as messages with calls."""
    rows = []
    for row in json.loads(real("sft/lf-glaive_toolcall_en_demo.json").read_text()):
        messages = []
        for turn in row["conversations"]:
            if turn["from"] == "function_call":
                call = json.loads(turn["value"])
                arguments = json.dumps(call["arguments"])
                messages.append(
                    {"role": "assistant", "tool_calls": [{"function": {"name": call["name"], "arguments": arguments}}]}
                )
            else:
                messages.append(says("tool" if turn["from"] == "observation" else ROLE[turn["from"]], turn["value"]))
        rows.append({"messages": messages, "tools": row["tools"]})
    return rows


def chats() -> list[dict]:
    found = json.loads(real("sft/fastchat-dummy_conversation.json").read_text())
    return [{"messages": [says(ROLE[turn["from"]], turn["value"]) for turn in row["conversations"]]} for row in found]


def pairs() -> list[dict]:
    found = json.loads(real("pref/lf-dpo_en_demo.json").read_text())
    return [
        {
            "prompt": [says(ROLE[turn["from"]], turn["value"]) for turn in row["conversations"]],
            "chosen": row["chosen"]["value"],
            "rejected": row["rejected"]["value"],
        }
        for row in found
    ]


@pytest.mark.parametrize(
    ("rows", "form", "reasons"),
    [(load, name, want) for load, wants in {
        toolcalls: {"openai-sft": {}, "azure-sft": {}, "fireworks-sft": {}, "together-sft": {}, "mistral-sft": {},
                    "vertex-sft": {}},
        chats: {"openai-sft": {}, "together-sft": {}, "mistral-sft": {}, "vertex-sft": {}, "bedrock-sft": {}},
        pairs: {"openai-dpo": {}, "together-dpo": {}, "fireworks-dpo": {}, "vertex-dpo": {}},
    }.items() for name, want in wants.items()],
    ids=lambda value: getattr(value, "__name__", value if isinstance(value, str) else ""),
)  # fmt: skip
def test_real_rows(tmp_path, rows, form, reasons):
    found = rows()
    made = dataset(tmp_path / "root", found)
    note = export_hosted(made, tmp_path / "out", form)
    lines = lines_of(tmp_path / "out", form)
    assert note["reasons"] == reasons and note["read"] == len(found) == len(lines) + note["refused"]
    for line in lines:
        check_line(line, form)


def exported(tmp_path, rows, form: str, **more) -> list[dict]:
    export_hosted(dataset(tmp_path / f"root-{form}", rows), tmp_path / form, form, **more)
    return lines_of(tmp_path / form, form)


PROMPTS = [{"prompt": f"{n} * {n}?", "gold": str(n * n)} for n in range(100)]


def test_openai_types_take_every_line(tmp_path):
    pytest.importorskip("openai", reason="openai is not installed")
    from openai.types.chat import (
        ChatCompletionAssistantMessageParam,
        ChatCompletionMessageParam,
        ChatCompletionToolParam,
    )
    from openai.types.fine_tuning import ReinforcementMethod
    from pydantic import ConfigDict, TypeAdapter

    for kind in ChatCompletionMessageParam.__args__:
        kind.__pydantic_config__ = ConfigDict(extra="forbid")
    messages, answers = (
        TypeAdapter(list[ChatCompletionMessageParam]),
        TypeAdapter(list[ChatCompletionAssistantMessageParam]),
    )
    tools = TypeAdapter(list[ChatCompletionToolParam])

    def returns(kind: TypeAdapter, value: list) -> bool:
        """Whether the value comes back as it is; writing it makes pydantic look into what it reads lazily."""
        return json.loads(kind.dump_json(kind.validate_python(value), warnings="error")) == value

    for line in exported(tmp_path, toolcalls(), "openai-sft") + exported(tmp_path, PROMPTS, "openai-rft"):
        assert returns(messages, line["messages"]) and returns(tools, line.get("tools", []))
    for line in exported(tmp_path, pairs(), "openai-dpo"):
        assert returns(messages, line["input"]["messages"])
        assert returns(answers, line["preferred_output"]) and returns(answers, line["non_preferred_output"])
    for bad in ({"tool_calls": [{"id": "a", "type": "function"}]}, {"content": "hi", "other": 1}):
        with pytest.raises(ValueError):
            returns(messages, [{"role": "assistant", **bad}])
    grader = {"type": "string_check", "name": "gold", "operation": "eq", "input": "{{ sample.output_text }}"}
    ReinforcementMethod.model_validate({"grader": {**grader, "reference": "{{ item.gold }}"}})


def test_mistral_validator_takes_every_line(tmp_path):
    pytest.importorskip("mistral_common", reason="mistral-common is not installed")
    from mistral_common.protocol.instruct.messages import (
        FinetuningAssistantMessage,
        SystemMessage,
        ToolMessage,
        UserMessage,
    )
    from mistral_common.protocol.instruct.tool_calls import Tool
    from mistral_common.protocol.instruct.validator import MistralRequestValidatorV3, ValidationMode

    kinds = {
        "system": SystemMessage, "user": UserMessage, "tool": ToolMessage, "assistant": FinetuningAssistantMessage,
    }  # fmt: skip
    validator = MistralRequestValidatorV3(ValidationMode.finetuning)
    weighed = {
        "messages": [says("user", "a"), says("assistant", "b", weight=0), says("user", "c"), says("assistant", "d")]
    }
    weighed["tools"] = "[]"
    for line in exported(tmp_path, [*toolcalls(), weighed], "mistral-sft"):
        validator.validate_messages([kinds[message["role"]].model_validate(message) for message in line["messages"]])
        validator._validate_tools([Tool.model_validate(tool) for tool in line.get("tools", [])])


def test_gemini_types_take_every_line(tmp_path):
    types = pytest.importorskip("google.genai.types", reason="google-genai is not installed")
    for line in exported(tmp_path, toolcalls(), "vertex-sft"):
        asked = {name: line[name] for name in ("contents", "systemInstruction", "tools") if name in line}
        types.ReinforcementTuningExample.model_validate(asked)
    for line in exported(tmp_path, pairs(), "vertex-dpo"):
        asked = {name: value for name, value in line.items() if name != "system_instruction"}
        types.GeminiPreferenceExample.model_validate(asked)
        types.Content.model_validate(line.get("system_instruction", {}))
    for line in exported(tmp_path, PROMPTS, "vertex-rft"):
        types.ReinforcementTuningExample.model_validate(line)


def test_together_check_takes_every_file(tmp_path):
    together = pytest.importorskip("together.lib.utils", reason="together is not installed")
    for form, rows in {"together-sft": toolcalls(), "together-dpo": pairs()}.items():
        exported(tmp_path, rows, form)
        report = together.check_file(tmp_path / form / "00000.jsonl")
        assert report["is_check_passed"] and report["num_samples"] == len(rows)
