"""What the checker's trainers read from: daemons as a person starts them, with all that belongs.

A `Deployment` is a daemon with its supervisor, at addresses that it keeps, and a relay if it has
one. It knows who runs there at the moment, so that somebody else can kill them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from augd.client.status import status as ask_status
from augd.errors import AugdError
from tests.support.processes import (
    await_true,
    children_of,
    command_of,
    daemon_of,
    is_alive,
    staff_of,
)

START_S = 40.0
END_S = 30.0  # a drain, and what the supervisor gives it beyond that
ASK_S = 5.0
_PROGRAMS = {
    "fetcher": b"augd.server.fetcher",
    "page": b"augd.server.dashboard",
    "janitor": b"augd-janitor",
}


class Deployment:
    """A daemon that is started again wherever it was. `close` it."""

    def __init__(self, name: str, log: Path, words: list[str], relay: list[str] | None) -> None:
        """Take the words behind `augd serve` and, if one is lent, behind `augd produce`."""
        self.name = name
        self.log = log
        self._words = words
        self._relay_words = relay
        self._file = log.open("ab")
        self._relay: subprocess.Popen[bytes] | None = None
        self._daemon = self._start()
        self._start_relay()
        self.num_killed = 0  # daemons, by whoever kills

    @property
    def address(self) -> str:
        """The first that it listens at."""
        return self._words[self._words.index("--listen") + 1]

    def _start(self) -> subprocess.Popen[str]:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "augd", "serve", *self._words],
            stdout=subprocess.PIPE,
            stderr=self._file,
            text=True,
        )
        assert daemon.stdout is not None
        if "serving" not in daemon.stdout.readline():
            daemon.kill()
            daemon.communicate()
            log = self.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{self.name} did not start: {log}")
        return daemon

    def _start_relay(self) -> None:
        if self._relay_words is not None:
            self._relay = subprocess.Popen(
                [sys.executable, "-m", "augd", "produce", *self._relay_words],
                stdout=subprocess.DEVNULL,
                stderr=self._file,
            )

    # who runs there

    def victims(self, kind: str) -> list[int]:
        """Pids of the processes of a kind, as far as there are any now."""
        if kind == "daemon":
            pid = daemon_of(self._daemon.pid)
            return [pid] if pid != self._daemon.pid else []
        if kind == "supervisor":
            return [self._daemon.pid]
        if kind == "relay":
            return [self._relay.pid] if self._relay is not None else []
        if kind == "producer":
            return self._producers(is_remote=False)
        if kind == "lent producer":
            return self._producers(is_remote=True) if self._relay is not None else []
        return [pid for pid in staff_of(self._daemon.pid) if _PROGRAMS[kind] in command_of(pid)]

    def _producers(self, *, is_remote: bool) -> list[int]:
        """Those that made something: four deaths in a row before that are another matter."""
        try:
            producers = ask_status(self.address, ASK_S)["producers"]
        except AugdError:
            return []
        return [
            one["pid"]
            for one in producers
            if one["state"] == "ready" and one["chunks"] and bool(one["host"]) == is_remote
        ]

    # what ends, and begins again

    def end_daemon(self, number: int) -> None:
        """Kill the daemon; its supervisor starts the next one."""
        (pid,) = self.victims("daemon")
        self.num_killed += 1
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, number)
        await_true(lambda: not is_alive(pid), 10.0, f"the daemon of {self.name} ends")

    def end_supervisor(self, number: int) -> None:
        """End everything but the relay, and start it anew."""
        for pid in self.victims("daemon"):
            os.kill(pid, signal.SIGCONT)
        relatives = [*self.victims("daemon"), *staff_of(self._daemon.pid)]
        self._daemon.send_signal(number)
        code = self._daemon.wait(END_S)
        try:
            if code != (-number if number == signal.SIGKILL else 0):
                raise AssertionError(f"{self.name} ended with status {code}")
            what = f"nobody of {self.name} is left behind its supervisor"
            await_true(lambda: not any(map(is_alive, relatives)), 2.0, what)
        finally:
            self._start_again()

    def _start_again(self) -> None:
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()
        self._daemon = self._start()

    def end_relay(self, number: int) -> None:
        """End the relay, and start another."""
        assert self._relay is not None
        # Without producers it begins or is through: a program that does not heed signals (yet, or
        # any more) dies of them, as every other does.
        is_working = bool(children_of(self._relay.pid))
        self._relay.send_signal(signal.SIGCONT)
        self._relay.send_signal(number)
        code = self._relay.wait(END_S)
        self._start_relay()
        if code not in ((0,) if is_working and number != signal.SIGKILL else (0, -number)):
            raise AssertionError(f"the relay of {self.name} ended with status {code}")

    def faults(self) -> list[str]:
        """Say what ended by itself."""
        found = []
        if self._daemon.poll() is not None:
            found.append(f"the supervisor of {self.name} ended with {self._daemon.returncode}")
            self._start_again()
        # A relay ends with a daemon that was told to end: another is started, as by any scheduler.
        if self._relay is not None and self._relay.poll() is not None:
            if self._relay.returncode != 0:
                found.append(f"the relay of {self.name} ended with {self._relay.returncode}")
            self._start_relay()
        num_deaths = self.log.read_text(errors="replace").count("ended unasked by")
        if num_deaths > self.num_killed:
            found.append(f"{self.name}: {num_deaths} daemons died, {self.num_killed} were killed")
            self.num_killed = num_deaths
        return found

    def await_calm(self, timeout_s: float = 30.0) -> None:
        """Wait until no stream is open, and every producer is ready."""

        def is_calm() -> bool:
            try:
                said = ask_status(self.address, ASK_S)
            except AugdError:
                return False
            return not said["streams"] and all(p["state"] == "ready" for p in said["producers"])

        await_true(is_calm, timeout_s, f"{self.name} is calm")

    def close(self) -> list[str]:
        """End it as one ends it; says what did not."""
        found = []
        if self._relay is not None and self._relay.poll() is None:
            found += self._end(self._relay, "relay")
        found += self._end(self._daemon, "daemon")
        assert self._daemon.stdout is not None
        self._daemon.stdout.close()
        self._file.close()
        return found

    def _end(
        self, process: subprocess.Popen[bytes] | subprocess.Popen[str], what: str
    ) -> list[str]:
        everybody = [process.pid, *children_of(process.pid), *staff_of(process.pid)]
        for pid in everybody:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)
        # As in `end_relay`: a relay without producers dies of the signal.
        fine = (0,) if what != "relay" or children_of(process.pid) else (0, -signal.SIGTERM)
        process.terminate()
        try:
            code = process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return [f"the {what} of {self.name} did not end within {END_S:g} s"]
        return [] if code in fine else [f"the {what} of {self.name} ended with status {code}"]
