"""`augd produce`: producers that a daemon did not start, and the bytes that they make."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from augd.client.status import status
from augd.transport.zmq_sockets import Dealer
from tests.support.keyring import Keyring
from tests.support.processes import await_true, is_alive
from tests.support.relays import RelayProcess, await_remotes, remotes, running_relay
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch

clause = pytest.mark.clause

LOOPBACK = "tcp://127.0.0.1:0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=3, per_class=40)


@pytest.fixture(scope="module")
def elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same dataset at another place, with other times, as another host has it."""
    copy = tmp_path_factory.mktemp("other") / "copied"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    return copy


@pytest.fixture(scope="module")
def local(folder: Path) -> list[str]:
    """What a daemon's own producers make of two epochs."""
    with augd.serve({"small": folder}, producers=2) as daemon:
        return digest_epoch(daemon.address, epochs=2)


@pytest.fixture
def daemon(folder: Path, tmp_path: Path) -> Iterator[augd.ServedDaemon]:
    """A daemon that has no producer of its own."""
    listen = [f"ipc://{tmp_path}/d", LOOPBACK]
    with augd.serve({"small": folder}, producers=0, listen=listen) as served:
        yield served


@clause("P-135")
def test_all_producers_are_remote_and_the_bytes_the_same(
    daemon: augd.ServedDaemon, elsewhere: Path, local: list[str]
) -> None:
    path, port = daemon.addresses
    with running_relay(elsewhere, port, "--producers", "2", "--host", "node7") as relay:
        await_remotes(port, 2)
        assert digest_epoch(path, epochs=2) == local
        assert digest_epoch(port, epochs=2) == local
        seen = remotes(port)
        assert [one["host"] for one in seen] == ["node7", "node7"]
        assert sorted(one["pid"] for one in seen) == sorted(relay.producers())
        assert all("seccomp" in one["confinement"] for one in seen)
        assert sum(one["rows"] for one in seen) >= 2 * 240
        assert relay.end() == ("augd: draining: it was told to end\n"), (
            "nothing else is worth a word"
        )
    await_true(lambda: not remotes(port), 5, "the daemon knows that they left")


def test_by_a_path_on_the_same_host(
    daemon: augd.ServedDaemon, elsewhere: Path, local: list[str]
) -> None:
    with running_relay(elsewhere, daemon.address, "--producers", "1"):
        assert digest_epoch(daemon.address, epochs=2) == local


def test_bench_measures_a_daemon_without_producers_of_its_own(
    daemon: augd.ServedDaemon, elsewhere: Path
) -> None:
    with running_relay(elsewhere, daemon.addresses[1], "--producers", "1"):
        bench = [sys.executable, "-m", "augd", "bench", "--connect", daemon.address]
        more = ["--recipe", "eval", "--batch-size", "16", "--seconds", "0.5", "--json"]
        done = subprocess.run([*bench, *more], capture_output=True, text=True, timeout=60)
        told = subprocess.run([*bench, *more[:-1]], capture_output=True, text=True, timeout=60)
    assert done.returncode == told.returncode == 0, done.stderr + told.stderr
    report = json.loads(done.stdout)
    assert (report["producers"], report["producers_anonymous_bytes"]) == (1, [])
    assert report["on_core"] == 1.0, "nothing is known of another host's cores"


@clause("P-134")
def test_every_array_of_a_slot_and_every_selection(
    daemon: augd.ServedDaemon, folder: Path, elsewhere: Path
) -> None:
    views = {"ops": [{"op": "ten_crop", "size": 16}], "filter": "linear"}
    drawn = {"ops": [{"op": "vertical_flip"}, {"op": "resize", "size": 20}], "filter": "random"}
    device = {"ops": [{"op": "pca"}, {"op": "resize", "size": 20}], "colour_on": "device"}
    asked = [
        {"recipe": SMALL, "split": "train", "val_fraction": 0.3, "params": True},
        {"recipe": SMALL, "classes": ["class2", "class0"], "limit": 50, "balance": "class"},
        {"recipe": views, "rank": 1, "world": 3},
        {"recipe": drawn, "params": True},
        {"recipe": device, "drop_last": True, "shuffle": False, "seed": 3},
    ]
    with (
        augd.serve({"small": folder}, producers=1) as own,
        running_relay(elsewhere, daemon.address, "--producers", "2"),
    ):
        for options in asked:
            runs = []
            for address in (own.address, daemon.address):
                with augd.connect(address, batch_size=37, verify=True, **options) as stream:
                    runs.append((list(everything(stream, 1)), stream.receipt(1)))
            assert runs[0] == runs[1]


