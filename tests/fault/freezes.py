"""A machine that stands still: a daemon, with what it started, is stopped and goes on.

`python -m tests.fault.freezes COUNT` is the long form, which `make soak` runs: freezes of 12 s,
longer than ZeroMQ's heartbeats, beside a relay on TCP. None may cost a daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import augd
from augd.client.status import status
from tests.support.processes import daemon_of
from tests.support.programs import finish, follow, start_by_hand
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import SMALL, make_folder

FREEZE_S = 12.0
SETTLE_S = 0.5
# Many slots, so that the producer has as many leases as there may be.
OPTIONS: dict[str, Any] = {"recipe": SMALL, "batch_size": 32, "prefetch": 24, "timeout_s": 60}
TOGETHER = 8


class Frozen:
    """A daemon at a port, with a relay's producer and a client that reads, to be stopped."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        self._is_done = threading.Event()
        with contextlib.ExitStack() as started:  # what was started ends if the rest cannot be
            self.process = start_by_hand(f"small={folder}", self.address, "--producers", "0")
            started.callback(self._end)
            self.pid = daemon_of(self.process.pid)
            started.enter_context(running_relay(folder, self.address, "--producers", "1"))
            await_remotes(self.address, 1)
            with augd.connect(self.address, **OPTIONS) as stream:
                self._expected = follow(stream, 1)
            self._stack = started.pop_all()
        self.failed: Exception | None = None
        self.epochs = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            with augd.connect(self.address, **OPTIONS) as stream:
                while not self._is_done.is_set():
                    assert follow(stream, 1) == self._expected
                    self.epochs += 1
        except Exception as error:
            self.failed = error

    def freeze(self, seconds: float) -> None:
        """Stop the daemon while rows are on their way to it, and see that lenders come back."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.pid, signal.SIGCONT)
        time.sleep(SETTLE_S)
        await_remotes(self.address, 1)

    def deaths(self) -> int:
        """How many daemons died so far."""
        return int(status(self.address, 20)["daemon_deaths"])

    def close(self) -> None:
        self._is_done.set()
        self._reader.join(90)
        self._stack.close()

    def _end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        finish(self.process)


@contextlib.contextmanager
def frozen(folder: Path, port: int) -> Iterator[Frozen]:
    made = Frozen(folder, port)
    try:
        yield made
    finally:
        made.close()
    if made.failed is not None:
        raise made.failed


def main(count: int) -> int:
    """Freeze so many daemons, some at a time; returns how many died."""
    from tests.support.programs import free_port

    deaths = 0
    with tempfile.TemporaryDirectory(prefix="augd-freezes-") as place:
        folder = make_folder(Path(place, "set"), num_classes=2, per_class=200)
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(frozen(folder, free_port())) for _ in range(TOGETHER)]
            for number in range(0, count, TOGETHER):
                threads = [threading.Thread(target=one.freeze, args=(FREEZE_S,)) for one in many]
                for thread in threads:
                    thread.start()
                    time.sleep(0.05)
                for thread in threads:
                    thread.join()
                deaths = sum(one.deaths() for one in many)
                print(f"freezes {number + TOGETHER}, deaths {deaths}", flush=True)
            epochs = sum(one.epochs for one in many)
    print(f"frozen {count} times for {FREEZE_S:g} s: {deaths} died, {epochs} epochs were equal")
    return deaths


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)))
