"""The policies' structs: defaults by style, checks, and numbers beside torchvision's own."""

from __future__ import annotations

import numpy as np
import pytest

from augd.errors import RecipeError
from augd.plan.geometry.frame import Frame
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.auto_augment_lists import AUTO_POLICIES
from augd.plan.ops.policy_tables import PolicyOp
from augd.plan.program import StepKind
from augd.plan.recipe.recipe import expand, parse_recipe
from augd.plan.samplers.policy_layer import DrawnLayer, RuleTable, apply_layer
from tests.support.plans import WHOLE, move, plan_of

CROP = {"op": "random_resized_crop", "size": 224}


def op_of(**fields):
    return parse_recipe({"ops": [{"op": "rand_augment", **fields}]}).ops[0]


@pytest.mark.parametrize(
    ("style", "level", "p", "increasing", "level_max", "std"),
    [
        ("torchvision", 9.0, 1.0, None, None, None),
        ("timm", 10.0, 0.5, False, 10.0, 0.0),
        ("tf", 10.0, 1.0, None, None, None),
    ],
)
def test_defaults_are_those_of_the_style(style, level, p, increasing, level_max, std):
    op = op_of(style=style)
    assert (op.layers, op.level, op.p, op.increasing) == (2, level, p, increasing)
    assert (op.level_max, op.std) == (level_max, std)
    assert parse_recipe(expand(parse_recipe({"ops": [{"op": "rand_augment", "style": style}]})))


def test_none_of_timms_fields_says_what_it_is_without_them():
    assert op_of(increasing=False, std=0) == op_of()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"style": "keras"}, "style: expected one of 'torchvision', 'timm', 'tf', got 'keras'"),
        ({"layers": 0}, "layers: expected 1 <= layers <= 16, got 0"),
        ({"style": "timm", "choice": "weights", "layers": 16}, "1 <= layers <= 15, got 16"),
        ({"level": 31}, "level: expected 0 <= level <= 30, got 31.0"),
        ({"level": 2.5}, 'level: expected a whole number with style="torchvision", got 2.5'),
        ({"style": "tf", "level": 101}, "level: expected 0 <= level <= 100"),
        ({"std": 0.5}, 'std: expected none with style="torchvision", got 0.5'),
        ({"style": "tf", "increasing": True}, 'increasing: expected none with style="tf"'),
        ({"choice": "3a"}, 'choice: expected "all" with style="torchvision", got "3a"'),
        ({"style": "timm", "std": -1}, "std: expected std >= 0, got -1.0"),
        ({"style": "timm", "level_max": 0}, "level_max: expected 1 <= level_max <= 100"),
        ({"p": 1.5}, "p: expected 0 <= p <= 1, got 1.5"),
        ({"spec": "rand-m9", "level": 8}, "level: expected none beside spec, got 8.0"),
        ({"spec": "rand-m9", "style": "tf"}, 'style: expected none beside spec, got "tf"'),
        ({"spec": "rand-m9-p7"}, "p: expected 0 <= p <= 1, got 7.0"),
    ],
)
def test_rand_augment_says_what_is_wrong(fields, said):
    with pytest.raises(RecipeError) as raised:
        op_of(**fields)
    assert f"recipe.ops[0].{said}" in str(raised.value) or said in str(raised.value)
    assert str(raised.value).startswith("recipe.ops[0].")


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ({"op": "trivial_augment", "bins": 1}, "bins: expected 2 <= bins <= 1000, got 1"),
        ({"op": "auto_augment", "policy": "v0"}, "policy: expected one of 'imagenet', 'cifar10'"),
        ({"op": "three_augment", "p": 2}, "p: expected 0 <= p <= 1, got 2.0"),
    ],
)
def test_the_other_policies_say_what_is_wrong(op, said):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [op]})
    assert f"recipe.ops[0].{said}" in str(raised.value)


@pytest.mark.parametrize("name", ["rand_augment", "trivial_augment", "auto_augment"])
def test_a_policy_stands_after_the_size(name):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [{"op": name}, CROP]})
    assert (
        f"recipe.ops[0].op: expected {name} after the op that decides the size, got "
        f"random_resized_crop after it. Move {name} behind it."
    ) in str(raised.value)
    parse_recipe({"ops": [{"op": name}]})


