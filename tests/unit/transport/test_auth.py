"""Who gets in: the authenticator's answers, the folder of clients, the proof at start."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from augd.errors import AugdError, Forbidden, OptionError
from augd.protocol.permissions import Rights
from augd.transport.address import TcpAddress
from augd.transport.auth import authenticator, keys, self_test
from augd.transport.auth.authenticator import Authenticator, answer
from augd.transport.auth.known_clients import KnownClients
from augd.transport.auth.self_test import run_self_test
from augd.transport.zmq_sockets import Poller, Router

clause = pytest.mark.clause

KEY = bytes(range(32))
USERS = {KEY: "alice/1"}
ASKED = [b"1.0", b"7", b"augd", b"192.0.2.1", b"", b"CURVE", KEY]
LOOPBACK = TcpAddress("127.0.0.1", 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.make_server_pair(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def gate(folder: Path) -> Iterator[Authenticator]:
    made = Authenticator(folder)
    yield made
    made.close()


def add_client(folder: Path, name: str, pair: keys.Pair | None = None, **rights: object) -> Path:
    public = (pair or keys.make_pair()).public
    return keys.register(folder, keys.KnownClient(public, Rights(name, **rights)))


# ZAP


@clause("P-101")
def test_a_known_key_is_let_in_by_name() -> None:
    assert answer(ASKED, USERS) == [b"1.0", b"7", b"200", b"OK", b"alice/1", b""]


@clause("P-101")
@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({6: bytes(32)}, b"400", b"unknown key"),
        ({6: KEY[:31]}, b"400", b"no key"),
        ({6: KEY + b"\0"}, b"400", b"no key"),
        ({6: b""}, b"400", b"no key"),
        ({2: b""}, b"400", b"not a domain or mechanism of this daemon"),
        ({2: b"global"}, b"400", b"not a domain or mechanism of this daemon"),
        ({5: b"NULL"}, b"400", b"not a domain or mechanism of this daemon"),
        ({5: b"PLAIN"}, b"400", b"not a domain or mechanism of this daemon"),
        ({5: b"curve"}, b"400", b"not a domain or mechanism of this daemon"),
        ({0: b"1.1"}, b"500", b"malformed request"),
        ({0: b""}, b"500", b"malformed request"),
    ],
)
def test_everything_else_is_refused(change: dict[int, bytes], status: bytes, text: bytes) -> None:
    request = [change.get(place, frame) for place, frame in enumerate(ASKED)]
    assert answer(request, USERS) == [b"1.0", b"7", status, text, b"", b""]


@clause("P-101")
def test_requests_of_another_length_are_refused() -> None:
    for length in range(6):
        status = answer(ASKED[:length], USERS)
        assert status == [
            b"1.0",
            b"7" if length > 1 else b"",
            b"500",
            b"malformed request",
            b"",
            b"",
        ]
    for request in (ASKED[:6], [*ASKED, b""], [*ASKED, KEY]):
        assert answer(request, USERS) == [b"1.0", b"7", b"400", b"no key", b"", b""]


def test_the_socket_answers_whatever_comes(gate: Authenticator) -> None:
    gate.open()
    asking = zmq.Context.instance().socket(zmq.DEALER)
    asking.connect(authenticator.ZAP_ENDPOINT)
    for request in ([b""], [b"", b"1.0"], [b"", *ASKED[:2], b"\xff" * 300, *ASKED[3:]]):
        asking.send_multipart(request)
    gate.serve()
    answers = [asking.recv_multipart(zmq.NOBLOCK)[1:] for _ in range(3)]
    asking.close(linger=0)
    assert [reply[2] for reply in answers] == [b"500", b"500", b"400"]


def test_one_authenticator_at_a_time(gate: Authenticator, folder: Path) -> None:
    gate.open()
    other = Authenticator(folder)
    with pytest.raises(AugdError, match="the authenticator cannot start"):
        other.open()
    other.close()
    gate.close()
    third = Authenticator(folder)
    third.open()
    third.close()


def test_refusals_are_logged_without_keys_and_not_without_end(
    gate: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    gate.open()
    asking = zmq.Context.instance().socket(zmq.DEALER)
    asking.connect(authenticator.ZAP_ENDPOINT)
    for _ in range(50):
        asking.send_multipart([b"", *ASKED])
    with caplog.at_level(logging.WARNING, logger="augd"):
        gate.serve()
    asking.close(linger=0)
    assert [record.getMessage() for record in caplog.records] == [
        "refused an unknown key from 192.0.2.1 (refusals: 1)"
    ]


# the folder of clients


def users_of(clients: KnownClients) -> set[str]:
    return {user.partition("/")[0] for user in clients.users.values()}


def test_a_user_is_a_name_and_a_key(folder: Path) -> None:
    pair = keys.make_pair()
    add_client(folder, "alice", pair, max_streams=3)
    clients = KnownClients(folder)
    user = clients.users[z85.decode(pair.public)]
    assert user == f"alice/{keys.fingerprint(pair.public)}"
    assert clients.rights_of(user) == Rights("alice", max_streams=3)
    assert clients.rights_of("alice") is None
    assert clients.rights_of("") is None


@clause("P-107")
def test_changes_are_seen_and_named(folder: Path) -> None:
    pair, alice = keys.make_pair(), keys.client_path(folder, "alice")
    clients = KnownClients(folder)
    assert (len(clients), clients.reload_changed()) == (0, [])
    add_client(folder, "alice", pair)
    assert clients.reload_changed() == [], "nobody was changed by whom comes new"
    assert users_of(clients) == {"alice"}
    first = clients.users[z85.decode(pair.public)]

    alice.write_text(alice.read_text().replace("max_streams = 16", "max_streams = 17"))
    assert clients.reload_changed() == ["alice"]
    assert clients.rights_of(first) == Rights("alice", max_streams=17)
    alice.write_text("# a remark\n" + alice.read_text())
    assert clients.reload_changed() == [], "what it may do is the same"

    new = keys.make_pair()
    alice.write_text(alice.read_text().replace(pair.public.decode(), new.public.decode()))
    assert clients.reload_changed() == ["alice"]
    assert clients.rights_of(first) is None, "a connection by the old key is nobody's now"
    assert users_of(clients) == {"alice"}

    alice.unlink()
    assert clients.reload_changed() == ["alice"]
    assert len(clients) == 0
    assert clients.reload_changed() == []


@clause("P-107")
@pytest.mark.parametrize("damage", ["text", "mode", "link", "folder"])
def test_a_damaged_file_takes_its_client_out_and_nobody_else(
    folder: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    add_client(folder, "alice")
    add_client(folder, "bob")
    clients = KnownClients(folder)
    path = keys.client_path(folder, "alice")
    if damage == "text":
        path.write_text("public = ")
    elif damage == "mode":
        path.chmod(0o666)
    elif damage == "link":
        path.rename(folder / "moved")
        path.symlink_to(folder / "moved")
    else:
        path.unlink()
        path.mkdir()
    assert clients.reload_changed() == ["alice"]
    assert users_of(clients) == {"bob"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "client alice is refused: " in caplog.text
    assert clients.reload_changed() == []
    assert len(caplog.records) == 1, "told once"


@clause("P-107")
def test_a_file_that_goes_away_while_the_folder_is_read_harms_nobody_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [add_client(folder, name) for name in ("alice", "bob")]
    clients = KnownClients(folder)
    listing = os.listdir

    def remove_after(path: str) -> list[str]:
        names = listing(path)
        paths[0].unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", remove_after)
    assert clients.reload_changed() == ["alice"]
    assert users_of(clients) == {"bob"}
    assert not caplog.records


def test_a_folder_that_others_may_write_to_lets_nobody_in(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_client(folder, "alice")
    clients = KnownClients(folder)
    keys.clients_folder(folder).chmod(0o777)
    assert clients.reload_changed() == ["alice"]
    assert len(clients) == 0
    assert "all clients are refused: " in caplog.text
    keys.clients_folder(folder).chmod(0o700)
    clients.reload_changed()
    assert users_of(clients) == {"alice"}
    with pytest.raises(OptionError, match="is open to other users"):
        folder.chmod(0o777)
        Authenticator(folder)


def test_one_key_is_one_client(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = add_client(folder, "alice")
    copy = path.with_name("bob.toml")
    copy.write_text(path.read_text())
    clients = KnownClients(folder)
    assert users_of(clients) == {"alice"}
    assert "client bob is refused: alice/" in caplog.text
    path.rename(path.with_name("zoe.toml"))
    assert clients.reload_changed() == ["alice"]
    assert users_of(clients) == {"bob"}
    path.write_text(copy.read_text())
    assert clients.reload_changed() == ["bob"], "who loses its key to another name is told"


def test_other_files_are_nobodys(folder: Path) -> None:
    add_client(folder, "alice")
    for name in ("alice.toml~", ".alice.toml.swp", "README", ".toml"):
        (keys.clients_folder(folder) / name).write_text("public = ")
    assert users_of(KnownClients(folder)) == {"alice"}


@clause("P-107")
def test_the_gate_looks_every_half_second(
    gate: Authenticator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add_client(folder, "alice")
    now = gate.reload_at
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert gate.reload_changed() == []
    assert len(gate.clients) == 1
    assert gate.reload_at == now + authenticator.LOOK_S <= now + 0.5
    path.unlink()
    assert gate.reload_changed() == []
    assert len(gate.clients) == 1, "not yet"
    now += authenticator.LOOK_S
    assert gate.reload_changed() == ["alice"]
    with pytest.raises(Forbidden, match="does not accept this key any more"):
        gate.rights_of("alice")


# the proof


@clause("P-102")
def test_a_sound_set_up_is_proven_within_a_second(gate: Authenticator) -> None:
    started = time.monotonic()
    run_self_test(gate)
    assert time.monotonic() - started < 1.0
    assert not gate._probes, "no canary stays let in"


@dataclass(frozen=True)
class Weak:
    """CURVE as somebody might set it; a domain that was set can't be emptied again."""

    secret: bytes
    domain: bytes
    enforced: int

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        if self.domain:
            socket.setsockopt(zmq.ZAP_DOMAIN, self.domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, self.enforced)


