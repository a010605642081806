"""SmolLM2-135M on people's instructions: twenty steps of SFT make answers that were held out more likely.

The chats are the Alpaca demonstration rows of LLaMA-Factory whose question and answer are short, several to a row.
"""

from __future__ import annotations

import json
import random

import pytest
from packed import pack
from realdata import real
from smollm2chat import STEPS, answered, checkpoint, trained
from tinychat import PLAIN
from transformers import AutoTokenizer

from gristmill.dataops.dataset import Dataset
from gristmill.training.sft import SftSpec, run
from gristmill.training.shards import IGNORED, Shards

pytestmark = pytest.mark.slow
SEQ_LEN, ROWS, HELD = 96, 2, 24  # tokens of a row; rows of a step; rows that are held out


def chats(start: Dataset) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) as token ids, each question once, those that fit a row."""
    tokenizer = AutoTokenizer.from_pretrained(start.file(""))
    rows = json.loads(real("sft/lf-alpaca_en_demo.json").read_text())
    once = {(row["instruction"], row["input"]): row["output"] for row in rows if row["output"].strip()}
    found = [answered(tokenizer, *question, answer) for question, answer in once.items()]
    short = [pair for pair in found if len(pair[0]) + len(pair[1]) <= SEQ_LEN]
    random.Random(0).shuffle(short)
    return short


def rows_of(given: list[tuple[list[int], list[int]]]) -> tuple[list, list]:
    """Chats as documents of rows, and the marks that say which of their tokens are the answers."""
    rows: list[list[list[int]]] = [[]]
    marks: list[list[list[int]]] = [[]]
    for prompt, answer in given:
        if sum(map(len, rows[-1])) + len(prompt) + len(answer) > SEQ_LEN:
            rows.append([])
            marks.append([])
        rows[-1].append(prompt + answer)
        marks[-1].append([0] * len(prompt) + [1] * len(answer))
    return rows, marks


def test_sft_makes_held_out_answers_likelier(tmp_path):
    start = checkpoint(tmp_path)
    told = start.manifest["stats"]
    rows, marks = rows_of(chats(start))
    assert len(rows) >= STEPS * ROWS + HELD, "no row comes twice, and none is held out and learned"
    parts = []
    for name, part in (("held", slice(0, HELD)), ("train", slice(HELD, None))):
        parts.append(
            pack(
                tmp_path, rows[part], seq_len=SEQ_LEN, vocab_size=told["vocab_size"], tokenizer=PLAIN,
                targets=marks[part], name=name, params={"template": told["template"], "name": name},
            )
        )  # fmt: skip
    held, train = parts
    assert 0 < (Shards(train).gather([0]).labels != IGNORED).sum() < SEQ_LEN
    before, after = trained(SftSpec, run, start, train, held, tmp_path, 2e-5, rows=ROWS)
    assert after < before - 0.02
