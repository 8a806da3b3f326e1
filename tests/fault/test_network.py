"""A network that breaks between a trainer and its daemon: no batch is missing, none comes twice."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import augd
from augd.client.status import status as ask_status
from tests.support.processes import await_true, daemon_of
from tests.support.programs import finish, follow, free_port, start_by_hand
from tests.support.proxy import Proxy, listening_ports, random_cut
from tests.support.scenes import SMALL, make_folder

pytestmark = pytest.mark.fault(
    "TCP reset, half-open, 5 s partition, 1-byte slices, cut in the middle of a chunk"
)
OPTIONS: dict[str, Any] = {"recipe": SMALL, "batch_size": 16, "timeout_s": 60}
SLOT_BYTES = 50_000


class Served:
    """A daemon for all tests, which none of them ends, and what a run undisturbed gives."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.direct = f"tcp://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] = start_by_hand(folder, self.direct)
        with augd.connect(self.direct, **OPTIONS) as stream:
            self.undisturbed = follow(stream, 6)


class Network:
    """A proxy before that daemon, of each test's own."""

    def __init__(self, served: Served) -> None:
        self.process, self.direct = served.process, served.direct
        self.undisturbed = served.undisturbed
        self.proxy = Proxy(served.port, daemon_of(served.process.pid))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)
    made = Served(folder)
    yield made
    made.process.terminate()
    assert finish(made.process)[0] == 0


@pytest.fixture
def network(served: Served) -> Iterator[Network]:
    made = Network(served)
    yield made
    made.proxy.close()
    await_true(lambda: not ask_status(made.direct, 10)["streams"], 20, "no session is left")


def test_the_proxy_is_in_the_way_of_all_ports(network):
    assert len(listening_ports(daemon_of(network.process.pid))) == 3
    seen = []
    with augd.connect(network.proxy.address, **OPTIONS) as stream:
        for batch in stream.epoch(0):
            seen.append(sorted(pair.kind for pair in network.proxy._pairs))
            batch.release()
    assert seen[0] == ["bulk", "control"]


@pytest.mark.clause("P-109")
@pytest.mark.parametrize("kinds", [("control",), ("bulk",), ("control", "bulk")])
def test_a_reset_is_noticed_at_once_and_mended(network, kinds):
    def disturb(batch: augd.Batch) -> None:
        if batch.number in (1, 3):  # nothing is lost with what came already
            network.proxy.reset(*kinds)

    started = time.monotonic()
    with augd.connect(network.proxy.address, **OPTIONS, prefetch=1) as stream:
        assert follow(stream, 1, disturb) == network.undisturbed[:1]
        assert stream.stats()["lost"] == 2
    assert time.monotonic() - started < 15, "nobody waited for a deadline"
    await_true(lambda: not ask_status(network.direct, 10)["streams"], 10, "no session is left")


def test_resets_after_any_number_of_bytes_lose_and_double_nothing(network):
    """Also in the middle of handshakes, of headers and of pieces."""
    chance = random.Random(4)

    def disturb(batch: augd.Batch) -> None:
        if batch.number % 2:
            random_cut(network.proxy, chance, 3 * SLOT_BYTES)

    with augd.connect(network.proxy.address, **OPTIONS) as stream:
        assert follow(stream, 6, disturb) == network.undisturbed
        assert stream.stats()["lost"] > 4
    await_true(lambda: not ask_status(network.direct, 10)["streams"], 15, "no session is left")


@pytest.mark.parametrize("after_bytes", [1, 2_000, SLOT_BYTES // 2, SLOT_BYTES + 9])
def test_a_cut_in_the_middle_of_a_piece_discards_the_partial_batch(network, after_bytes):
    def disturb(batch: augd.Batch) -> None:
        if batch.number == 1:
            network.proxy.cut("bulk", after_bytes)

    with augd.connect(network.proxy.address, **OPTIONS) as stream:
        assert follow(stream, 2, disturb) == network.undisturbed[:2]
        assert stream.stats()["lost"] == 2


def test_one_byte_at_a_time(network):
    options = {**OPTIONS, "batch_size": 8, "limit": 24}
    with augd.connect(network.direct, **options) as stream:
        whole = follow(stream, 1)
    network.proxy.slice_bytes = 1
    with augd.connect(network.proxy.address, **options) as stream:
        assert follow(stream, 1) == whole
        assert stream.stats()["lost"] == 0


@pytest.mark.slow
def test_a_partition_of_five_seconds_heals(network):
    def disturb(batch: augd.Batch) -> None:
        if (batch.epoch, batch.number) == (0, 2):
            network.proxy.freeze("up", "down")
            threading.Timer(5.0, network.proxy.heal).start()

    with augd.connect(network.proxy.address, **OPTIONS, prefetch=1) as stream:
        assert follow(stream, 2, disturb) == network.undisturbed[:2]
        assert stream.stats()["lost"] == 0, "TCP sends again what was lost"


@pytest.mark.slow
@pytest.mark.parametrize("directions", [("up",), ("down",), ("up", "down")])
def test_a_half_open_connection_is_ended_by_heartbeats(network, directions):
    def disturb(batch: augd.Batch) -> None:
        if batch.number == 2:
            network.proxy.freeze(*directions)

    started = time.monotonic()
    with augd.connect(network.proxy.address, **OPTIONS, prefetch=1) as stream:
        assert follow(stream, 1, disturb) == network.undisturbed[:1]
        assert stream.stats()["lost"] >= 1
    assert 5 < time.monotonic() - started < 40
    await_true(lambda: not ask_status(network.direct, 10)["streams"], 20, "no session is left")


@pytest.mark.slow
def test_a_client_that_fell_silent_is_forgotten(network):
    """Half-open on the daemon's side: whoever held the slots is nowhere any more."""
    stream = augd.connect(network.proxy.address, **OPTIONS)
    held = next(stream.epoch(0))
    network.proxy.freeze("up", "down")
    await_true(lambda: not ask_status(network.direct, 10)["streams"], 20, "its slots are free")
    assert len(held) == 16
    stream.close()
