"""The newer ops and the recipe's own fields: what is refused, in which words, and what stands."""

from __future__ import annotations

import pytest

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OP_CLASSES, OPS_BY_NAME, AllOf, OneOf
from augd.plan.recipe.published_presets import EVALUATION, TRAINING
from augd.plan.recipe.recipe import (
    PRESETS,
    expand,
    output_size,
    parse_recipe,
    recipe_from_toml,
    recipe_to_toml,
)
from augd.plan.samplers.all_samplers import SAMPLERS

NAN, INF = float("nan"), float("inf")
CROP = {"op": "random_resized_crop"}
SHORT = {"op": "resize", "short": 256}


def refused(*ops: object, **fields: object) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"ops": list(ops), **fields})
    return str(caught.value)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"op": "random_crop"}, ".size: expected a value, got none. Add size."),
        ({"op": "random_crop", "size": 32, "pad": -1}, ".pad: expected 0 <= pad <= 4096, got -1."),
        ({"op": "random_crop", "size": 32, "pad": 9999}, ".pad: expected 0 <= pad <= 4096, got 99"),
        ({"op": "random_crop", "size": 32, "pad": 0.5}, ".pad: expected int, got 0.5."),
        (
            {"op": "random_crop", "size": 32, "min_area": 0},
            ".min_area: expected 0 < min_area <= 1, got 0.0. "
            "Give the least share of the image's area that a crop may keep.",
        ),
        ({"op": "random_crop", "size": 32, "min_area": NAN}, ".min_area: expected 0 < min_area"),
        (
            {"op": "random_crop", "size": 32, "min_area": 0.5, "pad": 4},
            ".pad: expected 0 with min_area, got 4.",
        ),
        ({"op": "random_crop", "size": 32, "p": 0.5}, ".p: expected 1, got 0.5. random_crop"),
        (
            {"op": "scale_jitter", "short": [480, 256]},
            ".short: expected low <= high, got [480, 256]. Give the smaller side first.",
        ),
        (
            {"op": "scale_jitter", "short": [200, 256]},
            ".crop: expected at most [200, 200], which the ops before it leave, got [224, 224].",
        ),
        ({"op": "scale_jitter", "short": [256, 10**6]}, ".short: expected a side of 1 to 16384"),
        ({"op": "scale_jitter", "crop": -3}, ".crop: expected a side of 1 to 16384 pixels, got -3"),
        ({"op": "rotate"}, ".factor: expected either factor or degrees, got neither."),
        ({"op": "rotate", "factor": 0.1, "degrees": 3}, ".factor: expected either factor or deg"),
        (
            {"op": "rotate", "factor": 36},
            ".factor: expected 0 <= factor <= 1, got 36.0. Give a share of a full turn.",
        ),
        ({"op": "rotate", "degrees": NAN}, ".degrees: expected 0 <= degrees <= 360, got nan."),
        ({"op": "zoom", "height": 1}, ".height: expected 0 <= height <= 0.99, got 1.0."),
        ({"op": "zoom", "height": 0.1, "width": -0.1}, ".width: expected 0 <= width <= 0.99, got"),
        ({"op": "shear", "x": INF}, ".x: expected 0 <= x <= 10, got inf."),
        ({"op": "shear", "x": 1, "y": 1}, ".x: expected x * y <= 0.9, got 1.0 * 1.0. At 1 the"),
        ({"op": "stretch", "y": -0.1}, ".y: expected 0 <= y <= 9, got -0.1."),
        ({"op": "translate", "x": 1.5}, ".x: expected 0 <= x <= 1, got 1.5."),
        ({"op": "lens", "k": [0.1, -0.1]}, ".k: expected -0.33 <= low <= high <= 1, got [0.1, -0"),
        ({"op": "lens", "k": [-0.5, 0.1]}, ".k: expected -0.33 <= low <= high <= 1, got [-0.5, 0"),
        ({"op": "lens", "k": [NAN, NAN]}, ".k: expected -0.33 <= low <= high <= 1, got [nan, nan]"),
        ({"op": "local_warp", "alpha": 1}, ".sigma: expected a value, got none. Add sigma."),
        ({"op": "local_warp", "alpha": -1, "sigma": 4}, ".alpha: expected 0 <= alpha <= 1024, got"),
        ({"op": "local_warp", "alpha": 1, "sigma": 0}, ".sigma: expected 0.5 <= sigma <= 256, got"),
        ({"op": "local_warp", "alpha": 1, "sigma": 1e9}, ".sigma: expected 0.5 <= sigma <= 256"),
        ({"op": "rgb_shift", "max": 256}, ".max: expected 0 <= max <= 255, got 256.0."),
        ({"op": "brightness", "v": 1.5}, ".v: expected 0 <= v <= 1, got 1.5. 0.4 draws factors"),
        ({"op": "contrast", "v": NAN}, ".v: expected 0 <= v <= 1, got nan."),
        ({"op": "saturation", "v": -0.1}, ".v: expected 0 <= v <= 1, got -0.1."),
        ({"op": "hue"}, ".h: expected a value, got none. Add h."),
        ({"op": "hue", "h": 0.6}, ".h: expected 0 <= h <= 0.5, got 0.6."),
        ({"op": "grayscale", "p": 2}, ".p: expected 0 <= p <= 1, got 2.0."),
        ({"op": "pca", "eigval": [NAN, 0.1, 0.1]}, ".eigval: expected three numbers >= 0"),
        ({"op": "pca", "alpha_std": INF}, ".alpha_std: expected 0 <= alpha_std <= 1000, got inf."),
        ({"op": "erase", "area": [0.5, 1.5]}, ".area: expected 0 < low <= high <= 1, got [0.5, 1"),
        ({"op": "erase", "ratio": [0, 1]}, ".ratio: expected 0.001 <= low <= high <= 1000, got"),
        ({"op": "erase", "count": 0}, ".count: expected a number from 1 to 8, or two of them, the"),
        ({"op": "erase", "count": [2, 9]}, ".count: expected a number from 1 to 8, or two of them"),
        (
            {"op": "erase", "fill": "black"},
            ".fill: expected one of 'mean', 'pixel', 'random', a list, got 'black'. Change the",
        ),
        ({"op": "erase", "fill": [0, 0, 300]}, ".fill: expected whole grey levels from 0 to 255, "),
        ({"op": "erase", "fill": [0, 1]}, ".fill: expected list of length 3, got [0, 1]. Change"),
        ({"op": "coarse_dropout", "count": 25}, ".count: expected a number from 1 to 24, or two"),
        ({"op": "coarse_dropout", "height": 0}, ".height: expected a number from 0.001 to 1, or"),
        ({"op": "coarse_dropout", "width": [0.3, 0.2]}, ".width: expected a number from 0.001 to"),
        ({"op": "coarse_dropout", "fill": [-1, 0, 0]}, ".fill: expected whole grey levels from 0"),
        ({"op": "cutout", "size": 0}, ".size: expected 1 <= size <= 16384, got 0. Give the square"),
        ({"op": "cutout", "fill": 128}, ".fill: expected "),
        ({"op": "five_crop", "p": 0.5}, ".p: expected 1, got 0.5. five_crop decides the size"),
        ({"op": "ten_crop", "size": 0}, ".size: expected a side of 1 to 16384 pixels, got 0."),
        ({"op": "multi_scale", "short": []}, ".short: expected at least one side, got []."),
        (
            {"op": "multi_scale", "short": [256, 128]},
            ".crop: expected at most [128, 128], which the ops before it leave, got [224, 224].",
        ),
        ({"op": "multi_scale", "flip": 1}, ".flip: expected bool, got 1."),
        ({"op": "posterize"}, ".bits: expected a value, got none. Add bits."),
        (
            {"op": "posterize", "bits": 0},
            ".bits: expected a number from 1 to 8, or two of them, the smaller one first, got 0. "
            "Pillow refuses 0, which would be black.",
        ),
        ({"op": "posterize", "bits": [0, 4]}, ".bits: expected a number from 1 to 8, or two of"),
        ({"op": "posterize", "bits": [5, 4]}, ".bits: expected a number from 1 to 8, or two of"),
        ({"op": "posterize", "bits": 4.5}, ".bits: expected int or list, got 4.5."),
        ({"op": "solarize", "threshold": 257}, ".threshold: expected a number from 0 to 256, or t"),
        ({"op": "solarize", "threshold": NAN}, ".threshold: expected a number from 0 to 256, or t"),
        ({"op": "solarize_add", "add": 300}, ".add: expected a number from -255 to 255, or two"),
        ({"op": "gamma", "gamma": 0}, ".gamma: expected a number from 0.01 to 100, or two of them"),
        ({"op": "sharpness", "factor": -1}, ".factor: expected a number from 0 to 64, or two of"),
        ({"op": "sharpness", "factor": [0, 65]}, ".factor: expected a number from 0 to 64, or two"),
        ({"op": "gaussian_blur", "sigma": 0}, ".sigma: expected a number from 0.01 to 80, or two"),
        ({"op": "gaussian_blur", "sigma": [2, 0.1]}, ".sigma: expected a number from 0.01 to 80"),
        (
            {"op": "gaussian_blur", "radius": 0},
            ".radius: expected 1 <= radius <= 256, got 0. Leave it out for 3 sigma.",
        ),
        ({"op": "gaussian_noise", "std": -1}, ".std: expected a number from 0 to 255, or two of "),
        ({"op": "gaussian_noise"}, ".std: expected a value, got none. Add std."),
        ({"op": "jpeg", "quality": 0}, ".quality: expected a number from 1 to 100, or two of "),
        ({"op": "jpeg", "quality": 70.5}, ".quality: expected int or list, got 70.5."),
        ({"op": "color_jitter", "brightness": -1}, ".brightness: expected a number from 0 to 10"),
        ({"op": "color_jitter", "contrast": [1, 11]}, ".contrast: expected a number from 0 to 10"),
        ({"op": "color_jitter", "saturation": NAN}, ".saturation: expected a number from 0 to 10"),
        ({"op": "color_jitter", "hue": -0.1}, ".hue: expected a number from 0 to 0.5, or two of "),
        ({"op": "color_jitter", "hue": [-0.6, 0]}, ".hue: expected a number from -0.5 to 0.5, or"),
        ({"op": "gamma", "gamma": [0.5, NAN]}, ".gamma: expected a number from 0.01 to 100, or "),
    ],
)
def test_a_bad_op_is_refused_with_path_expected_got_and_advice(op, message):
    text = refused({"op": "mirror"}, op)
    assert text.startswith("recipe.ops[1]" + message)
    assert text.endswith((".", "?"))


