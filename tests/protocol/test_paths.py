"""PATHS and its answer, over a fake and a daemon; and who may ask."""

from __future__ import annotations

import json

import pytest

import augd
from augd.protocol import messages as msg
from augd.protocol.limits import PATHS_MAX
from tests.protocol.harness import NUM_SAMPLES, Client, RealWire, Wire, make_spec
from tests.support.keyring import Keyring

clause = pytest.mark.clause


def digest_of(wire: Wire) -> str:
    client = Client(wire).join()
    client.open()
    found: str = json.loads(client.hear(msg.Opened).content_fields["dataset"])
    return found


@clause("P-63")
def test_paths_are_told_in_the_order_asked_for_without_a_session(wire: Wire) -> None:
    digest = digest_of(wire)
    asker = Client(wire)
    asker.say(msg.Paths("photos", digest, (3, 0, 3)))
    paths = asker.hear(msg.PathsReply).paths
    assert len(paths) == 3 and paths[0] == paths[2] != paths[1]
    assert all(path.endswith((b".png", b".jpg")) for path in paths)


@clause("P-63")
def test_what_cannot_be_told_is_refused_by_name(wire: Wire) -> None:
    digest = digest_of(wire)
    asker = Client(wire)
    asker.say(msg.Paths("photos", digest, (0, NUM_SAMPLES)))
    error = asker.hear(msg.Error)
    assert error.code == "BAD_OPTION"
    assert error.text == (
        f"ids: expected 0..{NUM_SAMPLES - 1} of dataset photos, got {NUM_SAMPLES}"
    )
    asker.say(msg.Paths("photos", "f" * 32, (0,)))
    error = asker.hear(msg.Error)
    assert error.code == "SPEC_MISMATCH" and f"got {'f' * 32}" in error.text
    asker.say(msg.Paths("nothing", digest, (0,)))
    assert asker.hear(msg.Error).code == "UNKNOWN_DATASET"
    asker.say(msg.Paths("photos", digest, tuple([0] * (PATHS_MAX + 1))))
    assert asker.hear(msg.Error).code == "MALFORMED"
    asker.say(msg.Paths("photos", digest, ()))
    assert asker.hear(msg.Error).code == "MALFORMED"


@clause("P-63", "P-105")
def test_nobody_is_told_of_a_data_set_that_he_may_not_read(
    keyed_daemon: augd.ServedDaemon, keyring: Keyring
) -> None:
    own = RealWire(keyed_daemon.addresses[0])
    client = Client(own).join()
    client.open(make_spec(dataset="photos"))
    digest = json.loads(client.hear(msg.Opened).content_fields["dataset"])
    outsider = RealWire(keyed_daemon.addresses[1], "frames", keyring.curve("outsider"))
    asker = Client(outsider)
    asker.say(msg.Paths("photos", digest, (0,)))
    assert asker.hear(msg.Error).code == "FORBIDDEN"
    outsider.close()
    own.close()
