"""One daemon for all attacks, at a path and at a port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import augd
from augd.transport.address import make_runtime_dir, runtime_dir
from tests.attacks.target import Target
from tests.support.scenes import make_folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("attacked"), num_classes=2, per_class=80)


@pytest.fixture(scope="session")
def target(photos: Path) -> Iterator[Target]:
    folder = runtime_dir()
    make_runtime_dir(folder)
    listen = [f"ipc://{folder}/attacked", "tcp://127.0.0.1:0"]
    with augd.serve({"photos": photos}, producers=1, listen=listen) as daemon:
        yield Target.around(daemon, photos)
