"""Recipes of view groups: what is refused and in which words, equal spellings, TOML in and out."""

from __future__ import annotations

from typing import Any

import pytest

from augd.cli.recipes import recipe_schema, summarise
from augd.errors import RecipeError
from augd.plan.content import content_of, differences
from augd.plan.recipe.phases import (
    StreamRecipe,
    expand_stream,
    parse_stream_recipe,
    plain_at,
    plain_recipe,
)
from augd.plan.recipe.recipe import expand, parse_recipe
from augd.plan.recipe.recipe_toml import stream_recipe_from_toml, stream_recipe_to_toml
from tests.support.scenes import GROUPS, GROUPS_IN_PHASES, PHASES

CROP = {"op": "random_resized_crop", "size": 64}
SMALL = {"op": "random_resized_crop", "size": 32}


def refused(*groups: Any, **beside: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_stream_recipe({"views": list(groups), **beside})
    return str(caught.value)


def group(*ops: Any, name: Any = "global", **more: Any) -> dict[str, Any]:
    return {"name": name, "ops": list(ops), **more}


def test_groups_of_one_name_are_joined_in_order():
    (phase,) = parse_stream_recipe(
        {"views": [group(CROP), group(SMALL, name="local", count=8), group(CROP, count=2)]}
    ).phases
    assert [(one.name, one.recipe.views, one.first_view, one.place) for one in phase.groups] == [
        ("global", 1, 0, 0),
        ("local", 8, 1, 0),
        ("global", 2, 9, 1),
    ]
    assert phase.sizes(None) == ((64, 64), (32, 32), (64, 64))
    assert phase.num_views == 11 and phase.is_grouped


def test_a_plain_recipe_is_one_group_without_a_name():
    recipe = parse_stream_recipe("imagenet")
    (one,) = recipe.phases[0].groups
    assert (one.name, one.recipe) == ("", parse_recipe("imagenet"))
    assert not recipe.phases[0].is_grouped
    assert expand_stream(recipe) == expand(parse_recipe("imagenet"))
    assert parse_stream_recipe({"views": 2, "ops": [CROP]}).phases[0].num_views == 2


def test_a_group_takes_the_settings_beside_the_list_unless_it_has_its_own():
    (phase,) = parse_stream_recipe(
        {
            "filter": "linear",
            "exif": "apply",
            "views": [
                group(CROP),
                group(CROP, filter="antialias", fill="constant", fill_value=[1, 2, 3]),
            ],
        }
    ).phases
    first, second = (one.recipe for one in phase.groups)
    assert (first.filter, first.fill, first.exif) == ("linear", "reflect", "apply")
    assert (second.filter, second.fill, second.exif) == ("antialias", "constant", "apply")
    assert second.fill_rgb == (1, 2, 3)


def test_two_spellings_are_one_recipe():
    beside = {"filter": "linear", "views": [group(CROP), group(SMALL, name="local")]}
    inside = {"views": [group(CROP, filter="linear"), group(SMALL, name="local", filter="linear")]}
    default = {
        "filter": "antialias",
        "views": [
            group(CROP, filter="linear", count=1),
            group(SMALL, name="local", filter="linear"),
        ],
    }
    first = expand_stream(parse_stream_recipe(beside))
    assert first == expand_stream(parse_stream_recipe(inside))
    assert first == expand_stream(parse_stream_recipe(default))


@pytest.mark.parametrize(
    "plain",
    [
        GROUPS,
        {"views": [group(CROP, fill="constant", fill_value=5), group(CROP, fill="reflect")]},
        {"views": [group(CROP, fill="wrap"), group(name="whole", count=2)]},
        {"views": 3, "ops": [CROP]},
        {"views": [group(CROP, {"op": "one_of", "ops": [{"op": "mirror"}, {"op": "invert"}]})]},
    ],
)
def test_expanded_and_as_toml_it_reads_back(plain: dict[str, Any]):
    recipe = parse_stream_recipe(plain)
    assert parse_stream_recipe(expand_stream(recipe)) == recipe
    assert stream_recipe_from_toml(stream_recipe_to_toml(recipe)) == recipe
    assert plain_recipe(plain) == expand_stream(recipe)


def test_a_group_with_another_fill_has_no_use_for_the_colour_beside_the_list():
    plain = {"fill": "constant", "fill_value": 5, "views": [group(CROP, fill="wrap"), group(CROP)]}
    recipe = parse_stream_recipe(plain)
    fills = [(group.recipe.fill, group.recipe.fill_value) for group in recipe.phases[0].groups]
    assert fills == [("wrap", 0), ("constant", 5)]
    assert parse_stream_recipe(expand_stream(recipe)) == recipe
    assert stream_recipe_from_toml(stream_recipe_to_toml(recipe)) == recipe
    with pytest.raises(RecipeError, match=r'views\[0\].fill_value: expected fill="constant"'):
        parse_stream_recipe({"views": [group(CROP, fill="wrap", fill_value=5)]})


def test_the_table_form_of_toml():
    text = """
        filter = "linear"
        [[views]]
        name = "global"
        count = 2
        ops = [{op = "random_resized_crop", size = 64}, {op = "mirror"}]
        [[views]]
        name = "local"
        [[views.ops]]
        op = "random_resized_crop"
        size = 32
    """
    (phase,) = stream_recipe_from_toml(text).phases
    assert [(one.name, one.recipe.views, len(one.recipe.ops)) for one in phase.groups] == [
        ("global", 2, 2),
        ("local", 1, 1),
    ]


def test_the_size_of_a_group_is_that_of_its_crops():
    crop, mirror = {"op": "random_resized_crop"}, {"op": "mirror"}
    short = [{"op": "resize", "short": 80}, {"op": "center_crop"}]
    sized = [group(crop, mirror, size=96), group(*short, name="wide", size=[40, 60])]
    recipe = parse_stream_recipe({"views": sized})
    (phase,) = recipe.phases
    assert phase.sizes(None) == ((96, 96), (40, 60))
    spelt = [
        group({**crop, "size": 96}, mirror),
        group(short[0], {**short[1], "size": [40, 60]}, name="wide"),
    ]
    assert recipe == parse_stream_recipe({"views": spelt})
    assert "size" not in expand_stream(recipe)["views"][0]


def test_own_ops_are_left_to_the_daemon():
    plain = {"views": [group(CROP, {"op": "my_op"})]}
    assert plain_recipe(plain) == plain
    with pytest.raises(RecipeError, match=r"recipe.views\[0\].ops\[1\].op: expected one of"):
        parse_stream_recipe(plain)


BIG = {"op": "resize", "size": 2000}
TEN = [{"op": "resize", "short": 256}, {"op": "ten_crop"}]


@pytest.mark.parametrize(
    ("groups", "path", "expected", "got"),
    [
        ([], "", "a whole number or a list such as", "an empty list"),
        ([3], "[0]", "a mapping such as", "3"),
        ([group(CROP, name="")], "[0].name", "1 to 64 letters", "''"),
        ([group(CROP, name="a.b")], "[0].name", "1 to 64 letters", "'a.b'"),
        ([group(CROP, name=None)], "[0].name", "1 to 64 letters", "None"),
        ([group(CROP, count=0)], "[0].count", "a whole number of views in 1..256", "0"),
        ([group(CROP, count=4096)], "[0].count", "a whole number of views in 1..256", "4096"),
        ([group(CROP, count=True)], "[0].count", "a whole number", "True"),
        ([group(CROP, count=200)] * 2, "", "at most 256 views of a sample", "400"),
        ([group(BIG, count=17)], "[0].count", "at most 64 megapixels", "17 of 2000x2000"),
        ([group(BIG, count=9)] * 2, "", "at most 64 megapixels", "72.0 of 18"),
        ([group(CROP), group(SMALL)], "[1].ops", "rows of 64x64 as those of views[0]", "32x32"),
        ([group(CROP), group()], "[1].ops", "rows of 64x64", "the size of the first image"),
        ([group(CROP), {"name": "x"}], "[1].ops", "a list of ops", "None"),
        ([group(*TEN)], "[0].ops[1].op", "an op that makes one row", "ten_crop, which makes 10"),
        ([group({"op": "resiz"})], "[0].ops[0].op", "one of", "'resiz'"),
        ([group({"op": "mirror", "p": 2})], "[0].ops[0].p", "", "2"),
        ([group(CROP, SMALL)], "[0].ops[1].op", "no second resample", "random_resized_crop"),
        ([group(CROP, size=32)], "[0].size", "64x64, which the ops of the group", "32x32"),
        ([group(CROP, size=0)], "[0].size", "a number of pixels or [height, width]", "0"),
        ([group(CROP, size=True)], "[0].size", "a number of pixels", "True"),
        ([group(CROP, size=[3])], "[0].size", "a number of pixels", "[3]"),
        ([group({"op": "mirror"}, size=9)], "[0].size", "the size of the first image", "9x9"),
        ([group(CROP, exif="apply")], "[0].exif", "exif beside the list of views", "it in a group"),
        (
            [group(CROP, filtr="linear")],
            "[0].filtr",
            "one of the keys name, count, size",
            "'filtr'",
        ),
        ([group(CROP, filter="cubic")], "[0].filter", "one of", "'cubic'"),
    ],
)
def test_what_is_refused_is_named(groups: list[Any], path: str, expected: str, got: str):
    text = refused(*groups)
    assert text.startswith(f"recipe.views{path}: expected {expected}"), text
    assert f", got {got}" in text and text.endswith((".", "?"))


@pytest.mark.parametrize("views", ["3", {"a": 1}, 2.5, True, None])
def test_views_are_a_number_or_a_list(views: Any):
    with pytest.raises(RecipeError, match=r"recipe.views: expected a whole number or a list such"):
        parse_stream_recipe({"views": views, "ops": [CROP]})


def test_what_is_refused_beside_the_list():
    assert refused(group(CROP), ops=[CROP]).startswith("recipe.ops: expected no ops beside a list")
    assert refused(group(CROP), filter="cubic").startswith("recipe.filter: expected one of")
    assert refused(group(CROP), filtr=1).startswith("recipe.filtr: expected one of the keys filter")
    text = refused(group(CROP), mix={"mixup": 0.8})
    assert text.startswith("recipe.mix: expected no mix beside a list of views"), text
    erase = group(CROP, {"op": "erase"})
    text = refused(erase, colour_on="device")
    assert text.startswith('recipe.views[0].ops[1].op: expected no erase with colour_on="device"')


def test_a_size_that_the_first_image_decides():
    (phase,) = parse_stream_recipe({"views": [group(), group(name="small")]}).phases
    assert phase.sizes((30, 20)) == ((20, 30), (20, 30))
    with pytest.raises(RecipeError, match="expected an op that decides the size"):
        phase.sizes(None)
    (phase,) = parse_stream_recipe({"views": [group(count=2)] * 2}).phases
    with pytest.raises(RecipeError, match=r"recipe.views: expected at most 64 megapixels"):
        phase.sizes((5000, 4000))


def schedule(*phases: Any, **beside: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_stream_recipe({"phases": list(phases), **beside})
    return str(caught.value)


def phase(from_epoch: Any, *ops: Any, **more: Any) -> dict[str, Any]:
    return {"from_epoch": from_epoch, "ops": list(ops), **more}


def test_the_phase_of_an_epoch():
    recipe = parse_stream_recipe({"phases": [phase(0, CROP), phase(3, SMALL), phase(7, CROP)]})
    assert [recipe.number_at(epoch) for epoch in (0, 2, 3, 6, 7, 2**31 - 1)] == [0, 0, 1, 1, 2, 2]
    assert recipe.at(5).sizes(None) == ((32, 32),)
    expanded = expand_stream(recipe)
    assert plain_at(expanded, 6) == expanded["phases"][1]
    assert plain_at({"ops": []}, 6) == {"ops": []}


def test_one_phase_is_its_recipe():
    recipe = parse_stream_recipe({"phases": [phase(0, CROP)]})
    assert recipe == parse_stream_recipe({"ops": [CROP]})
    assert expand_stream(recipe) == expand(parse_recipe({"ops": [CROP]}))


@pytest.mark.parametrize("plain", [PHASES, GROUPS_IN_PHASES])
def test_phases_are_read_back(plain: dict[str, Any]):
    recipe = parse_stream_recipe(plain)
    assert parse_stream_recipe(expand_stream(recipe)) == recipe
    assert stream_recipe_from_toml(stream_recipe_to_toml(recipe)) == recipe
    assert plain_recipe(plain) == expand_stream(recipe)


@pytest.mark.parametrize(
    ("phases", "path", "expected", "got"),
    [
        ([], "", "a list such as", "[]"),
        ([5], "[0]", "a mapping such as", "5"),
        ([phase(1, CROP)], "[0].from_epoch", "0 for the first phase", "1"),
        ([{"ops": [CROP]}], "[0].from_epoch", "0 for the first phase", "None"),
        ([phase(False, CROP)], "[0].from_epoch", "0 for the first phase", "False"),
        ([phase(0, CROP), phase(0, CROP)], "[1].from_epoch", "a whole number above 0", "0"),
        (
            [phase(0, CROP), phase(9, CROP), phase(3, CROP)],
            "[2].from_epoch",
            "a whole number above 9",
            "3",
        ),
        ([phase(0, CROP), phase(2.5, CROP)], "[1].from_epoch", "a whole number above 0", "2.5"),
        ([phase(0, CROP), phase(2**31, CROP)], "[1].from_epoch", "a whole number above", "2147"),
        ([phase(0, CROP), phase(1, {"op": "x"})], "[1].ops[0].op", "one of", "'x'"),
        ([phase(0, CROP), phase(1, filtr=3)], "[1].filtr", "one of the keys", "'filtr'"),
        ([phase(0, CROP), phase(1, CROP, exif="apply")], "[1].exif", "'ignore'", "'apply'"),
        (
            [phase(0, CROP), {"from_epoch": 1, "views": [group(CROP)]}],
            "[1].views",
            "no list of views",
            "the views 'global'",
        ),
        (
            [{"from_epoch": 0, "views": [group(CROP)]}, {"from_epoch": 1, "views": [group(7)]}],
            "[1].views[0].ops[0]",
            "a mapping such as",
            "7",
        ),
        ([phase(n, CROP) for n in range(33)], "", "at most 32 phases", "33"),
        ([phase(n, CROP, *[{"op": "pca"}] * 30) for n in range(9)], "", "recipes that take", "8"),
    ],
)
def test_a_schedule_that_is_refused(phases: list[Any], path: str, expected: str, got: str):
    text = schedule(*phases)
    assert text.startswith(f"recipe.phases{path}: expected {expected}"), text
    assert f", got {got}" in text and text.endswith((".", "?")), text


def test_nothing_stands_beside_phases():
    text = schedule(phase(0, CROP), filter="linear")
    assert text.startswith("recipe.filter: expected one of the keys phases, got 'filter'")
    assert summarise(PHASES).startswith("from 0: random_resized_crop size=16, then mirror, then")
    assert "Schedule" in recipe_schema()["$defs"]


def test_content_names_the_phase_that_differs():
    one = content(parse_stream_recipe(PHASES))
    assert one.fields["recipe.phases[1].from_epoch"] == "1"
    later = {"phases": [*PHASES["phases"][:2], {**PHASES["phases"][2], "from_epoch": 4}]}
    assert differences(one, content(parse_stream_recipe(later))) == [
        "recipe.phases[2].from_epoch: 2 against 4"
    ]


def content(recipe: StreamRecipe) -> Any:
    return content_of(
        dataset_digest="d",
        recipe=expand_stream(recipe),
        seed=0,
        shuffle=True,
        policy={},
        environment={},
    )


def test_content_names_the_group_that_differs():
    one = content(parse_stream_recipe(GROUPS))
    assert one.fields["recipe.views[2].name"] == '"local"'
    changed = {**GROUPS, "views": [*GROUPS["views"][:2], {**GROUPS["views"][2], "count": 4}]}
    assert differences(one, content(parse_stream_recipe(changed))) == [
        "recipe.views[2].count: 3 against 4"
    ]


def test_a_line_about_it():
    line = summarise(GROUPS)
    assert line.startswith("1 global: random_resized_crop size=24, then mirror; 1 global: ")
    assert "3 local: " in line and line.endswith("filter=linear")


def test_the_schema_has_views():
    definitions = recipe_schema()["$defs"]
    assert definitions["ViewGroup"]["required"] == ["name", "ops"]
    assert "exif" not in definitions["ViewGroup"]["properties"]
    assert "exif" in definitions["RecipeOfViews"]["properties"]
