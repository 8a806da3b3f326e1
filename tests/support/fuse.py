"""A file system that does as it is told: answers, fails with an errno, or says nothing.

The kernel's FUSE protocol, version 7.31, by hand: a process of its own reads requests from
/dev/fuse and answers them with a copy of a folder that it holds in memory. `python -m
tests.support.fuse FD FOLDER` is that process; `mounted` is how tests use it, where the machine
allows it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NODEV_NOSUID = 4 | 2
_MNT_DETACH = 2
_IN = struct.Struct("<IIQQIIII")  # len, opcode, unique, nodeid, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # len, error, unique
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _INIT = 1, 2, 3, 14, 15, 18, 26
_STATFS, _FLUSH, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = (
    *(17, 25, 27, 28, 29),
    *(36, 42),
)
_DIR, _FILE = 0o040755, 0o100644


class _Tree:
    """A folder's files in memory, each by a number; 1 is the root."""

    def __init__(self, folder: Path) -> None:
        self.paths = [folder, *sorted(folder.rglob("*"))]
        self.number = {path: at for at, path in enumerate(self.paths, 1)}
        self.content = {at: path.read_bytes() for path, at in self.number.items() if path.is_file()}
        self.mtime_ns = {at: path.stat().st_mtime_ns for path, at in self.number.items()}

    def attributes(self, number: int) -> bytes:
        content = self.content.get(number)
        mode = _DIR if content is None else _FILE
        size = len(content or b"")
        seconds, rest_ns = divmod(self.mtime_ns[number], 10**9)
        times = struct.pack("<QQQIII", *[seconds] * 3, *[rest_ns] * 3)
        # ino, size, blocks, times, mode, nlink, uid, gid, rdev, blksize, flags
        head = struct.pack("<QQQ", number, size, (size + 511) // 512)
        return head + times + struct.pack("<IIIIIII", mode, 1, 0, 0, 0, 4096, 0)

    def child(self, number: int, name: str) -> int | None:
        return self.number.get(self.paths[number - 1] / name)

    def listing(self, number: int) -> bytes:
        entries = b""
        folder = self.paths[number - 1]
        for path, at in self.number.items():
            if path.parent != folder or at == 1:
                continue
            name = os.fsencode(path.name)
            kind = 8 if at in self.content else 4
            entry = struct.pack("<QQII", at, at, len(name), kind) + name
            entries += entry.ljust((len(entry) + 7) & ~7, b"\0")
        return entries


class _Server:
    """Answers requests; what it does to those for files' contents is said by a line on stdin."""

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._tree = _Tree(folder)

    def run(self, deed_path: Path) -> None:
        while True:
            try:
                request = os.read(self._fd, 1 << 20)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # unmounted
            _, opcode, unique, node, *_ = _IN.unpack_from(request)
            if opcode in (_FORGET, _BATCH_FORGET, _INTERRUPT):
                continue
            deed = deed_path.read_text().strip()
            is_of_a_file = opcode in (_OPEN, _READ, _LOOKUP, _GETATTR) and node != 0
            if deed == "hang" and opcode in (_OPEN, _READ):
                continue  # never answered
            if deed.isdigit() and is_of_a_file:
                self._answer(unique, -int(deed))
                continue
            error, body = self._do(opcode, node, request[_IN.size :])
            self._answer(unique, -error, body)

    def _answer(self, unique: int, error: int, body: bytes = b"") -> None:
        with contextlib.suppress(OSError):  # interrupted meanwhile
            os.write(self._fd, _OUT.pack(_OUT.size + len(body), error, unique) + body)

    def _do(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        tree = self._tree
        if opcode == _INIT:
            _, minor, readahead, _ = struct.unpack_from("<IIII", body)
            head = struct.pack("<IIIIHHI", 7, min(minor, 31), readahead, 0, 12, 10, 1 << 16)
            return 0, (head + struct.pack("<IHHI", 1, 32, 0, 0)).ljust(64, b"\0")
        if opcode == _LOOKUP:
            child = tree.child(node, os.fsdecode(body.rstrip(b"\0")))
            if child is None:
                return errno.ENOENT, b""
            # Valid for no time at all: each look is asked for anew.
            return 0, struct.pack("<QQQQII", child, 0, 0, 0, 0, 0) + tree.attributes(child)
        if opcode == _GETATTR:
            return 0, struct.pack("<QII", 0, 0, 0) + tree.attributes(node)
        if opcode in (_OPEN, _OPENDIR):
            is_direct = 1 if opcode == _OPEN else 0  # no page cache: each read is asked for
            return 0, struct.pack("<QII", 0, is_direct, 0)
        if opcode == _READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, tree.content[node][offset : offset + size]
        if opcode == _READDIR:
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, b"" if offset else tree.listing(node)[:size]
        if opcode in (_RELEASE, _RELEASEDIR, _FLUSH):
            return 0, b""
        if opcode == _STATFS:
            return 0, struct.pack("<QQQQQIIII", *[1 << 20] * 5, 4096, 255, 4096, 0).ljust(80, b"\0")
        return errno.ENOSYS, b""


class Mount:
    """A mounted copy of a folder."""

    def __init__(self, folder: Path, server: subprocess.Popen[bytes], deed: Path) -> None:
        self.folder = folder
        self._server = server
        self._deed = deed

    def do(self, deed: str | int) -> None:
        """Say what becomes of requests from now on: "answer", "hang", or an errno."""
        fresh = self._deed.with_suffix(".new")
        fresh.write_text(str(deed))
        fresh.replace(self._deed)

    def abort(self) -> None:
        """End the server: all that waits for an answer gets an error instead."""
        self._server.kill()
        self._server.wait()


def is_possible() -> bool:
    """Say whether this process may mount such a file system."""
    return os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK)


@contextlib.contextmanager
def mounted(folder: Path, place: Path) -> Iterator[Mount]:
    """Mount a copy of a folder at a new place. Raises OSError where it may not be."""
    place.mkdir()
    deed = place.with_name(f"{place.name}.deed")
    deed.write_text("answer")
    fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
        if _LIBC.mount(b"augd-test", bytes(place), b"fuse", _NODEV_NOSUID, options):
            raise OSError(ctypes.get_errno(), "mount")
        command = [sys.executable, "-m", "tests.support.fuse", str(fd), str(folder), str(deed)]
        server = subprocess.Popen(command, pass_fds=(fd,))
    finally:
        os.close(fd)
    mount = Mount(place, server, deed)
    try:
        yield mount
    finally:
        mount.abort()
        _LIBC.umount2(bytes(place), _MNT_DETACH)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Server(int(sys.argv[1]), Path(sys.argv[2])).run(Path(sys.argv[3]))