@pytest.mark.parametrize("name", sorted(set(OPS_BY_NAME) - {"mirror"}))
@pytest.mark.parametrize("p", [-0.1, 1.01, NAN, INF])
def test_every_op_takes_a_probability_and_nothing_else_for_it(name, p):
    needed = {
        "random_crop": {"size": 9},
        "resize": {"short": 9},
        "center_crop": {"size": 9},
        "rotate": {"factor": 0.1},
        "zoom": {"height": 0.1},
        "local_warp": {"alpha": 1, "sigma": 1},
        "hue": {"h": 0.1},
        "posterize": {"bits": 4},
        "solarize_add": {"add": 40},
        "gamma": {"gamma": 2},
        "sharpness": {"factor": 2},
        "gaussian_noise": {"std": 9},
        "jpeg": {"quality": 70},
        "one_of": {"ops": [{"op": "mirror"}]},
        "all_of": {"ops": [{"op": "mirror"}]},
    }
    text = refused({"op": name, **needed.get(name, {}), "p": p})
    assert text.startswith("recipe.ops[0].p: expected 0 <= p <= 1, got ")


@pytest.mark.parametrize(
    ("ops", "fields", "message"),
    [
        (
            [SHORT, {"op": "ten_crop"}, {"op": "mirror"}],
            {},
            "recipe.ops[1].op: expected ten_crop as the last op, got mirror after it. "
            "Put ten_crop at the end.",
        ),
        (
            [{"op": "multi_scale"}, {"op": "pca"}],
            {},
            "recipe.ops[0].op: expected multi_scale as the last op, got pca after it.",
        ),
        (
            [SHORT, {"op": "five_crop"}],
            {"views": 2},
            "recipe.views: expected 1 with five_crop, got 2. five_crop makes 5 views of its own: "
            "take one of both out.",
        ),
        ([CROP], {"views": 0}, "recipe.views: expected 1 to 256 views of a sample, got 0."),
        ([CROP], {"views": 257}, "recipe.views: expected 1 to 256 views of a sample, got 257."),
        ([CROP], {"views": 2.5}, "recipe.views: expected int, got 2.5."),
        (
            [{"op": "multi_scale", "short": [256] * 26}],
            {},
            "recipe.ops[0].short: expected 1 to 256 views of a sample, got 260. Ask for fewer.",
        ),
        (
            [{**CROP, "size": 8192}],
            {"views": 2},
            "recipe.views: expected at most 64 megapixels for all views of a sample, got 2 of "
            "8192x8192. Ask for fewer or smaller ones.",
        ),
        (
            [{"op": "ten_crop", "size": 4096}],
            {},
            "recipe.ops[0].op: expected at most 64 megapixels for all views of a sample, got 10 "
            "of 4096x4096.",
        ),
        (
            [SHORT, {"op": "ten_crop", "size": 257}],
            {},
            "recipe.ops[1].size: expected at most [256, 256], which the ops before it leave, got",
        ),
        (
            [SHORT, {"op": "multi_scale"}],
            {},
            "recipe.ops[1].op: expected no second resample, got multi_scale after the image was",
        ),
        (
            [SHORT, {"op": "scale_jitter"}],
            {},
            "recipe.ops[1].op: expected no second resample, got scale_jitter",
        ),
        (
            [SHORT, {"op": "random_crop", "size": 224, "min_area": 0.5}],
            {},
            "recipe.ops[1].op: expected no second resample, got random_crop",
        ),
        (
            [{"op": "random_crop", "size": 300}, SHORT],
            {},
            "recipe.ops[1].op: expected no second resample, got resize",
        ),
        (
            [SHORT, {"op": "random_crop", "size": 265, "pad": 4}],
            {},
            "recipe.ops[1].size: expected at most [264, 264], which the ops before it leave, got",
        ),
        (
            [{"op": "center_crop", "size": [1, 3000]}, {"op": "scale_jitter"}],
            {},
            "recipe.ops[1].short: expected a side of 1 to 16384 pixels, got 1440000.",
        ),
        (
            [{"op": "lens"}, CROP, {"op": "lens"}],
            {},
            "recipe.ops[2].op: expected one lens in a recipe, got a second after ops[0].",
        ),
        (
            [CROP, {"op": "erase", "area": [0.9, 0.95], "ratio": [3, 3.3]}],
            {},
            "recipe.ops[1].area: expected a rectangle that fits the crop of 224x224, got a least "
            "area of 0.9 with width over height in [3.0, 3.3], which is larger than the crop in "
            "one side. Make the area smaller or the ratio nearer to 1.",
        ),
        (
            [{**CROP, "size": [100, 400]}, {"op": "erase", "area": [0.5, 0.6], "ratio": [1, 1]}],
            {},
            "recipe.ops[1].area: expected a rectangle that fits the crop of 400x100, got",
        ),
        (
            [CROP, {"op": "erase"}],
            {"colour_on": "device"},
            'recipe.ops[1].op: expected no erase with colour_on="device", got erase.',
        ),
        (
            [CROP, *[{"op": "stretch", "x": 9}] * 4],
            {},
            "recipe.ops: expected ops that together shrink the image by at most 1000, got "
            "1e+04. Take some of zoom, shear and stretch out, or make them weaker.",
        ),
        ([CROP], {"fill": "mirror"}, "recipe.fill: expected one of 'reflect', 'constant', 'nea"),
        (
            [CROP],
            {"fill": "constant", "fill_value": 256},
            "recipe.fill_value: expected grey levels of 0..255, got 256.0. "
            "Give one number or [r, g, b].",
        ),
        (
            [CROP],
            {"fill": "constant", "fill_value": [1, 2, NAN]},
            "recipe.fill_value: expected grey levels of 0..255, got (1.0, 2.0, nan).",
        ),
        (
            [CROP],
            {"fill_value": 7},
            'recipe.fill_value: expected fill="constant" beside it, got fill="reflect".',
        ),
        ([CROP], {"fill_value": [1, 2]}, "recipe.fill_value: expected list of length 3, got [1, 2"),
        ([CROP], {"colour_on": "gpu"}, "recipe.colour_on: expected one of 'producer', 'device'"),
        ([CROP], {"shuffle_colour": 1}, "recipe.shuffle_colour: expected bool, got 1."),
        (
            [CROP],
            {"scaled_decode": True},
            "recipe.scaled_decode: expected one of 'off', 'auto', got True. Change the value.",
        ),
        (
            [CROP],
            {"scale_decode": "auto"},
            "recipe.scale_decode: expected one of the keys ops, filter, fill, fill_value, ",
        ),
    ],
)
def test_an_impossible_combination_is_refused_with_its_path(ops, fields, message):
    text = refused(*ops, **fields)
    assert text.startswith(message)
    assert text.endswith((".", "?"))


