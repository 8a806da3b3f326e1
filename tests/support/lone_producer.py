"""A daemon's hands without a daemon: a real producer that a test tells what it likes."""

from __future__ import annotations

import os
from typing import TypeVar

from augd.dataset.index_file import IndexFile
from augd.plan.recipe.recipe import expand, parse_recipe
from augd.process.oom_kills import OomKillCounter
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.exit_reason import ExitReason
from augd.protocol.slot_layout import slot_layout
from augd.server.supervision.producer_process import (
    ProducerOptions,
    ProducerProcess,
    spawn_producer,
)
from augd.transport import unix_link
from augd.transport.arena import make_arena
from tests.support.processes import await_true
from tests.support.scenes import SMALL

ROWS = 16
Kind = TypeVar("Kind", bound=msg.Message)


class LoneProducer:
    """One producer, one dataset, one stream; `sources` are own ones, by dataset."""

    def __init__(self, index: IndexFile, *sources: str) -> None:
        self.spawned: ProducerProcess = spawn_producer(ProducerOptions(sources=sources), 0)
        self._heard: list[msg.FromProducer] = []
        arrays, slot_bytes = slot_layout(ROWS, 32, 32)
        self._arena = make_arena("augd-arena", slot_bytes)
        use = msg.StreamMessage(
            stream=1,
            dataset="small",
            recipe=expand(parse_recipe(SMALL)),
            layout=msg.Layout(ROWS),
            seed=0,
            shuffle=False,
            arrays=arrays,
            slot_bytes=slot_bytes,
            num_slots=1,
        )
        self.tell(
            msg.DatasetMessage("small", str(index.root), index.digest), index.fd, index.dims_fd
        )
        self.tell(use, self._arena)

    def tell(self, message: msg.ToProducer, *fds: int) -> None:
        assert unix_link.send(self.spawned.link, codec.encode(message), fds)

    def lease(self, number: int) -> None:
        self.tell(msg.Lease(number, 1, 0, 0, 0, ROWS, 0))

    def has_said(self, kind: type[msg.Message]) -> bool:
        try:
            while (received := unix_link.receive(self.spawned.link, wait=False)) is not None:
                self._heard.append(codec.decode_from_producer(received[0]))
        except EOFError:
            pass
        return any(isinstance(message, kind) for message in self._heard)

    def heard(self, kind: type[Kind], within_s: float = 20.0) -> Kind:
        """Wait for a message of a kind."""
        await_true(lambda: self.has_said(kind), within_s, f"{kind.__name__} is said")
        return next(message for message in self._heard if isinstance(message, kind))

    def await_end(self) -> tuple[ExitReason, tuple[int, int, int] | None]:
        self.spawned.process.wait(20)
        return self.spawned.ending(OomKillCounter([])), self.spawned.current_sample()

    def close(self) -> None:
        self.spawned.process.kill()
        self.spawned.process.wait()
        self.spawned.close()
        os.close(self._arena)
