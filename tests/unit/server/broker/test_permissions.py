"""What rights let a client do: asked of the rules themselves, and of a broker that follows them."""

from __future__ import annotations

import pytest

from augd.errors import DatasetError, Forbidden
from augd.protocol import messages as msg
from augd.protocol.permissions import Rights
from augd.server.daemon.broker import events as ev
from augd.server.daemon.broker import permissions
from augd.server.daemon.broker.broker import Broker, DatasetFacts

clause = pytest.mark.clause

RECIPE = {"ops": [{"op": "center_crop", "size": 8}]}
SERVED = ("photos", "secrets", "scans")
SHARE = msg.Share("next", 1, 1.0, None)
ALICE = Rights("alice", ("photos", "scans"), max_streams=2, max_bytes=10**6)
BOB = Rights("bob")


@clause("P-105")
def test_a_forbidden_data_set_reads_like_one_that_does_not_exist() -> None:
    texts = set()
    for name in ("secrets", "nowhere"):
        with pytest.raises(Forbidden) as caught:
            permissions.find_dataset(name, SERVED, ALICE)
        texts.add(str(caught.value).replace(name, "NAME"))
    assert texts == {"dataset: 'NAME' is not served here, expected one of: photos, scans"}


@clause("P-105")
def test_only_what_may_be_read_is_counted_and_listed() -> None:
    assert permissions.find_dataset("scans", SERVED, ALICE) == "scans"
    assert permissions.find_dataset(None, SERVED, Rights("carol", ("scans", "gone"))) == "scans"
    with pytest.raises(DatasetError, match=r"serves several, name one of: photos, scans$"):
        permissions.find_dataset(None, SERVED, ALICE)
    with pytest.raises(Forbidden, match="this key may read none that is served here"):
        permissions.find_dataset(None, SERVED, Rights("dave", ()))
    with pytest.raises(Forbidden, match="expected one of: none"):
        permissions.find_dataset("photos", SERVED, Rights("dave", ("gone",)))


@pytest.mark.parametrize("who", [None, BOB])
def test_without_a_list_all_data_sets_are_seen(who: Rights | None) -> None:
    assert permissions.find_dataset("secrets", SERVED, who) == "secrets"
    with pytest.raises(
        DatasetError, match="'gone' is not served here, expected one of: photos, sc"
    ):
        permissions.find_dataset("gone", SERVED, who)


class Desk:
    """A broker, and clients that say things to it under their names."""

    def __init__(self) -> None:
        self.chosen: list[int] = []
        facts = {name: DatasetFacts("0" * 32, f"/{name}", 1000, (8, 8)) for name in SERVED}
        self.broker = Broker("i", "/a", facts, 1)
        self.feed(ev.Tick())
        self.feed(ev.FromLocalProducer(0, msg.Ready(1, {})))

    def feed(self, event: ev.Event) -> list[ev.Action]:
        done: list[ev.Action] = []
        waiting = [event]
        while waiting:
            actions = self.broker.handle(waiting.pop(), 0.0)
            done += actions
            waiting += [ev.ArenaMade(a.stream) for a in actions if isinstance(a, ev.MakeArena)]
            self.chosen += [a.stream for a in actions if isinstance(a, ev.SelectSamples)]
        return done

    def say(self, who: Rights | None, peer: bytes, message: msg.FromClient) -> msg.ToClient | None:
        answers = [
            a for a in self.feed(ev.FromPeer(peer, message, who)) if isinstance(a, ev.SendToClient)
        ]
        assert all(answer.peer == peer for answer in answers)
        return answers[0].message if answers else None

    def hello(self, who: Rights | None, peer: bytes) -> msg.ToClient | None:
        answer = self.say(who, peer, msg.Hello("n", transport="frames"))
        if isinstance(answer, msg.Welcome):
            self.feed(ev.PeerAttached(answer.session, answer.token, is_framed=True))
        return answer

    def open(
        self, who: Rights | None, peer: bytes, dataset: str = "photos", **spec: object
    ) -> msg.ToClient | None:
        welcome = self.hello(who, peer)
        assert isinstance(welcome, msg.Welcome), welcome
        layout = msg.Layout(int(str(spec.pop("batch_size", 4))))
        share = SHARE if spec.pop("is_shared", False) else None
        whole = msg.Spec(dataset, RECIPE, layout, prefetch=1, **spec)  # type: ignore[arg-type]
        return self.say(who, peer, msg.Open(welcome.session, 1, whole, share=share))


