"""The confinement of producers: the filter read by a machine of our own, then by the kernel."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from augd.process import refused_syscalls, seccomp_program
from augd.process.seccomp_program import ALLOW, KILL, REFUSE, UNKNOWN, make_program

PID = 4711
MACHINES = sorted(refused_syscalls.MACHINES)
STEPS_MAX = 4096  # BPF_MAXINSNS


def judge(machine: str, number: int, *arguments: int, as_machine: str | None = None) -> int:
    """Run the filter of a machine on a call, as the kernel would; returns the verdict."""
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    code = seccomp_program.MACHINE_CODES[as_machine or machine]
    call = struct.pack("<IIQ6Q", number, code, 0, *arguments)
    steps = make_program(machine, PID)
    at, word = 0, 0
    while True:
        step = steps[at]
        at += 1
        if step.code == seccomp_program.RETURN:
            return step.operand
        if step.code == seccomp_program.LOAD:
            (word,) = struct.unpack_from("<I", call, step.operand)
            continue
        is_true = {
            seccomp_program.IF_EQUAL: word == step.operand,
            seccomp_program.IF_AT_LEAST: word >= step.operand,
            seccomp_program.IF_ANY_BIT: bool(word & step.operand),
        }[step.code]
        at += step.if_true if is_true else step.if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_every_way_through_the_program_ends_in_a_verdict(machine: str) -> None:
    steps = make_program(machine, PID)
    assert len(steps) < STEPS_MAX
    assert steps[-1].code == seccomp_program.RETURN
    for at, step in enumerate(steps[:-1]):
        if step.code != seccomp_program.RETURN:
            assert max(step.if_true, step.if_false) <= 255
            assert at + 1 + max(step.if_true, step.if_false) < len(steps)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_listed_is_refused_and_what_a_producer_does_is_allowed(machine: str) -> None:
    refused, judged = refused_syscalls.refused(machine), refused_syscalls.judged(machine)
    assert not refused.keys() & judged.keys()
    numbers = [*refused.values(), *judged.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < refused_syscalls.FIRST_COMMON
    for number in refused.values():
        assert judge(machine, number) == REFUSE
    for number in set(range(refused_syscalls.FIRST_COMMON)) - set(numbers):
        assert judge(machine, number) == ALLOW
    for name in ("socket", "connect", "sendmsg", "execve", "ptrace", "mount", "setns", "bpf"):
        assert name in refused


@pytest.mark.parametrize("machine", MACHINES)
def test_of_the_common_numbers_only_the_listed_exist_and_so_do_none_of_x32(machine: str) -> None:
    allowed = set(refused_syscalls.COMMON_ALLOWED.values())
    for number in range(refused_syscalls.FIRST_COMMON, 1024):
        assert judge(machine, number) == (ALLOW if number in allowed else UNKNOWN)
    for number in (0x40000000, 0x40000000 + 41, 2**32 - 1):
        assert judge(machine, number) == UNKNOWN


CASES = [
    ("openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY), ALLOW),
    ("openat", (0, 0, os.O_WRONLY), REFUSE),
    ("openat", (0, 0, os.O_RDWR), REFUSE),
    ("openat", (0, 0, os.O_RDONLY | os.O_CREAT), REFUSE),
    ("openat", (0, 0, os.O_RDONLY | os.O_TRUNC), REFUSE),
    ("openat", (0, 0, os.O_TMPFILE | os.O_WRONLY), REFUSE),
    ("clone", (0x3D0F00,), ALLOW),  # as glibc starts a thread
    ("clone", (0x01200011,), REFUSE),  # as it forks
    ("clone", (0x4111,), REFUSE),  # as it spawns: CLONE_VM, CLONE_VFORK
    ("clone", (0x10000 << 32,), REFUSE),
    ("kill", (PID, 9), ALLOW),
    ("kill", (PID + 1, 9), REFUSE),
    ("kill", (0, 9), REFUSE),
    ("kill", (2**64 - 1, 9), REFUSE),
    ("tgkill", (PID, PID, 6), ALLOW),
    ("tgkill", (1, 1, 6), REFUSE),
    ("rt_sigqueueinfo", (1, 9), REFUSE),
    ("rt_tgsigqueueinfo", (1, 1, 9), REFUSE),
    ("prctl", (15,), ALLOW),  # a thread's name
    ("prctl", (1,), REFUSE),
    ("prlimit64", (0, 7), ALLOW),
    ("prlimit64", (PID, 7), ALLOW),
    ("prlimit64", (1, 7), REFUSE),
    ("ioctl", (1, 0x5401), ALLOW),  # is it a terminal
    ("ioctl", (1, 0x5412), REFUSE),
    ("ioctl", (1, 0x541C), REFUSE),
    ("ioctl", (1, 0xF_0000_5412), REFUSE),  # the kernel looks at the lower half, and so do we
]


@pytest.mark.parametrize(("name", "arguments", "verdict"), CASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], verdict: int):
    assert judge(machine, refused_syscalls.judged(machine)[name], *arguments) == verdict


def test_open_is_judged_where_it_exists() -> None:
    assert "open" not in refused_syscalls.judged("aarch64")
    number = refused_syscalls.judged("x86_64")["open"]
    assert judge("x86_64", number, 0, os.O_RDONLY) == ALLOW
    assert judge("x86_64", number, 0, os.O_WRONLY) == REFUSE


def test_numbers_of_another_machine_kill() -> None:
    for number in (0, 41, 500):
        assert judge("x86_64", number, as_machine="aarch64") == KILL


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("x86_64", "/usr/include/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_numbers_are_those_of_the_kernel(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"{header} is not installed")
    pairs = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", Path(header).read_text(), re.M)
    known = {name: int(number) for name, number in pairs}
    ours = refused_syscalls.refused(machine) | refused_syscalls.judged(machine)
    assert {name: known[name] for name in ours} == ours
    later = {name: known[name] for name in refused_syscalls.COMMON_ALLOWED if name in known}
    assert later.items() <= refused_syscalls.COMMON_ALLOWED.items()
    absent = refused_syscalls.refused("x86_64").keys() - ours.keys()
    assert not absent & known.keys(), "the kernel has it, and our table doesn't"


def run_confined(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that confined itself; `said` is what `confine` returned."""
    before = "from augd.process.sandbox import confine, limit\nlimit(2 << 30)\nsaid = confine()\n"
    return subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
    )


