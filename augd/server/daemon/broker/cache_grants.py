"""The messages of the cache of decoded images: CACHE and ROOM to producers, CACHED from them.

The scheduler calls in here; augd/server/daemon/broker/cache_allocator.py decides which bytes a
producer gets. Only producers on this host take part: the cache goes by fds. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.cache_allocator import CacheAllocator
from augd.server.daemon.broker.outbox import Outbox
from augd.server.daemon.broker.producers import Producer


class CacheGrants:
    """Grants producers extents of the cache, and publishes the images that they wrote."""

    def __init__(self, outbox: Outbox, cache: CacheAllocator) -> None:
        self._outbox = outbox
        self._cache = cache

    def offer(self, producer: Producer, environment: Mapping[str, str]) -> None:
        """Send a producer that is ready the cache and its first extents."""
        if producer.remote is not None:
            return
        changed = self._cache.clear_if_other(environment)
        if changed is not None:
            self._outbox.add(ev.ClearCache(changed))
        facts = self._cache.facts
        self._outbox.tell(producer.number, msg.CacheMessage(facts.size_bytes, facts.is_checked))
        self._grant(producer)

    def add(self, producer: Producer, message: msg.Cached) -> None:
        """Publish the images that a producer wrote, and grant it more extents."""
        if producer.state == "starting" or producer.remote is not None:
            return
        for entry in message.entries:
            if self._cache.put(producer.number, message.dataset, entry):
                self._outbox.add(ev.PutCached(message.dataset, entry))
        self._grant(producer, message.wanted_bytes)

    def _grant(self, producer: Producer, wanted_bytes: int = 0) -> None:
        for start, end in self._cache.grant(producer.number, wanted_bytes):
            self._outbox.tell(producer.number, msg.Room(start, end))
