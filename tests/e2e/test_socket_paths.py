"""What lies at a daemon's address: whose it is, who can open it, and what a start leaves alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import augd
from tests.support.scenes import SMALL, make_folder, read_epoch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=8)


@contextmanager
def serving(folder: Path, listen: str, umask: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Run `augd serve` as a process of its own."""
    command = [sys.executable, "-m", "augd", "serve", str(folder), "--producers", "1"]
    process = subprocess.Popen(
        [*command, "--listen", listen],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_sockets_are_their_users_alone_at_every_moment(
    folder: Path, tmp_path: Path, umask: int
) -> None:
    tmp_path.chmod(0o1777)
    modes: dict[str, set[int]] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            for path in tmp_path.iterdir():
                with suppress(FileNotFoundError):
                    modes.setdefault(path.name, set()).add(path.lstat().st_mode & 0o777)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with serving(folder, f"ipc://{tmp_path}/d", umask) as daemon:
            assert daemon.stdout is not None
            assert "serving" in daemon.stdout.readline()
            with augd.connect(f"ipc://{tmp_path}/d", recipe=SMALL, batch_size=8) as stream:
                assert len(read_epoch(stream, 0)) == 2
    finally:
        ended.set()
        looking.join()
    names = ("d", "d.attach", "d.bulk", "d.lock", "d.rows")
    assert modes == {name: {0o600} for name in names}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["photos.csv", "photos.csv.rows", "photos.csv.lock"])
def test_a_start_at_the_path_of_a_file_leaves_it(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("path,label\na.jpg,0\n")
    with serving(folder, f"ipc://{tmp_path}/photos.csv") as daemon:
        said, _ = daemon.communicate(timeout=30)
    assert daemon.returncode == 1
    assert said.startswith(f"augd: error: {tmp_path / name} exists")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "path,label\na.jpg,0\n"
