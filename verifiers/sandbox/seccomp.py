"""The system call filter: a list of what is allowed, assembled as classic BPF by a few lines of our own.

Standard library only (see namespaces.py). The law: a call that is not in the list fails with EPERM; so no new
namespace, no ptrace, no socket, no mount, no keyring, no io_uring, no bpf, whatever the kernel adds later. `clone3`
fails with ENOSYS, so that the C library falls back to `clone`, whose flags a filter can read. Numbers are those of
Linux's uapi headers for x86_64 and aarch64 (asm-generic); on another machine `program` raises.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import signal
import struct

from gristmill.verifiers.sandbox.namespaces import PR_SET_NO_NEW_PRIVS, call, prctl

#: name:number on x86_64:number on aarch64, - where the machine has no such call.
_NUMBERS = """
read:0:63 write:1:64 open:2:- openat:257:56 close:3:57 stat:4:- fstat:5:80 lstat:6:- newfstatat:262:79 statx:332:291
poll:7:- ppoll:271:73 lseek:8:62 mmap:9:222 mprotect:10:226 munmap:11:215 brk:12:214 mremap:25:216 madvise:28:233
mincore:27:232 msync:26:227 rt_sigaction:13:134 rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136
rt_sigtimedwait:128:137 rt_sigsuspend:130:133 sigaltstack:131:132 restart_syscall:219:128 ioctl:16:29 pread64:17:67
pwrite64:18:68 readv:19:65 writev:20:66 preadv:295:69 pwritev:296:70 preadv2:327:286 pwritev2:328:287 access:21:-
faccessat:269:48 faccessat2:439:439 pipe:22:- pipe2:293:59 select:23:- pselect6:270:72 sched_yield:24:124 dup:32:23
dup2:33:- dup3:292:24 pause:34:- nanosleep:35:101 clock_nanosleep:230:115 getitimer:36:102 setitimer:38:103 alarm:37:-
clone:56:220 clone3:435:435 fork:57:- vfork:58:- execve:59:221 exit:60:93 exit_group:231:94 wait4:61:260 waitid:247:95
kill:62:129 tkill:200:130 tgkill:234:131 uname:63:160 fcntl:72:25 flock:73:32 fsync:74:82 fdatasync:75:83
sync_file_range:277:84 truncate:76:45 ftruncate:77:46 fallocate:285:47 fadvise64:221:223 getdents:78:-
getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 rename:82:- renameat:264:38 renameat2:316:276 mkdir:83:-
mkdirat:258:34 rmdir:84:- creat:85:- link:86:- linkat:265:37 unlink:87:- unlinkat:263:35 symlink:88:- symlinkat:266:36
readlink:89:- readlinkat:267:78 chmod:90:- fchmod:91:52 fchmodat:268:53 umask:95:166 utime:132:- utimes:235:-
utimensat:280:88 futimesat:261:- getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11 llistxattr:195:12
flistxattr:196:13 statfs:137:43 fstatfs:138:44 copy_file_range:326:285 sendfile:40:71 splice:275:76 tee:276:77
close_range:436:436 gettimeofday:96:169 time:201:- times:100:153 clock_gettime:228:113 clock_getres:229:114
getrlimit:97:163 setrlimit:160:164 prlimit64:302:261 getrusage:98:165 sysinfo:99:179 getrandom:318:278 getcpu:309:168
getpid:39:172 getppid:110:173 gettid:186:178 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
getresuid:118:148 getresgid:120:150 getgroups:115:158 getpgrp:111:- getpgid:121:155 getsid:124:156 setsid:112:157
setpgid:109:154 capget:125:90 getpriority:140:141 prctl:157:167 arch_prctl:158:- set_tid_address:218:96
set_robust_list:273:99 rseq:334:293 futex:202:98 futex_waitv:449:449 membarrier:324:283 sched_getaffinity:204:123
sched_getparam:143:121 sched_getscheduler:145:120 sched_get_priority_max:146:125 sched_get_priority_min:147:126
epoll_create:213:- epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441:441
eventfd:284:- eventfd2:290:19 signalfd:282:- signalfd4:289:74 timerfd_create:283:85 timerfd_settime:286:86
timerfd_gettime:287:87 timer_create:222:107 timer_settime:223:110 timer_gettime:224:108 timer_getoverrun:225:109
timer_delete:226:111 socketpair:53:199 sendto:44:206 recvfrom:45:207 sendmsg:46:211 recvmsg:47:212 shutdown:48:210
getsockname:51:204 getpeername:52:205 getsockopt:55:209 setsockopt:54:208
"""
#: Allowed only where a run may start processes.
_PROCESSES = {"fork", "vfork", "execve"}

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES, _CLONE_THREAD = 0x7E020000, 0x00010000
#: FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ, TIOCGPGRP: nothing that writes into a terminal.
_IOCTLS = (0x541B, 0x5421, 0x5451, 0x5450, 0x5401, 0x5413, 0x540F)
#: PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_SET_VMA.
_PRCTLS = (1, 3, 15, 16, 23, 0x53564D41)
#: F_DUPFD to F_SETLKW, the open file description locks, F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ: not F_SETOWN.
_FCNTLS = (*range(8), 36, 37, 38, 1030, 1031, 1032)

_LOAD, _AND, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_ALLOW, _KILL, _DENY, _MISSING = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_NUMBER, _ARCHITECTURE = 0, 4

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

Code = list[tuple[int, int, int, int]]  # operation, jump if true, jump if false, constant


def program(processes: bool, only: int | None = None, machine: str | None = None) -> bytes:
    """The filter as BPF. `only`: signals may go to this process alone, and not SIGKILL (no pid namespace around it).

    Raises NotImplementedError on a machine whose call numbers are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _MACHINES:
        raise NotImplementedError(f"no system call numbers are known for {machine}, only for {', '.join(_MACHINES)}")
    column, architecture = _MACHINES[machine]
    triples = [word.split(":") for word in _NUMBERS.split()]
    numbers = {triple[0]: int(triple[1 + column]) for triple in triples if triple[1 + column] != "-"}
    code: Code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    checks = _checks(processes, only)
    for name, body in checks.items():
        code += [(_JUMP_EQUAL, 0, len(body), numbers[name]), *body]
    denied = checks.keys() | (set() if processes else _PROCESSES)
    for low, high in _ranges(sorted(number for name, number in numbers.items() if name not in denied)):
        # In order: what is not above this range, and was above the one before, lies in it or in the gap.
        code += [
            (_JUMP_ABOVE, 3, 0, high),
            (_JUMP_AT_LEAST, 0, 1, low),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _DENY),
        ]
    code.append((_RETURN, 0, 0, _DENY))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install(filter_program: bytes) -> None:
    """Put the filter on this process and all it will start, for good. Raises OSError where the kernel has none."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    header = struct.pack("HxxxxxxQ", len(filter_program) // 8, ctypes.addressof(buffer))
    call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_MODE_FILTER), header, ctypes.c_ulong(0), ctypes.c_ulong(0))


def _checks(processes: bool, only: int | None) -> dict[str, Code]:
    """What follows each call that is allowed for some arguments: instructions that end in a return."""
    clone = [_argument(0), (_AND, 0, 0, _NEW_NAMESPACES), *_one_of((0,))]
    if not processes:
        clone = [_argument(0), (_AND, 0, 0, _NEW_NAMESPACES | _CLONE_THREAD), *_one_of((_CLONE_THREAD,))]
    checks: dict[str, Code] = {
        "clone": clone,
        "clone3": [(_RETURN, 0, 0, _MISSING)],
        "ioctl": [_argument(1), *_one_of(_IOCTLS)],
        "prctl": [_argument(0), *_one_of(_PRCTLS)],
        "fcntl": [_argument(1), *_one_of(_FCNTLS)],
        "prlimit64": [_argument(0), *_one_of((0,))],
        # A pair of Unix streams, as asyncio makes: it can be connected to nothing else.
        "socketpair": [
            _argument(0), (_JUMP_EQUAL, 1, 0, 1), (_RETURN, 0, 0, _DENY),
            _argument(1), (_AND, 0, 0, 0xF), *_one_of((1,)),
        ],
    }  # fmt: skip
    if only is not None:
        itself: Code = [_argument(0), (_JUMP_EQUAL, 1, 0, only), (_RETURN, 0, 0, _DENY)]
        not_killed: Code = [(_JUMP_EQUAL, 0, 1, signal.SIGKILL), (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]
        checks["kill"] = [*itself, _argument(1), *not_killed]
        checks["tkill"] = [(_RETURN, 0, 0, _DENY)]
        checks["tgkill"] = [*itself, _argument(2), *not_killed]
    return checks


def _argument(index: int) -> tuple[int, int, int, int]:
    """Load the lower half of an argument: all that the kernel reads of an int, and all flags we know of."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _one_of(values: tuple[int, ...]) -> Code:
    """Allow where the loaded word is one of these, else deny."""
    tests: Code = [(_JUMP_EQUAL, len(values) - n, 0, value) for n, value in enumerate(values)]
    return [*tests, (_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Sorted numbers as the runs without a gap."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges
