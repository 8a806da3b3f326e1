"""Matrices against points moved by hand: pixel centres at +0.5, x to the right, y down."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augd.plan.geometry import affine
from augd.plan.geometry.affine import Affine, rotation, scaling, shearing
from augd.plan.random import numerics
from tests.support.plans import move, plan_of

ONE = np.ones(1)

# Of a tenth of a turn, 0.123456789, -0.3 and 0.49.
SINE_BITS = [
    "0x1.2cf2304755a5ep-1",
    "0x1.6682e33636dbfp-1",
    "-0x1.e6f0e13445500p-1",
    "0x1.0130a1be0937ep-4",
]
COSINE_BITS = [
    "0x1.9e3779b97f4a8p-1",
    "0x1.6d8832e5981ecp-1",
    "-0x1.3c6ef372fe94ep-2",
    "-0x1.fefd5bfe443fep-1",
]


def about(linear: affine.Linear, width: float, height: float) -> np.ndarray:
    """Return the matrix of one linear map about the centre of width x height."""
    mapped = Affine(1)
    mapped.apply_linear(linear, np.array([width / 2]), np.array([height / 2]))
    return mapped.stack()[0]


def test_a_quarter_turn_counter_clockwise_brings_the_right_edge_to_the_top():
    matrix = about(rotation(np.array([0.25])), 4, 4)
    # What is at the output's top left was at the image's top right.
    assert move(matrix, (0.5, 0.5)) == [(3.5, 0.5)]
    # The top edge's middle shows the right edge's; the bottom right the bottom left.
    assert move(matrix, (2, 0), (4, 4)) == [(4, 2), (0, 4)]


def test_a_quarter_turn_permutes_pixels_without_rounding():
    matrix = about(rotation(np.array([0.25])), 224, 224)
    assert matrix.tolist() == [[0, -1, 224], [1, 0, 0]]


def test_a_turn_of_a_frame_that_is_not_square_keeps_its_centre():
    matrix = about(rotation(np.array([-1 / 12])), 10, 6)
    assert move(matrix, (5, 3)) == [(5, 3)]
    # Clockwise by 30 degrees: right of the centre comes from right and above.
    ((x, y),) = move(matrix, (7, 3))
    assert (x, y) == pytest.approx((5 + 2 * math.cos(math.pi / 6), 3 - 2 * 0.5))


def test_zoom_above_one_shows_more():
    matrix = about(scaling(1.5, 1.25), 8, 4)
    assert move(matrix, (4, 2), (0, 0), (8, 4)) == [(4, 2), (-2, -0.5), (10, 4.5)]


def test_shear_moves_a_point_of_the_image_by_its_height():
    matrix = about(shearing(0.5 * ONE, 0 * ONE), 8, 8)
    # The image's point 2 below the centre goes 1 to the right: x' = x + y / 2.
    assert move(matrix, (4 + 1, 4 + 2)) == [(4, 6)]
    matrix = about(shearing(0 * ONE, 0.25 * ONE), 8, 8)
    assert move(matrix, (4 + 2, 4 + 0.5)) == [(6, 4)]


def test_shear_in_both_axes_is_the_inverse_of_its_forward_matrix():
    matrix = about(shearing(0.3 * ONE, -0.7 * ONE), 10, 10)
    for x, y in ((1.0, 0.0), (0.0, 1.0), (2.0, -3.0)):
        assert move(matrix, (5 + x + 0.3 * y, 5 + y - 0.7 * x)) == [(5 + x, 5 + y)]


def test_moving_scaling_and_flipping_a_frame():
    mapped = Affine(2)
    mapped.move(100, 50)
    mapped.scale(2, 3)
    mapped.flip(np.array([False, True]), np.array(10.0))
    straight, flipped = mapped.stack()
    assert move(straight, (0, 0), (1, 1)) == [(100, 50), (102, 53)]
    assert move(flipped, (10, 0), (9, 1)) == [(100, 50), (102, 53)]


def test_the_first_op_is_nearest_to_the_image():
    """Turned, then moved: the output's point is moved back first, then turned back."""
    mapped = Affine(1)
    mapped.apply_linear(rotation(np.array([0.25])), np.array([4.0]), np.array([4.0]))
    mapped.move(-1, 0)
    assert move(mapped.stack()[0], (1, 0)) == [(8, 0)]
    other = Affine(1)
    other.move(-1, 0)
    other.apply_linear(rotation(np.array([0.25])), np.array([4.0]), np.array([4.0]))
    assert move(other.stack()[0], (0, 0)) == [(7, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_the_reductions_are_the_singular_values(seed):
    mapped = Affine(1)
    numbers = np.random.default_rng(seed).normal(size=4)
    mapped.xx, mapped.xy, mapped.yx, mapped.yy = numbers[:, None]
    most, least = np.linalg.svd(numbers.reshape(2, 2))[1]
    assert mapped.reductions()[0][0] == pytest.approx(most, rel=1e-12)
    assert mapped.reductions()[1][0] == pytest.approx(least, rel=1e-12)


# Whole recipes. What was drawn is read from another field or from the matrix itself.


def test_a_crop_alone_maps_its_window():
    ops = [{"op": "random_resized_crop", "size": [50, 100]}, {"op": "rotate", "degrees": 0}]
    plan = plan_of(ops, num=50)
    exact = plan_of(ops[:1], num=50)
    for matrix, (x, y, width, height) in zip(plan.matrix, exact.crop.tolist(), strict=True):
        assert move(matrix, (0, 0), (100, 50)) == [(x, y), (x + width, y + height)]


def test_a_mirror_lies_inside_the_matrix():
    crop = {"op": "random_resized_crop", "size": 100}
    still = {"op": "rotate", "degrees": 0}
    flip = {"op": "mirror", "p": 1}
    plain = plan_of([crop, still], num=20).matrix
    for ops in ([crop, flip, still], [crop, still, flip]):
        plan = plan_of(ops, num=20)
        for straight, mirrored in zip(plain, plan.matrix, strict=True):
            assert move(mirrored, (0, 0), (30, 60)) == move(straight, (100, 0), (70, 60))


def test_a_window_in_a_resized_image_maps_through_both():
    ops = [
        {"op": "resize", "short": 250},
        {"op": "center_crop", "size": 100},
        {"op": "rotate", "degrees": 0},
    ]
    (matrix,) = plan_of(ops, size=(600, 500)).matrix
    # 300x250 after the resize, the window at (100, 75), two source pixels per pixel.
    assert move(matrix, (0, 0), (100, 100)) == [(200, 150), (400, 350)]


@pytest.mark.parametrize("angle", [{"degrees": 36}, {"factor": 0.1}])
def test_rotate_turns_the_output_about_its_centre(angle):
    ops = [{"op": "random_resized_crop", "size": [60, 90]}, {"op": "rotate", **angle}]
    plan = plan_of(ops, num=200, size=(900, 600))
    exact = plan_of(ops[:1], num=200, size=(900, 600)).crop
    angles = []
    for matrix, (x, y, width, height) in zip(plan.matrix, exact.tolist(), strict=True):
        (centre,) = move(matrix, (45, 30))
        assert centre == pytest.approx((x + width / 2, y + height / 2))
        ((px, py),) = move(matrix, (45 + 10, 30))
        # In units of the output again: counter-clockwise is up.
        dx, dy = (px - centre[0]) * 90 / width, (py - centre[1]) * 60 / height
        assert math.hypot(dx, dy) == pytest.approx(10)
        angles.append(math.degrees(math.atan2(dy, dx)))
    assert max(angles) <= 36
    assert min(angles) >= -36
    assert max(angles) > 34
    assert min(angles) < -34


def test_translate_moves_the_image_right_and_down():
    ops = [{"op": "resize", "size": [100, 200]}, {"op": "translate", "x": 0.5, "y": 0.25}]
    moved = [move(m, (0, 0))[0] for m in plan_of(ops, num=500, size=(400, 300)).matrix]
    xs, ys = np.array(moved).T
    # Pixels of the output, 200x100, count 2x3 pixels of the image.
    assert -100 * 2 <= xs.min() < -95 * 2
    assert 95 * 2 < xs.max() <= 100 * 2
    assert -25 * 3 <= ys.min() < -23 * 3
    assert 23 * 3 < ys.max() <= 25 * 3


def test_stretch_enlarges_by_up_to_one_plus_s():
    matrix = plan_of([{"op": "stretch", "x": 1}], num=500).matrix
    assert 0.5 <= matrix[:, 0, 0].min() < 0.51
    assert 1.98 < matrix[:, 0, 0].max() <= 2.0
    assert set(matrix[:, 1, 1]) == {1.0}
    for m in matrix:
        assert move(m, (250, 187.5)) == [(250, 187.5)]


def test_several_ops_compose_in_the_recipes_order():
    size = {"op": "resize", "size": 100}
    turn, shift = {"op": "rotate", "degrees": 90}, {"op": "translate", "x": 0.4}
    one, two = plan_of([size, turn, shift], num=30), plan_of([size, shift, turn], num=30)
    assert one.matrix is not None
    assert two.matrix is not None
    # An op draws by its place, so the parameters are read from recipes of one op in that place.
    still = {"op": "rotate", "degrees": 0}
    turned = plan_of([size, turn, still], num=30).matrix
    moved = plan_of([size, still, shift], num=30).matrix
    image = np.array([[5.0, 0, 0], [0, 3.75, 0], [0, 0, 1]])
    for a, b, found in zip(turned, moved, one.matrix, strict=True):
        first, second = (np.vstack([m, [0, 0, 1]]) for m in (a, b))
        # source = crop (turn (shift (output))): one crop of the two goes.
        expected = first @ np.linalg.inv(image) @ second
        np.testing.assert_allclose(found, expected[:2], atol=1e-9)
    assert np.abs(one.matrix - two.matrix).max() > 1


def test_rows_where_no_op_was_drawn_are_those_of_the_recipe_without():
    crop = {"op": "random_resized_crop"}
    bending = [
        {"op": "rotate", "factor": 0.1, "p": 0.3},
        {"op": "zoom", "height": 0.2, "p": 0.2},
        {"op": "shear", "x": 0.2, "p": 0.1},
        {"op": "stretch", "x": 0.2, "p": 0.1},
        {"op": "translate", "x": 0.2, "p": 0.1},
        {"op": "lens", "p": 0.1},
        {"op": "local_warp", "alpha": 3, "sigma": 4, "p": 0.1},
    ]
    plan = plan_of([crop, *bending, {"op": "mirror"}], num=400)
    plain = plan_of([crop, *([{"op": "mirror", "p": 0}] * 7), {"op": "mirror"}], num=400)
    straight = ~plan.bent
    assert 50 < straight.sum() < 200
    for name in ("crop", "scaled", "window", "mirror"):
        np.testing.assert_array_equal(getattr(plan, name)[straight], getattr(plain, name)[straight])
    assert set(plan.halvings[straight]) == {0}
    zero = {"op": "rotate", "degrees": 0}
    exact = plan_of([crop, zero, *([{"op": "mirror", "p": 0}] * 6), {"op": "mirror"}], num=400)
    np.testing.assert_array_equal(plan.matrix[straight], exact.matrix[straight])


def test_sine_and_cosine_are_exact_at_quarters_and_near_elsewhere():
    turns = np.array([0, 0.25, 0.5, 0.75, 1, -0.25, -0.5, -1.0])
    sine, cosine = numerics.sin_cos(turns)
    assert sine.tolist() == [0, 1, 0, -1, 0, -1, 0, 0]
    assert cosine.tolist() == [1, 0, -1, 0, 1, 0, -1, 1]
    turns = np.linspace(-1.25, 1.25, 20_001)
    sine, cosine = numerics.sin_cos(turns)
    # The standard library rounds the angle in radians, by 4.4e-16 at 2.5 pi.
    np.testing.assert_allclose(sine, [math.sin(2 * math.pi * t) for t in turns], atol=1.5e-15)
    np.testing.assert_allclose(cosine, [math.cos(2 * math.pi * t) for t in turns], atol=1.5e-15)
    np.testing.assert_allclose(sine * sine + cosine * cosine, 1, atol=4e-16)


def test_bits_of_sine_and_cosine_are_frozen():
    sine, cosine = numerics.sin_cos(np.array([0.1, 0.123456789, -0.3, 0.49]))
    assert [value.hex() for value in sine.tolist()] == SINE_BITS
    assert [value.hex() for value in cosine.tolist()] == COSINE_BITS
