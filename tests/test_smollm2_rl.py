"""SmolLM2-135M learns to keep an instruction that a verifier of ours checks, by twenty steps of GRPO."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pyarrow as pa
import pytest
from preferred import one_thread
from rltasks import PROMPT, named
from smollm2 import folder

from gristmill.dataops.dataset import Dataset, publish_files, publish_rows, row_id
from gristmill.training.checkpoint import building
from gristmill.training.rl import RlSpec, run

THINGS = (
    "animals", "fruits", "colours", "countries", "rivers", "metals", "languages", "sports", "trees", "planets",
    "drinks", "tools", "birds", "cities", "vegetables", "instruments", "flowers", "oceans", "desserts", "fish",
)  # fmt: skip
CHECKED = {
    "name": "instructions", "call": "gristmill.flows.scoring:verifier", "settings": {"verifier": "instructions"}
}  # fmt: skip


def start_of(root: Path) -> Dataset:
    """The model as a checkpoint that knows its chat template."""
    source = folder()
    with building(root, "smollm2") as place:
        for path in source.iterdir():
            os.link(path, place / "files" / path.name) if path.stat().st_dev == root.stat().st_dev else (
                place / "files" / path.name
            ).write_bytes(path.read_bytes())
        template = hashlib.sha256((source / "chat_template.jinja").read_bytes()).hexdigest()
        stats = {
            "tokenizer": hashlib.sha256((source / "tokenizer.json").read_bytes()).hexdigest(),
            "template": template,
        }
        op = {"name": "smollm2", "version": 1, "params": {}}
        return publish_files(root, "smollm2", place, ops=[op], inputs=[], made={}, stats=stats)


def lists(root: Path, name: str, things: tuple[str, ...]) -> Dataset:
    """Tasks of IFEval's kind: the answer holds no comma."""
    prompts = [[{"role": "user", "content": f"Name three {thing} in one sentence without commas."}] for thing in things]
    kind = pa.list_(pa.struct({"id": pa.string()}))
    table = pa.table(
        {
            "id": pa.array([row_id(name, thing) for thing in things], pa.binary(16)),
            "prompt": pa.array(prompts, PROMPT),
            "instructions": pa.array([[{"id": "punctuation:no_comma"}] for _ in things], kind),
        }
    )
    with building(root, name) as place:
        op = {"name": "lists", "version": 1, "params": {"things": list(things)}}
        return publish_rows(root, name, place, [table], ops=[op], inputs=[], made={})


@pytest.mark.slow
def test_grpo_teaches_an_instruction_that_a_verifier_checks(tmp_path):
    train, held = lists(tmp_path, "train", THINGS[:12]), lists(tmp_path, "held", THINGS[12:])
    spec = RlSpec(
        data=(named(train),), start=named(start_of(tmp_path)), validation=(named(held),), root=str(tmp_path), steps=20,
        rows=2, group=4, max_tokens=24, optimiser={"learning_rate": 2e-5, "warmup": 0.1}, rewards=(CHECKED,),
    )  # fmt: skip
    with one_thread():  # two that wait for each other take many times as long where other tests run beside this one
        model = run(spec)
    ((_, measured),) = model.manifest["stats"]["validation"].items()
    told = measured["instructions"]
    print(told)
    assert told["after"]["value"] > told["before"]["value"] and told["change"]["low"] > 0
