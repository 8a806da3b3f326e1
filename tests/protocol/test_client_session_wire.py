"""The client's half (`ClientSession`) against a daemon, over every wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from augd.client.session import Attach, ClientSession, Deliver, Outcome, PassEnded
from augd.protocol import codec
from augd.protocol import messages as msg
from tests.protocol.harness import NUM_SAMPLES, Client, Wire, make_spec

clause = pytest.mark.clause


class Trainer:
    """A reader on a raw connection: what augd/client/connect.py does, without NumPy."""

    def __init__(self, wire: Wire, **spec: Any) -> None:
        self.client = Client(wire)
        self.reader = ClientSession(make_spec(**spec), "nonce", wire.transport)
        self.said: list[msg.Message] = []
        self._delivered: deque[Deliver | PassEnded] = deque()
        self.perform(self.reader.start("test"))
        while self.reader.state != "open":
            self.step()

    def perform(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Attach):
                self.client.connection.attach(outcome)
                self.perform(self.reader.attached())
            elif isinstance(outcome, msg.Message):
                self.said.append(outcome)
                self.client.say(outcome)
            else:
                self._delivered.append(outcome)

    def step(self) -> None:
        message = self.client.hear(msg.Message)
        self.perform(self.reader.handle(codec.decode_to_client(codec.encode(message))))

    def next(self) -> Deliver | PassEnded:
        while not self._delivered:
            self.step()
        return self._delivered.popleft()

    def seek(self, epoch: int, position: int = 0) -> None:
        self._delivered.clear()
        self.perform(self.reader.seek(epoch, position))
        while self.reader.state != "open":
            self.step()

    def read_epoch(self) -> Iterator[tuple[msg.BatchMessage, list[int]]]:
        while isinstance(outcome := self.next(), Deliver):
            batch = outcome.batch
            yield batch, self.client.ids(batch)
            self.perform(self.reader.release(batch.slot, batch.generation))


@clause("P-32", "P-33", "P-36")
def test_epochs_follow_each_other_without_another_open(wire: Wire) -> None:
    trainer = Trainer(wire)
    for epoch in range(4):
        ids = [sample for batch, rows in trainer.read_epoch() for sample in rows]
        assert ids == list(range(NUM_SAMPLES)), epoch
    assert sum(isinstance(message, msg.Open) for message in trainer.said) == 1


@clause("P-40", "P-41", "P-50")
def test_a_pass_that_is_broken_off_can_be_had_again(wire: Wire) -> None:
    trainer = Trainer(wire, prefetch=3)
    held = [next(trainer.read_epoch()) for _ in range(2)]  # not released: kept by both
    for _ in range(3):
        trainer.seek(0)
        ids = [sample for batch, rows in trainer.read_epoch() for sample in rows]
        assert ids == list(range(NUM_SAMPLES))
    assert [trainer.client.ids(batch) for batch, _ in held] == [rows for _, rows in held]
    for batch, _ in held:
        trainer.perform(trainer.reader.release(batch.slot, batch.generation))
    trainer.seek(1)
    assert sum(len(rows) for _, rows in trainer.read_epoch()) == NUM_SAMPLES


@clause("P-30", "P-34")
def test_a_reader_that_holds_all_gets_no_more_until_it_releases(wire: Wire) -> None:
    trainer = Trainer(wire, prefetch=1)
    held = [trainer.next(), trainer.next()]
    assert trainer.reader.num_held == trainer.reader.num_slots
    assert trainer.client.settle() == []
    batch = held[1]
    assert isinstance(batch, Deliver)
    trainer.perform(trainer.reader.release(batch.batch.slot, batch.batch.generation))
    again = trainer.next()
    assert isinstance(again, Deliver)
    assert (again.batch.sequence, again.batch.slot) == (2, batch.batch.slot)


@clause("P-25")
def test_the_class_list_comes_in_a_frame_of_its_own(wire: Wire) -> None:
    client = Client(wire).join()
    client.open()
    client.hear(msg.Opened)
    assert client.classes in ([], ["cat", "dog"])  # the fake has two, the flat folder none


@clause("P-51")
def test_close_says_bye_once(wire: Wire) -> None:
    trainer = Trainer(wire)
    trainer.perform(trainer.reader.close())
    trainer.perform(trainer.reader.close())
    assert [m for m in trainer.said if isinstance(m, msg.Bye)] == [msg.Bye(trainer.reader.session)]
    sessions = {stream["session"] for stream in Client(wire).status()["streams"]}
    assert trainer.reader.session not in sessions
