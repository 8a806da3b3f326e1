"""The arithmetic of the benchmarks: medians, ratios, targets, growth, and who makes what."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import augmentation
from benchmarks._report import Absent, Figure, Target, _as_plain, show
from benchmarks._rounds import Score, Spread, ratios, spread
from benchmarks.memory import growth_per_epoch
from benchmarks.sides.null_sink import _leases


def test_medians_and_ranges():
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)


def test_ratios_are_those_of_neighbours_in_time():
    ours = [Score(speed, 0.0, {}) for speed in (10.0, 5.0, 2.0)]
    theirs = [Score(speed, 0.0, {}) for speed in (5.0, 2.0, 1.0)]
    assert ratios(ours, theirs) == Spread(2.0, 2.0, 2.5)
    with pytest.raises(ValueError, match="shorter"):
        ratios(ours, theirs[:2])


def test_targets():
    assert Target("<=", 2.0).is_met(2.0) and not Target("<=", 2.0).is_met(2.1)
    assert Target(">=", 2.0).is_met(2.0) and not Target(">=", 2.0).is_met(1.9)
    assert Figure("a", "s", Spread(1, 1, 9), Target("<=", 2.0)).is_met is True
    assert Figure("a", "s", Spread(1, 1, 9)).is_met is None


def test_a_peer_that_is_not_installed_is_named_with_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(augmentation.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(augmentation, "is_ready", lambda environment: False)
    install = "python -m benchmarks.peers.install albumentations"
    assert augmentation._missing("OpenCV") == "pip install torch"
    assert augmentation._missing("Albumentations") == install
    monkeypatch.setattr(augmentation.importlib.util, "find_spec", lambda name: object())
    assert augmentation._missing("OpenCV") == ""
    assert augmentation._missing("Albumentations") == install
    monkeypatch.setattr(augmentation, "is_ready", lambda environment: True)
    assert augmentation._missing("Albumentations") == ""
    absent = Absent("eight ops, Albumentations", "pip install albumentations")
    assert _as_plain(absent) == {"name": absent.name, "why": absent.why}
    show("What?", [absent, Figure("a", "s", Spread(1, 1, 9))])
    assert "eight ops, Albumentations: pip install albumentations" in capsys.readouterr().out


def test_growth_looks_at_settled_windows_only():
    assert growth_per_epoch([0.0, 5.0, *[40.0] * 8]) == 0.0
    leaking = [10.0, 20.0, *(40.0 + number for number in range(8))]  # 1 MB per 5 epochs
    assert growth_per_epoch(leaking) == pytest.approx(0.2)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_null_sinks_make_each_row_of_an_epoch_once(workers):
    made = []
    for process in range(workers):
        leases = _leases(1000, 256, process, workers)
        for lease in itertools.takewhile(lambda lease: lease.epoch < 2, leases):
            first = lease.position + lease.first_row
            made += [(lease.epoch, position) for position in range(first, first + lease.rows)]
    assert sorted(made) == [(epoch, at) for epoch in (0, 1) for at in range(1000)]
