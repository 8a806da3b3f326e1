"""The two transports that every protocol test runs over: a fake in memory, a real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import augd
from tests.protocol.harness import NUM_SAMPLES, FakeWire, RealWire, Wire


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
    with augd.serve({"photos": photos}, producers=1) as daemon:
        yield daemon


@pytest.fixture
def fake() -> FakeWire:
    return FakeWire()


@pytest.fixture(params=["fake", "ipc"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    if request.param == "fake":
        yield FakeWire()
        return
    wire = RealWire(request.getfixturevalue("real_daemon").address)
    yield wire
    wire.close()
