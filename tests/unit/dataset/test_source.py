"""Reading samples: only regular, unchanged files below the root, and ahead of their use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from augd.dataset.readers.read_ahead import ReadAhead, Reading
from augd.dataset.readers.source import FolderSource
from augd.pixels.headers.read_header import BadImage
from tests.support.datasets import Listed

NAMES = [f"{'ab'[n % 2]}/{n}.jpg" for n in range(40)]


def content(sample: int) -> bytes:
    return bytes([sample]) * (100 + sample)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    for sample, name in enumerate(NAMES):
        (root / name).write_bytes(content(sample))
    return root


@pytest.fixture(params=["openat2", "realpath"])
def source(root: Path, request: pytest.FixtureRequest) -> Iterator[FolderSource]:
    with FolderSource(root, Listed(root, NAMES)) as opened:
        if request.param == "realpath":
            opened._root._has_openat2 = False
        elif not opened._root._has_openat2:
            pytest.skip("this kernel has no openat2")
        yield opened


def reason(source: FolderSource, sample: int) -> str:
    with pytest.raises(BadImage) as caught:
        source.read(sample)
    return str(caught.value)


def replace(path: Path, by: Callable[[Path], object]) -> None:
    """Put something else in a file's place."""
    path.unlink()
    by(path)


def test_read(source: FolderSource) -> None:
    for sample in (0, 7, 39):
        assert source.read(sample) == content(sample)
    assert source.path(3) == "b/3.jpg"


def test_changed_files_are_bad(source: FolderSource, root: Path) -> None:
    with (root / NAMES[1]).open("ab") as file:
        file.write(b"x")
    assert reason(source, 1) == "changed since it was indexed: expected 101 bytes, got 102"
    old = (root / NAMES[2]).stat().st_mtime_ns
    os.utime(root / NAMES[2], ns=(5, 5))
    assert reason(source, 2) == (
        f"changed since it was indexed: expected a modification time of {old} ns, got 5"
    )


def test_deleted_files_are_bad(source: FolderSource, root: Path) -> None:
    (root / NAMES[0]).unlink()
    assert reason(source, 0) == "deleted since it was indexed"
    (root / "b").rename(root / "c")
    assert reason(source, 1) == "deleted since it was indexed"


def test_empty_and_huge_files_are_bad(root: Path) -> None:
    (root / "a" / "empty.jpg").touch()
    with (root / "a" / "huge.jpg").open("wb") as file:
        file.truncate((512 << 20) + 1)
    names = ["a/empty.jpg", "a/huge.jpg"]
    with FolderSource(root, Listed(root, names)) as source:
        assert reason(source, 0) == "the file is empty"
        assert reason(source, 1) == "too large: expected at most 536,870,912 bytes, got 536,870,913"


def test_what_is_no_regular_file_is_bad_and_does_not_block(
    source: FolderSource, root: Path
) -> None:
    replace(root / NAMES[0], os.mkfifo)
    assert reason(source, 0) == "not a regular file"
    replace(root / NAMES[1], Path.mkdir)
    assert reason(source, 1) == "not a regular file"


@pytest.mark.parametrize("target", ["../../outside.jpg", "/etc/hostname", "../../gone"])
def test_links_that_leave_the_root_are_not_followed(
    source: FolderSource, root: Path, target: str
) -> None:
    (root.parent / "outside.jpg").write_bytes(b"secret")
    replace(root / NAMES[0], lambda path: path.symlink_to(target))
    assert "a link that leaves the dataset's root: links must stay below it" in reason(source, 0)


def test_a_folder_replaced_by_a_link_outside_is_not_followed(
    source: FolderSource, root: Path
) -> None:
    (root / "b").rename(root.parent / "b")
    (root / "b").symlink_to("../b")
    assert "leaves the dataset's root" in reason(source, 1)


def test_links_inside_are_read(source: FolderSource, root: Path) -> None:
    (root / NAMES[0]).rename(root / "a" / "moved")
    (root / NAMES[0]).symlink_to("moved")
    assert source.read(0) == content(0)


