"""Any server that speaks OpenAI's chat completions as an engine: `vllm serve` first of all, and hosted ones.

    engine = ServerEngine("http://127.0.0.1:8000", "my-model", folder="checkpoint/")
    engine.generate([[{"role": "user", "content": "Name a colour."}]], max_tokens=8)

The laws: an outage is an OSError, never a reply (training/engines/wire.py); the model must be one that the server
lists, and with a local `folder` its template and tokenizer must turn messages into the same tokens as the folder's; a
reply that is none of the `choices`, or no whole JSON for a `schema`, is no reply; one seed asks for equal replies to
equal conversations. How well a server keeps to a seed is its own affair: batches change the last bits of sums.

Choices are drawn token by token under the server's grammar, which for choices of several tokens need not give the
likeliest; `logprobs` is exact. It needs /v1/completions with `echo`, and vLLM's /tokenize or a folder, else it is None.
Not covered: which weights a server has loaded, beyond the name that it gives them; replies in streams.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
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
    held,
    number,
    room,
    spelled,
)
from gristmill.training.engines.wire import Answer, Wire

#: How servers say that a conversation does not fit: vLLM, OpenAI, llama.cpp, SGLang, TGI.
_TOO_LONG = re.compile(
    r"maximum context length|context_length_exceeded|context size|max_model_len|max_total_tokens|longer than the model"
    r"|must be <= \d+",
    re.IGNORECASE,
)
#: What two templates or tokenizers are likely to differ in.
PROBE = (
    {"role": "user", "content": "  Zwölf Boxkämpfer:\n\tx = 1234567  "},
    {"role": "assistant", "content": "It's 3.14 — isn't it?\n\n"},
    {"role": "user", "content": "好 🙂 \\boxed{7}"},
)


class ServerEngine(Replying):
    """A model behind `url`; `model` is its name there (not needed where the server has one alone).

    `folder` is a local one with the tokenizer and chat template that the model is meant to have. `key_env` names the
    environment variable with the key. Up to `concurrent` requests run at a time, each for at most `timeout` seconds
    and `tries` times. `name` is the model's, `version` the server with its version and where it took the model from.
    Raises InputError for a server without the model or with another template, OSError where there is no server.
    """

    structured = True

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        folder: str | Path | None = None,
        key_env: str | None = None,
        concurrent: int = 16,
        timeout: float = 600.0,
        tries: int = 8,
    ) -> None:
        self._wire = Wire(url, key_env, concurrent=concurrent, timeout=timeout, tries=tries)
        self.url = self._wire.url
        listed = self._listed()
        names = [str(entry["id"]) for entry in listed]
        if model is None and len(names) != 1:
            raise InputError(f"{self.url} serves {', '.join(names) or 'no model'}: say which one in `model`")
        self.name = names[0] if model is None else model
        if self.name not in names:
            raise InputError(
                f"{self.url} serves {', '.join(names[:20]) or 'no model'}, not {self.name}: "
                "give one of these names in `model`, or the address of the right server"
            )
        entry = listed[names.index(self.name)]
        self._vllm = entry.get("owned_by") == "vllm"
        window = entry.get("max_model_len")
        self.window: float = window if isinstance(window, int) else math.inf
        self.version = self._version(entry)
        # vLLM takes what is left out from the model's generation_config.json; other engines of ours do not.
        self._plain: dict[str, Any] = {"top_p": 1.0}
        if self._vllm:
            self._plain |= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        self._sums = True  # until the server refuses `logprobs`
        self._prompts = None if folder is None else Prompts(folder)
        if self._prompts is not None:
            self._check_template(self._prompts, Path(folder or ""))

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
        """As `Replying` says, choices taking what tokens they need; the log-probability where the server tells it.
        Raises OSError for an outage, InputError for what the server refuses."""
        fixed = {"model": self.name, "max_tokens": max_tokens, "temperature": temperature, **self._plain}
        if choices is not None:
            check_choices(choices)
            fixed |= {"max_tokens": room(choices), **self._choice(choices)}
        elif schema is not None:
            fixed["response_format"] = _format(schema)

        def one(at: int) -> Reply | None:
            messages = self._messages(conversations[at])
            drawn = number(f"{seed}:{json.dumps(messages)}", 31)
            reply = self._reply(fixed | {"messages": messages, "seed": drawn}, at)
            if reply is None:
                return None
            if reply.text is not None and choices is not None and not self._vllm:
                reply = Reply(_unwrapped(reply.text), reply.tokens, reply.finish)
            return held(reply, choices, schema)

        return self._wire.each(one, range(len(conversations)))

    def logprobs(self, conversations: Sequence[Conversation], choices: Sequence[str]) -> list[list[float]] | None:
        """The log-probability (nats) of each choice as the start of the reply; a row of NaN for a conversation that
        does not fit; None where the server cannot say. Raises InputError for choices that begin another."""
        check_choices(choices)
        rows = self._wire.each(lambda conversation: self._scores(conversation, choices), list(conversations))
        found = [row for row in rows if row is not None]
        return found if len(found) == len(rows) else None

    def close(self) -> None:
        """Give the connections back."""
        self._wire.close()

    def _reply(self, body: dict[str, Any], at: int) -> Reply | None:
        sums = self._sums
        answer = self._wire.ask("/v1/chat/completions", body | ({"logprobs": True} if sums else {}), read=_read_reply)
        if answer.status == 200:
            return answer.data
        if sums and "logprob" in answer.message.lower():
            self._sums = False
            return self._reply(body, at)
        if _misfit(answer):
            return None
        raise InputError(
            f"{self.url}: {self.name} refuses conversation {at} with status {answer.status}: {answer.message}"
        )

    def _choice(self, choices: Sequence[str]) -> dict[str, Any]:
        """One of the choices: as itself from vLLM, else as the one field of an object."""
        if self._vllm:
            return {"structured_outputs": {"choice": list(choices)}}
        fields = {"choice": {"type": "string", "enum": list(choices)}}
        whole = {"type": "object", "properties": fields, "required": ["choice"], "additionalProperties": False}
        return {"response_format": _format(whole), "max_tokens": room(choices) + 32}

    def _messages(self, conversation: Conversation) -> list[dict[str, str]]:
        return spelled(conversation) if self._prompts is None else self._prompts.messages(conversation)

    def _scores(self, conversation: Conversation, choices: Sequence[str]) -> list[float] | None:
        """One row of `logprobs`; None where the server cannot."""
        ids = self._ids(conversation, choices)
        if ids is None:
            return None
        bare, options = ids
        if not bare or max(map(len, options)) > self.window:
            return [math.nan] * len(choices)
        body = {"model": self.name, "prompt": options, "max_tokens": 0, "echo": True, "logprobs": 0}
        answer = self._wire.ask("/v1/completions", body, read=lambda data: _echoed(data, len(options)))
        if answer.status != 200:
            return [math.nan] * len(choices) if _misfit(answer) else None
        if [len(told) for told in answer.data] != [len(tokens) for tokens in options]:
            return None  # it took the tokens for something else
        start = common([bare, *options])
        return [math.fsum(told[start:]) for told in answer.data]

    def _ids(self, conversation: Conversation, choices: Sequence[str]) -> tuple[list[int], list[list[int]]] | None:
        """Tokens up to the reply, and with each choice; the first is empty for a conversation that does not fit."""
        if self._prompts is not None:
            text = self._prompts.text(conversation)
            bare, *options = self._prompts.encode([text, *(text + choice for choice in choices)])
            return bare, options
        told = self._tokens({"messages": self._messages(conversation), "add_generation_prompt": True})
        if told is None:
            return None
        answer = self._wire.ask(
            "/detokenize", {"model": self.name, "tokens": told}, read=lambda data: str(data["prompt"])
        )
        if answer.status != 200:
            return None
        bare, *options = [
            self._tokens({"prompt": text, "add_special_tokens": False}) or []
            for text in (answer.data, *(answer.data + choice for choice in choices))
        ]
        return (bare, options) if bare == told and all(options) else None

    def _tokens(self, what: dict[str, Any]) -> list[int] | None:
        """Tokens as the server makes them; None where it does not tell (llama.cpp makes none of messages)."""
        answer = self._wire.ask(
            "/tokenize", {"model": self.name, **what}, read=lambda data: [int(token) for token in data["tokens"]]
        )
        return answer.data or None if answer.status == 200 else None

    def _listed(self) -> list[dict[str, Any]]:
        try:
            answer = self._wire.ask(
                "/v1/models", read=lambda data: [{**entry, "id": entry["id"]} for entry in data["data"]]
            )
        except OSError as error:
            raise OSError(f"{error}: start the server, as with `vllm serve MODEL`, or put its address right") from None
        if answer.status != 200:
            raise InputError(
                f"{self.url}/v1/models has status {answer.status}: that is no server of this protocol; "
                "give its address without /v1 and what follows"
            )
        return answer.data

    def _version(self, entry: Mapping[str, Any]) -> str:
        """The server, its version, and the end of where it took the model from (a checkpoint's name and key)."""
        answer = self._wire.ask("/version") if self._vllm else None
        told = answer.data.get("version") if answer is not None and isinstance(answer.data, dict) else None
        root = "/".join(str(entry.get("root") or "").strip("/").split("/")[-3:])
        return "/".join(part for part in (f"{entry.get('owned_by') or 'server'}-{told or 'unknown'}", root) if part)

    def _check_template(self, prompts: Prompts, folder: Path) -> None:
        """Raises InputError where the server makes other tokens of messages than the folder does."""
        mine = prompts.encode([prompts.text(PROBE)])[0]
        theirs = self._tokens({"messages": list(PROBE), "add_generation_prompt": True})
        if theirs is None:  # no vLLM: at least the numbers of tokens can be compared
            body = {"model": self.name, "messages": list(PROBE), "max_tokens": 1, "temperature": 0}
            answer = self._wire.ask("/v1/chat/completions", body, read=lambda data: int(data["usage"]["prompt_tokens"]))
            if answer.status != 200:
                raise InputError(f"{self.url}: {self.name} refuses a short conversation: {answer.message}")
            if answer.data == len(mine):
                return
            what = f"{answer.data} tokens, the folder's make {len(mine)}"
        elif theirs == mine:
            return
        else:
            at = common([mine, theirs])
            what = f"other tokens from place {at} on ({theirs[at : at + 4]}, the folder's make {mine[at : at + 4]})"
        raise InputError(
            f"{self.url}: the template or tokenizer that {self.name} is served with makes {what}: serve the model from "
            f"{folder} (or with its chat_template.jinja), or name the folder of the model that is served"
        )


def _read_reply(data: Any) -> Reply:
    """A reply out of a chat completion; without a text where a model only thought. Raises what `Wire.ask` reads as
    broken."""
    choice = data["choices"][0]
    text = choice["message"]["content"]
    if text is not None and not isinstance(text, str):
        raise TypeError("a content that is no text")
    usage = data.get("usage") or {}
    tokens = usage.get("completion_tokens")
    told = (choice.get("logprobs") or {}).get("content")
    total = math.fsum(float(entry["logprob"]) for entry in told) if told else None
    finish = choice.get("finish_reason")
    return Reply(text, tokens if isinstance(tokens, int) else None, None if finish is None else str(finish), total)


def _echoed(data: Any, many: int) -> list[list[float]]:
    """Log-probabilities of the tokens of each prompt; the first of a prompt, which has none, counts as 0."""
    rows = {int(choice["index"]): choice["logprobs"]["token_logprobs"] for choice in data["choices"]}
    return [[0.0, *(float(value) for value in rows[n][1:])] for n in range(many)]


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": dict(schema)}}


def _unwrapped(text: str) -> str:
    """The choice in the object that was asked for; what is no such object is left, and is none of the choices."""
    try:
        return str(json.loads(text)["choice"])
    except (ValueError, TypeError, KeyError):
        return text


def _misfit(answer: Answer) -> bool:
    return answer.status in (400, 413, 422) and _TOO_LONG.search(answer.message) is not None
