"""The exchange of messages, clause by clause, over a fake and a daemon, by memfd and frames."""

from __future__ import annotations

import msgspec
import pytest

import augd
from augd.protocol import codec
from augd.protocol import messages as msg
from augd.protocol.limits import HEADER_BYTES_MAX
from tests.protocol.harness import (
    NUM_SAMPLES,
    RECIPE,
    Client,
    MappedConnection,
    RealWire,
    Transport,
    Wire,
    make_spec,
    with_token,
)

clause = pytest.mark.clause


@clause("P-20", "P-21")
def test_hello_is_answered_by_a_session_of_its_own(wire: Wire) -> None:
    one, other = Client(wire), Client(wire)
    welcome = one.hello("a nonce")
    assert welcome.nonce == "a nonce"
    assert welcome.session > 0
    assert welcome.token
    assert other.hello().session != welcome.session
    assert other.welcome.token != welcome.token
    assert other.welcome.instance == welcome.instance


@clause("P-22")
def test_open_waits_for_attach(wire: Wire) -> None:
    client = Client(wire)
    client.hello()
    client.open(credit=1)
    assert client.rest() == []
    client.attach()
    assert client.hear(msg.Opened).opening == 1
    assert client.ids(client.hear(msg.BatchMessage)) == [0, 1, 2]


@clause("P-23")
def test_a_session_that_is_not_known_is_refused(wire: Wire) -> None:
    client = Client(wire).join()
    client.say(msg.Open(999_999, 7, make_spec()))
    error = client.hear(msg.Error)
    assert (error.code, error.session, error.opening) == ("PROTOCOL_STATE", 999_999, 7)
    assert error.text == "OPEN names session 999999, which is not open here; send HELLO first"


@clause("P-23")
def test_somebody_elses_session_is_refused(wire: Wire) -> None:
    owner, thief = Client(wire).join(), Client(wire).join()
    thief.say(msg.Open(owner.session, 1, make_spec()))
    assert thief.hear(msg.Error).code == "PROTOCOL_STATE"
    thief.say(msg.Bye(owner.session))
    thief.rest()
    owner.open(credit=1)
    owner.hear(msg.Opened)
    owner.hear(msg.BatchMessage)


def num_refused(wire: Wire) -> int:
    return Client(wire).status()["stale"].get("attach", 0)


@clause("P-24")
def test_a_wrong_token_attaches_nothing_and_the_owner_still_can(wire: Wire) -> None:
    owner, thief = Client(wire), Client(wire)
    owner.hello()
    before = num_refused(wire)
    thief.connection.attach(with_token(owner.way, "not the token"))
    while num_refused(wire) == before:
        pass
    owner.attach()
    owner.open(credit=1)
    owner.hear(msg.Opened)
    assert owner.ids(owner.hear(msg.BatchMessage)) == [0, 1, 2]


@clause("P-24")
def test_a_stranger_on_the_unix_socket_is_hung_up_on(mapped: RealWire) -> None:
    # On a ZeroMQ socket there is no connection that the daemon could close by itself.
    owner, thief = Client(mapped), Client(mapped)
    owner.hello()
    thief.connection.attach(with_token(owner.way, "not the token"))
    assert isinstance(thief.connection, MappedConnection)
    assert thief.connection.wait_dropped()


@clause("P-24")
@pytest.mark.parametrize("token", ["", "right"])
def test_an_attached_session_keeps_its_lifeline_whoever_names_it(wire: Wire, token: str) -> None:
    owner, thief = Client(wire).join(), Client(wire)
    owner.open(credit=1)
    owner.hear(msg.Opened)
    before = num_refused(wire)
    thief.connection.attach(with_token(owner.way, owner.welcome.token if token else "wrong"))
    while num_refused(wire) == before:
        pass
    leave_noticed(wire, thief)
    assert owner.ids(owner.hear(msg.BatchMessage)) == [0, 1, 2]
    owner.flow(2)
    assert owner.ids(owner.hear(msg.BatchMessage)) == [3, 4, 5]


