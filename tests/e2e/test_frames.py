"""The same streams over sockets: same bytes, same ends, nothing left."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import augd
from augd.client.status import status
from tests.support.processes import await_true, is_alive, num_fds
from tests.support.scenes import SMALL, digest_epoch, make_folder, read_epoch

clause = pytest.mark.clause


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=60)


@pytest.fixture
def daemon(folder: Path, tmp_path: Path):
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with augd.serve({"small": folder}, producers=2, listen=listen) as served:
        yield served


@clause("P-91", "P-93")
def test_the_same_bytes_by_every_transport(daemon):
    path, port = daemon.addresses
    assert port.startswith("tcp://127.0.0.1:")
    mapped = digest_epoch(path, epochs=2)
    assert digest_epoch(path, epochs=2, transport="frames") == mapped
    assert digest_epoch(port, epochs=2) == mapped
    assert digest_epoch(port.replace("127.0.0.1", "localhost"), epochs=2) == mapped


def test_slots_larger_than_a_piece(daemon):
    recipe = {"ops": [{"op": "resize", "size": 300}], "filter": "linear"}
    batches = {}
    for address in daemon.addresses:
        with augd.connect(address, recipe=recipe, batch_size=50) as stream:
            batches[address] = read_epoch(stream, 0)
    assert batches[daemon.addresses[0]][0]["images"].nbytes > 3 * 4 * 2**20
    for mapped, framed in zip(*batches.values(), strict=True):
        for name in mapped:
            assert np.array_equal(mapped[name], framed[name])


def test_break_seek_and_repeat(daemon):
    with augd.connect(daemon.addresses[1], recipe=SMALL, batch_size=16) as stream:
        whole = read_epoch(stream, 0)
        for _ in range(3):
            for batch in stream.epoch(1):
                if batch.number == 2:
                    break
        again = read_epoch(stream, 0)
    for before, after in zip(whole, again, strict=True):
        assert np.array_equal(before["images"], after["images"])


def test_a_producer_killed_changes_no_byte(daemon):
    undisturbed = digest_epoch(daemon.addresses[0], epochs=2)
    killed = []

    def kill_one(batch: augd.Batch) -> None:
        if batch.number % 3 == 1:
            pids = {producer["pid"] for producer in status(daemon.address, 5)["producers"]}
            victims = [*pids - {None, 0, *killed}]  # one that was killed may still be listed
            if victims:
                os.kill(victims[0], signal.SIGKILL)
                killed.append(victims[0])

    assert (
        digest_epoch(daemon.addresses[1], epochs=2, on_batch=kill_one, batch_size=16) == undisturbed
    )
    assert len(killed) >= 3


@clause("P-52", "P-97")
@pytest.mark.fault("trainer SIGKILL")
def test_a_trainer_killed_with_9_frees_its_memory(daemon):
    code = (
        "import time, augd\n"
        f"stream = augd.connect({daemon.addresses[1]!r}, recipe='eval', batch_size=16)\n"
        "held = [batch for batch, _ in zip(stream.epoch(0), range(2))]\n"
        "print('holding', flush=True); time.sleep(60)"
    )
    await_true(lambda: len(status(daemon.address, 5)["producers"]) == 2, 10, "started")
    with augd.connect(daemon.addresses[1], recipe="eval", batch_size=16) as first:
        read_epoch(first, 0)  # with the first large piece pyzmq starts a thread of its own
    await_true(lambda: not status(daemon.address, 5)["streams"], 5.0, "its stream is gone")
    before = num_fds(daemon.pid)
    trainer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout is not None
    assert "holding" in trainer.stdout.readline()
    trainer.kill()
    await_true(lambda: not status(daemon.address, 5)["streams"], 1.0, "its stream is gone")
    trainer.communicate()
    await_true(lambda: num_fds(daemon.pid) <= before, 5.0, "the daemon's fds are back")


@clause("P-97")
def test_a_daemon_killed_is_a_named_error(folder, tmp_path):
    with augd.serve({"small": folder}, producers=1, listen="tcp://127.0.0.1:0") as served:
        with augd.connect(served.address, recipe=SMALL, batch_size=16, timeout_s=2) as stream:
            passing = stream.epoch(0)
            held = next(passing)
            before = held.images.copy()
            os.kill(served.supervisor_pid, signal.SIGKILL)
            # What was on its way may be all of an epoch: its end is met in a later one.
            further = (stream.epoch(epoch) for epoch in itertools.count(1))
            with pytest.raises(augd.ConnectError, match=r"the daemon at tcp://.* ended"):
                for batch in itertools.chain(passing, itertools.chain.from_iterable(further)):
                    batch.release()
            assert np.array_equal(held.images, before)
        # The kernel closes a dead process's sockets one by one: the port may be its last.
        await_true(lambda: not is_alive(served.pid), 5.0, "the daemon is gone")
        with pytest.raises(augd.ConnectError, match=r"no daemon at tcp://.*Connection refused"):
            augd.connect(served.address, recipe=SMALL)


@clause("P-98")
def test_auto_falls_back_to_frames_when_memory_cannot_be_shared(daemon, tmp_path):
    """As between containers that share the folder of the sockets, but no user."""
    (tmp_path / "d.attach").unlink()
    with pytest.warns(RuntimeWarning, match=r"memory cannot be shared .* come over a socket"):
        fallen_back = digest_epoch(daemon.addresses[0], epochs=1)
    assert fallen_back == digest_epoch(daemon.addresses[1], epochs=1)
    with pytest.raises(augd.ConnectError, match=r"the socket .*d\.attach does not answer"):
        augd.connect(daemon.addresses[0], recipe=SMALL, transport="memfd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        digest_epoch(daemon.addresses[0], epochs=1, transport="frames")


@clause("P-97")
def test_a_long_step_between_batches_disturbs_nothing(daemon):
    import time

    with augd.connect(daemon.addresses[1], recipe=SMALL, batch_size=16) as stream:
        passing = stream.epoch(0)
        next(passing)
        time.sleep(3)  # beyond one heartbeat; the 30 s of a real step are in the soak
        assert sum(1 for _ in passing) == 7


@clause("P-99")
def test_bad_input(daemon, folder):
    with pytest.raises(augd.OptionError, match=r"memory cannot be shared through tcp://"):
        augd.connect(daemon.addresses[1], recipe=SMALL, transport="memfd")
    with pytest.raises(augd.OptionError, match='expected "auto", "memfd" or "frames"'):
        augd.connect(daemon.addresses[1], recipe=SMALL, transport="rdma")
    with pytest.raises(augd.AddressInUse, match=r"another program already listens at tcp://"):
        augd.serve(folder, listen=daemon.addresses[1])
    with pytest.raises(
        augd.OptionError, match=r"tcp://0\.0\.0\.0:0: every host that reaches this port"
    ):
        augd.serve(folder, listen="tcp://0.0.0.0:0")
    with pytest.raises(augd.OptionError, match="at most one tcp://HOST:PORT"):
        augd.serve(folder, listen=["tcp://127.0.0.1:0", "tcp://127.0.0.1:0"])
    with pytest.raises(augd.OptionError, match=r"expected ipc://PATH or tcp://HOST:PORT"):
        augd.connect("tcp://127.0.0.1")


def test_a_port_that_is_no_daemon(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(augd.ConnectError, match=r"no answer for 1 s"):
            augd.connect(f"tcp://127.0.0.1:{port}", recipe=SMALL, timeout_s=1)


@clause("P-99")
def test_insecure_is_said_to_be_meant(folder):
    with (
        augd.serve(folder, producers=1, listen="tcp://0.0.0.0:0", insecure=True) as served,
        augd.connect(served.address.replace("0.0.0.0", "127.0.0.1"), recipe=SMALL) as stream,
    ):
        assert len(read_epoch(stream, 0)) == 1
