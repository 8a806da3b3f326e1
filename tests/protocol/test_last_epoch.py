"""The last epoch that there is: raw clients may open it, and producers never hear of the next."""

from __future__ import annotations

import pytest

from augd.protocol import messages as msg
from augd.protocol.limits import EPOCH_LAST
from tests.protocol.harness import Client, Wire, make_spec

clause = pytest.mark.clause


@clause("P-163")
def test_nothing_is_made_beyond_the_last_epoch(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(100), credit=9, epoch=EPOCH_LAST)
    opened = client.hear(msg.Opened)
    assert (opened.epoch, opened.position) == (EPOCH_LAST, 0)
    assert client.hear(msg.BatchMessage).epoch == EPOCH_LAST
    assert client.hear(msg.EpochEnd).epoch == EPOCH_LAST
    assert client.rest() == []
    # The producers live, and make what others ask for.
    (stream,) = [one for one in client.status()["streams"] if one["stream"] == opened.stream]
    assert stream["sessions"] == [client.session]
    other = Client(wire).join()
    other.open(make_spec(100), credit=1)
    other.hear(msg.Opened)
    assert other.hear(msg.BatchMessage).epoch == 0


@clause("P-163")
def test_the_epoch_before_the_last_goes_on_to_it_and_ends_there(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(100), credit=9, epoch=EPOCH_LAST - 1)
    client.hear(msg.Opened)
    for epoch in (EPOCH_LAST - 1, EPOCH_LAST):
        assert client.hear(msg.BatchMessage).epoch == epoch
        assert client.hear(msg.EpochEnd).epoch == epoch
    assert client.rest() == []


@clause("P-163")
def test_a_place_behind_its_end_is_refused(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(100), credit=9, epoch=EPOCH_LAST, position=10**6)
    error = client.hear(msg.Error)
    assert (error.code, error.session, error.opening) == ("BAD_OPTION", client.session, 1)
    assert error.text.startswith(f"epoch: expected 0..{EPOCH_LAST}, got a place behind the end")
    client.open(make_spec(100), credit=1, epoch=EPOCH_LAST)
    assert client.hear(msg.Opened).epoch == EPOCH_LAST
