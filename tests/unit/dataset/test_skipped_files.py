"""What a look at a folder passes over: counted, named, told alike by a cached start; and debris."""

from __future__ import annotations

import os
import unicodedata
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from augd.dataset.scan import folder_listing
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan.folder import scan
from augd.dataset.scan.skipped_files import SkipCounter, kind_of, say_skipped, tells_nothing
from augd.dataset.scan_result import ScanResult, Skipped
from augd.dataset.selection import select
from augd.errors import DatasetError
from augd.server.supervision.arguments import check_sources


def put(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (len(path.name), 2, 3)).save(path, kind)


def paths(found: ScanResult) -> list[str]:
    return [os.fsdecode(found.path(sample)) for sample in range(found.num_samples)]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for name in ("cat/a.jpg", "dog/b.jpg"):
        put(root / name)
    return root


def test_what_is_no_image_is_counted_by_its_ending_and_named(pets: Path) -> None:
    for name in ("cat/5.txt", "cat/3.TXT", "cat/4.txt", "dog/1.txt", "dog/x.svg", ".hidden/a.jpg"):
        (pets / name).parent.mkdir(exist_ok=True)
        (pets / name).write_bytes(b"x")
    (pets / "README").write_text("words")
    found = scan(pets)
    assert paths(found) == ["cat/a.jpg", "dog/b.jpg"]
    assert found.skipped == [
        Skipped(".svg", 1, [b"dog/x.svg"], is_image=True),
        Skipped(".txt", 4, [b"cat/3.TXT", b"cat/4.txt", b"cat/5.txt"]),
        Skipped("hidden", 1, [b".hidden"]),
        Skipped("without an ending", 1, [b"README"]),
    ]
    assert say_skipped(found.skipped[:2]) == (
        "1 .svg (dog/x.svg), 4 .txt (cat/3.TXT, cat/4.txt, cat/5.txt, ...)"
    )


def test_a_cached_start_tells_the_same(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "a.svg").write_bytes(b"<svg/>")
    for path in (pets, pets / "cat", pets / "dog"):
        os.utime(path, ns=(10**9, 10**9))
    with closing(load_or_build(pets, cache_dir=tmp_path / "cache")) as first:
        assert not first.was_cached
        assert first.skipped == [Skipped(".svg", 1, [b"cat/a.svg"], is_image=True)]
    with closing(load_or_build(pets, cache_dir=tmp_path / "cache")) as second:
        assert second.was_cached and second.skipped == first.skipped


def test_an_index_made_by_other_rules_is_made_anew(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (pets, pets / "cat", pets / "dog"):
        os.utime(path, ns=(10**9, 10**9))
    load_or_build(pets, cache_dir=tmp_path / "cache").close()
    monkeypatch.setattr("augd.dataset.index_cache.RULES", 99)
    monkeypatch.setattr("augd.dataset.scan.build_index.RULES", 99)
    with closing(load_or_build(pets, cache_dir=tmp_path / "cache")) as again:
        assert not again.was_cached


def test_files_whose_ending_tells_nothing_are_looked_at(pets: Path) -> None:
    put(pets / "cat" / "blob", "JPEG")
    put(pets / "cat" / "photo.jpg_large", "JPEG")
    put(pets / "cat" / "notes.txt", "JPEG")  # a well-known ending is believed
    (pets / "cat" / "other.xyz").write_bytes(b"words")
    (pets / "cat" / "empty").write_bytes(b"")
    found = scan(pets)
    assert paths(found) == ["cat/a.jpg", "cat/blob", "cat/photo.jpg_large", "dog/b.jpg"]
    assert [one.kind for one in found.skipped] == [".txt", ".xyz", "without an ending"]


def test_only_files_of_unknown_endings_are_opened(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.json", "c.npy", "d.odd", "none"):
        (pets / "cat" / name).write_bytes(b"x")
    opened: list[bytes] = []
    look = folder_listing.FolderListing._is_inside

    def noted(scanner: folder_listing.FolderListing, path: bytes) -> bool:
        opened.append(path.rpartition(b"/")[2])
        return look(scanner, path)

    monkeypatch.setattr(folder_listing.FolderListing, "_is_inside", noted)
    scan(pets)
    assert sorted(opened) == [b"d.odd", b"none"]


def test_a_fifo_or_an_unreadable_file_without_an_ending_holds_nobody_up(pets: Path) -> None:
    os.mkfifo(pets / "cat" / "pipe")
    (pets / "cat" / "gone").symlink_to("nowhere")
    found = scan(pets)
    assert paths(found) == ["cat/a.jpg", "dog/b.jpg"]
    assert found.skipped == [
        Skipped("links that lead nowhere", 1, [b"cat/gone"], True),
        Skipped("without an ending", 1, [b"cat/pipe"]),
    ]


def test_what_is_told_does_not_depend_on_the_order_of_listing() -> None:
    names = [f"{number}.{ending}".encode() for number in range(9) for ending in ("b", "a", "c")]
    told = []
    for order in (names, names[::-1]):
        skips = SkipCounter()
        for name in order:
            skips.note(kind_of(name), name)
        told.append(skips.listed())
    assert told[0] == told[1]
    assert told[0][0] == Skipped(".a", 9, [b"0.a", b"1.a", b"2.a"])


def test_a_thousand_endings_are_told_in_bounded_words() -> None:
    skips = SkipCounter()
    for number in range(5000):
        name = f"x.{number:04}".encode()
        skips.note(kind_of(name), name)
    told = skips.listed()
    assert len(told) == 64 and sum(one.count for one in told) == 5000
    assert told[-1].kind == "of other endings" and len(told[-1].names) == 3


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"a.TXT", ".txt"),
        (b"a.tar.gz", ".tar.gz"),
        (b"a.json.gz", ".gz"),
        (b"none", "without an ending"),
        (b"trailing.", "of other endings"),
        (b"a.a-name-with-a-dot-in-it", "of other endings"),
        (b"a.\xff\x01", "of other endings"),
    ],
)
def test_kinds_of_names(name: bytes, kind: str) -> None:
    assert kind_of(name) == kind


