"""Datasets of tar shards: their labels, the index beside them, and what lies in either."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from array import array
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from augd.cli.pack.command import index_shards
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_format import read_found, write_index
from augd.dataset.readers.open_source import open_source
from augd.dataset.readers.shards import ShardSource
from augd.dataset.scan.build_index import header_of, load_or_build
from augd.dataset.scan.shards import read_shards
from augd.dataset.scan_result import ScanResult
from augd.errors import DatasetError
from augd.pixels import native
from augd.pixels.decode import decode, decode_cut
from augd.pixels.headers.read_header import BadImage, read_header
from augd.pixels.jpeg_segments import Cut
from tests.support.datasets import refusal_of


def photo(number: int, interval: int = 1) -> bytes:
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (6, 6, 3), np.uint8)
    image = cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_RST_INTERVAL, interval])
    return data.tobytes()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two shards in WebDataset's layout, photos with restart markers."""
    root = tmp_path / "shards"
    root.mkdir()
    for shard in range(2):
        members = {}
        for number in range(3):
            key = f"{shard}{number}"
            members[f"{key}.jpg"] = photo(10 * shard + number)
            members[f"{key}.cls"] = b"%d\n" % (number % 2)
            members[f"{key}.txt"] = b"a caption"
        write_tar(root / f"part-{shard:03}.tar", members)
    return root


def paths(found: ScanResult) -> list[bytes]:
    return [found.path(sample) for sample in range(found.num_samples)]


def refusal(root: Path) -> str:
    return refusal_of(read_shards, os.fsencode(root))


def test_samples_and_classes_of_shards(root: Path) -> None:
    found = read_shards(os.fsencode(root))
    assert paths(found) == [b"00.jpg", b"01.jpg", b"02.jpg", b"10.jpg", b"11.jpg", b"12.jpg"]
    assert (found.classes, found.labels.tolist()) == (["0", "1"], [0, 1, 0, 0, 1, 0])
    for sample in range(6):
        shard = root / found.shards[found.shard_numbers[sample]].path.decode()
        at, size = found.shard_offsets[sample], found.sizes_bytes[sample]
        assert shard.read_bytes()[at : at + size] == photo(10 * (sample // 3) + sample % 3)


def test_class_names_lie_beside_the_shards(root: Path) -> None:
    (root / "classes.json").write_text('["wolf", "ape", "owl"]')
    found = read_shards(os.fsencode(root))
    assert (found.classes, found.labels.tolist()) == (["wolf", "ape", "owl"], [0, 1, 0, 0, 1, 0])
    (root / "classes.json").write_text('["wolf"]')
    assert "part-000.tar, 01.jpg: label: expected a number below 1 or a name" in refusal(root)


def test_labels_come_from_json_or_from_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"x/1.jpg": photo(1), "y/2.jpg": photo(2)})
    found = read_shards(os.fsencode(tmp_path))
    assert (found.classes, found.labels.tolist()) == (["x", "y"], [0, 1])
    write_tar(tmp_path / "a.tar", {
        "1.jpg": photo(1), "1.json": b'{"labels": ["sun", "sea"], "by": 7}',
        "2.jpg": photo(2), "2.json": b'{"labels": []}',
    })  # fmt: skip
    found = read_shards(os.fsencode(tmp_path))
    assert (found.classes, found.targets.tolist()) == (["sea", "sun"], [1, 1, 0, 0])
    write_tar(tmp_path / "a.tar", {"1.jpg": photo(1), "1.cls": b"ape", "2.jpg": photo(2)})
    assert "a.tar, 2.jpg: label: expected a class as in the rows before" in refusal(tmp_path)


def test_splits_come_from_the_shards_names(root: Path) -> None:
    assert not any(read_shards(os.fsencode(root)).splits)
    (root / "part-000.tar").rename(root / "pets-train-000.tar")
    assert not any(read_shards(os.fsencode(root)).splits), "of all shards, or of none"
    (root / "part-001.tar").rename(root / "pets-val-000.tar")
    assert list(read_shards(os.fsencode(root)).splits) == [1, 1, 1, 2, 2, 2]


