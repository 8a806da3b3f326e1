"""Clauses about deadlines, memory, producers and the end: on the fake, whose clock turns."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

import augd
from augd.errors import AddressInUse
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.server.daemon.address_lock import AddressLock
from augd.server.daemon.broker import broker as core
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import failures
from augd.server.daemon.broker.producers import DEATHS_MIN, DEPTH, PATIENCE_S, START_S
from augd.server.daemon.broker.sessions import ATTACH_S, SESSIONS_MAX
from augd.transport.address import parse_address
from augd.transport.lifeline import Lifeline
from augd.transport.zmq_sockets import Dealer, Poller, Router
from tests.protocol.harness import NUM_SAMPLES, Client, FakeWire, RealWire, make_spec

clause = pytest.mark.clause


@clause("P-70")
def test_a_session_that_never_attaches_ends_at_its_deadline(fake: FakeWire) -> None:
    client = Client(fake)
    client.hello()
    assert fake.broker.next_deadline() == fake.now + ATTACH_S
    fake.turn_clock(ATTACH_S - 0.01)
    assert client.rest() == []
    fake.turn_clock(0.01)
    error = client.hear(msg.Error)
    assert (error.code, error.session) == ("PROTOCOL_STATE", client.session)
    assert error.text == "the session was not attached within 10 s of its HELLO"


@clause("P-71")
def test_too_many_sessions_are_refused_and_end_with_their_clients(fake: FakeWire) -> None:
    clients = [Client(fake).join() for _ in range(SESSIONS_MAX)]
    late = Client(fake)
    late.say(msg.Hello("n"))
    error = late.hear(msg.Error)
    assert error.code == "OVER_LIMIT"
    assert error.text == "128 sessions are open, which is the limit; close some"
    clients[0].connection.hang_up()
    late.join()


@clause("P-28")
def test_memory_that_cannot_be_had_is_an_error_that_says_how_much(fake: FakeWire) -> None:
    fake.refuses_memory = "1 MB are asked for, 0 MB can be given"
    client = Client(fake).join()
    client.open(make_spec(1000, prefetch=4), credit=1)
    error = client.hear(msg.Error)
    assert error.code == "OVER_LIMIT"
    assert error.text == (
        "5 slots of 0.2 MB for batch_size=1000 cannot be had: 1 MB are asked for, 0 MB can be "
        "given. Use a smaller batch_size or prefetch (now 4)."
    )
    assert not client.connection.is_attached()


@clause("P-72")
def test_a_hanging_producer_is_killed_and_its_rows_are_made_again(fake: FakeWire) -> None:
    client = Client(fake).join()
    fake.is_holding = True
    client.open(credit=1)
    client.hear(msg.Opened)
    fake.is_holding = False
    fake.turn_clock(PATIENCE_S)
    assert fake.killed == [0]
    fake.turn_clock(0)
    assert client.ids(client.hear(msg.BatchMessage)) == [0, 1, 2]


@clause("P-72")
def test_a_producer_that_says_alive_is_left_alone(fake: FakeWire) -> None:
    client = Client(fake).join()
    fake.is_holding = True
    client.open(credit=1)
    lease = fake.leases[0][1].lease
    for _ in range(5):
        fake.turn_clock(PATIENCE_S - 1)
        fake.from_producer(0, msg.Alive(lease))
    assert fake.killed == []


@clause("P-73")
def test_a_dead_producers_rows_are_leased_again_and_come_once(fake: FakeWire) -> None:
    client = Client(fake).join()
    fake.is_holding = True
    client.open(make_spec(NUM_SAMPLES), credit=1)
    client.hear(msg.Opened)
    late = fake.make_rows(fake.leases[0][1])
    fake.lose_producer(0)
    assert client.rest() == []
    fake.from_producer(0, late)  # from beyond the grave: the lease is void
    assert client.rest() == []
    fake.answer_all()
    assert client.ids(client.hear(msg.BatchMessage)) == list(range(NUM_SAMPLES))
    client.hear(msg.EpochEnd)
    assert client.rest() == []


@clause("P-74")
def test_producers_that_keep_dying_are_a_named_error_and_are_started_more_rarely() -> None:
    fake = FakeWire()
    client = Client(fake).join()
    client.open()
    client.hear(msg.Opened)
    backoff = []
    for _ in range(9):
        fake.lose_producer(0, "exit status 1", "error")
        due = fake.broker._scheduler.pool.restart_at.get(0, fake.now)
        backoff.append(round(due - fake.now, 3))
        fake.turn_clock(backoff[-1])
    assert backoff == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    error = client.hear(msg.Error)
    assert error.code == "PRODUCERS_UNHEALTHY"
    assert error.text == (
        f"{DEATHS_MIN} producers died in a row without finishing a chunk; the last: exit status 1. "
        "See the daemon's output, then try again."
    )
    assert client.rest() == []  # told once


@clause("P-75")
def test_rows_that_kill_every_producer_end_the_stream_and_nothing_else(fake: FakeWire) -> None:
    client = Client(fake).join()
    fake.is_holding = True
    client.open(credit=1)
    client.hear(msg.Opened)
    for _ in range(failures.ATTEMPTS_MAX):
        assert client.rest() == []
        fake.lose_producer(0, "SIGSEGV", "signal")
        fake.turn_clock(1)
    error = client.hear(msg.Error)
    assert error.code == "SAMPLE_FAILED"
    assert error.text == (
        "rows 0..2 of batch 0 of epoch 0 ended 3 producers one after another (the last: SIGSEGV), "
        "while they decoded no sample"
    )
    fake.is_holding = False
    other = Client(fake).join()
    other.open(credit=1)
    other.hear(msg.Opened)
    other.hear(msg.BatchMessage)


@clause("P-74", "P-75")
def test_a_producer_that_says_why_it_ends_blames_no_sample(fake: FakeWire) -> None:
    client = Client(fake).join()
    fake.is_holding = True
    client.open(credit=1)
    client.hear(msg.Opened)
    for _ in range(DEATHS_MIN):
        assert client.rest() == []
        fake.from_producer(0, msg.LastWords("ImportError: cv2"))
        fake.lose_producer(0, "status 1")
        fake.turn_clock(1)
    error = client.hear(msg.Error)
    assert error.code == "PRODUCERS_UNHEALTHY"
    assert "the last: ImportError: cv2. See the daemon's output" in error.text


@clause("P-44")
def test_after_an_error_only_an_open_goes_on(fake: FakeWire) -> None:
    fake.bad = {4: "no end marker"}
    client = Client(fake).join()
    client.open(make_spec(bad="fail"), credit=1)
    client.hear(msg.Opened)
    client.hear(msg.BatchMessage)
    client.flow(3)
    error = client.hear(msg.Error)
    assert (error.code, error.opening) == ("SAMPLE_FAILED", 1)
    assert error.text == (
        'bad sample 4 (4.png): no end marker. Mend or remove the file, or connect with bad="mask".'
    )
    fake.bad = {}
    client.flow(9)
    assert client.rest() == []
    client.open(make_spec(bad="fail"), credit=2)
    client.hear(msg.Opened)
    assert client.ids(client.hear(msg.BatchMessage)) == [0, 1, 2]


@clause("P-37")
def test_bad_samples_are_masked_and_counted_by_epoch(fake: FakeWire) -> None:
    fake.bad = {4: "no end marker"}
    client = Client(fake).join()
    client.open(make_spec(NUM_SAMPLES, max_bad_fraction=0.1, prefetch=3), credit=4)
    client.hear(msg.Opened)
    for epoch in range(4):  # one is allowed in each, however far ahead it is made
        batch = client.hear(msg.BatchMessage)
        assert (batch.epoch, batch.num_bad) == (epoch, 1)
        assert client.read(batch)["valid"].count(False) == 1
        assert client.hear(msg.EpochEnd).num_bad == 1


@clause("P-37")
def test_more_bad_samples_than_allowed_end_the_stream(fake: FakeWire) -> None:
    fake.bad = {1: "empty", 4: "no end marker"}
    client = Client(fake).join()
    client.open(make_spec(2, max_bad_fraction=0.1), credit=3)
    client.hear(msg.Opened)
    heard = client.rest()
    error = heard[-1]
    assert isinstance(error, msg.Error)
    assert error.code == "SAMPLE_FAILED"
    assert error.text == (
        "2 bad samples in epoch 0, more than the 1 that max_bad_fraction=0.1 allows; the last: "
        "sample 4 (4.png): no end marker. `augd check` names all such files: mend or remove them, "
        "or allow more"
    )


@clause("P-76")
def test_a_producer_with_other_libraries_is_sent_away() -> None:
    fake = FakeWire(producers=2)
    fake.environment = {"opencv": "6"}
    fake.lose_producer(1)
    fake.turn_clock(0)
    assert fake.killed == [1]
    ready = [p["number"] for p in fake.broker.snapshot()["producers"] if p["state"] == "ready"]
    assert ready == [0]
    assert any(
        "its libraries or plug-ins differ from the other producers'" in text for text in fake.logged
    )


@clause("P-72")
def test_a_producer_that_starts_too_late_is_killed_though_it_speaks_at_last() -> None:
    broker = core.Broker("x", "/x", {}, 1)
    assert ev.StartProducer(0) in broker.handle(ev.Tick(), 0.0)
    assert broker.next_deadline() == START_S
    assert ev.KillProducer(0) in broker.handle(ev.Tick(), START_S)
    late = ev.FromLocalProducer(0, msg.Ready(1, {}))
    assert broker.handle(late, START_S) == []
    assert broker.snapshot()["producers"][0]["state"] == "killed"


@clause("P-80")
def test_draining_ends_every_stream_with_an_error_and_takes_no_more(fake: FakeWire) -> None:
    client, idle = Client(fake).join(), Client(fake).join()
    client.open(credit=1)
    client.settle()
    fake.deliver(ev.DrainAsked("SIGTERM"))
    for one in (client, idle):
        error = one.hear(msg.Error)
        assert (error.code, error.session) == ("DRAINING", one.session)
        assert error.opening == 0, "a client that seeks meanwhile must hear it, too"
        assert error.text == "the daemon ended (SIGTERM); start it again and connect"
        assert not one.connection.is_attached()
    late = Client(fake)
    late.say(msg.Hello("n"))
    assert late.hear(msg.Error).text == "the daemon is draining; start it again"
    assert fake.is_stopped


@clause("P-80")
def test_draining_kills_what_does_not_end_in_time(fake: FakeWire) -> None:
    broker = core.Broker("x", "/x", {}, 1)
    broker.handle(ev.Tick(), 0.0)
    broker.handle(ev.FromLocalProducer(0, msg.Ready(1, {})), 0.0)
    drained = broker.handle(ev.DrainAsked("SIGINT"), 1.0)
    assert ev.SendToProducer(0, msg.Drain()) in drained
    assert ev.KillProducer(0) not in drained
    assert broker.next_deadline() == 1.0 + core.DRAIN_S
    assert ev.KillProducer(0) in broker.handle(ev.Tick(), 1.0 + core.DRAIN_S)
    assert broker.handle(ev.Reaped(0, "SIGKILL"), 7.0) == [ev.Stop()]


@clause("P-80")
def test_a_daemon_that_gets_sigterm_tells_its_clients_and_leaves(photos: Path) -> None:
    with augd.serve({"photos": photos}, producers=1) as daemon:
        wire = RealWire(daemon.address)
        client = Client(wire).join()
        client.open(credit=1)
        client.hear(msg.Opened)
        os.kill(daemon.pid, signal.SIGTERM)
        while not isinstance(message := client.hear(msg.Message), msg.Error):
            pass
        wire.close()
    assert (message.code, message.session) == ("DRAINING", client.session)
    assert not wire.address.path.exists()
    assert not wire.address.attach_path.exists()


@clause("P-61")
def test_status_of_a_large_daemon_is_cut_to_fit() -> None:
    fake = FakeWire(producers=1024)
    snapshot = Client(fake).status()
    assert snapshot["is_cut"] is True
    assert 0 < len(snapshot["producers"]) < 1024
    assert Client(FakeWire()).status()["is_cut"] is False


@clause("P-01")
def test_a_second_daemon_at_an_address_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augd.server.daemon.address_lock.WAIT_S", 0.05)
    address = parse_address(f"ipc://{tmp_path}/a")
    lock = AddressLock.acquire(address)
    try:
        with pytest.raises(AddressInUse, match=rf"a daemon \(pid {os.getpid()}\) already serves"):
            AddressLock.acquire(address)
    finally:
        lock.release()


@clause("P-02")
def test_only_the_owner_may_reach_the_sockets(photos: Path) -> None:
    with augd.serve({"photos": photos}, producers=1) as daemon:
        address = parse_address(daemon.address)
        assert address.path.parent.stat().st_mode & 0o022 == 0
        assert address.attach_path.stat().st_mode & 0o777 == 0o600


@clause("P-03")
def test_the_arena_is_sealed_and_has_the_size_that_opened_says(photos: Path) -> None:
    with augd.serve({"photos": photos}, producers=1) as daemon:
        address = parse_address(daemon.address)
        dealer = RealWire(daemon.address)
        client = Client(dealer)
        client.hello()
        lifeline = Lifeline(client.welcome.attach, client.session, client.welcome.token, 20.0)
        client.open()
        opened = client.hear(msg.Opened)
        fd, size_bytes = lifeline.receive_arena(opened.stream)
        assert size_bytes == opened.slot_bytes * opened.num_slots == os.fstat(fd).st_size
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        assert seals & wanted == wanted
        os.close(fd)
        lifeline.close()
        dealer.close()
        assert address.attach_path == Path(client.welcome.attach)


@clause("P-04")
def test_a_message_of_too_many_frames_is_refused(photos: Path) -> None:
    with augd.serve({"photos": photos}, producers=1) as daemon:
        wire = RealWire(daemon.address)
        client = Client(wire)
        frame = codec.encode(msg.Ping())
        client.connection.dealer.socket.send_multipart([frame] * 5)
        error = client.hear(msg.Error)
        assert (error.code, error.text) == ("MALFORMED", "message of 5 frames, expected 4")
        client.connection.dealer.socket.send_multipart([frame, b"ignored"])
        client.hear(msg.Pong)
        wire.close()


@clause("P-05")
def test_the_queue_to_a_client_that_does_not_read_holds_all_that_credit_allows(
    tmp_path: Path,
) -> None:
    address = parse_address(f"ipc://{tmp_path}/a")
    router = Router()
    router.bind(address)
    dealer = Dealer(address)
    poller = Poller()
    poller.register(router, "router")
    dealer.send(b"hello")
    assert poller.wait(20.0)
    received = router.receive()
    assert received is not None
    most = 2 * 1025  # a BATCH and an EPOCH_END for each slot of the largest prefetch
    assert all(router.send(received[0], [b"%d" % number]) for number in range(most))
    router.close()
    dealer.close()


@clause("P-45")
def test_streams_share_the_producers_in_proportion_to_what_they_lack() -> None:
    fake = FakeWire(num_samples=64_000)
    fake.is_holding = True
    clients = [Client(fake).join() for _ in range(2)]
    for client, prefetch in zip(clients, (5, 1), strict=True):
        client.open(make_spec(320, prefetch=prefetch), credit=prefetch + 1)
        client.hear(msg.Opened)
    turns: list[int] = []
    for _ in range(DEPTH + 12):
        producer, lease = fake.leases.popleft()
        turns.append(lease.stream)
        fake.from_producer(producer, fake.make_rows(lease))
    both = turns[DEPTH:]  # the first was alone with its first leases
    shares = [both.count(number) for number in sorted(set(both))]
    assert len(shares) == 2 and abs(shares[0] - shares[1]) <= 2, turns  # both lack all: in turns


@clause("P-80")
def test_a_drain_ends_also_where_the_kernel_keeps_a_producer() -> None:
    broker = core.Broker("i", "/a", {}, 1)
    broker.handle(ev.Tick(), 0.0)
    broker.handle(ev.FromLocalProducer(0, msg.Ready(7, {})), 0.5)
    broker.handle(ev.DrainAsked("SIGTERM"), 1.0)
    assert ev.KillProducer(0) in broker.handle(ev.Tick(), 1.0 + core.DRAIN_S)
    assert broker.next_deadline() == 1.0 + core.DRAIN_S + core.REAP_S
    assert broker.handle(ev.Tick(), broker.next_deadline() - 0.1) == []
    (said, stop) = broker.handle(ev.Tick(), broker.next_deadline())
    assert isinstance(said, ev.Log) and "killed producers have not exited: 0 (pid 7)" in said.text
    assert stop == ev.Stop()
