"""RandAugment beside timm's own code: its tables, its levels, its functions, its strings.

timm is in no extra. Where it is installed its module is loaded from its file, since `import timm`
loads networks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from augd.diagnostics.drawn_params import Draws
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlans
from augd.plan.ops import policy_tables as tables
from augd.plan.ops.policy_tables import PolicyOp, Rule
from augd.plan.ops.timm_spec import parse_timm_spec
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import parse_recipe
from augd.plan.samplers.policy_layer import RuleTable
from tests.support.policies import FILL, PICTURES

NAMES = {
    "AutoContrast": PolicyOp.AUTOCONTRAST, "Equalize": PolicyOp.EQUALIZE,
    "Invert": PolicyOp.INVERT, "Rotate": PolicyOp.ROTATE, "Posterize": PolicyOp.POSTERIZE,
    "Solarize": PolicyOp.SOLARIZE, "SolarizeAdd": PolicyOp.SOLARIZE_ADD,
    "Color": PolicyOp.COLOR, "Contrast": PolicyOp.CONTRAST, "Brightness": PolicyOp.BRIGHTNESS,
    "Sharpness": PolicyOp.SHARPNESS, "ShearX": PolicyOp.SHEAR_X, "ShearY": PolicyOp.SHEAR_Y,
    "TranslateXRel": PolicyOp.TRANSLATE_X, "TranslateYRel": PolicyOp.TRANSLATE_Y,
    "Desaturate": PolicyOp.COLOR, "GaussianBlur": PolicyOp.BLUR,
}  # fmt: skip


@pytest.fixture(scope="module")
def timm() -> ModuleType:
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        pytest.skip("timm is not installed: pip install --no-deps timm")
    path = Path(package.origin).parent / "data" / "auto_augment.py"
    spec = importlib.util.spec_from_file_location("timm_auto_augment", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def op_of(name: str) -> PolicyOp:
    return NAMES[name.replace("Increasing", "")]


def test_the_sets_of_ops_are_timms(timm: ModuleType) -> None:
    for names, rules in (
        (timm._RAND_TRANSFORMS, tables.TIMM),
        (timm._RAND_INCREASING_TRANSFORMS, tables.TIMM_INCREASING),
        (timm._RAND_3A, tables.TIMM_3A),
    ):
        assert [op_of(name) for name in names] == [rule.op for rule in rules]
    for weights, (rules, ours) in (
        (timm._RAND_WEIGHTED_0, tables.TIMM_WEIGHTS),
        (timm._RAND_WEIGHTED_3A, tables.TIMM_3A_WEIGHTS),
    ):
        assert [op_of(name) for name in weights] == [rule.op for rule in rules]
        scaled = np.array(list(weights.values())) / sum(weights.values()) * sum(ours)
        np.testing.assert_allclose(scaled, ours)


@pytest.mark.parametrize("is_negative", [False, True])
@pytest.mark.parametrize("which", ["increasing", "plain", "3a"])
def test_numbers_are_timms_at_every_level(
    timm: ModuleType, monkeypatch: pytest.MonkeyPatch, which: str, is_negative: bool
) -> None:
    names, rules = {
        "increasing": (timm._RAND_INCREASING_TRANSFORMS, tables.TIMM_INCREASING),
        "plain": (timm._RAND_TRANSFORMS, tables.TIMM),
        "3a": (timm._RAND_3A, tables.TIMM_3A),
    }[which]
    monkeypatch.setattr(timm, "_randomly_negate", lambda v: -v if is_negative else v)
    sides = np.array([[224.0], [160.0]])
    table = RuleTable(rules)
    for place, (name, rule) in enumerate(zip(names, rules, strict=True)):
        argument = timm.LEVEL_TO_ARG[name]
        if argument is None:
            continue
        levels = np.array([tenth / 10 for tenth in range(101)])
        chosen, signs = np.full(101, place), np.full(101, is_negative)
        ours = table.numbers(chosen, levels / 10.0, signs, sides)
        theirs = [argument(level, {"translate_pct": 0.45})[0] for level in levels.tolist()]
        np.testing.assert_allclose(ours, [convert(rule, number) for number in theirs], atol=1e-12)


def convert(rule: Rule, number: float) -> float:
    """Write timm's argument as the tables do: translations in pixels, to the right and down."""
    match rule.op:
        case PolicyOp.TRANSLATE_X:
            return number * 224
        case PolicyOp.TRANSLATE_Y:
            return number * 160
        case PolicyOp.POSTERIZE:
            return max(1, number)
        case PolicyOp.COLOR if rule.base == 0.5:  # Desaturate takes 1 - its argument
            return min(1.0, max(0.0, 1.0 - number))
    return number