@clause("P-24", "P-90")
@pytest.mark.parametrize("token", ["", "right"])
@pytest.mark.parametrize("asked", ["memfd", "frames"])
def test_an_attachment_by_the_way_that_hello_did_not_name_changes_nothing(
    real_daemon: augd.ServedDaemon, asked: Transport, token: str
) -> None:
    path = real_daemon.addresses[0]
    own, other = RealWire(path, asked), RealWire(path, "memfd" if asked == "frames" else "frames")
    owner, thief = Client(own).join(), Client(other)
    owner.open(credit=1)
    owner.hear(msg.Opened)
    before = num_refused(own)
    thief.connection.attach(with_token(owner.way, owner.welcome.token if token else "wrong"))
    while num_refused(own) == before:
        pass
    leave_noticed(other, thief)
    assert owner.ids(owner.hear(msg.BatchMessage)) == [0, 1, 2]
    owner.flow(2)
    assert owner.ids(owner.hear(msg.BatchMessage)) == [3, 4, 5]
    own.close()
    other.close()


def leave_noticed(wire: Wire, leaver: Client) -> None:
    """Hang up, and wait until the daemon noticed that somebody did."""
    witness = Client(wire).join()
    witness.open()
    witness.hear(msg.Opened)
    leaver.connection.hang_up()
    witness.connection.hang_up()
    await_end(wire, witness)


def await_end(wire: Wire, client: Client) -> None:
    while client.session in {stream["session"] for stream in Client(wire).status()["streams"]}:
        pass


@clause("P-25")
def test_opened_precedes_the_first_batch_and_describes_the_stream(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(4, prefetch=3), credit=4)
    opened = client.hear(msg.Opened)
    assert (opened.session, opened.opening) == (client.session, 1)
    assert (opened.dataset, opened.num_positions) == ("photos", NUM_SAMPLES)
    assert opened.num_slots == 4
    assert [(a.name, a.dtype, a.shape) for a in opened.arrays] == [
        ("images", "uint8", (4, 8, 8, 3)),
        ("labels", "int64", (4,)),
        ("ids", "int64", (4,)),
        ("valid", "bool", (4,)),
    ]
    assert len(opened.content) == 32
    assert client.hear(msg.BatchMessage).sequence == 0


@clause("P-26")
@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        (
            {"dataset": "nope"},
            "UNKNOWN_DATASET",
            "dataset: 'nope' is not served here, expected one of: photos",
        ),
        (
            {"recipe": {"ops": [{"op": "blur"}]}},
            "BAD_RECIPE",
            "recipe.ops[0].op: expected one of all_of, ",
        ),
        (
            {"batch_size": 11, "drop_last": True},
            "BAD_OPTION",
            "drop_last leaves no batch: 10 samples, 11 per global batch; use a smaller batch_size",
        ),
        (
            {"rank": 2, "world": 2},
            "BAD_OPTION",
            "rank: expected 0..1 for world=2, got 2",
        ),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused_with_its_reason(
    wire: Wire, changes: dict[str, object], code: str, text: str
) -> None:
    client = Client(wire).join()
    opening = client.open(make_spec(**changes), credit=1)
    error = client.hear(msg.Error)
    assert (error.code, error.session, error.opening) == (code, client.session, opening)
    assert error.text.startswith(text)
    client.open(make_spec(), credit=1)  # the session lives on
    client.hear(msg.Opened)
    client.hear(msg.BatchMessage)


@clause("P-27")
def test_a_session_keeps_its_spec(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(seed=1))
    client.hear(msg.Opened)
    opening = client.open(make_spec(seed=2))
    error = client.hear(msg.Error)
    assert (error.code, error.opening) == ("BAD_OPTION", opening)
    assert error.text == "a stream keeps its spec; connect again for another one"


@clause("P-30")
def test_no_more_batches_come_than_credit_says(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(prefetch=4), credit=2)
    client.hear(msg.Opened)
    first = [client.hear(msg.BatchMessage), client.hear(msg.BatchMessage)]
    for batch in first:
        client.release(batch)
    assert client.settle() == []


@clause("P-30", "P-31")
def test_credit_is_absolute_and_never_falls(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(prefetch=4), credit=1)
    client.hear(msg.Opened)
    client.hear(msg.BatchMessage)
    client.flow(3)
    client.flow(2)
    client.flow(3)
    assert [client.hear(msg.BatchMessage).sequence for _ in range(2)] == [1, 2]
    assert client.settle() == []


@clause("P-31")
def test_flow_of_another_opening_gives_nothing(wire: Wire) -> None:
    client = Client(wire).join()
    client.open()
    client.hear(msg.Opened)
    client.flow(3, opening=0)
    client.flow(3, opening=2)
    assert client.settle() == []


