"""Presets beside the code that they are published with, from the same drawn parameters."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.originals import LIBRARY_OF, compare
from tests.support.scenes import make_folder

# Mean differences in grey levels: of rows that are cut and resized; of rows that a policy bends, or
# whose colours are clipped; of rows whose hue is turned, in YIQ here and in HSV there.
_PLAIN, _POLICY, _HUE = 0.5, 3.0, 15.0
_JITTERED = ("simclr", "byol", "dino", "dinov2")
_UNBENT = ("eval", "eval-232", "eval-bicubic", "eval-bicubic-95", "torchvision-v1", "mae")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(
        tmp_path_factory.mktemp("set"), num_classes=2, per_class=6, size_px=(260, 200)
    )


@pytest.mark.parametrize("preset", LIBRARY_OF)
def test_rows_are_those_of_the_library(photos, preset):
    pytest.importorskip(LIBRARY_OF[preset])
    found = compare(photos, preset, 2)
    assert found.num_rows >= 24
    usual = _HUE if preset in _JITTERED else _POLICY
    assert found.mean < (_PLAIN if preset in _UNBENT else usual), found