def test_endings_that_tell_nothing() -> None:
    assert all(tells_nothing(name) for name in (b"a", b"a.photo", b"a.jpg~", b".x"))
    assert not any(tells_nothing(name) for name in (b"a.txt", b"b.TAR", b"c.mp4"))


def test_debris_is_no_class(pets: Path) -> None:
    put(pets / "__MACOSX" / "cat" / "._a.jpg")
    put(pets / "cat" / "__MACOSX" / "b.jpg")
    (pets / "lost+found").mkdir(mode=0)
    (pets / "@eaDir").mkdir()
    (pets / "Thumbs.db").write_bytes(b"x")
    found = scan(pets)
    assert found.classes == ["cat", "dog"] and paths(found) == ["cat/a.jpg", "dog/b.jpg"]
    assert found.skipped == [
        Skipped("folder __MACOSX", 2, [b"__MACOSX", b"cat/__MACOSX"]),
        Skipped(".db", 1, [b"Thumbs.db"]),
        Skipped("folder @eaDir", 1, [b"@eaDir"]),
        Skipped("folder lost+found", 1, [b"lost+found"]),
    ]


def test_two_spellings_of_one_class_are_one(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    root = tmp_path / "set"
    for name in (f"train/{composed}/1.jpg", f"val/{apart}/2.jpg", "train/bar/3.jpg",
                 f"train/{apart}/4.jpg", "val/bar/5.jpg"):  # fmt: skip
        put(root / name)
    found = scan(root)
    assert found.classes == ["bar", composed]
    named = dict(zip(paths(found), found.labels, strict=True))
    assert named == {
        "train/bar/3.jpg": 0, f"train/{composed}/1.jpg": 1, f"train/{apart}/4.jpg": 1,
        "val/bar/5.jpg": 0, f"val/{apart}/2.jpg": 1,
    }  # fmt: skip
    with closing(load_or_build(root, cache_dir=tmp_path / "cache")) as index:
        assert len(select(index, classes=[apart]).ids) == len(select(index, classes=[composed]).ids)


def test_two_spellings_in_a_manifest_are_one_class(pets: Path) -> None:
    from augd.dataset.scan.manifest import read_manifest

    rows = "path,label\ncat/a.jpg,e\u0301te\ndog/b.jpg,\u00e9te\n"
    (pets / "m.csv").write_text(rows, encoding="utf-8")
    found = read_manifest(pets / "m.csv")
    assert found.classes == ["\u00e9te"] and found.labels.tolist() == [0, 0]


def test_a_folder_of_nothing_but_packed_shards_is_told_what_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "logs").mkdir()
    with pytest.raises(DatasetError, match=r"but 1 \.tar\.gz \(a\.tar\.gz\).*uncompressed \.tar"):
        scan(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("train-0000.tar", "is one shard: give the folder that it lies in, "),
        ("photos.TGZ", "is a packed archive: unpack it, and give the folder that it makes"),
        ("photos.zip", "is a packed archive: unpack it"),
    ],
)
def test_a_shard_in_the_place_of_its_folder_is_told_so(
    tmp_path: Path, name: str, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    for look in (load_or_build, lambda source: check_sources({"set": source})):
        with pytest.raises(DatasetError) as caught:
            look(path)
        assert f"{path} {says}" in str(caught.value)