def test_a_policy_is_refused_where_the_device_recolours():
    with pytest.raises(RecipeError, match="expected no trivial_augment with colour_on"):
        parse_recipe({"ops": [CROP, {"op": "trivial_augment"}], "colour_on": "device"})


NAMES = {
    "ShearX": PolicyOp.SHEAR_X, "ShearY": PolicyOp.SHEAR_Y, "Rotate": PolicyOp.ROTATE,
    "TranslateX": PolicyOp.TRANSLATE_X, "TranslateY": PolicyOp.TRANSLATE_Y,
    "Brightness": PolicyOp.BRIGHTNESS, "Color": PolicyOp.COLOR, "Contrast": PolicyOp.CONTRAST,
    "Sharpness": PolicyOp.SHARPNESS, "Posterize": PolicyOp.POSTERIZE,
    "Solarize": PolicyOp.SOLARIZE, "AutoContrast": PolicyOp.AUTOCONTRAST,
    "Equalize": PolicyOp.EQUALIZE, "Invert": PolicyOp.INVERT, "Identity": PolicyOp.IDENTITY,
}  # fmt: skip
_SPACES = {
    "RandAugment": (tables.TORCHVISION, 31),
    "TrivialAugmentWide": (tables.TRIVIAL_WIDE, 31),
    "AutoAugment": (tables.AUTO, 10),
    "AugMix": (tables.AUG_MIX_ALL, 10),
}


@pytest.mark.parametrize("name", _SPACES)
def test_numbers_are_those_of_torchvision_at_every_level(name):
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    rules, bins = _SPACES[name]
    width, height = 224, 160
    arguments = (bins,) if name == "TrivialAugmentWide" else (bins, (height, width))
    space = getattr(autoaugment, name)()._augmentation_space(*arguments)
    assert {NAMES[one] for one in space} == {rule.op for rule in rules}
    table = RuleTable(rules)
    sides = np.array([[float(width)], [float(height)]])
    for one, (magnitudes, is_signed) in space.items():
        place = next(i for i, rule in enumerate(rules) if rule.op == NAMES[one])
        if magnitudes.ndim == 0:
            continue
        levels = np.arange(bins, dtype=float)
        chosen = np.full(bins, place)
        theirs = magnitudes.double().numpy()
        for is_negative in (False, True):
            ours = table.numbers(chosen, levels / (bins - 1), np.full(bins, is_negative), sides)
            expected = -theirs if is_negative and is_signed else theirs
            if one in ("Brightness", "Color", "Contrast", "Sharpness"):
                expected = 1.0 + expected
            elif one in ("TranslateX", "TranslateY"):
                expected = np.trunc(expected + np.copysign(1e-4, expected))  # of float32
            elif one == "Posterize":
                expected = np.maximum(expected, 1)
            np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_auto_augments_lists_are_torchvisions():
    autoaugment = pytest.importorskip("torchvision.transforms.autoaugment")
    policy = autoaugment.AutoAugment()
    for name, pairs in AUTO_POLICIES.items():
        theirs = policy._get_policies(autoaugment.AutoAugmentPolicy(name))
        assert len(pairs) == len(theirs) == 25
        for pair, their_pair in zip(pairs, theirs, strict=True):
            for one, (op, p, level) in zip(pair, their_pair, strict=True):
                assert (one.op, one.tenths, one.level) == (NAMES[op], round(10 * p), level or 0)


def timm_number(rule, level):
    """Compute timm's argument by its own formulas, written out once more."""
    share = min(10.0, max(0.0, level)) / 10
    match rule.op:
        case PolicyOp.SHEAR_X | PolicyOp.SHEAR_Y:
            return 0.3 * share
        case PolicyOp.TRANSLATE_X | PolicyOp.TRANSLATE_Y:
            return 0.45 * share * (224 if rule.op == PolicyOp.TRANSLATE_X else 160)
        case PolicyOp.ROTATE:
            return 30 * share
        case PolicyOp.POSTERIZE:
            return max(1, 4 - int(share * 4))
        case PolicyOp.SOLARIZE:
            return 256 - min(256, int(share * 256))
        case PolicyOp.SOLARIZE_ADD:
            return min(128, int(share * 110))
        case PolicyOp.BRIGHTNESS | PolicyOp.COLOR | PolicyOp.CONTRAST | PolicyOp.SHARPNESS:
            return max(0.1, 1 + 0.9 * share)
    return 0.0


