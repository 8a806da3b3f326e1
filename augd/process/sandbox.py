"""Confines this process for good, before it decodes the first untrusted byte.

A producer calls `limit` first. It calls `confine` once its libraries are loaded, and before it
opens its first file. A hostile image that takes over the process then finds no network, no other
process, no program to start and no file to change. It can still read what its user can read, and
spoil the rows in progress. A restriction that the kernel or a container forbids is skipped and
reported.

The restrictions cannot be undone, not even by root, and the daemon does not inherit them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

from augd.process.refused_syscalls import MACHINES
from augd.process.seccomp_program import make_program

# An index, hints, an arena and a list for each of 128 sessions, and the files in reading.
_FDS_MAX = 4096
# Not 0: at 0 a core would still be piped to a crash reporter, arenas of gigabytes included, and the
# exit be noticed only afterwards. Source: fs/coredump.c.
_CORE_BYTES_MAX = 1

_PR_SET_NO_NEW_PRIVS = 38
# Source: include/uapi/linux/seccomp.h. TSYNC: threads that a library started get the filter, too.
_SET_MODE_FILTER = 1
_FLAG_TSYNC = 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}

# Source: include/uapi/linux/landlock.h. All rights of its first version that change something
# (write, remove, make), and truncation, which its third added. No rule grants any.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
_CHANGING = 1 << 1 | 0b1_1111_1111 << 4
_TRUNCATE = 1 << 14
_TRUNCATE_SINCE = 3


def limit(max_data_bytes: int) -> None:
    """Limit the memory and the fds of this process, and disable core dumps."""
    _lower(resource.RLIMIT_DATA, max_data_bytes)
    _lower(resource.RLIMIT_NOFILE, _FDS_MAX)
    _lower(resource.RLIMIT_CORE, _CORE_BYTES_MAX)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (bound, bound))


def confine() -> str:
    """Take from this process, for good, what a producer never needs. Returns what holds now.

    "seccomp" (no network, no other process, no program) and "landlock" (no file is written by any
    call), joined by "+"; empty if the kernel grants neither. Takes about 1.5 ms.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero):
        return ""
    libc.syscall.restype = ctypes.c_long
    # Landlock first: the filter forbids its calls.
    holds = [("landlock", _forbid_writing(libc)), ("seccomp", _filter_calls(libc))]
    return "+".join(name for name, is_held in reversed(holds) if is_held)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    machine = os.uname().machine
    if machine not in MACHINES or sys.maxsize < 2**32:
        return False
    program = make_program(machine, os.getpid())
    steps = b"".join(struct.pack("<HBBI", *step) for step in program)
    packed = ctypes.create_string_buffer(steps, len(steps))
    bpf = struct.pack("@HP", len(program), ctypes.addressof(packed))
    status: int = libc.syscall(
        ctypes.c_long(_SECCOMP[machine]),
        ctypes.c_ulong(_SET_MODE_FILTER),
        ctypes.c_ulong(_FLAG_TSYNC),
        ctypes.c_char_p(bpf),
    )
    return status == 0


def _forbid_writing(libc: ctypes.CDLL) -> bool:
    """Forbid this thread, and those that it will start, to open any file for writing."""
    if not _is_single_thread():
        return False  # a thread without it would be a way around it
    ruleset = _make_ruleset(libc)
    if ruleset < 0:
        return False
    try:
        status: int = libc.syscall(
            ctypes.c_long(_RESTRICT_SELF), ctypes.c_long(ruleset), ctypes.c_ulong(0)
        )
    finally:
        os.close(ruleset)
    return status == 0


def _is_single_thread() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _make_ruleset(libc: ctypes.CDLL) -> int:
    """Create the set of rules that lets no process change a file. Returns its fd, -1 without
    Landlock.
    """
    create, nothing = ctypes.c_long(_CREATE_RULESET), ctypes.c_size_t(0)
    version: int = libc.syscall(create, None, nothing, ctypes.c_ulong(_ASK_VERSION))
    if version < 1:
        return -1
    rights = struct.pack("@Q", _CHANGING | (_TRUNCATE if version >= _TRUNCATE_SINCE else 0))
    size_bytes = ctypes.c_size_t(len(rights))
    ruleset: int = libc.syscall(create, ctypes.c_char_p(rights), size_bytes, ctypes.c_ulong(0))
    return ruleset