@clause("P-102")
@pytest.mark.parametrize(("domain", "enforced"), [(b"", 1), (b"augd", 0), (b"", 0)])
def test_a_set_up_that_fails_open_is_no_start(
    gate: Authenticator, domain: bytes, enforced: int
) -> None:
    with pytest.raises(AugdError, match="failed: a client with an unknown key was accepted"):
        run_self_test(gate, lambda curve: Router(Weak(curve.secret, domain, enforced)))


@clause("P-102")
def test_a_set_up_without_curve_is_no_start(
    gate: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "SELF_TEST_S", 0.3)
    with pytest.raises(AugdError, match="test of keys failed: "):
        run_self_test(gate, lambda _: Router())


@clause("P-102")
def test_a_dead_authenticator_is_no_start(
    gate: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "SELF_TEST_S", 0.3)
    monkeypatch.setattr(gate, "serve", lambda: None)
    with pytest.raises(AugdError, match="the authenticator does not answer"):
        run_self_test(gate)


@clause("P-102")
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (b"200", "a client with an unknown key was accepted"),
        (b"400", "the authenticator does not answer"),
    ],
)
def test_an_authenticator_that_answers_all_alike_is_no_start(
    gate: Authenticator, monkeypatch: pytest.MonkeyPatch, status: bytes, said: str
) -> None:
    monkeypatch.setattr(self_test, "SELF_TEST_S", 0.3)
    reply = [b"1.0", b"1", status, b"", b"canary" if status == b"200" else b"", b""]
    monkeypatch.setattr(
        authenticator, "answer", lambda request, *_: [reply[0], request[1], *reply[2:]]
    )
    with pytest.raises(AugdError, match=said):
        run_self_test(gate)


