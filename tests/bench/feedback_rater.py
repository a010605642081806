"""A rater of the benchmark of the feedback service: one connection, one request after the other, the standard library.

On stdin it is told, as JSON, {port, token, items or how many, together}; a line more starts it. It prints one JSON
line: the keys that were answered with 200, what each request took, and what it cost.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from typing import Any


def main() -> None:
    """Judge."""
    job = json.loads(sys.stdin.readline())
    connection = http.client.HTTPConnection("127.0.0.1", job["port"])
    headers = {"Authorization": f"Bearer {job['token']}", "Content-Type": "application/json"}
    waits: list[float] = []

    def ask(method: str, path: str, body: Any = None) -> Any:
        begun = time.perf_counter()
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        found = answer.read()
        waits.append(time.perf_counter() - begun)
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {found!r}")
        return json.loads(found)

    ask("GET", "/v1/queues")
    waits.clear()
    print("ready", flush=True)
    sys.stdin.readline()
    start, cpu = time.time(), time.process_time()
    keys: list[str] = []
    token, together = job["token"][-8:], job["together"]
    if isinstance(job["items"], int):
        for n in range(job["items"]):
            item = ask("GET", "/v1/queues/q/next")["item"]
            ask("POST", "/v1/judgements", {"item": item, "value": [1, 0], "key": f"{token}-{n}"})
            keys.append(f"{token}-{n}")
    for n in range(0, 0 if isinstance(job["items"], int) else len(job["items"]), together):
        said = [{"item": item, "value": [1, 0], "key": f"{token}-{item}"} for item in job["items"][n : n + together]]
        if together == 1:
            ask("POST", "/v1/judgements", said[0])
        else:
            results = ask("POST", "/v1/judgements/batch", {"judgements": said})["results"]
            assert all("version" in one for one in results), results
        keys += [one["key"] for one in said]
    told = {"start": start, "end": time.time(), "cpu": time.process_time() - cpu, "keys": keys, "waits": waits}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
