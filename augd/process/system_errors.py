"""What to do if the system lacks a resource: one line, no traceback."""

from __future__ import annotations

import errno
import os
from typing import Final

from augd.errors import AugdError, OptionError, OverLimit
from augd.process.paths import NO_WORKING_DIRECTORY, has_working_directory

_REMEDIES: Final = {
    errno.EMFILE: "this process may open no more files: raise the limit, ulimit -n (LimitNOFILE= "
    "of a systemd unit), or ask for fewer producers",
    errno.ENFILE: "this machine can open no more files: see /proc/sys/fs/file-max",
    errno.EFBIG: "the size limit of files is too low, and holds for shared memory, too: raise it, "
    "ulimit -f unlimited (LimitFSIZE= of a systemd unit)",
    errno.ENOSPC: "make room there, or name another place",
    errno.EDQUOT: "the quota is used up: make room there, or name another place",
    errno.ENAMETOOLONG: "name a place whose path is shorter",
    errno.EROFS: "name a place that can be written to",
    errno.ENOMEM: "give it more memory, or ask for less",
    errno.EAGAIN: "no more processes or threads are allowed: raise the limit, ulimit -u, or ask "
    "for fewer producers",
}


def as_refusal(error: OSError) -> AugdError | None:
    """Return what to do if the system refused something for lack of a resource; None for other
    errors.
    """
    if error.errno == errno.ENOENT and error.filename is None and not has_working_directory():
        return OptionError(NO_WORKING_DIRECTORY)
    if error.errno not in _REMEDIES:
        return None
    where = "" if error.filename is None else f" ({os.fsdecode(error.filename)!r})"
    return OverLimit(f"{error.strerror}{where}: {_REMEDIES[error.errno]}")
