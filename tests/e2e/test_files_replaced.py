"""Files that are replaced between two daemons: the start, the stream and a state name them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import augd

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}


def photo(path: Path, grey: int) -> None:
    """Write an image; all of them have one size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path, "BMP")


def replace(path: Path, grey: int) -> None:
    found = path.stat()
    photo(path, grey)
    assert path.stat().st_size == found.st_size
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000_000))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in ("train/a", "val/b"):
        for number in range(6):
            photo(tmp_path / "set" / folder / f"{number}.bmp", number)
    return tmp_path / "set"


def connect(address: str, **options: object) -> augd.Stream:
    # One batch is made ahead at most: what is replaced two further on was not read before.
    usual = {"recipe": RECIPE, "batch_size": 1, "shuffle": False, "prefetch": 1, "timeout_s": 60.0}
    return augd.connect(address, **{**usual, **options})  # type: ignore[arg-type]


class Serving:
    """A daemon at one address that can be ended and started again."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.address = f"ipc://{folder}/d"
        self._command = [sys.executable, "-m", "augd", "serve", str(root), "--producers", "1"]
        self._said = folder / "said"
        self.start()

    def start(self) -> None:
        with self._said.open("w") as said:
            command = [*self._command, "--listen", self.address]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True
            )
        assert self._process.stdout is not None
        assert "serving set" in self._process.stdout.readline(), self.said()

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=30)

    def said(self) -> str:
        return self._said.read_text()


@pytest.fixture
def serving(root: Path, tmp_path: Path) -> Iterator[Serving]:
    daemon = Serving(root, tmp_path)
    yield daemon
    daemon.end()


@pytest.mark.clause("P-162")
@pytest.mark.fault("files replaced between two daemons, of the same sizes")
def test_a_stream_and_a_state_learn_which_files_were_replaced(
    root: Path, serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    with connect(serving.address) as stream:
        passing = stream.epoch(0)
        seen = [int(next(passing).images[0, 0, 0, 0]) for _ in range(2)]
        state = json.loads(json.dumps(stream.state_dict()))
        serving.end()
        replace(root / "train/a/4.bmp", 99)
        serving.start()
        assert "augd: set: since the last index files 1 changed: train/a/4.bmp;" in serving.said()
        seen += [int(batch.images[0, 0, 0, 0]) for batch in passing]
        assert seen[:2] + seen[-2:] == [0, 1, 99, 5]
        (notice,) = stream.notices
        assert notice == (
            "files of dataset 'set' have changed: files 1 changed: train/a/4.bmp. Rows of changed "
            "files differ from those before"
        )
        assert notice in [record.getMessage() for record in caplog.records]
        assert stream.receipt(0)["files_changed"]
        assert sum(1 for _ in stream.epoch(1)) == 6 and not stream.receipt(1)["files_changed"]
    with connect(serving.address) as stream:
        assert not stream.notices
        stream.load_state_dict(state)
        assert stream.notices == [notice]
        assert sum(1 for _ in stream.epoch(0)) == 4 and stream.receipt(0)["files_changed"]
        stream.load_state_dict({name: v for name, v in state.items() if name != "stamp"})
        assert stream.notices == [notice]
    serving.end()
    (root / "train/a/3.bmp").unlink()
    serving.start()
    with connect(serving.address) as stream, pytest.raises(augd.SpecMismatch) as caught:
        stream.load_state_dict(state)
    assert "dataset: " in str(caught.value)
    assert "files 1 changed and 1 removed: train/a/4.bmp, train/a/3.bmp" in str(caught.value)


def test_a_copy_with_other_times_resumes_without_a_word(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "set"
    shutil.copytree(root, copy)
    for path in copy.rglob("*.bmp"):
        os.utime(path, ns=(0, 10**18))
    with augd.serve(root, producers=1) as daemon, connect(daemon.address) as stream:
        passing = stream.epoch(0)
        next(passing)
        state = stream.state_dict()
        rest = [batch.digest for batch in passing]
    with augd.serve(copy, producers=1) as daemon, connect(daemon.address) as stream:
        stream.load_state_dict(state)
        assert [batch.digest for batch in stream.epoch(0)] == rest
        receipt = stream.receipt(0)
        assert (receipt["is_complete"], receipt["files_changed"]) == (True, False)
        assert not stream.notices


def test_an_index_is_made_anew_by_hand(root: Path) -> None:
    def index(*options: str) -> str:
        command = [sys.executable, "-m", "augd", "index", str(root), "--rebuild", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert f"{root}: 12 images, 2 classes, train 6, val 6: indexed anew in" in index()
    replace(root / "val/b/1.bmp", 50)
    assert "since the last index files 1 changed: val/b/1.bmp" in index()
    found = json.loads(index("--json"))
    assert (found["num_samples"], found["change"]) == (12, None)
