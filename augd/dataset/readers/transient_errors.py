"""Retries reads after errors of a file system that pass: a restarting server, a link that is down.

Used by the sources of samples. Such an error is independent of the file that was read. So the read
is retried with growing pauses, within the patience that stores have, and never becomes a bad
sample. After that, the stream ends with an error that names the file.

Invariants: the thread that waits for rows reports progress while a read is retried, and only then.
A read that the file system does not answer is ended from outside.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from augd.errors import StoreError
from augd.pixels.headers.read_header import BadImage
from augd.process.awake_clock import Awake

Got = TypeVar("Got")

_NAMES: Final = (
    # a network file system, or a server in user space, that restarts or is not reachable
    *("ESTALE", "ENOTCONN", "ETIMEDOUT", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ESHUTDOWN"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "EKEYEXPIRED"),
    # a disk, near or far
    *("EIO", "EREMOTEIO", "ENODEV", "ENXIO", "EAGAIN", "EINTR", "EBUSY"),
    # this machine, at present
    *("ENOMEM", "ENOBUFS", "EMFILE", "ENFILE"),
)
PASSING: Final = frozenset(getattr(errno, name) for name in _NAMES)
"""Numbers of errors that are tried again."""
_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_SAY_AFTER_S: Final = 1.0


def does_pass(error: OSError) -> bool:
    """Return whether an error comes from the file system or the machine, and not from a file."""
    return error.errno in PASSING


class Retries:
    """Retries reads of one source; used by several threads at once."""

    def __init__(self) -> None:
        """Use the patience of stores, AUGD_STORE_PATIENCE."""
        self._patience_s: float | None = None
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._has_said = False
        self._on_wait: Callable[[], None] = lambda: None
        self._attended_by = 0

    @property
    def is_waiting(self) -> bool:
        """Whether a read is being retried now, rather than waiting for the file system."""
        return self._num_waiting > 0

    def attend(self, on_wait: Callable[[], None]) -> None:
        """Call this about every second while this thread's own reads are retried."""
        self._on_wait, self._attended_by = on_wait, threading.get_ident()

    def again(
        self,
        error: OSError,
        path: str,
        read: Callable[[], Got],
        reopen: Callable[[], None] | None = None,
        patience_s: float | None = None,
    ) -> Got:
        """Retry a failed read, with pauses.

        Args:
            error: the failure, one that `does_pass`.
            path: of the file, for messages.
            read: raises OSError only for errors that pass.
            reopen: opens again what was open, and may fail; called before each try.
            patience_s: how long; None is that of stores.

        Raises:
            StoreError: it failed for too long.
        """
        patience_s = self._patience() if patience_s is None else patience_s
        clock = Awake()
        began, pause_s = clock.now(), _PAUSE_S
        with self._lock:
            self._num_waiting += 1
        try:
            while (passed_s := clock.now() - began) < patience_s:
                if passed_s > _SAY_AFTER_S:
                    self._say(f"{path}: {error.strerror}; tried again for {patience_s:g} s")
                self._wait(clock, min(pause_s, patience_s - passed_s))
                pause_s = min(2 * pause_s, _PAUSE_MAX_S)
                if reopen is not None:
                    with suppress(OSError, BadImage):
                        reopen()
                try:
                    return read()
                except OSError as failed:
                    error = failed
        finally:
            with self._lock:
                self._num_waiting -= 1
                self._has_said = self._has_said and self._num_waiting > 0
        raise StoreError(
            f"{path} cannot be read: {error.strerror}, tried again for {patience_s:g} s. See to "
            "the file system (is it mounted? is its server up?) and connect again; where one file "
            "alone fails so, its disk is damaged: remove it. AUGD_STORE_PATIENCE sets the time."
        )

    def _patience(self) -> float:
        if self._patience_s is None:
            from augd.dataset.stores.object_store import (
                patience_s,  # few sources need it
            )

            self._patience_s = patience_s()
        return self._patience_s

    def _wait(self, clock: Awake, pause_s: float) -> None:
        clock.sleep(pause_s)
        if threading.get_ident() == self._attended_by:
            self._on_wait()

    def _say(self, text: str) -> None:
        """Report once to the operator, for all the reads that fail together."""
        with self._lock:
            has_said, self._has_said = self._has_said, True
        if has_said:
            return
        with suppress(OSError, ValueError):
            print(f"augd: producer (pid {os.getpid()}): {text}", file=sys.stderr, flush=True)
