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

import copy
import hashlib
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read when torch loads. Threads that spin while they wait for each other triple a step's time on cores that are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
)
from transformers.utils.logging import disable_progress_bar

from gristmill.dataops.dataset import InputError

Conversation = Sequence[Mapping[str, str]]

#: A common beginning of at least so many tokens is computed once for a whole call.
SHARED = 32


class TransformersEngine:
    """A causal language model in a local folder (configuration, safetensors, tokenizer with a chat template).

    On a GPU where there is one unless `device` says otherwise; `dtype` is bfloat16 there and float32 on a CPU.
    `batch_tokens` is the most tokens of a batch, padding counted: memory, never results. `name` and `version` say what
    is in the folder and not where it lies: kind and size, and a hash of its files with the dtype. Raises InputError for
    a folder without a model, a tokenizer or a chat template.
    """

    structured = True

    def __init__(
        self, folder: str | Path, *, device: str | None = None, dtype: str | None = None, batch_tokens: int = 8_192
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        kind = dtype or ("bfloat16" if self.device.type == "cuda" else "float32")
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise InputError(f"{path}: no config.json; a model's folder is wanted (for a GGUF file see from_gguf)")
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        if not self.tokenizer.chat_template:
            raise InputError(f"{path}: the tokenizer has no chat template; add a chat_template.jinja to the folder")
        disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, dtype=getattr(torch, kind))
        self.model = model.to(self.device).eval()
        self.name = f"{model.config.model_type}-{model.num_parameters() / 1e6:.0f}M"
        self.version = f"{_folder_digest(path)[:16]}/{kind}"
        self.batch_tokens = batch_tokens
        self.window: float = getattr(model.config, "max_position_embeddings", None) or math.inf
        self.ends = _ends(model, self.tokenizer)
        self._reserved = sorted(
            (str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special and len(str(t)) > 1),
            key=len,
            reverse=True,
        )
        self._takes_system = self._renders([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        choices: Sequence[str] | None = None,
        schema: Mapping[str, Any] | None = None,
    ) -> list[str | None]:
        """One reply each, in order, of at most `max_tokens` tokens; None for a conversation that does not fit. With
        `choices`, the likeliest of them (at a temperature, one drawn). Raises InputError for a schema."""
        if schema is not None:
            raise InputError("this engine cannot hold a reply to a schema; give `choices`, or use a serving engine")
        if choices is not None:
            rows = self.logprobs(conversations, choices)
            return [
                None if math.isnan(row[0]) else choices[_pick(row, temperature, f"{seed}:{self._text(conversation)}")]
                for row, conversation in zip(rows, conversations, strict=True)
            ]
        ids = self._encode([self._text(conversation) for conversation in conversations])
        replies: list[str | None] = [None] * len(ids)
        fit = [i for i, tokens in enumerate(ids) if len(tokens) + max_tokens <= self.window]
        config = GenerationConfig(
            max_new_tokens=max_tokens, do_sample=False, eos_token_id=self.ends, pad_token_id=self._pad()
        )
        for part in self._batches([len(ids[i]) + max_tokens for i in fit]):
            prompts = [ids[fit[k]] for k in part]
            tokens, mask = self._padded(prompts)
            drawn = [_Drawn(prompts, temperature, seed, self.device)] if temperature > 0 else []
            with torch.inference_mode():
                out = self.model.generate(
                    tokens, attention_mask=mask, generation_config=config, logits_processor=LogitsProcessorList(drawn)
                )
            replied = out[:, tokens.shape[1] :]
            texts = self.tokenizer.batch_decode(replied, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for k, text in zip(part, texts, strict=True):
                replies[fit[k]] = text
        return replies

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]]:
        """The log-probability (nats) of each choice as the start of the reply; a row of NaN for a conversation that
        does not fit. Raises InputError for choices of which one begins another: their probabilities would overlap."""
        for n, one in enumerate(choices):
            if not one or any(other.startswith(one) for other in (*choices[:n], *choices[n + 1 :])):
                raise InputError(f"the choice {one!r} is empty or begins another one; choices differ from the start")
        texts = [self._text(conversation) for conversation in conversations]
        whole = [self._encode([text + choice for text in texts]) for choice in choices]
        bare = self._encode(texts)
        scores = [[math.nan] * len(choices) for _ in texts]
        # One forward pass per distinct sequence: choices of one token each share theirs.
        wanted: dict[tuple[int, ...], list[tuple[int, int, list[int]]]] = {}
        for i, context in enumerate(bare):
            options = [tokens[i] for tokens in whole]
            if max(map(len, options)) > self.window:
                continue
            start = _common([context, *options])
            for j, tokens in enumerate(options):
                wanted.setdefault(tuple(tokens[:-1]), []).append((i, j, tokens[start:]))
        sequences = list(wanted)
        keep = max((len(suffix) for row in wanted.values() for _, _, suffix in row), default=1)
        shared = self._shared(sequences, keep)
        for part in self._batches([len(sequence) for sequence in sequences]):
            rows = [sequences[k] for k in part]
            table = self._last(rows, keep, shared)
            for at, row in enumerate(rows):
                for i, j, suffix in wanted[row]:
                    steps = table[at, keep - len(suffix) :]
                    scores[i][j] = float(steps.gather(1, torch.tensor(suffix)[:, None]).double().sum())
        return scores

    def _shared(self, rows: Sequence[Sequence[int]], keep: int) -> DynamicCache | None:
        """Keys and values of what all rows begin with (a judge's instructions), computed once; None for too little."""
        length = min(_common(rows), min(map(len, rows)) - keep) if len(rows) > 1 else 0
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

    def _text(self, conversation: Conversation) -> str:
        """A conversation as the template writes it, up to where the reply begins."""
        messages = [{"role": message["role"], "content": self._plain(message["content"])} for message in conversation]
        if not self._takes_system and len(messages) > 1 and messages[0]["role"] == "system":
            first, second, *others = messages
            messages = [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *others]
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _plain(self, content: str) -> str:
        """A message in which a special token's name is spelled with a space, and so is text like any other; halves of
        surrogate pairs, at which the tokenizer would stop, become U+FFFD."""
        content = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        for token in self._reserved:
            content = content.replace(token, f"{token[0]} {token[1:]}")
        return content

    def _renders(self, messages: list[dict[str, str]]) -> bool:
        from jinja2 import TemplateError

        try:
            self.tokenizer.apply_chat_template(messages, tokenize=False)
        except TemplateError:
            return False
        return True

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False).input_ids if texts else []

    def _pad(self) -> int:
        known = self.tokenizer.pad_token_id
        return known if known is not None else self.ends[0] if self.ends else 0

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask, int64 [rows, longest], padded on the left."""
        longest = max(map(len, rows))
        tokens = [[self._pad()] * (longest - len(row)) + list(row) for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions of sequences by length, longest first (so that a lack of memory shows at once)."""
        part: list[int] = []
        for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
            if part and (len(part) + 1) * lengths[part[0]] > self.batch_tokens:
                yield part
                part = []
            part.append(k)
        if part:
            yield part


