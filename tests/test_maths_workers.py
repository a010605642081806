"""Workers: answered by the deadline or killed, replaced when they die, gone when their parent is, whoever calls, and
whatever the text."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gristmill.verifiers.maths.algebra.symbolic import equivalent, outcome, readable
from gristmill.verifiers.maths.algebra.workers import Lost, Pool

#: A handler that does as it is told. It is imported by the workers, from the folder that `tasks` puts on their path.
TASKS = """
import os, signal, sys, time

def handle(request):
    kind, value = request
    if kind == "sleep":
        time.sleep(value)
    elif kind == "spin":
        while True:
            pass
    elif kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "die_once" and not os.path.exists(value):
        open(value, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "memory":
        return len("a" * value)
    elif kind == "deep":
        return handle([kind, value + 1])
    elif kind == "raise":
        raise ValueError(value)
    elif kind == "pid":
        return os.getpid()
    return value
"""


@pytest.fixture
def pool(tmp_path, monkeypatch):
    (tmp_path / "told_tasks.py").write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Pool("told_tasks:handle", 2)
    yield made
    made.close()


def alive(pid):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids, seconds=5.0):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))


def fds():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_value_goes_there_and_back(pool):
    value = {"a": [1, 2.5, None, "é\ud800"], "b": "x" * 300_000}
    assert pool.call(["echo", value], seconds=5) == value
    assert pool.call(["pid", 0], seconds=5) == pool.call(["pid", 0], seconds=5) != os.getpid()


@pytest.mark.parametrize("task", ["spin", "sleep"])
def test_past_the_deadline_the_worker_is_killed_and_the_next_call_gets_another(pool, task):
    before = pool.call(["pid", 0], seconds=5)
    began = time.monotonic()
    with pytest.raises(Lost) as lost:
        pool.call([task, 60], seconds=0.2)
    assert lost.value.timeout and time.monotonic() - began < 5
    assert gone([before])
    assert pool.call(["pid", 0], seconds=5) != before


def test_a_call_whose_worker_is_killed_is_made_again_once(pool, tmp_path):
    assert pool.call(["die_once", str(tmp_path / "flag")], seconds=5) == str(tmp_path / "flag")
    with pytest.raises(Lost) as lost:
        pool.call(["die", 0], seconds=5)
    assert not lost.value.timeout
    assert pool.call(["echo", 7], seconds=5) == 7


def test_a_worker_killed_from_outside_in_the_middle_loses_no_call(pool):
    with ThreadPoolExecutor(1) as threads:
        calls = threads.submit(pool.call, ["sleep", 0.4], seconds=10)
        while len(pool.pids()) < 2:
            time.sleep(0.01)
        os.kill(pool.pids()[1], signal.SIGKILL)
        assert calls.result() == 0.4


def test_the_child_that_forks_may_be_killed_too(pool):
    pool.call(["echo", 1], seconds=5)
    first = pool.pids()
    os.kill(first[0], signal.SIGKILL)
    assert gone(first[1:])
    assert pool.call(["echo", 2], seconds=5) == 2
    assert not set(first) & set(pool.pids())


@pytest.mark.parametrize("task", [["memory", 1 << 40], ["deep", 0], ["raise", "no"]])
def test_what_fails_in_a_worker_fails_that_call_alone(pool, task):
    with pytest.raises(Lost) as lost:
        pool.call(task, seconds=30)
    assert not lost.value.timeout
    assert pool.call(["echo", 3], seconds=5) == 3


def test_a_handler_that_cannot_be_imported_is_an_error_and_no_verdict():
    broken = Pool("no_such_module:handle", 1)
    with pytest.raises(RuntimeError, match="no_such_module"):
        broken.call(1, seconds=5)
    assert broken.pids() == []


def test_a_caller_interrupted_in_the_middle_leaves_no_answer_for_the_next(pool):
    pool.call(["echo", 0], seconds=5)

    def interrupt(*_):
        raise KeyboardInterrupt

    kept = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            pool.call(["sleep", 0.5], seconds=5)
    finally:
        signal.signal(signal.SIGALRM, kept)
    assert pool.call(["echo", "mine"], seconds=5) == "mine"


def test_eight_threads_share_two_workers_and_each_gets_its_own_answer(pool):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: pool.call(["echo", n], seconds=10), range(400)))
    assert answers == list(range(400))
    assert len(pool.pids()) <= 3


def test_no_process_and_no_file_is_left(pool):
    pool.call(["echo", 0], seconds=5)
    before = fds()
    for _ in range(20):
        with pytest.raises(Lost):
            pool.call(["die", 0], seconds=5)
        with pytest.raises(Lost):
            pool.call(["spin", 0], seconds=0.02)
        pool.call(["echo", 0], seconds=5)
    assert fds() <= before
    pids = pool.pids()
    assert len(pids) <= 3
    pool.close()
    assert gone(pids) and fds() < before
    assert pool.call(["echo", 9], seconds=5) == 9  # a closed pool starts again


def test_a_forked_child_makes_its_own_workers_and_leaves_its_parents_alone(pool):
    assert pool.call(["echo", 1], seconds=5) == 1
    mine = pool.pids()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            fresh = pool.pids() == [] and pool.call(["echo", 2], seconds=10) == 2
            good = fresh and not set(pool.pids()) & set(mine)
            os.write(write, repr(pool.pids() if good else []).encode())
            pool.close()
        os._exit(0)
    os.close(write)
    theirs = os.read(read, 1_000)
    os.close(read)
    os.waitpid(pid, 0)
    assert theirs not in (b"", b"[]")
    assert all(map(alive, mine))
    assert pool.call(["echo", 3], seconds=5) == 3
    assert pool.pids() == mine


def test_no_worker_outlives_a_parent_that_is_killed(tmp_path):
    code = """
import time
from gristmill.verifiers.maths.algebra.symbolic import HANDLER, equivalent
from gristmill.verifiers.maths.algebra.workers import pool
assert equivalent("1", "1")
print(*pool(HANDLER).pids(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        parent.kill()
    assert gone(pids)


def test_a_program_that_ends_leaves_nothing_and_never_imports_sympy():
    code = """
import sys, threading
from gristmill.verifiers.maths.algebra.symbolic import HANDLER, equivalent
from gristmill.verifiers.maths.algebra.workers import pool
told = []
first = threading.Thread(target=lambda: told.append(equivalent("x+1", "1+x")))
first.start(); first.join()  # the thread that started the workers is gone: they stay
told.append(equivalent("x+1", "2+x"))
assert told == [True, False] and "sympy" not in sys.modules and "mpmath" not in sys.modules
print(*pool(HANDLER).pids())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    assert gone([int(pid) for pid in done.stdout.split()])


def test_it_works_from_asyncio():
    async def several():
        asked = [asyncio.to_thread(equivalent, f"x+{n}", f"{n}+x") for n in range(20)]
        return await asyncio.gather(*asked)

    assert asyncio.run(several()) == [True] * 20


def test_eight_callers_with_hostile_texts_hold_up_no_one():
    texts = ["9^{9^{9^{9}}}", r"\sum_{k=1}^{2000}\sum_{j=1}^{2000}\sum_{m=1}^{2000}\frac{1}{k+j+m}", r"\sqrt 2", "x+1"]
    answers: dict[int, object] = {}

    def ask(place):
        answers[place] = equivalent(
            texts[place % 4], texts[(place + 1) % 4] if place % 4 < 2 else texts[place % 4], seconds=1
        )

    callers = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert [answers[place] for place in range(8)] == [None, None, True, True] * 2


HOSTILE = [
    "9" * 1_000_000,
    "{" * 10_000 + "1" + "}" * 10_000,
    "{" * 2_000 + "1" + "}" * 2_000,
    "(" * 2_400 + "1" + ")" * 2_400,
    r"\sqrt{" * 700 + "2" + "}" * 700,
    r"\sqrt[" * 700,
    r"\frac" * 900,
    r"\sin" * 1_200 + "x",
    r"\begin{pmatrix}" * 300,
    r"\sum_{k=1}^{9}" * 300 + "k",
    "x" + "^x" * 2_400,
    "x" + "^{x" * 1_200 + "}" * 1_200,
    "1" + "!" * 4_000,
    "3" + "!" * 40,
    "-" * 4_900 + "1",
    "1" + "/2" * 2_400,
    "1" + "+1" * 2_400,
    "9^{9^{9}}",
    "9^{9^{9^{9}}}",
    "9^{9^{9^{9^{9}}}}+1",
    "1000000!",
    "(10^{12})!",
    "((1000000!)!)!",
    "(x+1)^{10^9}",
    "(x+y+z+1)^{10^{9}} - 1",
    r"\sum_{k=1}^{10^{12}} k!",
    r"\prod_{k=1}^{2000} (k!)^{k!}",
    r"\sum_{k=1}^{2000} \sum_{j=1}^{2000} \sum_{m=1}^{2000} \frac{1}{k+j+m}",
    r"\binom{10^{9}}{10^{8}}",
    r"\begin{pmatrix}" + r"\\".join(["&".join(["1"] * 40)] * 40) + r"\end{pmatrix}",
    ",".join(map(str, range(1_000))),
    r"\{" + ",".join(rf"\sqrt{{{n}}}" for n in range(400)) + r"\}",
    r"x^{60}-\sin x^{7}+\ln x < e^{x} - 3",
    r"\sin(10^{5000})",
    r"e^{e^{e^{e^{10}}}}",
    r"\log_{0} 0",
    "0^0",
    r"2^{-10^{30}}",
    "1." + "0" * 4_000 + "1",
    "|" * 4_000,
    "_" * 100,
    "f(" * 1_000,
    "\\" * 4_999,
    "\x00\ud800\u202e" * 500,
    "1_{99999999999999999999}",
    "z" * 200,
    r"\pm" * 2_000 + "1",
    r"\pm 1" * 30,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{ascii(text[:20])}..{len(text)}")
def test_a_hostile_text_is_answered_within_the_limit_and_equals_no_plain_gold(text):
    began = time.monotonic()
    assert outcome("7", text, seconds=2) in ("different", "undecided", "timeout", "failed") or outcome(
        "7", text, seconds=2
    ).startswith("answer")
    outcome(text, text, seconds=2)
    readable(text, seconds=2)
    assert time.monotonic() - began < 10