def test_an_erase_that_no_first_image_can_hold_is_refused_with_its_size():
    recipe = parse_recipe({"ops": [{"op": "erase", "area": [0.5, 0.6], "ratio": [1, 1]}]})
    assert output_size(recipe, (300, 300)) == (300, 300)
    with pytest.raises(RecipeError, match=r"^recipe\.ops\[0\]\.area: .* fits the crop of 400x100"):
        output_size(recipe, (400, 100))


def test_views_of_a_first_image_that_is_too_large_are_refused_with_its_size():
    recipe = parse_recipe({"ops": [{"op": "mirror"}], "views": 100})
    assert output_size(recipe, (800, 800)) == (800, 800)
    with pytest.raises(RecipeError, match=r"^recipe\.views: .*, got 100 of 1000x900\. Ask for"):
        output_size(recipe, (1000, 900))


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([{"op": "random_crop", "size": [30, 40], "pad": 4}], (30, 40)),
        ([{"op": "random_crop", "size": 64, "min_area": 0.5}], (64, 64)),
        ([SHORT, {"op": "random_crop", "size": 264, "pad": 4}], (264, 264)),
        ([{"op": "center_crop", "size": 90}, {"op": "random_crop", "size": 80}, SHORT], (256, 256)),
        ([{"op": "scale_jitter", "crop": [100, 200]}, {"op": "rotate", "factor": 1}], (100, 200)),
        ([SHORT, {"op": "five_crop", "size": [100, 120]}], (100, 120)),
        ([{"op": "multi_scale"}], (224, 224)),
        ([{"op": "rotate", "degrees": 10}], (375, 500)),
    ],
)
def test_output_size_is_height_and_width(ops, expected):
    assert output_size(parse_recipe({"ops": ops}), (500, 375)) == expected