def is_granted() -> bool:
    return run_confined("print(said)").stdout.startswith("seccomp")


granted = pytest.mark.skipif(not is_granted(), reason="this kernel grants no seccomp filter")

ATTEMPTS = {
    "a TCP socket": "import socket; socket.socket()",
    "a UNIX socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a child": "import os; os.fork()",
    "a program in a child": "import subprocess; subprocess.run(['true'])",
    "a program, spawned": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "a program in its place": "import os; os.execv('/bin/true', ['true'])",
    "a signal to its parent": "import os; os.kill(os.getppid(), 0)",
    "a file to write": "open('/dev/null', 'w')",
    "a new file": "import os; os.open('x', os.O_CREAT)",
    "a folder": "import os; os.mkdir('x')",
    "other rights": "import os; os.chmod('.', 0o777)",
}


@granted
@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS.keys())
def test_the_kernel_refuses(attempt: str, tmp_path: Path) -> None:
    done = run_confined(f"import os\nos.chdir({str(tmp_path)!r})\n{attempt}")
    assert done.returncode == 1
    assert "PermissionError: [Errno 1] Operation not permitted" in done.stderr
    assert not list(tmp_path.iterdir())


@granted
def test_what_has_no_python_name_is_refused_as_well() -> None:
    done = run_confined(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.restype = libc.syscall.restype = ctypes.c_long
        libc.ptrace(0, 0, None, None); print(ctypes.get_errno())
        libc.unshare(0x40000000); print(ctypes.get_errno())
        libc.prctl(1, 0, 0, 0, 0); print(ctypes.get_errno())
        libc.syscall(425, 8, None); print(ctypes.get_errno())
        libc.syscall(434, os.getppid(), 0); print(ctypes.get_errno())
        """
    )
    refused, unknown = str(errno.EPERM), str(errno.ENOSYS)
    assert done.stdout.split() == [refused, refused, refused, unknown, unknown], done.stderr


@granted
def test_writing_by_openat2_is_refused_where_landlock_is(tmp_path: Path) -> None:
    done = run_confined(
        f"""
        import ctypes, os, struct
        libc = ctypes.CDLL(None, use_errno=True)
        how = struct.pack("QQQ", os.O_WRONLY | os.O_CREAT, 0o600, 0)
        print(said, libc.syscall(437, -100, {str(tmp_path / "x").encode()!r}, how, 24))
        """
    )
    confinement, status = done.stdout.split()
    if "landlock" not in confinement:
        pytest.skip("this kernel has no Landlock: openat2 can write there")
    assert status == "-1"
    assert not list(tmp_path.iterdir())


@granted
def test_what_a_producer_needs_goes_on(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("files")
    done = run_confined(
        f"""
        import mmap, os, signal, threading
        print(open({str(tmp_path / "x")!r}).read())
        thread = threading.Thread(target=lambda: print("threads"))
        thread.start()
        thread.join()
        fd = os.memfd_create("noise")
        os.write(fd, b"memory")
        mmap.mmap(fd, 6).close()
        print(os.pread(fd, 6, 0).decode())
        import numpy
        print(numpy.__name__, flush=True)
        os.kill(os.getpid(), signal.SIGABRT)
        """
    )
    assert done.stdout.split() == ["files", "threads", "memory", "numpy"], done.stderr
    assert done.returncode == -signal.SIGABRT


@granted
def test_threads_that_were_there_before_are_filtered_and_end_the_claim_of_landlock() -> None:
    code = """
        import socket, threading
        from augd.process.sandbox import confine
        go, tried = threading.Event(), []
        def attempt():
            go.wait()
            try:
                socket.socket()
            except PermissionError:
                tried.append("refused")
        thread = threading.Thread(target=attempt)
        thread.start()
        print(confine())
        go.set()
        thread.join()
        print(*tried)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == ["seccomp", "refused"], done.stderr


def test_limits_hold_and_lower_ones_stay() -> None:
    code = """
        import resource as r
        for kind in (r.RLIMIT_DATA, r.RLIMIT_NOFILE, r.RLIMIT_CORE):
            print(*r.getrlimit(kind))
    """
    done = run_confined(code)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fds = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
    rows = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert rows[0] == (2 << 30, 2 << 30)
    assert rows[1] == (fds, fds)
    assert max(rows[2]) <= 1


def test_another_machine_gets_no_filter() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os\n"
            "real = os.uname()\n"
            "os.uname = lambda: os.uname_result((*tuple(real)[:4], 'riscv64'))\n"
            "from augd.process.sandbox import confine\n"
            "print(repr(confine().replace('landlock', '')))\n"
            "import socket; socket.socket().close()",
        ],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout.strip(), done.returncode) == ("''", 0), done.stderr
