"""Scanning a folder and its index: labels, order, digest, cache, and one line per mistake."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import read_index_header
from augd.dataset.scan import folder_listing
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.folder import scan
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError
from tests.support.datasets import refusal_of


def put(path: Path, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (len(path.name) % 256, 2, 3)).save(path, "PNG")


def settle(root: Path) -> None:
    """Set the folders' times to long ago, as those of a dataset are."""
    for path in (root, *(p for p in root.rglob("*") if p.is_dir())):
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name in ("dog/b.jpg", "dog/a.JPEG", "cat/z.png", "cat/deep/er/x.webp", "cat/a.jpg"):
        put(root / name, (20, 10) if name == "cat/a.jpg" else (8, 6))
    settle(root)
    return root


def built(root: Path, cache: Path, **options: bool) -> IndexFile:
    return load_or_build(root, cache_dir=cache, **options)


def paths(found: ScanResult) -> list[bytes]:
    return [found.path(sample) for sample in range(found.num_samples)]


def refusal(root: Path) -> str:
    return refusal_of(scan, root)


def test_class_folders(pets: Path) -> None:
    found = scan(pets)
    assert found.classes == ["cat", "dog"]
    assert paths(found) == [b"cat/a.jpg", b"cat/deep/er/x.webp", b"cat/z.png",
                            b"dog/a.JPEG", b"dog/b.jpg"]  # fmt: skip
    assert found.labels.tolist() == [0, 0, 0, 1, 1]
    first = (pets / "cat/a.jpg").stat()
    assert (found.sizes_bytes[0], found.mtimes_ns[0]) == (first.st_size, first.st_mtime_ns)
    assert sorted(found.watched) == [b"", b"cat", b"cat/deep", b"cat/deep/er", b"dog"]


