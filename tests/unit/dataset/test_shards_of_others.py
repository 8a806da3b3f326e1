"""Shards that others have made: what is neither photo nor label costs neither.

WebDataset's reader says what belongs together; where it would lose a label, the label is kept or
the loss is said.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from augd.cli.pack.command import index_shards
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan import shard_sidecars
from augd.dataset.scan import tar as tars
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.shard_sidecars import read_class, read_object
from augd.dataset.scan.shards import walk_shards
from augd.dataset.scan_result import ScanResult, Skipped
from augd.errors import DatasetError


def image(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 2, 3)).save(out, "PNG")
    return out.getvalue()


Content = bytes | tarfile.TarInfo


def link(target: str, kind: bytes = tarfile.LNKTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def tar(members: list[tuple[str, Content]], format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as shard:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, tarfile.TarInfo):
                shard.addfile(info)
            else:
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return out.getvalue()


def labelled(*numbers: int) -> list[tuple[str, Content]]:
    return [
        one for n in numbers for one in ((f"{n}.jpg", image(n)), (f"{n}.cls", str(n % 2).encode()))
    ]


def walk(folder: Path, members: list[tuple[str, Content]], name: str = "a.tar") -> ScanResult:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(tar(members))
    return walk_shards(os.fsencode(folder))


def rows(found: ScanResult) -> dict[str, int]:
    names = [os.fsdecode(found.path(k)) for k in range(found.num_samples)]
    assert len(set(names)) == len(names)
    return dict(zip(names, found.labels, strict=True))


def passed(found: ScanResult) -> dict[str, list[bytes]]:
    return {one.kind: one.names for one in found.skipped}


SIDECARS = {
    "NaN": b'{"similarity": NaN, "x": [Infinity, -Infinity]}',
    "a lone surrogate": b'{"caption": "\\ud800"}',
    "Latin-1": b'{"caption": "\xe9t\xe9"}',
    "a byte order mark": b'\xef\xbb\xbf{"caption": "x"}',
    "UTF-16": json.dumps({"caption": "x"}).encode("utf-16"),
    "null labels": b'{"label": null, "labels": null, "split": null}',
    "null": b"null",
    "a list": b"[1, 2]",
    "nothing": b"",
    "no JSON": b"{'a': 1}",
    "endless nesting": b"[" * 100_000,
    "a NaN for a label": b'{"label": NaN}',
    "an object for a label": b'{"label": {"a": 1}}',
    "a number of 5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("sidecar", SIDECARS.values(), ids=SIDECARS)
def test_a_class_in_cls_needs_nothing_of_the_sidecar(tmp_path: Path, sidecar: bytes) -> None:
    members = labelled(0, 1)
    members.insert(2, ("0.json", sidecar))
    assert rows(walk(tmp_path, members)) == {"0.jpg": 0, "1.jpg": 1}


def test_labels_beside_what_only_python_reads(tmp_path: Path) -> None:
    members: list[tuple[str, Content]] = []
    for n, odd in enumerate((b'"a": NaN', b'"a": "\\ud800"', b'"a": "\xe9"', b'"a": -Infinity')):
        members += [(f"{n}.jpg", image(n)), (f"{n}.json", b'{"label": %d, %s}' % (n, odd))]
    members += [("4.jpg", image(4)), ("4.json", b'\xef\xbb\xbf{"label": 4}')]
    assert rows(walk(tmp_path, members)) == {f"{n}.jpg": n for n in range(5)}


def test_an_image_whose_label_cannot_be_read_is_passed_over_and_named(tmp_path: Path) -> None:
    members = [("9.jpg", image(9)), ("9.json", b"{"), *labelled(0, 1),
               ("5.jpg", image(5)), ("5.cls", b" \n")]  # fmt: skip
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert found.skipped == [
        Skipped(f"whose label cannot be read ({what})", 1, [name], is_image=True)
        for what, name in ((".json that does not decode", b"a.tar/9.jpg"),
                           ("empty .cls", b"a.tar/5.jpg"))
    ]  # fmt: skip


def test_where_nobody_has_a_label_none_is_missed(tmp_path: Path) -> None:
    members = [("0.jpg", image(0)), ("0.json", b"{"), ("1.jpg", image(1)),
               ("1.json", b'{"caption": "x"}')]  # fmt: skip
    assert rows(walk(tmp_path, members)) == {"0.jpg": -1, "1.jpg": -1}
    assert rows(walk(tmp_path, members[:2])) == {"0.jpg": -1}


def test_a_folder_is_a_label_beside_a_sidecar_that_cannot_be_read(tmp_path: Path) -> None:
    members = [("x/0.jpg", image(0)), ("x/0.json", b"{"), ("y/1.jpg", image(1))]
    assert rows(walk(tmp_path, members)) == {"x/0.jpg": 0, "y/1.jpg": 1}


def test_sidecars_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tars._SIDECARS, b"json", 100)
    big = json.dumps({"label": 0, "x": "y" * 200}).encode()
    found = walk(tmp_path, [*labelled(0, 1), ("2.jpg", image(2)), ("2.json", big)])
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert passed(found) == {
        f"whose label cannot be read (.json of {len(big)} bytes)": [b"a.tar/2.jpg"]
    }


def test_what_macos_leaves_is_no_photo(tmp_path: Path) -> None:
    mac = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(90)
    members: list[tuple[str, Content]] = []
    for name, content in labelled(0, 1):
        members += [(f"./._{name}", mac), (f"./{name}", content), (f"__MACOSX/._{name}", mac)]
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert {one.kind: one.count for one in found.skipped} == {"hidden": 8}


def test_dots_in_names_keep_each_label_with_its_image(tmp_path: Path) -> None:
    members = [(f"img.000{name}", content) for name, content in labelled(0, 1, 2)]
    assert rows(walk(tmp_path, members)) == {
        "img.0000.jpg": 0, "img.0001.jpg": 1, "img.0002.jpg": 0
    }  # fmt: skip
    bare: list[tuple[str, Content]] = [(f"c/v1.{n}.jpg", image(n)) for n in range(3)]
    assert rows(walk(tmp_path, bare)) == dict.fromkeys(
        ("c/v1.0.jpg", "c/v1.1.jpg", "c/v1.2.jpg"), 0
    )


@pytest.mark.parametrize("order", ["endings", "backwards", "apart"])
def test_tars_that_are_not_sorted_lose_no_label(tmp_path: Path, order: str) -> None:
    members = labelled(0, 1, 2, 3)
    members = {
        "endings": [*members[0::2], *members[1::2]],
        "backwards": [*members[1::2], *members[0::2]],
        "apart": [members[0], members[3], members[2], *members[4:], members[1]],
    }[order]
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1, "2.jpg": 0, "3.jpg": 1}
    assert found.skipped == []
    for sample in range(4):
        at, size = found.shard_offsets[sample], found.sizes_bytes[sample]
        number = int(found.path(sample)[:1])
        assert (tmp_path / "a.tar").read_bytes()[at : at + size] == image(number)


def test_a_mask_beside_a_photo_is_another_field(tmp_path: Path) -> None:
    members: list[tuple[str, Content]] = []
    for n in (0, 1):
        members += [(f"{n}.depth.png", image(9)), (f"{n}.jpg", image(n)),
                    (f"{n}.seg.png", image(8)), (f"{n}.cls", b"%d" % n),
                    (f"{n}.txt", b"words")]  # fmt: skip
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert passed(found) == {
        ".depth.png": [b"a.tar/0.depth.png", b"a.tar/1.depth.png"],
        ".seg.png": [b"a.tar/0.seg.png", b"a.tar/1.seg.png"],
        ".txt": [b"a.tar/0.txt", b"a.tar/1.txt"],
    }


def test_of_two_plain_images_of_a_key_the_jpeg_is_the_photo(tmp_path: Path) -> None:
    members = [("0.png", image(9)), ("0.jpg", image(0)), ("0.cls", b"0")]
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0} and passed(found) == {".png": [b"a.tar/0.png"]}


def test_the_only_image_of_a_key_has_its_label_whatever_its_field_is(tmp_path: Path) -> None:
    members = [
        ("0.rgb.jpg", image(0)),
        ("0.cls", b"0"),
        ("1.rgb.jpg", image(1)),
        ("1.cls", b"1"),
    ]
    assert rows(walk(tmp_path, members)) == {"0.rgb.jpg": 0, "1.rgb.jpg": 1}


def test_which_of_two_images_has_the_label_is_asked(tmp_path: Path) -> None:
    members = [("0.left.jpg", image(0)), ("0.right.jpg", image(1)), ("0.cls", b"0")]
    with pytest.raises(DatasetError, match=r"0\.left\.jpg and 0\.right\.jpg .* in 0\.cls: which"):
        walk(tmp_path, members)


def test_a_label_without_an_image_is_said(tmp_path: Path) -> None:
    found = walk(tmp_path, [*labelled(0, 1), ("2.cls", b"0"), ("2.npy", b"x")])
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert passed(found) == {"labels without an image": [b"a.tar/2.cls"], ".npy": [b"a.tar/2.npy"]}


def test_members_written_twice(tmp_path: Path) -> None:
    """As by `tar -r`: whole samples are samples, as WebDataset reads them; a rest is said."""
    found = walk(tmp_path, [*labelled(0, 1), ("0.seg.png", image(9))])
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert passed(found) == {"far behind their sample": [b"a.tar/0.seg.png"]}


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE], ids=["hard", "symbolic"])
def test_links_to_members_are_these(tmp_path: Path, kind: bytes) -> None:
    members = [*labelled(0, 1), ("2.jpg", link("0.jpg", kind)), ("2.cls", link("1.cls", kind)),
               ("d/3.jpg", link("../0.jpg" if kind == tarfile.SYMTYPE else "./0.jpg", kind)),
               ("d/3.cls", b"0"), ("4.jpg", link("gone.jpg", kind)), ("4.cls", b"1"),
               ("5.jpg", link("2.jpg", kind)), ("5.cls", b"1"),
               ("6.jpg", link("6.jpg", kind)), ("6.cls", b"1")]  # fmt: skip
    found = walk(tmp_path, members)
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1, "2.jpg": 1, "d/3.jpg": 0, "5.jpg": 1}
    at = dict(zip(rows(found), found.shard_offsets, strict=True))
    assert at["0.jpg"] == at["2.jpg"] == at["d/3.jpg"] == at["5.jpg"] != at["1.jpg"]
    assert passed(found) == {
        "labels without an image": [b"a.tar/4.cls", b"a.tar/6.cls"],
        "links that lead to no member": [b"a.tar/4.jpg", b"a.tar/6.jpg"],
    }


def test_archives_one_after_the_other_are_all_read(tmp_path: Path) -> None:
    """`cat a.tar b.tar c.tar`, two of which name their members alike."""
    parts = [tar(labelled(0, 1)), tar(labelled(2, 3)), tar(labelled(0))]
    (tmp_path / "all.tar").write_bytes(b"".join(parts))
    found = walk_shards(os.fsencode(tmp_path))
    names = [found.path(k) for k in range(found.num_samples)]
    assert names == [b"0.jpg", b"1.jpg", b"2.jpg", b"3.jpg", b"0.jpg"]
    assert found.labels.tolist() == [0, 1, 0, 1, 0]
    content = (tmp_path / "all.tar").read_bytes()
    for sample, number in enumerate((0, 1, 2, 3, 0)):
        at, size = found.shard_offsets[sample], found.sizes_bytes[sample]
        assert content[at : at + size] == image(number)


def test_many_zeros_between_archives(tmp_path: Path) -> None:
    both = tar(labelled(0, 1)) + bytes(3 << 20) + tar(labelled(2)) + bytes(1 << 20)
    (tmp_path / "a.tar").write_bytes(both)
    assert rows(walk_shards(os.fsencode(tmp_path))) == {"0.jpg": 0, "1.jpg": 1, "2.jpg": 0}


def test_a_damaged_header_loses_nothing_in_silence(tmp_path: Path) -> None:
    whole = bytearray(tar(labelled(0, 1, 2)))
    at = whole.index(b"1.jpg")
    whole[at : at + 512] = b"\x99" * 512
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(DatasetError, match=rf"a\.tar: at byte {at} of .* expected a member, got"):
        walk_shards(os.fsencode(tmp_path))


def test_rubbish_behind_an_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(labelled(0, 1)) + b"signature" * 99)
    found = walk_shards(os.fsencode(tmp_path))
    assert rows(found) == {"0.jpg": 0, "1.jpg": 1}
    assert passed(found) == {"bytes behind its end that are no tar": [b"a.tar/"]}


def test_a_shard_without_its_end_blocks_is_whole(tmp_path: Path) -> None:
    whole = tar(labelled(0, 1))
    (tmp_path / "a.tar").write_bytes(whole[: len(whole.rstrip(b"\0")) // 512 * 512 + 512])
    assert rows(walk_shards(os.fsencode(tmp_path))) == {"0.jpg": 0, "1.jpg": 1}


def test_shards_in_folders_for_splits(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name, numbers in (("train/a.tar", (0, 1)), ("val/a.tar", (2, 3))):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(tar(labelled(*numbers)))
    (root / "logs").mkdir()
    (root / "__MACOSX").mkdir()
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        assert index.count_splits() == {"train": 2, "val": 2}
        arrays = IndexArrays(index.fd, index.dims_fd)
        with open_source(arrays.root, arrays) as source:
            assert [bytes(source.read(k)) for k in range(4)] == [image(n) for n in range(4)]
    (root / "val" / "b.tar").write_bytes(tar(labelled(4, 5)))
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        assert not index.was_cached and index.count_splits() == {"train": 2, "val": 4}
    assert index_shards(str(root))["num_samples"] == 6
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        assert index.count_splits() == {"train": 2, "val": 4}


def test_images_loose_beside_shards_are_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tar").write_bytes(tar(labelled(0, 1)))
    (tmp_path / "set" / "logo.png").write_bytes(image(9))
    with pytest.raises(DatasetError, match=r"'a\.tar' beside 'logo\.png'"):
        load_or_build(tmp_path / "set", cache_dir=tmp_path / "c")


def test_the_archive_that_photos_came_in_is_said_and_not_read(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(image(1))
    (root / "photos.tar").write_bytes(tar(labelled(0)))
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        assert index.classes == ["cat", "dog"]
        assert index.skipped == [Skipped(".tar", 1, [b"photos.tar"], is_image=True)]


def test_folders_without_images_beside_shards(tmp_path: Path) -> None:
    root = tmp_path / "set"
    (root / "logs" / "deep").mkdir(parents=True)
    (root / "logs" / "deep" / "x.txt").write_text("x")
    (root / "a.tar").write_bytes(tar(labelled(0, 1)))
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        assert index.num_samples == 2


def test_packed_shards_are_told_to_be_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    whole = tar(labelled(0, 1))
    (root / "a.tar.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(DatasetError, match=r"1 \.tar\.gz \(a\.tar\.gz\): shards are uncompressed"):
        load_or_build(root, cache_dir=tmp_path / "c")
    (root / "a.tar.gz").rename(root / "a.tar")
    with pytest.raises(DatasetError, match=r"a\.tar is not a whole, uncompressed tar, but a gzip"):
        load_or_build(root, cache_dir=tmp_path / "c")


def test_shards_that_are_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a hub's cache keeps them."""
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1f").write_bytes(tar(labelled(0, 1)))
    (root / "a.tar").symlink_to("../blobs/1f")
    with pytest.raises(DatasetError, match=r"a link that leads out of the .*--links-to DIR"):
        load_or_build(root, cache_dir=tmp_path / "c")
    monkeypatch.setenv("AUGD_LINKS_TO", str(tmp_path / "blobs"))
    with closing(load_or_build(root, cache_dir=tmp_path / "c")) as index:
        arrays = IndexArrays(index.fd, index.dims_fd)
        with open_source(arrays.root, arrays) as source:
            assert bytes(source.read(1)) == image(1)


def test_shards_without_images_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"\.tar shards in .* hold no images.*saw 1 \.npy"):
        walk(tmp_path, [("0.npy", b"x")])


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (b"\xef\xbb\xbf3\r\n", "3"),
        (b"3\0", "3"),
        ("\xe9t\xe9".encode("latin-1"), "\xe9t\xe9"),
        ("\xe9t\xe9".encode(), "\xe9t\xe9"),
        (b" \n", None),
        (b"", None),
    ],
)
def test_classes_in_cls(content: bytes, label: str | None) -> None:
    assert read_class(content) == label


def test_any_bytes_are_read_as_a_sidecar_or_not_and_nothing_is_raised() -> None:
    for start in range(256):
        for content in (bytes((start,)) * 3, b'{"label": "' + bytes((start,)) + b'"}'):
            assert read_class(content) is None or isinstance(read_class(content), str)
            found = read_object(content)
            assert found is None or found.keys() <= set(shard_sidecars._SAID)