@pytest.fixture
def desk() -> Desk:
    return Desk()


@clause("P-105")
def test_the_broker_refuses_by_rights(desk: Desk) -> None:
    assert isinstance(desk.open(ALICE, b"1"), msg.Opened)
    error = desk.open(ALICE, b"2", "secrets")
    assert isinstance(error, msg.Error)
    assert error.code == "FORBIDDEN"
    assert isinstance(desk.open(BOB, b"3", "secrets"), msg.Opened)
    assert isinstance(desk.open(None, b"4", "secrets"), msg.Opened)


@clause("P-106")
def test_streams_beyond_the_limit_are_refused_with_both_figures(desk: Desk) -> None:
    assert isinstance(desk.open(ALICE, b"1"), msg.Opened)
    assert isinstance(desk.open(ALICE, b"2", "scans"), msg.Opened)
    error = desk.open(ALICE, b"3")
    assert isinstance(error, msg.Error)
    assert (error.code, error.text) == (
        "OVER_LIMIT",
        "'alice' has 2 streams open, the limit of this key is max_streams=2; close one, or ask "
        "the daemon's operator for more",
    )
    assert isinstance(desk.open(BOB, b"4"), msg.Opened), "others have their own limits"
    desk.say(ALICE, b"1", msg.Bye(1))


@clause("P-106")
def test_a_stream_whose_samples_are_being_chosen_counts(desk: Desk) -> None:
    half = msg.Selection(limit=5)
    assert desk.open(ALICE, b"1", selection=half) is None, "it is being chosen"
    assert desk.open(ALICE, b"2", selection=half) is None
    error = desk.open(ALICE, b"3", selection=half)
    assert isinstance(error, msg.Error)
    assert error.code == "OVER_LIMIT"


@clause("P-106")
def test_memory_beyond_the_limit_is_refused_with_the_figures(desk: Desk) -> None:
    assert isinstance(desk.open(ALICE, b"1", batch_size=1000), msg.Opened)
    error = desk.open(ALICE, b"2", batch_size=2000)
    assert isinstance(error, msg.Error)
    assert error.code == "OVER_LIMIT"
    assert error.text.endswith(
        "the limit of this key is max_gigabytes=0.001; use a smaller batch_size or prefetch"
    )
    assert "and 'alice' has 0.0" in error.text
    assert isinstance(desk.open(BOB, b"3", batch_size=2000), msg.Opened)


@clause("P-106")
def test_one_client_cannot_take_all_sessions(desk: Desk) -> None:
    for number in range(4):
        assert isinstance(desk.hello(ALICE, b"%d" % number), msg.Welcome)
    error = desk.hello(ALICE, b"9")
    assert isinstance(error, msg.Error)
    assert (error.code, error.text) == (
        "OVER_LIMIT",
        "'alice' has 4 sessions open, the limit is 4 for max_streams=2; close some",
    )
    assert isinstance(desk.hello(BOB, b"10"), msg.Welcome)