def everything(stream: augd.Stream, epoch: int) -> Iterator[bytes]:
    """Every byte of an epoch, parameters included."""
    for batch in stream.epoch(epoch):
        arrays = [batch.images, batch.labels, batch.ids, batch.valid, batch.colour]
        arrays += list((batch.params or {}).values())
        yield b"".join(array.tobytes() for array in arrays if array is not None)


def test_bad_samples_are_masked_and_named(
    daemon: augd.ServedDaemon, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "small", copy_function=shutil.copyfile)
    with (
        running_relay(tmp_path / "small", daemon.address, "--producers", "1"),
        augd.connect(daemon.address, recipe=SMALL, max_bad_fraction=1.0) as stream,
    ):
        assert all(batch["valid"].all() for batch in read_epoch(stream, 0))
        victim = tmp_path / "small" / "class1" / "0000.jpg"
        victim.write_bytes(bytes(victim.stat().st_size))
        assert sum((~batch["valid"]).sum() for batch in read_epoch(stream, 9)) == 1
        (seen,) = status(daemon.address)["streams"]
        assert seen["last_bad"][0][:2] == [40, "class1/0000.jpg"]


def test_beside_the_daemons_own_and_at_any_time(
    folder: Path, elsewhere: Path, local: list[str]
) -> None:
    with augd.serve({"small": folder}, producers=1, listen=LOOPBACK) as daemon:
        joined: list[RelayProcess] = []

        def on_batch(batch: augd.Batch) -> None:
            if (batch.epoch, batch.number) == (0, 2):
                joined.append(RelayProcess(elsewhere, daemon.address, "--producers", "1"))
                await_remotes(daemon.address, 1)
            if (batch.epoch, batch.number) == (1, 4):
                joined[0].end()

        assert digest_epoch(daemon.address, epochs=2, on_batch=on_batch) == local


