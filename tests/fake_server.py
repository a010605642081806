"""A real HTTP server on loopback that speaks chat completions, with a tiny model behind it, and that can misbehave."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from gristmill.training.engines.local import TransformersEngine

WINDOW = 4096


class FakeServer(ThreadingHTTPServer):
    """`faults` are what the next chat completions suffer, one each (None: nothing), `always` what all of them do.
    `vllm` gives it the extras of vLLM. `asked` are the bodies of all requests by path and `times` when each came
    (seconds), `most` how many came at once."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, engine: TransformersEngine, *, vllm: bool, key: str | None, slow: float, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.engine, self.vllm, self.key, self.slow = engine, vllm, key, slow
        self.name = "tiny"
        self.faults: list[str | None] = []
        self.always: str | None = None
        self.refuses_logprobs = False
        self.asked: list[tuple[str, dict]] = []
        self.times: list[float] = []
        self.at_once = self.most = 0
        self.lock, self.model_lock = threading.Lock(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path: str = "/v1/chat/completions") -> list[dict]:
        return [body for where, body in self.asked if where == path]

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are a part of the tests."""


@contextlib.contextmanager
def serving(
    engine: TransformersEngine, *, vllm: bool = True, key: str | None = None, slow: float = 0.0, port: int = 0
) -> Iterator[FakeServer]:
    """A server while the block runs."""
    server = FakeServer(engine, vllm=vllm, key=key, slow=slow, port=port)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        entry = {"id": self.server.name, "object": "model", "owned_by": "someone"}
        if self.server.vllm:
            entry |= {
                "owned_by": "vllm",
                "root": f"/srv/runs/sft/0123456789ab/{self.server.name}",
                "max_model_len": WINDOW,
            }
        answers = {"/v1/models": {"object": "list", "data": [entry]}}
        if self.server.vllm:
            answers["/version"] = {"version": "0.31.0"}
        found = answers.get(self.path)
        self._say(200, found) if found is not None else self._say(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append((self.path, body))
            server.times.append(time.monotonic())
            server.at_once += 1
            server.most = max(server.most, server.at_once)
        try:
            time.sleep(server.slow)
            if server.key is not None and self.headers["Authorization"] != f"Bearer {server.key}":
                self._say(401, {"error": {"message": f"Incorrect API key: {self.headers['Authorization']}"}})
            elif body.get("model") != server.name:
                self._say(404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}})
            elif self.path == "/v1/chat/completions":
                self._chat(body)
            elif server.vllm and self.path in ("/tokenize", "/detokenize", "/v1/completions"):
                self._say(
                    200, getattr(self, {"/tokenize": "_tokenize", "/detokenize": "_text"}.get(self.path, "_echo"))(body)
                )
            else:
                self._say(404, {"detail": "Not Found"})
        finally:
            with server.lock:
                server.at_once -= 1

    def _chat(self, body: dict) -> None:
        server = self.server
        with server.lock:
            fault = server.faults.pop(0) if server.faults else server.always
        if fault is not None:
            return self._fault(fault)
        if body.get("logprobs") and server.refuses_logprobs:
            return self._say(400, {"error": {"message": "logprobs is not supported by this model"}})
        tokenizer = server.engine.tokenizer
        prompt = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        if len(prompt) + body["max_tokens"] > WINDOW:
            message = f"This model's maximum context length is {WINDOW} tokens. However, you requested more."
            return self._say(400, {"error": {"message": message, "code": 400}})
        choices = body.get("structured_outputs", {}).get("choice")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        asked = {"temperature": body["temperature"], "seed": body.get("seed", 0), "max_tokens": body["max_tokens"]}
        fields = {} if schema is None else schema.get("properties", {})
        with server.model_lock:
            if fields and all("enum" in field for field in fields.values()):
                picked = {name: self._reply(body, asked, field["enum"]).text for name, field in fields.items()}
                reply = self._reply(body, asked, [json.dumps(picked)])
            else:
                reply = self._reply(body, asked, choices)
        logprobs = {"content": [{"token": "?", "logprob": reply.logprob}]} if body.get("logprobs") else None
        message = {"role": "assistant", "content": reply.text}
        told = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reply.finish}
        usage = {"prompt_tokens": len(prompt), "completion_tokens": reply.tokens}
        return self._say(200, {"choices": [told], "usage": usage})

    def _reply(self, body: dict, asked: dict, choices):
        return self.server.engine.replies([body["messages"]], choices=choices, **asked)[0]

    def _tokenize(self, body: dict) -> dict:
        tokenizer = self.server.engine.tokenizer
        if "messages" in body:
            ids = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=False)
        else:
            ids = tokenizer(body["prompt"], add_special_tokens=False).input_ids
        return {"count": len(ids), "tokens": ids}

    def _text(self, body: dict) -> dict:
        return {"prompt": self.server.engine.tokenizer.decode(body["tokens"])}

    def _echo(self, body: dict) -> dict:
        """Log-probabilities of each prompt's tokens, prompt by prompt, without a batch."""
        choices = []
        for index, ids in enumerate(body["prompt"]):
            with self.server.model_lock, torch.inference_mode():
                table = torch.log_softmax(self.server.engine.model(torch.tensor([ids])).logits[0].float(), -1)
            told = [None, *(float(table[at - 1, ids[at]]) for at in range(1, len(ids)))]
            choices.append({"index": index, "text": "", "logprobs": {"token_logprobs": told}})
        return {"choices": choices[::-1]}

    def _fault(self, fault: str) -> None:
        """429, 429:SECONDS, any other status, hang, drip, cut, closed, garbage, empty, flood, thought."""
        name, _, detail = fault.partition(":")
        if name.isdigit():
            return self._say(int(name), {"error": {"message": "not now"}}, {"Retry-After": detail} if detail else {})
        if name == "closed":
            self.close_connection = True
            return None
        if name == "thought":
            choice = {"message": {"role": "assistant", "content": None}, "finish_reason": "length"}
            return self._say(200, {"choices": [choice]})
        raw = {"garbage": b"<html>", "empty": b"{}", "flood": b"[" + b"0," * 2**20}.get(name, b"{}" * 100)
        self.send_response(200)
        if name != "drip":
            self.send_header("Content-Length", str(2**40 if name == "flood" else len(raw)))
        self.send_header("Connection", "close")
        self.end_headers()
        if name == "cut":
            self.wfile.write(raw[:50])
        elif name == "hang":
            time.sleep(5)
        elif name in ("drip", "flood"):
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(raw if name == "flood" else b" ")
                    time.sleep(0.05 * (name == "drip"))
        else:
            self.wfile.write(raw)
        self.close_connection = True
        return None

    def _say(self, status: int, data: object, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(data).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)
