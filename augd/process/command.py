"""Runs a command in any surroundings: closed streams, system limits, a missing home.

Streams may be closed (cron, containers), full, or limited to ASCII. A system limit may be too low.
A user may have no home. None of these is a fault of augd's, so none gets a traceback: `run` reports
each in one line. Daemons write with `say`, which never fails.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, NoReturn

from augd.errors import AugdError
from augd.process.system_errors import as_refusal


def open_streams() -> None:
    """Open closed standard streams on /dev/null: else the next file gets the number of one."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def prepare() -> None:
    """Make signals and the standard streams of a command usable.

    A parent may ignore or block signals, and a child inherits that. With SIGCHLD ignored no process
    learns how a child ended, and a blocked SIGTERM ends nothing.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    open_streams()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            fd = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, os.fdopen(fd, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout = _Output.instead_of(sys.stdout)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")


class _Output(io.TextIOWrapper):
    """Standard output that writes in ASCII what its terminal cannot show, and records failures.

    An error's number is not enough: the disk of another file may be full as well.
    """

    failure: OSError | None = None

    @classmethod
    def instead_of(cls, stream: io.TextIOWrapper) -> _Output:
        encoding, is_by_line = stream.encoding, stream.line_buffering
        return cls(stream.detach(), encoding, "backslashreplace", line_buffering=is_by_line)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


def say(text: str = "", *, file: IO[str] | None = None, end: str = "\n") -> None:
    """Print to standard output, or to a file, and continue if that cannot be written to."""
    with suppress(OSError, ValueError):
        print(text, file=file or sys.stdout, end=end, flush=True)


def run(program: str, work: Callable[[], object]) -> NoReturn:
    """Run a command and end the process. An error that the user can fix is one line on stderr."""
    prepare()
    status = _status_of(program, work)
    try:
        sys.stdout.flush()
    except OSError as error:
        status = max(status, _say_unwritten(program, error))
    for stream, fd in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (
            OSError
        ):  # Python would try again to write what is left in the buffer, with a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
    sys.exit(status)


def _status_of(program: str, work: Callable[[], object]) -> int:
    try:
        work()
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        say(str(ending.code), file=sys.stderr)
        return 1
    except AugdError as error:
        say(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        # Up to 3.11 Python wraps exceptions raised while a class is made, those of imports
        # included.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return 130
    except OSError as error:
        if _is_of_stdout(error):
            return _say_unwritten(program, error)
        refused = as_refusal(error)
        if refused is None:
            raise
        say(f"{program}: error: {refused}", file=sys.stderr)
        return 1
    return 0


def _is_of_stdout(error: OSError) -> bool:
    """Return whether it is standard output that failed."""
    return isinstance(sys.stdout, _Output) and sys.stdout.failure is error


def _say_unwritten(program: str, error: OSError) -> int:
    if error.errno != errno.EPIPE:  # `| head` has read what it wanted
        say(
            f"{program}: error: standard output cannot be written to: {error.strerror}. "
            "That output is lost",
            file=sys.stderr,
        )
    return 1
