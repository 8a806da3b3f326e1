"""Who waits for whom: one sentence and one number from shares of time."""

from __future__ import annotations

import pytest

from augd.diagnostics.bottleneck import diagnose
from augd.diagnostics.rates import compare

BOTH = "the trainer waited {:.0%} of the time, the producers {:.0%}"


@pytest.mark.parametrize(
    ("waits", "idle", "limit", "enough", "says"),
    [
        (0.97, 0.01, "producers", None, "Decoding is the limit: {}. It takes whatever is made"),
        (0.31, 0.0, "producers", 8, "Decoding is the limit: {}. 3 more producers would do, where"),
        (0.12, 0.09, "producers", 6, "Decoding is the limit: {}. 1 more producer would do, where"),
        (0.02, 0.6, "trainer", 2, "The training step is the limit: {}. 2 of 5 producers would"),
        (0.02, 0.15, "trainer", 5, "The training step is the limit: {}."),
        (0.5, 0.4, "both", None, "Both wait: {}; batches come in bursts. Raise prefetch or the "),
        (0.05, 0.04, "none", 5, "Nobody waits: {}."),
    ],
)
def test_the_limit_is_named_with_both_shares(waits, idle, limit, enough, says):
    verdict = diagnose(waits, idle, 5)
    assert (verdict.limit, verdict.enough) == (limit, enough)
    assert verdict.sentence.startswith(says.format(BOTH.format(waits, idle)))


def test_producers_that_had_no_core_are_told_apart():
    assert (
        "a core 40% of the time: they wait for storage"
        in diagnose(1.0, 0.0, 4, on_core=0.4).sentence
    )
    assert "storage" not in diagnose(1.0, 0.0, 4).sentence


def producer(**changes):
    one = {"number": 0, "pid": 10, "state": "ready", "rows": 0, "busy_s": 0.0, "idle_s": 0.0}
    return {**one, "leases": 1, **changes}


def stream(**changes):
    one = {"stream": 7, "images": 0, "waited_s": 0.0, "transfer_s": 0.0, "fetch_s": 0.0}
    more = {"readers": [[1, 5, 0, 1, 0]], "slots": {"filling": 1, "sent": 1}}
    return {**one, **more, **changes}


def snapshot(producers, streams):
    return {"producers": producers, "streams": streams}


def test_shares_are_of_the_time_between_two_snapshots():
    before = snapshot([producer()], [stream()])
    later = producer(rows=300, busy_s=1.9, idle_s=0.1)
    after = snapshot([later], [stream(images=256, waited_s=0.5)])
    report = compare(before, after, 2.0)
    assert report["images_per_s"] == 128.0
    assert report["producers"][0]["images_per_s"] == 150.0
    assert report["busy_share"] == pytest.approx(0.95)
    assert report["waited_share"] == 0.25
    assert report["limit"] == "producers"
    assert report["enough_producers"] == 2


def test_the_way_to_the_device_is_told_where_it_takes_time():
    before = snapshot([producer()], [stream()])
    later = producer(rows=300, busy_s=0.5, idle_s=1.5)
    after = snapshot([later], [stream(images=256, waited_s=0.1, transfer_s=0.5)])
    report = compare(before, after, 2.0)
    assert report["transfer_share"] == 0.25
    assert report["who_waits"] == (
        "The training step is the limit: the trainer waited 5% of the time, the producers 75%; "
        "handing batches to its device took it 25%."
    )
    short = snapshot([later], [stream(images=256, waited_s=0.1, transfer_s=0.1)])
    assert "device" not in compare(before, short, 2.0)["who_waits"]


def test_a_batch_on_its_way_is_nobody_s_fault_while_producers_idle():
    verdict = diagnose(0.6, 0.8, 5, fetch=0.5)
    assert (verdict.limit, verdict.enough) == ("transport", 5)
    told = BOTH.format(0.6, 0.8)
    assert verdict.sentence.startswith(
        f"The way to the trainer is the limit: {told}; for 50% of it a finished batch was on its "
        "way. Connect by ipc://"
    )
    assert diagnose(0.9, 0.0, 5, fetch=0.6) == diagnose(0.9, 0.0, 5), (
        "they set the pace all the same"
    )
    assert diagnose(0.05, 0.8, 5, fetch=0.05).limit == "trainer"
    both = diagnose(0.6, 0.8, 5, fetch=0.2)
    assert both.limit == "both"
    assert both.sentence == (
        f"Both wait: {told}; for 20% of it a finished batch was on its way. Raise prefetch or the "
        "batch size, or connect by ipc:// on the daemon's machine."
    )


def test_what_was_on_its_way_counts_for_the_stream_that_waited_most():
    before = snapshot([producer()], [stream(), stream(stream=8)])
    later = [stream(images=9, waited_s=1.8, fetch_s=1.5), stream(stream=8, images=9, waited_s=0.4)]
    report = compare(before, snapshot([producer(rows=18, busy_s=0.1, idle_s=1.9)], later), 2.0)
    assert [one["fetch_share"] for one in report["streams"]] == [0.75, 0.0]
    assert (report["fetch_share"], report["limit"]) == (0.75, "transport")
    later[1]["fetch_s"] = later[1].pop("waited_s") / 2
    later[1]["waited_s"] = 1.9
    report = compare(before, snapshot([producer(rows=18, busy_s=0.1, idle_s=1.9)], later), 2.0)
    assert (report["waited_share"], report["fetch_share"]) == (0.95, 0.1), "of the same stream"


def test_a_daemon_of_an_older_release_does_not_count_it():
    old = stream(images=9, waited_s=1.0)
    del old["fetch_s"]
    report = compare(snapshot([producer()], [stream()]), snapshot([producer()], [old]), 2.0)
    assert (report["waited_share"], report["fetch_share"]) == (0.5, 0.0)


def test_two_readers_of_one_stream_share_what_they_waited():
    readers = [[1, 5, 0, 1, 0], [2, 5, 0, 1, 0]]
    after = stream(images=10, waited_s=2.0, readers=readers)
    report = compare(snapshot([producer()], [stream()]), snapshot([producer()], [after]), 2.0)
    assert report["waited_share"] == 0.5


def test_a_replacement_counts_from_its_start():
    before = snapshot([producer(rows=900, busy_s=50.0)], [stream()])
    after = snapshot([producer(pid=11, rows=30, busy_s=0.5, idle_s=0.5)], [stream(images=30)])
    (found,) = compare(before, after, 1.0)["producers"]
    assert (found["busy_share"], found["images_per_s"]) == (0.5, 30.0)


@pytest.mark.parametrize(
    ("producers", "streams", "says"),
    [
        ([], [], "Nobody waits: no stream is open."),
        ([producer(state="starting")], [stream()], "The trainers wait: no producer is ready yet."),
        ([producer()], [stream()], "The producers are at work on the next batch"),
        ([producer(leases=0)], [stream(slots={"sent": 2})], "The producers wait for the trainers:"),
        ([producer(leases=0)], [stream(slots={"free": 2})], "Nothing moves just now: no batch was"),
    ],
)
def test_what_is_said_where_nothing_moves(producers, streams, says):
    same = snapshot(producers, streams)
    assert compare(same, same, 1.0)["who_waits"].startswith(says)
