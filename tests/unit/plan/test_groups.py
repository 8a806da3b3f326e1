"""Groups of ops: what is refused, in which words, and that their ops act as they do alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from augd.cli.recipes import summarise
from augd.errors import RecipeError
from augd.plan.content import content_of, differences
from augd.plan.ops.all_ops import AllOf, OneOf
from augd.plan.ops.plugin import Plugin
from augd.plan.planner.planner import Planner
from augd.plan.program import StepKind
from augd.plan.recipe.op_catalogue import Catalogue
from augd.plan.recipe.op_schema import catalogue_of, survey_of
from augd.plan.recipe.phases import plain_recipe
from augd.plan.recipe.recipe import (
    expand,
    parse_recipe,
    recipe_from_toml,
    recipe_to_toml,
)
from augd.plan.samplers.groups import first_draw
from tests.support.plans import plan_of, planner_of

SIZE = {"op": "resize", "size": 8}
NAN, INF = float("nan"), float("inf")
SOLARIZE = {"op": "solarize", "threshold": [0, 256]}
INVERT = {"op": "invert"}


def one_of(*ops: Any, **fields: Any) -> dict[str, Any]:
    return {"op": "one_of", "ops": list(ops), **fields}


def all_of(*ops: Any, **fields: Any) -> dict[str, Any]:
    return {"op": "all_of", "ops": list(ops), **fields}


def refused(*ops: Any, **fields: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe({"ops": list(ops), **fields})
    return str(caught.value)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (one_of({"op": "mirr"}), ".ops[0].op: expected one of auto"),
        (one_of(INVERT, "invert"), ".ops[1]: expected a mapping such as"),
        (
            one_of(INVERT, all_of(INVERT)),
            ".ops[1].op: expected no group in one_of, got all_of. Groups are one deep: put its ops "
            "in its place, or the group beside this one.",
        ),
        (all_of(all_of()), ".ops[0].op: expected no group in all_of, got all_of. Groups are one"),
        (one_of(), ".ops: expected 1 to 32 ops in one_of, got 0. Give the ops that it is made of."),
        (all_of(*[INVERT] * 33), ".ops: expected 1 to 32 ops in all_of, got 33."),
        ({"op": "one_of"}, '.ops: expected a list of ops, got None. Give {"op": "one_of", "ops"'),
        ({"op": "all_of", "ops": {"op": "invert"}}, ".ops: expected a list of ops, got {'op': 'in"),
        (
            one_of(INVERT, {"op": "random_crop", "size": 4}),
            ".ops[1].op: expected an op that leaves the size of the row in one_of, got random_crop."
            " Put it beside the group, not into it.",
        ),
        (all_of({"op": "ten_crop"}), ".ops[0].op: expected an op that leaves the size of the row"),
        (
            one_of(INVERT, SOLARIZE, weights=[1]),
            ".weights: expected 2 numbers, one for each op, got 1. Give one for each op, or leave "
            "weights out.",
        ),
        (
            one_of(INVERT, SOLARIZE, weights=[1, -1]),
            ".weights: expected numbers >= 0 with a sum > 0, got [1.0, -1.0]. Give how often each "
            "op is drawn, compared to the others.",
        ),
        (one_of(INVERT, SOLARIZE, weights=[0, 0]), ".weights: expected numbers >= 0 with a sum > "),
        (one_of(INVERT, SOLARIZE, weights=[1, NAN]), ".weights: expected numbers >= 0 with a sum"),
        (one_of(INVERT, SOLARIZE, weights=[1, INF]), ".weights: expected numbers >= 0 with a sum"),
        (one_of(INVERT, weights=["often"]), ".weights[0]: expected float, got 'often'."),
        (one_of(INVERT, weight=[1]), ".weight: expected one of the keys op, ops, weights, p, got"),
        (all_of(INVERT, p=1.5), ".p: expected 0 <= p <= 1, got 1.5."),
        (all_of(INVERT, shuffle=1), ".shuffle: expected bool, got 1."),
        (one_of({"op": "posterize", "bits": 0}), ".ops[0].bits: expected a number from 1 to 8, or"),
        (one_of({"op": "posterize", "bits": "few"}), ".ops[0].bits: expected int or list, got 'f"),
        (one_of({"op": "posterize"}), ".ops[0].bits: expected a value, got none. Add bits."),
        (one_of({"op": "invert", "q": 1}), ".ops[0].q: expected one of the keys op, p, got 'q'."),
    ],
)
def test_a_bad_group_is_refused_with_path_expected_got_and_advice(
    group: dict[str, Any], message: str
) -> None:
    text = refused(SIZE, group)
    if "mirr" in str(group):
        assert text.startswith("recipe.ops[1].ops[0].op: expected one of ")
        assert "one_of" not in text, "a group cannot stand there"
    else:
        assert text.startswith("recipe.ops[1]" + message)
    assert text.endswith((".", "?"))


def test_an_op_that_may_stand_once_is_counted_in_groups_too() -> None:
    warp = {"op": "lens"}
    assert refused(SIZE, one_of(INVERT, warp), warp) == (
        "recipe.ops[2].op: expected one lens in a recipe, got a second after ops[1].ops[1]. Take "
        "one of them out."
    )
    assert refused(SIZE, one_of(warp, warp)).startswith(
        "recipe.ops[1].ops[1].op: expected one lens in a recipe, got a second after ops[1].ops[0]."
    )


def test_what_the_device_cannot_do_is_named_in_groups_too() -> None:
    assert refused(SIZE, one_of({"op": "hue", "h": 0.1}, INVERT), colour_on="device").startswith(
        'recipe.ops[1].ops[1].op: expected no invert with colour_on="device", got invert.'
    )
    assert refused(SIZE, all_of({"op": "erase"}), colour_on="device").startswith(
        'recipe.ops[1].ops[0].op: expected no erase with colour_on="device", got erase.'
    )
    parse_recipe({"ops": [SIZE, one_of({"op": "hue", "h": 0.1})], "colour_on": "device"})


def test_the_shuffle_of_all_colours_takes_no_colours_of_groups() -> None:
    group = all_of({"op": "brightness"}, {"op": "contrast"})
    assert refused(SIZE, {"op": "pca"}, group, shuffle_colour=True) == (
        "recipe.ops[2].op: expected no all_of with shuffle_colour, got all_of. It shuffles single "
        "ops that compose to one matrix: take it out, and put the ops into an all_of with shuffle."
    )
    parse_recipe({"ops": [SIZE, all_of({"op": "mirror"})], "shuffle_colour": True})


def test_what_groups_shrink_counts() -> None:
    strong = {"op": "zoom", "height": 0.9, "width": 0.9}
    most = parse_recipe({"ops": [SIZE, one_of(strong, {"op": "mirror"})]}).ops[1].reduction
    alone = parse_recipe({"ops": [SIZE, strong]}).ops[1].reduction
    assert most == alone > 1
    assert parse_recipe({"ops": [SIZE, all_of(strong, strong)]}).ops[1].reduction == alone**2


def test_groups_are_written_and_read_back_equal() -> None:
    recipe = parse_recipe(
        {
            "ops": [
                SIZE,
                one_of({"op": "posterize", "bits": [2, 4]}, SOLARIZE, weights=[1, 2]),
                all_of({"op": "rotate", "degrees": 9}, INVERT, p=0.5, shuffle=True),
            ]
        }
    )
    assert isinstance(recipe.ops[1], OneOf) and isinstance(recipe.ops[2], AllOf)
    plain = expand(recipe)
    assert parse_recipe(plain) == recipe
    assert plain["ops"][2]["ops"] == [
        {"op": "rotate", "degrees": 9.0, "p": 1.0},
        {"op": "invert", "p": 1.0},
    ]
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe
    assert "weights" not in expand(parse_recipe({"ops": [SIZE, one_of(INVERT)]}))["ops"][1]
    said = summarise({"ops": [SIZE, one_of(INVERT, {"op": "hue", "h": 0.1}, weights=[1, 2])]})
    assert said == "resize size=8, then one_of (invert, hue h=0.1) weights=[1,2]"


def test_the_ops_of_a_group_may_be_tables_of_their_own() -> None:
    tables = """
        [[ops]]
        op = "one_of"
        [[ops.ops]]
        op = "invert"
        [[ops.ops]]
        op = "hue"
        h = 0.1
    """
    group = one_of(INVERT, {"op": "hue", "h": 0.1})
    assert recipe_from_toml(tables) == parse_recipe({"ops": [group]})


def test_a_difference_in_a_group_names_the_group() -> None:
    def content(bits: int) -> Any:
        recipe = expand(parse_recipe({"ops": [SIZE, one_of({"op": "posterize", "bits": bits})]}))
        return content_of(
            dataset_digest="d", recipe=recipe, seed=0, shuffle=True, policy={}, environment={}
        )

    assert content(4).digest != content(5).digest
    assert differences(content(4), content(5)) == [
        "recipe.ops[1].ops[0].bits (one_of): 4 against 5"
    ]


GEOMETRY = [
    {"op": "mirror"},
    {"op": "rotate", "degrees": 30},
    {"op": "zoom", "height": 0.2},
    {"op": "shear", "x": 0.2},
    {"op": "stretch", "x": 0.2},
    {"op": "translate", "x": 0.2},
    {"op": "lens"},
    {"op": "local_warp", "alpha": 8, "sigma": 4},
    {"op": "erase"},
    {"op": "erase", "count": [1, 3], "fill": "pixel"},
    {"op": "vertical_flip", "p": 1.0},
    {"op": "erase", "fill": "random", "count": 2},
    {"op": "coarse_dropout"},
    {"op": "cutout"},
]
COLOURS = [
    {"op": "pca"},
    {"op": "rgb_shift"},
    {"op": "brightness"},
    {"op": "contrast"},
    {"op": "saturation"},
    {"op": "hue", "h": 0.1},
    {"op": "color_jitter", "brightness": 0.4, "hue": 0.1},
    {"op": "grayscale"},
]
STEPS = [
    {"op": "posterize", "bits": [1, 7]},
    SOLARIZE,
    {"op": "solarize_add", "add": [1, 110]},
    INVERT,
    {"op": "gamma", "gamma": [0.5, 2]},
    {"op": "equalize"},
    {"op": "autocontrast"},
    {"op": "sharpness", "factor": [0, 0.9]},
    {"op": "gaussian_blur"},
    {"op": "gaussian_noise", "std": [1, 9]},
    {"op": "jpeg", "quality": [9, 90]},
]


def is_changed(plan: Any) -> np.ndarray:
    """Return the rows for which something was drawn."""
    num = len(plan.crop)
    changed = np.array(plan.mirror)
    if plan.bent is not None:
        changed |= plan.bent
    if plan.colour is not None:
        changed |= (plan.colour != np.eye(3, 4)).any(axis=(1, 2))
    if plan.program is not None:
        changed |= plan.program.kinds.reshape(num, -1)[:, 0] != StepKind.NONE
    if plan.flip is not None:
        changed |= plan.flip
    if plan.erase is not None:
        changed |= (plan.erase[:, :, 2] > 0).any(axis=1)
    return changed


@pytest.mark.parametrize("op", [*GEOMETRY, *COLOURS, *STEPS], ids=lambda op: op["op"])
def test_every_op_acts_on_the_rows_that_are_chosen_for_it_and_on_no_others(
    op: dict[str, Any],
) -> None:
    """The weights decide alone: what is drawn for a row is what an equal group draws for it."""
    size = {"op": "resize", "size": 64}
    still = {"op": "mirror", "p": 0.0}
    op = op if op["op"] != "mirror" else {**op, "p": 1.0}
    num = 400
    always = plan_of([size, one_of(op, still, weights=[1, 0])], num=num)
    never = plan_of([size, one_of(op, still, weights=[0, 1])], num=num)
    half = plan_of([size, one_of(op, still)], num=num)
    assert is_changed(always).mean() > 0.95
    assert not is_changed(never).any()
    acted = is_changed(half)
    assert 0.3 < acted.mean() < 0.65
    np.testing.assert_array_equal(half.mirror[acted], always.mirror[acted])
    for name in ("colour", "matrix", "erase", "pivot", "warp_on", "lens"):
        got, all_rows, no_rows = (getattr(plan, name) for plan in (half, always, never))
        if got is not None:
            assert got[acted].tobytes() == all_rows[acted].tobytes(), name
            assert got[~acted].tobytes() == no_rows[~acted].tobytes(), name
    if half.program is not None and always.program is not None:
        assert half.program.values[acted].tobytes() == always.program.values[acted].tobytes()
        assert not half.program.values[~acted].any()


def test_ops_of_a_group_draw_from_counters_of_their_own() -> None:
    """Op j of the group at place p draws block 64 (j + 1) and on of that place."""
    from augd.plan.random.philox import Purpose, mix, philox_words, stream_counter

    program = plan_of([SIZE, all_of(INVERT, SOLARIZE)], num=9, epoch=2, seed=1).program
    assert program is not None
    key = mix(1, Purpose.PARAMS)
    stream = stream_counter(1, 0, first_draw(1))
    words = philox_words(key, np.arange(9, dtype=np.uint64), 2, stream)
    np.testing.assert_allclose(program.values[:, 1, 0], words[2] / 2**32 * 256, atol=1e-6)


def test_an_all_of_without_a_coin_or_order_is_its_ops() -> None:
    """Not the same numbers, as the places differ, but the same shape of plan."""
    plan = plan_of([SIZE, all_of({"op": "invert"}, {"op": "solarize", "threshold": 9})], num=3)
    assert plan.program is not None
    assert plan.program.kinds[:, :2].tolist() == [[StepKind.INVERT, StepKind.SOLARIZE]] * 3


def test_a_groups_matrices_alone_are_planned_as_one_matrix() -> None:
    plan = plan_of([SIZE, all_of(*COLOURS, p=0.5, shuffle=True)], num=5)
    assert plan.program is None and plan.colour is not None and plan.pivot is not None


def test_a_groups_rows_do_not_depend_on_the_rows_beside_them() -> None:
    group = all_of(one := {"op": "hue", "h": 0.1}, SOLARIZE, one, INVERT, p=0.8, shuffle=True)
    planner = planner_of([SIZE, group, one_of(*COLOURS), one_of(*STEPS)], views=2)
    sides = np.full(30, 9, np.int32)
    whole = planner.plan(np.arange(30), np.zeros(30, np.int64), sides, sides).program
    for number in range(30):
        ids = np.arange(number, number + 1)
        part = planner.plan(ids, np.zeros(1, np.int64), sides[:1], sides[:1]).program
        assert whole is not None and part is not None
        for name in ("kinds", "values", "matrices", "tables"):
            expected = getattr(whole, name)[2 * number : 2 * number + 2]
            assert getattr(part, name).tobytes() == expected.tobytes()


class Slide(Plugin):
    far: float = 3.0

    def sample(self, rng: Any, info: Any) -> Any:
        return rng.uniform(1.0, self.far)

    def matrix(self, params: Any, info: Any) -> Any:
        return np.array([[1, 0, params], [0, 1, 0], [0, 0, 1]])


class Stamp(Plugin):
    def sample(self, rng: Any, info: Any) -> Any:
        return [rng.uniform() for _ in range(600)][-1]

    def pixels(self, row: Any, params: Any) -> None:
        row[0, 0] = 7


def test_own_ops_work_in_groups() -> None:
    catalogue = Catalogue([("own", Slide), ("own", Stamp)], {"own": "0123"})
    plain = {"ops": [SIZE, one_of({"op": "slide"}, {"op": "stamp"}, INVERT)]}
    recipe = parse_recipe(plain, catalogue)
    assert isinstance(recipe.ops[1], OneOf)
    assert catalogue.environment_of(recipe, {"plugin.own": "0123"}) == {"plugin.own": "0123"}
    beside = parse_recipe({"ops": [SIZE, one_of(INVERT)]}, catalogue)
    assert catalogue.environment_of(beside, {"plugin.own": "0123"}) == {}
    with pytest.raises(RecipeError, match=r"ops\[1\]\.ops\[0\]\.far: expected float, got 'x'"):
        parse_recipe({"ops": [SIZE, one_of({"op": "slide", "far": "x"})]}, catalogue)

    drawn: dict[tuple[int, int], Any] = {}
    planner = Planner(recipe, 1, (8, 8), lambda *told: drawn.update({told[:2]: told[2]}))
    sides = np.full(60, 8, np.int32)
    plan = planner.plan(np.arange(60), np.zeros(60, np.int64), sides, sides)
    assert plan.bent is not None and plan.edits is not None and plan.program is not None
    slid, stamped = plan.bent, np.array([bool(edits) for edits in plan.edits])
    inverted = plan.program.kinds[:, 0] == StepKind.INVERT
    np.testing.assert_array_equal(slid.astype(int) + stamped + inverted, 1)
    assert min(slid.sum(), stamped.sum(), inverted.sum()) > 8
    assert {row for address, row in drawn if address == 1 | 1 << 8} == set(np.flatnonzero(slid))
    assert {row for address, row in drawn if address == 1 | 2 << 8} == set(np.flatnonzero(stamped))
    assert len(set(drawn.values())) == len(drawn), "each row and op draws its own"


def test_a_daemon_knows_the_own_ops_of_a_group_without_their_code() -> None:
    catalogue = Catalogue([("own", Slide)], {"own": "0123"})
    elsewhere = catalogue_of(survey_of(catalogue))
    plain = {"ops": [SIZE, one_of({"op": "slide", "far": 9.0}, INVERT)]}
    assert plain_recipe(plain) == plain, "only the daemon knows whether there is a slide"
    assert expand(parse_recipe(plain, elsewhere)) == expand(parse_recipe(plain, catalogue))
    with pytest.raises(RecipeError, match=r"ops\[1\].ops\[0\].op: expected one of .*got 'slide'"):
        parse_recipe(plain)
