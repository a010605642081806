"""The sandbox's limits: each way to take too much ends the run by its name, and leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator

import pytest
from sandboxed import alive, answer, ask, inside, opened

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox.limits import Limits
from gristmill.verifiers.sandbox.pool import Sandbox


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened(tmp_path_factory.mktemp("guest"), request.param) as made:
        yield made


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "none"])
def any_box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened(tmp_path_factory.mktemp("guest"), request.param) as made:
        yield made


#: What a program may try against a limit, and the name under which its run ends.
BOMBS = {
    "sleeps": ("import time; time.sleep(60)", Limits(wall=0.4), "timeout"),
    "sleeps in C": ("import select; select.select([], [], [], 60)", Limits(wall=0.4), "timeout"),
    "computes": ("while True: pass", Limits(cpu=1), "cpu"),
    "computes in C": ("9 ** (9 ** 9)", Limits(cpu=1), "cpu"),
    "takes memory at once": ("x = 'a' * 10**12", Limits(), "memory"),
    "takes memory bit by bit": ("x = [0]\nwhile True: x += x", Limits(memory=200 << 20), "memory"),
    "floods stdout": ("while True: print('x' * 999)", Limits(), "output"),
    "floods stderr": ("import os\nwhile True: os.write(2, b'x' * 999)", Limits(), "output"),
    "sends too long a frame": ("channel.send(b'x' * (1 << 21))", Limits(), "output"),
    "claims too long a frame": ("import os; os.write(3, b'\\xff' * 8)", Limits(), "output"),
    "catches all": (
        "import time\nwhile True:\n try: time.sleep(60)\n except BaseException: pass",
        Limits(wall=0.4),
        "timeout",
    ),
    "ignores all signals": (
        "import signal\n"
        "for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0); signal.alarm(0)\nwhile True: pass",
        Limits(cpu=1),
        "cpu",
    ),
    "raises its limits": (
        "import resource, contextlib\n"
        "for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS):\n"
        " with contextlib.suppress(ValueError, OSError): resource.setrlimit(kind, (-1, -1))\n"
        "while True: pass",
        Limits(cpu=1),
        "cpu",
    ),
    "hangs in an exit function": (
        "import atexit, time; atexit.register(time.sleep, 60); raise SystemExit(0)",
        Limits(wall=0.4),
        "timeout",
    ),
    "leaves a thread": (
        "import threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); raise SystemExit(0)",
        Limits(wall=0.4),
        "timeout",
    ),
    "holds its pipes open": ("import os, time; os.close(0); os.close(3); time.sleep(60)", Limits(wall=0.4), "timeout"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_ends_by_its_name_and_soon(any_box: Sandbox, what: str) -> None:
    code, limits, status = BOMBS[what]
    began = time.monotonic()
    value, outcome = ask(any_box, code, limits=limits)
    assert (value, outcome.status) == (None, status)
    assert time.monotonic() - began < 8
    assert max(len(outcome.stdout), len(outcome.stderr)) <= limits.output
    assert answer(any_box, "answer(1)") == 1


def test_frames_that_nobody_reads_are_bounded(any_box: Sandbox) -> None:
    value, outcome = ask(any_box, "while True: answer('x' * 1000)")
    assert value == "x" * 1000 and outcome.status == "output"


def test_output_up_to_its_limit_is_kept_whole(any_box: Sandbox) -> None:
    limits = Limits(output=50_000)
    _, outcome = ask(
        any_box, "import os; os.write(1, b'x' * 25_000); os.write(1, b'y' * 25_000); os._exit(0)", limits=limits
    )
    assert (outcome.status, len(outcome.stdout)) == ("exited", 50_000)
    _, outcome = ask(any_box, "import os; os.write(1, b'x' * 50_001); os._exit(0)", limits=limits)
    assert (outcome.status, len(outcome.stdout)) == ("output", 50_000)


def test_the_disk_is_full_in_one_file_and_in_many(box: Sandbox) -> None:
    told = answer(
        box,
        """
        import os
        def fill(names, size):
            for name in names:
                with open(name, "wb") as file:
                    file.write(bytes(size))
        one = refused(fill, ["big"], 3 << 20); os.remove("big")
        many = refused(fill, [f"f{n}" for n in range(100)], 1 << 20)
        used = sum(os.path.getsize(name) for name in os.listdir("."))
        for name in os.listdir("."): os.remove(name)
        answer([one, many, used, refused(fill, [f"e{n}" for n in range(100_000)], 0)])
        """,
        limits=Limits(disk=2 << 20, wall=20),
    )
    assert told[0] in ("EFBIG", "ENOSPC") and told[1] == "ENOSPC" and told[2] <= 2 << 20 and told[3] == "ENOSPC"


def test_open_files_end(any_box: Sandbox) -> None:
    told = answer(
        any_box,
        """
        kept = []
        def take():
            while True: kept.append(open("/dev/null"))
        answer([refused(take), len(kept)])
        """,
        limits=Limits(files=32),
    )
    assert told == ["EMFILE", 28]


def test_a_thread_bomb_is_bounded(box: Sandbox) -> None:
    code = """
    import threading
    threading.stack_size(32768)
    stop = threading.Event()
    started = 0
    try:
        while True:
            threading.Thread(target=stop.wait, daemon=True).start(); started += 1
    except RuntimeError:
        stop.set()
    answer(started)
    """
    assert answer(box, code, limits=Limits(threads=20)) == 19
    assert answer(box, code, limits=Limits(threads=20)) == 19  # what one run takes another does not lack


def test_a_fork_bomb_is_bounded_where_processes_are_allowed(box: Sandbox) -> None:
    code = """
    import os, time
    started = 0
    def bomb():
        global started
        while True:
            if os.fork() == 0:
                time.sleep(60)
            started += 1
    answer([refused(bomb), started])
    """
    before = inside(box)
    assert answer(box, code, limits=Limits(processes=8, threads=4)) == ["EAGAIN", 11]
    _settled(box, before)


#: A child in a session of its own, and a grandchild whose parent has gone, both holding on to everything.
DAEMONS = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    while True: time.sleep(1)
time.sleep(0.1)
answer(1)
"""


