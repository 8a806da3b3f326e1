"""A machine that stands still for longer than heartbeats last costs no daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fault import freezes
from tests.fault.freezes import frozen
from tests.support.programs import free_port, put_in_place
from tests.support.scenes import make_folder

# Heartbeats of a tenth, so that a freeze takes a tenth of the time: `make soak` has the long form.
HASTE = """
import sys
if any(word in sys.orig_argv for word in ("--supervisor", "produce")):
    import augd.transport.zmq_sockets as sockets
    sockets._HEARTBEAT_MS, sockets._HEARTBEAT_TIMEOUT_MS = 100, 500
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=200)


@pytest.mark.fault("daemon stopped for longer than heartbeats")
def test_a_daemon_that_stood_still_goes_on(folder, tmp_path, monkeypatch):
    put_in_place(HASTE, tmp_path, monkeypatch)
    with frozen(folder, free_port()) as one:
        for _ in range(3):
            one.freeze(1.0)
            assert one.deaths() == 0
    assert one.epochs


def test_what_cannot_be_set_up_leaves_no_process(folder, monkeypatch):
    """Looked at after each test: a daemon and a relay are children."""

    def fail(*_: object) -> None:
        raise AssertionError("no relay came")

    monkeypatch.setattr(freezes, "await_remotes", fail)
    with pytest.raises(AssertionError, match="no relay came"), frozen(folder, free_port()):
        pass