def test_unreadable_files_are_bad(source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: bytes) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source._root, "_open", refuse)
    assert reason(source, 0) == "cannot be opened: Permission denied"


def test_a_file_cut_while_it_is_read_is_bad(
    source: FolderSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_readv = os.readv
    calls: list[int] = []

    def short(fd: int, buffers: tuple[bytearray | memoryview]) -> int:
        calls.append(fd)
        return true_readv(fd, (memoryview(buffers[0])[:30],)) if len(calls) < 2 else 0

    monkeypatch.setattr(os, "readv", short)
    assert reason(source, 5) == "cut off: expected 105 bytes, got 30"


def test_a_file_written_to_while_it_is_read_is_bad(
    source: FolderSource, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true_readv = os.readv

    def written(fd: int, buffers: tuple[bytearray | memoryview]) -> int:
        num_read = true_readv(fd, (memoryview(buffers[0])[:30],))
        os.utime(root / NAMES[5], ns=(0, 1))
        return num_read

    monkeypatch.setattr(os, "readv", written)
    assert "expected a modification time of" in reason(source, 5)


def test_short_reads_are_continued(source: FolderSource, monkeypatch: pytest.MonkeyPatch) -> None:
    true_readv = os.readv
    monkeypatch.setattr(os, "readv", lambda fd, b: true_readv(fd, (memoryview(b[0])[:30],)))
    assert source.read(5) == content(5)


def test_no_descriptor_is_left_open(source: FolderSource, root: Path) -> None:
    replace(root / NAMES[0], os.mkfifo)
    (root / NAMES[1]).write_bytes(b"changed")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for sample in range(10):
        try:
            source.read(sample)
        except BadImage:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def ahead(root: Path) -> Iterator[ReadAhead]:
    with FolderSource(root, Listed(root, NAMES)) as opened:
        reading = ReadAhead(opened, num_threads=3)
        yield reading
        assert reading.close(10.0)


def rows(reading: Reading) -> list[bytes | str]:
    return [str(row) if isinstance(row, BadImage) else bytes(row) for row in reading]


def test_rows_come_in_order(ahead: ReadAhead) -> None:
    order = [5, 0, 39, 7, 7, *range(20, 38)]
    first, second = ahead.submit(order), ahead.submit(range(9))
    assert rows(first) == [content(sample) for sample in order]
    assert rows(second) == [content(sample) for sample in range(9)]
    assert rows(ahead.submit([])) == []
    assert ahead._held_bytes == 0


def test_without_threads_rows_are_read_where_they_are_taken(root: Path) -> None:
    readers: set[int] = set()

    class Noted(FolderSource):
        def read(self, sample: int) -> bytearray:
            readers.add(threading.get_ident())
            return super().read(sample)

    with Noted(root, Listed(root, NAMES)) as opened:
        ahead = ReadAhead(opened, num_threads=0)
        for _ in range(3):
            reading = ahead.submit(list(range(20)))
            assert [bytes(row) for row in reading] == [content(n) for n in range(20)]
            ahead.submit(list(range(20))).cancel()
        assert readers == {threading.get_ident()}
        assert not ahead._waiting, "nothing is kept that no thread will ever take"
        assert ahead.close()


def test_chunks_may_be_taken_in_another_order(ahead: ReadAhead) -> None:
    first, second = ahead.submit(range(20)), ahead.submit(range(20, 40))
    assert rows(second)[0] == content(20)
    assert rows(first)[19] == content(19)


def test_a_bad_file_is_a_value_in_its_row(ahead: ReadAhead, root: Path) -> None:
    (root / NAMES[3]).unlink()
    (root / NAMES[11]).write_bytes(b"")
    found = rows(ahead.submit(range(16)))
    assert found[3] == "deleted since it was indexed"
    assert found[11] == "changed since it was indexed: expected 111 bytes, got 0"
    assert [n for n in range(16) if found[n] != content(n)] == [3, 11]


def test_a_failure_in_a_thread_is_a_value_too(
    ahead: ReadAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(sample: int) -> bytearray:
        raise MemoryError("no room")

    monkeypatch.setattr(ahead._source, "read", fail)
    assert rows(ahead.submit([1])) == ["reading failed: MemoryError('no room')"]


@pytest.mark.parametrize("max_bytes", [1, 250, 1000, 1 << 20])
def test_the_budget_bounds_what_lies_read(root: Path, max_bytes: int) -> None:
    """Even a budget smaller than every file only delays: such rows are read on demand."""
    most = 0
    with FolderSource(root, Listed(root, NAMES)) as source:
        ahead = ReadAhead(source, num_threads=2, max_bytes=max_bytes, rows_per_slice=4)
        chunks = [ahead.submit(range(at, at + 10)) for at in range(0, 40, 10)]
        found: list[bytes] = []
        for chunk in chunks:
            for row in chunk:
                most = max(most, ahead._held_bytes)
                assert isinstance(row, bytearray)
                found.append(bytes(row))
        assert ahead.close(10.0)
    assert found == [content(sample) for sample in range(40)]
    assert most <= max_bytes and ahead._held_bytes == 0


def test_slices_are_few_rows_and_few_bytes(ahead: ReadAhead) -> None:
    slices = list(ahead._slices(range(20), [None] * 20))
    assert [list(s.samples) for s in slices] == [
        list(range(8)),
        list(range(8, 16)),
        list(range(16, 20)),
    ]
    ahead._slicing = 8, 250
    assert max(len(s.samples) for s in ahead._slices(range(20), [None] * 20)) == 2
    ahead._slicing = 8, 1
    assert [len(s.samples) for s in ahead._slices(range(20), [None] * 20)] == [1] * 20


def test_cancelled_rows_give_their_budget_back(root: Path) -> None:
    with FolderSource(root, Listed(root, NAMES)) as source:
        ahead = ReadAhead(source, max_bytes=2000, rows_per_slice=2)
        for _ in range(20):
            chunk = ahead.submit(range(40))
            next(iter(chunk))
            chunk.cancel()
            assert rows(chunk) == []
        assert rows(ahead.submit(range(40))) == [content(sample) for sample in range(40)]
        assert ahead.close(10.0) and ahead._held_bytes == 0


def test_a_slice_cancelled_while_it_is_read_gives_its_budget_back(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, started = threading.Event(), threading.Event()
    with FolderSource(root, Listed(root, NAMES)) as source:
        true_read = source.read

        def slow(sample: int) -> bytearray:
            started.set()
            assert release.wait(10.0)
            return true_read(sample)

        monkeypatch.setattr(source, "read", slow)
        ahead = ReadAhead(source, num_threads=1)
        chunk = ahead.submit([4])
        assert started.wait(10.0)
        chunk.cancel()
        assert ahead._held_bytes == 104, "its thread still holds it"
        release.set()
        assert ahead.close(10.0)
        assert ahead._held_bytes == 0


def test_close_ends_the_threads(root: Path) -> None:
    before = threading.active_count()
    with FolderSource(root, Listed(root, NAMES)) as source:
        ahead = ReadAhead(source, num_threads=4)
        chunk = ahead.submit(range(40))
        assert threading.active_count() == before + 4
        assert ahead.close(10.0)
        assert threading.active_count() == before
        with pytest.raises(RuntimeError, match="read-ahead is closed"):
            ahead.submit([1])
        assert rows(chunk) == [content(sample) for sample in range(40)]


class Far(FolderSource):
    """A disk where each file takes its time, while that is `pause_s`."""

    pause_s = 0.01

    def read(self, sample: int) -> bytearray:
        time.sleep(self.pause_s)
        return super().read(sample)


@pytest.fixture
def far(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    monkeypatch.setattr("augd.dataset.readers.read_ahead._LOOK_S", 0.1)
    before = threading.active_count()
    with Far(root, Listed(root, NAMES)) as opened:
        yield opened
    assert threading.active_count() == before


def take_all(ahead: ReadAhead, num_chunks: int) -> None:
    for chunk in [ahead.submit(range(40)) for _ in range(num_chunks)]:
        assert rows(chunk) == [content(sample) for sample in range(40)]


def test_more_is_read_at_once_while_files_come_slowly(far: Far) -> None:
    before = threading.active_count()
    ahead = ReadAhead(far, threads_max=7)
    take_all(ahead, 10)
    assert (ahead.num_added, threading.active_count()) == (5, before + 7)
    assert max(len(part.samples) for part in ahead._slices(range(40), [None] * 40)) == 2
    assert ahead.close(10.0) and ahead._held_bytes == 0


def test_few_large_slices_become_small_ones(far: Far) -> None:
    """All are claimed, each by a thread that reads its files one after another."""
    ahead = ReadAhead(far)
    until = time.monotonic() + 60.0
    while ahead.num_added <= 2 and time.monotonic() < until:
        assert rows(ahead.submit(range(16))) == [content(sample) for sample in range(16)]
    assert ahead.num_added > 2
    assert ahead.close(10.0)


def test_no_reader_is_added_where_the_taker_does_not_wait(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files come slowly, and what is done with them takes longer; there are always more to read."""
    monkeypatch.setattr("augd.dataset.readers.read_ahead._LOOK_S", 1.0)
    ahead = ReadAhead(far)
    chunk, *more = [ahead.submit(range(40)) for _ in range(20)]
    for _ in chunk:
        time.sleep(0.04)
        assert ahead._waiting
    assert ahead.num_added == 0
    for reading in more:
        reading.cancel()
    assert ahead.close(10.0)


def test_no_reader_is_added_for_files_in_memory(far: Far) -> None:
    far.pause_s = 0.0
    ahead = ReadAhead(far)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        take_all(ahead, 20)
    assert ahead.num_added == 0, "nothing is done with them, so that all the time is waiting"
    assert ahead.close(10.0)


def test_no_reader_is_added_where_the_budget_is_full(far: Far) -> None:
    ahead = ReadAhead(far, max_bytes=150)
    take_all(ahead, 3)
    assert ahead.num_added == 0
    assert ahead.close(10.0) and ahead._held_bytes == 0


def test_a_system_that_gives_no_more_threads_ends_no_stream(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = ReadAhead(far)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    take_all(ahead, 6)
    assert ahead.num_added == 0
    assert ahead.close(10.0)


def test_one_word_wakes_as_many_readers_as_there_are_slices(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3)
    with FolderSource(root, Listed(root, NAMES)) as opened:
        read = opened.read

        def meet(sample: int) -> bytearray:
            together.wait(10.0)
            return read(sample)

        monkeypatch.setattr(opened, "read", meet)
        ahead = ReadAhead(opened, num_threads=3, rows_per_slice=1)
        reading = ahead.submit([1, 2, 3])
        deadline = time.monotonic() + 10
        while any(part.rows is None for part in reading._slices):
            assert time.monotonic() < deadline, "nobody takes them: each has a reader of its own"
            time.sleep(0.01)
        assert rows(reading) == [content(sample) for sample in (1, 2, 3)]
        assert ahead.close(10.0)


def test_what_is_taken_makes_room_for_the_next(root: Path) -> None:
    with FolderSource(root, Listed(root, NAMES)) as opened:
        ahead = ReadAhead(opened, num_threads=1, rows_per_slice=1, max_bytes=150)
        reading = ahead.submit([1, 2])
        first, second = reading._slices
        deadline = time.monotonic() + 10
        while first.rows is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert second.rows is None
        assert bytes(next(iter(reading))) == content(1)  # type: ignore[arg-type]
        while second.rows is None:
            assert time.monotonic() < deadline, "its reader was told"
            time.sleep(0.01)
        reading.cancel()
        assert ahead.close(10.0)


def test_close_says_when_a_thread_does_not_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, started = threading.Event(), threading.Event()
    with FolderSource(root, Listed(root, NAMES)) as source:

        def hang(sample: int) -> bytearray:
            started.set()
            release.wait(10.0)
            return bytearray(b"late")

        monkeypatch.setattr(source, "read", hang)
        ahead = ReadAhead(source, num_threads=1)
        ahead.submit([1])
        assert started.wait(10.0)
        assert not ahead.close(0.0)
        release.set()
        assert ahead.close(10.0)
