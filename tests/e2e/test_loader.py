"""`trainer.as_dataloader`: a DataLoader to whoever asks, the stream's batches to whoever reads."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

import augd
import trainer
from tests.support.scenes import SMALL, make_coloured

NUM_PHOTOS = 14


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    folder = make_coloured(tmp_path_factory.mktemp("set"), NUM_PHOTOS // 2)
    bad: Path = folder / "red" / "003.jpg"
    bad.write_bytes(bad.read_bytes()[:150])
    with augd.serve({"small": folder}, producers=1) as served:
        yield served


def connect(daemon, **options):
    options = {"recipe": SMALL, "batch_size": 4, "device": "cpu", "max_bad_fraction": 0.2} | options
    return trainer.connect(daemon.address, **options)


def test_gives_the_streams_batches_epoch_after_epoch(daemon):
    with connect(daemon) as stream, connect(daemon) as other:
        loader = trainer.as_dataloader(stream)
        assert isinstance(loader, DataLoader) and len(loader) == 4
        for epoch in range(3):
            pairs, batches = list(loader), list(other.epoch(epoch))
            assert len(pairs) == len(batches)
            for (images, labels), batch in zip(pairs, batches, strict=True):
                assert torch.equal(images, batch.images[batch.valid])
                assert torch.equal(labels, batch.labels[batch.valid])
            assert sum(len(labels) for _, labels in pairs) == NUM_PHOTOS - 1


def test_rows_may_stay_as_they_are(daemon):
    with connect(daemon) as stream:
        pairs = list(trainer.as_dataloader(stream, drop_invalid=False))
    labels = torch.cat([labels for _, labels in pairs])
    assert len(labels) == NUM_PHOTOS and (labels == -100).sum() == 1


def test_a_batch_without_a_valid_row_is_left_out(daemon):
    with connect(daemon, batch_size=1) as stream:
        assert sum(1 for _ in trainer.as_dataloader(stream)) == NUM_PHOTOS - 1


def test_its_state_is_the_streams(daemon):
    with connect(daemon) as stream, connect(daemon) as other:
        loader = trainer.as_dataloader(stream)
        list(loader)
        passing = iter(loader)
        next(passing)
        state = json.loads(json.dumps(loader.state_dict()))
        rest = [labels.tolist() for _, labels in passing]
        again = trainer.as_dataloader(other)
        again.load_state_dict(state)
        assert [labels.tolist() for _, labels in again] == rest and len(rest) == 3
        assert [x.tolist() for _, x in again] == [x.tolist() for _, x in loader], "both epoch 2"


def test_shards_cover_each_sample_once(daemon):
    seen: list[torch.Tensor] = []
    for rank in range(3):
        with connect(daemon, rank=rank, world=3, batch_size=2) as stream:
            loader = trainer.as_dataloader(stream, drop_invalid=False)
            assert [len(labels) for _, labels in loader] == [2, 2, 2]
            seen += [batch.ids[batch.valid] for batch in stream.epoch(0)]
    assert sorted(torch.cat(seen).tolist()) == [n for n in range(NUM_PHOTOS) if n != 10]


def test_ranks_go_the_same_steps(daemon):
    lengths = []
    for rank in range(3):
        with (
            connect(daemon, rank=rank, world=3, batch_size=2) as stream,
            pytest.raises(augd.OptionError, match=r"world=3 .*; connect with drop_last=True, "),
        ):
            trainer.as_dataloader(stream)
        with connect(daemon, rank=rank, world=3, batch_size=2, drop_last=True) as stream:
            lengths.append(sum(1 for _ in trainer.as_dataloader(stream)))
    assert lengths == [2, 2, 2]


def test_a_rank_does_not_skip_a_step(daemon):
    options = {"world": 2, "batch_size": 1, "drop_last": True, "shuffle": False}
    ended = []
    for rank in range(2):
        with connect(daemon, rank=rank, **options) as stream:
            try:
                ended.append(len(list(trainer.as_dataloader(stream))))
            except augd.DatasetError as error:
                ended.append(str(error).partition(" has")[0])
    assert sorted(map(str, ended)) == ["7", "the batch at position 10 of epoch 0"]


def test_stats_tell_computing_from_waiting(daemon):
    with connect(daemon) as stream:
        for _ in stream.epoch(0):
            time.sleep(0.05)
        stats = stream.stats()
        assert 4 * 0.05 <= stats["compute_s"] < 2
        time.sleep(0.3)  # between two passes nobody computes
        next(stream.epoch(1))
        assert stream.stats()["compute_s"] == stats["compute_s"]
