"""Samples that kill their decoder, and the receipts of what arrives: message by message."""

from __future__ import annotations

import numpy as np
import pytest

from augd.protocol import messages as msg
from augd.protocol.row_digest import ids_digest, rows_digest
from augd.server.daemon.broker.broker import DatasetFacts
from tests.protocol.harness import DIGESTS, NUM_SAMPLES, Client, FakeWire, RealWire, make_spec

clause = pytest.mark.clause


def hold(fake: FakeWire, **changes: object) -> Client:
    """A client whose leases the test answers, or lets kill their producer."""
    client = Client(fake).join()
    fake.is_holding = True
    client.open(make_spec(5, **changes), credit=1)
    client.hear(msg.Opened)
    return client


def die(fake: FakeWire, row: int, sample: int, kind: str = "signal") -> msg.Lease:
    """The producer of the first lease dies with a sample in hand."""
    producer, lease = fake.leases[0]
    how = "SIGSEGV" if kind == "signal" else "SIGKILL"
    fake.lose_producer(producer, how, kind, (lease.lease, row, sample))
    fake.turn_clock(1)
    return lease


def rows_out(fake: FakeWire) -> list[tuple[int, int]]:
    return [(lease.first_row, lease.rows) for _, lease in fake.leases]


@clause("P-116")
@pytest.mark.parametrize("kind", ["signal", "memory"])
def test_a_sample_that_killed_is_made_again_alone(fake: FakeWire, kind: str) -> None:
    client = hold(fake)
    assert rows_out(fake) == [(0, 5)]
    die(fake, 2, 2, kind)
    assert rows_out(fake) == [(2, 1)], "by a fresh producer, which gets nothing else"
    fake.answer_all()
    assert client.hear(msg.BatchMessage).num_bad == 0
    assert fake.kept == []
    fake.is_holding = True
    client.flow(2)
    die(fake, 0, 5, kind)
    fake.answer_all()
    assert client.hear(msg.BatchMessage).num_bad == 0, "one strike each: no verdict"
    assert fake.kept == []


@clause("P-117", "P-118")
def test_a_second_strike_quarantines_it_from_its_place_on(fake: FakeWire) -> None:
    client = hold(fake)
    die(fake, 2, 2)
    die(fake, 0, 2)
    (kept,) = fake.kept
    assert (kept.dataset, kept.entry) == ("photos", (2, 0, 2))
    assert fake.masks.popitem()[1] == ((2, 0, 2),)
    news = client.hear(msg.QuarantinedMessage)
    assert news.entries == ((2, 0, 2),)
    assert news.text == (
        "sample 2 ended its producer twice (SIGSEGV): quarantined from position 2 of epoch 0 on"
    )
    fake.masks = {fake.leases[0][1].stream: ((2, 0, 2),)}
    assert rows_out(fake) == [(0, 5)], "the whole batch is made anew"
    fake.is_holding = False
    fake.answer_all()
    batch = client.hear(msg.BatchMessage)
    assert batch.num_bad == 1
    assert client.read(batch)["valid"] == (True, True, False, True, True)
    snapshot = client.status()
    assert snapshot["streams"][0]["quarantined"] == [[2, 0, 2]]
    assert snapshot["datasets"]["photos"]["quarantined"] == [2]


@clause("P-117")
def test_what_was_finished_beyond_the_verdict_is_made_anew(fake: FakeWire) -> None:
    """A later batch may hold the sample again; it was made before it was known."""
    fake.num_samples = NUM_SAMPLES
    client = Client(fake).join()
    fake.is_holding = True
    client.open(make_spec(10, prefetch=2), credit=3)
    client.hear(msg.Opened)
    (first, second, third) = [lease for _, lease in fake.leases]
    for lease in (second, third):
        fake.from_producer(0, fake.make_rows(lease))
        fake.leases = type(fake.leases)(p for p in fake.leases if p[1] is not lease)
    assert first.epoch == 0 and second.epoch == 1
    die(fake, 4, 4)
    die(fake, 0, 4)
    fake.is_holding = False
    fake.answer_all()
    client.hear(msg.QuarantinedMessage)
    heard = [one for one in client.settle() if isinstance(one, msg.BatchMessage)]
    assert [(batch.epoch, batch.num_bad) for batch in heard] == [(0, 1), (1, 1), (2, 1)]


@clause("P-117")
def test_with_bad_fail_the_stream_ends(fake: FakeWire) -> None:
    client = hold(fake, bad="fail")
    die(fake, 2, 2)
    die(fake, 0, 2)
    error = client.hear(msg.Error)
    assert error.code == "SAMPLE_FAILED"
    assert error.text.startswith("sample 2 ended its producer twice (SIGSEGV). Mend or remove")
    assert fake.kept == []


@clause("P-118")
def test_both_sides_quarantines_are_united_when_a_stream_opens() -> None:
    probe = Client(FakeWire()).join()
    probe.open(make_spec(5))
    content = probe.hear(msg.Opened).content
    known = {content: ((1, 3, 1), (2, 0, 2)), "another": ((7, 9, 9), (1, 0, 0))}
    facts = DatasetFacts("0" * 32, "/photos", NUM_SAMPLES, (12, 12), quarantine=known)
    fake = FakeWire(datasets={"photos": facts})
    client = Client(fake).join()
    spec = make_spec(5, max_bad_fraction=1.0)
    client.open(spec, credit=2, epoch=1, quarantine=((2, 2, 2), (3, 1, 4)))
    opened = client.hear(msg.Opened)
    assert opened.quarantine == ((1, 3, 1), (2, 0, 2), (3, 1, 4), (7, 1, 0))
    batches = [one for one in client.rest() if isinstance(one, msg.BatchMessage)]
    assert len(batches) == 2
    masked = [
        sample
        for batch in batches
        for sample, is_valid in zip(client.ids(batch), client.read(batch)["valid"], strict=True)
        if not is_valid
    ]
    assert masked == [2, 7], "1 only from epoch 3 on, 3 from position 4 on, where it is not"


