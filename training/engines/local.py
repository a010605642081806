"""Generation from a local checkpoint with transformers: replies, choices and their log-probabilities, in batches.

    engine = TransformersEngine("checkpoint/")
    engine.generate([[{"role": "user", "content": "Name a colour."}]], max_tokens=8)
    engine.logprobs([[{"role": "user", "content": "Is fire cold? Yes or no."}]], ["Yes", "No"])

The laws: what comes out for a conversation does not depend on what shares its batch (but for the rounding of sums); a
choice is scored exactly, over all its tokens; a message cannot write the template's special tokens; a conversation
that does not fit into the model's window gets no answer instead of a cut one. Greedy where the temperature is 0, else
drawn by the seed and the conversation alone, so that one seed gives equal conversations equal replies.

Not covered: JSON schemas (`structured` is about choices), several devices, and the speed of a serving engine.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

# Read when torch loads. Threads that spin while they wait for each other triple a step's time on cores that are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils.logging import disable_progress_bar

from gristmill.dataops.dataset import InputError
from gristmill.training.engines.prompts import (
    Conversation,
    Prompts,
    Reply,
    Replying,
    check_choices,
    common,
    folder_digest,
    number,
)
from gristmill.training.engines.settings import BATCH_TOKENS

T = TypeVar("T")
#: A common beginning of at least so many tokens is computed once for a whole call.
SHARED = 32
TOO_LITTLE, ELSEWHERE = "the device has too little memory for", "take a smaller model or a server"


class TransformersEngine(Replying):
    """A causal language model in a local folder (configuration, safetensors, tokenizer with a chat template).

    On a GPU where there is one unless `device` says otherwise; `dtype` is bfloat16 there and float32 on a CPU.
    `batch_tokens` is the most tokens of a batch, padding counted: memory, never results, and less by itself where a
    device has too little; where that does not do for one conversation, OSError rises. `name` and `version` say what
    is in the folder and not where it lies: kind and size, and a hash of its files with the dtype. Raises InputError for
    a folder without a model, a tokenizer or a chat template.
    """

    structured = True

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = dtype or ("bfloat16" if self.device.type == "cuda" else "float32")
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: no config.json; a model's folder is wanted (for a GGUF file see from_gguf)")
        self.prompts = Prompts(path)
        self.tokenizer = self.prompts.tokenizer
        disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=getattr(torch, kind))
        try:
            self.model = model.to(self.device).eval()
        except torch.OutOfMemoryError:
            raise OSError(f"{path}: {TOO_LITTLE} the weights: give `dtype` bfloat16, or {ELSEWHERE}") from None
        self.name = f"{model.config.model_type}-{model.num_parameters() / 1e6:.0f}M"
        self.version = f"{folder_digest(path)[:16]}/{kind}"
        self.batch_tokens = batch_tokens
        self.window: float = getattr(model.config, "max_position_embeddings", None) or math.inf
        self.ends = _ends(model, self.tokenizer)
        # What is left unsaid to generate() would come from here: penalties and temperatures of the model's maker.
        self.model.generation_config = GenerationConfig(eos_token_id=self.ends, pad_token_id=self._pad())

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
        """As `Replying` says; with `choices`, the likeliest of them (at a temperature, one drawn). Raises InputError
        for a schema."""
        if schema is not None:
            raise InputError("this engine cannot hold a reply to a schema; give `choices`, or use a serving engine")
        prompts = [self.prompts.text(conversation) for conversation in conversations]
        if choices is not None:
            rows = self.logprobs(conversations, choices)
            picked = [_pick(row, temperature, f"{seed}:{text}") for row, text in zip(rows, prompts, strict=True)]
            return [
                None if at is None else Reply(choices[at], None, "stop", row[at])
                for at, row in zip(picked, rows, strict=True)
            ]
        ids = self.prompts.encode(prompts)
        replies: list[Reply | None] = [None] * len(ids)
        fit = [i for i, tokens in enumerate(ids) if len(tokens) + max_tokens <= self.window]
        config = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, eos_token_id=self.ends, pad_token_id=self._pad()
        )

        def generated(part: list[int]) -> tuple[list[list[int]], _Drawing]:
            rows = [ids[fit[k]] for k in part]
            tokens, mask = self._padded(rows)
            drawing = _Drawing(rows, temperature, seed, self.device)
            with torch.inference_mode():
                out = self.model.generate(
                    tokens,
                    attention_mask=mask,
                    generation_config=config,
                    logits_processor=LogitsProcessorList([drawing]),
                )
            return out[:, tokens.shape[1] :].tolist(), drawing

        for part, (told, drawing) in self._each([len(ids[i]) + max_tokens for i in fit], generated):
            lengths = [next((n + 1 for n, t in enumerate(row) if t in self.ends), len(row)) for row in told]
            replied = self.tokenizer.batch_decode(
                [row[:length] for row, length in zip(told, lengths, strict=True)],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
            sums = drawing.sums(lengths)
            for k, text, row, length, total in zip(part, replied, told, lengths, sums, strict=True):
                ended = "stop" if length and row[length - 1] in self.ends else "length"
                replies[fit[k]] = Reply(text, length, ended, total)
        return replies

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]]:
        """The log-probability (nats) of each choice as the start of the reply; a row of NaN for a conversation that
        does not fit. Raises InputError for choices of which one begins another: their probabilities would overlap."""
        check_choices(choices)
        prompts = [self.prompts.text(conversation) for conversation in conversations]
        whole = [self.prompts.encode([text + choice for text in prompts]) for choice in choices]
        bare = self.prompts.encode(prompts)
        scores = [[math.nan] * len(choices) for _ in prompts]
        # One forward pass per distinct sequence: choices of one token each share theirs.
        wanted: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = {}
        for i, context in enumerate(bare):
            options = [tokens[i] for tokens in whole]
            if max(map(len, options)) > self.window:
                continue
            start = common([context, *options])
            for j, tokens in enumerate(options):
                wanted.setdefault(tuple(tokens[:-1]), []).append((i, j, tokens[start:]))
        sequences = list(wanted)
        keep = max((len(suffix) for row in wanted.values() for _, _, suffix in row), default=1)
        shared = self._shared(sequences, keep)

        def scored(part: list[int]) -> torch.Tensor:
            return self._last([sequences[k] for k in part], keep, shared)

        for part, table in self._each([len(sequence) for sequence in sequences], scored):
            for at, k in enumerate(part):
                for i, j, suffix in wanted[sequences[k]]:
                    steps = table[at, keep - len(suffix) :]
                    scores[i][j] = float(steps.gather(1, torch.tensor(suffix)[:, None]).double().sum())
        return scores

    def close(self) -> None:
        """Give the model's memory back."""
        self.model = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _shared(self, rows: Sequence[Sequence[int]], keep: int) -> DynamicCache | None:
        """Keys and values of what all rows begin with (a judge's instructions), computed once; None for too little."""
        length = min(common(rows), min(map(len, rows)) - keep) if len(rows) > 1 else 0
        if length < SHARED:
            return None
        with torch.inference_mode():
            start = torch.tensor([list(rows[0][:length])], device=self.device)
            return self.model(
                input_ids=start, use_cache=True, past_key_values=DynamicCache(), logits_to_keep=1
            ).past_key_values

    def _last(self, rows: Sequence[Sequence[int]], keep: int, shared: DynamicCache | None) -> torch.Tensor:
        """Log-probabilities after each of the last `keep` tokens: float32 [rows, keep, vocabulary] on the CPU."""
        done = 0 if shared is None else shared.get_seq_length()
        tokens, mask = self._padded([row[done:] for row in rows])
        with torch.inference_mode():
            cache = None
            if shared is not None:
                cache = copy.deepcopy(shared)
                cache.batch_repeat_interleave(len(rows))
            logits = self.model(
                input_ids=tokens,
                attention_mask=torch.nn.functional.pad(mask, (done, 0), value=1),
                position_ids=(mask.cumsum(1) - 1).clamp(min=0) + done,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=keep,
            ).logits
            return torch.log_softmax(logits.float(), -1).cpu()

    def _pad(self) -> int:
        known = self.tokenizer.pad_token_id
        return known if known is not None else self.ends[0] if self.ends else 0

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, int64 [rows, longest], padded on the left."""
        longest = max(map(len, rows))
        tokens = [[self._pad()] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)

    def _each(self, lengths: Sequence[int], call: Callable[[list[int]], T]) -> Iterator[tuple[list[int], T]]:
        """`call` of positions of sequences in batches, longest first (so that a lack of memory shows at once)."""
        waiting = sorted(range(len(lengths)), key=lambda k: -lengths[k])
        while waiting:
            longest = max(lengths[waiting[0]], 1)
            part = waiting[: max(1, self.batch_tokens // longest)]
            done: T | None = None
            with contextlib.suppress(torch.OutOfMemoryError):
                done = call(part)
            if done is not None:
                del waiting[: len(part)]
                yield part, done
                continue
            torch.cuda.empty_cache()
            if len(part) == 1:
                raise OSError(
                    f"{TOO_LITTLE} one conversation of {longest:,} tokens, its reply counted: "
                    f"lower `max_tokens`, give `dtype` bfloat16, or {ELSEWHERE}"
                )
            self.batch_tokens = len(part) // 2 * longest  # results do not depend on it


class _Drawing(LogitsProcessor):
    """Greedy choice, or Gumbel noise on logits (their largest is then a draw) from one generator per row, so that
    batches do not matter; and the model's own log-probability of what was taken."""

    def __init__(self, rows: Sequence[Sequence[int]], temperature: float, seed: int, device: torch.device) -> None:
        self.temperature = temperature
        self.sources = [torch.Generator(device).manual_seed(number(f"{seed}:{list(row)}")) for row in rows]
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = plain = scores.float()
        if self.temperature > 0:
            width = scores.shape[1]
            noise = torch.stack([torch.rand(width, generator=source, device=scores.device) for source in self.sources])
            scores = scores / self.temperature - torch.log(-torch.log(noise.clamp(1e-20, 1 - 1e-7)))
        taken = plain.gather(1, scores.argmax(1, keepdim=True))[:, 0]
        self.steps.append(taken - plain.logsumexp(1))
        return scores

    def sums(self, lengths: Sequence[int]) -> list[float]:
        """Over the first tokens of each row, as many as the row is long."""
        if not self.steps:
            return [0.0] * len(lengths)
        table = torch.stack(self.steps, 1).double().cpu()
        return [float(row[:length].sum()) for row, length in zip(table, lengths, strict=True)]


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a reply, by the model's and the tokenizer's word."""
    told = model.generation_config.eos_token_id
    found = told if isinstance(told, list) else [told]
    return sorted({token for token in (*found, tokenizer.eos_token_id) if token is not None})


def _pick(row: Sequence[float], temperature: float, key: str) -> int | None:
    """The place of the likeliest choice, or of one drawn; None for a conversation that did not fit."""
    if math.isnan(row[0]):
        return None
    if temperature <= 0:
        return max(range(len(row)), key=lambda j: row[j])
    source = torch.Generator().manual_seed(number(key))
    weights = torch.softmax(torch.tensor(row, dtype=torch.float64) / temperature, 0)
    return int(torch.multinomial(weights, 1, generator=source))
