"""Evaluations of a real small model, and of tasks of the evaluation harness where it is installed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator

import pytest
import smollm2
import torch
from evaluated import evaluate, named, scorer, tasks
from packed import pack
from tinychat import base, chat_tokenizer, words

from gristmill.dataops.dataset import publish_files
from gristmill.training.checkpoint import building
from gristmill.training.evaluation.harness import measures

SENTENCES = [
    "The sun rises in the east and sets in the west, and so it has done every day since people began to watch it.",
    "Water boils at a hundred degrees at the level of the sea, and at less than that on the top of a mountain.",
    "She opened the door, looked out into the garden, and saw that it had snowed all through the night.",
    "A triangle has three sides and three angles, and in the plane these angles add up to half a turn.",
    "When the train had left, the station was quiet again, and only the clock over the door could be heard.",
    "Most plants take in light with their leaves and water with their roots, and grow towards the sun.",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other on busy cores take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """SmolLM2-135M-Instruct as a checkpoint that knows chat."""
    source = smollm2.folder()
    root = tmp_path_factory.mktemp("real")
    template = hashlib.sha256((source / "chat_template.jinja").read_bytes()).hexdigest()
    with building(root, "smollm2") as folder:
        for path in source.iterdir():
            (folder / "files" / path.name).symlink_to(path)
        op = {"name": "given", "version": 1, "params": {}}
        stats = {"tokenizer": "smollm2", "template": template}
        return publish_files(root, "smollm2", folder, ops=[op], inputs=[], made={}, stats=stats)


def test_a_real_model_reads_english_and_answers(real, tmp_path, capsys):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real.file(""))

    def held(name: str, texts: list[str]) -> dict:
        rows = [[tokenizer(text).input_ids for text in pair] for pair in zip(texts[::2], texts[1::2], strict=True)]
        packed = pack(tmp_path / name, rows, seq_len=64, vocab_size=len(tokenizer), tokenizer="smollm2")
        return named(packed, name=name)

    mixed = [" ".join(random.Random(0).sample(text.split(), k=len(text.split()))) for text in SENTENCES]
    questions = ["What is the capital of France?", "What do cows drink?", "Is the sky blue? Say yes or no."]
    data = tasks(tmp_path, questions, name="questions")
    found = evaluate(
        tmp_path,
        capsys,
        model=named(real),
        reference=named(real),
        slices=[held("english", SENTENCES), held("mixed", mixed)],
        tasks=[named(data, name="asked", scorer=scorer("has", word="Paris."), max_tokens=16, harmless=True)],
    )
    told = {name: measure["value"] for name, measure in found.manifest["stats"]["measures"].items()}
    assert 5 < told["english/perplexity"] < 60 < 4 * told["english/perplexity"] < told["mixed/perplexity"]
    assert told["english/entropy"] < told["mixed/entropy"] < 10.8  # ln 49,152
    assert told["english/kl"] == told["asked/kl"] == 0.0
    assert told["asked/over_refusal"] == told["asked/unjudged"] == 0.0
    assert told["asked/pass@1"] == pytest.approx(1 / 3)
    assert 0 < told["asked/entropy"] < 3 and 1 <= told["asked/length"] <= 16


def test_figures_of_the_harness_get_intervals():
    told = {
        "results": {
            "facts": {"alias": "facts", "acc,none": 0.5, "acc_stderr,none": 0.1, "exact_match,strict": 0.25,
                      "exact_match_stderr,strict": "N/A", "sample_len": 40},
        },
        "n-samples": {"facts": {"original": 100, "effective": 40}},
    }  # fmt: skip
    found = measures(told)
    assert set(found) == {"facts.acc", "facts.exact_match.strict"}
    assert found["facts.acc"].low == pytest.approx(0.304, abs=1e-3) and found["facts.acc"].n == 40
    assert found["facts.exact_match.strict"].low is None


def test_tasks_of_the_harness(tmp_path, capsys):
    pytest.importorskip("lm_eval")
    chat = chat_tokenizer(tmp_path)
    rows = [{"q": f"{word} {word}", "choices": words(3), "a": n % 3} for n, word in enumerate(words(9))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "toy_words", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "doc_to_text": "{{q}}", "doc_to_target": "{{a}}", "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "toy.yaml").write_text(json.dumps(task))
    fields = {"model": named(base(tmp_path, chat)), "tokenizer": named(chat), "lm_eval": [str(tmp_path / "toy.yaml")]}
    found = evaluate(tmp_path, capsys, **fields)
    measure = found.manifest["stats"]["measures"]["lm_eval/toy_words.acc"]
    assert measure["n"] == 9 and 0 <= measure["value"] <= 1
    assert found.manifest["reproducible"] is False and "lm_eval" in found.manifest["made"]["versions"]
    assert "lm_eval knows no task never" in evaluate(tmp_path, capsys, 2, **fields | {"lm_eval": ["never"]})
    (tmp_path / "toy.yaml").write_text(json.dumps(task | {"task": "other_words"}))
    assert evaluate(tmp_path, capsys, **fields).key != found.key
