"""The pool: what becomes of it and its runs when parts are killed, threads share it, or its process forks or dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandboxed import GUEST, alive, answer, ask, below, descriptors, here, inside, mounts, opened

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox.limits import Limits
from gristmill.verifiers.sandbox.pool import Sandbox, shared


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "none"])
def any_box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened(tmp_path_factory.mktemp("guest"), request.param) as made:
        yield made


def test_a_killed_zygote_loses_its_runs_and_no_later_one(any_box: Sandbox) -> None:
    for victim in range(len(inside(any_box))):
        run = any_box.start("")
        run.send(b"answer(1)")
        assert run.receive(10) == b"1"
        pids = inside(any_box)
        os.kill(pids[victim], signal.SIGKILL)
        assert run.receive(10) is None
        assert run.finish().status == "lost"
        _gone(pids)
        assert answer(any_box, "answer(2)") == 2


def test_a_child_killed_from_outside_is_lost_alone(any_box: Sandbox) -> None:
    first = any_box.start("")
    first.send(b"answer(1)")
    assert first.receive(10) == b"1"
    before = set(inside(any_box))
    second = any_box.start("")
    second.send(b"answer(1)")
    assert second.receive(10) == b"1"
    (pid,) = set(inside(any_box)) - before
    os.kill(pid, signal.SIGKILL)
    assert second.receive(10) is None
    assert second.finish().status == "lost"
    first.send(b"answer(3)")
    assert first.receive(10) == b"3"
    assert first.finish().status == "exited"


def test_killing_at_any_moment_hangs_and_leaks_nothing(any_box: Sandbox) -> None:
    answer(any_box, "answer(1)")
    before, chosen = here()[0], random.Random(0)

    def one(n: int) -> str:
        if n % 20 == 7:  # while the other threads are somewhere in a run, or waiting for a new zygote
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(chosen.choice(inside(any_box)), signal.SIGKILL)
        for _ in range(20):
            value, outcome = ask(any_box, f"answer({n})")
            if outcome.status == "exited":
                assert value == n
                return "exited"
            assert outcome.status == "lost"
        return "never"

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(one, range(200))) == {"exited"}
    assert answer(any_box, "answer(2)") == 2 and here()[0] == before


def test_a_zygote_that_stands_still_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.verifiers.sandbox.run.GRACE", 0.2)
    with opened(tmp_path, "namespaces") as box:
        run = box.start("", limits=Limits(wall=0.2))
        for pid in inside(box):
            os.kill(pid, signal.SIGSTOP)
        assert run.finish().status == "lost"
        assert answer(box, "answer(1)", limits=Limits(wall=20)) == 1


def test_all_processes_die_with_the_one_that_opened_the_pool(tmp_path: Path) -> None:
    (tmp_path / "guest.py").write_text(GUEST)
    script = f"""
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from sandboxed import inside
    from gristmill.verifiers.sandbox.pool import Sandbox
    box = Sandbox(Path({str(tmp_path / "guest.py")!r}), isolation={"namespaces"!r})
    run = box.start("")
    run.send(b"answer(1)")
    run.receive(10)
    print(*inside(box), flush=True)
    time.sleep(60)
    """
    opened(tmp_path, "namespaces").close()
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3 and all(map(alive, pids))
        process.kill()
    _gone(pids)


def test_nothing_leaks_over_200_runs(any_box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    answer(any_box, "answer(1)")
    before, within = here(), sorted(inside(any_box))
    time.sleep(0.1)  # the zygote closes its ends just after it has told us
    fds = {pid: (descriptors(pid), mounts(pid)) for pid in within}
    for n in range(200):
        run = any_box.start("", stdin=b"x")
        if n % 2:
            run.send(b"open('file', 'w').write('x' * 1000)")
        run.finish(kill=n % 4 < 2)
    time.sleep(0.1)
    assert (here(), sorted(inside(any_box))) == (before, within)
    assert fds == {pid: (descriptors(pid), mounts(pid)) for pid in within}
    assert list(tmp_path.iterdir()) == []


def test_eight_threads_at_once_each_get_their_own(any_box: Sandbox) -> None:
    def one(n: int) -> object:
        inner = any_box.start("")  # a thread that has a run is given a second without waiting
        value = answer(any_box, f"import os; open('n', 'w').write('{n}'); answer([{n}, open('n').read()])")
        assert inner.finish().status == "exited"
        return value

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(48))) == [[n, str(n)] for n in range(48)]


def test_callers_bounds_the_threads_that_have_runs(tmp_path: Path) -> None:
    with opened(tmp_path, "namespaces", callers=1) as box:
        held = box.start("")
        waiting = threading.Thread(target=lambda: box.start("").finish(kill=True))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        held.finish(kill=True)
        waiting.join(10)
        assert not waiting.is_alive()


def test_a_pool_outlives_the_thread_that_opened_it(tmp_path: Path) -> None:
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(opened(tmp_path, "namespaces")))
    thread.start()
    thread.join()
    with made[0] as box:
        pids = inside(box)
        time.sleep(0.2)
        assert all(map(alive, pids))
        assert answer(box, "answer(1)") == 1
        assert inside(box)[0] == pids[0]


def _in_a_fork(guest: Path, answers: multiprocessing.Queue) -> None:
    box = shared(guest)
    answers.put((answer(box, "answer(7)"), inside(box)))


def test_after_a_fork_the_pool_is_a_new_one(tmp_path: Path) -> None:
    opened(tmp_path, "namespaces").close()
    guest = tmp_path / "guest.py"
    box = shared(guest)
    assert shared(guest) is box
    pids = inside(box)
    run = box.start("")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=_in_a_fork, args=(guest, answers))
    process.start()
    value, theirs = answers.get(timeout=30)
    process.join(30)
    # Not its exit status: what else this process has loaded, Prefect say, may fail to shut down in a fork.
    assert value == 7 and not process.is_alive() and not set(pids) & set(theirs)
    _gone(theirs)
    run.send(b"answer(8)")
    assert run.receive(10) == b"8" and run.finish().status == "exited" and all(map(alive, pids))
    box.close()


def test_a_closed_pool_starts_nothing(tmp_path: Path) -> None:
    box = opened(tmp_path, "namespaces")
    pids = inside(box)
    run = box.start("")
    box.close()
    _gone(pids)
    assert run.finish().status == "lost"
    with pytest.raises(ValueError, match="closed"):
        box.start("")


def test_where_no_isolation_is_to_be_had_programs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "guest.py").write_text(GUEST)
    script = f"""
    import ctypes, os
    from pathlib import Path
    os.environ["PATH"] = "/nowhere"
    assert ctypes.CDLL(None).unshare(0x10000000) == 0  # a user namespace, in which no other may be made:
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    from gristmill.dataops.dataset import InputError
    from gristmill.verifiers.sandbox.pool import Sandbox
    guest = Path({str(tmp_path / "guest.py")!r})
    try:
        Sandbox(guest)
    except InputError as error:
        print(error)
    print(Sandbox(guest, isolation="none").isolation)
    """
    opened(tmp_path, "namespaces").close()
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    told, second = done.stdout.splitlines()
    assert "bwrap, is not installed" in told and "no sandbox by namespaces" in told and "--unsafe" in told
    assert second == "none"


def test_an_ordinary_user_is_isolated_as_well(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("all other tests show it where they are not run as root")
    opened(tmp_path, "namespaces").close()
    script = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from pathlib import Path
    from sandboxed import GUEST, answer
    from gristmill.verifiers.sandbox import namespaces
    from gristmill.verifiers.sandbox.pool import Sandbox
    assert namespaces.become_nobody([sys.base_prefix])
    import tempfile
    guest = Path(tempfile.mkdtemp()) / "guest.py"
    guest.write_text(GUEST)
    with Sandbox(guest) as box:
        print(answer(box, "import os; answer([os.getuid(), os.path.exists('/proc/self'), refused(os.fork)])"))
    guest.unlink()
    guest.parent.rmdir()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.stdout == "[65534, False, 'EPERM']\n", done.stderr


def test_auto_takes_namespaces_without_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path, "namespaces").close()
    monkeypatch.setenv("PATH", "/nowhere")
    with Sandbox(tmp_path / "guest.py") as box:
        assert box.isolation == "namespaces"
    with pytest.raises(InputError, match="no isolation is called 'docker'"):
        Sandbox(tmp_path / "guest.py", isolation="docker")


def _gone(pids: list[int]) -> None:
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(alive, pids))
    assert not set(pids) & set(below(os.getpid()))
