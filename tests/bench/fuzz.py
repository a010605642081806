"""Random programs against tests that none of them can satisfy: any pass is a wrong pass.

usage: python -m tests.bench.fuzz [COUNT [SEED]]     prints what came of them; exit code 1 for a pass or a leak

A program is a few random pieces, hostile and harmless, around a function; what its tests expect is drawn after it was
written. Counted besides verdicts: processes, descriptors, threads and files in the temporary folder that stay behind,
and the slowest batch.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gristmill.verifiers.programs.verify import LIMITS, guest, programs
from gristmill.verifiers.sandbox.pool import Sandbox

IMPORTS = """import atexit, builtins, ctypes, gc, inspect, io, json, os, random
import resource, signal, socket, sys, threading, time, types
"""

#: Pieces of a program; N is replaced by a random number.
PIECES = r"""
x = [i ** 2 for i in range(N)]
x = {str(i): i for i in range(N)}
class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__
class A:\n    def __eq__(self, o): return True\n    def __getattr__(self, n): return self
class M(type):\n    def __eq__(self, o): return True\n    def __hash__(self): return N
class I:\n    def __iter__(self): return self\n    def __next__(self): return N
class D(dict):\n    def items(self): return [(1, 1)] * N
class L(list):\n    def __len__(self): return N\n    def __iter__(self): return iter([1] * N)
def g():\n    while True: yield N
sys.setrecursionlimit(N + 50)
sys.settrace(lambda *a: None)
sys.stdout = io.StringIO()
sys.stdout = None
sys.modules.clear()
sys.modules['json'] = None
gc.disable()
gc.collect()
for o in gc.get_objects()[:N]:\n    if isinstance(o, list): o.append(1)
for o in gc.get_objects()[:N]:\n    if isinstance(o, dict) and 'ok' in o: o['ok'] = 1
builtins.len = lambda o: N
builtins.isinstance = lambda *a: True
builtins.type = lambda *a: int
builtins.print = lambda *a: None
builtins.BaseException = N
builtins.getattr = lambda *a: N
json.dumps = lambda *a, **k: '{"ok": N}'
json.loads = lambda *a, **k: {'op': 'call', 'on': None, 'args': [], 'named': {}}
os.write(1, b'x' * N)
os.write(3, b'x' * N)
os.write(3, b'\x00\x00\x00\x12' + b'0' * 16 + b'{}')
os.write(3, (16 + N).to_bytes(4, 'big') + b'0' * 16 + b'1' * N)
os.write(3, b'\xff' * 8)
os.close(N % 6)
os.closerange(N % 5, 64)
os.dup2(1, 3)
os.dup2(3, 1)
socket.socket(fileno=3).shutdown(N % 3)
socket.socket(fileno=3).recv(N)
socket.socket(fileno=3).send(b'.{"results": [[0, 1, null, null, ""]], "error": null, "calls": 1, "malformed": null}')
socket.create_connection(('127.0.0.1', N), 1)
os.fork()
os.setsid()
os.kill(os.getpid(), N % 32)
os.kill(os.getppid(), 9)
os.kill(-1, N % 32)
os.abort()
os._exit(N % 3)
sys.exit(N % 3)
raise KeyboardInterrupt
raise MemoryError
raise RecursionError('N')
raise StopIteration(N)
raise type('Boom', (BaseException,), {'__str__': lambda s: 1 / 0})
raise ExceptionGroup('all', [ValueError(N)])
signal.alarm(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 0.01)
signal.signal(signal.SIGALRM, lambda *a: os._exit(0))
resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
resource.setrlimit(resource.RLIMIT_AS, (10 ** 12, 10 ** 12))
threading.Thread(target=lambda: time.sleep(N), daemon=True).start()
threading.Thread(target=lambda: time.sleep(N)).start()
for _ in range(N): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
atexit.register(lambda: os.write(1, b'N'))
atexit.register(lambda: time.sleep(N))
open('f', 'w').write('x' * N * 1000)
open('/tmp/f', 'w').write('N')
os.mkdir('d')
os.symlink('/', 'root')
os.mkfifo('p'); open('p')
open('/proc/self/mem', 'r+b')
open('/dev/null').fileno()
list(os.walk('/'))[:N]
ctypes.string_at(N)
ctypes.CDLL(None).system(b'true')
ctypes.CDLL(None).prctl(1, 0)
ctypes.memmove(id(N), id(N + 1), 28)
bytearray(N * 10 ** 6)
[0] * 10 ** 12
'x' * 10 ** 10
while True: pass
while N: x = N
time.sleep(N)
sys._getframe().f_locals.update(ok=N)
sys._getframe(1).f_globals['dumps'] = lambda *a: b'{"ok": N}'
sys._getframe(1).f_locals.get('channel', 0).send(b'0' * 16 + b'{"ok": N}')
inspect.stack()[1].frame.f_globals.clear()
types.ModuleType('m').__dict__['x'] = N
exec('x = ' * 50 + 'N')
eval('(' * 90 + ')' * 90)
compile('x' * N, 'f', 'exec')
print('N' * N)
print('{"ok": true}')
input()
sys.stdin.close()
del builtins.open
lambda: N
""".strip().splitlines()

#: What the function returns.
ANSWERS = (
    "N", "-N", "1.5", "True", "None", "'N'", "'x' * N * 1000", "[x]", "x", "(N,)", "{N: x}", "{N}", "object()", "type",
    "len", "sys", "E(N)", "A()", "M", "I()", "D()", "L()", "g()", "f", "lambda *a: a", "a", "a[0]", "float('nan')",
    "10 ** N", "NotImplemented", "1j", "range(N)", "{}.keys()", "map(str, a)", "f(*a)", "ValueError", "ValueError(N)",
    "__import__('decimal').Decimal('sNaN')", "__import__('fractions').Fraction(1, N)", "b'N'",
    "bytearray(N)", "memoryview(b'N')", "[[]] * N * 999", "'\\ud800'", "...",
)  # fmt: skip


def program(chance: random.Random) -> str:
    """A random program."""
    if chance.random() < 0.05:
        ranges = [(10, 11), *[(32, 127)] * 9, (1, 0x3000)]
        return "".join(chr(chance.randrange(*chance.choice(ranges))) for _ in range(99))

    def some(most: int, depth: int) -> str:
        pieces = [_numbered(chance.choice(PIECES), chance) for _ in range(chance.randrange(most + 1))]
        lines = [line for piece in pieces for line in (_tried(piece) if chance.random() < 0.7 else piece).split("\n")]
        return "\n".join("    " * depth + line for line in lines)

    answer = _numbered(chance.choice(ANSWERS), chance)
    return f"{IMPORTS}x = 1\n{some(3, 0)}\ndef f(*a):\n    global x\n{some(2, 1)}\n    return {answer}\n{some(1, 0)}\n"


def _numbered(piece: str, chance: random.Random) -> str:
    number = chance.choice((0, 1, 2, 7, 64, 999, chance.randrange(1 << 16)))
    return re.sub(r"\bN\b", str(number), piece).replace("\\n", "\n")


def _tried(piece: str) -> str:
    body = "\n".join("    " + line for line in piece.split("\n"))
    return f"try:\n{body}\nexcept BaseException: pass"


def row(chance: random.Random) -> dict[str, Any]:
    """A program and tests that it cannot satisfy."""
    code, secret = program(chance), secrets.token_hex(16)
    tests = chance.choice((
        {"assertions": [f"assert f({chance.randrange(9)}) == {secret!r}"]},
        {"assertions": ["assert f(1) == f(2)", f"assert str(f(1)) == {secret!r}"]},
        {"assertions": [f"x = f([1, 2])\nfor k in range(3):\n    assert x[k:] == {secret!r}"]},
        {"code": f"def check(c):\n    for k in (1, 2):\n        assert c(k, [k]) in ({secret!r},)", "entry_point": "f"},
        {"code": "def check(c):\n    try:\n        c()\n    except ValueError as e:\n        assert str(e) == secret\n"
                 f"    assert c(1) == secret\nsecret = {secret!r}", "entry_point": "f"},
        {"cases": [{"args": [1, "a", [2]], "expected": secret}], "entry_point": "f"},
        {"cases": [{"stdin": "1\n", "expected": secret}]},
    ))  # fmt: skip
    return {"prompt": "", "response": f"```python\n{code}\n```", "tests": tests}


def fuzz(count: int, seed: int, batch: int = 100, timeout: float = 0.5) -> dict[str, Any]:
    """Judge `count` programs; a summary with what passed and what was left behind."""
    chance = random.Random(seed)
    reasons: Counter[str] = Counter()
    passed: list[str] = []
    slowest, began = 0.0, time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        Sandbox(guest(), limits=LIMITS) as box,
    ):
        patch.setattr(tempfile, "tempdir", folder)
        verify = programs(timeout=timeout, partial=False, sandbox_context=box)
        verify.rows([row(random.Random(0))] * 2)
        before = _held()
        for first in range(0, count, batch):
            rows = [row(chance) for _ in range(min(batch, count - first))]
            clock = time.monotonic()
            for judged, verdict in zip(rows, verify.rows(rows), strict=True):
                reasons[verdict.reason if verdict.score is not None else f"unjudged: {verdict.reason}"] += 1
                if verdict.score:
                    passed.append(judged["response"])
            slowest = max(slowest, time.monotonic() - clock)
        after = _held()
    left = {kind: after[kind] - before[kind] for kind in after if after[kind] > before[kind]}
    return {
        "programs": count, "seed": seed, "passed": passed, "left_behind": left, "reasons": dict(reasons.most_common()),
        "seconds": round(time.monotonic() - began, 1), "slowest_batch": round(slowest, 1),
    }  # fmt: skip


def _held() -> dict[str, int]:
    """What this process holds: descendants, descriptors, threads, and our files in the temporary folder."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    ours = {os.getpid()}
    for _ in range(9):
        ours |= {pid for pid, parent in parents.items() if parent in ours}
    folders = {"descriptors": Path("/proc/self/fd"), "files": Path(tempfile.gettempdir())}
    counts = {kind: len(list(folder.iterdir())) for kind, folder in folders.items()}
    return {"processes": len(ours), "threads": threading.active_count(), **counts}


if __name__ == "__main__":
    told = fuzz(*map(int, [*sys.argv[1:], *("10000", "0")[len(sys.argv) - 1 :]]))
    print(json.dumps(told, indent=1))
    sys.exit(bool(told["passed"] or told["left_behind"]))
