"""When a cached index holds: a look at each file decides, and what changed is named."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_changes import Change, say_change, told
from augd.dataset.index_file import IndexFile
from augd.dataset.scan import folder_listing
from augd.dataset.scan.build_index import load_or_build

Open = Callable[..., IndexFile]
A_YEAR_NS = 365 * 86400 * 10**9


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    files: list[IndexFile] = []

    def open_index(source: Path, **options: bool) -> IndexFile:
        files.append(load_or_build(source, cache_dir=tmp_path / "cache", **options))
        return files[-1]

    yield open_index
    for file in files:
        file.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/0.jpg", "a/1.jpg", "b/2.jpg"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)
    (tmp_path / "set" / "list.csv").write_text("path,label\na/0.jpg,x\na/1.jpg,y\nb/2.jpg,y\n")
    return tmp_path / "set"


def replace(path: Path, content: bytes = b"y" * 10) -> None:
    """Write a file in place, under another time: its folder's time stays as it was."""
    found = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000_000))


@pytest.mark.parametrize("source", [".", "list.csv"])
def test_a_file_rewritten_in_place_is_noticed_and_named(
    root: Path, opened: Open, source: str
) -> None:
    first = opened(root / source)
    assert (first.was_cached, first.change) == (False, None)
    assert opened(root / source).was_cached
    replace(root / "a/1.jpg")
    second = opened(root / source)
    assert (second.was_cached, second.change) == (False, "files 1 changed: a/1.jpg")
    assert second.digest == first.digest and second.header.stamp != first.header.stamp
    assert opened(root / source).was_cached
    replace(root / "b/2.jpg", b"another size")
    third = opened(root / source)
    assert third.change == "files 1 changed: b/2.jpg" and third.digest != first.digest


@pytest.mark.parametrize("is_cached", [False, True])
def test_folders_times_say_nothing(root: Path, opened: Open, is_cached: bool) -> None:
    """As on FUSE and object-store mounts, where they never change, or with each listing."""
    first = opened(root)
    found = (root / "a").stat()
    if not is_cached:
        (root / "a/9.jpg").write_bytes(b"new")
        (root / "b/2.jpg").unlink()
        (root / "b/3.jpg").write_bytes(b"x" * 10)
    os.utime(root / "a", ns=(found.st_atime_ns, found.st_mtime_ns + is_cached * A_YEAR_NS))
    again = opened(root)
    assert again.was_cached == is_cached
    if not is_cached:
        assert again.num_samples == first.num_samples + 1
        assert again.change == "files 2 added and 1 removed: a/9.jpg, b/3.jpg, b/2.jpg"


def test_times_enter_neither_digest_nor_order(root: Path, opened: Open, tmp_path: Path) -> None:
    first = opened(root)
    copy = tmp_path / "copy"
    for path in root.rglob("*.jpg"):
        (copy / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(root)).write_bytes(path.read_bytes())
        os.utime(copy / path.relative_to(root), ns=(0, 1_000_000_000))
    second = opened(copy)
    assert second.digest == first.digest and second.header.stamp != first.header.stamp
    assert (second.change, second.header.history) == (None, [])


def test_what_changed_is_kept_from_start_to_start(root: Path, opened: Open) -> None:
    stamps = [opened(root).header.stamp]
    for name in ("a/0.jpg", "a/1.jpg"):
        replace(root / name)
        stamps.append(opened(root).header.stamp)
    last = opened(root, rebuild=True)
    assert list(told(last.header.history)) == [
        (stamps[0], "files 2 changed: a/0.jpg, a/1.jpg"),
        (stamps[1], "files 1 changed: a/1.jpg"),
    ]
    assert last.change is None and not last.was_cached


def test_many_changes_are_bounded(root: Path, opened: Open) -> None:
    for number in range(30):
        (root / f"a/new-{number:02}.jpg").write_bytes(b"x")
        index = opened(root)
    assert len(index.header.history) == 8
    for number in range(30):
        (root / f"a/more-{number:02}.jpg").write_bytes(b"x")
    change = opened(root).change
    assert change is not None and change.startswith("files 30 added: a/more-00.jpg, a/more-01.jpg")
    assert change.endswith("a/more-09.jpg, ...")


def test_sizes_of_images_that_were_replaced_are_forgotten(root: Path, opened: Open) -> None:
    first = opened(root)
    IndexArrays(first.fd, first.dims_fd).dims[:] = 7
    replace(root / "a/1.jpg")
    second = opened(root)
    assert IndexArrays(second.fd, second.dims_fd).dims.tolist() == [[7, 7], [0, 0], [7, 7]]


def test_shards_are_judged_one_by_one(tmp_path: Path, opened: Open) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    for name in ("s-0.tar", "s-1.tar"):
        with tarfile.open(root / name, "w") as file:
            for ending, content in (("jpg", b"abc"), ("cls", b"0")):
                about = tarfile.TarInfo(f"{name[:3]}.{ending}")
                about.size = len(content)
                file.addfile(about, io.BytesIO(content))
    os.utime(root, ns=(0, 10**18))
    first = opened(root)
    assert opened(root).was_cached
    replace(root / "s-1.tar", (root / "s-1.tar").read_bytes())
    second = opened(root)
    assert (second.was_cached, second.change) == (False, "files 1 changed: s-1.tar")
    assert second.digest == first.digest
    (root / "s-2.tar").write_bytes((root / "s-0.tar").read_bytes())
    os.utime(root, ns=(0, 10**18))
    assert opened(root).change == "files 1 added: s-2.tar"
    (root / "classes.json").write_text('["a"]')
    os.utime(root, ns=(0, 10**18))
    named = opened(root)
    assert (named.was_cached, named.classes) == (False, ["a"])
    assert opened(root).was_cached and not opened(root, rebuild=True).was_cached


def test_files_that_come_slowly_are_looked_at_by_threads(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked of a file in one go counts as slow here."""
    for number in range(200):
        path = tmp_path / "set" / f"{number % 3}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
    first = opened(tmp_path / "set")
    names: set[str] = set()
    look_up = folder_listing._look_up

    def noted(files: object) -> None:
        names.add(threading.current_thread().name.partition("_")[0])
        look_up(files)  # type: ignore[arg-type]

    monkeypatch.setattr(folder_listing, "_look_up", noted)
    monkeypatch.setattr(folder_listing, "_SLOW_S", 0.0)
    second = opened(tmp_path / "set")
    assert second.was_cached and second.header == first.header
    assert names == {"MainThread", "look-at-files"}


def test_a_line_names_no_more_than_ten() -> None:
    change = Change("s", "d", 3, 0, 1, [b"a\nb", b"c" * 500])
    said = say_change([change, change])
    assert said == f"files 6 changed and 2 removed: a\\nb, {'c' * 160}, ..."
