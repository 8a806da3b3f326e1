"""Whatever is read, broken off, lost, saved, loaded and joined: no sample is skipped or doubled.

Random walks on a real `Stream` whose connection is played here: it gives the batches of the place
that it was opened at, as a daemon does. Beside it goes a model, which knows one rule: a pass begins
at the place that was loaded or joined if it is the first one after that and over that epoch, and
else at 0.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import augd
from augd.client.connection import Start
from augd.client.session import Deliver, PassEnded, SessionDetached
from augd.client.stream import Stream
from augd.errors import ConnectionLost
from augd.protocol import epoch_layout
from augd.protocol import messages as msg
from augd.protocol.digest_sums import IDS_MODULUS, write_digest, write_ids_digest
from augd.protocol.row_digest import ids_digest
from augd.protocol.slot_layout import slot_layout

NUM_SAMPLES = 23
SHARE = msg.Share("next", 1, 1.0, None)


@dataclass
class Network:
    """What goes wrong: after how many batches a connection ends, or parts; whether one is made."""

    lost_in: int = -1
    parted_in: int = -1
    refused: int = 0


class FakeConnection:
    """A connection to a daemon that has everything ready. Sample i stands at position i."""

    def __init__(self, layout: msg.Layout, start: Start, network: Network) -> None:
        if network.refused:
            network.refused -= 1
            raise augd.ConnectError("refused")
        arrays, slot_bytes = slot_layout(layout.batch_size, 1, 1)
        opened = msg.Opened(
            *(1, 1, 1, "c", {"seed": "0"}, "d", NUM_SAMPLES, arrays, slot_bytes, 1),
            *(start.epoch, start.position),
        )
        spec = msg.Spec("d", {}, layout)
        self.session: Any = SimpleNamespace(
            spec=spec,
            share=start.share,
            opened=opened,
            quarantine={},
            num_held=0,
            num_slots=9,
            is_split_open=False,
        )
        self.network, self.layout = network, layout
        self.address, self.fetch_s, self.classes = "ipc:///played", 0.0, []
        self.memory = bytearray(slot_bytes)
        self.slots = [memoryview(self.memory)]
        self.seek(start.epoch, start.position)

    def seek(self, epoch: int, position: int) -> None:
        self.place, self.sums, self.is_at_end = (epoch, position), [0, 0, 0], False

    def next(self) -> Deliver | PassEnded | SessionDetached:
        network = self.network
        network.lost_in -= 1
        network.parted_in -= 1
        if network.lost_in == 0:
            raise ConnectionLost("lost")
        if network.parted_in == 0 and self.session.share is not None:
            return SessionDetached("too slow")
        epoch, position = self.place
        if self.is_at_end:
            batches, samples, ids = self.sums
            self.seek(epoch + 1, 0)
            sums = write_digest(0), write_ids_digest(ids)
            return PassEnded(msg.EpochEnd(1, 1, epoch, batches, samples, 0, *sums))
        return Deliver(self._fill(epoch, position))

    def _fill(self, epoch: int, position: int) -> msg.BatchMessage:
        layout = self.layout
        rows = epoch_layout.batch_rows(layout, NUM_SAMPLES, position)
        first = position + layout.rank * layout.batch_size
        ids = np.arange(first, first + rows)
        ids[ids >= NUM_SAMPLES] = -1
        for spec in self.session.opened.arrays:
            if spec.name == "ids":
                self.memory[spec.offset : spec.offset + 8 * rows] = ids.tobytes()
        digest = ids_digest(first, ids)
        self.sums = [
            self.sums[0] + 1,
            self.sums[1] + int((ids >= 0).sum()),
            (self.sums[2] + digest) % IDS_MODULUS,
        ]
        after = position + epoch_layout.global_batch(layout)
        self.place = epoch, after
        self.is_at_end = not epoch_layout.batches_left(layout, NUM_SAMPLES, after)
        number = epoch_layout.batch_number(layout, position)
        return msg.BatchMessage(1, 1, 0, epoch, number, position, rows, 0, 0, 0, write_digest(0))

    def check_usable(self) -> None: ...

    def check_slots(self) -> None: ...

    def leave(self) -> None: ...

    def close(self) -> None: ...

    def release(self, slot: int, generation: int) -> None: ...

    def release_pending(self) -> None: ...


def connect(layout: msg.Layout, network: Network, joined_at: tuple[int, int] | None) -> Stream:
    place = joined_at or (0, 0)
    start = Start(*place, share=SHARE if joined_at else None)

    def connect_again(spec: msg.Spec, start: Start, within_s: float, tell: Any, clock: Any) -> Any:
        return FakeConnection(layout, start, network)

    connection: Any = FakeConnection(layout, start, network)
    return Stream(connection, connect_again, 0.0, is_verified=False)


@dataclass
class Model:
    """What must come. `counted` is what this rank had of an epoch up to a place; None: unknown."""

    layout: msg.Layout
    start: tuple[int, int] = (0, 0)
    counted: frozenset[int] | None = frozenset()
    place: tuple[int, int] = (0, 0)
    next_pass: int = 0
    saved: list[Any] = field(default_factory=list)

    def begin(self, epoch: int) -> int:
        if self.start[0] != epoch:
            self.start, self.counted = (epoch, 0), frozenset()
        self.place, self.next_pass = self.start, epoch
        return self.start[1]

    def rows(self, position: int) -> list[int]:
        first = position + self.layout.rank * self.layout.batch_size
        return [at for at in range(first, first + self.layout.batch_size) if at < NUM_SAMPLES]


def read(stream: Stream, model: Model, epoch: int | None, most: int) -> None:
    """Make a pass of at most so many batches, and compare each."""
    wanted = model.next_pass if epoch is None else epoch
    position = model.begin(wanted)
    counted, step = model.counted, epoch_layout.global_batch(model.layout)
    passing = stream.epoch(wanted) if epoch is not None else iter(stream)
    for _ in range(most):
        is_end = not epoch_layout.batches_left(model.layout, NUM_SAMPLES, position)
        try:
            batch = next(passing, None)
        except augd.ConnectError:
            with pytest.raises(augd.StreamClosed, match="broke off"):
                next(passing)
            return
        assert (batch is None) == is_end
        if is_end:
            was_dropped = model.start == (wanted, position) and position > 0
            model.place, model.next_pass = (wanted + 1, 0), wanted + 1
            model.start = (-1, 0)
            check_receipt(stream, wanted, counted if not was_dropped else None)
            return
        if epoch is not None:
            assert (batch.epoch, batch.position) == (wanted, position)
            assert batch.ids[batch.ids >= 0].tolist() == model.rows(position)
        if counted is not None:
            assert not counted & set(model.rows(position)), "doubled"
            counted |= set(model.rows(position))
        position += step
        model.place, model.start, model.next_pass = (wanted, position), (-1, 0), wanted + 1
        model.counted = counted


def check_receipt(stream: Stream, epoch: int, counted: frozenset[int] | None) -> None:
    receipt = stream.receipt(epoch)
    assert receipt["is_complete"] == (counted is not None)
    if counted is not None:
        digest = sum(ids_digest(at, np.array([at])) for at in counted) % IDS_MODULUS
        assert (receipt["samples"], receipt["ids"]) == (len(counted), f"{digest:016x}")


def save(stream: Stream, model: Model) -> Any:
    state = json.loads(json.dumps(stream.state_dict()))
    epoch, position = model.place
    counted = model.counted
    if not epoch_layout.batches_left(model.layout, NUM_SAMPLES, position):
        epoch, position, counted = epoch + 1, 0, frozenset()
    assert (state["epoch"], state["position"]) == (epoch, position)
    return state, (epoch, position), counted if position else frozenset(), model.layout


def load(stream: Stream, saved: Any, layout: msg.Layout) -> Model:
    state, place, counted, was = saved
    stream.load_state_dict(state)
    if place[1] and (was.rank, was.world) != (layout.rank, layout.world):
        counted = None
    return Model(layout, place, counted, place, place[0])


LAYOUTS = [
    msg.Layout(4),
    msg.Layout(5, 0, 1, True),
    msg.Layout(3, 0, 2),
    msg.Layout(3, 1, 2),
    msg.Layout(2, 1, 2, True),
    msg.Layout(2, 2, 3),
]
MOVES = ["read"] * 6 + ["save", "load", "load", "connect", "join", "lose", "part"]


@pytest.mark.parametrize("seed", range(8))
def test_random_walks_skip_and_double_nothing(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(100):
        walk(chance, [chance.choice(MOVES) for _ in range(16)])


def walk(chance: random.Random, moves: list[str]) -> None:
    saved, network, layout = None, Network(), chance.choice(LAYOUTS)
    stream, model = connect(layout, network, None), Model(layout)
    for move in moves:
        if move == "read":
            most = chance.choice([1, 2, 3, 12, 12])
            read(stream, model, chance.choice([None, 0, 1]), most)
        elif move == "save":
            saved = save(stream, model)
        elif move == "load" and saved is not None:
            model = load(stream, saved, model.layout)
        elif move == "connect":
            network, layout = Network(), chance.choice(LAYOUTS)
            stream, model = connect(layout, network, None), Model(layout)
        elif move == "join":
            network, layout = Network(), chance.choice(LAYOUTS)
            at = chance.randrange(epoch_layout.batches_left(layout, NUM_SAMPLES))
            place = chance.randrange(2), at * epoch_layout.global_batch(layout)
            stream = connect(layout, network, place)
            model = Model(layout, place, None if at else frozenset(), place, place[0])
        elif move == "lose":
            network.lost_in, network.refused = chance.randint(1, 6), chance.randint(0, 1)
        elif move == "part":
            network.parted_in = chance.randint(1, 6)
