"""Datasets of unequal sizes in one daemon: ids of one are no places in another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import augd
from tests.support.scenes import SMALL, make_folder

SIZES = (1, 3, 47, 700, 5_000)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[augd.ServedDaemon]:
    """Serve sets whose photos are links to the same 25 files."""
    base = tmp_path_factory.mktemp("sets")
    photos = sorted(make_folder(base / "photos", num_classes=0, per_class=25).iterdir())
    for size in SIZES:
        (base / f"of{size}" / "class").mkdir(parents=True)
        for number in range(size):
            os.link(photos[(size + number) % 25], base / f"of{size}" / "class" / f"{number}.jpg")
    sets = {f"of{size}": base / f"of{size}" for size in SIZES}
    with augd.serve(sets, producers=2) as served:
        yield served


def read(address: str, size: int, told: dict[Any, Any], seed: int) -> None:
    try:
        with augd.connect(
            address, dataset=f"of{size}", recipe=SMALL, batch_size=64, seed=seed, verify=True
        ) as stream:
            ids = np.concatenate([batch.ids.copy() for batch in stream.epoch(0)])
            told[size, seed] = sorted(ids.tolist()), stream.receipt(0)
    except Exception as error:
        told[size, seed] = error, None


def test_ten_streams_of_five_unequal_sets_at_once(daemon: augd.ServedDaemon) -> None:
    told: dict[Any, Any] = {}
    asked = [(size, seed) for seed in range(2) for size in SIZES]
    threads = [
        threading.Thread(target=read, args=(daemon.address, size, told, seed))
        for size, seed in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert {place: ids for place, (ids, _) in told.items()} == {
        (size, seed): list(range(size)) for size, seed in asked
    }
    for size, seed in asked[:4]:  # alone, with the same bytes
        alone: dict[Any, Any] = {}
        read(daemon.address, size, alone, seed)
        assert alone[size, seed] == told[size, seed]
