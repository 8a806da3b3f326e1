"""The supervisor: the process of `augd serve`. It starts the daemon, and restarts it after a crash.

It stands apart from the path of a batch. A library's assertion, a lack of memory or a bug may end
the daemon's process. Then the supervisor starts a new one within a second, at the same addresses.
Clients and remote producers reconnect by themselves. Only these addresses are handed over: the
daemon's state can be recomputed.

Which exit is a crash. Status 0 is none: the daemon was asked to end. Before a daemon has ever
served, an exit status means that it cannot start, and the supervisor exits with it. Only a signal
is a crash. Later every other exit is one. After a crash of a daemon that served, the next one
starts at once, up to `AT_ONCE_MAX` times a minute. If it crashed before it served, the pauses grow.

The daemon dies with this process (PDEATHSIG), and its producers die with the daemon. SIGTERM and
SIGINT are forwarded, and the daemon drains. It has a session of its own, so that Ctrl-C reaches it
once. This module imports nothing slow, since it delays the first batch: what a crash needs is
imported then.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.command import say

AT_ONCE_MAX = 20
WITHIN_S = 60.0
STARTS_MAX = 5  # of a daemon that never served; the next one would crash the same way
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 30.0
# Longer than a daemon's drain when no producer answers (DRAIN_S and REAP_S of the broker).
END_S = 15.0
REAP_S = 5.0  # from SIGKILL to the exit; after this time the kernel keeps the process
_END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Python ignores these; programs expect the default.
_TO_DEFAULT = (signal.SIGPIPE, signal.SIGXFSZ)


def supervise(words: list[str]) -> int:
    """Run `augd serve` with these arguments until it ends; returns the exit status."""
    return _Supervisor(words).run()


class _Supervisor:
    """One daemon at a time. `run` returns the exit status."""

    def __init__(self, words: list[str]) -> None:
        self._words, ready_fd = _take_option(words, "--ready-fd")
        self._ready_fd = _as_fd(ready_fd)
        self._lifeline_fd = _as_fd(_option(words, "--lifeline-fd"))
        self._clock = Awake()
        self._pid = 0
        self._started_at = 0.0
        self._is_asked = False
        self._kill_at: float | None = None
        self._is_killed = False
        self._has_served = False  # the current daemon
        self._served = b""  # the line of the first daemon that served: its addresses
        self._deaths: list[float] = []
        self._num_failed = 0  # crashes before serving, in a row
        self._num_deaths = 0
        self._last_death = ""

    def run(self) -> int:
        wakeup, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(far, warn_on_full_buffer=False)
        for number in _END_SIGNALS:
            signal.signal(number, lambda *_: None)
        while True:
            told = self._start()
            status = self._watch(wakeup, told)
            os.close(told)
            if status == 0 or self._is_asked:
                # At the very start the daemon dies of the signal, before it has served.
                return 0 if -status in _END_SIGNALS else _as_exit(status)
            pause_s = self._pause_s(status)
            if pause_s is None:
                return _as_exit(status)
            self._report_crash(status, pause_s)
            if self._wait(wakeup, pause_s):
                return 0

    def _start(self) -> int:
        """Start a daemon; returns the fd of its one line: where it serves, or why it cannot.

        It uses posix_spawn: importing `subprocess` takes a tenth of the time to the first batch.
        """
        told, far = os.pipe2(os.O_CLOEXEC)
        os.set_inheritable(far, True)
        own = ["--ready-fd", str(far), "--supervisor", str(os.getpid())]
        if self._num_deaths:
            own += ["--again", self._describe_last()]
        # Before the user's arguments, since a `--` may be among them: only paths follow it.
        words = [*self._words[:1], *own, *self._words[1:]]
        command = interpreter.command("augd", *words)
        try:
            self._pid = os.posix_spawn(
                command[0],
                command,
                interpreter.environment(),
                setsid=True,
                setsigdef=_TO_DEFAULT,
            )
        finally:
            os.close(far)
        self._started_at = time.monotonic()
        self._has_served = False
        return told

    def _describe_last(self) -> str:
        """Return, as JSON, what the next daemon takes over."""
        import json

        served = json.loads(self._served) if self._served else {}
        again = {"deaths": self._num_deaths, "last_death": self._last_death}
        return json.dumps({"addresses": [], "http": None, **served, **again})

    def _watch(self, wakeup: int, told: int) -> int:
        """Wait for the daemon's exit; returns its status as `subprocess` gives it."""
        pidfd = os.pidfd_open(self._pid)
        poller = select.poll()
        for fd in (wakeup, told, pidfd):
            poller.register(fd, select.POLLIN)
        line = b""
        try:
            while True:
                found = self._clock.wait(lambda left_s: _poll(poller, left_s), self._timeout_s())
                ready = {fd for fd, _ in found}
                if wakeup in ready:
                    self._forward_signal(wakeup)
                if told in ready:
                    piece = os.read(told, 65536)
                    line += piece
                    if not piece or line.endswith(b"\n"):
                        poller.unregister(told)
                        self._take_line(line)
                if pidfd in ready:
                    return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
                if self._is_unkillable():
                    return -signal.SIGKILL
        finally:
            os.close(pidfd)

    def _timeout_s(self) -> float | None:
        if self._kill_at is None:
            return None
        return max(0.0, self._kill_at - self._clock.now())

    def _forward_signal(self, wakeup: int) -> None:
        """Have the daemon drain, since this process was asked to end."""
        for number in os.read(wakeup, 64):
            if number not in _END_SIGNALS:
                continue
            self._is_asked = True
            self._kill_at = self._kill_at or self._clock.now() + END_S
            if not self._has_served:
                # SIGINT raises KeyboardInterrupt, which a callback during an import may swallow.
                number = signal.SIGTERM
            os.kill(self._pid, number)  # it is not reaped before `_watch` returns

    def _is_unkillable(self) -> bool:
        """Kill the daemon after its deadline; returns True if it did not exit even then."""
        if self._kill_at is None or self._clock.now() < self._kill_at:
            return False
        if self._is_killed:
            text = f"the daemon (pid {self._pid}) was killed and did not exit: the kernel keeps it"
            self._log("error", text)
            return True
        self._is_killed, self._kill_at = True, self._kill_at + REAP_S
        self._log("error", f"the daemon did not end within {END_S:g} s: killed")
        os.kill(self._pid, signal.SIGKILL)
        return False

    def _take_line(self, line: bytes) -> None:
        """Take the line of a daemon that serves, or cannot; forward the first one."""
        if not line.endswith(b"\n"):
            return  # it exited without one, or printed the reason itself
        is_first, self._has_served = not self._served, b'"addresses"' in line
        if self._has_served:
            self._num_failed = 0
            self._served = self._served or line
        if is_first and self._ready_fd >= 0:
            _tell(self._ready_fd, line)
            self._ready_fd = -1
        elif not self._has_served:
            import json

            # As the command line prints it; a parent with --ready-fd raises it instead.
            say(f"augd: error: {json.loads(line)['error']}", file=sys.stderr)

    def _pause_s(self, status: int) -> float | None:
        """Return how long to wait before the next start; None if there is none."""
        now = time.monotonic()
        if not self._has_served:
            self._num_failed += 1
            if not self._served and (status > 0 or self._num_failed >= STARTS_MAX):
                return None
            return float(min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(self._num_failed - 1, 10)))
        self._deaths = [at for at in self._deaths if now - at < WITHIN_S] + [now]
        return 0.0 if len(self._deaths) <= AT_ONCE_MAX else self._deaths[0] + WITHIN_S - now

    def _report_crash(self, status: int, pause_s: float) -> None:
        from augd.process.exit_status import describe_status

        self._num_deaths += 1
        self._last_death = describe_status(status)
        lived_s = time.monotonic() - self._started_at
        when = "" if self._has_served else ", before it served"
        again = f"in {pause_s:.2g} s" if pause_s else "at once"
        self._log(
            "warning",
            f"the daemon (pid {self._pid}) ended unasked by {self._last_death}, {lived_s:.1f} s "
            f"after its start{when}; it is started again {again} (death {self._num_deaths})",
        )

    def _wait(self, wakeup: int, pause_s: float) -> bool:
        """Wait before the next start; returns True if this process is asked to end."""
        ends_at = time.monotonic() + pause_s
        poller = select.poll()
        for fd in (wakeup, self._lifeline_fd):
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        while True:
            left_s = max(0.0, ends_at - time.monotonic())
            ready = {fd for fd, _ in poller.poll(left_s * 1000)}
            is_asked = wakeup in ready and any(one in _END_SIGNALS for one in os.read(wakeup, 64))
            if is_asked or self._lifeline_fd in ready:
                return True
            if not left_s:
                return False

    def _log(self, level: str, text: str) -> None:
        """Write a line to the log in the daemon's format."""
        import logging

        from augd.server.supervision.log_setup import set_up_log

        log = logging.getLogger("augd")
        if not log.handlers:
            set_up_log(is_quiet=True, log_format=_option(self._words, "--log-format") or "text")
        log.log(getattr(logging, level.upper()), "%s", text)


def _poll(poller: select.poll, timeout_s: float | None) -> list[tuple[int, int]]:
    return poller.poll(None if timeout_s is None else timeout_s * 1000)


def _tell(fd: int, line: bytes) -> None:
    """Write a line to this process's parent, which may have exited, and close the pipe."""
    try:
        os.write(fd, line)
    except OSError:
        pass
    finally:
        os.close(fd)


def _as_fd(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else -1


def _as_exit(status: int) -> int:
    """Turn a status of `subprocess` into an exit status: 128 plus the number of a signal."""
    return status if status >= 0 else 128 - status


def _option(words: list[str], name: str) -> str | None:
    """Return the value of an option, `--name VALUE` or `--name=VALUE`; None if it is missing."""
    return _take_option(words, name)[1]


def _take_option(words: list[str], name: str) -> tuple[list[str], str | None]:
    """Return the words without an option, and its value."""
    for at, word in enumerate(words):
        if word == name:
            return [*words[:at], *words[at + 2 :]], next(iter(words[at + 1 : at + 2]), None)
        if word.startswith(f"{name}="):
            return [*words[:at], *words[at + 1 :]], word[len(name) + 1 :]
    return words, None