@clause("P-30", "P-34")
def test_no_more_batches_come_than_slots_are_free(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(prefetch=1), credit=1_000_000)
    client.hear(msg.Opened)
    first, second = client.hear(msg.BatchMessage), client.hear(msg.BatchMessage)
    assert client.settle() == []
    client.release(second)
    third = client.hear(msg.BatchMessage)
    assert (third.slot, third.generation) == (second.slot, second.generation + 1)
    assert client.ids(first) == [0, 1, 2]
    assert client.ids(third) == [6, 7, 8]


@clause("P-32", "P-33")
def test_batches_come_in_order_and_epochs_end_with_counts(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(prefetch=1), credit=1_000_000)
    client.hear(msg.Opened)
    for epoch in range(3):
        ids: list[int] = []
        for number in range(4):
            batch = client.hear(msg.BatchMessage)
            assert (batch.epoch, batch.number) == (epoch, number)
            assert (batch.sequence, batch.position) == (4 * epoch + number, 3 * number)
            assert batch.rows == (1 if number == 3 else 3)
            ids += client.ids(batch)
            client.release(batch)
        assert ids == list(range(NUM_SAMPLES))
        end = client.hear(msg.EpochEnd)
        assert (end.epoch, end.batches, end.samples, end.num_bad) == (epoch, 4, NUM_SAMPLES, 0)


@clause("P-32")
def test_drop_last_leaves_the_tail_out(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(4, drop_last=True, prefetch=1), credit=3)
    client.hear(msg.Opened)
    assert [client.hear(msg.BatchMessage).rows for _ in range(2)] == [4, 4]
    end = client.hear(msg.EpochEnd)
    assert (end.batches, end.samples) == (2, 8)


@clause("P-35")
def test_ranks_take_their_rows_and_the_tail_is_padded(wire: Wire) -> None:
    seen: list[int] = []
    for rank in range(2):
        client = Client(wire).join()
        client.open(make_spec(3, rank=rank, world=2), credit=2)
        client.hear(msg.Opened)
        batches = [client.hear(msg.BatchMessage), client.hear(msg.BatchMessage)]
        assert [batch.rows for batch in batches] == [3, 3]
        assert [batch.position for batch in batches] == [0, 6]
        rows = [client.read(batch) for batch in batches]
        expected = [[0, 1, 2], [6, 7, 8]] if rank == 0 else [[3, 4, 5], [9, -1, -1]]
        assert [list(read["ids"]) for read in rows] == expected
        for read in rows:
            assert list(read["valid"]) == [sample >= 0 for sample in read["ids"]]
            assert [n == -100 for n in read["labels"]] == [sample < 0 for sample in read["ids"]]
        end = client.hear(msg.EpochEnd)
        assert (end.batches, end.samples) == (2, 6 if rank == 0 else 4)
        seen += [sample for read in rows for sample in read["ids"] if sample >= 0]
    assert sorted(seen) == list(range(NUM_SAMPLES))


