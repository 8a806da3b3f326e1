"""What every protocol test runs over: a fake and a real daemon, by memfd and by frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import augd
from augd.transport.address import make_runtime_dir, runtime_dir
from tests.protocol.harness import NUM_SAMPLES, FakeWire, RealWire, Wire
from tests.support.keyring import Keyring


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): clauses of docs/protocol.md that it proves")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_SAMPLES):
        image = np.full((12, 12, 3), 20 * number, np.uint8)
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return folder


@pytest.fixture(scope="session")
def real_daemon(photos: Path) -> Iterator[augd.ServedDaemon]:
    folder = runtime_dir()
    make_runtime_dir(folder)
    listen = [f"ipc://{folder}/protocol", "tcp://127.0.0.1:0"]
    with augd.serve({"photos": photos}, producers=1, listen=listen) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    made = Keyring(tmp_path_factory.mktemp("keyring"))
    made.let_in("photographer", max_streams=1000)
    made.let_in("outsider", datasets=("elsewhere",))
    return made


@pytest.fixture(scope="session")
def keyed_daemon(photos: Path, keyring: Keyring) -> Iterator[augd.ServedDaemon]:
    """A daemon whose port is for clients with keys; its path isn't."""
    listen = [f"ipc://{runtime_dir()}/keyed", "tcp://127.0.0.1:0"]
    make_runtime_dir(runtime_dir())
    with augd.serve({"photos": photos}, producers=1, listen=listen, keys=keyring.folder) as daemon:
        yield daemon


@pytest.fixture
def fake() -> FakeWire:
    return FakeWire()


@pytest.fixture(params=["fake", "fake frames", "memfd", "frames", "keys"])
def wire(
    request: pytest.FixtureRequest,
    real_daemon: augd.ServedDaemon,
    keyed_daemon: augd.ServedDaemon,
    keyring: Keyring,
) -> Iterator[Wire]:
    if request.param.startswith("fake"):
        yield FakeWire(transport="frames" if "frames" in request.param else "memfd")
        return
    if request.param == "keys":
        curve = keyring.curve("photographer")
        keyed = RealWire(keyed_daemon.addresses[1], "frames", curve)
        yield keyed
        keyed.close()
        return
    path, port = real_daemon.addresses
    wire = RealWire(port, "frames") if request.param == "frames" else RealWire(path)
    yield wire
    wire.close()


@pytest.fixture
def mapped(real_daemon: augd.ServedDaemon) -> Iterator[RealWire]:
    """A real daemon by memfd: for what the UNIX socket alone has."""
    wire = RealWire(real_daemon.addresses[0])
    yield wire
    wire.close()


@pytest.fixture(params=["path", "port"])
def framed(request: pytest.FixtureRequest, real_daemon: augd.ServedDaemon) -> Iterator[RealWire]:
    """A real daemon by frames, beside a path and at a port: for what pieces alone have."""
    wire = RealWire(real_daemon.addresses[request.param == "port"], "frames")
    yield wire
    wire.close()
