"""A real model tells answers from answers to something else: instruction-following difficulty on people's data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from realdata import real
from smollm2chat import checkpoint, named

from gristmill.dataops.chat.encode import encode_chats
from gristmill.dataops.chat.read import read_files
from gristmill.dataops.store import Store
from gristmill.training.describe import DescribeSpec, run
from gristmill.training.spec import Input

pytestmark = pytest.mark.slow


def test_an_instruction_helps_with_its_own_answer_alone(tmp_path: Path):
    rows = json.loads(real("sft/lf-alpaca_en_demo.json").read_text())
    rows = [row for row in rows if not row["input"] and 60 < len(row["output"]) < 400][:20]
    other = [row | {"output": rows[number - 7]["output"]} for number, row in enumerate(rows)]
    (tmp_path / "rows.json").write_text(json.dumps(rows + other))
    model, store = checkpoint(tmp_path / "root"), Store(tmp_path / "root")
    chats = read_files(store, "messages", [str(tmp_path / "rows.json")], "messages")
    encoded = store.build("encoded", encode_chats(model, max_tokens=2_048), [chats])
    given, alone = Input(**named(encoded)), Input(**named(model))
    found = run(DescribeSpec(data=given, model=alone, root=str(store.root), embedding=True)).scan().collect()
    ratio = (found["perplexity_given_prompt"] / found["perplexity"]).to_numpy()
    right, wrong = ratio[:20], ratio[20:]
    np.testing.assert_allclose(
        np.sort(found["perplexity"].to_numpy()[:20]), np.sort(found["perplexity"].to_numpy()[20:]), rtol=1e-3
    )  # the same answers
    assert right.max() < 1 < wrong.max() and np.median(right) < 0.6 * np.median(wrong)
    points = np.array(found["embedding"].to_list())
    nearest = (points[:20] @ points[20:].T).argmax(axis=1)
    assert points.shape == (40, 576) and (nearest == (np.arange(20) + 7) % 20).mean() > 0.5  # that with its answer
