"""Errors of a file system that pass are tried again; they say nothing about a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from augd.dataset.readers import transient_errors
from augd.dataset.readers.read_ahead import ReadAhead
from augd.dataset.readers.source import FolderSource
from augd.errors import StoreError
from augd.pixels.headers.read_header import BadImage
from tests.support.datasets import Listed


class Failing:
    """Stands before a system call and fails it so many times."""

    def __init__(self, call: Any, number: int, times: int) -> None:
        self._call, self._number = call, number
        self.left = times

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._call(*arguments, **named)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 100)
    return folder


@pytest.fixture
def source(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FolderSource]:
    monkeypatch.setattr(transient_errors, "_PAUSE_S", 0.001)
    monkeypatch.setattr(transient_errors, "_PAUSE_MAX_S", 0.01)
    with FolderSource(root, Listed(root, ["a", "b"])) as opened:
        yield opened


@pytest.mark.parametrize("call", ["readv", "fstat"])
@pytest.mark.parametrize("number", sorted(transient_errors.PASSING))
def test_what_passes_is_tried_again(source, monkeypatch, call: str, number: int) -> None:
    failing = Failing(getattr(os, call), number, 3)
    monkeypatch.setattr(os, call, failing)
    assert source.read(0) == b"a" * 100
    assert not failing.left


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.EOVERFLOW])
def test_what_does_not_is_the_files_own(source, monkeypatch, number: int) -> None:
    monkeypatch.setattr(os, "readv", Failing(os.readv, number, 1))
    with pytest.raises(BadImage, match="cannot be read: "):
        source.read(0)


def test_a_deleted_file_is_a_bad_sample(source, root) -> None:
    (root / "a").unlink()
    with pytest.raises(BadImage, match="deleted since it was indexed"):
        source.read(0)


def test_patience_ends_and_the_error_names_the_file(source, monkeypatch) -> None:
    monkeypatch.setattr(source.retries, "_patience_s", 0.05)
    monkeypatch.setattr(os, "readv", Failing(os.readv, errno.ESTALE, 10**9))
    with pytest.raises(StoreError, match=r"b cannot be read: Stale file handle, tried again for "):
        source.read(1)
    assert not source.retries.is_waiting


def test_an_empty_folder_in_place_of_a_mount_is_not_taken_for_it(source, root, monkeypatch) -> None:
    """As while a file system is mounted again: all files would be missing in it."""
    monkeypatch.setattr(source.retries, "_patience_s", 0.2)
    away = root.with_name("away")
    root.rename(away)
    root.mkdir()
    monkeypatch.setattr(os, "readv", Failing(os.readv, errno.ENOTCONN, 5))
    assert source.read(0) == b"a" * 100, "from what was open"
    assert source.read(1) == b"b" * 100


def test_a_file_system_that_was_mounted_again_is_opened_anew(source, root, monkeypatch) -> None:
    away = root.with_name("away")
    root.rename(away)
    root.mkdir()
    for name in ("a", "b"):
        (away / name).rename(root / name)
    monkeypatch.setattr(os, "readv", Failing(os.readv, errno.ENOTCONN, 1))
    with pytest.raises(BadImage, match="deleted"):
        source.read(0)  # nothing says that the folder is another
    monkeypatch.setattr(source, "_read", Failing(source._read, errno.ENOTCONN, 2))
    assert source.read(0) == b"a" * 100


def test_who_waits_goes_on_telling_that_he_lives(source, monkeypatch) -> None:
    told: list[int] = []
    monkeypatch.setattr("augd.dataset.readers.read_ahead._LOOK_S", 0.001)
    failing = Failing(source._read, errno.ESTALE, 20)
    monkeypatch.setattr(source, "_read", failing)
    for num_threads in (0, 1):
        failing.left = 20
        ahead = ReadAhead(source, num_threads=num_threads, on_wait=lambda: told.append(1))
        reading = ahead.submit([0, 1])
        while num_threads and failing.left == 20:
            pass  # until the thread has begun
        assert list(reading) == [b"a" * 100, b"b" * 100]
        assert told
        told.clear()
        assert ahead.close()


def test_a_store_error_of_a_reading_thread_reaches_who_takes(source, monkeypatch) -> None:
    monkeypatch.setattr(source.retries, "_patience_s", 0.01)
    monkeypatch.setattr(source, "_read", Failing(source._read, errno.EIO, 10**9))
    ahead = ReadAhead(source, num_threads=1)
    with pytest.raises(StoreError, match="Input/output error"):
        list(ahead.submit([0, 1]))
    assert ahead.close()
