"""Ranges of samples, put together to few requests, and what comes out of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from augd.dataset.readers.object_store import GAP_BYTES, RemoteSource
from augd.dataset.readers.read_ahead import ReadAhead
from augd.dataset.stores.address import is_address, parse_store
from augd.dataset.stores.range_reader import BUFFER_SLOT_BYTES, ByteRange
from augd.errors import OptionError, StoreError
from augd.pixels.headers.read_header import BadImage
from tests.support.budget import spend


class Shards:
    """An index of samples in three made shards, and the reader of these."""

    def __init__(self, places: list[tuple[int, int, int]], sizes: list[int]) -> None:
        self.shards = ()
        self.contents = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
        self.shard_numbers = np.array([place[0] for place in places], np.int32)
        self.shard_offsets = np.array([place[1] for place in places], np.int64)
        self.sizes_bytes = np.array([place[2] for place in places], np.int64)
        self.asked: list[Sequence[ByteRange]] = []
        self.failure = ""

    def segments(self, sample: int) -> None:
        return None

    def path(self, sample: int) -> str:
        return f"{sample}.jpg"

    def expected(self, sample: int) -> bytes:
        first, size = self.shard_offsets[sample], self.sizes_bytes[sample]
        return self.contents[self.shard_numbers[sample]][first : first + size]

    @contextmanager
    def fetch(self, pieces: Sequence[ByteRange]) -> Iterator[memoryview]:
        if self.failure:
            raise StoreError(self.failure)
        self.asked.append(pieces)
        memory = bytearray(BUFFER_SLOT_BYTES)
        for shard, first, size, at in pieces:
            assert 0 <= at <= at + size <= BUFFER_SLOT_BYTES
            memory[at : at + size] = self.contents[shard][first : first + size]
        yield memoryview(memory)

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Case:
    places: list[tuple[int, int, int]]
    num_pieces: int
    num_rounds: int = 1


K = 1 << 10
CASES = {
    "neighbours": Case([(0, 0, 100 * K), (0, 101 * K, 100 * K), (0, 202 * K, 50 * K)], 1),
    "in any order": Case([(0, 202 * K, 50 * K), (0, 0, 100 * K), (0, 101 * K, 100 * K)], 1),
    "at the bound": Case([(0, 0, K), (0, K + GAP_BYTES, K)], 1),
    "too far apart": Case([(0, 0, K), (0, K + GAP_BYTES + 1, K)], 2),
    "other shards": Case([(0, 0, K), (1, K, K)], 2),
    "the same twice": Case([(0, 5, K), (0, 5, K), (0, 500, K)], 1),
    "larger than a lane": Case([(2, 3, 2 * BUFFER_SLOT_BYTES + 77)], 3, 3),
    "more than a lane": Case([(2, n * 3 * K * K, 3 * K * K - 1000) for n in range(4)], 2, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_what_lies_close_is_one_range(name: str) -> None:
    case = CASES[name]
    shards = Shards(case.places, [2 << 20, 2 << 20, 20 << 20])
    samples = list(range(len(case.places)))
    rows = RemoteSource(shards, shards).read_rows(samples, [None] * len(samples))  # type: ignore[arg-type]
    assert [bytes(row) for row in rows] == [shards.expected(one) for one in samples]  # type: ignore[arg-type]
    assert sum(len(pieces) for pieces in shards.asked) == case.num_pieces
    assert len(shards.asked) == case.num_rounds


@pytest.mark.longer("any ranges of remote shards 60 times instead of 12")
def test_any_samples_come_out_as_they_are() -> None:
    rng = random.Random(5)
    for _ in range(spend(12, soak=60)):
        places = []
        for _ in range(rng.randrange(1, 40)):
            shard = rng.randrange(3)
            limit = (2 << 20, 2 << 20, 20 << 20)[shard]
            first = rng.randrange(limit - 1)
            places.append((shard, first, rng.randrange(1, min(limit - first, 3 << 20) + 1)))
        shards = Shards(places, [2 << 20, 2 << 20, 20 << 20])
        samples = rng.choices(range(len(places)), k=20)
        rows = RemoteSource(shards, shards).read_rows(samples, [None] * 20)  # type: ignore[arg-type]
        assert [bytes(row) for row in rows] == [shards.expected(one) for one in samples]  # type: ignore[arg-type]


def test_a_bad_sample_is_a_value_and_its_neighbours_are_read() -> None:
    shards = Shards([(0, 0, 10), (0, 20, 0), (0, 30, 10), (0, 5, 1 << 40)], [1000])
    rows = RemoteSource(shards, shards).read_rows([0, 1, 2, 3], [None] * 4)  # type: ignore[arg-type]
    assert [type(row) for row in rows] == [bytearray, BadImage, bytearray, BadImage]
    assert "empty" in str(rows[1]) and "too large" in str(rows[3])
    with pytest.raises(BadImage, match="empty"):
        RemoteSource(shards, shards).read(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("max_bytes", [1 << 20, 1])
def test_a_store_that_fails_is_raised_where_rows_are_taken(max_bytes: int) -> None:
    """By a thread that read ahead, and by the taker itself; what follows is read again."""
    shards = Shards([(0, 10 * n, 10) for n in range(64)], [1000])
    source = RemoteSource(shards, shards)  # type: ignore[arg-type]
    ahead = ReadAhead(source, read_rows=source.read_rows, on_wait=lambda: None, max_bytes=max_bytes)
    try:
        shards.failure = "the store is down"
        with pytest.raises(StoreError, match="is down"):
            next(iter(ahead.submit(range(64))))
        shards.failure = ""
        rows = list(ahead.submit(range(64)))
        assert [bytes(row) for row in rows] == [shards.expected(n) for n in range(64)]  # type: ignore[arg-type]
    finally:
        assert ahead.close()


def test_addresses() -> None:
    for text, written, name in (
        ("s3://bucket/a/b/", "s3://bucket/a/b", "b"),
        ("s3://bucket", "s3://bucket", "bucket"),
        ("S3://bucket/list.txt", "s3://bucket/list.txt", "list.txt"),
        ("https://host:81/sets/x/", "https://host:81/sets/x", "x"),
        ("https://host:81/sets/x/shards.txt", "https://host:81/sets/x/shards.txt", "x"),
        ("http://host/", "http://host", "host"),
    ):
        assert is_address(text)
        found = parse_store(text)
        assert (str(found), found.name) == (written, name)
        assert parse_store(str(found)) == found
    assert parse_store("http://host/x/l.txt").folder == "http://host/x"
    assert not any(map(is_address, ("/a", "a://b", "s3:/b", "file:///x", b"photos")))
    for text in ("s3://", "http:///x", "s3://a@b/c", "https://h/x?y=1", "https://h/x#y"):
        with pytest.raises(OptionError, match="expected s3://BUCKET/PREFIX or https://HOST/PATH"):
            parse_store(text)