@pytest.mark.parametrize(
    ("ops", "fields", "views"),
    [
        ([], {}, 1),
        ([CROP], {"views": 2}, 2),
        ([{"op": "five_crop"}], {}, 5),
        ([{"op": "ten_crop"}], {}, 10),
        ([{"op": "multi_scale"}], {}, 50),
        ([{"op": "multi_scale", "flip": False}], {}, 25),
    ],
)
def test_the_number_of_views_is_that_of_the_recipe_or_its_view_op(ops, fields, views):
    assert parse_recipe({"ops": ops, **fields}).num_views == views


def test_fields_at_their_defaults_are_left_out_so_that_old_contents_stay_equal():
    assert list(expand(parse_recipe("imagenet"))) == ["filter", "ops"]
    said = {"fill": "reflect", "fill_value": 0, "views": 1, "colour_on": "producer"}
    said |= {"exif": "ignore", "scaled_decode": "off", "shuffle_colour": False}
    assert expand(parse_recipe({"ops": [CROP], **said})) == expand(parse_recipe({"ops": [CROP]}))
    fields = {"fill": "constant", "fill_value": [1, 2, 3], "shuffle_colour": True, "views": 4}
    recipe = parse_recipe({"ops": [CROP], "colour_on": "device", **fields})
    assert {key: expand(recipe)[key] for key in fields} == {**fields, "fill_value": [1.0, 2.0, 3.0]}
    assert parse_recipe(expand(recipe)) == recipe
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe


