"""Opens files below a folder and nowhere else.

Used by the sources of samples. `openat2` rejects a path that leaves the folder in the kernel.
Without it, the path is resolved first.

Invariants: never opens what lies outside the root and the folders that links may lead to; never
blocks on a FIFO.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import Final

from augd.dataset.readers.transient_errors import does_pass
from augd.pixels.headers.read_header import BadImage

_SYS_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_BENEATH: Final = 0x08
# Without O_NONBLOCK, opening a FIFO would wait for a writer.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Root:
    """A folder, below which files are opened; by several threads at once."""

    def __init__(
        self, root: str | bytes | os.PathLike[str], links_to: Sequence[bytes] = ()
    ) -> None:
        """Open the folder. Raises OSError when it cannot be opened.

        `links_to` are real paths of folders that links out of the root may lead to.
        """
        self._root = os.path.realpath(os.fsencode(root))
        self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._others: list[tuple[bytes, int]] = []
        for folder in links_to:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._others.append((folder.rstrip(b"/") + b"/", fd))
        self._how = _OpenHow(_OPEN_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
        self._how_address = ctypes.addressof(self._how)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = (
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_char_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
        )
        self._has_openat2 = self._probe()

    def close(self) -> None:
        """Close the folder; opening after this fails. Closing twice is fine."""
        fd, self._root_fd = self._root_fd, -1
        if fd >= 0:
            os.close(fd)
        while self._others:
            os.close(self._others.pop()[1])

    def open(self, path: bytes) -> int:
        """Open a file for reading. The caller owns the descriptor.

        Raises:
            BadImage: deleted, unreadable, or outside the root.
            OSError: an error that passes.
        """
        try:
            return self._open(path)
        except OSError as error:
            if does_pass(error):
                raise
            raise _cannot_open(error) from None

    def reopen(self, path: bytes) -> None:
        """Open the folders again: those of a file system that was mounted again are others.

        Nothing changes before this file is there. Until then an empty folder may lie in the file
        system's place, in which all files would be missing.

        Raises:
            OSError: a folder or the file cannot be opened.
        """
        for folder, fd in ((self._root, self._root_fd), *self._others):
            fresh = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if fd == self._root_fd:
                    _look_for(path, fresh)
                os.dup2(fresh, fd, inheritable=False)  # other threads continue with the same number
            finally:
                os.close(fresh)

    def _open(self, path: bytes) -> int:
        if not self._has_openat2:
            return self._open_by_realpath(path)
        fd = self._openat2(self._root_fd, path)
        if fd < 0:
            number = ctypes.get_errno()
            if number == errno.EXDEV and self._others:
                return self._open_elsewhere(path)
            raise OSError(number, os.strerror(number))
        return fd

    def _openat2(self, folder_fd: int, path: bytes) -> int:
        found: int = self._syscall(
            _SYS_OPENAT2, folder_fd, path, self._how_address, ctypes.sizeof(_OpenHow)
        )
        return found

    def _open_elsewhere(self, path: bytes) -> int:
        """Open the target of a link out of the root, if links may lead there.

        The resolved path is opened below its folder alone: a link that is changed meanwhile leads
        nowhere else.
        """
        real = os.path.realpath(os.path.join(self._root, path), strict=True)
        for folder, fd in ((self._root.rstrip(b"/") + b"/", self._root_fd), *self._others):
            if real.startswith(folder):
                found = self._openat2(fd, real.removeprefix(folder))
                if found >= 0:
                    return found
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def _open_by_realpath(self, path: bytes) -> int:
        """Open if the kernel lacks openat2 (before 5.6, or hidden by a seccomp filter).

        The folders could be exchanged between the check and the open; the last step could not.
        """
        real = os.path.realpath(os.path.join(self._root, path))
        folders = (self._root.rstrip(b"/") + b"/", *(folder for folder, _ in self._others))
        if not real.startswith(folders):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return os.open(real, _OPEN_FLAGS | os.O_NOFOLLOW)

    def _probe(self) -> bool:
        fd = self._openat2(self._root_fd, b".")
        if fd >= 0:
            os.close(fd)
        return fd >= 0


def _look_for(path: bytes, folder_fd: int) -> None:
    """Raise OSError if a file, or the link to it, is not there."""
    os.stat(path, dir_fd=folder_fd, follow_symlinks=False)


def _cannot_open(error: OSError) -> BadImage:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return BadImage("deleted since it was indexed")
    if error.errno in (errno.EXDEV, errno.ELOOP):
        return BadImage(
            "a link that leaves the dataset's root: links must stay below it, or lead where "
            "--links-to lets them"
        )
    return BadImage(f"cannot be opened: {error.strerror}")