def test_what_is_no_tar_is_refused_by_name(root: Path) -> None:
    whole = (root / "part-001.tar").read_bytes()
    for content, text in (
        (gzip.compress(whole), "part-001.tar is not a whole, uncompressed tar"),
        (whole[:1500], "00.jpg ends at byte"),
        (b"x" * 5000, "part-001.tar is not a whole, uncompressed tar"),
    ):
        (root / "part-001.tar").write_bytes(content)
        assert text.replace("00.jpg", "10.jpg") in refusal(root)
    for name in ("part-000.tar", "part-001.tar"):
        write_tar(root / name, {"readme.txt": b"none"})
    assert "hold no images: looked for members that end in jpg" in refusal(root)


def test_an_index_tells_the_same_and_more(root: Path, tmp_path: Path) -> None:
    walked = read_shards(os.fsencode(root))
    report = index_shards(str(root))
    assert (report["num_samples"], report["num_cut"], report["bad"]) == (6, 6, [])
    indexed = read_shards(os.fsencode(root))
    with closing(load_or_build(root, cache_dir=tmp_path)) as opened:
        assert indexed.digest == opened.digest
    for name in ("labels", "sizes_bytes", "paths", "shard_numbers", "shard_offsets", "shards"):
        assert getattr(indexed, name) == getattr(walked, name)
    assert indexed.sides_px.tolist() == [96, 64] * 6
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in root.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    assert read_shards(os.fsencode(copied)).digest == indexed.digest, "times may change"


def test_an_index_of_other_shards_is_refused(root: Path) -> None:
    index_shards(str(root))
    whole = (root / "part-001.tar").read_bytes()
    (root / "part-001.tar").write_bytes(whole + bytes(512))
    text = f"has changed: expected {len(whole)} bytes, got {len(whole) + 512}"
    assert text in refusal(root)
    assert "Remove it, or make it again: augd index" in refusal(root)
    (root / "part-001.tar").unlink()
    assert "shard part-001.tar is missing" in refusal(root)
    (root / "part-001.tar").write_bytes(whole)
    write_tar(root / "part-002.tar", {"a.jpg": photo(3)})
    assert "shard part-002.tar is not in it" in refusal(root)


def lie(root: Path, **fields: Any) -> None:
    """Write an index that is whole, and of which some arrays are changed."""
    fd = os.open(root / "augd.index", os.O_RDWR)
    try:
        found = read_found(fd)
        found.source, found.root = b"", os.fsencode(root)
        for name, value in fields.items():
            before = getattr(found, name)
            setattr(found, name, value if isinstance(value, str) else type_like(before, value))
        os.ftruncate(fd, 0)
        write_index(fd, header_of(found), found)
    finally:
        os.close(fd)


def type_like(before: Any, value: list[int]) -> Any:
    return array(before.typecode, value) if isinstance(before, array) else bytearray(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("digest", "../../../../etc/passwd"),
        ("labels", [0, 1, 0, 0, 2, 0]),
        ("labels", [0, 1, 0, 0, -2, 0]),
        ("splits", [0, 0, 0, 0, 0, 9]),
        ("path_offsets", [0, 6, 12, 1 << 40, 24, 30, 36]),
        ("path_offsets", [0, 6, 12, 9, 24, 30, 36]),
        ("shard_numbers", [0, 0, 0, 1, 1, 2]),
        ("shard_numbers", [0, 0, 0, 1, 1, -1]),
        ("shard_offsets", [512, 512, 512, 512, 512, 1 << 40]),
        ("shard_offsets", [512, 512, 512, 512, 512, -512]),
        ("sizes_bytes", [1, 1, 1, 1, 1, 1 << 62]),
        ("sizes_bytes", [1, 1, 1, 1, 1, -1]),
        ("sides_px", [96, 64] * 5 + [96, -64]),
        ("orientations", [1, 1, 1, 1, 1, 9]),
        ("mcus", [0x22] * 5 + [0x20]),
        ("intervals", [1, 1, 1, 1, 1, 0]),
        ("scan_offsets", [0, 0, 0, 0, 0, -1]),
        ("segment_starts", [0, 24, 48, 72, 96, 120, 1 << 40]),
    ],
)  # fmt: skip
def test_an_index_that_lies_is_refused(root: Path, name: str, value: Any) -> None:
    index_shards(str(root))
    lie(root, **{name: value})
    assert f"{name}" in refusal(root) and "can't be true" in refusal(root)