@pytest.mark.parametrize(
    "spec", ["rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.8", "rand-m8-inc1-tweights", "rand-t3aw"]
)
def test_strings_say_what_timm_reads(timm: ModuleType, spec: str) -> None:
    theirs = timm.rand_augment_transform(spec, {})
    said = parse_timm_spec(spec)
    assert theirs.num_layers == said.n
    assert {op.magnitude for op in theirs.ops} == {said.m}
    assert {op.prob for op in theirs.ops} == {said.p}
    assert {op.magnitude_std for op in theirs.ops} == {said.mstd}
    assert (theirs.choice_weights is None) == (said.t in ("all", "3a"))


def applied(timm: ModuleType, image: Image.Image, layer: Mapping[str, Any]) -> Image.Image:
    """Apply a layer by timm's own function."""
    options = {"fillcolor": FILL, "resample": Image.Resampling.BILINEAR}
    match layer["op"]:
        case "translate_x":
            return timm.translate_x_abs(image, -layer["pixels"], **options)
        case "translate_y":
            return timm.translate_y_abs(image, -layer["pixels"], **options)
        case "shear_x" | "shear_y":
            return getattr(timm, layer["op"])(image, layer["shear"], **options)
        case "rotate":
            return timm.rotate(image, layer["degrees"], **options)
        case "solarize_add":
            return timm.solarize_add(image, int(layer["add"]))
        case "posterize":
            return timm.posterize(image, int(layer["bits"]))
        case "solarize":
            return timm.solarize(image, layer["threshold"])
        case "autocontrast":
            return timm.auto_contrast(image)
    number = [layer[name] for name in ("factor",) if name in layer]
    return getattr(timm, layer["op"])(image, *number)


def test_rows_are_as_near_to_timms_as_the_page_says(timm: ModuleType) -> None:
    picture = PICTURES["photo"]
    height, width = picture.shape[:2]
    size = {"op": "resize", "size": [height, width]}
    policy = {"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1"}
    fill = {"fill": "constant", "fill_value": list(FILL)}
    recipe = parse_recipe({"ops": [size, policy], **fill})
    num = 150
    sides = (np.full(num, side, np.int32) for side in (width, height))
    plan = Planner(recipe, 3, (height, width)).plan(np.arange(num), np.zeros(num, np.int64), *sides)
    renderer, row_plans = Renderer.of(recipe, (height, width)), RowPlans(plan, 0, num)
    draws = Draws(recipe, 3, (height, width))
    found = []
    for row in range(num):
        x, y, w, h = row_plans.crop[row]
        out = np.empty_like(picture)
        region = np.ascontiguousarray(picture[y : y + h, x : x + w])
        renderer.render(region, row_plans[row], out)
        image = Image.fromarray(picture)
        ((step,),) = draws.of(row, 0)
        for layer in (step.drawn or {"layers": []})["layers"]:
            image = applied(timm, image, layer)
        found.append(float(np.abs(out.astype(int) - np.asarray(image).astype(int)).mean()))
    assert np.mean(found) < 0.77
    print(f"mean difference {np.mean(found):.2f}")
