"""The cache as the daemon holds it: `--cache` read, memory and files opened, damage found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from augd.client.serve_options import ServeOptions
from augd.dataset.index_file import IndexFile
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.stores.shard_cache import check_shard_cache
from augd.errors import AddressInUse, OptionError, OverLimit
from augd.protocol.cache_table import (
    ALIGNMENT,
    RECORD,
    TABLE_START,
    CacheFacts,
    aligned,
    read_record,
)
from augd.protocol.messages import CacheEntry
from augd.server.daemon import decoded_cache as cache_module
from augd.server.daemon.decoded_cache import CacheStore, parse_cache
from augd.server.daemon.startup import serve_forever
from augd.transport.arena import available_bytes
from tests.support.scenes import make_folder

ENVIRONMENT = {"opencv": "5"}
SIZE = 1 << 20
NUM_SAMPLES = 6


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=3)


@pytest.fixture
def index(photos: Path) -> Iterator[IndexFile]:
    found = load_or_build(photos)
    yield found
    found.close()


def entry(sample: int, offset: int, digest: bytes = b"12345678") -> CacheEntry:
    return CacheEntry(sample, offset, 40, 30, 6, digest)


def place(number: int) -> int:
    return ALIGNMENT + number * aligned(40 * 30 * 3)


Open = Callable[..., CacheFacts]


@pytest.fixture
def reopen(tmp_path: Path, index: IndexFile) -> Iterator[Open]:
    """Open the cache of a folder, write these entries, close it; returns what was in it before."""

    def run(*entries: CacheEntry, size: str = "1MiB", environment=ENVIRONMENT) -> CacheFacts:
        store = CacheStore(parse_cache(f"disk:{tmp_path}/c:{size}"), {"photos": index})
        facts = store.facts()
        if facts.environment is None:
            store.clear(environment)
        for one in entries:
            store.put("photos", one)
        store.close()
        return facts

    yield run


def table_of(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "c").glob("augd-*.table")
    return path


def change(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize(
    ("text", "size_bytes", "folder"),
    [
        ("ram:8GB", 8 * 10**9, None),
        ("ram:8GiB", 8 << 30, None),
        ("ram:1.5 gb", 15 * 10**8, None),
        ("disk:/fast/c:200GB", 200 * 10**9, "/fast/c"),
        ("disk:/a:b/c:1TB", 10**12, "/a:b/c"),
    ],
)
def test_a_size_and_where(text: str, size_bytes: int, folder: str | None) -> None:
    spec = parse_cache(text)
    assert spec.size_bytes == size_bytes // 4096 * 4096
    assert spec.folder == (Path(folder) if folder else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8GB", "expected ram:SIZE or disk:DIR:SIZE, as in ram:8GB, got '8GB'"),
        ("disk:8GB", "expected ram:SIZE or disk:DIR:SIZE"),
        ("disk::8GB", "expected ram:SIZE or disk:DIR:SIZE"),
        ("ram:/tmp:8GB", "expected ram:SIZE or disk:DIR:SIZE"),
        ("ssd:/tmp:8GB", "expected ram:SIZE or disk:DIR:SIZE"),
        ("ram:8", "expected a size as 800MB, 8GB, 1.5TB or 8GiB, got '8'"),
        ("ram:manyGB", "got 'manyGB' in 'ram:manyGB'"),
        ("ram:-8GB", "expected a size"),
        ("ram:0.5MB", "expected at least 1MiB, got '0.5MB'"),
        ("ram:99999999999TB", "expected at least 1MiB"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said.replace("(", r"\(")):
        parse_cache(text)


def test_memory_that_is_not_there_is_refused_with_the_sizes(index: IndexFile) -> None:
    megabytes = available_bytes() // 10**6 + 5000
    with pytest.raises(
        OverLimit,
        match=rf"--cache ram:{megabytes}MB: {megabytes} MB are asked for, \d+ MB can be given; "
        "give it less, or disk:DIR:SIZE",
    ):
        CacheStore(parse_cache(f"ram:{megabytes}MB"), {"photos": index})


def test_a_disk_that_is_too_small_is_refused_with_the_sizes(
    tmp_path: Path, index: IndexFile
) -> None:
    free = shutil.disk_usage(tmp_path).free // 10**12 + 2
    with pytest.raises(
        OverLimit, match=rf"{free * 10**6} MB are asked for, \d+ MB can be given by the disk of"
    ):
        CacheStore(parse_cache(f"disk:{tmp_path}/c:{free}TB"), {"photos": index})


def test_a_folder_is_one_daemons(tmp_path: Path, index: IndexFile) -> None:
    spec = parse_cache(f"disk:{tmp_path}/c:1MiB")
    first = CacheStore(spec, {"photos": index})
    with pytest.raises(AddressInUse, match=r"another daemon has .*/c; stop it, or give each"):
        CacheStore(spec, {"photos": index})
    first.close()
    CacheStore(spec, {"photos": index}).close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, index: IndexFile) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OptionError, match=r"--cache disk:.*/file cannot be used: File exists"):
        CacheStore(parse_cache(f"disk:{tmp_path}/file:1MiB"), {"photos": index})


def test_memory_is_there_from_the_start_and_nothing_has_a_name(index: IndexFile) -> None:
    store = CacheStore(parse_cache("ram:1MiB"), {"photos": index})
    assert os.fstat(store.fd).st_blocks * 512 == SIZE
    facts = store.facts()
    assert facts == CacheFacts("ram", SIZE, [(ALIGNMENT, SIZE)], {"photos": bytearray(NUM_SAMPLES)})
    store.clear(ENVIRONMENT)
    store.put("photos", entry(3, 64, b""))
    at = TABLE_START + 3 * RECORD.size
    record = RECORD.unpack(os.pread(store.table_fd("photos"), RECORD.size, at))
    assert record[0] == 64
    assert read_record(record, 3) == 3600
    store.close()


def test_what_was_written_is_found_again(reopen: Open, tmp_path: Path) -> None:
    assert reopen(entry(0, place(1)), entry(4, place(0))).environment is None
    facts = reopen()
    assert facts.environment == ENVIRONMENT
    assert facts.is_checked
    assert (facts.num_entries, facts.filled_bytes) == (2, 7200)
    assert list(facts.present["photos"]) == [1, 0, 0, 0, 1, 0]
    assert facts.spans == [(place(2), SIZE)]
    at = TABLE_START + 4 * RECORD.size
    assert RECORD.unpack(table_of(tmp_path).read_bytes()[at : at + RECORD.size])[6] == 0, "aged"


def test_gaps_are_free_space(reopen: Open) -> None:
    reopen(entry(0, place(1)), entry(4, place(5)))
    assert reopen().spans == [(ALIGNMENT, place(1)), (place(2), place(5)), (place(6), SIZE)]


def test_a_record_cut_off_at_any_byte_is_no_record(reopen: Open, tmp_path: Path) -> None:
    """As a daemon killed while it wrote one would leave it, or a loss of power."""
    reopen(entry(0, place(0)), entry(1, place(1)))
    whole = table_of(tmp_path).read_bytes()
    first = TABLE_START + RECORD.size
    for missing in range(first, first + RECORD.size):
        if not whole[missing] or missing - first == 33:  # nothing lost; whether it is fresh
            continue
        change(table_of(tmp_path), 0, whole)
        change(table_of(tmp_path), missing, b"\0")
        facts = reopen()
        assert list(facts.present["photos"]) == [1, 0, 0, 0, 0, 0], missing - first
        assert facts.spans == [(place(1), SIZE)]
        assert not any(table_of(tmp_path).read_bytes()[first : first + RECORD.size])


def test_records_that_overlap_are_not_both_believed(reopen: Open) -> None:
    reopen(entry(0, place(0)), entry(1, place(0) + 64))
    facts = reopen()
    assert facts.num_entries == 1
    assert facts.spans == [(place(1), SIZE)]


def test_a_smaller_cache_keeps_what_lies_inside(reopen: Open) -> None:
    reopen(entry(0, place(0)), entry(1, SIZE), size="2MiB")
    facts = reopen()
    assert list(facts.present["photos"]) == [1, 0, 0, 0, 0, 0]
    assert facts.size_bytes == SIZE


def test_a_file_with_another_time_is_decoded_again(
    reopen: Open, photos: Path, index: IndexFile, tmp_path: Path
) -> None:
    reopen(entry(0, place(0)), entry(1, place(1)))
    path = photos / index.path_of(1)
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    newer = load_or_build(photos, rebuild=True)
    try:
        assert newer.digest == index.digest
        store = CacheStore(parse_cache(f"disk:{tmp_path}/c:1MiB"), {"photos": newer})
        assert list(store.facts().present["photos"]) == [1, 0, 0, 0, 0, 0]
        store.close()
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        newer.close()


def test_the_same_names_at_another_place_are_another_dataset(
    reopen: Open, photos: Path, tmp_path: Path
) -> None:
    reopen(entry(0, place(0)))
    copy = shutil.copytree(photos, tmp_path / "copy")
    other = load_or_build(copy)
    store = CacheStore(parse_cache(f"disk:{tmp_path}/c:1MiB"), {"photos": other})
    facts = store.facts()
    store.close()
    other.close()
    assert facts.num_entries == 0
    assert len(list((tmp_path / "c").glob("augd-*.table"))) == 1, "the other's places are free"


@pytest.mark.parametrize("content", [b"\0" * 8, b"[]", b'["augd-cache/0",{}]', b"\xff" * 64])
def test_a_header_that_says_nothing_empties_the_table(
    reopen: Open, tmp_path: Path, content: bytes
) -> None:
    reopen(entry(0, place(0)))
    change(table_of(tmp_path), 0, content.ljust(TABLE_START, b"\0"))
    facts = reopen()
    assert facts.environment is None
    assert facts.num_entries == 0
    assert facts.spans == [(ALIGNMENT, SIZE)]
    assert reopen().num_entries == 0


def test_a_table_cut_short_or_gone_is_made_anew(reopen: Open, tmp_path: Path) -> None:
    reopen(entry(0, place(0)), entry(5, place(1)))
    os.truncate(table_of(tmp_path), TABLE_START + 4 * RECORD.size)
    assert list(reopen().present["photos"]) == [1, 0, 0, 0, 0, 0]
    table_of(tmp_path).unlink()
    assert reopen().num_entries == 0


def test_a_new_dataset_beside_an_old_one_leaves_it_as_it_is(
    reopen: Open, photos: Path, index: IndexFile, tmp_path: Path
) -> None:
    reopen(entry(0, place(0)))
    other = load_or_build(photos / "class0")
    both = {"photos": index, "other": other}
    store = CacheStore(parse_cache(f"disk:{tmp_path}/c:1MiB"), both)
    facts = store.facts()
    store.close()
    other.close()
    assert facts.environment == ENVIRONMENT
    assert list(facts.present["photos"]) == [1, 0, 0, 0, 0, 0]
    assert not any(facts.present["other"])


def test_space_is_taken_from_the_disk_before_it_is_given_away(
    tmp_path: Path, index: IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CacheStore(parse_cache(f"disk:{tmp_path}/c:1MiB"), {"photos": index})
    assert os.fstat(store.fd).st_blocks == 0, "as much as is needed, as it is needed"
    store.take_space((ALIGNMENT, SIZE // 2))
    assert os.fstat(store.fd).st_blocks * 512 == SIZE // 2

    def is_full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "posix_fallocate", is_full)
    with pytest.raises(OSError, match="No space left on device"):
        store.take_space((SIZE // 2, SIZE))
    store.close()


@pytest.mark.parametrize("what", ["cache", "shard_cache"])
def test_a_typo_makes_no_folder_and_starts_nothing(tmp_path: Path, what: str) -> None:
    wrong = tmp_path / "fsat" / "cache"
    text = f"disk:{wrong}:100MB" if what == "cache" else f"{wrong}:100MB"
    with pytest.raises(
        OptionError,
        match=rf"expected a folder at {tmp_path}/fsat, to make cache in, and found none",
    ):
        _check(what, text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["cache", "shard_cache"])
def test_without_the_room_nothing_is_made(tmp_path: Path, what: str) -> None:
    free = shutil.disk_usage(tmp_path).free // 10**12 + 2
    text = f"{tmp_path}/c:{free}TB"
    with pytest.raises(OverLimit, match=rf"{free * 10**6} MB are asked for, \d+ MB can be given"):
        _check(what, f"disk:{text}" if what == "cache" else text)
    assert list(tmp_path.iterdir()) == []


def _check(what: str, text: str) -> None:
    """As a start does it, before any producer and any index."""
    if what == "cache":
        serve_forever(ServeOptions(paths=(str(Path(__file__).parent),), cache=text, producers="1"))
    else:
        check_shard_cache(text)


def test_what_a_cache_holds_already_is_room_for_it(
    tmp_path: Path, index: IndexFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = parse_cache(f"disk:{tmp_path}/c:1MiB")
    store = CacheStore(spec, {"photos": index})
    os.pwrite(store.fd, bytes(SIZE), 0)
    store.close()
    full = os.statvfs_result((4096, 4096, 10, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    CacheStore(spec, {"photos": index}).close()
    with pytest.raises(OverLimit, match="1 MB can be given"):
        CacheStore(parse_cache(f"disk:{tmp_path}/c:2MiB"), {"photos": index})