def test_numbers_are_timms_at_every_tenth_of_a_level():
    table = RuleTable(tables.TIMM_INCREASING)
    sides = np.array([[224.0], [160.0]])
    for place, rule in enumerate(tables.TIMM_INCREASING):
        levels = [tenth / 10 for tenth in range(101)]
        ours = table.numbers(
            np.full(101, place), np.array(levels) / 10.0, np.zeros(101, np.bool_), sides
        )
        np.testing.assert_allclose(ours, [timm_number(rule, level) for level in levels], atol=1e-12)


def test_a_weak_factor_is_a_tenth_at_least_in_timm():
    table = RuleTable(tables.TIMM_INCREASING)
    place = next(i for i, r in enumerate(tables.TIMM_INCREASING) if r.op == PolicyOp.BRIGHTNESS)
    (number,) = table.numbers(np.array([place]), np.array([1.2]), np.array([True]), np.ones((2, 1)))
    assert number == 0.1


def layer_of(op: PolicyOp, number: float) -> DrawnLayer:
    return DrawnLayer(np.array([int(op)]), np.array([number]), np.zeros(1))


def framed(op: PolicyOp, number: float) -> Frame:
    frame = Frame(np.array([[200.0], [100.0]]), np.array([[200.0], [100.0]]))
    apply_layer(frame, layer_of(op, number), has_geometry=True)
    return frame


@pytest.mark.parametrize(
    ("op", "number", "point", "source"),
    [
        (PolicyOp.SHEAR_X, 0.3, (0.0, 0.0), (0.0, 0.0)),  # the top left corner stays
        (PolicyOp.SHEAR_X, 0.3, (10.0, 20.0), (16.0, 20.0)),
        (PolicyOp.SHEAR_Y, -0.5, (10.0, 20.0), (10.0, 15.0)),
        (PolicyOp.TRANSLATE_X, 30.0, (40.0, 5.0), (10.0, 5.0)),
        (PolicyOp.TRANSLATE_Y, -30.0, (40.0, 5.0), (40.0, 35.0)),
        (PolicyOp.ROTATE, 90.0, (100.0, 40.0), (110.0, 50.0)),  # what was right is above
    ],
)
def test_geometry_maps_as_the_published_code(op, number, point, source):
    frame = framed(op, number)
    (found,) = move(frame.affine.stack()[0], point)
    assert found == source
    assert frame.bent.all()
    assert not frame.steps[0].kind.any()


@pytest.mark.parametrize(
    ("op", "neutral"),
    [
        (PolicyOp.ROTATE, 0.0),
        (PolicyOp.SHEAR_X, 0.0),
        (PolicyOp.POSTERIZE, 8.0),
        (PolicyOp.SOLARIZE, 256.0),
        (PolicyOp.SOLARIZE_ADD, 0.0),
        (PolicyOp.SHARPNESS, 1.0),
        (PolicyOp.BRIGHTNESS, 1.0),
        (PolicyOp.IDENTITY, 0.0),
    ],
)
def test_a_row_whose_op_changes_nothing_has_no_step(op, neutral):
    frame = framed(op, neutral)
    assert not frame.bent.any()
    assert not frame.steps[0].kind.any()
    assert (frame.steps[0].matrix.linear[:, :, 0] == np.eye(3)).all()
    assert not frame.steps[0].matrix.pivot.any()