@clause("P-102")
def test_an_authenticator_that_names_nobody_is_no_start(
    gate: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = authenticator.answer
    monkeypatch.setattr(
        authenticator, "answer", lambda request, users, _: right(request, dict.fromkeys(users, ""))
    )
    with pytest.raises(AugdError, match="ZeroMQ did not name the sender of a message"):
        run_self_test(gate)


# what ZeroMQ itself does

SET_UPS = list(itertools.product((False, True), (b"", b"augd"), (0, 1)))
# Of (authenticator that knows nobody, ZAP domain, ZAP_ENFORCE_DOMAIN): who lets a stranger in.
# Without an authenticator and without enforcement the domain makes no difference, so that these
# are seven different set-ups, of which three accept.
FAIL_OPEN = {
    (False, b"", 0),
    (False, b"augd", 0),
    (False, b"", 1),
    (True, b"", 1),
}


@clause("P-100")
@pytest.mark.parametrize(("has_authenticator", "domain", "enforced"), SET_UPS)
def test_which_set_ups_of_curve_accept_a_stranger(
    has_authenticator: bool, domain: bytes, enforced: int
) -> None:
    context = zmq.Context()
    server, stranger = keys.make_pair(), keys.make_pair()
    asked = context.socket(zmq.ROUTER)
    if has_authenticator:
        asked.bind(authenticator.ZAP_ENDPOINT)
    router_index, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    Weak(server.secret, domain, enforced).apply(router_index)
    port = router_index.bind_to_random_port("tcp://127.0.0.1")
    client.curve_serverkey = server.public
    client.curve_publickey, client.curve_secretkey = stranger.public, stranger.secret
    told = client.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    )
    client.connect(f"tcp://127.0.0.1:{port}")
    client.send(b"hello")
    poller = zmq.Poller()
    for socket in (asked, router_index, told):
        poller.register(socket, zmq.POLLIN)
    is_accepted = None
    while is_accepted is None:
        ready = dict(poller.poll(5000))
        assert ready, "neither in nor out"
        if asked in ready:
            frames = asked.recv_multipart()
            asked.send_multipart([*frames[:2], *answer(frames[2:], {})])
        elif router_index in ready:
            is_accepted = True
        elif told in ready:
            is_accepted = False
    client.disable_monitor()
    told.close(linger=0)
    context.destroy(linger=0)
    assert is_accepted == ((has_authenticator, domain, enforced) in FAIL_OPEN)