@pytest.mark.parametrize("kill", [True, False])
def test_daemons_die_with_their_run(any_box: Sandbox, kill: bool) -> None:
    before = inside(any_box)
    run = any_box.start("", limits=Limits(processes=8))
    run.send(DAEMONS.encode())
    assert run.receive(10) == b"1"
    pids = set(inside(any_box)) - set(before)
    assert len(pids) == 3
    assert run.finish(kill=kill).status == ("killed" if kill else "exited")
    _settled(any_box, before)
    until = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, pids))


def test_a_run_that_is_dropped_is_ended(any_box: Sandbox) -> None:
    before = inside(any_box)
    run = any_box.start("")
    run.send(b"answer(1)")
    assert run.receive(10) == b"1"
    del run
    _settled(any_box, before)


def test_a_command_line_runs_with_its_files(any_box: Sandbox) -> None:
    outcome = any_box.command(["sh", "part/go", "a b"], files={"part/go": b'cat; echo "$1"; exit 3'}, stdin=b"in\n")
    assert (outcome.status, outcome.code, outcome.stdout, outcome.stderr) == ("exited", 3, b"in\na b\n", b"")
    outcome = any_box.command(["sh", "-c", "kill -9 $$"])
    assert (outcome.status, outcome.code) == ("signalled", signal.SIGKILL)
    with pytest.raises(InputError, match="cannot be started: No such file or directory: no_such_program"):
        any_box.command(["no_such_program"])
    with pytest.raises(InputError, match=r"cannot be started: .*: big"):
        any_box.command(["true"], files={"big": bytes(3 << 20)}, limits=Limits(disk=1 << 20))
    with pytest.raises(InputError, match="leads out of the run's folder"):
        any_box.command(["true"], files={"../x": b""})


def test_a_command_line_is_held_to_the_limits(box: Sandbox) -> None:
    assert box.command(["sh", "-c", "while :; do :; done"], limits=Limits(cpu=1)).status == "cpu"
    assert box.command(["sleep", "60"], limits=Limits(wall=0.4)).status == "timeout"
    assert box.command(["sh", "-c", "yes"]).status == "output"
    before = inside(box)
    bomb = box.command(["sh", "-c", "f() { f | f & }; f; sleep 0.3"], limits=Limits(processes=8, wall=3))
    assert bomb.status in ("exited", "output", "timeout")
    _settled(box, before)
    env = box.command(["sh", "-c", "set; ls -A / /tmp; cat /proc/1/environ; id -u"]).stdout
    assert b"HOME=" not in env and b"LD_" not in env and env.endswith(b"65534\n")


@pytest.mark.parametrize(
    ("needs", "steps", "files", "output"),
    [
        (
            "gcc",
            ["sh", "-c", "gcc -O1 a.c -o a && ./a"],
            {"a.c": b'#include <stdio.h>\nint main() { int n; scanf("%d", &n); printf("%d\\n", 2 * n); }'},
            b"42\n",
        ),
        (
            "node",
            ["node", "a.js"],
            {"a.js": b"console.log(2 * Number(require('fs').readFileSync(0)))"},
            b"42\n",
        ),
        ("perl", ["perl", "a.pl"], {"a.pl": b"print 2 * <STDIN>, qq(\\n);"}, b"42\n"),
    ],
)
def test_other_languages(box: Sandbox, needs: str, steps: list[str], files: dict[str, bytes], output: bytes) -> None:
    if shutil.which(needs, path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.skip(f"{needs} is not installed")
    limits = Limits(memory=64 << 30 if needs == "node" else 1 << 30, processes=32)
    outcome = box.command(steps, files=files, stdin=b"21\n", limits=limits)
    assert (outcome.status, outcome.code, outcome.stdout) == ("exited", 0, output), outcome.stderr


@pytest.mark.parametrize(
    "bad", [{"wall": 0}, {"cpu": -1}, {"memory": float("nan")}, {"processes": -1}, {"files": True}]
)
def test_limits_are_positive_numbers(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"the limit {next(iter(bad))} is"):
        Limits(**bad)  # type: ignore[arg-type]


def _settled(box: Sandbox, before: list[int]) -> None:
    """Wait until a pool has the processes it had, which it must have soon."""
    until = time.monotonic() + 5
    while sorted(inside(box)) != sorted(before) and time.monotonic() < until:
        time.sleep(0.01)
    assert sorted(inside(box)) == sorted(before)
