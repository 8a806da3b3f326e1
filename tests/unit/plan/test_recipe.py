"""Recipes: what is refused and in which words, the defaults, the sizes, TOML in and out."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME, CenterCrop, Mirror, Pca, RandomResizedCrop, Resize
from augd.plan.recipe.recipe import (
    PRESETS,
    Recipe,
    expand,
    output_size,
    parse_recipe,
    read_toml,
    recipe_from_toml,
    recipe_to_toml,
)
from tests.support.examples import examples

CROP = {"op": "random_resized_crop"}
SHORT = {"op": "resize", "short": 256}


def refused(*ops: object, **fields: object) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"ops": list(ops), **fields})
    return str(caught.value)


def test_imagenet_is_the_preset_of_the_definitions():
    assert parse_recipe("imagenet").ops == (
        RandomResizedCrop(size=(224, 224), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)),
        Mirror(p=0.5),
        Pca(alpha_std=0.1, mode="eigval"),
    )
    assert parse_recipe("imagenet").filter == "antialias"


def test_eval_and_none_are_the_presets_of_the_definitions():
    assert parse_recipe("eval").ops == (Resize(short=256), CenterCrop(size=224))
    assert parse_recipe("none").ops == ()


def test_expand_writes_every_default_out():
    assert expand(parse_recipe("imagenet")) == {
        "filter": "antialias",
        "ops": [
            {
                "op": "random_resized_crop",
                "size": [224, 224],
                "scale": [0.08, 1.0],
                "ratio": [0.75, 1.3333333333333333],
                "p": 1.0,
            },
            {"op": "mirror", "p": 0.5},
            {
                "op": "pca",
                "alpha_std": 0.1,
                "mode": "eigval",
                "eigval": [0.2175, 0.0188, 0.0045],
                "eigvec": [
                    [-0.5675, 0.7192, 0.4009],
                    [-0.5808, -0.0045, -0.814],
                    [-0.5836, -0.6948, 0.4203],
                ],
                "p": 1.0,
            },
        ],
    }


@pytest.mark.parametrize("name", sorted(name for name in PRESETS if "ops" in PRESETS[name]))
def test_expanded_data_and_toml_read_back_equal(name):
    recipe = parse_recipe(name)
    assert parse_recipe(expand(recipe)) == recipe
    assert parse_recipe(json.loads(json.dumps(expand(recipe)))) == recipe
    text = recipe_to_toml(recipe)
    assert recipe_from_toml(text) == recipe
    settings = set(Recipe.__struct_fields__) - {
        "mix"
    }  # a table, which is left out where it is none
    assert set(read_toml(text)) - {"mix"} == settings, "every setting, to be changed"


def test_toml_as_written_by_hand_equals_plain_data():
    text = """
    filter = "linear"
    [[ops]]
    op = "random_resized_crop"
    size = [192, 224]   # height, width
    [[ops]]
    op = "pca"
    alpha_std = 1e-3
    """
    plain = {
        "ops": [{**CROP, "size": (192, 224)}, {"op": "pca", "alpha_std": 1e-3}],
        "filter": "linear",
    }
    recipe = recipe_from_toml(text)
    assert recipe == parse_recipe(plain)
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe


def test_one_number_and_a_pair_are_the_same_recipe():
    one = parse_recipe({"ops": [{**CROP, "size": 224}]})
    assert one == parse_recipe({"ops": [{**CROP, "size": [224, 224]}]})
    assert expand(one) == expand(parse_recipe({"ops": [CROP]}))


def test_any_mapping_will_do():
    plain = types.MappingProxyType({"ops": (types.MappingProxyType(CROP),)})
    assert parse_recipe(plain) == parse_recipe({"ops": [CROP]})


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([{**CROP, "size": [192, 224]}], (192, 224)),
        ([SHORT, {"op": "center_crop", "size": [200, 250]}], (200, 250)),
        ([{"op": "resize", "size": [180, 190]}, {"op": "mirror"}], (180, 190)),
        ([{"op": "center_crop", "size": 300}], (300, 300)),
        ([{"op": "center_crop", "size": [300, 400]}, {"op": "resize", "short": 200}], (200, 266)),
        ([{**CROP, "size": 256}, {"op": "center_crop", "size": 224}], (224, 224)),
        ([{"op": "center_crop", "size": 300}, CROP], (224, 224)),
        ([], (375, 500)),
        ([{"op": "mirror"}, {"op": "pca"}], (375, 500)),
    ],
)
def test_output_size_is_height_and_width(ops, expected):
    assert output_size(parse_recipe({"ops": ops}), (500, 375)) == expected


def test_output_size_without_op_and_image_is_an_error():
    with pytest.raises(RecipeError, match=r"recipe\.ops: expected an op that decides the size"):
        output_size(parse_recipe("none"), None)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            {**CROP, "scale": [0.5, 0.1]},
            ".scale: expected 0 < low <= high <= 1, got [0.5, 0.1]. "
            "Give shares of the image's area, the smaller one first.",
        ),
        ({**CROP, "scale": [0, 1]}, ".scale: expected 0 < low <= high <= 1, got [0.0, 1.0]."),
        ({**CROP, "scale": [0.5, 1.1]}, ".scale: expected 0 < low <= high <= 1, got [0.5, 1.1]."),
        ({**CROP, "scale": [float("nan"), 1]}, ".scale: expected 0 < low <= high <= 1, got [nan"),
        ({**CROP, "scale": [0.5]}, ".scale: expected list of length 2, got [0.5]."),
        ({**CROP, "scale": "all"}, ".scale: expected list, got 'all'."),
        ({**CROP, "scale": [0.5, "1"]}, ".scale[1]: expected float, got '1'."),
        (
            {**CROP, "ratio": [1, float("inf")]},
            ".ratio: expected 0.001 <= low <= high <= 1000, got",
        ),
        ({**CROP, "size": 0}, ".size: expected a side of 1 to 16384 pixels, got 0."),
        ({**CROP, "size": 16385}, ".size: expected a side of 1 to 16384 pixels, got 16385."),
        ({**CROP, "size": 224.5}, ".size: expected int or list, got 224.5."),
        ({**CROP, "size": True}, ".size: expected int or list, got True."),
        (
            {**CROP, "p": 0.5},
            ".p: expected 1, got 0.5. random_resized_crop decides the size of the row, and every "
            "row of a batch has the same size: leave p out.",
        ),
        ({**SHORT, "p": 0}, ".p: expected 1, got 0.0. resize decides the size of the row"),
        ({"op": "center_crop", "size": 9, "p": 0.9}, ".p: expected 1, got 0.9. center_crop"),
        ({"op": "center_crop"}, ".size: expected a value, got none. Add size."),
        ({"op": "resize"}, ".short: expected one of short, size and longest, got none."),
        (
            {**SHORT, "size": 9},
            ".short: expected one of short, size and longest, got short and size.",
        ),
        ({"op": "resize", "short": -1}, ".short: expected a side of 1 to 16384 pixels, got -1."),
        ({"op": "mirror", "p": 1.5}, ".p: expected 0 <= p <= 1, got 1.5. Give a probability."),
        ({"op": "mirror", "p": float("nan")}, ".p: expected 0 <= p <= 1, got nan."),
        ({"op": "pca", "mode": "std"}, ".mode: expected one of 'eigval', 'stdev', got 'std'."),
        ({"op": "pca", "alpha_std": -1}, ".alpha_std: expected 0 <= alpha_std <= 1000, got -1.0."),
        ({"op": "pca", "eigval": [1, 2]}, ".eigval: expected list of length 3, got [1, 2]."),
        (
            {"op": "pca", "eigval": [14143, 1222, 292]},
            ".eigval: expected three numbers >= 0 with a sum <= 0.75, "
            "got [14143.0, 1222.0, 292.0]. Give eigenvalues of the covariance of RGB in [0, 1]; "
            "divide those of RGB in 0..255 by 255**2.",
        ),
        ({"op": "pca", "eigval": [0.1, 0.1, -0.1]}, ".eigval: expected three numbers >= 0"),
        (
            {"op": "pca", "eigvec": [[1, 0, 0], [0, 2, 0], [0, 0, 1]]},
            ".eigvec: expected rows R, G, B whose columns are vectors of length 1, "
            "got column 1 of length 2. Divide each column by its length.",
        ),
        (
            {"op": "pca", "eigvec": [[1, 0], [0, 1], [0, 0]]},
            ".eigvec[0]: expected list of length 3, got [1, 0].",
        ),
        (
            {"op": "mirr"},
            f".op: expected one of {', '.join(sorted(OPS_BY_NAME))}, got 'mirr'. "
            "Did you mean mirror?",
        ),
        (
            {},
            f".op: expected one of {', '.join(sorted(OPS_BY_NAME))}, got None",
        ),
        ({"op": ["mirror"]}, ".op: expected one of all_of, "),
        (
            {**CROP, "scales": [0.1, 1]},
            ".scales: expected one of the keys op, size, scale, ratio, p, got 'scales'. "
            "Did you mean scale?",
        ),
        ({"op": "mirror", "seed": 1}, ".seed: expected one of the keys op, p, got 'seed'. Take"),
        ("mirror", ': expected a mapping such as {"op": "mirror", "p": 0.5}, got \'mirror\'.'),
    ],
)
def test_a_bad_op_is_refused_with_path_expected_got_and_advice(op, message):
    # Behind a good op, so that the path must name the right one.
    text = refused({"op": "mirror"}, op)
    assert text.startswith("recipe.ops[1]" + message)
    assert text.endswith((".", "?"))


def test_a_second_resample_is_refused_and_says_why():
    assert refused(SHORT, {"op": "mirror"}, CROP) == (
        "recipe.ops[2].op: expected no second resample, got random_resized_crop after the image "
        "was resized. Each image is resampled once, because twice blurs twice: keep one of "
        "random_resized_crop and resize, and put center_crop after it."
    )
    assert "got resize after the image was resized" in refused(
        SHORT, {"op": "center_crop", "size": 224}, {"op": "resize", "size": 112}
    )


def test_a_size_that_follows_the_image_is_refused():
    assert refused(SHORT, {"op": "mirror"}) == (
        "recipe.ops: expected one size for all rows, got a long side that follows each image. "
        'Add {"op": "center_crop", "size": ...} after the resize, or give the resize a size.'
    )


def test_a_center_crop_larger_than_what_is_left_is_refused():
    assert refused(SHORT, {"op": "center_crop", "size": [256, 257]}) == (
        "recipe.ops[1].size: expected at most [256, 256], which the ops before it leave, "
        "got [256, 257]. Make the crop smaller or the resize larger."
    )


def test_a_resize_that_makes_an_enormous_row_is_refused():
    thin = {"op": "center_crop", "size": [1, 3000]}
    assert refused(thin, {"op": "resize", "short": 200}).startswith(
        "recipe.ops[1].short: expected a side of 1 to 16384 pixels, got 600000."
    )


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "imagnet",
            f"recipe: expected one of {', '.join(sorted(PRESETS))}, got 'imagnet'. Did you mean "
            "imagenet?",
        ),
        (["mirror"], "recipe: expected a preset's name or a mapping, got list. Give for example"),
        ({}, "recipe.ops: expected a list of ops, got None. Give "),
        ({"ops": "mirror"}, "recipe.ops: expected a list of ops, got 'mirror'."),
        ({"ops": [], "filtr": "linear"}, "recipe.filtr: expected one of the keys ops, filter, "),
        (
            {"ops": [], "filter": "cubic"},
            "recipe.filter: expected one of 'antialias', 'linear', 'bicubic', 'random', g",
        ),
        (
            {"ops": [], "filter": 1},
            "recipe.filter: expected one of 'antialias', 'linear', 'bicubic', 'random', got 1.",
        ),
        ({"ops": [{"op": "mirror"}] * 65}, "recipe.ops: expected at most 64 ops, got 65."),
    ],
)
def test_a_bad_recipe_is_refused(recipe, message):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(recipe)
    assert str(caught.value).startswith(message)


def test_a_hostile_value_makes_a_short_message():
    assert len(refused({"op": "mirror", "p": "x" * 100_000})) < 200
    assert len(refused({"op": "x" * 100_000})) < 200 + len(", ".join(OPS_BY_NAME))
    assert len(refused({"op": "mirror", "y" * 100_000: 1})) < 250
    assert len(refused({"op": "mirror", "p": 10**4000})) < 250


def test_broken_toml_is_a_recipe_error():
    with pytest.raises(
        RecipeError, match=r"^recipe: expected TOML, got text that does not parse: "
    ):
        recipe_from_toml("[[ops]\nop = 1")
    with pytest.raises(
        RecipeError, match=r"^recipe\.ops\[0\]\.p: expected 0 <= p <= 1, got 2\.0\."
    ):
        recipe_from_toml('[[ops]]\nop = "mirror"\np = 2')


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
NUMBERS = st.integers(0, 300) | st.floats(0, 1)
VALUES = SCALARS | NUMBERS | st.lists(NUMBERS, max_size=3) | st.lists(SCALARS, max_size=3)
PARAMETERS = (
    *("size", "short", "scale", "ratio", "p", "mode", "eigval", "eigvec", "alpha_std", "crop"),
    *("pad", "min_area", "factor", "degrees", "height", "width", "x", "y", "k", "alpha", "sigma"),
    *("max", "v", "h", "area", "flip", "bits", "threshold", "add", "sigma", "std", "quality"),
)
OPS = st.dictionaries(st.sampled_from(PARAMETERS), VALUES, max_size=3)
FIELDS = st.dictionaries(
    st.sampled_from(
        (
            *("filter", "fill", "fill_value", "colour_on", "shuffle_colour", "views", "exif"),
            "scaled_decode",
        )
    ),
    VALUES | st.sampled_from(("linear", "constant", "wrap", "device", "apply", "auto")),
    max_size=3,
)
NAMED = st.builds(lambda name, op: {"op": name, **op}, st.sampled_from(sorted(OPS_BY_NAME)), OPS)
GROUPS = st.builds(
    lambda name, ops, others: {**others, "op": name, "ops": ops},
    st.sampled_from(("one_of", "all_of")),
    st.lists(NAMED | OPS | SCALARS, max_size=3) | VALUES,
    st.dictionaries(st.sampled_from(("weights", "p", "shuffle")), VALUES, max_size=2),
)


@examples(100)
@given(ops=st.lists(NAMED | OPS | SCALARS | GROUPS, max_size=3), fields=FIELDS)
@example(ops=[{"op": "one_of", "ops": [{"op": ["mirror"]}]}], fields={})
@example(ops=[{"op": "all_of", "ops": [{"op": {}}]}], fields={})
@example(ops=[{"op": "one_of", "ops": [{"op": "invert"}], "weights": [10**400]}], fields={})
@example(ops=[{"op": "mirror", 3: 4}], fields={})
@example(ops=[{"op": "pca", "eigvec": [[[]]] * 3}], fields={})
@example(ops=[], fields={"fill": "constant", "fill_value": [1, 2, 3]})
def test_whatever_a_client_sends_is_a_recipe_or_a_recipe_error(ops, fields):
    try:
        recipe = parse_recipe({"ops": ops, **fields})
    except RecipeError as error:
        assert str(error).startswith("recipe")
        assert ": expected " in str(error)
        assert ", got " in str(error)
    else:
        assert recipe_from_toml(recipe_to_toml(recipe)) == recipe


def test_recipes_and_content_import_no_numpy():
    code = (
        "import sys, augd.plan.recipe.recipe, augd.plan.content; sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