@clause("P-119")
@pytest.mark.parametrize("kind", ["outside", "stopped", "error", "drained"])
def test_who_dies_by_somebody_elses_hand_accuses_nobody(fake: FakeWire, kind: str) -> None:
    client = hold(fake)
    for _ in range(3):
        die(fake, 2, 2, kind)
        assert rows_out(fake) == [(0, 5)], "the chunk as it was"
    fake.answer_all()
    assert client.hear(msg.BatchMessage).num_bad == 0
    assert fake.kept == []


@clause("P-116")
def test_a_hanging_sample_is_a_strike_and_one_that_was_stopped_is_not(fake: FakeWire) -> None:
    for kind, expected in (("stopped", [(0, 5)]), ("killed", [(2, 1)])):
        fake.leases.clear()
        broker_table = FakeWire()
        hold(broker_table)
        _, lease = broker_table.leases[0]
        broker_table.broker._scheduler.pool.members[0].was_silent = True
        broker_table.lose_producer(0, "SIGKILL", kind, (lease.lease, 2, 2))
        broker_table.turn_clock(1)
        assert rows_out(broker_table) == expected, kind


@clause("P-116")
@pytest.mark.parametrize("current_sample", [(999, 2, 2), (0, 7, 2), (0, -1, 2), (0, 2, -1)])
def test_a_current_sample_that_names_no_lease_of_its_producer_names_nothing(
    fake: FakeWire, current_sample: tuple[int, int, int]
) -> None:
    hold(fake)
    _, lease = fake.leases[0]
    fake.lose_producer(
        0, "SIGSEGV", "signal", (current_sample[0] or lease.lease, *current_sample[1:])
    )
    fake.turn_clock(1)
    assert rows_out(fake) == [(0, 5)]
    assert fake.leases[0][1].attempt == 1, "the chunk is the suspect"


@clause("P-117")
def test_more_than_can_be_samples_fault_end_the_stream() -> None:
    facts = DatasetFacts("0" * 32, "/photos", 5000, (12, 12))
    fake = FakeWire(num_samples=5000, datasets={"photos": facts})
    client = Client(fake).join()
    fake.is_holding = True
    known = tuple((4000 + sample, 9, 0) for sample in range(1000))
    client.open(make_spec(5), credit=1, quarantine=known)
    client.hear(msg.Opened)
    die(fake, 2, 2)
    die(fake, 0, 2)
    error = client.hear(msg.Error)
    assert error.code == "QUARANTINE_LIMIT"
    assert "and 1000 are quarantined already: the samples are not the cause" in error.text


# receipts


@clause("P-120")
def test_digests_of_chunks_add_up_to_batches_and_epochs(fake: FakeWire) -> None:
    client = Client(fake).join()
    client.open(make_spec(6), credit=2)
    client.hear(msg.Opened)
    first, second = client.hear(msg.BatchMessage), client.hear(msg.BatchMessage)
    end = client.hear(msg.EpochEnd)
    sums = [sum(DIGESTS[:6]) % 2**128, sum(DIGESTS[6:10]) % 2**128]
    assert [int.from_bytes(one.digest, "little") for one in (first, second)] == sums
    assert int.from_bytes(end.digest, "little") == sum(sums) % 2**128
    assert int.from_bytes(end.ids_digest, "little") == sum(range(10))


@clause("P-120", "P-121", "P-122")
def test_digests_are_those_of_the_bytes_in_the_slot(mapped: RealWire) -> None:
    client = Client(mapped).join()
    client.open(make_spec(4, world=2, rank=1), credit=3)
    opened = client.hear(msg.Opened)
    total = ids_total = 0
    heard = client.settle()
    batches = [one for one in heard if isinstance(one, msg.BatchMessage)]
    for batch in batches[:2]:
        slot = client.connection.slot(opened, batch)
        arrays = {
            spec.name: np.ndarray(spec.shape, spec.dtype, slot, spec.offset)
            for spec in opened.arrays
        }
        digest = rows_digest(arrays["ids"], arrays["labels"], arrays["images"])
        assert int.from_bytes(batch.digest, "little") == digest
        total += digest
        ids_total += ids_digest(batch.position + 4, arrays["ids"])
        del arrays, slot
    (end,) = [one for one in heard if isinstance(one, msg.EpochEnd)]
    assert int.from_bytes(end.digest, "little") == total % 2**128
    assert int.from_bytes(end.ids_digest, "little") == ids_total % 2**64


@clause("P-121")
def test_the_digest_of_ids_is_the_one_that_is_written_down() -> None:
    def mixed(sample: int, position: int) -> int:
        x = (sample + 0x9E3779B97F4A7C15 * (position + 1)) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    ids = np.array([5, 2**40, 0, -1], np.int64)
    expected = mixed(5, 100) + mixed(2**40, 101) + mixed(0, 102)
    assert ids_digest(100, ids) == expected % 2**64
    assert ids_digest(100, ids[[1, 0, 2]]) != ids_digest(100, ids[:3]), "order counts"
