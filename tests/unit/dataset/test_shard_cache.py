"""The shard cache: blocks in files, bounded, and never of another version."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from augd.dataset.stores import shard_cache as module
from augd.dataset.stores.address import parse_store
from augd.dataset.stores.object_store import ObjectFacts
from augd.dataset.stores.shard_cache import (
    BLOCK_BYTES,
    ShardCache,
    check_shard_cache,
    parse_shard_cache,
)
from augd.errors import OptionError, OverLimit, StoreError

SIZE = 5 * BLOCK_BYTES + 1000


class Fake:
    """In place of a store: one object's bytes, and what was asked."""

    def __init__(self, seed: int = 0) -> None:
        self.address = parse_store("s3://bucket/set")
        self.content = random.Random(seed).randbytes(SIZE)
        self.asked: list[tuple[int, int]] = []
        self.lock = threading.Lock()
        self.is_down = False

    def read(self, facts: ObjectFacts, first: int, size: int) -> bytes:
        with self.lock:
            self.asked.append((first, size))
        if self.is_down:
            raise StoreError("down")
        return self.content[first : first + size]


FACTS = ObjectFacts("a.tar", SIZE, '"one"', 1)


def read(cache: ShardCache, store: Any, first: int, size: int, facts: ObjectFacts = FACTS) -> None:
    assert bytes(cache.read(store, facts, first, size)) == store.content[first : first + size]


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*-*"))


def test_a_block_is_asked_for_once_and_neighbours_in_one_request(tmp_path: Path) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)
    read(cache, store, 10, 100)
    read(cache, store, 5000, 100)
    assert store.asked == [(0, BLOCK_BYTES)]
    read(cache, store, BLOCK_BYTES - 5, 3 * BLOCK_BYTES)
    assert store.asked[1:] == [(BLOCK_BYTES, 3 * BLOCK_BYTES)]
    read(cache, store, 0, SIZE)
    assert store.asked[2:] == [(4 * BLOCK_BYTES, SIZE - 4 * BLOCK_BYTES)]
    store.asked.clear()
    again = ShardCache(tmp_path, 64 << 20)
    rng = random.Random(3)
    for _ in range(300):
        first = rng.randrange(SIZE)
        read(again, store, first, rng.randrange(1, min(3 * BLOCK_BYTES, SIZE - first) + 1))
    assert not store.asked, "the next process finds them"


def test_threads_that_want_one_block_ask_once(tmp_path: Path) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(40):
                first = rng.randrange(SIZE - 9000)
                read(cache, store, first, 9000)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    asked = [
        (first + at) // BLOCK_BYTES
        for first, size in store.asked
        for at in range(0, size, BLOCK_BYTES)
    ]
    assert len(asked) == len(set(asked)) >= 5


def test_a_failure_is_nobody_elses(tmp_path: Path) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)
    store.is_down = True
    with pytest.raises(StoreError):
        read(cache, store, 0, 10)
    store.is_down = False
    read(cache, store, 0, 10)


def test_other_versions_shards_and_stores_have_blocks_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, cache = Fake(1), Fake(2), ShardCache(tmp_path, 64 << 20)
    read(cache, one, 0, 10)
    for facts in (
        FACTS._replace(version=2),
        FACTS._replace(name="b.tar"),
        FACTS._replace(size_bytes=SIZE - 1),
    ):
        read(cache, other, 0, 10, facts)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere")
    read(cache, other, 0, 10)
    other.address = parse_store("s3://bucket/another")
    read(cache, other, 0, 10)
    assert len(other.asked) == 5
    unknown = FACTS._replace(version=0, etag="")
    for _ in range(2):
        read(cache, other, 0, 10, unknown)
    assert other.asked[5:] == [(0, 10)] * 2, "without a version nothing is kept"


def test_a_block_that_cannot_be_opened_comes_from_the_store(tmp_path: Path) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)
    read(cache, store, 0, 10)
    (path,) = tmp_path.rglob("*-*")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")  # which is never followed
    read(cache, store, 0, SIZE)
    assert not path.is_symlink(), "the next block of this name took its place"


