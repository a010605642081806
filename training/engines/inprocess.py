"""vLLM in this process as an engine: the speed of a serving engine without a server.

    engine = VllmEngine("checkpoint/")
    engine.generate([[{"role": "user", "content": "Name a colour."}]], max_tokens=8)

The laws: prompts are rendered and encoded as TransformersEngine does, from the same folder; the seed of a request comes
of the seed and the conversation, so that equal conversations get equal replies; a conversation that does not fit gets
no answer. Near ties may fall otherwise in another batch, since vLLM's kernels sum in another order there. Choices are
drawn token by token under vLLM's grammar, which for choices of several tokens need not give the likeliest; `logprobs`
is exact. vLLM starts processes of its own: a script that makes this engine does so under `if __name__ == "__main__":`.

Not covered: weights that change while the engine lives, adapters, and several engines on one GPU.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gristmill.dataops.dataset import InputError
from gristmill.training.engines.prompts import (
    Conversation,
    Prompts,
    Reply,
    Replying,
    check_choices,
    common,
    folder_digest,
    held,
    number,
    room,
)


class VllmEngine(Replying):
    """A causal language model in a local folder (configuration, safetensors, tokenizer with a chat template).

    `window` is the most tokens of a prompt with its reply (the model's own by default; less takes less memory),
    `memory` the share of a GPU's memory to take (0.9), or on a CPU the GiB for keys and values (1). `name` and
    `version` say what is in the folder, the dtype and vLLM's version. Raises InputError for a folder without a model, a
    tokenizer or a chat template, and where vLLM is not installed.
    """

    structured = True

    def __init__(
        self,
        folder: str | Path,
        *,
        dtype: str = "bfloat16",
        window: int | None = None,
        memory: float | None = None,
        seed: int = 0,
    ) -> None:
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: no config.json; a model's folder is wanted (for a GGUF file see from_gguf)")
        # vLLM reports its use to its makers unless told not to.
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
        try:
            import vllm
        except ImportError as error:
            raise InputError(
                f"vLLM is not installed here ({error}): pip install 'vllm>=0.22,<0.32' on a machine with a GPU, "
                "or `make test-vllm` for the build for CPUs; or use a server, or the transformers engine"
            ) from None
        import torch

        self.prompts = Prompts(path)
        gpu = torch.cuda.is_available()
        settings: dict[str, Any] = {"enforce_eager": not gpu}  # nothing to capture or compile for on a CPU
        if gpu:
            settings["gpu_memory_utilization"] = 0.9 if memory is None else memory
        else:
            settings["kv_cache_memory_bytes"] = int((1.0 if memory is None else memory) * 2**30)
        before = multiprocessing.active_children()
        with _quiet_stdout():
            self.llm = vllm.LLM(str(path), dtype=dtype, max_model_len=window, seed=seed, **settings)
        self._processes = [child for child in multiprocessing.active_children() if child not in before]
        config = self.llm.llm_engine.model_config
        self.window: int = config.max_model_len
        self.name = f"{config.hf_config.model_type}-{_parameters(path) / 1e6:.0f}M"
        self.version = f"{folder_digest(path)[:16]}/{dtype}/vllm-{vllm.__version__}"

    def replies(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[Reply | None]:
        """As `Replying` says, choices taking what tokens they need. Raises OSError where vLLM's process has ended."""
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        grammar: dict[str, Any] = {}
        if choices is not None:
            check_choices(choices)
            max_tokens, grammar = room(choices), {"choice": list(choices)}
        elif schema is not None:
            grammar = {"json": dict(schema)}
        prompts = self.prompts.encode([self.prompts.text(conversation) for conversation in conversations])
        fit = [i for i, tokens in enumerate(prompts) if len(tokens) + max_tokens <= self.window]
        try:
            # Parameters of its own for each request: vLLM notes in them what it has made of a grammar.
            settings = [
                SamplingParams(
                    max_tokens=max_tokens,
                    temperature=temperature,
                    seed=number(f"{seed}:{prompts[i]}"),
                    logprobs=0,  # of the token that was taken, and no others
                    structured_outputs=StructuredOutputsParams(**grammar) if grammar else None,
                )
                for i in fit
            ]
            told = self._run([prompts[i] for i in fit], settings)
        except Exception as error:
            names = {kind.__name__ for kind in type(error).__mro__}
            if not names & {"ValueError", "VLLMClientError"}:  # what older and newer versions raise for a request
                raise
            raise InputError(f"vLLM refuses these settings: {error}") from error
        replies: list[Reply | None] = [None] * len(prompts)
        for i, out in zip(fit, told, strict=True):
            said = out.outputs[0]
            reply = Reply(said.text, len(said.token_ids), said.finish_reason, said.cumulative_logprob)
            replies[i] = held(reply, choices, schema)
        return replies

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]]:
        """The log-probability (nats) of each choice as the start of the reply; a row of NaN for a conversation that
        does not fit. Raises InputError for choices of which one begins another: their probabilities would overlap."""
        from vllm import SamplingParams

        check_choices(choices)
        prompts = [self.prompts.text(conversation) for conversation in conversations]
        rows = [self.prompts.encode([text, *(text + choice for choice in choices)]) for text in prompts]
        scores = [[math.nan] * len(choices) for _ in rows]
        wanted = [
            (i, j, common(row), tokens)
            for i, row in enumerate(rows)
            if max(map(len, row)) < self.window  # vLLM always adds a token
            for j, tokens in enumerate(row[1:])
        ]
        settings = [SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0) for _ in wanted]
        told = self._run([tokens for *_, tokens in wanted], settings)
        for (i, j, start, tokens), out in zip(wanted, told, strict=True):
            steps = out.prompt_logprobs[start:]
            scores[i][j] = math.fsum(step[token].logprob for step, token in zip(steps, tokens[start:], strict=True))
        return scores

    def close(self) -> None:
        """End vLLM's processes and give their memory back."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None

    def _run(self, prompts: list[list[int]], settings: list[Any]) -> list[Any]:
        if not prompts:
            return []
        done = threading.Event()
        threading.Thread(target=self._watch, args=(done,), daemon=True).start()
        try:
            return self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], settings, use_tqdm=False)
        except Exception as error:
            if all(process.is_alive() for process in self._processes):
                raise
            raise OSError("vLLM's process has ended; if memory was short, give it less `memory` or `window`") from error
        finally:
            done.set()

    def _watch(self, done: threading.Event) -> None:
        """vLLM waits for ever for a process that was killed, as for want of memory; this ends the wait."""
        outputs = getattr(self.llm.llm_engine.engine_core, "outputs_queue", None)
        while outputs is not None and not done.wait(0.5):
            if not all(process.is_alive() for process in self._processes):
                outputs.put_nowait(ChildProcessError("vLLM's process has ended"))
                return


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """What is written meanwhile, and by processes that start meanwhile, goes to stderr: gloo and vLLM report to stdout,
    which is for a step's result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _parameters(folder: Path) -> int:
    """How many numbers the safetensors of a folder hold."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