def arrays_of(root: Path) -> IndexArrays:
    index_shards(str(root))
    with closing(load_or_build(root, cache_dir=root.parent / "cache")) as opened:
        return IndexArrays(opened.fd, opened.dims_fd)


def test_a_region_is_read_by_its_segments(root: Path) -> None:
    indexed = arrays_of(root)
    assert indexed.dims.tolist() == [[96, 64]] * 6
    with open_source(indexed.root, indexed) as source:
        cut = source.read_region(4, (40, 40, 8, 8))
        assert isinstance(cut, Cut)
        part = cut.part()
        assert (part.x, part.y, part.image.width) == (32, 32, 96)
        whole = decode(photo(11), read_header(photo(11)), (40, 40, 8, 8))
        np.testing.assert_array_equal(decode_cut(cut, (40, 40, 8, 8)), whole)
        if native.has_own_entropy_decoder():
            everything = source.read_region(4, (0, 0, 96, 64))
            assert isinstance(everything, Cut), "nothing has to be put together"
            assert everything.data == photo(11)
        else:
            assert source.read_region(4, (0, 0, 96, 64)) == photo(11), "a part would save nothing"
        assert source.read_region(4, (90, 0, 8, 8)) == photo(11), (
            "of another size: see for yourself"
        )
        assert source.read(4) == photo(11)


