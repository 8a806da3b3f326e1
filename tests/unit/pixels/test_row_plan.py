"""RowPlans: a plan's arrays, read row by row."""

from __future__ import annotations

import numpy as np

from augd.pixels.row_plan import RowPlan, RowPlans
from augd.plan.plan import LocalWarpField, Plan


def plain_plan(num_rows: int) -> Plan:
    numbers = np.arange(num_rows * 4, dtype=np.int32)
    return Plan(
        crop=numbers.reshape(-1, 4),
        scaled=numbers[: num_rows * 2].reshape(-1, 2) + 100,
        window=numbers[: num_rows * 2].reshape(-1, 2) + 200,
        mirror=numbers[:num_rows] % 2 == 1,
        colour=None,
        impossible={},
    )


def test_a_plan_with_the_least() -> None:
    row_plans = RowPlans(plain_plan(5), 2, 5)
    assert [tuple(crop) for crop in row_plans.crop] == [(8, 9, 10, 11), (12, 13, 14, 15),
                                                       (16, 17, 18, 19)]  # fmt: skip
    first = row_plans[0]
    assert list(first.scaled) == [104, 105] and list(first.window) == [204, 205]
    assert first.mirror is False and row_plans[1].mirror is True
    assert first.colour is first.pivot is first.matrix is None and first.erase == []


def test_a_plan_with_everything() -> None:
    plan = plain_plan(3)
    matrices = np.arange(18.0).reshape(3, 2, 3)
    full = Plan(
        plan.crop, plan.scaled, plan.window, plan.mirror,
        colour=np.arange(36.0).reshape(3, 3, 4),
        impossible={},
        matrix=matrices,
        bent=np.array([True, False, True]),
        halvings=np.array([2, 0, 1], np.int8),
        lens=np.array([0.1, 0.0, 0.0]),
        warp=LocalWarpField(3.0, 2.0),
        warp_key=np.array([2**64 - 1, 5, 6], np.uint64),
        warp_on=np.array([True, False, False]),
        pivot=np.arange(27.0).reshape(3, 3, 3),
        erase=np.arange(12, dtype=np.int32).reshape(3, 1, 4),
    )  # fmt: skip
    row_plans = RowPlans(full, 0, 3)
    row: RowPlan = row_plans[0]
    assert row.matrix == matrices[0].tolist()
    assert (list(row.origin), row.halvings, row.lens) == ([0, 1], 2, 0.1)
    assert row.warp == (3.0, 2.0) and row.warp_key == 2**64 - 1
    assert row.colour == full.colour[0].tolist() and row.pivot == full.pivot[0].tolist()
    assert row.erase == [([0, 1, 2, 3], (124, 116, 104), 0, 0)]
    assert row_plans[1].matrix is None and row_plans[1].warp is None
    row = row_plans[2]
    assert row.matrix == matrices[2].tolist() and row.warp is None and row.lens == 0.0
    assert list(row.origin) == [8, 9]
