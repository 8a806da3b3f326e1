"""Errors of a file system that pass: a server that restarts, a link that is down, too few buffers.

Under the sources of samples. They say nothing about the file that was asked for, so what failed by
one is tried again with growing pauses, within the patience that stores have, and never becomes a
bad sample; then the stream ends with an error that names the file.

Invariants: whoever waits for rows goes on telling that he lives while it is tried again, and only
then: a read that the file system does not answer is ended from outside.
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
    # a file system over the network, or a server in user space, that is restarted or not reached
    *("ESTALE", "ENOTCONN", "ETIMEDOUT", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "ESHUTDOWN"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETRESET", "ENETUNREACH", "EKEYEXPIRED"),
    # a disk, near or far
    *("EIO", "EREMOTEIO", "ENODEV", "ENXIO", "EAGAIN", "EINTR", "EBUSY"),
    # this machine, at the moment
    *("ENOMEM", "ENOBUFS", "EMFILE", "ENFILE"),
)
PASSING: Final = frozenset(getattr(errno, name) for name in _NAMES)
"""Numbers of errors that are tried again."""
_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0
_SAY_AFTER_S: Final = 1.0


def does_pass(error: OSError) -> bool:
    """Say whether an error is of the file system or the machine, and no file's own."""
    return error.errno in PASSING


class Retries:
    """Tries reads of one source again; by several threads at once."""

    def __init__(self) -> None:
        """Have the patience of stores, AUGD_STORE_PATIENCE."""
        self._patience_s: float | None = None
        self._lock = threading.Lock()
        self._num_waiting = 0
        self._has_said = False
        self._on_wait: Callable[[], None] = lambda: None
        self._attended_by = 0

    @property
    def is_waiting(self) -> bool:
        """Whether some read is tried again just now, rather than waiting for the file system."""
        return self._num_waiting > 0

    def attend(self, on_wait: Callable[[], None]) -> None:
        """Call this about every second while this thread's own reads are tried again."""
        self._on_wait, self._attended_by = on_wait, threading.get_ident()

    def again(
        self,
        error: OSError,
        path: str,
        read: Callable[[], Got],
        reopen: Callable[[], None] | None = None,
        patience_s: float | None = None,
    ) -> Got:
        """Read again what failed, with pauses.

        Args:
            error: how it failed, one that `does_pass`.
            path: of the file, for messages.
            read: raises OSError only for errors that pass.
            reopen: opens anew what was open, and may fail; called before each try.
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
                patience_s,  # with what few sources ever need
            )

            self._patience_s = patience_s()
        return self._patience_s

    def _wait(self, clock: Awake, pause_s: float) -> None:
        clock.sleep(pause_s)
        if threading.get_ident() == self._attended_by:
            self._on_wait()

    def _say(self, text: str) -> None:
        """Tell the operator, once for all the reads that fail together."""
        with self._lock:
            has_said, self._has_said = self._has_said, True
        if has_said:
            return
        with suppress(OSError, ValueError):
            print(f"augd: producer (pid {os.getpid()}): {text}", file=sys.stderr, flush=True)