def test_the_daemons_own_set_up_is_the_one_that_always_refuses(gate: Authenticator) -> None:
    router = Router(gate.curve)
    domain = router.socket.getsockopt(zmq.ZAP_DOMAIN).rstrip(b"\0")
    enforced = router.socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN)
    router.close()
    open_ways = {(domain, enforced) for _, domain, enforced in FAIL_OPEN}
    assert set(itertools.product((b"", b"augd"), (0, 1))) - open_ways == {(domain, enforced)}


@clause("P-103")
def test_a_client_cannot_name_itself(gate: Authenticator, folder: Path) -> None:
    """Neither by metadata of its own, nor by a routing id that another one had."""
    pair = keys.make_pair()
    add_client(folder, "alice", pair)
    gate.clients.reload_changed()
    gate.open()
    router = Router(gate.curve)
    bound = router.bind(LOOPBACK)
    poller = Poller()
    poller.register(router, "router")
    poller.register(gate, "gate")
    clients = []
    for routing_id in (b"", b"alice"):
        client = zmq.Context.instance().socket(zmq.DEALER)
        client.setsockopt(zmq.LINGER, 0)
        if routing_id:
            client.setsockopt(zmq.ROUTING_ID, routing_id)
        client.curve_serverkey = gate.server
        client.curve_publickey, client.curve_secretkey = pair.public, pair.secret
        client.connect(str(bound))
        client.send(routing_id or b"chosen by ZeroMQ")
        clients.append(client)
    heard: dict[bytes, str | None] = {}
    while len(heard) < 2:
        assert poller.wait(5.0)
        gate.serve()
        while (received := router.receive_named()) is not None:
            heard[received[1][0]] = received[2]
    for client in clients:
        client.close()
    router.close()
    user = f"alice/{keys.fingerprint(pair.public)}"
    assert heard == {b"chosen by ZeroMQ": user, b"alice": None}


def test_nothing_of_this_is_loaded_without_keys() -> None:
    import subprocess
    import sys

    code = (
        "import sys, augd.server.daemon.loop, augd.server.daemon.startup, augd.cli.entry\n"
        "heavy = {'augd.transport.auth.authenticator', 'augd.transport.auth.keys',"
        " 'augd.transport.handshake_monitor', 'augd.transport.auth.curve', 'tomllib', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
