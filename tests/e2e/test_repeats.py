"""Repeated augmentation: copies of one decode, over ranks, after deaths and resumes."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import augd
from augd.cli.app import main
from augd.client.status import status
from tests.support.scenes import make_folder

RECIPE = {"ops": [{"op": "random_resized_crop", "size": 32}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("set"), num_classes=3, per_class=20)


@pytest.fixture(scope="module")
def daemon(folder: Path) -> Iterator[augd.ServedDaemon]:
    with augd.serve({"small": folder}, producers=2) as served:
        yield served


def read(daemon: augd.ServedDaemon, epoch: int = 0, **options) -> tuple[np.ndarray, np.ndarray]:
    options = {"recipe": RECIPE, "verify": True} | options
    with augd.connect(daemon.address, **options) as stream:
        found = [(batch.ids.copy(), batch.images.copy()) for batch in stream.epoch(epoch)]
    return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


@pytest.mark.clause("P-170")
@pytest.mark.parametrize("scaled", ["off", "auto"])
def test_copies_differ_and_no_batch_size_changes_them(daemon, scaled):
    recipe = RECIPE | {"scaled_decode": scaled}
    ids, images = read(daemon, batch_size=60, repeats=3, recipe=recipe)
    assert (ids.reshape(20, 3) == ids[::3, None]).all()
    copies = images.reshape(20, 3, -1)
    assert all(not np.array_equal(a, b) for a, b in zip(copies[:, 0], copies[:, 1], strict=True))
    for size in (7, 16, 20):  # chunks cut runs of copies anywhere
        again = read(daemon, batch_size=size, repeats=3, recipe=recipe)
        assert np.array_equal(again[0], ids)
        assert np.array_equal(again[1], images)


def test_a_first_copy_is_what_the_sample_is_without_repeats(daemon):
    ids, images = read(daemon, batch_size=60)
    copied, rows = read(daemon, batch_size=60, repeats=4)
    assert np.array_equal(copied[::4], ids[:15])
    assert np.array_equal(rows[::4], images[:15])


def test_each_rank_gets_one_of_the_copies(daemon):
    parts = [read(daemon, batch_size=5, repeats=3, rank=rank, world=3) for rank in range(3)]
    for ids, _ in parts:
        assert np.array_equal(ids, parts[0][0])
        assert len(set(ids.tolist())) == 20
    assert not np.array_equal(parts[0][1], parts[1][1])
    alone, images = read(daemon, batch_size=60, repeats="3x5")
    assert np.array_equal(alone.reshape(4, 3, 5)[:, 1].reshape(-1), parts[1][0])
    assert np.array_equal(
        images.reshape(4, 3, 5, -1)[:, 1].reshape(20, -1), parts[1][1].reshape(20, -1)
    )


def test_dead_producers_and_a_resume_change_nothing(daemon):
    whole = read(daemon, 1, batch_size=8, repeats=3)
    options = {"recipe": RECIPE, "batch_size": 8, "repeats": 3}
    with augd.connect(daemon.address, **options) as stream:
        passing = itertools.islice(stream.epoch(1), 2)
        begun = [(batch.ids.copy(), batch.images.copy()) for batch in passing]
        state = json.loads(json.dumps(stream.state_dict()))
        for producer in status(daemon.address, 5)["producers"]:
            os.kill(producer["pid"], signal.SIGKILL)
    with augd.connect(daemon.address, **options) as stream:
        stream.load_state_dict(state)
        begun += [(batch.ids.copy(), batch.images.copy()) for batch in stream.epoch(1)]
    for found, expected in zip(zip(*begun, strict=True), whole, strict=True):
        assert np.array_equal(np.concatenate(found), expected)
    with (
        augd.connect(daemon.address, recipe=RECIPE, batch_size=8) as stream,
        pytest.raises(augd.SpecMismatch, match="repeats: "),
    ):
        stream.load_state_dict(state)


def test_a_bad_image_is_bad_in_the_copies_that_need_what_is_broken(tmp_path):
    """The copies of a truncated image are judged one by one, wherever chunks are cut."""
    folder = make_folder(tmp_path / "set", num_classes=1, per_class=6, size_px=(640, 480))
    for path in sorted(folder.rglob("*.jpg"))[:3]:
        content = path.read_bytes()
        kept = content[: len(content) * 5 // 8]
        path.write_bytes(kept + b"\xff\x00" * 40 + b"\xff\xd9")
    recipe = {"ops": [{"op": "random_resized_crop", "size": 32, "scale": [0.05, 0.3]}]}
    found = []
    with augd.serve(folder, producers=1) as served:
        for size in (5, 6):
            options = {"recipe": recipe, "batch_size": size, "repeats": 3, "max_bad_fraction": 1}
            with augd.connect(served.address, **options) as stream:
                rows = [
                    (b.valid.copy(), b.images.copy()) for e in range(4) for b in stream.epoch(e)
                ]
            found.append([np.concatenate(arrays) for arrays in zip(*rows, strict=True)])
    assert np.array_equal(found[0][0], found[1][0])
    assert np.array_equal(found[0][1], found[1][1])
    copies = found[0][0].reshape(-1, 3)
    assert (copies.any(axis=1) & ~copies.all(axis=1)).any(), "copies of one image differ in that"


def test_a_daemon_that_does_not_know_repeats_is_refused(daemon, monkeypatch):
    opened = augd.client.connect._check_repeats

    def forget(connection, spec):
        del connection.session.opened.content_fields["repeats"]
        opened(connection, spec)

    monkeypatch.setattr("augd.client.connect._check_repeats", forget)
    with pytest.raises(augd.OptionError, match=r"repeats: the daemon is of an earlier release"):
        augd.connect(daemon.address, recipe=RECIPE, repeats=2)


def test_a_batch_with_copies_is_replayed(daemon, folder, tmp_path, capsys):
    (tmp_path / "r.toml").write_text('[[ops]]\nop = "random_resized_crop"\nsize = 32\n')
    options = {"recipe": RECIPE, "batch_size": 8, "repeats": 3, "split": "all"}
    with augd.connect(daemon.address, **options) as stream:
        digest = next(iter(stream.epoch(0))).digest
    words = ["replay", str(folder), "--recipe", str(tmp_path / "r.toml"), "--batch-size", "8"]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--repeats", "3", "--split", "all"])
    assert ended.value.code == 0
    assert digest in capsys.readouterr().out
