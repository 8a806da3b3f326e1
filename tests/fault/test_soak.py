"""What grows: many streams one after another, many batches, long steps between them.

Fds, anonymous memory and processes of the daemon and its producers are looked at before and
after. Bounds are stated as what a leak of each thing would exceed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import augd
from augd.client.status import status
from augd.diagnostics.procfs import anonymous_bytes
from tests.fault.soak import soak
from tests.support.budget import spend
from tests.support.processes import await_true, children_of, num_fds, producers_of
from tests.support.scenes import SMALL, make_folder

pytestmark = pytest.mark.slow
clause = pytest.mark.clause

MB = 1_000_000
BATCH_SIZE = 16
FEW = 4  # rows of a batch where batches are counted, not bytes
# One batch leaked per stream (50 kB of 80) or a kilobyte per batch (of 2,000) would be beyond it;
# the allocators' give and take is less than 0.2 MB.
GROWTH_BYTES = 1 * MB


@dataclass(frozen=True)
class Belongings:
    """What the daemon and its producers have."""

    fds: tuple[int, ...]
    anonymous: tuple[int, ...]
    children: int


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=40)


@pytest.fixture
def daemon(folder: Path, tmp_path: Path) -> Iterator[augd.ServedDaemon]:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with augd.serve({"small": folder}, producers=2, listen=listen) as served:
        yield served


def look(daemon: augd.ServedDaemon) -> Belongings:
    """Look when nothing is in the making any more."""
    await_true(lambda: not status(daemon.address, 5)["streams"], 10.0, "every stream is gone")
    pids = [daemon.pid, *producers_of(daemon.pid)]
    return Belongings(
        tuple(num_fds(pid) for pid in pids),
        tuple(anonymous_bytes(pid) for pid in pids),
        len(children_of(daemon.pid)),
    )


def assert_flat(daemon: augd.ServedDaemon, before: Belongings) -> None:
    def fds_are_back() -> bool:
        now = look(daemon)
        return all(n <= b for n, b in zip(now.fds, before.fds, strict=True))

    await_true(fds_are_back, 10.0, f"as few fds as before: {before.fds}, now {look(daemon).fds}")
    after = look(daemon)
    assert after.children == before.children
    growth = [now - then for now, then in zip(after.anonymous, before.anonymous, strict=True)]
    assert max(growth) < GROWTH_BYTES, f"bytes of the daemon and its producers: {growth}"


def read(stream: augd.Stream, num_batches: int, batch_size: int = BATCH_SIZE) -> None:
    """Read over the ends of epochs; each batch must be the next one."""
    epoch, done = 0, 0
    while done < num_batches:
        for number, batch in enumerate(stream.epoch(epoch)):
            assert (batch.epoch, batch.number) == (epoch, number)
            assert len(batch.ids) == batch_size
            batch.release()
            done += 1
            if done == num_batches:
                break
        epoch += 1


def whole(address: str) -> None:
    with augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE) as stream:
        read(stream, len(stream))


def broken_off(address: str) -> None:
    with augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE) as stream:
        read(stream, 2)


def sought(address: str) -> None:
    with augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE) as stream:
        for epoch in (3, 0, 7):
            next(stream.epoch(epoch)).release()


def unread(address: str) -> None:
    augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE).close()


DYING_TRAINERS = """
import os, signal, sys, augd
for address in sys.argv[1:]:
    if os.fork() == 0:
        stream = augd.connect(address, recipe='eval', batch_size=16)
        next(stream.epoch(0))
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
"""


def killed(addresses: list[str]) -> None:
    """Trainers that die by SIGKILL with a batch in hand, one after another."""
    done = subprocess.run([sys.executable, "-c", DYING_TRAINERS, *addresses], timeout=60)
    assert done.returncode == 0


@pytest.mark.longer("two hundred streams one after another instead of ninety")
def test_many_streams_leave_nothing(daemon: augd.ServedDaemon) -> None:
    kinds: list[Callable[[str], None]] = [whole, broken_off, sought, unread]

    def open_many(count: int) -> None:
        for number in range(count):
            kinds[number % 4](daemon.addresses[number // 4 % 2])

    open_many(32)
    killed([*daemon.addresses])
    before = look(daemon)
    open_many(spend(80, soak=180))
    killed(daemon.addresses * spend(4, soak=10))
    assert_flat(daemon, before)
    assert status(daemon.address, 5)["restarts"] == 0


@pytest.mark.parametrize("kind", [0, 1], ids=["memfd", "frames"])
def test_two_thousand_batches_leave_nothing(daemon: augd.ServedDaemon, kind: int) -> None:
    address = daemon.addresses[kind]
    with augd.connect(address, recipe=SMALL, batch_size=FEW) as stream:
        read(stream, 300, FEW)
    before, own = look(daemon), anonymous_bytes(os.getpid())
    with augd.connect(address, recipe=SMALL, batch_size=FEW) as stream:
        read(stream, 2_000, FEW)
    assert_flat(daemon, before)
    assert anonymous_bytes(os.getpid()) - own < GROWTH_BYTES


@clause("P-97")
def test_a_step_of_thirty_seconds_disturbs_nothing(daemon: augd.ServedDaemon) -> None:
    """Longer than any heartbeat, by both transports at once; other clients come and go."""
    streams = [
        augd.connect(address, recipe=SMALL, batch_size=BATCH_SIZE, timeout_s=20)
        for address in daemon.addresses
    ]
    passes = [stream.epoch(0) for stream in streams]
    held = [next(one) for one in passes]
    copies = [batch.images.copy() for batch in held]
    ends_at = time.monotonic() + 30
    others = threading.Thread(target=come_and_go, args=(daemon.addresses, ends_at))
    others.start()
    time.sleep(30)
    others.join()
    for batch, copy, one, stream in zip(held, copies, passes, streams, strict=True):
        assert (batch.images == copy).all()
        batch.release()
        assert [later.number for later in one] == list(range(1, len(stream)))
        stream.close()


def come_and_go(addresses: list[str], ends_at: float) -> None:
    while time.monotonic() < ends_at - 1:
        for address in addresses:
            broken_off(address)
        time.sleep(1.5)


@pytest.mark.fault("producer SIGKILL in the middle of a row", "daemon SIGKILL", "trainer SIGKILL")
@pytest.mark.longer("something killed every second for ten minutes instead of ten seconds")
def test_something_is_killed_every_second_and_no_byte_differs() -> None:
    """`make soak` for a few seconds."""
    report = soak(10.0, seed=1)
    assert report.is_good(), "\n".join(report.lines())
    assert sum(report.faults.values()) > 2
