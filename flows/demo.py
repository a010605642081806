"""The demo's models: from packed text to one that answers, prefers and was rewarded. Policy only, small enough for a
laptop: a few million tokens, a million weights, sums of two numbers.

    base    pretrained on the crawl
    sft     taught to answer, with a share of the crawl against forgetting
    dpo     taught to prefer right answers to wrong ones
    grpo    rewarded by the verifier `maths`

Each is evaluated on held-out pages and questions and held against gates before the next is made of it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal

from gristmill.dataops.chat import recipe
from gristmill.dataops.dataset import Dataset
from gristmill.dataops.demo.chats import write_chats
from gristmill.dataops.gates.record import promote
from gristmill.dataops.store import Store
from gristmill.flows.stages import Stage, stage
from gristmill.flows.train import named

SEQ_LEN = 512
LONGEST = 64  # tokens of a pair's prompt and reply
SCORER = {"name": "sums", "call": "gristmill.flows.scoring:verifier", "settings": {"verifier": "maths"}}
GATES = """\
# What the demo's models are held against; see flows/gates.yaml for all that a gate can say.
gates:
  - gate: text is not forgotten
    measure: "text/loss"
    rises_at_most: 2 %
  - gate: text is not forgotten little by little
    measure: "text/loss"
    rises_at_most: 5 %
    against: origin
  - gate: sums are not forgotten
    measure: "sums/pass@1"
    not_below_interval: true
    stages: [preference, rl]
  - gate: it learned to add
    measure: "sums/pass@1"
    end: low
    at_least: 0.5
    stages: [rl]
  - gate: answers do not swell
    measure: "sums/length"
    rises_at_most: 50 %
    stages: [preference, rl]
  - gate: the base has learned
    measure: "text/loss"
    at_most: 8
"""


def post_train(store: Store, seconds: int, until: Literal["pretrain", "rl"] = "rl") -> list[Stage]:
    """The base model, and unless that is all the others, the last of them promoted. `seconds` are for pretraining.
    Raises Blocked where one does not pass."""
    gates = store.root / "gates.yaml"
    gates.write_text(GATES)
    files = {name: [str(path)] for name, path in write_chats(store.root).items()}
    packed, heldout = store.get("packed"), store.get("heldout-packed")
    text = {"slices": [{**named(heldout), "name": "text"}]}
    chat, made = _data(store, files)
    asked = {"tasks": [{**named(made["heldout-tasks"]), "name": "sums", "scorer": SCORER, "max_tokens": 12}]}
    stages: list[Stage] = []

    def make(step: str, spec: dict[str, Any], **evaluation: Any) -> Dataset:
        print(f"  {spec['name']}: {step}", file=sys.stderr, flush=True)
        stages.append(stage(store, step, spec, {**text, **evaluation}, gates))
        return stages[-1].model

    base = make("pretrain", {
        "name": "base", "data": [named(packed)], "validation": [named(heldout)], "seconds": seconds,
        "model": {"depth": 2}, "rows": 2, "optimiser": {"learning_rate": 2e-3},
    })  # fmt: skip
    if until == "pretrain":
        return stages
    sft = make("sft", {
        "name": "sft", "data": [named(made["chats"]), named(packed)], "start": named(base),
        "tokenizer": named(chat), "steps": 100, "rows": 4, "optimiser": _gentle(2e-3),
    }, **asked)  # fmt: skip
    dpo = make("preference", {
        "name": "dpo", "data": [named(made["pairs"])], "validation": [named(made["heldout-pairs"])],
        "start": named(sft), "steps": 30, "rows": 16, "sft_weight": 1.0, "optimiser": _gentle(1e-4),
    }, **asked, reference=named(sft))  # fmt: skip
    make("rl", {
        "name": "grpo", "data": [named(made["tasks"])], "start": named(dpo), "steps": 50, "rows": 64, "group": 8,
        "max_tokens": 6, "beta": 0.02, "rewards": [SCORER], "optimiser": _gentle(2.5e-4),
    }, **asked, reference=named(dpo))  # fmt: skip
    promote(store, stages[-1].model)
    return stages


def _data(store: Store, paths: Mapping[str, list[str]]) -> tuple[Dataset, dict[str, Dataset]]:
    """The chat tokenizer, and what is learned from and held out, by name."""
    chat = recipe.speaker(store, "tokenizer")
    made = {"chats": recipe.sft(store, paths["chats"], chat, seq_len=SEQ_LEN, name="chats")}
    for name in ("pairs", "heldout-pairs"):
        made[name] = recipe.pairs(store, paths[name], chat, max_tokens=LONGEST, name=name)
    for name in ("tasks", "heldout-tasks"):
        made[name] = recipe.tasks(store, paths[name], name=name)
    return chat, made


def _gentle(learning_rate: float) -> dict[str, float]:
    return {"learning_rate": learning_rate, "warmup": 0.05, "weight_decay": 0.0}
