"""What `augd explain` says an op drew, against the plan of all ops together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from augd.diagnostics.drawn_params import DrawnStep, Draws, _as_json
from augd.diagnostics.drawn_text import as_plain, describe_crop, describe_rest, say_step
from augd.diagnostics.policy_text import say_policy
from augd.diagnostics.sample_renderer import Drawn, SampleRenderer, View
from augd.pixels.headers.read_header import Header
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.recipe import parse_recipe
from tests.support.scenes import caught_noise, make_folder

CROP = {"op": "random_resized_crop", "size": [40, 60], "scale": [0.3, 0.9]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("draws") / "set", num_classes=0, per_class=4)


@contextmanager
def opened(folder: Path, recipe: dict[str, Any]) -> Iterator[SampleRenderer]:
    with caught_noise(), SampleRenderer(str(folder), parse_recipe(recipe), 5) as renderer:
        yield renderer


def drawn_of(folder: Path, recipe: dict[str, Any], epoch: int = 0) -> tuple[Drawn, Header]:
    with opened(folder, recipe) as renderer:
        header = renderer.read(1).header
        return renderer.drawn(1, epoch, header), header


def steps_of(view: View) -> dict[str, DrawnStep]:
    return {step.op: step for step in view.steps}


def test_affine_ops_make_up_the_matrix(folder: Path) -> None:
    """The matrix, composed by hand from what each op is said to have drawn."""
    ops = [
        {"op": "rotate", "degrees": 40},
        {"op": "zoom", "height": 0.3, "width": 0.2},
        {"op": "shear", "x": 0.3, "y": 0.2},
        {"op": "stretch", "x": 0.4, "y": 0.1},
        {"op": "translate", "x": 0.2, "y": 0.1},
    ]
    (view,) = drawn_of(folder, {"ops": [CROP, *ops]})[0].views
    said = {name: step.drawn or {} for name, step in steps_of(view).items()}
    angle = math.radians(said["rotate"]["degrees"])
    forward = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = np.diag(1 / np.array([said["zoom"]["width"], said["zoom"]["height"]])) @ forward
    forward = np.array([[1.0, said["shear"]["x"]], [said["shear"]["y"], 1.0]]) @ forward
    forward = np.diag([said["stretch"]["x"], said["stretch"]["y"]]) @ forward
    moved = np.array([said["translate"]["x"] * 60, said["translate"]["y"] * 40])
    x, y, width, height = view.frame
    assert view.is_bent
    centre = np.array([30.0, 20.0])
    for point in ([0.0, 0.0], [60.0, 7.0], [12.5, 39.0]):
        before = centre + np.linalg.solve(forward, np.array(point) - moved - centre)
        in_photo = np.array([x, y]) + before * [width / 60, height / 40]
        np.testing.assert_allclose(view.matrix @ [*point, 1.0], in_photo, atol=1e-9)
    corners = [view.matrix @ [*corner, 1.0] for corner in ([0, 0], [60, 0], [60, 40], [0, 40])]
    np.testing.assert_allclose(view.seen, corners, atol=1e-9)


def test_colour_ops_make_up_the_colour_matrix_in_the_drawn_order(folder: Path) -> None:
    ops = [
        {"op": "pca", "alpha_std": 1.0},
        {"op": "brightness", "v": 0.4},
        {"op": "saturation", "v": 0.9},
        {"op": "hue", "h": 0.4},
        {"op": "rgb_shift", "max": 30},
    ]
    orders = set()
    for epoch in range(6):
        drawn, _ = drawn_of(folder, {"ops": [CROP, *ops], "shuffle_colour": True}, epoch)
        (view,) = drawn.views
        orders.add(tuple(view.colour_order))
        whole = np.eye(4)
        for name in view.colour_order:
            whole = colour_of(steps_of(view)[name]) @ whole
        assert view.colour is not None
        np.testing.assert_allclose(whole[:3], view.colour, atol=1e-6)
    assert len(orders) > 3, "the order is drawn"


def test_the_colour_ops_of_a_shuffled_group_are_said_in_the_order_of_the_row(folder: Path) -> None:
    """The program of the row has the same kinds in the same order, beside ops that are no steps."""
    ops = [
        {"op": "posterize", "bits": 4},
        {"op": "rotate", "degrees": 10},
        {"op": "equalize"},
        {"op": "cutout"},
        {"op": "invert"},
        {"op": "jpeg", "quality": 50},
        {"op": "autocontrast", "p": 0.5},
        {"op": "solarize"},
    ]
    group = {"op": "all_of", "shuffle": True, "ops": ops}
    orders = set()
    for epoch in range(6):
        recipe = {"ops": [{"op": "mirror"}, CROP, {"op": "invert"}, group], "views": 2}
        drawn, _ = drawn_of(folder, recipe, epoch)
        for view in drawn.views:
            assert view.program is not None
            made = [step["step"] for step in view.program][1:]
            said = [step.op for step in view.steps if step.group and step.drawn is not None]
            assert [name for name in said if name not in ("rotate", "cutout")] == made
            assert [view.steps[place].op for place in (0, 1, 3, 5)] == [
                "mirror", "invert", "rotate", "cutout",
            ]  # fmt: skip
            orders.add(tuple(made))
    assert len(orders) > 6, "the order is drawn"


def colour_of(step: DrawnStep) -> np.ndarray:
    said, matrix = step.drawn or {}, np.eye(4)
    grey = np.tile([0.299, 0.587, 0.114], (3, 1))
    if step.op == "brightness":
        matrix[:3, :3] *= said["factor"]
    elif step.op == "saturation":
        matrix[:3, :3] = said["factor"] * np.eye(3) + (1 - said["factor"]) * grey
    elif step.op == "hue":
        cos, sin = (f(math.radians(said["degrees"])) for f in (math.cos, math.sin))
        yiq = np.array([grey[0], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
        matrix[:3, :3] = np.linalg.inv(yiq) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]] @ yiq
    else:
        matrix[:3, 3] = said["shift"]
    return matrix


def test_the_jitter_is_read_in_its_order_and_makes_up_the_colour_matrix(folder: Path) -> None:
    jitter = {"op": "color_jitter", "brightness": 0.4, "saturation": 1.5, "hue": 0.3, "p": 0.7}
    orders, num_drawn = set(), 0
    for group in ([jitter], [{"op": "all_of", "ops": [{"op": "mirror"}, jitter]}]):
        for epoch in range(12):
            (view,) = drawn_of(folder, {"ops": [CROP, {"op": "mirror"}, *group]}, epoch)[0].views
            said = steps_of(view)["color_jitter"]
            whole = np.eye(4)
            for name, number in (said.drawn or {}).items():
                numbers = {"degrees" if name == "hue" else "factor": number}
                whole = colour_of(DrawnStep(name, numbers)) @ whole
            assert view.colour is not None
            np.testing.assert_allclose(whole[:3], view.colour, atol=1e-6)
            num_drawn += said.drawn is not None
            orders.add(tuple(said.drawn or {}))
            if said.drawn is not None:
                assert say_step(said) in describe_rest(view)
    assert len(orders) > 4
    assert 8 < num_drawn < 24


def test_alphas_give_the_shift_of_pca() -> None:
    recipe = parse_recipe({"ops": [CROP, {"op": "pca", "alpha_std": 0.1, "mode": "stdev"}]})
    ((step,),) = Draws(recipe, 1, (40, 60)).of(3, 7)
    assert step.drawn is not None
    pca: Any = recipe.ops[1]
    made = np.array(pca.eigvec) @ (step.drawn["alpha"] * np.sqrt(pca.eigval)) * 255
    np.testing.assert_allclose(made, step.drawn["shift"], atol=1e-9)
    assert max(map(abs, step.drawn["alpha"])) < 0.6


def test_what_is_not_applied_is_said_so(folder: Path) -> None:
    names = ("mirror", "lens", "erase", "grayscale", "contrast")
    off = [{"op": name, "p": 0.0} for name in names]
    drawn, header = drawn_of(folder, {"ops": [CROP, *off]})
    (view,) = drawn.views
    assert [step.as_plain() for step in view.steps] == [
        {"op": name, "applied": False} for name in names
    ]
    assert describe_rest(view) == "nothing else"
    assert not view.is_bent
    x, y, width, height = view.crop
    assert describe_crop(view) == f"crop {width}x{height} at {x},{y}"
    assert header.width >= x + width


def test_words_name_every_op(folder: Path) -> None:
    ops = [
        {"op": "mirror", "p": 1.0},
        {"op": "rotate", "degrees": 10},
        {"op": "zoom", "height": 0.2},
        {"op": "lens", "k": [0.1, 0.2]},
        {"op": "local_warp", "alpha": 20, "sigma": 4},
        {"op": "contrast"},
        {"op": "erase", "area": [0.2, 0.3]},
    ]
    (view,) = drawn_of(folder, {"ops": [CROP, *ops]})[0].views
    words = describe_rest(view)
    for word in ("mirrored", "turned", "zoomed", "lens k +0.1", "warped", "contrast", "erased"):
        assert word in words, words
    assert len(view.seen) > 4, "the lens bends the outline"


def test_every_op_has_words_and_names_what_it_drew(folder: Path) -> None:
    parameters = {
        "rotate": {"degrees": 10},
        "zoom": {"height": 0.2},
        "shear": {"x": 0.1},
        "stretch": {"x": 0.1},
        "translate": {"x": 0.1},
        "local_warp": {"alpha": 9, "sigma": 3},
        "hue": {"h": 0.1},
        "posterize": {"bits": [1, 7]},
        "solarize_add": {"add": [1, 110]},
        "gamma": {"gamma": [0.5, 2]},
        "rand_augment": {"layers": 4},
        "auto_augment": {"policy": "svhn"},
        "sharpness": {"factor": [0, 2]},
        "gaussian_noise": {"std": [1, 30]},
        "jpeg": {"quality": [5, 90]},
        "color_jitter": {"brightness": 0.4, "hue": 0.1},
    }
    without_numbers = {"mirror", "vertical_flip", "grayscale", "invert", "equalize", "autocontrast"}
    for name, cls in OPS_BY_NAME.items():
        if cls.is_sizing or name in ("one_of", "all_of"):
            continue
        op = {"op": name, "p": 1.0, **parameters.get(name, {})}
        # A policy may draw nothing, since the identity is among its ops.
        epoch = 1 if name == "trivial_augment" else 0
        (view,) = drawn_of(folder, {"ops": [CROP, op]}, epoch)[0].views
        (step,) = view.steps
        assert step.op == name
        assert step.drawn is not None, name
        assert bool(step.drawn) == (name not in without_numbers), name
        assert say_step(step) != name, "it has no words"


def acted_on(row: np.ndarray, op: str, said: dict[str, Any]) -> np.ndarray:
    """Apply what is said of an op to a row, with Pillow."""
    image = Image.fromarray(row)
    match op:
        case "posterize":
            image = ImageOps.posterize(image, said["bits"])
        case "solarize":
            table = [x if x < said["threshold"] else 255 - x for x in range(256)]
            image = image.point(table * 3)
        case "solarize_add":
            add, threshold = said["add"], said["threshold"]
            table = [min(max(x + add, 0), 255) if x < threshold else x for x in range(256)]
            image = image.point(table * 3)
        case "gamma":
            table = [int(255.999 * (x / 255) ** said["gamma"]) for x in range(256)]
            image = image.point(table * 3)
        case "invert" | "equalize" | "autocontrast":
            image = getattr(ImageOps, op)(image)
        case "sharpness":
            image = ImageEnhance.Sharpness(image).enhance(said["factor"])
    return np.asarray(image)


@pytest.mark.parametrize(
    "op",
    [
        {"op": "posterize", "bits": [1, 8]},
        {"op": "solarize", "threshold": [0, 256]},
        {"op": "solarize_add", "add": [-50, 110], "threshold": [0, 256]},
        {"op": "gamma", "gamma": [0.3, 3]},
        {"op": "invert"},
        {"op": "equalize"},
        {"op": "autocontrast"},
        {"op": "sharpness", "factor": [0, 2]},
    ],
    ids=lambda op: op["op"],
)
def test_what_is_said_of_a_step_is_what_the_pixels_show(folder: Path, op: dict[str, Any]) -> None:
    recipes: list[dict[str, Any]] = [
        {"ops": [CROP, {**op, "p": p}, {"op": "mirror"}]} for p in (0.0, 0.7)
    ]
    num_drawn = 0
    for epoch in range(8):
        with opened(folder, recipes[0]) as plain, opened(folder, recipes[1]) as room:
            rows = []
            for one in (plain, room):
                encoded = one.read(1)
                drawn = one.drawn(1, epoch, encoded.header)
                rows.append(one.rows(encoded, drawn)[0])
        said = steps_of(drawn.views[0])[op["op"]].drawn
        expected = rows[0] if said is None else acted_on(rows[0], op["op"], dict(said))
        assert np.abs(rows[1].astype(int) - expected).max() <= (op["op"] == "sharpness")
        num_drawn += said is not None
        steps = as_plain(drawn)["program"]
        assert len(steps) == (said is not None)
    assert 1 < num_drawn < 8


def test_ops_of_groups_are_named_with_their_group(folder: Path) -> None:
    """Exactly one op of `one_of` is applied, and it is the one that the plan has."""
    ops = [{"op": "solarize", "threshold": [0, 255]}, {"op": "rotate", "degrees": 9}]
    recipe = {"ops": [CROP, {"op": "one_of", "ops": [*ops, {"op": "hue", "h": 0.1}]}]}
    seen = set()
    for epoch in range(12):
        drawn, _ = drawn_of(folder, recipe, epoch)
        (view,) = drawn.views
        assert [step.group for step in view.steps] == ["one_of"] * 3
        (applied,) = [step for step in view.steps if step.drawn is not None]
        assert view.is_bent == (applied.op == "rotate")
        assert say_step(applied) in describe_rest(view)
        seen.add(applied.op)
        plain = as_plain(drawn)["ops"]
        assert [op["op"] for op in plain if op["applied"]] == [applied.op]
        assert plain[0]["group"] == "one_of"
    assert seen == {"solarize", "rotate", "hue"}


def test_a_group_and_its_own_ops_are_read_by_their_place(folder: Path) -> None:
    """What is said of each op of a group is what all ops together draw."""
    ops = [{"op": "contrast"}, {"op": "solarize", "threshold": [0, 256]}, {"op": "mirror"}]
    group = {"op": "all_of", "ops": ops, "p": 0.7, "shuffle": True}
    mirrored = 0
    for epoch in range(12):
        (view,) = drawn_of(folder, {"ops": [CROP, {"op": "invert", "p": 0.0}, group]}, epoch)[
            0
        ].views
        said = steps_of(view)
        assert (said["mirror"].drawn is not None) == view.mirror
        assert (said["contrast"].drawn is None) == (said["solarize"].drawn is None)
        mirrored += view.mirror
    assert 0 < mirrored < 12


def test_views_of_one_photo(folder: Path) -> None:
    mirror = {"op": "mirror"}
    drawn, _ = drawn_of(folder, {"ops": [CROP, mirror], "views": 3})
    plain = as_plain(drawn)
    assert [view["view"] for view in plain["views"]] == [0, 1, 2]
    assert len({tuple(view["crop"]) for view in plain["views"]}) == 3
    for view in drawn.views:
        assert (steps_of(view)["mirror"].drawn is not None) == view.mirror
    first, _ = drawn_of(folder, {"ops": [CROP, mirror]})
    assert first.views[0].crop == drawn.views[0].crop, "view 0 is the row without views"


def test_a_window_in_the_padding_lies_outside_the_photo(folder: Path) -> None:
    recipe = {"fill": "constant", "ops": [{"op": "random_crop", "size": 30, "pad": 12}]}
    outside = 0
    for epoch in range(12):
        (view,) = drawn_of(folder, recipe, epoch)[0].views
        x, y, width, height = view.frame
        assert (width, height) == (30.0, 30.0)
        assert view.seen[0] == (x, y)
        outside += x < 0 or y < 0
    assert outside


def test_what_an_own_op_drew_is_written_as_json_or_in_words():
    assert _as_json((1, 2.5)) == (1, 2.5)
    assert _as_json(np.float64(0.5)) == 0.5
    assert _as_json(np.eye(2)) == [[1.0, 0.0], [0.0, 1.0]]
    field = _as_json(np.zeros((40, 40)))
    assert field.startswith("array(") and "\n" not in field and len(field) < 60
    assert _as_json(float("nan")) == "nan"
    assert _as_json({1}) == "{1}"


def test_several_boxes_are_named_and_colours_that_were_drawn(folder: Path) -> None:
    op = {"op": "erase", "count": 2, "fill": "random", "area": [0.1, 0.1], "ratio": [1, 1]}
    drawn, _ = drawn_of(folder, {"ops": [CROP, op]})
    (view,) = drawn.views
    step = steps_of(view)["erase"].drawn
    assert step is not None
    first, second = step["boxes"]
    assert first["colour"] != second["colour"]
    said = [
        f"{box['width']}x{box['height']} at {box['x']},{box['y']} in "
        + "/".join(map(str, box["colour"]))
        for box in (first, second)
    ]
    assert describe_rest(view) == f"erased {said[0]} and {said[1]}"


@pytest.mark.parametrize(
    ("threshold", "said"),
    [(128.0, "solarized above 127"), (39.4, "solarized above 39"), (0.0, "inverted")],
)
def test_solarize_is_said_as_in_policies(threshold: float, said: str) -> None:
    """The threshold itself is inverted: x stays below it alone."""
    step = DrawnStep("solarize", {"threshold": threshold})
    assert say_step(step) == said
    assert say_policy({"layers": [{"op": "solarize", "threshold": threshold}]}) == said
