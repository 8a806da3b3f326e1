"""Ensures one daemon per address, and that its files are removed: a lock file and a janitor.

A path's address is locked by flock on a file beside it; without it, each new daemon would replace
the socket of another. A process killed with -9 cannot remove its socket files. The janitor does:
a shell that reads from a pipe until the daemon exits, and then removes the files. It inherits the
lock, so no daemon can start at the same address before it has finished. At a regular end the daemon
removes what the janitor left, since that may have been killed, too.

Invariants: only sockets of this user beside a lock file of augd, and that lock file, are removed.
Any other file at an address is left unchanged, and the start fails.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from augd.errors import AddressInUse, OptionError
from augd.transport import owned_socket
from augd.transport.address import Address

# A janitor needs milliseconds. A new daemon waits for the janitor of a killed one.
WAIT_S = 2.0

# $1 is the lock's fd, $2 its file, the others are sockets. `read` returns at end-of-file, when the
# daemon has exited in any way. The signals that a terminal sends to the whole foreground group must
# not end the janitor earlier. A file that replaced one of the daemon's is not removed.
_JANITOR = """
trap '' INT TERM HUP QUIT
read -r _
fd=$1 lock=$2
shift 2
for one; do
    if [ -S "$one" ] && [ ! -h "$one" ] && [ -O "$one" ]; then rm -f -- "$one"; fi
done
if [ ! -h "$lock" ] && [ "$lock" -ef "/proc/self/fd/$fd" ]; then rm -f -- "$lock"; fi
"""
_PID = re.compile(rb"\d{0,20}\n?")  # empty if the daemon was killed before it wrote its pid


class AddressLock:
    """Holds an address from `acquire` to `release`, or until all processes that hold it died."""

    def __init__(self, fd: int, address: Address) -> None:
        self._fd = fd
        self._address = address
        self._janitor: subprocess.Popen[bytes] | None = None

    @classmethod
    def acquire(cls, address: Address) -> AddressLock:
        """Lock the address, remove files of a dead daemon, and start the janitor.

        Raises:
            AddressInUse: another daemon serves there.
            OptionError: the lock file cannot be made there, or there is a file that no daemon of
                this user left. That file is left unchanged.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            fd = _try_lock(address)
            if fd is not None:
                break
            if time.monotonic() > deadline:
                raise AddressInUse(_in_use(address))
            time.sleep(0.01)
        lock = cls(fd, address)
        try:
            for path in _sockets(address):
                owned_socket.remove_own(path)
        except OptionError:
            os.close(fd)
            raise
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        lock._start_janitor()
        return lock

    def _start_janitor(self) -> None:
        files = [self._address.lock_path, *_sockets(self._address)]
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "augd-janitor", str(self._fd), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._fd,),
            cwd="/",
        )

    def release(self) -> None:
        """Remove the files and unlock; returns when the janitor has exited.

        If the janitor was killed or stopped, this process removes the files.
        """
        if self._janitor is not None:
            assert self._janitor.stdin is not None
            self._janitor.stdin.close()
            try:
                self._janitor.wait(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                self._janitor.kill()
                with suppress(subprocess.TimeoutExpired):
                    self._janitor.wait(timeout=WAIT_S)
            self._janitor = None
        self._remove_left()
        os.close(self._fd)

    def _remove_left(self) -> None:
        """Remove this daemon's sockets, and then its lock file.

        While the lock file is still this daemon's no other has the address. Afterwards the sockets
        may be another daemon's.
        """
        lock = self._address.lock_path
        try:
            if not os.path.samestat(os.lstat(lock), os.fstat(self._fd)):
                return
            for path in _sockets(self._address):
                with suppress(OptionError):  # another file replaced the socket
                    owned_socket.remove_own(path)
            lock.unlink()
        except OSError:
            return  # removed already, or its folder is not writable any more


def _sockets(address: Address) -> list[Path]:
    return [address.path, address.attach_path, address.bulk_path, address.rows_path]


def _try_lock(address: Address) -> int | None:
    """Open the lock file and lock it; None while another process has it."""
    path = address.lock_path
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            _check_unused(address)
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None  # another start was faster
    except OSError as error:
        raise OptionError(
            f"{path} cannot be opened: {error.strerror}. Choose another address with "
            "--listen ipc://PATH, in a directory of your own"
        ) from None
    try:
        _check_lock(fd, path)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The janitor may have removed the file between open and flock: lock the new one.
        if os.fstat(fd).st_ino == os.lstat(path).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except OptionError:
        os.close(fd)
        raise
    os.close(fd)
    return None


def _check_unused(address: Address) -> None:
    """Reject an address with a file that belongs to no lock file of augd.

    A socket of this user there is another program's, since janitors remove the lock file last.
    """
    for path in _sockets(address):
        # If there is a lock file now, the socket belongs to a daemon that starts meanwhile.
        if owned_socket.find_own(path) and not os.path.lexists(address.lock_path):
            raise OptionError(
                f"{path} exists: a socket that no daemon of augd left, since there is no "
                f"{address.lock_path} beside it. It is not removed: choose another address with "
                "--listen ipc://PATH, or remove it if no program listens there"
            )


def _check_lock(fd: int, path: Path) -> None:
    """Reject a file that is no lock file of augd: it would be overwritten and later removed."""
    found = os.fstat(fd)
    is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink <= 1
    is_own = found.st_uid == os.geteuid()
    if not (is_plain and is_own and _PID.fullmatch(os.pread(fd, 32, 0))):
        raise OptionError(
            f"{path} exists and is no lock of a daemon of user {os.geteuid()}: expected a file "
            "with a process's number. It is left as it is: choose another address with "
            "--listen ipc://PATH"
        )


def _in_use(address: Address) -> str:
    try:
        pid = address.lock_path.read_text().strip()
    except OSError:
        pid = ""
    who = f"a daemon (pid {pid})" if pid else "another daemon"
    return (
        f"{who} already serves {address}: connect to it, stop it, "
        "or choose another address with --listen ipc://PATH"
    )
