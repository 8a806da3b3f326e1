"""A daemon of more datasets than the link of a producer holds messages: 400 of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import augd
from augd.client.status import status
from tests.support.processes import await_true
from tests.support.relays import await_remotes, running_relay
from tests.support.scenes import SMALL, make_folder, read_epoch

NUM_SETS = 400


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = make_folder(tmp_path_factory.mktemp("set"), num_classes=2, per_class=8)
    return {"small": folder} | {f"set{number}": folder for number in range(1, NUM_SETS)}


def read(address: str, dataset: str) -> np.ndarray:
    with augd.connect(address, dataset=dataset, recipe=SMALL, batch_size=8, shuffle=False) as one:
        return np.concatenate([batch["images"] for batch in read_epoch(one, 0)])


def assert_any_is_served(address: str, num_producers: int) -> None:
    def pids() -> set[int]:
        return {one["pid"] for one in status(address)["producers"] if one["pid"]}

    await_true(lambda: len(pids()) == num_producers, 30.0, "the producers are there")
    before = pids()
    first, *others = (read(address, dataset) for dataset in ("small", "set399", "set123"))
    assert len(first) == 16
    assert all(np.array_equal(first, other) for other in others)
    assert pids() == before, "the same processes"


def test_any_of_400_datasets_is_served(sets):
    with augd.serve(sets, producers=2) as daemon:
        assert_any_is_served(daemon.address, 2)


def test_any_of_400_datasets_is_served_by_lent_producers(sets, tmp_path):
    listen = [f"ipc://{tmp_path}/d", "tcp://127.0.0.1:0"]
    with augd.serve(sets, producers=0, listen=listen) as daemon:
        path, port = daemon.addresses
        more = [f"{name}={folder}" for name, folder in sets.items() if name != "small"]
        with running_relay(sets["small"], port, "--producers", "2", *more) as relay:
            await_remotes(port, 2)
            assert_any_is_served(path, 2)
            assert relay.end() == "augd: draining: it was told to end\n"


def test_a_set_whose_root_is_gone_fails_alone(tmp_path: Path) -> None:
    here, gone = (
        make_folder(tmp_path / name, num_classes=2, per_class=8) for name in ("here", "gone")
    )
    with augd.serve({"here": here, "gone": gone}, producers=1) as daemon:
        first = read(daemon.address, "here")
        gone.rename(tmp_path / "elsewhere")
        with pytest.raises(augd.AugdError, match=r"dataset gone: .* cannot be opened.*Put it"):
            read(daemon.address, "gone")
        assert np.array_equal(read(daemon.address, "here"), first)