def test_one_grey_level_and_three_equal_ones_are_the_same_recipe():
    one = parse_recipe({"ops": [CROP], "fill": "constant", "fill_value": 7})
    three = parse_recipe({"ops": [CROP], "fill": "constant", "fill_value": [7, 7, 7]})
    assert one == three
    assert one.fill_rgb == (7.0, 7.0, 7.0)
    assert expand(one)["fill_value"] == 7.0


def test_the_presets_are_those_of_the_definitions():
    classic = {name: PRESETS[name] for name in PRESETS if name not in {**TRAINING, **EVALUATION}}
    assert {name: [op["op"] for op in plain["ops"]] for name, plain in classic.items()} == {
        "imagenet": ["random_resized_crop", "mirror", "pca"],
        "alexnet": ["resize", "center_crop", "random_crop", "mirror", "pca"],
        "vgg": ["scale_jitter", "mirror", "rgb_shift"],
        "resnet": ["scale_jitter", "mirror", "pca"],
        "inception": ["random_resized_crop", "mirror", "brightness", "saturation", "contrast"],
        "cifar": ["random_crop", "mirror"],
        "keras-small": ["resize", "mirror", "rotate", "zoom"],
        "eval": ["resize", "center_crop"],
        "ten-crop": ["resize", "ten_crop"],
        "multi-scale": ["multi_scale"],
        "none": [],
    }
    assert parse_recipe("inception").shuffle_colour
    assert parse_recipe("vgg").ops[0].short == (256, 512)
    assert parse_recipe("resnet").ops[0].short == (256, 480)
    sizes = {name: output_size(parse_recipe(name), (9, 8)) for name in classic}
    assert sizes.pop("cifar") == (32, 32)
    assert sizes.pop("keras-small") == (180, 180)
    assert sizes.pop("none") == (8, 9)
    assert set(sizes.values()) == {(224, 224)}


