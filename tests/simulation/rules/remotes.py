"""Rules of producers on other hosts, each as a way to take it out."""

from __future__ import annotations

import math
from typing import Any

from pytest import MonkeyPatch as Patch

from augd.server.daemon.broker.lease_assigner import LeaseAssigner
from augd.server.daemon.broker.producers import Producer
from augd.server.daemon.broker.remote_producers import RemoteProducerTable, RowTarget
from augd.server.daemon.broker.scheduler import Scheduler


def rows_are_written_only_while_the_lease_is_that_producers(patch: Patch) -> None:
    honest = LeaseAssigner._lease
    given: dict[tuple[int, int, int], RowTarget] = {}

    def lease(self: LeaseAssigner, producer: Producer, stream: Any, chunk: Any) -> None:
        honest(self, producer, stream, chunk)
        last = list(producer.leases)[-1]
        offset = chunk.batch.slot.index * stream.slot_bytes
        target = RowTarget(stream.number, offset, stream.arrays, chunk.first_row, chunk.rows)
        given[id(self._streams), producer.number, last] = target

    def target(self: RemoteProducerTable, number: int, lease: int) -> RowTarget | None:
        found = given.get((id(self._scheduler.streams), number, lease))
        return found if found is not None and found.stream in self._scheduler.streams else None

    patch.setattr(LeaseAssigner, "_lease", lease)
    patch.setattr(RemoteProducerTable, "target", target)


def the_leases_of_a_lost_producer_go_back(patch: Patch) -> None:
    honest = Scheduler.lose_producer

    def lose(self: Scheduler, producer: Producer, why: str, *, is_draining: bool = False) -> None:
        producer.leases.clear()
        honest(self, producer, why, is_draining=is_draining)

    patch.setattr(Scheduler, "lose_producer", lose)


def a_host_that_falls_silent_is_given_up(patch: Patch) -> None:
    patch.setattr(Producer, "alive_until", lambda self, patience_s: math.inf)


def a_slot_of_a_remote_producer_is_used_again_only_after_its_lease_was_answered(
    patch: Patch,
) -> None:
    patch.setattr(Producer, "free_slot", lambda self: 0)


RULES = (
    rows_are_written_only_while_the_lease_is_that_producers,
    the_leases_of_a_lost_producer_go_back,
    a_host_that_falls_silent_is_given_up,
    a_slot_of_a_remote_producer_is_used_again_only_after_its_lease_was_answered,
)
