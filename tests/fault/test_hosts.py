"""Two and three hosts: producers and trainers behind cables that are cut, slow, or lead nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import islice
from pathlib import Path

import pytest

import augd
from augd.cli.status import reports
from augd.client.status import StatusClient
from tests.support.hosts import Host, hosts
from tests.support.keyring import Keyring
from tests.support.processes import await_true
from tests.support.relays import RelayProcess, at, await_remotes, remotes
from tests.support.scenes import SMALL, digest_epoch, make_folder

pytestmark = [
    pytest.mark.fault("remote producer, its relay, its host or its link ends"),
    pytest.mark.slow,
]

PORT = 7000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=150)


@pytest.fixture(scope="module")
def local(folder: Path) -> list[str]:
    with augd.serve({"small": folder}, producers=2) as daemon:
        return digest_epoch(daemon.address, epochs=2)


class Site:
    """A daemon with keys on the hub, without producers, and two hosts around it."""

    def __init__(self, folder: Path, below: Path, hub: Host, others: list[Host]) -> None:
        self._folder = folder
        self._ring = Keyring(below)
        self.hub = hub
        self.maker = self._ring.let_in("maker", may_produce=True)
        self.others = others
        self.path = f"ipc://{below}/d"
        command = [*hub.inside, sys.executable, "-m", "augd", "serve", f"small={folder}"]
        listen = ["--listen", self.path, "--listen", f"tcp://0.0.0.0:{PORT}"]
        self._daemon = subprocess.Popen(
            [*command, *listen, "--keys", str(self._ring.folder), "--producers", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._daemon.stdout is not None
        assert "serving" in self._daemon.stdout.readline()
        self._relays: list[RelayProcess] = []

    def port_for(self, host: Host) -> str:
        """Where a host finds the daemon."""
        return f"tcp://{host.address}:{PORT}"

    def start_relay(self, host: Host) -> RelayProcess:
        options = ("--keys", str(self.maker), "--producers", "1", "--host", host.name)
        relay = RelayProcess(self._folder, self.port_for(host), *options, before=host.inside)
        self._relays.append(relay)
        return relay

    def names(self) -> list[str]:
        return sorted(one["host"] for one in remotes(self.path))

    def close(self) -> None:
        self._daemon.terminate()
        self._daemon.communicate(timeout=30)
        for relay in self._relays:
            relay.close()


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[Site]:
    with hosts("east", "west") as (hub, *others):
        made = Site(folder, tmp_path, hub, others)
        yield made
        made.close()


def test_a_late_host_and_one_that_is_lost_in_mid_epoch(site: Site, local: list[str]) -> None:
    """Its cable is pulled and it dies behind it: only silence tells."""
    east, west = site.others
    lost = site.start_relay(east)
    await_remotes(site.path, 1)

    def on_batch(batch: augd.Batch) -> None:
        if (batch.epoch, batch.number) == (0, 3):
            site.start_relay(west)
            await_remotes(site.path, 2)
        if (batch.epoch, batch.number) == (0, 9):
            east.unplug()
            lost.close()

    assert digest_epoch(site.path, epochs=2, on_batch=on_batch) == local
    await_true(lambda: site.names() == ["west"], 30, "the lost host is given up")


def test_a_partition_of_five_seconds(site: Site, local: list[str]) -> None:
    for host in site.others:
        site.start_relay(host)
    await_remotes(site.path, 2)

    def part() -> None:
        for host in site.others:
            host.unplug()
            threading.Timer(5.0, host.plug).start()

    assert digest_epoch(site.path, epochs=2, on_batch=at(0, 4, part)) == local
    await_true(lambda: site.names() == ["east", "west"], 30, "both are there")


def test_a_slow_link(site: Site, local: list[str]) -> None:
    """2 Mbit/s: a chunk takes half a second; the other host makes the most of it."""
    slow, fast = site.others
    slow.slow_down("2mbit")
    for host in (slow, fast):
        site.start_relay(host)
    await_remotes(site.path, 2)
    assert digest_epoch(site.path, epochs=2) == local
    rows = {one["host"]: one["rows"] for one in remotes(site.path)}
    assert 0 < rows[slow.name] < rows[fast.name]


def test_a_trainer_behind_a_slow_link_is_told_what_it_waits_for(site: Site) -> None:
    """8 Mbit/s: a batch of 590 kB takes more than half a second, and both producers wait for it."""
    trainer, maker = site.others
    site.start_relay(maker)
    await_remotes(site.path, 1)
    site.hub.slow_down("8mbit", "to1")
    with running_on(trainer, READER, site.port_for(trainer), str(site.maker)) as reader:
        with closing(StatusClient(site.path)) as inquirer:
            seen = islice(reports(inquirer, 1.0), 20)
            told = next((one for one in seen if one["limit"] == "transport"), None)
        assert told is not None, "the link is named within 20 s"
        assert told["who_waits"].startswith("The way to the trainer is the limit: ")
        stats = json.loads(reader.communicate(timeout=60)[0])
    assert stats["fetch_s"] > stats["wait_s"] / 2


READER = """
import json, sys
import augd
recipe = {"ops": [{"op": "random_resized_crop", "size": 112}]}
with augd.connect(sys.argv[1], keys=sys.argv[2], recipe=recipe, batch_size=16) as stream:
    for batch in stream.epoch(0):
        batch.release()
    print(json.dumps(stream.stats()))
