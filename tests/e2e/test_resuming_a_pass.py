"""Where a pass begins after a join, a state or an error, and what its receipt may then say."""

from __future__ import annotations

import json

import numpy as np
import pytest

import augd
import trainer
from tests.support.scenes import SMALL, make_folder

NUM_SAMPLES = 45


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=0, per_class=NUM_SAMPLES)
    with augd.serve({"small": folder}, producers=1) as served:
        yield served


def connect(daemon: augd.ServedDaemon, **options: object) -> augd.Stream:
    return augd.connect(daemon.address, recipe=SMALL, **{"batch_size": 8, **options})


def ids_of(stream: augd.Stream, epoch: int) -> list[int]:
    return np.concatenate([batch.ids.copy() for batch in stream.epoch(epoch)]).tolist()


def test_a_sharer_that_came_late_reads_other_epochs_whole(daemon):
    with connect(daemon) as stream:
        whole = [ids_of(stream, epoch) for epoch in range(2)]
    with connect(daemon, shared=True, prefetch=1) as first:
        ids_of(first, 0)
        passing = first.epoch(1)
        next(passing).release()
        with connect(daemon, shared=True, prefetch=1) as second:
            epoch, position = (second.state_dict()[name] for name in ("epoch", "position"))
            assert (epoch, position > 0) == (1, True)
            assert [ids_of(second, epoch) for epoch in range(2)] == whole
            assert second.receipt(1)["is_complete"]
        with trainer.connect(
            daemon.address, recipe=SMALL, batch_size=8, device="cpu", shared=True, prefetch=1
        ) as tensors:
            joined = tensors.state_dict()["epoch"]
            for _ in range(2):
                next(passing).release()  # sharers wait for each other
            next(iter(tensors))
            assert tensors.state_dict()["epoch"] == joined == 1, "where the others are"


@pytest.mark.parametrize(
    ("saver", "loader", "is_complete"),
    [
        ({"rank": 0, "world": 2}, {}, False),
        ({"rank": 0, "world": 2}, {"rank": 1, "world": 2}, False),
        ({"rank": 1, "world": 2}, {"rank": 1, "world": 2, "batch_size": 4}, True),
        ({}, {"rank": 0, "world": 2}, False),
        ({}, {"batch_size": 5}, True),
    ],
)
def test_a_receipt_is_complete_only_of_what_one_rank_had(daemon, saver, loader, is_complete):
    with connect(daemon, **saver) as stream:
        passing = stream.epoch(0)
        for _ in range(2):
            next(passing).release()
        state = json.loads(json.dumps(stream.state_dict()))
        assert (state["rank"], state["world"]) == (saver.get("rank", 0), saver.get("world", 1))
        for batch in passing:
            batch.release()
        whole = stream.receipt(0)
    with connect(daemon, **loader) as stream:
        stream.load_state_dict(state)
        ids_of(stream, 0)
        receipt = stream.receipt(0)
        assert receipt["is_complete"] == is_complete
        if saver == {} and is_complete:
            assert {**receipt, "batches": whole["batches"]} == whole
        state = {name: state[name] for name in state if name not in ("rank", "world")}
        stream.load_state_dict(state)  # as it was saved before states said whose they are
        ids_of(stream, 0)
        assert stream.receipt(0)["is_complete"] == (saver == {} and is_complete)


@pytest.mark.parametrize(
    "changes",
    [
        {"rank": 2, "world": 2},
        {"rank": 0},
        {"rank": -1, "world": 1},
        {"rank": 0, "world": 0},
        {"rank": "0", "world": 1},
        {"epoch": 2**31},
        {"position": 2**64},
        {"quarantine": [[2**64, 0, 0]]},
    ],
)
def test_a_state_of_impossible_numbers_is_refused(daemon, changes):
    with connect(daemon) as stream:
        state = {**stream.state_dict(), **changes}
        if "world" not in changes:
            state.pop("world")
        with pytest.raises(augd.OptionError, match=r"^state: expected"):
            stream.load_state_dict(state)


def test_a_pass_that_broke_off_does_not_look_as_if_it_had_ended(daemon):
    with connect(daemon, prefetch=1) as stream:
        for passing in (stream.epoch(0), iter(stream)):
            held = [next(passing) for _ in range(2)]
            with pytest.raises(augd.BatchesHeld):
                next(passing)
            del held
            with pytest.raises(
                augd.StreamClosed, match=r"over epoch . broke off \(BatchesHeld: all"
            ):
                next(passing)
    options = {"recipe": SMALL, "batch_size": 8, "device": "cpu", "normalize": False}
    with trainer.connect(daemon.address, prefetch=1, **options) as tensors:
        passing = tensors.epoch(0)
        kept = [next(passing) for _ in range(2)]
        with pytest.raises(augd.BatchesHeld):
            next(passing)
        del kept
        with pytest.raises(augd.StreamClosed, match="broke off"):
            next(passing)


def test_an_epoch_beyond_the_last_one_is_refused(daemon):
    with connect(daemon) as stream:
        assert len(ids_of(stream, 2**31 - 2)) == NUM_SAMPLES
        with pytest.raises(
            augd.OptionError, match=r"epoch: expected .* in 0\.\.2147483646, got 2147483647"
        ):
            stream.epoch(2**31 - 1)