def test_every_op_says_its_formula_or_law_and_its_source():
    for op_class in OP_CLASSES:
        assert op_class.__doc__ is not None
        assert "Source: " in op_class.__doc__, op_class
    assert {*SAMPLERS, OneOf, AllOf} == set(OP_CLASSES)


@pytest.mark.parametrize(
    "op",
    [
        {"op": "posterize", "bits": 4},
        {"op": "solarize"},
        {"op": "solarize_add", "add": 9},
        {"op": "invert"},
        {"op": "gamma", "gamma": 2},
        {"op": "equalize"},
        {"op": "autocontrast"},
        {"op": "sharpness", "factor": 2},
        {"op": "gaussian_blur"},
        {"op": "gaussian_noise", "std": 9},
        {"op": "jpeg", "quality": 70},
    ],
)
def test_colour_ops_that_are_no_matrix_are_refused_by_name_where_only_a_matrix_will_do(op):
    name = op["op"]
    assert refused(CROP, {"op": "pca"}, op, colour_on="device") == (
        f'recipe.ops[2].op: expected no {name} with colour_on="device", got {name}. The device '
        "applies one matrix per image: take one of both out."
    )
    assert refused(CROP, op, {"op": "pca"}, shuffle_colour=True) == (
        f"recipe.ops[1].op: expected no {name} with shuffle_colour, got {name}. It shuffles single "
        "ops that compose to one matrix: take it out, and put the ops into an all_of with shuffle."
    )


def test_the_defaults_of_erase_are_not_written_so_that_contents_stay_equal():
    plain = {"op": "erase", "area": [0.02, 0.33], "ratio": [0.3, 3.3], "p": 1.0}
    for op in ({}, {"count": 1}, {"count": [1, 1], "fill": "mean"}):
        recipe = parse_recipe({"ops": [CROP, {"op": "erase", **op}]})
        assert expand(recipe)["ops"][1] == plain
        assert parse_recipe(expand(recipe)) == recipe
    several = parse_recipe({"ops": [CROP, {"op": "erase", "count": [1, 3], "fill": [1, 2, 3]}]})
    assert expand(several)["ops"][1] == plain | {"count": [1, 3], "fill": [1, 2, 3]}
    assert parse_recipe(expand(several)) == several


def test_an_erase_of_several_boxes_fits_where_its_share_of_the_area_does():
    op = {"op": "erase", "area": [0.9, 0.95], "ratio": [3, 3.3]}
    assert "which is larger than the crop in one side" in refused(CROP, op)
    parse_recipe({"ops": [CROP, {**op, "count": 4}]})


def test_a_range_of_one_number_is_that_number():
    spellings = [
        {"op": "posterize", "bits": 4},
        {"op": "posterize", "bits": [4, 4]},
    ]
    one, other = (parse_recipe({"ops": [op]}) for op in spellings)
    assert one == other
    assert expand(one) == expand(other)
    assert expand(one)["ops"][0]["bits"] == 4


def test_a_range_of_factors_is_not_a_strength():
    """[1.5, 1.5] multiplies by 1.5; 1.5 draws from 0 to 2.5."""
    factors, strength = (
        parse_recipe({"ops": [{"op": "color_jitter", "brightness": value}]}).ops[0].factors[0]
        for value in ([1.5, 1.5], 1.5)
    )
    assert factors == (1.5, 1.5)
    assert strength == (0.0, 2.5)
