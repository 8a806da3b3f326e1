"""Where a stream stands, saved and loaded: the rest equals the uninterrupted run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import augd
import trainer
from augd.plan.order.order import Order
from augd.plan.order.shuffle_option import Blocks
from tests.support.scenes import SMALL, make_folder, read_epoch


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=35)
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def connect(daemon: augd.ServedDaemon, **options: object) -> augd.Stream:
    return augd.connect(daemon.address, recipe=SMALL, **{"batch_size": 16, **options})


def rows_of(batches: list[dict[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([batch["images"] for batch in batches])


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 5])
def test_the_rest_equals_the_uninterrupted_run_at_every_cut(daemon, cut):
    with connect(daemon) as stream:
        whole = read_epoch(stream, 2)
        following = read_epoch(stream, 3)
    with connect(daemon) as stream:
        passing = stream.epoch(2)
        for _ in range(cut):
            next(passing).release()
        state = json.loads(json.dumps(stream.state_dict()))
    assert len(json.dumps(state)) < 4096
    if cut == 0:
        assert (state["epoch"], state["position"]) == (0, 0), "nothing was handed out yet"
        return
    assert (state["epoch"], state["position"]) == ((2, 16 * cut) if cut < 5 else (3, 0))
    with connect(daemon) as stream:
        stream.load_state_dict(state)
        assert stream.state_dict() == state
        if cut < 5:
            rest = read_epoch(stream, 2)
            assert len(rest) == len(whole) - cut
            for got, expected in zip(rest, whole[cut:], strict=True):
                assert all(np.array_equal(got[name], expected[name]) for name in got)
        assert np.array_equal(rows_of(read_epoch(stream, 3)), rows_of(following))


def test_another_batch_size_and_world_go_on_at_the_same_sample(daemon):
    with connect(daemon) as stream:
        whole = rows_of(read_epoch(stream, 0))
        passing = stream.epoch(0)
        next(passing).release()
        next(passing).release()
        state = stream.state_dict()
    with connect(daemon, batch_size=11) as stream:
        stream.load_state_dict(state)
        assert np.array_equal(rows_of(read_epoch(stream, 0)), whole[32:])
        assert len(read_epoch(stream, 0)) == len(stream), "asked again, the whole epoch"
    parts = []
    for rank in range(2):
        with connect(daemon, batch_size=8, rank=rank, world=2) as stream:
            stream.load_state_dict(state)
            parts.append(read_epoch(stream, 0))
    woven = [part["images"][part["valid"]] for pair in zip(*parts, strict=True) for part in pair]
    assert np.array_equal(np.concatenate(woven), whole[32:])


def test_a_layout_that_drops_the_rest_goes_on_with_the_next_epoch(daemon):
    with connect(daemon) as stream:
        passing = stream.epoch(0)
        for _ in range(4):
            next(passing).release()
        state = stream.state_dict()
    assert (state["epoch"], state["position"]) == (0, 64)
    with connect(daemon, batch_size=32, drop_last=True) as stream:
        whole = read_epoch(stream, 1)
    with connect(daemon, batch_size=32, drop_last=True) as stream:
        stream.load_state_dict(state)
        assert list(stream.epoch(0)) == [], "6 samples are left of 70"
        rest = read_epoch(stream, 1)
    assert np.array_equal(rows_of(rest), rows_of(whole))


def test_the_short_form_goes_on_too(daemon):
    with connect(daemon) as stream:
        labels = [labels.copy() for _, labels in stream]
        assert stream.state_dict()["epoch"] == 1
        for number, (_, _) in enumerate(stream):
            if number == 2:
                break
        state = stream.state_dict()
        del _
        second = [batch["labels"] for batch in read_epoch(stream, 1)]
    assert len(labels) == 5
    with connect(daemon) as stream:
        stream.load_state_dict(state)
        rest = [labels.copy() for _, labels in stream]
    assert len(rest) == 2
    assert all(np.array_equal(a, b) for a, b in zip(rest, second[3:], strict=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "seed: 0 when saved, 1 here"),
        ({"shuffle": False}, "shuffle: true when saved, false here"),
        ({"shuffle": "blocks:8x2"}, 'shuffle: true when saved, "blocks:8x2" here'),
        ({"recipe": {**SMALL, "filter": "antialias"}}, r'filter: "linear" when saved, "antialias"'),
        ({"split": "train"}, "split"),
    ],
)
def test_other_content_is_refused_and_named(daemon, options, says):
    with connect(daemon) as stream:
        state = stream.state_dict()
    with (
        augd.connect(daemon.address, **{"recipe": SMALL, "batch_size": 16, **options}) as stream,
        pytest.raises(augd.SpecMismatch, match=says),
    ):
        stream.load_state_dict(state)


def test_blocks_go_on_anywhere_by_any_layout_and_not_as_other_blocks(daemon):
    blocks = {"shuffle": "blocks:8x2"}
    order = Order(70, 0, Blocks(8, 2)).ids(1, np.arange(70, dtype=np.int64)).tolist()

    def ids_of(batches: list[dict[str, np.ndarray]]) -> list[int]:
        return np.concatenate([batch["ids"] for batch in batches]).tolist()

    with connect(daemon, **blocks) as stream:
        whole = read_epoch(stream, 1)
        assert ids_of(whole) == order
        passing = stream.epoch(1)
        next(passing).release()
        next(passing).release()
        state = stream.state_dict()
    with connect(daemon, batch_size=11, drop_last=True, **blocks) as stream:
        stream.load_state_dict(state)
        rest = read_epoch(stream, 1)
        assert ids_of(rest) == order[32:65]
        assert np.array_equal(rows_of(rest), rows_of(whole)[32:65])
    ranks = []
    for rank in range(2):
        with connect(daemon, batch_size=8, rank=rank, world=2, **blocks) as stream:
            ranks.append([batch["ids"] for batch in read_epoch(stream, 1)])
    together = np.concatenate([part for pair in zip(*ranks, strict=True) for part in pair])
    assert together[together >= 0].tolist() == order
    with connect(daemon, shuffle="blocks:8x2", split="train") as stream:
        in_part = ids_of(read_epoch(stream, 0))
    with connect(daemon, shuffle=False, split="train") as stream:
        chosen = np.array(ids_of(read_epoch(stream, 0)))
    places = Order(len(chosen), 0, Blocks(8, 2)).ids(0, np.arange(len(chosen)))
    assert in_part == chosen[places].tolist(), "blocks of what was chosen"
    named = pytest.raises(augd.SpecMismatch, match='"blocks:8x2" when saved, "blocks:8x4" here')
    with connect(daemon, shuffle="blocks:8x4") as stream, named:
        stream.load_state_dict(state)


@pytest.mark.parametrize("state", [{}, {"version": 2}, None, {"version": 1, "epoch": "x"}])
def test_what_is_no_state_is_refused(daemon, state):
    with connect(daemon) as stream, pytest.raises(augd.OptionError, match="state: expected"):
        stream.load_state_dict(state)


def test_tensors_go_on_too(daemon):
    options = {"recipe": SMALL, "batch_size": 16, "device": "cpu"}
    with trainer.connect(daemon.address, **options) as stream:
        whole = [batch.ids for batch in stream.epoch(0)]
        passing = stream.epoch(0)
        next(passing)
        state = stream.state_dict()
    assert state["position"] == 16
    with trainer.connect(daemon.address, **options) as stream:
        stream.load_state_dict(state)
        rest = [batch.ids for batch in stream.epoch(0)]
    assert len(rest) == 4
    assert all(bool((a == b).all()) for a, b in zip(rest, whole[1:], strict=True))