@clause("P-131")
def test_it_is_refused_with_the_difference(
    daemon: augd.ServedDaemon, folder: Path, elsewhere: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer"
    shutil.copytree(folder, fewer)
    next((fewer / "class1").iterdir()).unlink()
    with running_relay(fewer, daemon.addresses[1]) as relay:
        code, errors = relay.finish()
    assert code == 1
    assert f"error: {daemon.addresses[1]}: dataset 'small': expected the index digest" in errors
    (tmp_path / "own_ops.py").write_text(
        "import augd\nclass Nothing(augd.Plugin):\n    def pixels(self, row, rng): pass\n"
    )
    command = ("env", f"PYTHONPATH={tmp_path}")
    relay = RelayProcess(
        elsewhere, daemon.addresses[1], "--plugin", "own_ops", "--producers", "1", before=command
    )
    code, errors = relay.finish()
    assert code == 1
    assert "plugin.own_ops: expected absent as the daemon's other producers have it" in errors


@clause("P-132", "P-100")
def test_only_a_key_that_may_produce_joins_and_only_while_it_may(
    folder: Path, elsewhere: Path, tmp_path: Path, local: list[str]
) -> None:
    ring = Keyring(tmp_path)
    reader, maker = ring.let_in("reader"), ring.let_in("maker", may_produce=True, max_streams=0)
    listen = [f"ipc://{tmp_path}/d", LOOPBACK]
    with augd.serve({"small": folder}, producers=0, listen=listen, keys=ring.folder) as daemon:
        port = daemon.addresses[1]
        for file, text in (
            (
                reader,
                "'reader' may not produce: the daemon's operator allows it by `produce = true`",
            ),
            (ring.stranger(), "does not know this key"),
            (None, "accepts only clients with a key"),
        ):
            keys = () if file is None else ("--keys", str(file))
            with running_relay(elsewhere, port, *keys, "--producers", "1") as relay:
                code, errors = relay.finish()
            assert (code, text in errors) == (1, True), errors
        with running_relay(elsewhere, port, "--keys", str(maker), "--producers", "1") as relay:
            assert digest_epoch(port, epochs=2, keys=reader) == local
            assert large_rows(daemon.address) == large_rows_made_here(folder)
            assert [one["number"] for one in remotes(daemon.address)] == [1024], "none too large"
            with pytest.raises(augd.OverLimit, match=r"'maker' has 0 sessions open"):
                augd.connect(port, recipe=SMALL, keys=maker)
            ring.file_of("maker").unlink()
            code, errors = relay.finish()
            assert (code, "does not accept this key" in errors or "does not know" in errors) == (
                1,
                True,
            ), errors
        assert remotes(daemon.address) == []


def large_rows(address: str) -> list[bytes]:
    """An epoch whose chunks are of several frames of the largest size."""
    recipe = {"ops": [{"op": "resize", "size": 240}], "filter": "linear"}
    with augd.connect(address, recipe=recipe, batch_size=40) as stream:
        return list(everything(stream, 0))


def large_rows_made_here(folder: Path) -> list[bytes]:
    with augd.serve({"small": folder}, producers=1) as own:
        return large_rows(own.address)


@clause("P-132")
def test_the_rows_port_is_shut_to_clients_keys(folder: Path, tmp_path: Path) -> None:
    from augd.transport.address import TcpAddress
    from tests.support.proxy import listening_ports

    ring = Keyring(tmp_path)
    curves = [ring.curve("reader"), ring.curve("maker", may_produce=True)]
    with augd.serve({"small": folder}, producers=0, listen=LOOPBACK, keys=ring.folder) as daemon:
        heard = {
            port: [knock_at(TcpAddress("127.0.0.1", port), curve) for curve in curves]
            for port in listening_ports(daemon.pid)
        }
    refused = [port for port, said in heard.items() if said == [False, True]]
    assert len(heard) == 3 and len(refused) == 1, heard


def knock_at(port: object, curve: object) -> bool:
    """Say whether a key gets through a port's handshake."""
    dealer = Dealer(port, curve, is_watched=True)  # type: ignore[arg-type]
    assert dealer.handshake is not None
    try:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if dealer.handshake.has_failed():
                return False
            if dealer.handshake._has_stood:
                return True
            time.sleep(0.005)
        raise AssertionError("neither let in nor refused")
    finally:
        dealer.close()


@clause("P-141")
def test_the_daemons_end_is_the_relays_end(folder: Path, elsewhere: Path) -> None:
    with augd.serve({"small": folder}, producers=0, listen=LOOPBACK) as daemon:
        relay = RelayProcess(elsewhere, daemon.address, "--producers", "2")
        await_remotes(daemon.address, 2)
        producers = relay.producers()
    code, errors = relay.finish(10)
    assert code == 0, errors
    assert f"draining: the daemon at {daemon.address} ends" in errors
    assert not any(is_alive(pid) for pid in producers)


def test_bad_options_are_named(folder: Path) -> None:
    from augd.server.relay.startup import produce_forever
    from augd.server.supervision.produce_options import ProduceOptions

    with pytest.raises(augd.OptionError, match=r"--producers: expected 1\.\.1024, got 0"):
        produce_forever(
            ProduceOptions(paths=(str(folder),), connect="tcp://127.0.0.1:1", producers=0)
        )
    with pytest.raises(augd.DatasetError, match="is not a folder"):
        produce_forever(ProduceOptions(paths=("/nowhere",), connect="tcp://127.0.0.1:1"))