@pytest.mark.parametrize("harm", ["cut", "turned", "longer", "empty"])
def test_a_damaged_block_is_asked_for_anew(tmp_path: Path, harm: str) -> None:
    store = Fake()
    read(ShardCache(tmp_path, 64 << 20), store, 0, SIZE)
    for path in tmp_path.rglob("*-*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 4
        changed = {"cut": content[:500], "longer": content + b"x", "empty": b""}
        path.write_bytes(changed.get(harm, content))
    store.asked.clear()
    read(ShardCache(tmp_path, 64 << 20), store, 0, SIZE)
    assert sum(size for _, size in store.asked) == SIZE


def test_what_was_not_used_for_the_longest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that share the folder stay within its size, but for what one has just found."""
    monkeypatch.setattr(module, "TOUCH_S", 0.0)
    size = 20 * BLOCK_BYTES
    store, cache, beside = Fake(), ShardCache(tmp_path, size), ShardCache(tmp_path, size)
    for number in range(60):
        facts = FACTS._replace(version=number + 1)
        read((cache, beside)[number % 2], store, 0, 1000, facts)
        read(cache, store, 0, 10, FACTS._replace(version=1))  # always in use
        assert held(tmp_path) <= size + 2 * BLOCK_BYTES
    store.asked.clear()
    read(cache, store, 0, 10, FACTS._replace(version=1))
    read(cache, store, 0, 10, FACTS._replace(version=60))
    assert not store.asked
    read(cache, store, 0, 10, FACTS._replace(version=3))
    assert len(store.asked) == 1


def test_what_a_killed_process_left_half_written_goes_in_the_end(tmp_path: Path) -> None:
    store = Fake()
    read(ShardCache(tmp_path, 64 << 20), store, 0, 10)
    (below,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    old, new = below / ".aside-1-2-x-0", below / ".aside-1-3-x-0"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    ShardCache(tmp_path, 64 << 20)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_disk_that_takes_nothing_costs_time_and_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "rename", full)
    for _ in range(2):
        read(cache, store, 0, 10)
    assert capfd.readouterr().err.count("takes no more: No space left on device") == 1
    assert not list(tmp_path.rglob(".aside-*"))


@pytest.mark.parametrize("text", ["", "8GB", ":8GB", "/x:8", "/x:lots", "/x:1MB"])
def test_what_is_no_cache_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"^--shard-cache: expected"):
        parse_shard_cache(text)


def test_a_cache_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"--shard-cache .*file.* cannot be used"):
        check_shard_cache(f"{tmp_path}/file:64MiB")
    with pytest.raises(OverLimit, match=r"are asked for, \d+ MB can be given by the disk"):
        check_shard_cache(f"{tmp_path}/new:9000TB")
    assert parse_shard_cache(f"{tmp_path}/a:b:2GB") == (tmp_path / "a:b", 2 * 10**9)


def test_those_who_wait_for_a_block_hear_why_it_does_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, cache = Fake(), ShardCache(tmp_path, 64 << 20)
    store.is_down = True
    begun, go_on, waiting = threading.Event(), threading.Event(), threading.Semaphore(0)
    fail = store.read

    def fail_later(facts: ObjectFacts, first: int, size: int) -> bytes:
        begun.set()
        assert go_on.wait(10)
        return fail(facts, first, size)

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waiting.release()
            return super().wait(timeout)

    class Coming(module._Coming):
        def __init__(self) -> None:
            super().__init__()
            self.done = Watched()

    monkeypatch.setattr(store, "read", fail_later)
    monkeypatch.setattr(module, "_Coming", Coming)
    failures: list[str] = []

    def work() -> None:
        with pytest.raises(StoreError) as caught:
            cache.read(store, FACTS, 10, 100)  # type: ignore[arg-type]
        failures.append(str(caught.value))

    threads = [threading.Thread(target=work) for _ in range(4)]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert waiting.acquire(timeout=10)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert failures == ["down"] * 4
    assert len(store.asked) == 1


def test_a_link_in_the_place_of_a_block_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    store, cache = Fake(), ShardCache(tmp_path / "cache", 64 << 20)
    read(cache, store, 10, 100)
    (block,) = (path for path in (tmp_path / "cache").rglob("*-*") if path.is_file())
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    aside = block.with_name(f".aside-{os.getpid()}-{threading.get_ident()}-{block.name}")
    block.unlink()
    aside.symlink_to(victim)
    read(ShardCache(tmp_path / "cache", 64 << 20), store, 10, 100)
    assert victim.read_bytes() == b"mine"
    assert block.is_file() and not block.is_symlink()