@pytest.mark.skipif(not native.has_own_entropy_decoder(), reason="read in one call by the kernels")
def test_one_call_reads_what_two_would(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves to them what it can't read: they say what is wrong."""
    indexed = arrays_of(root)
    calls: list[bytearray | None] = []
    region = 40, 40, 8, 8

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(native.kernels, name)

        def read_cut(self, *arguments: Any) -> bytearray | None:
            calls.append(native.kernels.read_cut(*arguments))
            return calls[-1]

    with ShardSource(indexed.root, indexed) as source:
        monkeypatch.setattr(source, "_kernels", Watched())
        first = source.read_region(4, region)
        assert calls == [], "its shard is opened by the first one"
        second = source.read_region(4, region)
        assert isinstance(first, Cut) and isinstance(second, Cut)
        assert calls == [second.data]
        assert (first.data, first.cells) == (second.data, second.cells)
        shard = root / "part-001.tar"
        stamp = shard.stat().st_mtime_ns
        os.utime(shard, ns=(stamp, stamp + 1))
        with pytest.raises(BadImage, match=r"changed since it was indexed: expected"):
            source.read_region(4, region)
        os.utime(shard, ns=(stamp, stamp))
        table = indexed.segments(4)
        assert table is not None
        arguments = (
            *(table.lengths, table.columns, table.rows, 0, 0, table.columns, table.rows),
            *(source._fds[1], table.scan_offset, int(indexed.shard_offsets[4])),
        )
        size = shard.stat().st_size
        read = native.kernels.read_cut
        assert read(*arguments, len(photo(11)), size, stamp) == photo(11)
        assert read(*arguments, len(photo(11)) - 1, size, stamp) is None, "beyond the sample"
        assert read(*arguments, len(photo(11)), size - 1, stamp) is None
        assert read(*arguments, 2**40, size, stamp) is None
        assert read(*arguments[:-1], 2**63 - 1, len(photo(11)), size, stamp) is None
        assert read(*arguments[:-1], size - 9, len(photo(11)), size, stamp) is None, "its end"
        assert read(*arguments[:-1], -1, len(photo(11)), size, stamp) is None
        with pytest.raises(ValueError, match="lengths: expected uint16"):
            read(table.lengths[:-1], *arguments[1:], len(photo(11)), size, stamp)
        with pytest.raises(ValueError, match="cells: expected a part of the segments"):
            read(*arguments[:3], 1, *arguments[4:], len(photo(11)), size, stamp)


def test_a_changed_shard_makes_bad_samples(root: Path) -> None:
    indexed = arrays_of(root)
    shard = root / "part-001.tar"
    with ShardSource(indexed.root, indexed) as source:
        source.read(0)
        stamp = shard.stat().st_mtime_ns
        os.utime(shard, ns=(stamp, stamp + 1))
        for read in (lambda: source.read(4), lambda: source.read_region(4, (0, 0, 8, 8))):
            with pytest.raises(BadImage, match=r"its shard part-001\.tar changed since it was ind"):
                read()
        shard.unlink()
    with ShardSource(indexed.root, indexed) as source:
        with pytest.raises(
            BadImage, match=r"its shard part-001\.tar: deleted since it was indexed"
        ):
            source.read(4)
        shard.symlink_to("/etc/passwd")
        with pytest.raises(BadImage, match=r"part-001\.tar: a link that leaves the dataset's root"):
            source.read(4)


def test_nothing_but_files_in_the_folder_itself_is_read(root: Path, tmp_path: Path) -> None:
    (root / "part-001.tar").rename(tmp_path / "elsewhere.tar")
    (root / "part-001.tar").symlink_to(tmp_path / "elsewhere.tar")
    assert "part-001.tar: a link that leads out of the dataset" in refusal(root)
    (root / "part-001.tar").unlink()
    for name in ("augd.index", "classes.json"):
        os.mkfifo(root / name)
        assert f"{name}: expected a file, got none. Remove it." in refusal(root)
        (root / name).unlink()


def test_labels_that_are_hostile(root: Path) -> None:
    (root / "classes.json").write_text('["wolf", "ape"]')
    for ending, content, text in (
        ("cls", b"9" * 5000, "expected a number below 2"),
        ("json", b'{"labels": "\xff\xfe"}', "labels: expected a list of names"),
    ):
        write_tar(root / "part-001.tar", {"1.jpg": photo(1), f"1.{ending}": content})
        assert text in refusal(root)


def test_more_shards_than_descriptors(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed = arrays_of(root)
    monkeypatch.setattr("augd.dataset.readers.shards._OPEN_MAX", 1)
    with ShardSource(indexed.root, indexed) as source:
        for sample in (0, 3, 1, 4):
            assert source.read(sample) == photo(10 * (sample // 3) + sample % 3)
        assert len(source._fds) == 1


def test_damaged_indexes_and_shards_never_do_worse_than_be_refused(
    root: Path, tmp_path: Path
) -> None:
    """Any flipped byte: a named error, a bad sample, or bytes."""
    index_shards(str(root))
    index = root / "augd.index"
    good = index.read_bytes()
    rng = np.random.default_rng(5)
    num_refused = num_read = 0
    for _ in range(100):
        damaged = bytearray(good)
        for place in rng.integers(0, len(good), 3).tolist():
            damaged[place] = int(rng.integers(256))
        index.write_bytes(damaged)
        try:
            opened = load_or_build(root, cache_dir=tmp_path / "cache", rebuild=True)
        except DatasetError as error:
            assert "augd.index" in str(error)
            num_refused += 1
            continue
        arrays = IndexArrays(opened.fd, opened.dims_fd)
        with open_source(arrays.root, arrays) as source:
            for sample in range(6):
                try:
                    found = source.read_region(sample, (40, 40, 8, 8))
                    assert isinstance(found, bytearray | Cut)
                except BadImage:
                    pass
                num_read += 1
        opened.close()
    assert num_refused > 20
    assert num_read > 60


def test_a_folder_of_photos_is_not_taken_for_shards(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    write_tar(tmp_path / "backup.tar", {"b.jpg": photo(2)})
    with pytest.raises(DatasetError, match=r"holds no .tar shards, or images beside th"):
        index_shards(str(tmp_path))
    with pytest.raises(DatasetError, match=r"'backup\.tar' beside 'a\.jpg'.*which are the dataset"):
        load_or_build(tmp_path, cache_dir=tmp_path / "cache")
    (tmp_path / "photos").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "photos" / "a.jpg")
    opened = load_or_build(tmp_path, cache_dir=tmp_path / "cache")
    assert (opened.num_samples, opened.header.shards) == (1, [])
    opened.close()


def test_the_index_is_frozen(root: Path) -> None:
    """Its bytes hold neither times nor places, so that the same shards have the same index."""
    index_shards(str(root))
    first = (root / "augd.index").read_bytes()
    (root / "augd.index").unlink()
    for path in root.glob("*.tar"):
        os.utime(path, ns=(1, 1))
    index_shards(str(root))
    assert (root / "augd.index").read_bytes() == first
    assert os.fsencode(root) not in first
    fd = os.open(root / "augd.index", os.O_RDONLY)
    assert msgspec.structs.asdict(read_found(fd))["watched"] == {}
    os.close(fd)
