"""Where attacks take place: a daemon, honest clients that stream from it, and what is looked at.

Honest clients read the same two epochs over and over, by memfd and by frames, and compare every
byte with an undisturbed run. A watcher looks at the daemon's own memory all the while.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import augd
from augd.client.status import status
from augd.diagnostics.procfs import anonymous_bytes
from augd.protocol import messages as msg
from augd.transport.address import Address, TcpAddress, parse_address
from tests.attacks.peers import Peer
from tests.support.processes import await_true, is_alive
from tests.support.scenes import SMALL

BATCH_SIZE = 16
EPOCHS = 2
# Nobody else's batch comes later than this, whatever is sent: far beyond what a busy machine
# needs, far below the 30 s after which clients and daemon give one another up.
PATIENCE_S = 8.0
_PAUSE_S = 0.02
_LOOK_S = 0.05
_CHOICES_KEPT = 4


def make_spec(batch_size: int = 4, **changes: Any) -> msg.Spec:
    """A modest spec, to be made immodest."""
    layout = {name: changes.pop(name) for name in ("rank", "world", "drop_last") if name in changes}
    recipe = changes.pop("recipe", SMALL)
    return msg.Spec(None, recipe, msg.Layout(batch_size, **layout), **changes)


@dataclass
class Target:
    """What an attack is given."""

    daemon: augd.ServedDaemon
    path: Address
    port: TcpAddress
    folder: Path
    digests: list[str] = field(default_factory=list)

    @classmethod
    def around(cls, daemon: augd.ServedDaemon, folder: Path) -> Target:
        path, port = (parse_address(address) for address in daemon.addresses)
        assert isinstance(path, Address) and isinstance(port, TcpAddress)
        target = cls(daemon, path, port, folder)
        target.warm_up()
        with target.streaming("memfd") as stream:
            target.digests = [digest(stream.epoch(epoch)) for epoch in range(EPOCHS)]
        return target

    def warm_up(self) -> None:
        """Let the daemon make what it makes once: pyzmq's own sockets for sends without a copy."""
        with augd.connect(
            self.daemon.address, recipe=SMALL, batch_size=64, transport="frames"
        ) as stream:
            next(stream.epoch(0)).release()

    def streaming(self, transport: str) -> augd.Stream:
        """Connect as an honest client does."""
        address = self.daemon.addresses[transport == "frames"]
        return augd.connect(
            address, recipe=SMALL, batch_size=BATCH_SIZE, transport=transport, timeout_s=PATIENCE_S
        )

    def peer(self, kind: str = "path", routing_id: bytes = b"") -> Peer:
        """Connect as an attacker does."""
        return Peer(self.path if kind == "path" else self.port, routing_id)

    def status(self) -> dict[str, Any]:
        """Ask as a person does, who waits a second; longer while a daemon is started again."""
        pid = self.daemon.pid
        try:
            return status(self.daemon.address, 1.0)
        except augd.ConnectError:
            if is_alive(pid) and self.daemon.pid == pid:
                raise
            return status(self.daemon.address, 10.0)

    def has_met_the_assertion(self, pid: int) -> bool:
        """Say whether a daemon met libzmq's assertion, which any flood may bring about.

        A peer that hangs up while its messages wait at the receive high-water mark ends the
        process (libzmq#4364). How many wait there hangs on the load of the machine.
        """
        return self.daemon.pid != pid and self.status()["last_daemon_death"] == "SIGABRT"

    def await_next_daemon(self, pid: int) -> None:
        """Wait until another daemon than this one serves."""
        await_true(lambda: self.daemon.pid != pid, 10.0, "the next daemon is started")
        await_true(self.path.path.exists, 10.0, "it listens")
        assert status(self.daemon.address, 10.0)["last_daemon_death"] == "SIGABRT"

    @property
    def attach_path(self) -> str:
        return str(self.path.attach_path)

    @property
    def bulk_port(self) -> int:
        """The port of the bulk socket, as every WELCOME names it."""
        with self.peer("port") as peer:
            welcome = peer.hello()
            peer.say(msg.Bye(welcome.session))
            peer.heard()
        return welcome.bulk_port

    def sessions_are_back_to(self, count: int) -> None:
        await_true(
            lambda: len(self.status()["streams"]) == count, 10.0, f"{count} streams are left"
        )

    def open_files(self) -> list[str]:
        """Name what the daemon's fds are of."""
        links: list[str] = []
        for fd in Path(f"/proc/{self.daemon.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                links.append(str(fd.readlink()))
        return links

    def fds(self) -> int:
        """Count the daemon's fds, but for the few choices of samples that it keeps."""
        links = self.open_files()
        kept = sum("augd-choice" in link for link in links)
        return len(links) - min(kept, _CHOICES_KEPT)


def digest(batches: Iterable[augd.Batch]) -> str:
    """Digest every byte of an epoch, at a trainer's pace."""
    whole = hashlib.blake2b()
    for batch in batches:
        for array in (batch.images, batch.labels, batch.ids, batch.valid):
            whole.update(array.tobytes())
        batch.release()
        time.sleep(_PAUSE_S)
    return whole.hexdigest()


class Honest:
    """A client in a thread that wants nothing but its batches, until `finish`."""

    def __init__(self, target: Target, transport: str) -> None:
        self._ground = target
        self._stream = target.streaming(transport)
        self._is_done = threading.Event()
        self._failed: Exception | None = None
        self.epochs = 0
        self.longest_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"honest {transport}")
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._is_done.is_set():
                epoch = self.epochs % EPOCHS
                assert digest(self._watched(epoch)) == self._ground.digests[epoch]
                self.epochs += 1
        except Exception as error:
            self._failed = error
        finally:
            self._stream.close()

    def _watched(self, epoch: int) -> Iterator[augd.Batch]:
        """Pass on the batches of an epoch and keep the longest wait for one."""
        asked_at = time.monotonic()
        for batch in self._stream.epoch(epoch):
            self.longest_s = max(self.longest_s, time.monotonic() - asked_at)
            yield batch
            asked_at = time.monotonic()

    def finish(self) -> None:
        """Let it read the epoch to its end; raise what it met."""
        self._is_done.set()
        self._thread.join()
        if self._failed is not None:
            raise AssertionError("an honest client was disturbed") from self._failed
        assert self.epochs


class Watcher:
    """Looks at the daemon from outside, until `finish`: does it live, how large is it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.peak = anonymous_bytes(pid)
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher")
        self._thread.start()

    def _run(self) -> None:
        while not self._is_done.wait(_LOOK_S) and is_alive(self._pid):
            with contextlib.suppress(augd.AugdError):  # it may end while it is measured
                self.peak = max(self.peak, anonymous_bytes(self._pid))

    def finish(self) -> int:
        """Return by how many bytes the daemon grew at most."""
        self._is_done.set()
        self._thread.join()
        return self.peak - self.before


@contextlib.contextmanager
def honest_clients(target: Target) -> Iterator[list[Honest]]:
    """Stream by both transports while the block runs, and a whole epoch at least."""
    clients: list[Honest] = []
    try:
        for transport in ("memfd", "frames"):
            clients.append(Honest(target, transport))
        yield clients
    except BaseException:
        for client in clients:
            client._is_done.set()
            client._thread.join()
        raise
    for client in clients:
        client._is_done.set()
    for client in clients:
        client.finish()