def test_flat_folder(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.jpg", "c.PNG"):
        put(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = scan(tmp_path)
    assert found.classes == [] and found.labels.tolist() == [-1, -1, -1]
    assert paths(found) == [b"a.jpg", b"b.jpg", b"c.PNG"]


def test_order_is_that_of_path_bytes_and_labels_that_of_names(tmp_path: Path) -> None:
    """'a' comes before 'a.b' as a class, 'a.b/x' before 'a/x' as a path."""
    for name in ("a/x.jpg", "a.b/x.jpg", "a-c/x.jpg", "é/x.jpg"):
        put(tmp_path / name)
    found = scan(tmp_path)
    assert paths(found) == sorted(paths(found))
    assert found.classes == ["a", "a-c", "a.b", "é"]
    labels = dict(zip(paths(found), found.labels, strict=True))
    assert labels[b"a/x.jpg"] == 0 and labels[b"a.b/x.jpg"] == 2


def test_hidden_and_other_files_are_no_samples(pets: Path) -> None:
    put(pets / "cat" / ".hidden.jpg")
    put(pets / ".git" / "x.jpg")
    (pets / "cat" / "notes.txt").write_text("x")
    (pets / "cat" / "jpg").write_text("no dot, no extension")
    assert scan(pets).num_samples == 5


def test_what_is_not_a_regular_file_is_skipped(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(pets / "cat" / "pipe.jpg")
    (pets / "cat" / "folder.jpg").mkdir()
    monkeypatch.chdir(pets / "dog")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
        assert scan(pets).num_samples == 5


def test_links_that_stay_inside_are_followed(pets: Path) -> None:
    (pets / "dog" / "link.jpg").symlink_to("../cat/a.jpg")
    (pets / "wolf").symlink_to("dog")
    found = scan(pets)
    assert found.classes == ["cat", "dog", "wolf"]
    assert b"wolf/link.jpg" in paths(found) and found.num_samples == 9


@pytest.mark.parametrize("target", ["../../outside.jpg", "../../elsewhere"])
def test_links_that_leave_the_root_are_refused(pets: Path, target: str) -> None:
    put(pets.parent / "outside.jpg")
    put(pets.parent / "elsewhere" / "x.jpg")
    (pets / "cat" / "link.jpg").symlink_to(target)
    text = refusal(pets)
    assert f"link cat/link.jpg in {pets} leaves the dataset: it points to {target}." in text
    assert "Links must be relative and stay below the root" in text


def test_absolute_links_are_refused_even_inside(pets: Path) -> None:
    (pets / "dog" / "link.jpg").symlink_to(pets / "cat" / "a.jpg")
    assert "Links must be relative" in refusal(pets)


def test_links_into_a_root_of_like_name_leave(pets: Path) -> None:
    put(pets.parent / "pets2" / "x.jpg")
    (pets / "cat" / "link.jpg").symlink_to("../../pets2/x.jpg")
    assert "leaves the dataset" in refusal(pets)


def test_loops_and_dangling_links_are_refused(pets: Path) -> None:
    (pets / "cat" / "up").symlink_to("..")
    assert "link cat/up in" in refusal(pets) and "leads back to a folder above it" in refusal(pets)
    (pets / "cat" / "up").unlink()
    (pets / "cat" / "gone.jpg").symlink_to("nothing.jpg")
    assert "points to nothing.jpg, which cannot be followed. Remove the link." in refusal(pets)


def test_two_links_cannot_chase_each_other(pets: Path) -> None:
    (pets / "cat" / "toward").symlink_to("../dog")
    (pets / "dog" / "back").symlink_to("../cat")
    assert "leads back to a folder above it" in refusal(pets)


def test_missing_or_no_folder(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert refusal(missing) == f"dataset folder {missing} does not exist. Check the path."
    put(tmp_path / "x.jpg")
    assert "expected a folder, got a file" in refusal(tmp_path / "x.jpg")


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.svg").write_bytes(b"<svg/>")
    (tmp_path / "read.me").write_text("x")
    endings = "jpg jpeg jpe jfif png webp bmp tif tiff gif avif heic heif hif jxl"
    assert refusal(tmp_path) == (
        f"no images in {tmp_path}: looked for {endings}, saw 1 .svg (a/x.svg), 1 .me (read.me) in "
        f"2 folders. Give a folder of class folders, or one that holds images."
    )


def test_loose_images_beside_class_folders(pets: Path) -> None:
    put(pets / "loose.jpg")
    text = refusal(pets)
    assert "holds 1 image beside 2 folders with images (loose.jpg beside cat/)" in text
    assert "Move the loose images" in text


def test_an_empty_class_folder(pets: Path) -> None:
    (pets / "bird").mkdir()
    assert f"class folder bird in {pets} holds no images (1 such)" in refusal(pets)


def test_unreadable_folder(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: bytes) -> object:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(pets) == (
        f"dataset folder {pets} cannot be read: Permission denied. Check its permissions."
    )


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    put(tmp_path / os.fsdecode(b"cat/\xff\n.jpg"))
    assert paths(scan(tmp_path)) == [b"cat/\xff\n.jpg"]
    put(tmp_path / os.fsdecode(b"d\xff/x.jpg"))
    assert r"class folder d\xff in" in refusal(tmp_path)


def test_progress_is_reported_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_listing, "REPORT_EVERY", 20)
    for number in range(41):
        (tmp_path / f"{number}.jpg").touch()
    seen: list[int] = []
    scan(tmp_path, progress=seen.append)
    assert seen == [20, 40, 41]


def test_index_arrays(pets: Path, tmp_path: Path) -> None:
    file = built(pets, tmp_path)
    arrays = IndexArrays(file.fd, file.dims_fd)
    file.close()
    file.close()
    assert arrays.num_samples == 5 and arrays.classes == ("cat", "dog")
    assert arrays.digest == file.digest and len(file.digest) == 32
    assert arrays.labels.tolist() == [0, 0, 0, 1, 1] and arrays.labels.dtype == np.int64
    assert [arrays.path(i) for i in (0, 4)] == ["cat/a.jpg", "dog/b.jpg"]
    assert arrays.path_bytes(1) == b"cat/deep/er/x.webp"
    assert arrays.sizes_bytes[0] == (pets / "cat/a.jpg").stat().st_size
    assert arrays.mtimes_ns[4] == (pets / "dog/b.jpg").stat().st_mtime_ns
    assert arrays.first_size_px == file.first_size_px == (20, 10)
    assert not arrays.labels.flags.writeable
    for array in (arrays.labels, arrays.sizes_bytes, arrays.mtimes_ns):
        assert array.ctypes.data % 64 == 0


def test_sizes_sidecar_is_shared_and_kept(pets: Path, tmp_path: Path) -> None:
    file = built(pets, tmp_path)
    one, other = (IndexArrays(file.fd, file.dims_fd) for _ in range(2))
    assert one.dims.shape == (5, 2) and one.dims.dtype == np.int32 and not one.dims.any()
    one.dims[3] = (640, 480)
    assert other.dims[3].tolist() == [640, 480]
    file.close()
    again = built(pets, tmp_path)
    assert again.was_cached
    assert IndexArrays(again.fd, again.dims_fd).dims[3].tolist() == [640, 480]
    again.close()


def test_a_first_image_that_is_bad_has_no_size(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "a.jpg").write_bytes(b"not an image")
    file = built(pets, tmp_path)
    assert file.first_size_px is None
    file.close()


def test_the_index_of_an_unchanged_folder_is_used_again(pets: Path, tmp_path: Path) -> None:
    file = built(pets, tmp_path)
    assert not file.was_cached
    file.close()
    os.utime(pets / "cat")
    file = built(pets, tmp_path)
    assert file.was_cached and file.warning is None and file.num_samples == 5
    file.close()


@pytest.mark.parametrize("change", ["add", "remove", "nested", "rewritten", "asked"])
def test_changed_folders_are_scanned_again(pets: Path, tmp_path: Path, change: str) -> None:
    built(pets, tmp_path).close()
    if change == "add":
        put(pets / "dog" / "c.jpg")
    elif change == "remove":
        (pets / "dog" / "b.jpg").unlink()
    elif change == "nested":
        put(pets / "cat" / "deep" / "er" / "y.jpg")
    elif change == "rewritten":
        os.utime(pets / "cat" / "a.jpg", ns=(0, 1_000_000_000))
    file = built(pets, tmp_path, rebuild=change == "asked")
    assert not file.was_cached
    assert file.num_samples == 5 + {"add": 1, "nested": 1, "remove": -1}.get(change, 0)
    file.close()


def digest(root: Path, cache: Path) -> str:
    file = built(root, cache, rebuild=True)
    file.close()
    return file.digest


def test_digest_is_that_of_paths_sizes_and_labels(pets: Path, tmp_path: Path) -> None:
    first = digest(pets, tmp_path)
    moved = pets.rename(pets.parent / "moved")
    for path in moved.rglob("*"):
        os.utime(path)
    assert digest(moved, tmp_path) == first, "neither the root nor times are in it"
    seen = {first}
    (moved / "dog" / "b.jpg").rename(moved / "dog" / "c.jpg")
    seen.add(digest(moved, tmp_path))
    (moved / "dog" / "c.jpg").write_bytes(b"other size")
    seen.add(digest(moved, tmp_path))
    (moved / "dog").rename(moved / "wolf")
    seen.add(digest(moved, tmp_path))
    (moved / "wolf" / "c.jpg").unlink()
    seen.add(digest(moved, tmp_path))
    assert len(seen) == 5


def test_a_known_digest(tmp_path: Path) -> None:
    """Written down once: a change of the digest's definition breaks every saved state."""
    for name, content in (("a/1.jpg", b"12345"), ("b/2.png", b"123")):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(content)
    assert digest(tmp_path / "set", tmp_path) == "74b2660b9d5937d4dfc9c5505501d245"


def test_a_mapped_index_outlives_its_rebuild(pets: Path, tmp_path: Path) -> None:
    file = built(pets, tmp_path)
    arrays = IndexArrays(file.fd, file.dims_fd)
    (pets / "cat" / "a.jpg").unlink()
    newer = built(pets, tmp_path)
    assert newer.num_samples == 4 and arrays.num_samples == 5
    assert arrays.path(0) == "cat/a.jpg" and arrays.dims.shape == (5, 2)
    assert IndexArrays(file.fd, file.dims_fd).num_samples == 5
    file.close()
    newer.close()


def test_the_cache_is_private_and_does_not_pile_up(pets: Path, tmp_path: Path) -> None:
    cache = tmp_path / "augd" / "index"
    for number in range(3):
        put(pets / "dog" / f"{number}.jpg")
        built(pets, tmp_path).close()
    assert sorted(p.suffix for p in cache.iterdir()) == [".dims", ".idx"]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in cache.iterdir()} == {0o600}
    (cache / "0123.idx.9.tmp").touch()
    os.utime(cache / "0123.idx.9.tmp", (1, 1))
    (cache / "4567.idx.9.tmp").touch()
    pets.rename(pets.parent / "renamed")
    built(pets.parent / "renamed", tmp_path).close()
    assert sorted(p.suffix for p in cache.iterdir()) == [".dims", ".idx", ".tmp"]
    assert (cache / "4567.idx.9.tmp").exists(), "another daemon may be writing it"


def test_the_cache_follows_xdg(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    file = load_or_build(pets)
    assert file.path is not None and Path(file.path).parent == tmp_path / "xdg" / "augd" / "index"
    assert Path(file.path).stat().st_size == file.size_bytes
    file.close()


def test_without_a_cache_it_lives_in_memory(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = built(pets, tmp_path / "file")
    assert file.path is None and file.warning is not None
    assert f"the cache {tmp_path}/file/augd/index cannot be written" in file.warning
    assert "Set XDG_CACHE_HOME" in file.warning
    arrays = IndexArrays(file.fd, file.dims_fd)
    arrays.dims[0] = (3, 4)
    assert IndexArrays(file.fd, file.dims_fd).dims[0].tolist() == [3, 4]
    assert arrays.path(4) == "dog/b.jpg"
    file.close()


@pytest.mark.parametrize("damage", ["magic", "version", "length", "header", "short", "empty"])
def test_a_damaged_cache_is_made_anew(pets: Path, tmp_path: Path, damage: str) -> None:
    file = built(pets, tmp_path)
    file.close()
    assert file.path is not None
    path = Path(file.path)
    content = bytearray(path.read_bytes())
    if damage == "magic":
        content[0] ^= 1
    elif damage == "version":
        content[8] += 1
    elif damage == "length":
        content[12:16] = b"\xff\xff\xff\xff"
    elif damage == "header":
        content[20:40] = bytes(20)
    else:
        del content[len(content) - 5 if damage == "short" else 0 :]
    path.write_bytes(content)
    with path.open("rb") as opened, pytest.raises(DatasetError, match="index file: "):
        read_index_header(opened.fileno())
    again = built(pets, tmp_path)
    assert not again.was_cached and again.num_samples == 5
    again.close()


def test_a_sidecar_of_another_size_is_refused(pets: Path, tmp_path: Path) -> None:
    file = built(pets, tmp_path)
    with pytest.raises(DatasetError, match="sizes sidecar: expected 40 bytes for 5 samples"):
        IndexArrays(file.fd, file.fd)
    file.close()


def test_no_descriptor_is_left_open(pets: Path, tmp_path: Path) -> None:
    built(pets, tmp_path).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for rebuild in (False, True, False):
        built(pets, tmp_path, rebuild=rebuild).close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_class_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    for name in (b"cat", b"bl\xe9"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / "1.jpg").write_bytes(b"x")
    assert refusal(tmp_path) == (
        f"class folder bl\\xe9 in {tmp_path}: expected a name in UTF-8. Rename it."
    )
