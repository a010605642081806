"""The sandbox: what a run can see and reach. `box` is either isolation, `any_box` also a pool without one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandboxed import answer, ask, inside, opened

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.sandbox import seccomp
from gristmill.verifiers.sandbox.pool import Sandbox


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces"])
def box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened(tmp_path_factory.mktemp("guest"), request.param) as made:
        yield made


@pytest.fixture(scope="module", params=["bubblewrap", "namespaces", "none"])
def any_box(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened(tmp_path_factory.mktemp("guest"), request.param) as made:
        yield made


def test_a_run_answers_and_its_output_is_kept(any_box: Sandbox) -> None:
    value, outcome = ask(any_box, "print('seen'); answer([input(), role])", stdin=b"typed\n")
    assert value == ["typed", "role"]
    assert (outcome.status, outcome.code, outcome.stdout, outcome.stderr) == ("exited", 0, b"seen\n", b"")


def test_frames_of_any_size_go_both_ways(any_box: Sandbox) -> None:
    run = any_box.start("")
    run.send(b"while (frame := channel.receive()): channel.send(frame[::-1])")
    for frame in (b"", b"ab", os.urandom(300_000)):
        if frame:
            run.send(frame)
            assert run.receive(10) == frame[::-1]
    assert run.receive(0.05) is None
    assert run.finish().status == "exited"
    assert run.receive(1) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise SystemExit(3)", ("exited", 3)),
        ("import os; os._exit(4)", ("exited", 4)),
        ("1 / 0", ("exited", 1)),
        ("import ctypes; ctypes.string_at(0)", ("signalled", signal.SIGSEGV)),
    ],
)
def test_the_end_of_a_run_is_told(any_box: Sandbox, code: str, expected: tuple[str, int]) -> None:
    _, outcome = ask(any_box, code)
    assert (outcome.status, outcome.code) == expected
    assert (b"ZeroDivisionError" in outcome.stderr) == (code == "1 / 0")


def test_no_state_passes_from_run_to_run(any_box: Sandbox) -> None:
    poison = "import json, builtins; json.loads = None; builtins.sorted = None; open('left', 'w').write('x'); answer(1)"
    assert answer(any_box, poison) == 1
    seen = "import os; answer([sorted('ba'), callable(json.loads), os.listdir('.'), os.path.exists('/tmp/left')])"
    assert answer(any_box, f"import json; {seen}") == [["a", "b"], True, [], False]


def test_sets_have_one_order_in_all_runs(any_box: Sandbox) -> None:
    assert answer(any_box, "answer(hash('order'))") == answer(any_box, "answer(hash('order'))")


def test_nothing_of_the_host_is_to_be_seen(box: Sandbox) -> None:
    told = answer(
        box,
        f"""
        import os, sys, socket
        files = ["/etc/passwd", "/etc/hostname", "/proc/self", "/sys/kernel", "/var", {str(Path(__file__))!r},
                 {str(Path.cwd())!r}, {sys.executable!r}, {str(Path.home() / ".bashrc")!r}]
        answer({{
            "top": os.listdir("/"), "sources": os.path.isdir("/usr/src") and os.listdir("/usr/src") or [],
            "there": [file for file in files if os.path.exists(file)],
            "environ": dict(os.environ), "devices": sorted(os.listdir("/dev")), "proc": os.path.exists("/proc/self"),
            "fds": [fd for fd in range(1024) if refused(os.fstat, fd) == ""], "cwd": [os.getcwd(), os.listdir(".")],
            "name": socket.gethostname(), "pid": [os.getpid(), os.getppid()], "path": sys.path,
        }})
        """,
    )
    assert set(told["top"]) <= {
        *("usr", "bin", "sbin", "lib", "lib32", "lib64", "etc", "dev", "tmp", "proc"),
        Path(sys.base_prefix).parts[1],
    }
    assert told["sources"] == [] and told["there"] == [] and told["environ"] == {} and not told["proc"]
    assert told["devices"] == ["null", "random", "urandom", "zero"]
    assert told["fds"] == [0, 1, 2, 3] and told["cwd"] == ["/tmp", []]
    assert told["name"] == "sandbox" and told["pid"] == [1, 0]
    assert not any("site-packages" in entry for entry in told["path"])


def test_a_home_shows_nothing_but_the_interpreter(box: Sandbox) -> None:
    home = str(Path.home())
    found = answer(box, f"import os; answer([[top, names] for top, _, names in os.walk({home!r})])")
    assert all(top.startswith(sys.base_prefix) or not names for top, names in found)
    assert not any("site-packages" in top and names for top, names in found)


def test_nothing_can_be_written_but_the_run_s_folder(box: Sandbox) -> None:
    places = ["/", "/usr", "/usr/lib", "/etc", "/dev", "/bin", "/tmp/..", sys.base_prefix, os.__file__]
    told = answer(
        box,
        f"""
        import os
        def write(place):
            open(place if place.endswith(".py") else place + "/new", "a").close()
        ours = [refused(write, "/tmp"), refused(os.remove, "/tmp/new")]
        answer([refused(write, place) for place in {places!r}] + ours)
        """,
    )
    assert set(told[:-2]) <= {"EROFS", "EACCES"}
    assert told[-2:] == ["", ""]


#: Calls by what they do, with arguments of which each would be valid. Numbers are those of this machine's table.
FORBIDDEN = {
    "socket": "socket.socket()",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "netlink": "socket.socket(socket.AF_NETLINK)",
    "datagram pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "fork": "os.fork()",
    "execve": "os.execv('/bin/true', ['true'])",
    "memfd_create": "os.memfd_create('x')",
    "pidfd_open": "os.pidfd_open(1)",
    "setuid": "os.setuid(0)",
    "chroot": "os.chroot('/')",
    "mkfifo": "os.mkfifo('pipe')",
    "setpriority": "os.setpriority(os.PRIO_USER, 65534, 19)",
    "terminal input": "fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "signal owner": "fcntl.fcntl(3, fcntl.F_SETOWN, 1)",
}
#: The same by number, x86_64 and aarch64.
BY_NUMBER = {
    "ptrace": (101, 117),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "mount_setattr": (442, 442),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "personality": (135, 92),
    "init_module": (175, 105),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
    "sethostname": (170, 161),
    "a call yet unknown": (700, 700),
    "a call by its x32 number": (0x40000000 | 39, 0x40000000 | 172),
    "clone into a new user namespace": (56, 220),
}


@pytest.mark.parametrize("what", [*FORBIDDEN, *BY_NUMBER])
def test_the_filter_refuses(any_box: Sandbox, what: str) -> None:
    column = ["x86_64", "aarch64"].index(os.uname().machine)
    if what in FORBIDDEN:
        call = f"lambda: {FORBIDDEN[what]}"
    elif "namespace" in what:
        call = f"lambda: syscall({BY_NUMBER[what][column]}, 0x10000000 | 17, 0, 0, 0, 0)"
    else:
        call = f"lambda: syscall({BY_NUMBER[what][column]}, 0, 0, 0, 0, 0, 0)"
    assert answer(any_box, f"import os, socket, fcntl, termios; answer(refused({call}))") == "EPERM"


def test_programs_may_use_what_the_standard_library_needs(any_box: Sandbox) -> None:
    told = answer(
        any_box,
        """
        import asyncio, tempfile, threading, random, sqlite3, datetime, pathlib, os, time
        async def later():
            await asyncio.sleep(0.001)
            return 5
        seen = []
        thread = threading.Thread(target=seen.append, args=(1,)); thread.start(); thread.join()
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"ab"); file.flush(); size = os.path.getsize(file.name)
        base = sqlite3.connect("base"); total = base.execute("select 1 + 1").fetchone()[0]
        answer([asyncio.run(later()), seen, size, total, len(os.urandom(4)), os.get_terminal_size.__name__])
        """,
    )
    assert told == [5, [1], 2, 2, 4, "get_terminal_size"]


def test_signals_reach_nobody_outside(box: Sandbox) -> None:
    other = box.start("")
    other.send(b"answer(1)")
    assert other.receive(10) == b"1"
    told = answer(
        box,
        """
        import os
        answer([refused(os.kill, pid, 9) for pid in (0, -1, os.getppid(), 2, 100, os.getpid())])
        """,
    )
    assert told[0] == "" and told[1] == "ESRCH"  # its own group is empty but for itself, whom nobody inside can kill
    other.send(b"answer(2)")
    assert other.receive(10) == b"2"
    assert other.finish().status == "exited"


def test_seen_from_outside_a_run_is_nobody_without_capabilities(box: Sandbox) -> None:
    run = box.start("")
    run.send(b"answer(1)")
    assert run.receive(10) == b"1"
    pid = inside(box)[-1]
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
    assert os.geteuid() != 0 or status["Uid"].split() == ["65534"] * 4
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip() in ("", "65534")) == ("1", "2", True)
    for kind in ("user", "pid", "net", "mnt", "ipc", "uts"):
        assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
    assert len(Path(f"/proc/{pid}/net/dev").read_text().splitlines()) <= 3  # two lines of heading and lo
    run.finish(kill=True)


def test_one_run_cannot_see_another(any_box: Sandbox) -> None:
    first, second = any_box.start(""), any_box.start("")
    first.send(b"import os; open('secret', 'w').write('x'); answer([os.getcwd(), os.listdir('.')])")
    assert b"secret" in (first.receive(10) or b"")
    second.send(b"import os; answer([os.listdir('.'), refused(os.kill, 2, 0)])")
    frame = second.receive(10)
    assert frame is not None and b"secret" not in frame
    assert {first.finish().status, second.finish().status} == {"exited"}


def test_only_packages_asked_for_are_there(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    code = """
    import importlib.util, os
    import numpy
    folders = sorted(os.listdir("/packages"))
    answer([int(numpy.arange(4).sum()), folders, importlib.util.find_spec("pytest") is None])
    """
    with opened(tmp_path, "namespaces", packages=("numpy",)) as box:
        assert answer(box, code) == [6, [*sorted({"numpy", "numpy.libs"} & set(_numpy_parts()))], True]
    with opened(tmp_path, "namespaces") as box:
        assert b"ModuleNotFoundError" in ask(box, "import numpy")[1].stderr
    with pytest.raises(InputError, match="no package 'no_such'"):
        Sandbox(tmp_path / "guest.py", packages=("no_such",))


def _numpy_parts() -> list[str]:
    import numpy

    return [path.name for path in Path(numpy.__file__).parents[1].iterdir()]


def test_the_filter_of_the_other_machine_is_made_of_its_numbers() -> None:
    programs = {machine: seccomp.program(False, machine=machine) for machine in ("x86_64", "aarch64")}
    assert programs["x86_64"] != programs["aarch64"]
    assert all(len(code) % 8 == 0 and len(code) // 8 < 4096 for code in programs.values())
    with pytest.raises(NotImplementedError, match="riscv64"):
        seccomp.program(False, machine="riscv64")
