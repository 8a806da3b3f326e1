"""The memory of streams: their arenas, and the lists of their selected samples.

Runs in the daemon's loop. An arena is a memory file: producers write batches to it, and clients
read them from it. The daemon maps an arena only if its batches or its rows go over TCP.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from augd.dataset.index_file import IndexFile
from augd.dataset.selection import Choices
from augd.errors import AugdError, OverLimit
from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker_driver import Actions, BrokerDriver
from augd.server.supervision.sample_selection import select_samples
from augd.transport.arena import make_arena, map_arena


class StreamMemory:
    """Owns the fds and the mappings of all streams."""

    def __init__(self, driver: BrokerDriver, datasets: Mapping[str, IndexFile]) -> None:
        self._driver = driver
        self._datasets = datasets
        self._arenas: dict[int, tuple[int, int]] = {}
        self._maps: dict[int, memoryview] = {}
        self._choices = Choices()

    def actions(self) -> Actions:
        """Return the functions that do the broker's actions."""
        return {
            ev.SelectSamples: self._select,
            ev.MakeArena: self._make_arena,
            ev.DropArena: self._drop_arena,
        }

    def arena(self, stream: int) -> tuple[int, int]:
        """Return the fd of a stream's arena, which stays this object's, and its size in bytes."""
        return self._arenas[stream]

    def choice_fd(self, stream: int) -> int:
        """Return the fd of the list of a stream's samples, which stays this object's."""
        return self._choices.fd(stream)

    def map_arena(self, stream: int) -> memoryview:
        """Return a stream's arena as memory of this process; it is mapped once.

        Raises:
            OSError: it cannot be mapped.
        """
        if stream not in self._maps:
            fd, size_bytes = self._arenas[stream]
            self._maps[stream] = memoryview(map_arena(fd, size_bytes))
        return self._maps[stream]

    def _select(self, action: ev.SelectSamples) -> None:
        try:
            shared = self._choices.take(
                action.stream,
                (action.dataset, action.selection),
                lambda: select_samples(self._datasets[action.dataset], action.selection),
            )
        except AugdError as error:
            self._driver.handle(ev.SelectionFailed(action.stream, error.code, str(error)))
            return
        except OSError as error:
            text = f"no memory file: {error}"
            self._driver.handle(ev.SelectionFailed(action.stream, "OVER_LIMIT", text))
            return
        chosen = msg.Chosen(shared.num_samples, shared.num_groups, shared.num_picked)
        self._driver.handle(ev.SamplesSelected(action.stream, chosen, shared.num_unlabelled))

    def _make_arena(self, action: ev.MakeArena) -> None:
        try:
            fd = make_arena("augd-arena", action.size_bytes)
        except (OverLimit, OSError) as error:
            self._driver.handle(ev.ArenaFailed(action.stream, str(error)))
            return
        self._arenas[action.stream] = (fd, action.size_bytes)
        self._driver.handle(ev.ArenaMade(action.stream))

    def _drop_arena(self, action: ev.DropArena) -> None:
        self._choices.drop(action.stream)
        self._maps.pop(action.stream, None)
        fd, _ = self._arenas.pop(action.stream, (-1, 0))
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        for fd, _ in self._arenas.values():
            os.close(fd)
        self._choices.close()