class _Drawn(LogitsProcessor):
    """Gumbel noise on logits (their largest is then a draw), from one generator per row: batches do not matter."""

    def __init__(self, rows: Sequence[Sequence[int]], temperature: float, seed: int, device: torch.device) -> None:
        self.temperature = temperature
        self.sources = [torch.Generator(device).manual_seed(_number(f"{seed}:{list(row)}")) for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        width = scores.shape[1]
        noise = torch.stack([torch.rand(width, generator=source, device=scores.device) for source in self.sources])
        return scores.float() / self.temperature - torch.log(-torch.log(noise.clamp(1e-20, 1 - 1e-7)))


def from_gguf(file: str | Path, folder: str | Path) -> Path:
    """A GGUF file as an ordinary checkpoint (float32, with tokenizer and chat template) in `folder`, which is returned;
    one that stands there already is kept. Needs the packages gguf and accelerate. Raises InputError for other files."""
    from transformers import GgufConfig

    path, out = Path(file), Path(folder)
    if (out / "config.json").is_file():
        return out
    if not path.is_file() or path.read_bytes()[:4] != b"GGUF":
        raise InputError(f"{path} is no GGUF file")
    disable_progress_bar()
    # Without `dequantize` the model could not be saved.
    config = GgufConfig(gguf_file=path.name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, quantization_config=config
    )
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    building = out.parent / f".{out.name}-{uuid.uuid4().hex[:12]}"
    try:
        model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        building.rename(out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end a reply, by the model's and the tokenizer's word."""
    told = model.generation_config.eos_token_id
    found = told if isinstance(told, list) else [told]
    return sorted({token for token in (*found, tokenizer.eos_token_id) if token is not None})


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of what decides a model's answers."""
    state = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in {".safetensors", ".json", ".jinja", ".model", ".txt", ".bin"}:
            with path.open("rb") as stream:
                state.update(f"{path.name}:{hashlib.file_digest(stream, 'sha256').hexdigest()};".encode())
    return state.hexdigest()


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with."""
    return next((n for n, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1), min(map(len, rows)))


def _pick(row: Sequence[float], temperature: float, key: str) -> int:
    if temperature <= 0:
        return max(range(len(row)), key=lambda j: row[j])
    source = torch.Generator().manual_seed(_number(key))
    weights = torch.softmax(torch.tensor(row, dtype=torch.float64) / temperature, 0)
    return int(torch.multinomial(weights, 1, generator=source))


def _number(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:7], "big")