@clause("P-104")
@pytest.mark.parametrize("other", [BOB, None])
def test_a_session_is_its_own_clients_even_for_a_peer_of_the_same_id(
    desk: Desk, other: Rights | None
) -> None:
    opened = desk.open(ALICE, b"1")
    assert isinstance(opened, msg.Opened)
    spec = msg.Spec("photos", RECIPE, msg.Layout(4), prefetch=1)
    error = desk.say(other, b"1", msg.Open(opened.session, 2, spec))
    assert isinstance(error, msg.Error)
    assert error.code == "PROTOCOL_STATE"
    desk.say(other, b"1", msg.Bye(opened.session))
    stale = desk.broker.snapshot()["stale"]
    assert stale == {"session": 1}
    assert isinstance(desk.say(ALICE, b"1", msg.Open(opened.session, 2, spec)), msg.Opened)


@clause("P-104")
@pytest.mark.parametrize("selection", [msg.Selection(), msg.Selection(limit=5)])
def test_a_production_is_shared_within_one_client(desk: Desk, selection: msg.Selection) -> None:
    for number, who in enumerate((ALICE, ALICE, BOB, BOB, None, None)):
        desk.open(who, b"%d" % number, is_shared=True, selection=selection)
    assert len(desk.chosen) == (0 if selection == msg.Selection() else 3)
    for stream in desk.chosen:
        desk.feed(ev.SamplesSelected(stream, msg.Chosen(5)))
    streams = desk.broker.snapshot()["streams"]
    assert [len(stream["sessions"]) for stream in streams] == [2, 2, 2]


@clause("P-106")
def test_what_is_shared_is_counted_once(desk: Desk) -> None:
    """Two slots of 2,000 rows of 209 bytes are 0.84 MB."""
    carol = Rights("carol", None, max_streams=9, max_bytes=2 * 10**6)
    for peer in (b"1", b"2", b"3"):
        opened = desk.open(carol, peer, batch_size=2000, is_shared=True)
        assert isinstance(opened, msg.Opened), opened
    assert isinstance(desk.open(carol, b"4", batch_size=2000), msg.Opened)
    assert isinstance(desk.open(carol, b"5", batch_size=2000), msg.Error)


@clause("P-107")
def test_changed_rights_end_the_sessions_of_that_client_and_no_other(desk: Desk) -> None:
    for who, peer in ((ALICE, b"1"), (BOB, b"2"), (None, b"3")):
        assert isinstance(desk.open(who, peer), msg.Opened)
    desk.hello(ALICE, b"4")
    actions = desk.feed(ev.RightsChanged("alice", "the rights changed"))
    errors = {a.peer: a.message for a in actions if isinstance(a, ev.SendToClient)}
    assert errors.keys() == {b"1", b"4"}
    for error in errors.values():
        assert isinstance(error, msg.Error)
        assert (error.code, error.text, error.opening) == ("FORBIDDEN", "the rights changed", 0)
    assert sum(isinstance(a, ev.DropArena) for a in actions) == 1
    assert len(desk.broker.snapshot()["streams"]) == 2
    assert desk.feed(ev.RightsChanged("alice", "again")) == []


@clause("P-105")
def test_the_status_shows_a_client_its_own(desk: Desk) -> None:
    for who, peer in ((ALICE, b"1"), (BOB, b"2"), (None, b"3")):
        assert isinstance(desk.open(who, peer), msg.Opened)

    def status(who: Rights | None) -> dict[str, object]:
        answer = desk.say(who, b"9", msg.Status())
        assert isinstance(answer, msg.StatusReply)
        return answer.snapshot

    whole = status(None)
    own = status(ALICE)
    assert len(whole["streams"]) == 3  # type: ignore[arg-type]
    assert whole["datasets"]["photos"]["root"] == "/photos"  # type: ignore[index]
    assert [one["session"] for one in own["streams"]] == [1]  # type: ignore[attr-defined]
    assert own["datasets"].keys() == {"photos", "scans"}  # type: ignore[attr-defined]
    assert {one["root"] for one in own["datasets"].values()} == {""}  # type: ignore[attr-defined]
    assert len(status(BOB)["streams"]) == 1  # type: ignore[arg-type]
