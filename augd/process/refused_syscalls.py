"""The system calls that a producer is refused: names and numbers, by what they would allow.

A producer reads files, decodes, and writes into memory that it was given. Only code injected by a
hostile image needs any call listed here. Declarations alone: nothing is called.

Numbers below 424 differ between machines. From there on all machines share them, and a producer
needs few: those are listed. All others don't exist for it, nor do those that later kernels add. So
a new kernel's calls are refused without a release of augd.
"""

from __future__ import annotations

from typing import Final

# Source: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux;
# a test compares them with this machine's own headers. Each: name, x86_64, aarch64, - for none.
# A UNIX socket is enough to ask a desktop or a service manager to start a program: no process may
# create one.
_CONNECTIONS: Final = """
socket 41 198 | socketpair 53 199 | connect 42 203 | bind 49 200 | listen 50 201 | accept 43 202 |
accept4 288 242 | sendmsg 46 211 | sendmmsg 307 269
"""
_PROCESSES: Final = """
fork 57 - | vfork 58 - | execve 59 221 | execveat 322 281 | ptrace 101 117 |
process_vm_readv 310 270 | process_vm_writev 311 271 | kcmp 312 272
"""
_NAMED_MEMORY: Final = """
shmget 29 194 | shmat 30 196 | msgget 68 186 | semget 64 190 | mq_open 240 180
"""
_RIGHTS: Final = """
setuid 105 146 | setgid 106 144 | setreuid 113 145 | setregid 114 143 | setresuid 117 147 |
setresgid 119 149 | setgroups 116 159 | setfsuid 122 151 | setfsgid 123 152 | capset 126 91 |
keyctl 250 219 | add_key 248 217 | request_key 249 218 | unshare 272 97 | setns 308 268 |
personality 135 92
"""
_MACHINE: Final = """
mount 165 40 | umount2 166 39 | pivot_root 155 41 | chroot 161 51 | swapon 167 224 |
swapoff 168 225 | quotactl 179 60 | acct 163 89 | reboot 169 142 | kexec_load 246 104 |
kexec_file_load 320 294 | init_module 175 105 | finit_module 313 273 | delete_module 176 106 |
settimeofday 164 170 | clock_settime 227 112 | clock_adjtime 305 266 | adjtimex 159 171 |
sethostname 170 161 | setdomainname 171 162 | iopl 172 - | ioperm 173 - | modify_ldt 154 - |
syslog 103 116 | vhangup 153 58 | bpf 321 280 | perf_event_open 298 241 | userfaultfd 323 282 |
io_setup 206 0 | fanotify_init 300 262 | name_to_handle_at 303 264 | open_by_handle_at 304 265
"""
_CHANGING_FILES: Final = """
creat 85 - | truncate 76 45 | rename 82 - | renameat 264 38 | renameat2 316 276 | mkdir 83 - |
mkdirat 258 34 | rmdir 84 - | link 86 - | linkat 265 37 | unlink 87 - | unlinkat 263 35 |
symlink 88 - | symlinkat 266 36 | mknod 133 - | mknodat 259 33 | chmod 90 - | fchmod 91 52 |
fchmodat 268 53 | chown 92 - | lchown 94 - | fchown 93 55 | fchownat 260 54 | utime 132 - |
utimes 235 - | futimesat 261 - | utimensat 280 88 | setxattr 188 5 | lsetxattr 189 6 |
fsetxattr 190 7 | removexattr 197 14 | lremovexattr 198 15 | fremovexattr 199 16
"""
_PARTLY: Final = """
open 2 - | openat 257 56 | clone 56 220 | kill 62 129 | tkill 200 130 | tgkill 234 131 |
rt_sigqueueinfo 129 138 | rt_tgsigqueueinfo 297 240 | prctl 157 167 | prlimit64 302 261 |
ioctl 16 29
"""

MACHINES: Final = {"x86_64": 0, "aarch64": 1}
"""The machines whose numbers are known, and which column is theirs."""

FIRST_COMMON: Final = 424
COMMON_ALLOWED: Final = {
    "close_range": 436,
    "openat2": 437,
    "faccessat2": 439,
    "epoll_pwait2": 441,
    "futex_waitv": 449,
    "map_shadow_stack": 453,
    "futex_wake": 454,
    "futex_wait": 455,
    "futex_requeue": 456,
    "mseal": 462,
}
"""What of the common numbers a C library may need, now or when it learns of them."""


def refused(machine: str) -> dict[str, int]:
    """Name the calls that are refused whatever their arguments, with their numbers."""
    tables = (_CONNECTIONS, _PROCESSES, _NAMED_MEMORY, _RIGHTS, _MACHINE, _CHANGING_FILES)
    return {name: number for table in tables for name, number in _column(table, machine).items()}


def judged(machine: str) -> dict[str, int]:
    """Name the calls whose arguments decide, with their numbers."""
    return _column(_PARTLY, machine)


def _column(table: str, machine: str) -> dict[str, int]:
    rows = (cell.split() for cell in table.replace("\n", " ").split("|"))
    column = 1 + MACHINES[machine]
    return {row[0]: int(row[column]) for row in rows if row[column] != "-"}