@pytest.mark.parametrize(
    ("op", "number", "kind", "values"),
    [
        (PolicyOp.POSTERIZE, 4.0, StepKind.POSTERIZE, (4, 0)),
        (PolicyOp.SOLARIZE, 178.5, StepKind.SOLARIZE, (179, 0)),
        (PolicyOp.SOLARIZE_ADD, 99.0, StepKind.SOLARIZE_ADD, (99, 128)),
        (PolicyOp.SHARPNESS, 0.1, StepKind.SHARPNESS, (0.1, 0)),
        (PolicyOp.BLUR, 1.5, StepKind.BLUR, (1.5, 0)),
        (PolicyOp.EQUALIZE, 0.0, StepKind.EQUALIZE, (0, 0)),
        (PolicyOp.AUTOCONTRAST, 0.0, StepKind.AUTOCONTRAST, (0, 0)),
        (PolicyOp.INVERT, 0.0, StepKind.INVERT, (0, 0)),
    ],
)
def test_a_step_has_the_ops_number(op, number, kind, values):
    step = framed(op, number).steps[0]
    assert step.kind[0] == kind
    assert tuple(step.values[:2, 0]) == values


def test_a_cutout_is_clipped_to_the_row():
    drawn = layer_of(PolicyOp.CUTOUT, 40.0)._replace(centre=np.array([[190.0], [10.0]]))
    frame = Frame(np.array([[200.0], [100.0]]), np.array([[200.0], [100.0]]))
    apply_layer(frame, drawn, has_geometry=False)
    assert frame.steps[0].kind[0] == StepKind.BOX
    assert tuple(frame.steps[0].values[:, 0]) == (150, 0, 200, 50)


def test_rows_do_not_depend_on_those_beside_them():
    ops = [WHOLE, {"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1"}, {"op": "trivial_augment"}]
    ops[0] = {"op": "resize", "size": [224, 224]}
    together = plan_of(ops, num=8)
    alone = plan_of(ops, num=3)
    np.testing.assert_array_equal(together.matrix[:3], alone.matrix)
    np.testing.assert_array_equal(together.program.kinds[:3], alone.program.kinds)
    np.testing.assert_array_equal(together.program.values[:3], alone.program.values)


@pytest.mark.parametrize("group", ["one_of", "all_of"])
def test_a_policy_stands_in_no_group(group):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [CROP, {"op": group, "ops": [{"op": "trivial_augment"}]}]})
    assert (
        f"ops[0].op: expected a single op in {group}, got trivial_augment, which chooses among ops "
        "itself. Put it beside the group, not into it."
    ) in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"severity": 0}, "severity: expected 1 <= severity <= 10, got 0"),
        ({"width": 9}, "width: expected 1 <= width <= 8, got 9"),
        ({"depth": 0}, "depth: expected -1 or 1 to 4, got 0. -1 draws 1, 2 or 3 ops"),
        ({"depth": 5}, "depth: expected -1 or 1 to 4, got 5"),
        ({"alpha": 0.0}, "alpha: expected 0.1 <= alpha <= 100, got 0.0"),
    ],
)
def test_aug_mix_says_what_is_wrong(fields, said):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [{"op": "aug_mix", **fields}]})
    assert f"recipe.ops[0].{said}" in str(raised.value)


@pytest.mark.parametrize("name", ["mirror", "brightness", "trivial_augment"])
def test_only_what_follows_colour_follows_aug_mix(name):
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [CROP, {"op": "aug_mix"}, {"op": name}]})
    assert (
        f"recipe.ops[2].op: expected no {name} after aug_mix, which blends finished rows, got "
        f"{name}. Move it before aug_mix."
    ) in str(raised.value)
    parse_recipe({"ops": [CROP, {"op": name}, {"op": "aug_mix"}, {"op": "erase"}]})


def test_groups_of_what_follows_colour_follow_aug_mix():
    boxes = [{"op": "erase"}, {"op": "cutout"}]
    group = {"op": "one_of", "ops": boxes}
    parse_recipe({"ops": [CROP, {"op": "aug_mix"}, group]})
    with pytest.raises(RecipeError) as raised:
        parse_recipe(
            {"ops": [CROP, {"op": "aug_mix"}, {**group, "ops": [*boxes, {"op": "hue", "h": 0.1}]}]}
        )
    assert (
        "recipe.ops[2].ops[2].op: expected no hue after aug_mix, which blends finished rows, got "
        "hue. Move it before aug_mix."
    ) in str(raised.value)


def test_a_recipe_has_one_aug_mix():
    with pytest.raises(RecipeError, match="expected one aug_mix in a recipe"):
        parse_recipe({"ops": [CROP, {"op": "aug_mix"}, {"op": "aug_mix"}]})
