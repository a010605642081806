"""Merging two models of 500 MB (bfloat16, the shape of a Llama).

Two measures beside it in the same run. `copying` is one loop that reads the same inputs and writes as many bytes as
come out, against our step within a process: no merge can be as fast, and ours computes the SHA-256 of all it reads and
writes besides. mergekit is run where GRISTMILL_MERGEKIT names the folder of programs that holds `mergekit-yaml` (its
pins fit into no environment but its own), a command against our command, with the start of Python in both.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gristmill.dataops.dataset import Dataset, publish_files
from gristmill.training.merge import MergeSpec, run
from gristmill.training.spec import read_spec

TURNS = 3


def merging() -> Iterator[dict[str, Any]]:
    """Megabytes of input (models, and the base where there is one) per second by method: the best of three turns."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base, one, other = (_model(root, name, seed) for seed, name in enumerate(("base", "one", "other")))
        for method in ("linear", "slerp", "ties", "dare_ties"):
            spec = _spec(root, method, [one, other], base if method.endswith("ties") else None)
            files = [Path(item.path) / "files" / "model.safetensors" for item in spec.inputs]
            megabytes = sum(file.stat().st_size for file in files) / 1e6
            runs: dict[str, Callable[[], Any]] = {
                "step": functools.partial(run, spec),
                "copying": functools.partial(_copy, files, root / "copied"),
            }
            if programs := os.environ.get("GRISTMILL_MERGEKIT"):
                runs["command"] = functools.partial(_command, root)
                runs["mergekit"] = functools.partial(_mergekit, root, Path(programs), method, base, [one, other])
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(TURNS):  # in turns, so that a busy moment does not hit one side alone
                for name, call in runs.items():
                    shutil.rmtree(root / "merged", ignore_errors=True)
                    started = time.perf_counter()
                    call()
                    best[name] = min(best[name], time.perf_counter() - started)
            for ours, peer, bar in (("step", "copying", 0.05), ("command", "mergekit", 1.0)):
                if peer in best:
                    ratio = round(best[peer] / best[ours], 2)
                    yield {
                        "peer": peer, "measure": f"MB/s merged, {method}", "mb": round(megabytes),
                        "ours": round(megabytes / best[ours]), "peer_value": round(megabytes / best[peer]),
                        "ratio": ratio, "bar": bar, "met": ratio >= bar,
                    }  # fmt: skip


def _model(root: Path, name: str, seed: int) -> Dataset:
    """A Llama of 251 million weights, published."""
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=13, num_attention_heads=16,
        tie_word_embeddings=True, dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    torch.manual_seed(seed)
    for tensor in model.parameters():
        tensor.data += 0.01 * torch.randn_like(tensor)
    building = root / ".building" / name
    model.save_pretrained(building / "files")
    return publish_files(root, name, building, ops=[{"name": name, "version": 1, "params": {}}], inputs=[], made={})


def _spec(root: Path, method: str, models: list[Dataset], base: Dataset | None) -> MergeSpec:
    """The spec, also written to root/spec.json."""
    values: dict[str, Any] = {"method": method, "root": str(root)}
    values["models"] = [{"path": m.path, "digest": m.digest} for m in models]
    if base is not None:
        values |= {"base": {"path": base.path, "digest": base.digest}, "density": 0.5}
    if method.startswith("dare"):
        values["seed"] = 0
    (root / "spec.json").write_text(json.dumps(values))
    return read_spec(root / "spec.json", MergeSpec)


def _command(root: Path) -> None:
    command = [sys.executable, "-m", "gristmill.training.merge", "--spec", str(root / "spec.json")]
    subprocess.run(command, check=True, capture_output=True)


def _copy(inputs: list[Path], out: Path) -> None:
    """Read all, write the bytes of the first."""
    buffer = bytearray(1 << 20)
    with out.open("wb", buffering=0) as written:
        for path in inputs:
            with path.open("rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    if path == inputs[0]:
                        written.write(memoryview(buffer)[:got])


def _mergekit(root: Path, programs: Path, method: str, base: Dataset, models: list[Dataset]) -> None:
    parameters = {"linear": {"weight": 1.0}, "slerp": {}}.get(method, {"weight": 1.0, "density": 0.5})
    config: dict[str, Any] = {"merge_method": method, "dtype": "float32", "out_dtype": "bfloat16"}
    config["models"] = [{"model": model.file(""), "parameters": parameters} for model in models]
    if method == "slerp":
        config |= {"base_model": models[0].file(""), "parameters": {"t": 0.5}}
    elif method != "linear":
        config["base_model"] = base.file("")
    (root / "peer.yml").write_text(json.dumps(config))  # JSON is YAML
    command = [str(programs / "mergekit-yaml"), str(root / "peer.yml"), str(root / "peer"), "--lazy-unpickle"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run([*command, "--no-write-model-card"], check=True, capture_output=True, env=environment)
