"""Starts producer processes, and holds them until they are reaped.

The daemon and the relay use it. A producer is a fresh interpreter (`subprocess`, never fork), so it
shares no lock, thread or library state with its parent. The daemon starts producers before its own
slow imports, so this module imports nothing that is slow.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from signal import SIGKILL

from augd.process import interpreter
from augd.process.child_environment import ENVIRONMENT, without_secrets
from augd.process.exit_status import describe_status, is_stopped
from augd.process.oom_kills import OomKillCounter
from augd.protocol.exit_reason import ExitReason
from augd.server.supervision.classify_exit import classify
from augd.transport.current_sample import CurrentSample, make_current_sample
from augd.transport.fetch_buffer import FetchChannelEnd, make_fetch_channel
from augd.transport.unix_link import make_link

KERNELS = "AUGD_KERNELS"
_ENDS_MIN = 2  # a single exit may have any cause


@dataclass(slots=True)
class Kernels:
    """Decides, by how earlier producers ended, whether the next ones load native kernels.

    Damaged kernels may crash each process that loads them. If producers crash before one was
    ready, the next are started without kernels. If these crash as well, the cause is another, and
    all later ones load kernels. Once a producer with kernels was ready, all load them: pixels don't
    change while a daemon serves.
    """

    _num_ended: int = 0
    _ended_by: str = ""  # how producers crashed; not empty: kernels are left out
    _is_settled: bool = False

    def switch(self) -> dict[str, str]:
        """Return the variables for the next producer's environment."""
        how = f"off:they end producers while they load ({self._ended_by}). Install augd anew"
        return {KERNELS: how} if self._ended_by else {}

    def took_up(self, *, has_kernels: bool) -> None:
        """Note that a producer is ready."""
        if has_kernels:
            self._is_settled, self._ended_by = True, ""

    def ended(self, how: str, kind: ExitReason, *, has_kernels: bool) -> bool:
        """Note the exit of a producer that was never ready.

        Returns:
            Whether the next producer is started without kernels because of it.
        """
        if kind is not ExitReason.SIGNAL or self._is_settled or os.environ.get(KERNELS):
            return False
        if not has_kernels:
            self._is_settled, self._ended_by = True, ""
            return False
        self._num_ended += 1
        if self._num_ended >= _ENDS_MIN:
            self._ended_by = how
        return bool(self._ended_by)


@dataclass(slots=True)
class ProducerProcess:
    """A producer process as the daemon holds it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    pidfd: int
    _current_sample: CurrentSample
    fetch_channel: FetchChannelEnd | None = None  # until the fetcher has it
    kernels: Kernels = field(default_factory=Kernels)
    has_kernels: bool = True  # where there are any
    is_ready: bool = False
    _is_killed: bool = False
    _was_stopped: bool = False

    def kill(self) -> None:
        """Send SIGKILL, and note that we did and whether the process was stopped."""
        if not self._is_killed:
            self._is_killed, self._was_stopped = True, is_stopped(self.process.pid)
        self.process.kill()

    def how_ended(self) -> str:
        """Return how a reaped producer ended, in words: the signal or the status."""
        return describe_status(self.process.returncode)

    def ending(self, oom_kills: OomKillCounter) -> ExitReason:
        """Return the class of a reaped producer's exit. Call it once: it may claim an OOM kill."""
        status = self.process.returncode
        return classify(
            status,
            is_ours=self._is_killed,
            was_stopped=self._was_stopped,
            is_for_memory=status == -SIGKILL and oom_kills.claim(),
        )

    def note_ready(self) -> None:
        self.is_ready = True
        self.kernels.took_up(has_kernels=self.has_kernels)

    def is_tried_otherwise(self, kind: ExitReason) -> bool:
        """Return whether the next one is started without kernels because this one crashed."""
        return not self.is_ready and self.kernels.ended(
            self.how_ended(), kind, has_kernels=self.has_kernels
        )

    def current_sample(self) -> tuple[int, int, int] | None:
        """Return the (lease, row of it, sample) in work, as the producer noted it; None if none.

        It is exact after the process was reaped; before, it may change while it is read.
        """
        return self._current_sample.read()

    def close(self) -> None:
        """Close the fds and the shared memory of a producer that was reaped."""
        self.link.close()
        self._current_sample.close()
        os.close(self.pidfd)
        if self.fetch_channel is not None:
            self.fetch_channel.close()
            self.fetch_channel = None

    def take_fetch_channel(self) -> FetchChannelEnd | None:
        """Return the fetcher's end of its fetch channel, once; it is the caller's then."""
        end, self.fetch_channel = self.fetch_channel, None
        return end


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """What all producers of a daemon are started with.

    Attributes:
        plugins: modules with own ops.
        cores: the cores to pin producers to, in turns; empty: the kernel chooses.
        sources: the own sources, as JSON {NAME: "plugin:MODULE:CLASS"}.
        has_stores: a dataset lies in an object store.
        kernels: decides whether they load native kernels.
    """

    plugins: Sequence[str] = ()
    cores: Sequence[int] = ()
    sources: Sequence[str] = ()
    has_stores: bool = False
    kernels: Kernels = field(default_factory=Kernels)


def spawn_producer(producer_options: ProducerOptions, place: int) -> ProducerProcess:
    """Start the producer of one place, counted from 0; a replacement gets the same place.

    It dies with the calling thread, which must be the main one.

    Raises:
        OSError: there is no fd or no process left.
    """
    near, far = make_link()
    current_sample, page = make_current_sample()
    end, asking = make_fetch_channel() if producer_options.has_stores else (None, None)
    fds: tuple[int, ...] = (far.fileno(), page)
    fetch_channel, switch = "-", producer_options.kernels.switch()
    if end is not None and asking is not None:
        fetch_channel = f"{asking.fileno()},{end.fetch_buffer_fd}"
        fds = (*fds, asking.fileno(), end.fetch_buffer_fd)
    try:
        process = interpreter.start(
            "augd.server.producer",
            *(str(far.fileno()), str(page), str(os.getpid()), fetch_channel),
            *producer_options.plugins,
            *producer_options.sources,
            pass_fds=fds,
            # An own source may open a store by itself before it is confined, with credentials.
            env={
                **(os.environ if producer_options.sources else without_secrets()),
                **ENVIRONMENT,
                **switch,
            },
            # Ctrl-C in a terminal is for the daemon alone, which drains its producers.
            start_new_session=True,
        )
    except BaseException:
        near.close()
        if end is not None:
            end.close()
        raise
    finally:
        far.close()
        os.close(page)
        if asking is not None:
            asking.close()
    if producer_options.cores:
        # Its threads inherit this, so it is set before they start.
        os.sched_setaffinity(
            process.pid, {producer_options.cores[place % len(producer_options.cores)]}
        )
    pidfd = os.pidfd_open(process.pid)
    return ProducerProcess(
        process, near, pidfd, current_sample, end, producer_options.kernels, has_kernels=not switch
    )
