"""What hosted services say of their files, read back by nothing of ours: a second opinion for tests of the export."""

from __future__ import annotations

import json
import re
from pathlib import Path

#: form: (examples at least, at most, bytes of a file at most)
SIZES = {
    "openai-sft": (10, None, 512e6), "openai-dpo": (10, None, 512e6), "openai-rft": (10, None, 512e6),
    "azure-sft": (10, None, 512e6), "azure-dpo": (10, None, 512e6), "azure-rft": (10, None, 512e6),
    "together-sft": (1, None, 50.1 * 2**30), "together-dpo": (1, None, 50.1 * 2**30),
    "fireworks-sft": (3, 3e6, None), "fireworks-dpo": (3, 3e6, None), "fireworks-rft": (1, None, None),
    "mistral-sft": (1, None, 512e6),
    "vertex-sft": (1, 1e7, 1e9), "vertex-dpo": (1, 1e7, 1e9), "vertex-rft": (1, 5000, 1e9),
    "bedrock-sft": (8, 20000, None), "bedrock-rft": (100, 20000, None),
}  # fmt: skip


def lines_of(folder: Path, form: str, at_least: int | None = None) -> list[dict]:
    """Every line of an export, its files checked for size; the mark at a file's start is there just where it must."""
    least, most, size = SIZES[form]
    lines: list[dict] = []
    for path in sorted(folder.glob("*.jsonl")):
        content = path.read_bytes()
        assert size is None or len(content) <= size
        assert content.startswith(b"\xef\xbb\xbf") == form.startswith("azure")
        text = content.decode("utf-8-sig")
        assert text.endswith("\n") and text.splitlines() == text[:-1].split("\n")
        found = [json.loads(line) for line in text.splitlines()]
        assert len(found) >= (least if at_least is None else at_least)
        assert most is None or len(found) <= most
        lines += found
    return lines


def check_line(line: dict, form: str) -> None:
    vendor, stage = form.split("-")
    {"vertex": gemini}.get(vendor, converse if form == "bedrock-sft" else chat)(line, vendor, stage)


def chat(line: dict, vendor: str, stage: str) -> None:
    if stage == "dpo":
        assert set(line) == {"input", "preferred_output", "non_preferred_output"}
        good, bad = line["preferred_output"], line["non_preferred_output"]
        assert len(good) == len(bad) == 1 and good[0]["role"] == bad[0]["role"] == "assistant" and good != bad
        conversation, answers = line["input"], [*good, *bad]
    else:
        conversation, answers = line, []
    if stage != "rft":
        assert set(conversation) <= {"messages", "tools"}
    messages = conversation["messages"]
    roles = [message["role"] for message in messages]
    assert roles[-1] in {"sft": ["assistant"], "dpo": ["user", "tool"], "rft": ["user"]}[stage]
    instructs = "developer" if stage == "rft" and vendor in ("openai", "azure") else "system"
    assert set(roles) <= {instructs, "user", "assistant", "tool"}
    if vendor in ("together", "fireworks", "mistral"):
        assert instructs not in roles[1:]
    declared = [tool["function"]["name"] for tool in conversation.get("tools", [])]
    assert len(declared) == len(set(declared)) <= 128 and ("tools" not in conversation or declared)
    open_calls: set[str] = set()
    for message in [*messages, *answers]:
        allowed = {"role", "content"} | {"assistant": {"tool_calls"}, "tool": {"tool_call_id"}}.get(
            message["role"], set()
        )
        allowed |= {"name"} if vendor in ("openai", "azure") and message["role"] != "tool" else set()
        allowed |= {"weight"} if stage == "sft" and message["role"] == "assistant" else set()
        assert set(message) <= allowed and message.get("weight", 1) in (0, 1)
        calls = message.get("tool_calls", [])
        assert (
            calls or isinstance(message["content"], str) and (message["content"].strip() or message["role"] == "tool")
        )
        if message["role"] == "tool":
            open_calls.remove(message["tool_call_id"])
        elif not any(message is answer for answer in answers):
            assert not open_calls
        for call in calls:
            assert set(call) == {"id", "type", "function"} and call["type"] == "function"
            assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", call["function"]["name"])
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            open_calls.add(call["id"])
            if vendor == "mistral":
                assert re.fullmatch("[a-zA-Z0-9]{9}", call["id"]) and "content" not in message
                assert call["function"]["name"] in declared
    if stage == "sft":
        assert any(message.get("weight", 1) == 1 for message in messages if message["role"] == "assistant")
    if vendor == "together":
        turns = "".join(role[0] for role in roles)
        assert re.fullmatch("s?" + ("" if stage == "sft" else "a?") + "(u(at+)*a)*(u(at+)*)?", turns)
    if vendor == "mistral":
        assert not re.search("tu|ts", "".join(role[0] for role in roles))
    if vendor == "bedrock":
        assert "reference_answer" in line and "tools" not in line


def gemini(line: dict, vendor: str, stage: str) -> None:
    keys = {
        "sft": {"systemInstruction", "contents", "tools"},
        "dpo": {"system_instruction", "contents", "completions"},
        "rft": {"systemInstruction", "contents", "tools", "references"},
    }[stage]
    assert set(line) <= keys and line["contents"]
    turns = [*line["contents"], *(completion["completion"] for completion in line.get("completions", []))]
    for turn in turns:
        assert set(turn) == {"role", "parts"} and turn["role"] in ("user", "model") and turn["parts"]
        for part in turn["parts"]:
            assert len(part) == 1 and set(part) <= {"text", "functionCall", "functionResponse"}
            assert "text" not in part or part["text"].strip()
    assert line["contents"][-1]["role"] == ("model" if stage == "sft" else "user")
    if stage == "dpo":
        assert [completion["score"] for completion in line["completions"]] == [1, 0]
        assert all(completion["completion"]["role"] == "model" for completion in line["completions"])
    if stage == "rft":
        assert line["references"] and all(isinstance(value, str) for value in line["references"].values())


def converse(line: dict, vendor: str, stage: str) -> None:
    assert set(line) <= {"schemaVersion", "system", "messages"} and line["schemaVersion"]
    roles = [message["role"] for message in line["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
    texts = [part["text"] for message in line["messages"] for part in message["content"]]
    texts += [part["text"] for part in line.get("system", [])]
    banned = re.compile(r"(System|SYSTEM|User|USER|Bot|BOT|Assistant|ASSISTANT|Thought):|\[EOS\]|<image>|<video>")
    assert all(text.strip() and banned.search(text) is None for text in texts)
