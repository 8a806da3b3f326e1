"""Reads and writes key files so that no other user can read a secret, or add a key.

Checks apply to the file that was opened, not to what the path names. Links are not followed, and
only plain files are read. Only new files are written. No error text quotes a file's content.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from augd.errors import OptionError

_FILE_BYTES_MAX = 65_536


def write_new(path: Path, text: str) -> None:
    """Write a file that only its owner can read; never over a file, never through a link.

    Raises:
        OptionError: the path exists, or it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError:
        raise OptionError(f"{path} exists and is not overwritten: move it away first") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        os.unlink(path)
        raise OptionError(f"{path} cannot be written: {error.strerror}") from None


def read_table(path: Path, *, is_secret: bool) -> dict[str, Any]:
    """Read a TOML file that no other user can have written, nor read if it holds a secret.

    Raises:
        OptionError: it is missing, no TOML, or open to others.
    """
    import tomllib  # which a daemon without keys never needs

    content = _read_checked(path, is_secret=is_secret)
    try:
        return tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        # Their texts may quote what the file holds.
        raise OptionError(f"{path} is not valid TOML: correct it, or make a new one") from None


def read_secret(path: Path) -> bytes:
    """Read a small file that no other user can read.

    Raises:
        OptionError: it is missing, a link, too large, or open to others.
    """
    return _read_checked(path, is_secret=True)


def _read_checked(path: Path, *, is_secret: bool) -> bytes:
    """Read a small file, after checks of the opened file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        is_link = path.is_symlink()
        why = "it is a link, expected the file itself" if is_link else error.strerror
        raise OptionError(f"{path} cannot be read: {why}") from None
    try:
        _check_file(os.fstat(fd), path, is_secret=is_secret)
        content = os.read(fd, _FILE_BYTES_MAX + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if len(content) > _FILE_BYTES_MAX:
        raise OptionError(f"{path} is larger than {_FILE_BYTES_MAX} bytes, which no key file is")
    return content


def _check_file(found: os.stat_result, path: Path, *, is_secret: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OptionError(f"{path} is not a plain file")
    user = os.geteuid()
    if found.st_uid != user and (is_secret or found.st_uid != 0):
        raise OptionError(f"{path} belongs to user {found.st_uid}, expected {user}: copy it")
    mode = stat.S_IMODE(found.st_mode)
    if is_secret and mode & 0o077:
        raise OptionError(
            f"{path} has mode {mode:04o}, so that others can read the secret in it, expected 0600: "
            f"make a new key, or if you are sure that nobody did: chmod 600 {path}"
        )
    if mode & 0o022:
        raise OptionError(f"{path} can be written by others (mode {mode:04o}): chmod go-w {path}")


def make_folder(folder: Path) -> None:
    """Make a folder for its owner alone, if it isn't there.

    Raises:
        OptionError: it cannot be made, or is open to others.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{folder} cannot be made for keys: {error.strerror}") from None
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Refuse a folder into which another user could put a key.

    Raises:
        OptionError: it is missing, of another user, or others may write to it.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise OptionError(f"{folder} cannot be read: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise OptionError(f"{folder} is not a folder of keys")
    if found.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(found.st_mode) & 0o022:
        raise OptionError(
            f"{folder} is open to other users, expected mode 0700: chmod 700 {folder}"
        )
