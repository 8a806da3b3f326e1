"""Shards in an object store, while what reads them is killed, stopped, or asked nonsense."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore")

import augd
from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from augd.client.status import status
from augd.errors import StoreError
from augd.pixels import native
from tests.support.processes import (
    await_true,
    command_of,
    is_alive,
    num_fds,
    producers_of,
    staff_of,
)
from tests.support.programs import kill, put_in_place, start_by_hand
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import SMALL, digest_epoch, make_folder, opencv_decodes
from tests.support.stores import Deeds, ranges

pytestmark = pytest.mark.skipif(native.kernels is None, reason="packing is done by the kernels")


# What somebody would look for who runs his own code in place of a decoder.
TAKEN_OVER = """
import sys
if "augd.server.producer" in sys.orig_argv:
    import os, socket
    import cv2
    report = open({report!r}, "a", buffering=1)
    imdecode = cv2.imdecode

    def taken_over(data, flags):
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            try:
                socket.socket(family)
                print("a socket", file=report)
            except OSError as error:
                print("errno", error.errno, file=report)
        print([name for name in os.environ if name.startswith("AWS_")], file=report)
        print("obstore" in sys.modules, file=report)
        return imdecode(data, flags)

    cv2.imdecode = taken_over
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = make_folder(
        tmp_path_factory.mktemp("source") / "s", num_classes=2, per_class=60, size_px=(361, 242)
    )
    target = tmp_path_factory.mktemp("packed") / "set"
    pack(str(source), str(target), PackOptions(shard_mb=1))
    return target


@pytest.fixture(scope="module")
def server(packed: Path) -> Iterator[Deeds]:
    with ranges(packed) as found:
        yield found


@pytest.fixture(autouse=True)
def calm(server: Deeds, monkeypatch: pytest.MonkeyPatch) -> None:
    server.do()
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "20")


@pytest.fixture(scope="module")
def local(packed: Path) -> list[str]:
    with augd.serve({"small": packed}, producers=2) as daemon:
        return digest_epoch(daemon.address, epochs=3)


def fetchers_of(pid: int) -> list[int]:
    return [child for child in staff_of(pid) if b"augd.server.fetcher" in command_of(child)]


@pytest.mark.fault("the process that reads a store SIGKILL, alone or with a producer")
@pytest.mark.parametrize("with_producer", [False, True])
@pytest.mark.parametrize("has_cache", [False, True])
def test_a_killed_fetcher_changes_no_byte(
    server: Deeds, local: list[str], with_producer: bool, has_cache: bool, tmp_path: Path
) -> None:
    """Killed again and again, with requests in flight that the server holds back."""
    cache = f"{tmp_path}/blocks:64MiB" if has_cache else None
    killed: set[int] = set()
    with augd.serve({"small": server.url}, producers=2, shard_cache=cache) as daemon:
        digest_epoch(daemon.address, epochs=1, seed=9)
        num_before = num_fds(daemon.pid)
        server.do(path=".tar", delay_s=0.1)

        def harm(batch: augd.Batch) -> None:
            if batch.number in (1, 4):
                victims = fetchers_of(daemon.pid)
                if with_producer:
                    victims += producers_of(daemon.pid)[:1]
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

        assert digest_epoch(daemon.address, epochs=2, on_batch=harm) == local[:2]
        await_true(lambda: set(fetchers_of(daemon.pid)) - killed, 10, "a new one")
        server.do()
        assert digest_epoch(daemon.address, epochs=1) == local[:1]
        await_true(lambda: num_fds(daemon.pid) <= num_before, 20, "no descriptor is left over")
    assert len(killed) >= 2
    assert not any(map(is_alive, killed))


def test_a_killed_fetcher_of_a_relay_changes_no_byte(
    server: Deeds, local: list[str], tmp_path: Path
) -> None:
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with (
        augd.serve({"small": server.url}, producers=0, listen=listen) as daemon,
        running_relay(server.url, daemon.addresses[1], "--producers", "2") as relay,
    ):
        await_remotes(daemon.address, 2)
        server.do(path=".tar", delay_s=0.1)
        killed = []

        def harm(batch: augd.Batch) -> None:
            for pid in fetchers_of(relay.pid):
                if batch.number in (1, 4):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        assert digest_epoch(daemon.address, epochs=2, on_batch=harm) == local[:2]
        assert "the process that reads the store ended" in relay.end()
    assert killed and not any(map(is_alive, killed))


def test_a_fetcher_that_hangs_is_an_error_and_no_hang(
    server: Deeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "1")
    with augd.serve({"small": server.url}, producers=1) as daemon:
        digest_epoch(daemon.address, epochs=1)
        (pid,) = fetchers_of(daemon.pid)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StoreError, match=r"within 12 s.*hangs, or ends repeatedly"):
            digest_epoch(daemon.address, epochs=1, seed=5)
        assert status(daemon.address, 10)["restarts"] == 0, "its producer was not to blame"
        os.kill(pid, signal.SIGCONT)
        digest_epoch(daemon.address, epochs=1, seed=6)


def test_a_producer_of_a_remote_set_has_no_network_and_no_credentials(
    server: Deeds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "report"
    put_in_place(TAKEN_OVER.format(report=str(report)), tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with opencv_decodes(), augd.serve({"small": server.url}, producers=1) as daemon:
        digest_epoch(daemon.address, epochs=1)
    assert set(report.read_text().splitlines()) == {f"errno {errno.EPERM}", "[]", "False"}


def test_kill_9_of_the_daemon_takes_its_fetcher_along(server: Deeds, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/d"
    daemon = start_by_hand(server.url, address)
    try:
        digest_epoch(address, epochs=1)
        (pid,) = fetchers_of(daemon.pid)
        os.kill(daemon.pid, signal.SIGKILL)
        await_true(lambda: not is_alive(pid), 2, "it ends with its daemon")
    finally:
        kill(daemon)


@pytest.mark.fault("shard replaced, or store down, in mid-epoch")
def test_the_store_goes_down_and_comes_back(
    packed: Path, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a bad photo, whatever `bad` says: an error that names the shard, and then all is well."""
    monkeypatch.setenv("AUGD_STORE_PATIENCE", "2")
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (
        ranges(tmp_path) as server,
        augd.serve({"small": server.url}, producers=1) as daemon,
    ):
        with augd.connect(
            daemon.address, recipe=SMALL, batch_size=8, bad="mask", max_bad_fraction=1.0
        ) as stream:
            for batch in stream.epoch(0):
                server.do(path=".tar", status=503)
                assert batch.valid.all()
                break
            with pytest.raises(StoreError, match=r"limits the rate \(HTTP 503\), after"):
                for epoch in range(20):
                    for batch in stream.epoch(epoch):
                        assert batch.valid.all()
        server.do()
        assert digest_epoch(daemon.address, epochs=3) == local
        for path in tmp_path.glob("*.tar"):
            path.write_bytes(path.read_bytes()[::-1])
        with pytest.raises(StoreError, match=r"replaced since it was indexed"):
            digest_epoch(daemon.address, epochs=3)
