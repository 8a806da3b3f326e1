"""Builds the seccomp filter of a producer, as a program of the kernel's packet-filter machine.

The kernel runs it at every system call, on the call's number and arguments. It is built from the
lists of `refused_syscalls`, for each process because it holds the process's own pid. There are no
backward jumps: each rule is a comparison and a verdict, to be read from top to bottom. Recent
kernels cache which numbers are always allowed, and run the filter for the others only.

Pure: installs nothing. The filter reads no memory: a pointer's target can change after the check.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from augd.process import refused_syscalls


class BpfInstruction(NamedTuple):
    """One instruction: `struct sock_filter`. Jumps count the instructions to skip."""

    code: int
    if_true: int
    if_false: int
    operand: int


# Source: include/uapi/linux/bpf_common.h, seccomp.h, audit.h.
LOAD: Final = 0x20  # a field of the call: number, machine, instruction, arguments
IF_EQUAL: Final = 0x15
IF_AT_LEAST: Final = 0x35
IF_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
REFUSE: Final = 0x00050000 | errno.EPERM
UNKNOWN: Final = 0x00050000 | errno.ENOSYS  # C libraries then use the older call, which is checked

NUMBER_AT: Final = 0
MACHINE_AT: Final = 4
ARGUMENTS_AT: Final = 16  # 64 bits each, the lower half first: both machines are little-endian

MACHINE_CODES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_CLONE_THREAD: Final = 0x00010000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # typing into the terminal that the daemon writes to
_PR_SET_PDEATHSIG: Final = 1  # so that nothing outlives the daemon
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Rule(NamedTuple):
    """Return one verdict if argument `place` passes one of the tests, and another if not."""

    call: str
    place: int
    test: int
    operands: tuple[int, ...]
    hit: int
    miss: int


def rules(pid: int) -> tuple[Rule, ...]:
    """Return which arguments are allowed for the calls that are neither allowed nor refused as a
    whole.

    `openat2` takes its flags by pointer, so the filter cannot see whether it opens for writing.
    """
    reading = [Rule("open", 1, IF_ANY_BIT, (_WRITING,), REFUSE, ALLOW)]
    reading += [Rule("openat", 2, IF_ANY_BIT, (_WRITING,), REFUSE, ALLOW)]
    to_itself = [
        Rule(call, 0, IF_EQUAL, (pid,), ALLOW, REFUSE)
        for call in ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
    ]
    return (
        *reading,
        *to_itself,
        Rule("clone", 0, IF_ANY_BIT, (_CLONE_THREAD,), ALLOW, REFUSE),
        Rule("prctl", 0, IF_EQUAL, (_PR_SET_PDEATHSIG,), REFUSE, ALLOW),
        Rule("prlimit64", 0, IF_EQUAL, (0, pid), ALLOW, REFUSE),
        Rule("ioctl", 1, IF_EQUAL, (_TIOCSTI, _TIOCLINUX), REFUSE, ALLOW),
    )


def make_program(machine: str, pid: int) -> list[BpfInstruction]:
    """Build the filter for a process on this machine, one of `refused_syscalls.MACHINES`.

    A call by the numbers of another machine (32 bits on x86_64) kills the process: no program makes
    one by accident. Those of x32 lie above `FIRST_COMMON`, so they don't exist.
    """
    program = [
        BpfInstruction(LOAD, 0, 0, MACHINE_AT),
        *_verdict(IF_EQUAL, MACHINE_CODES[machine], KILL, when=False),
        BpfInstruction(LOAD, 0, 0, NUMBER_AT),
    ]
    for number in refused_syscalls.COMMON_ALLOWED.values():
        program += _verdict(IF_EQUAL, number, ALLOW)
    program += _verdict(IF_AT_LEAST, refused_syscalls.FIRST_COMMON, UNKNOWN)
    for number in refused_syscalls.refused(machine).values():
        program += _verdict(IF_EQUAL, number, REFUSE)
    numbers = refused_syscalls.judged(machine)
    for rule in rules(pid):
        if rule.call in numbers:
            body = _body(rule)
            program += [BpfInstruction(IF_EQUAL, 0, len(body), numbers[rule.call]), *body]
    return [*program, BpfInstruction(RETURN, 0, 0, ALLOW)]


def _verdict(test: int, operand: int, verdict: int, *, when: bool = True) -> list[BpfInstruction]:
    """Return the verdict if the test's outcome is `when`; else continue behind."""
    return [
        BpfInstruction(test, int(not when), int(when), operand),
        BpfInstruction(RETURN, 0, 0, verdict),
    ]


def _body(rule: Rule) -> list[BpfInstruction]:
    steps = [BpfInstruction(LOAD, 0, 0, ARGUMENTS_AT + 8 * rule.place)]
    for operand in rule.operands:
        steps += _verdict(rule.test, operand, rule.hit)
    return [*steps, BpfInstruction(RETURN, 0, 0, rule.miss)]
