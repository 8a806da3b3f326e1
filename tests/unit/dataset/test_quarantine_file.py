"""The quarantine's file: whatever stands in it, a start reads what is sound and skips the rest."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import augd
from augd.dataset import quarantine_file
from augd.dataset.scan.build_index import load_or_build
from tests.support.scenes import SMALL, make_folder, read_epoch

SOUND = {"path": "a", "how": "SIGSEGV", "sample": 3, "epoch": 0, "position": 0, "content": "c"}


@pytest.fixture
def state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def write(digest: str, *lines: bytes) -> None:
    path = quarantine_file.path_of(digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\n".join(lines) + b"\n")


def line(**changes: object) -> bytes:
    return msgspec.json.encode(SOUND | changes)


NONSENSE = (
    line(sample=-1),
    line(sample=8),
    line(sample=2**62 + 1),
    line(sample=0).replace(b":0,", b":18446744073709551616,", 1),
    line(epoch=2**31),
    line(position=0).replace(b'"position":0', b'"position":99999999999999999999999999'),
    line(position=1.5),
    line(other=0).replace(b'"other":0', b'"other":' + b"[" * 100_000),
    b'{"sample":',
    b"\xff\xfe",
    b"[]",
    b"",
)


def test_lines_that_cannot_be_are_skipped(state_home: Path) -> None:
    write("d1", *NONSENSE, line(), *NONSENSE, line(sample=7))
    assert quarantine_file.load("d1", 8) == {"c": ((3, 0, 0), (7, 0, 0))}


def test_a_daemon_serves_whatever_numbers_the_file_has(state_home: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "set", num_classes=2, per_class=4)
    index = load_or_build(folder)
    write(index.digest, *NONSENSE, line())
    index.close()
    with (
        augd.serve(folder, producers=1) as daemon,
        augd.connect(daemon.address, recipe=SMALL, batch_size=8) as stream,
    ):
        (batch,) = read_epoch(stream, 0)
        assert stream.state_dict()["quarantine"] == [[3, 0, 0]]
        assert batch["ids"][~batch["valid"]].tolist() == [3]
