"""Replies of a real model to real instructions, against transformers' own pipeline in batches.

The peer is `pipeline("text-generation")`, which takes chats, over the same weights in float32, with the better of two
sizes of batch. Ours tells the tokens, the end and the log-probability of each reply besides. Both are greedy, of at
most as many tokens, in turns, in processor seconds of this process, which count every thread; their texts must agree
(but for near ties, which fall either way under another padding). The same forward passes are nearly all of the time of
both: the bar holds that what is told besides costs next to nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from gristmill.training.engines.local import TransformersEngine
from tests.realdata import real
from tests.smollm2 import folder

PROMPTS, MOST, TURNS, BAR = 32, 24, 2, 0.9
BATCHES = (8, PROMPTS)


def replying() -> Iterator[dict[str, Any]]:
    """Tokens replied per processor second, the best of the turns each."""
    from transformers import AutoTokenizer, pipeline

    rows = json.loads(real("sft/lf-alpaca_en_demo.json").read_text())[:PROMPTS]
    chats = [[{"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()}] for row in rows]
    engine = TransformersEngine(folder(), device="cpu", dtype="float32")
    padded: Any = AutoTokenizer.from_pretrained(folder(), padding_side="left")
    padded.pad_token_id = engine.ends[0] if padded.pad_token_id is None else padded.pad_token_id
    peer = pipeline("text-generation", model=engine.model, tokenizer=padded)
    given = {"max_new_tokens": MOST, "max_length": None, "do_sample": False, "return_full_text": False}

    def theirs(size: int) -> list[str]:
        return [one[0]["generated_text"] for one in peer(chats, batch_size=size, **given)]

    runs: dict[str, Callable[[], list[Any]]] = {
        "ours": lambda: engine.replies(chats, max_tokens=MOST),
        **{f"batches of {size}": lambda size=size: theirs(size) for size in BATCHES},  # type: ignore[misc]
    }
    best, told = dict.fromkeys(runs, float("inf")), {}
    for _ in range(TURNS):  # in turns, so that a busy moment does not hit one side alone
        for name, run in runs.items():
            clock = time.process_time()
            told[name] = run()
            best[name] = min(best[name], time.process_time() - clock)
    faster = min((name for name in runs if name != "ours"), key=best.__getitem__)
    tokens = sum(reply.tokens for reply in told["ours"])
    agree = sum(reply.text == text for reply, text in zip(told["ours"], told[faster], strict=True)) / len(chats)
    ratio = round(best[faster] / best["ours"], 2)
    yield {
        "peer": f"transformers pipeline, {faster}", "measure": "tokens/processor s replied", "prompts": len(chats),
        "tokens": tokens, "ours": round(tokens / best["ours"], 1), "peer_value": round(tokens / best[faster], 1),
        "ratio": ratio, "agree": round(agree, 3), "bar": BAR, "met": ratio >= BAR and agree >= 0.9,
    }  # fmt: skip
