"""Decoders that are packages of their own: they count for datasets that take them alone."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker.broker import Broker, DatasetFacts

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}
HAS = {"opencv": "5", "decoder.heic": "pillow-heif 1.8", "decoder.jxl": "none"}
LACKS = {**HAS, "decoder.heic": "none"}
DIGEST = "0" * 32


def broker_of(*decoders: str, producers: int = 2) -> Broker:
    facts = DatasetFacts(DIGEST, "/d", 100, (8, 8), decoders=frozenset(decoders))
    broker = Broker("i", "/a", {"d": facts}, producers)
    broker.handle(ev.Tick(), 0.0)
    return broker


def killed(actions: list[ev.Action]) -> bool:
    return any(isinstance(action, ev.KillProducer) for action in actions)


@pytest.mark.clause("P-76")
def test_producers_may_differ_in_what_no_dataset_takes() -> None:
    for decoders, is_sent_away in (
        ((), False),
        (("decoder.jxl",), False),
        (("decoder.heic",), True),
    ):
        broker = broker_of(*decoders)
        assert not killed(broker.handle(ev.FromLocalProducer(0, msg.Ready(1, HAS)), 0.0))
        assert (
            killed(broker.handle(ev.FromLocalProducer(1, msg.Ready(2, LACKS)), 0.0)) is is_sent_away
        )
        assert broker.snapshot(0.0)["environment"].keys() == {"opencv", *decoders}


@pytest.mark.clause("P-76", "P-131")
def test_so_may_producers_of_other_hosts() -> None:
    for decoders, refusal in (((), ""), (("decoder.heic",), "decoder.heic: expected pillow-heif")):
        broker = broker_of(*decoders, producers=0)
        answers = []
        for environment in (HAS, LACKS):
            join = msg.Join("node7", 9, {"d": DIGEST}, environment)
            actions = broker.handle(ev.FromPeer(b"7", join, None), 0.0)
            answers += [action.message for action in actions if isinstance(action, ev.SendToClient)]
        first, second = answers
        assert isinstance(first, msg.Joined)
        if refusal:
            assert isinstance(second, msg.Error) and refusal in second.text
        else:
            assert isinstance(second, msg.Joined)
