"""What the cache allocator keeps: extents, what producers wrote in them, and space that never
leaks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from augd.diagnostics.formatting import say_cache
from augd.protocol import messages as msg
from augd.protocol.cache_table import ALIGNMENT, CacheFacts, Span
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts
from augd.server.daemon.broker.cache_allocator import DECODING, EXTENT_MIN_BYTES, CacheAllocator

SIZE = 1 << 20
ENVIRONMENT = dict.fromkeys(DECODING, "1")
IMAGE_BYTES = 100 * 50 * 3
clause = pytest.mark.clause


def make_cache(
    size_bytes: int = SIZE, num_producers: int = 2, num_samples: int = 100
) -> CacheAllocator:
    facts = CacheFacts(
        "ram", size_bytes, [(ALIGNMENT, size_bytes)], {"photos": bytearray(num_samples)}
    )
    return CacheAllocator(facts, num_producers)


def entry(sample: int, offset: int, *, replaces: bool = False) -> msg.CacheEntry:
    return msg.CacheEntry(sample, offset, 100, 50, replaces=replaces)


def held(cache: CacheAllocator) -> list[Span]:
    return [(extent.at, extent.end) for extents in cache._extents.values() for extent in extents]


def total(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def check_space(cache: CacheAllocator) -> None:
    """Free parts and extents never overlap, and neighbours are one part."""
    spans = cache.facts.spans
    assert spans == sorted(spans)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans)), "not merged"
    everything = sorted(spans + [span for span in held(cache) if span[0] < span[1]])
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(everything))
    assert all(start >= ALIGNMENT and end <= cache.facts.size_bytes for start, end in everything)


def test_each_producer_has_two_rooms_of_its_own() -> None:
    cache = make_cache()
    extents = [cache.grant(producer) for producer in (0, 1)]
    assert [len(given) for given in extents] == [2, 2]
    assert total(extents[0]) == 2 * SIZE // 8
    check_space(cache)
    assert cache.grant(0) == [], "it has them"


@clause("P-150")
def test_what_is_whole_is_published_and_the_next_room_comes_in_time() -> None:
    cache = make_cache()
    (first, second) = cache.grant(0)
    at, samples = first[0], iter(range(100))
    while at + IMAGE_BYTES <= first[1]:
        assert cache.put(0, "photos", entry(next(samples), at))
        at += -(-IMAGE_BYTES // ALIGNMENT) * ALIGNMENT
        assert cache.grant(0) == []
    assert cache.put(0, "photos", entry(next(samples), second[0])), "it went to the next extent"
    check_space(cache)
    assert (at, first[1]) in cache.facts.spans, "the rest of the first is free again"
    (third,) = cache.grant(0)
    assert third[0] >= second[1]
    assert cache.describe()["entries"] == next(samples) == 9
    assert cache.describe()["filled_bytes"] == 9 * IMAGE_BYTES


@clause("P-150")
def test_of_two_producers_with_one_sample_the_first_counts_and_nothing_leaks() -> None:
    cache = make_cache()
    (mine, _), (other, _) = cache.grant(0), cache.grant(1)
    assert cache.put(0, "photos", entry(7, mine[0]))
    free = total(cache.facts.spans)
    assert not cache.put(1, "photos", entry(7, other[0]))
    assert total(cache.facts.spans) == free + -(-IMAGE_BYTES // ALIGNMENT) * ALIGNMENT
    check_space(cache)
    assert not cache.put(1, "photos", entry(8, other[0])), "those bytes are not its own any more"


@clause("P-150")
def test_a_damaged_image_is_replaced_and_its_bytes_stay_untouched() -> None:
    cache = make_cache()
    first, _ = cache.grant(0)
    assert cache.put(0, "photos", entry(7, first[0]))
    again = first[0] + -(-IMAGE_BYTES // ALIGNMENT) * ALIGNMENT
    assert cache.put(0, "photos", entry(7, again, replaces=True))
    assert all(start > again for start, _ in cache.facts.spans), "somebody may look at the old one"
    assert cache.describe()["entries"] == 1


@clause("P-150")
@pytest.mark.parametrize(
    "wrong",
    [
        entry(7, 0),
        entry(7, SIZE - 64),
        entry(7, 1 << 40),
        entry(100, 64),
        entry(2**40, 64),
        msg.CacheEntry(7, 64, 0, 50),
        msg.CacheEntry(7, 64, 2**31 - 1, 2**31 - 1),
    ],
)
def test_what_is_not_the_producers_own_is_not_published(wrong: msg.CacheEntry) -> None:
    cache = make_cache()
    cache.grant(0)
    before = held(cache), list(cache.facts.spans)
    assert not cache.put(0, "photos", wrong)
    assert not cache.put(1, "photos", entry(7, 64)), "an extent of another"
    assert not cache.put(0, "elsewhere", entry(7, 64))
    assert (held(cache), cache.facts.spans) == before


@clause("P-151")
def test_whenever_a_producer_dies_only_what_it_told_of_is_taken() -> None:
    """At each step of filling: before the first image, between any two, at the end."""
    for num_told in range(20):
        cache = make_cache()
        at = None
        for sample in range(num_told):
            extents = cache.grant(0) if at is None else []
            extent = cache._extents[0][0]
            if extent.at + IMAGE_BYTES > extent.end:
                extent = cache._extents[0][1]
            at = extent.at
            assert cache.put(0, "photos", entry(sample, at))
            cache.grant(0)
            check_space(cache)
            del extents
        cache.grant(0)
        cache.free(0)
        check_space(cache)
        assert not held(cache)
        taken = SIZE - ALIGNMENT - total(cache.facts.spans)
        assert taken == num_told * -(-IMAGE_BYTES // ALIGNMENT) * ALIGNMENT


@clause("P-151")
def test_a_thousand_kills_leak_nothing() -> None:
    cache = make_cache()
    for _ in range(1000):
        cache.grant(0)
        cache.free(0)
    assert cache.facts.spans == [(ALIGNMENT, SIZE)]


def test_a_full_cache_gives_no_room_and_smaller_images_still_fit() -> None:
    cache = make_cache(size_bytes=4 * EXTENT_MIN_BYTES, num_producers=1)
    given = cache.grant(0)
    while more := cache.grant(0, wanted_bytes=EXTENT_MIN_BYTES):
        given += more
    assert total(given) > 2 * EXTENT_MIN_BYTES
    assert cache.grant(0, wanted_bytes=EXTENT_MIN_BYTES) == []
    check_space(cache)


def test_a_image_larger_than_a_room_makes_rooms_larger() -> None:
    cache = make_cache(size_bytes=64 << 20, num_producers=1)
    cache._extent_bytes = 1 << 20
    cache.grant(0)
    (large,) = cache.grant(0, wanted_bytes=1_500_000)
    assert total([large]) == pytest.approx(8 * 1_500_000, abs=ALIGNMENT)
    assert cache.grant(0, wanted_bytes=100 << 20) == [], "larger than the whole cache"


def test_after_a_full_disk_nobody_gets_a_room() -> None:
    cache = make_cache()
    cache.grant(0)
    cache.stop()
    cache.free(0)
    assert cache.grant(1) == [] == cache.grant(1, wanted_bytes=100)


@clause("P-152")
def test_images_of_other_libraries_go_before_anybody_gets_a_room() -> None:
    cache = make_cache()
    cache.facts.environment = dict(ENVIRONMENT)
    cache.facts.present["photos"][3] = 1
    cache.facts.spans, cache.facts.num_entries, cache.facts.filled_bytes = [], 1, IMAGE_BYTES
    assert cache.clear_if_other({**ENVIRONMENT, "plugin.mine": "a"}) is None, (
        "an op decodes nothing"
    )
    assert cache.facts.num_entries == 1
    found = cache.clear_if_other({**ENVIRONMENT, "opencv": "2"})
    assert found == {**ENVIRONMENT, "opencv": "2"}
    assert cache.facts.spans == [(ALIGNMENT, SIZE)]
    assert not any(cache.facts.present["photos"])
    assert cache.describe()["entries"] == cache.describe()["filled_bytes"] == 0


def make_broker(cache: CacheAllocator | None) -> Broker:
    facts = DatasetFacts("d" * 32, "/photos", 100, (100, 50))
    broker = Broker("i", "/a", {"photos": facts}, 2, cache=cache)
    broker.handle(ev.Tick(), 0.0)
    return broker


def told(actions: list[ev.Action], producer: int = 0) -> list[msg.Message]:
    return [
        a.message for a in actions if isinstance(a, ev.SendToProducer) and a.producer == producer
    ]


@clause("P-152")
def test_the_broker_empties_first_then_tells_of_cache_and_rooms() -> None:
    broker = make_broker(make_cache())
    actions = broker.handle(
        ev.FromLocalProducer(0, msg.Ready(11, dict(ENVIRONMENT), "seccomp")), 1.0
    )
    first, *_ = (action for action in actions if not isinstance(action, ev.Log))
    assert isinstance(first, ev.ClearCache)
    kinds = [type(message) for message in told(actions)]
    assert kinds == [msg.CacheMessage, msg.Room, msg.Room]
    second = broker.handle(
        ev.FromLocalProducer(1, msg.Ready(12, dict(ENVIRONMENT), "seccomp")), 1.0
    )
    assert not any(isinstance(action, ev.ClearCache) for action in second), "once"


@clause("P-150", "P-151", "P-153")
def test_the_broker_publishes_gives_the_next_room_counts_and_takes_back() -> None:
    cache = make_cache()
    broker = make_broker(cache)
    actions = broker.handle(
        ev.FromLocalProducer(0, msg.Ready(11, dict(ENVIRONMENT), "seccomp")), 1.0
    )
    extents = [message for message in told(actions) if isinstance(message, msg.Room)]
    good, wrong = entry(4, extents[1].start), entry(5, 0)
    actions = broker.handle(ev.FromLocalProducer(0, msg.Cached("photos", (good, wrong))), 1.1)
    assert [a for a in actions if isinstance(a, ev.PutCached)] == [ev.PutCached("photos", good)]
    assert [type(message) for message in told(actions)] == [msg.Room]
    broker.handle(ev.FromLocalProducer(0, msg.Done(99, hits=30, misses=2)), 1.2)
    found = broker.snapshot()["cache"]
    assert (found["hits"], found["misses"], found["entries"]) == (30, 2, 1)
    broker.handle(ev.Reaped(0, "killed by SIGKILL"), 1.3)
    check_space(cache)
    assert not held(cache)
    broker.handle(ev.FromLocalProducer(0, msg.Cached("photos", (entry(6, 64),))), 1.4)
    assert broker.snapshot()["cache"]["entries"] == 1, "the dead say nothing"


def test_a_full_disk_is_said_to_the_operator() -> None:
    broker = make_broker(make_cache())
    actions = broker.handle(ev.CacheFull("No space left on device"), 1.0)
    assert ev.Log(30, "the cache takes no more images: No space left on device") in actions


def test_without_a_cache_nobody_hears_of_one() -> None:
    broker = make_broker(None)
    actions = broker.handle(
        ev.FromLocalProducer(0, msg.Ready(11, dict(ENVIRONMENT), "seccomp")), 1.0
    )
    assert told(actions) == []
    broker.handle(ev.FromLocalProducer(0, msg.Cached("photos", (entry(1, 64),))), 1.1)
    assert broker.snapshot()["cache"] is None


def test_it_is_said_in_a_line() -> None:
    cache = make_cache(size_bytes=8_000_000_000)
    assert say_cache(cache.describe()) == "cache (ram): 0 images, 0.00 of 8.00 GB"
    cache.hits, cache.misses = 900, 100
    assert say_cache(cache.describe()).endswith("; 90% of 1,000 images came from it")
