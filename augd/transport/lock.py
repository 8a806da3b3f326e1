"""One daemon per address, and nothing left of it: the lock file and the janitor.

ZeroMQ binds an ipc path that another process listens on by silently stealing it, so the
address is guarded by flock on a file beside it. A process killed with -9 cannot remove its
socket files; the janitor does: a shell that reads from a pipe until the daemon is gone,
then removes the files. It inherits the lock, so nobody can start at the same address before
it has finished.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

from augd.errors import AddressInUse, OptionError
from augd.transport.address import Address

# A janitor needs milliseconds; a new daemon waits for the janitor of a killed one.
WAIT_S = 2.0

# "$@" are the files. `read` returns at end-of-file: the daemon is gone, however it ended.
# The signals that a terminal sends to the whole foreground group must not end it earlier.
_JANITOR = "trap '' INT TERM HUP QUIT; read -r _ ; rm -f -- \"$@\""


class AddressLock:
    """Holds an address from `acquire` to `release`; the kernel lets go when all holders died."""

    def __init__(self, fd: int, address: Address) -> None:
        """Wrap a locked fd; use `acquire`."""
        self._fd = fd
        self._address = address
        self._janitor: subprocess.Popen[bytes] | None = None

    @classmethod
    def acquire(cls, address: Address) -> AddressLock:
        """Lock the address, clear what a dead daemon left, and set the janitor to work.

        Raises:
            AddressInUse: another daemon lives there; it is not touched.
            OptionError: the lock's file cannot be made there.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            fd = _try_lock(address.lock_path)
            if fd is not None:
                break
            if time.monotonic() > deadline:
                raise AddressInUse(_in_use(address))
            time.sleep(0.01)
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        lock = cls(fd, address)
        lock._remove_sockets()
        lock._start_janitor()
        return lock

    def _start_janitor(self) -> None:
        files = [*_sockets(self._address), self._address.lock_path]
        self._janitor = subprocess.Popen(
            ["/bin/sh", "-c", _JANITOR, "augd-janitor", *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._fd,),
            cwd="/",
        )

    def _remove_sockets(self) -> None:
        for path in _sockets(self._address):
            path.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove the files and let go; returns when the janitor is gone."""
        if self._janitor is not None:
            assert self._janitor.stdin is not None
            self._janitor.stdin.close()
            self._janitor.wait(timeout=WAIT_S)
            self._janitor = None
        os.close(self._fd)


def _sockets(address: Address) -> list[Path]:
    return [address.path, address.attach_path, address.bulk_path, address.rows_path]


def _try_lock(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be opened: {error.strerror}. Choose another address with "
            "--listen ipc://PATH, in a directory of your own"
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The janitor may have removed the file between open and flock: lock the new one.
        if os.fstat(fd).st_ino == os.stat(path).st_ino:
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


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