@clause("P-40", "P-42")
def test_seek_starts_a_new_opening_at_its_place(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(credit=3)
    client.hear(msg.Opened)
    client.settle()
    opening = client.open(credit=2, epoch=5, position=6)
    assert client.hear(msg.Opened).opening == opening
    batch = client.hear(msg.BatchMessage)
    assert (batch.opening, batch.sequence, batch.epoch) == (opening, 0, 5)
    assert (batch.number, batch.position) == (2, 6)
    assert client.ids(batch) == [6, 7, 8]
    assert client.hear(msg.BatchMessage).rows == 1
    end = client.hear(msg.EpochEnd)
    assert (end.epoch, end.batches, end.samples) == (5, 2, 4)  # counted from the seek on


@clause("P-41")
def test_seek_keeps_held_slots_and_takes_the_others_back(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(prefetch=2), credit=3)
    client.hear(msg.Opened)
    first, second, third = [client.hear(msg.BatchMessage) for _ in range(3)]
    client.open(
        make_spec(prefetch=2), credit=100, epoch=1, held=((second.slot, second.generation),)
    )
    client.hear(msg.Opened)
    again = [client.hear(msg.BatchMessage) for _ in range(2)]
    assert {batch.slot for batch in again} == {first.slot, third.slot}
    assert client.settle() == []
    assert client.ids(second) == [3, 4, 5]
    client.release(second)
    assert client.hear(msg.BatchMessage).slot == second.slot


@clause("P-41")
def test_held_with_an_old_generation_keeps_nothing(wire: Wire) -> None:
    client = Client(wire).join()
    spec = make_spec(prefetch=1)
    client.open(spec, credit=2)
    client.hear(msg.Opened)
    first = client.hear(msg.BatchMessage)
    client.hear(msg.BatchMessage)
    client.open(spec, credit=2, held=((first.slot, first.generation + 7), (900, 0)))
    client.hear(msg.Opened)
    assert {client.hear(msg.BatchMessage).slot for _ in range(2)} == {0, 1}


@clause("P-43")
@pytest.mark.parametrize("position", [NUM_SAMPLES, NUM_SAMPLES + 100, 2**62])
def test_a_place_at_the_end_of_an_epoch_is_the_next_ones_beginning(
    wire: Wire, position: int
) -> None:
    client = Client(wire).join()
    client.open(credit=1, epoch=4, position=position)
    client.hear(msg.Opened)
    batch = client.hear(msg.BatchMessage)
    assert (batch.epoch, batch.number, batch.position) == (5, 0, 0)


@clause("P-50")
def test_a_late_release_frees_nothing(wire: Wire) -> None:
    client = Client(wire).join()
    spec = make_spec(prefetch=1)
    client.open(spec, credit=1_000)
    client.hear(msg.Opened)
    first, _ = client.hear(msg.BatchMessage), client.hear(msg.BatchMessage)
    client.release(first)
    reused = client.hear(msg.BatchMessage)
    assert (reused.slot, reused.generation) == (first.slot, first.generation + 1)
    client.release(first)
    client.say(msg.Release(client.session, reused.slot, reused.generation + 1))
    client.say(msg.Release(client.session, 70_000, 0))
    assert client.settle() == []
    assert client.ids(reused) == [6, 7, 8]


@clause("P-51")
def test_bye_frees_everything(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(credit=2)
    client.hear(msg.Opened)
    client.settle()
    client.say(msg.Bye(client.session))
    sessions = {stream["session"] for stream in Client(wire).status()["streams"]}
    assert client.session not in sessions
    client.flow(9)
    assert not any(isinstance(message, msg.BatchMessage) for message in client.rest())


@clause("P-52")
def test_the_end_of_the_lifeline_frees_everything(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(credit=2)
    client.hear(msg.Opened)
    client.connection.hang_up()
    await_end(wire, client)
    client.open(credit=2)
    while not isinstance(message := client.hear(msg.Message), msg.Error):
        pass
    assert message.code == "PROTOCOL_STATE"


@clause("P-60")
def test_ping_is_answered_by_pong_without_a_session(wire: Wire) -> None:
    client = Client(wire)
    client.say(msg.Ping())
    client.hear(msg.Pong)


@clause("P-61")
def test_status_is_plain_data_and_needs_no_session(wire: Wire) -> None:
    client = Client(wire)
    client.say(msg.Status())
    snapshot = client.hear(msg.StatusReply).snapshot
    assert snapshot["datasets"]["photos"]["num_samples"] == NUM_SAMPLES
    assert snapshot["is_draining"] is False
    assert {"producers", "streams", "stale", "restarts", "environment"} <= snapshot.keys()


def _map(**fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


GARBAGE = {
    "empty": (b"", "MALFORMED", "empty header, expected a version byte and a msgpack map"),
    "version": (
        b"\x02" + _map(type="PING"),
        "UNSUPPORTED_VERSION",
        "the peer speaks protocol version 2, this side speaks 1; install the same version of augd "
        "on both sides",
    ),
    "truncated": (codec.encode(msg.Hello("n" * 40))[:-3], "MALFORMED", "header does not decode"),
    "extra bytes": (codec.encode(msg.Ping()) + b"\x00", "MALFORMED", "header does not decode"),
    "no map": (b"\x01\x93\x01\x02\x03", "MALFORMED", "header does not decode"),
    "unknown type": (
        b"\x01" + _map(type="NOPE"),
        "MALFORMED",
        "header does not decode: Invalid value 'NOPE' - at `$.type`",
    ),
    "a daemon's message": (
        codec.encode(msg.Pong()),
        "MALFORMED",
        "header does not decode: Invalid value 'PONG' - at `$.type`",
    ),
    "long unknown type": (
        b"\x01" + _map(type="X" * 65_000),
        "MALFORMED",
        "header does not decode: Invalid value 'XXXX",
    ),
    "lying type": (
        b"\x01" + _map(type="BYE", session="one"),
        "MALFORMED",
        "header does not decode: Expected `int`, got `str` - at `$.session`",
    ),
    "negative": (
        b"\x01" + _map(type="BYE", session=-1),
        "MALFORMED",
        "header does not decode: Expected `int` >= 0 - at `$.session`",
    ),
    "lying length": (b"\x01\x81\xa4type\xdb\x7f\xff\xff\xffPING", "MALFORMED", "header does not"),
    "deep": (b"\x01\x81\xa1a" + b"\x91" * 60_000 + b"\x01", "MALFORMED", "header does not decode"),
    "invalid text": (b"\x01\x81\xa4type\xa1\xff", "MALFORMED", "header does not decode"),
}


@clause("P-11", "P-13", "P-14", "P-15", "P-16", "P-62")
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_answered_by_an_error_and_harms_nobody(wire: Wire, name: str) -> None:
    frame, code, text = GARBAGE[name]
    other, stranger = Client(wire).join(), Client(wire)
    other.open(credit=1)
    stranger.connection.send(frame)
    error = stranger.hear(msg.Error)
    assert error.code == code
    assert error.text.startswith(text)
    assert (error.session, error.opening) == (0, 0)
    other.hear(msg.Opened)
    assert other.ids(other.hear(msg.BatchMessage)) == [0, 1, 2]
    stranger.join()  # even the stranger may come to his senses


@clause("P-10", "P-62")
def test_an_oversized_header_is_refused_or_ends_the_connection(wire: Wire) -> None:
    other, stranger = Client(wire).join(), Client(wire)
    stranger.connection.send(b"\x01" + b"\x00" * (HEADER_BYTES_MAX + 1))
    other.open(credit=1)
    other.hear(msg.Opened)
    assert other.ids(other.hear(msg.BatchMessage)) == [0, 1, 2]


@clause("P-12")
def test_an_unknown_field_is_ignored(wire: Wire) -> None:
    client = Client(wire)
    client.connection.send(b"\x01" + _map(type="HELLO", nonce="n", colour="blue", deep={"a": [1]}))
    assert client.hear(msg.Welcome).nonce == "n"


@clause("P-17")
def test_a_recipe_with_a_long_key_gets_a_short_error(wire: Wire) -> None:
    client = Client(wire).join()
    client.open(make_spec(recipe={**RECIPE, "k" * 60_000: 1}))
    error = client.hear(msg.Error)
    assert error.code == "BAD_RECIPE"
    assert len(error.text) <= 8_000


@clause("P-18")
def test_a_message_of_an_older_peer_gets_defaults(wire: Wire) -> None:
    client = Client(wire)
    asked = {"transport": "frames"} if wire.transport == "frames" else {}
    client.connection.send(b"\x01" + _map(type="HELLO", nonce="n", **asked))
    client.welcome = client.hear(msg.Welcome)
    client.attach()
    layout = {"batch_size": 3}
    spec = {"dataset": None, "recipe": RECIPE, "layout": layout, "shuffle": False}
    client.opening = 1
    request = _map(type="OPEN", session=client.session, opening=1, spec=spec)
    client.connection.send(b"\x01" + request)
    assert client.hear(msg.Opened).num_slots == 5  # prefetch 4, and the one in hand
    assert client.settle() == []  # credit 0
    client.flow(1)
    batch = client.hear(msg.BatchMessage)
    assert (batch.epoch, batch.position) == (0, 0)


@clause("P-23")
def test_stale_messages_of_no_session_are_ignored_and_counted(wire: Wire) -> None:
    client = Client(wire)
    before = client.status()["stale"].get("session", 0)
    for message in (msg.Flow(999_999, 1, 5), msg.Release(999_999, 0, 0), msg.Bye(999_999)):
        client.say(message)
    assert client.rest() == []
    assert client.status()["stale"]["session"] == before + 3


@clause("P-29")
def test_equal_content_has_equal_digests_whatever_the_layout(wire: Wire) -> None:
    def content(**changes: object) -> str:
        client = Client(wire).join()
        client.open(make_spec(**changes))
        return client.hear(msg.Opened).content

    first = content(seed=1)
    assert content(seed=1, batch_size=5, rank=1, world=2, prefetch=3) == first
    assert content(seed=2) != first
    assert content(seed=1, shuffle=True) != first
