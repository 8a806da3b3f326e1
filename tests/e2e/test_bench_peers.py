"""The comparison with peers, end to end on a few made photos: who is measured, who is left out."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from benchmarks.peers.catalogue import AUGD_LINEAR, OPENCV, SIDES_BY_NAME, Environment, Side
from benchmarks.peers.compare import Course, compare
from benchmarks.peers.install import ENVIRONMENTS
from demo.photos import make_photos

WIDE = {"ops": [{"op": "random_resized_crop", "size": [224, 320]}], "filter": "linear"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers")
    make_photos(folder, 48)
    return folder


def course(photos, **fields) -> Course:
    cores = sorted(os.sched_getaffinity(0))
    return Course(photos, rounds=2, seconds=0.3, workers=1, batch_size=16, cores=cores, **fields)


@pytest.mark.slow
def test_sides_are_measured_in_turns_and_the_others_left_out(photos, monkeypatch, capfd):
    monkeypatch.setitem(ENVIRONMENTS, "none", Environment((), (), (("no-such-package",),)))
    augd, loader = SIDES_BY_NAME[AUGD_LINEAR], SIDES_BY_NAME[OPENCV]
    broken = Side("broken", "augd_stream", "none")
    absent = replace(augd, name="absent", environment="none")
    told: list[str] = []
    measured, left_out = compare(
        [augd, absent, broken, loader], course(photos, tell=told.append)
    )  # fmt: skip
    assert list(measured) == [AUGD_LINEAR, OPENCV]
    assert set(left_out) == {"absent", "broken"}
    assert left_out["absent"].startswith("Debian packages are missing: no-such-package; as root")
    assert left_out["broken"] == "it ended: KeyError: 'recipe'"
    assert "left out broken: it ended: KeyError" in capfd.readouterr().err
    for side in measured.values():
        assert len(side.images_per_s) == len(side.cpu_s_per_1000) == 2
        assert min(side.images_per_s) > 0 and min(side.cpu_s_per_1000) > 0
        assert len(side.waits_s) >= 2 and side.first_batch_s > 0
        assert side.memory_bytes > 10e6  # an interpreter with NumPy, at least
    assert told[-1] == "looking at memory"


@pytest.mark.slow
def test_a_side_that_makes_something_else_is_left_out(photos):
    wide = replace(SIDES_BY_NAME[AUGD_LINEAR], name="wide", options={"recipe": WIDE})
    measured, left_out = compare([wide], course(photos))
    assert not measured
    assert left_out["wide"] == "expected uint8 [16, 224, 224, 3], got uint8 [16, 224, 320, 3]"
