"""Relays as a person would start them: `augd produce` as a process, and what is seen of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import augd
from augd.client.status import status
from tests.support.processes import await_true, children_of

READY_S = 30.0

OnBatch = Callable[[augd.Batch], None]


def at(epoch: int, number: int, act: Callable[[], Any]) -> OnBatch:
    """Do something once, at one batch."""

    def on_batch(batch: augd.Batch) -> None:
        if (batch.epoch, batch.number) == (epoch, number):
            act()

    return on_batch


class RelayProcess:
    """A running `augd produce`."""

    def __init__(
        self, folder: Path | str, connect: str, *more: str, before: tuple[str, ...] = ()
    ) -> None:
        command = [*before, sys.executable, "-m", "augd", "produce", f"small={folder}"]
        self.process = subprocess.Popen(
            [*command, "--connect", connect, *more], stderr=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def producers(self) -> list[int]:
        """Pids of its producers."""
        return children_of(self.pid)

    def finish(self, timeout_s: float = 30.0) -> tuple[int, str]:
        """Wait for its end; returns its status and what it wrote."""
        try:
            _, errors = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, errors = self.process.communicate()
            raise AssertionError(f"it did not end within {timeout_s:g} s: {errors}") from None
        return self.process.returncode, errors

    def end(self) -> str:
        """SIGTERM; returns what it wrote."""
        self.process.terminate()
        code, errors = self.finish()
        assert code == 0, errors
        return errors

    def close(self) -> None:
        """Kill it if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()


@contextmanager
def running_relay(folder: Path | str, connect: str, *more: str) -> Iterator[RelayProcess]:
    """Lend producers while the block runs."""
    relay = RelayProcess(folder, connect, *more)
    try:
        yield relay
    finally:
        relay.close()


def remotes(address: str, keys: Path | None = None) -> list[Mapping[str, Any]]:
    """What the daemon says of its remote producers."""
    return [one for one in status(address, 10, keys)["producers"] if one["host"]]


def await_remotes(address: str, count: int, keys: Path | None = None) -> None:
    """Wait until so many remote producers are ready."""

    def are_there() -> bool:
        return [one["state"] for one in remotes(address, keys)] == ["ready"] * count

    await_true(are_there, READY_S, f"{count} remote producers")
