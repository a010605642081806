"""Tasks with their answers, in columns of a row each: the instruction sets.

Where a task and the text that it is about are two columns, the user says both, the task first, with a line end between
them. Texts stay as they are.
"""

from __future__ import annotations

from typing import Any

from gristmill.dataops.chat.formats.canonical import Made, asked, talk, turn, words
from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.chat.shapes import Row, messages


def alpaca(row: Row) -> Made:
    """Stanford Alpaca: instruction [, input], output; with LLaMA-Factory's system and history of [asked, said]."""
    turns = [turn("system", system)] if (system := words(row, "system", optional=True)).strip() else []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise Fault("wrong_type", f"history is a {type(history).__name__}, not a list")
    for number, pair in enumerate(history, 1):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise Fault("wrong_type", f"part {number} of history is no pair of texts")
        turns += [turn("user", pair[0]), turn("assistant", pair[1])]
    task = asked(words(row, "instruction"), words(row, "input", optional=True))
    return [talk([*turns, turn("user", task), turn("assistant", words(row, "output"))], row)]


def dolly(row: Row) -> Made:
    """Databricks Dolly: instruction [, context], response."""
    task = asked(words(row, "instruction"), words(row, "context", optional=True))
    return [talk([turn("user", task), turn("assistant", words(row, "response"))], row)]


def self_instruct(row: Row) -> Made:
    """Self-Instruct's tasks: instruction, instances of input and output. Each instance is a conversation."""
    task, instances = words(row, "instruction"), row.get("instances")
    if not isinstance(instances, list) or not instances:
        raise Fault("missing_column", "no instances")
    made: list[Any] = []
    for number, instance in enumerate(instances, 1):
        try:
            if not isinstance(instance, dict):
                raise Fault("wrong_type", f"a {type(instance).__name__}, not an object")
            said = [
                turn("user", asked(task, words(instance, "input", optional=True))),
                turn("assistant", words(instance, "output")),
            ]
            made.append(talk(said, row))
        except Fault as fault:
            made.append(Fault(fault.reason, f"instance {number}: {fault}"))
    return made


def flan(row: Row) -> Made:
    """FLAN and P3: inputs and targets, which P3, whose own are tokens, keeps as inputs_pretokenized and
    targets_pretokenized."""
    ending = "_pretokenized" if "inputs_pretokenized" in row else ""
    said = [turn("user", words(row, f"inputs{ending}")), turn("assistant", words(row, f"targets{ending}"))]
    return [talk(said, row)]


def completion(row: Row) -> Made:
    """prompt and completion, texts or lists of messages, as TRL has them."""
    turns = [*messages(row, "prompt", "user"), *messages(row, "completion", "assistant")]
    return [talk(turns, row)]
