"""What `augd bench --explain` makes of its measurements, and which trials it leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from augd.diagnostics import tuning
from augd.diagnostics.bottleneck import diagnose
from augd.diagnostics.measure import Measurement
from augd.diagnostics.subset import copy_subset
from augd.diagnostics.tuning import Setting, SkippedTrial, TrialResult, say
from augd.pixels import native
from tests.support.scenes import make_folder

SETTING = Setting("photos", {"ops": []}, 16, 2)


def tried(
    what: str, images_per_s: float, setting: Setting = SETTING, waits: float = 1.0
) -> TrialResult:
    measured = Measurement(
        *(100, 10, 0, 1.0, images_per_s, 0.0, 1.0, 0.0, 0.0, waits, 0.0),
        *(0.0 if waits > 0.5 else 0.5, 1.0, 1.0, 0, 0),
    )
    return TrialResult(what, setting, measured, diagnose(waits, 0.0 if waits > 0.5 else 0.5, 2))


def test_a_gain_counts_against_the_fastest_run_of_what_it_is_compared_with() -> None:
    base = tried("as asked", 100.0)
    more = replace(tried("more", 150.0, replace(SETTING, producers=3)), against=base, advice="do")
    again = tried("as asked, once more", 140.0)
    assert more.gain([base, more]) == 1.5
    assert more.gain([base, more, again]) == pytest.approx(150 / 140)
    assert base.gain([base, more, again]) is None
    assert list(say([base, more], 4))[-1] == ("What helped most: more, 1.50 times the images/s: do")
    assert list(say([base, more, again], 4))[-1] == (
        "Nothing that was tried made it faster by a tenth."
    )


def test_all_that_helps_is_named_the_most_first() -> None:
    base, sample = tried("as asked", 100.0), tried("a sample", 300.0, replace(SETTING, path="s"))
    packed = tried("packed", 420.0, replace(SETTING, path="p"))
    cached = tried("cached", 900.0, replace(SETTING, path="s", cache="ram:1GB"))
    found = [
        base,
        sample,
        replace(packed, against=sample, advice="pack"),
        SkippedTrial("else", "no room"),
        replace(cached, against=sample, advice="keep"),
    ]
    lines = list(say(found, 4))
    assert lines[
        3
    ] == "  packed: 420 images/s, 1.40 times as many, the trainer waited 100%, the " + (
        "producers 0%"
    )
    assert lines[4] == "  not tried: else: no room"
    assert lines[-2:] == [
        "What helped most: cached, 3.00 times the images/s: keep",
        "Also: packed, 1.40 times the images/s: pack",
    ]
    assert found[3].as_plain(found) == {"what": "else", "not_tried": "no room"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    make_folder(folder, num_classes=2, per_class=5, size_px=(64, 48))
    return folder


def runs(
    monkeypatch: pytest.MonkeyPatch, base: TrialResult
) -> Iterator[TrialResult | SkippedTrial]:
    """Run the trial of storage without daemons: whatever is asked for, it makes 100 images/s."""
    monkeypatch.setattr(tuning, "_pack", lambda source, target: "")
    return tuning._storage(base, lambda what, setting: tried(what, 100.0, setting))


def test_no_cache_is_tried_that_would_not_fit(photos, monkeypatch) -> None:
    base = tried("as asked", 100.0, replace(SETTING, path=str(photos)))
    monkeypatch.setattr(tuning, "available_bytes", lambda: 1_000_000)
    found = list(runs(monkeypatch, base))
    (untried,) = (one for one in found if isinstance(one, SkippedTrial) and "cache" in one.what)
    assert untried.what == "a cache in memory"
    assert "the photos take about 0.1GB, and 0.1GB can be spared" in untried.why
    monkeypatch.setattr(tuning, "available_bytes", lambda: 1_000_000_000)
    *_, cached, again = runs(monkeypatch, base)
    assert isinstance(cached, TrialResult) and isinstance(again, TrialResult)
    assert (cached.advice, cached.setting.cache) == ("--cache ram:0.1GB", "ram:65MB")
    assert again.setting == cached.against.setting


def test_nothing_is_stored_otherwise_where_it_cannot_help(photos, monkeypatch) -> None:
    setting = replace(SETTING, path=str(photos))
    for base in (
        tried("the trainer is slow", 100.0, setting, waits=0.0),
        tried("there is a cache", 100.0, replace(setting, cache="ram:1GB")),
    ):
        assert list(runs(monkeypatch, base)) == []
    reduced = replace(setting, recipe={"ops": [], "scaled_decode": "auto"})
    found = list(runs(monkeypatch, tried("reduced", 100.0, reduced)))
    assert not any("cache" in one.what for one in found), "such a recipe uses none"


def test_own_sources_are_not_copied(monkeypatch) -> None:
    base = tried("as asked", 100.0, replace(SETTING, path="plugin:mine:Photos?x"))
    (untried,) = runs(monkeypatch, base)
    assert untried == SkippedTrial(
        "packing, and a cache", "the samples of an own source are not copied"
    )


def test_packing_says_why_it_is_not_tried(photos, monkeypatch) -> None:
    base = tried("as asked", 100.0, replace(SETTING, path=str(photos)))
    monkeypatch.setattr(native, "kernels", None)
    untried, *_ = runs(monkeypatch, base)
    assert isinstance(untried, SkippedTrial)
    assert untried.as_plain([]) == {
        "what": "packing",
        "not_tried": "it needs the native kernels; augd doctor says why there are none",
    }


def test_a_sample_is_spread_over_the_set_and_bounded(photos, tmp_path, monkeypatch) -> None:
    whole = copy_subset(str(photos), str(tmp_path / "whole"))
    assert whole is not None
    assert (whole.num_images, whole.num_samples, whole.is_segmented) == (10, 10, False)
    assert whole.decoded_bytes == whole.all_decoded_bytes == 10 * 64 * 48 * 3
    monkeypatch.setattr("augd.diagnostics.subset._IMAGES_MAX", 4)
    few = copy_subset(str(photos), str(tmp_path / "few"))
    assert few is not None
    assert (few.num_images, few.num_samples) == (4, 10)
    assert few.all_decoded_bytes == 10 * 64 * 48 * 3
    copies = sorted((tmp_path / "few").iterdir())
    assert [int(copy.stem) for copy in copies] == [0, 2, 5, 7]
    originals = {path.read_bytes() for path in photos.rglob("*.*")}
    assert all(copy.read_bytes() in originals for copy in copies)
    monkeypatch.setattr("augd.diagnostics.subset._BYTES_MAX", 1)
    one = copy_subset(str(photos), str(tmp_path / "one"))
    assert one is not None and one.num_images == 1