"""
RANK = f"""
import hashlib, json, sys
import augd
address, keys, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
recipe = {SMALL!r}
options = dict(recipe=recipe, batch_size=16, rank=rank, world=2)
with augd.connect(address, keys=keys, **options) as stream:
    ids, whole = [], hashlib.blake2b()
    for batch in stream.epoch(0):
        ids += batch.ids[batch.valid].tolist()
        whole.update(batch.images.tobytes() + batch.labels.tobytes() + batch.ids.tobytes())
        batch.release()
print(json.dumps([ids, whole.hexdigest()]))
"""


def rank_on(site: Site, host: Host, rank: int) -> AbstractContextManager[subprocess.Popen[str]]:
    """A trainer's rank on a host of its own."""
    return running_on(host, RANK, site.port_for(host), str(site.maker), str(rank))


@contextmanager
def running_on(host: Host, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A program on a host of its own."""
    process = subprocess.Popen(
        [*host.inside, sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_ranks_on_two_hosts_by_one_daemon(site: Site, folder: Path) -> None:
    """Their producers are on the same two hosts; each rank's bytes are those of one host alone."""
    east, west = site.others
    for host in site.others:
        site.start_relay(host)
    with rank_on(site, east, 0) as first, rank_on(site, west, 1) as second:
        far = [json.loads(one.communicate(timeout=60)[0]) for one in (first, second)]
    assert sorted(far[0][0] + far[1][0]) == list(range(300))
    assert far == both_here(folder)


def both_here(folder: Path) -> list[object]:
    """What both ranks see where one host does everything."""
    with augd.serve({"small": folder}, producers=1) as daemon:
        return [run_rank((), daemon.address, rank) for rank in (0, 1)]


def run_rank(before: tuple[str, ...], address: str, rank: int) -> object:
    command = [*before, sys.executable, "-c", RANK, address, "", str(rank)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_two_ranks_on_two_hosts_each_by_its_own_daemon(folder: Path, tmp_path: Path) -> None:
    """No word goes between the hosts; together they see what one host alone sees."""
    with hosts("east", "west") as (_, *others):
        seen = []
        for rank, host in enumerate(others):
            address = f"ipc://{tmp_path}/{host.name}"
            command = [*host.inside, sys.executable, "-m", "augd", "serve", f"small={folder}"]
            daemon = subprocess.Popen(
                [*command, "--listen", address, "--producers", "1"],
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                assert daemon.stdout is not None
                assert "serving" in daemon.stdout.readline()
                seen.append(run_rank(tuple(host.inside), address, rank))
            finally:
                daemon.terminate()
                daemon.communicate(timeout=30)
    assert seen == both_here(folder)
