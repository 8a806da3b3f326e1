"""Rows of the filters, bounds and padding that are known: their bytes may not change.

Where they do, on purpose, `native.describe_kernels` must describe other pixels, so that no resume
mixes both. `python -m tests.unit.pixels.test_known_rows` prints the digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from augd.pixels import native
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan

SIZE = (45, 61)
VALUE = (124.0, 116.0, 104.0)
MATRIX = [[1.2, -0.3, 5.25], [0.4, 0.9, -3.5]]
RECOLOURED = [[0.5, 0.0, 0.0, 9.0], [0.0, 1.5, 0.0, -20.0], [0.2, 0.0, 0.8, 0.0]]

# filter, fill, row plan
ROWS: dict[str, tuple[str, str, RowPlan]] = {
    "bicubic, reduced": ("bicubic", "reflect", RowPlan((61, 45))),
    "bicubic, enlarged": ("bicubic", "reflect", RowPlan((400, 300), (90, 17), True)),
    "bicubic, both": ("bicubic", "reflect", RowPlan((70, 300), (3, 250), flip=True)),
    "drawn, antialias": ("random", "reflect", RowPlan((61, 45), is_bicubic=False)),
    "drawn, bicubic": ("random", "reflect", RowPlan((61, 45), is_bicubic=True)),
    "bent, bicubic": ("bicubic", "reflect", RowPlan(matrix=MATRIX)),
    "bent, bicubic, fill": ("bicubic", "constant", RowPlan(matrix=MATRIX, halvings=1)),
    "bounded": (
        "linear",
        "constant",
        RowPlan(matrix=MATRIX, picture=(0, 0, 50, 30), colour=RECOLOURED),
    ),
    "bounded, bicubic": (
        "bicubic",
        "constant",
        RowPlan(matrix=MATRIX, picture=(-2, 0, 70, 31), colour=RECOLOURED, lens=0.2),
    ),
    "fitted": (
        "bicubic",
        "constant",
        RowPlan((40, 45), inset=(10, 0, 40, 45), colour=RECOLOURED),
    ),
}

KNOWN: dict[str, str] = {
    "bicubic, reduced": "19de1177d27abff020d7bb4c",
    "bicubic, enlarged": "98ac464c2e8e8f4569d80239",
    "bicubic, both": "5cb80eccfe8da94afcfb8c15",
    "drawn, antialias": "402a17ad4d71d5b8dfa4f93f",
    "drawn, bicubic": "19de1177d27abff020d7bb4c",
    "bent, bicubic": "4bb36d2d6f3804d08dab7c27",
    "bent, bicubic, fill": "769a1615da0430e512667a05",
    "bounded": "db1421b58a41da0e53bced89",
    "bounded, bicubic": "0c39c0abbba309ba3921a0ad",
    "fitted": "214441755e1f344d016b6897",
}


def picture() -> NDArray[np.uint8]:
    """Return noise that no library draws: a linear congruence (Numerical Recipes)."""
    values, state = np.empty(90 * 120 * 3, np.uint8), 1
    for number in range(values.size):
        state = (state * 1_664_525 + 1_013_904_223) & 0xFFFFFFFF
        values[number] = state >> 24
    return values.reshape(90, 120, 3)


def found() -> Iterator[tuple[str, str]]:
    """Yield each row's name and its digest."""
    source = picture()
    for name, (filter, fill, row_plan) in ROWS.items():
        options: Any = {"fill": fill, "fill_value": VALUE}
        out = np.empty((*SIZE, 3), np.uint8)
        Renderer(filter, SIZE, **options).render(source, row_plan, out)  # type: ignore[arg-type]
        yield name, hashlib.blake2b(out, digest_size=12).hexdigest()


def test_rows_are_known() -> None:
    if native.kernels is None:
        pytest.skip("without the native kernels Pillow resizes: other pixels, by a level")
    assert dict(found()) == KNOWN


@pytest.mark.skipif(int(cv2.__version__[0]) < 5, reason="OpenCV 4 samples at 1/32 px")
def test_bent_ones_are_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "kernels", None)
    same = {name: digest for name, digest in found() if name.startswith(("bent", "bounded"))}
    assert len(same) == 4
    assert same == {name: KNOWN[name] for name in same}


if __name__ == "__main__":
    print(dict(found()))
