"""Presets of published recipes: numbers of their papers and their code, notes, evaluations."""

from __future__ import annotations

import pytest

import augd
from augd.plan.recipe.phases import parse_stream_recipe
from augd.plan.recipe.published_presets import EVALUATION, EVALUATION_OF, NOTES, TRAINING
from augd.plan.recipe.recipe import PRESETS, output_size, parse_recipe
from tests.support.commands import run_augd


def ops_of(name: str) -> dict:
    return {op.__struct_config__.tag: op for op in parse_recipe(name).ops}


def test_every_preset_has_a_source_and_its_evaluation():
    assert set(NOTES) == {*TRAINING, *EVALUATION}
    assert set(EVALUATION_OF) == set(TRAINING)
    assert set(EVALUATION_OF.values()) <= set(PRESETS)


@pytest.mark.parametrize("name", sorted(NOTES))
def test_a_preset_is_printed_with_its_note(name):
    done = run_augd("recipes", name)
    comments = [line for line in done.stdout.splitlines() if line.startswith("# ")]
    said = " ".join(line[2:] for line in comments)
    assert said.startswith(NOTES[name]) and max(map(len, comments)) <= 100
    if name in EVALUATION_OF:
        assert said.endswith(f"Evaluation: the preset {EVALUATION_OF[name]}.")


@pytest.mark.parametrize(
    ("name", "size", "low"),
    [
        ("torchvision-v1", 224, 0.08),
        ("torchvision-v2", 176, 0.08),
        ("ultralytics-classify", 224, 0.5),
        ("timm-a1", 224, 0.08),
        ("timm-a3", 160, 0.08),
        ("mae", 224, 0.2),
        ("openclip", 224, 0.9),
    ],
)
def test_crops(name, size, low):
    crop = ops_of(name)["random_resized_crop"]
    assert (crop.size, crop.scale) == ((size, size), (low, 1.0))
    assert crop.ratio == (3 / 4, 4 / 3)
    assert ("mirror" in ops_of(name)) == (name != "openclip"), "text must not be mirrored"
    assert output_size(parse_recipe(name), None) == (size, size)


def test_filters_and_fills_are_those_of_the_code():
    for name in TRAINING:
        recipe = parse_stream_recipe(name).phases[0].shared
        if name.startswith(("torchvision", "ultralytics")):
            assert recipe.filter == "antialias" and recipe.fill_rgb == (0, 0, 0)
        if name.startswith("timm"):
            assert recipe.filter == "bicubic" and recipe.fill_rgb == (124, 116, 104)


@pytest.mark.parametrize(("name", "level"), [("timm-a1", 7), ("timm-a2", 7), ("timm-a3", 6)])
def test_policies_of_timm(name, level):
    policy = ops_of(name)["rand_augment"]
    assert (policy.style, policy.layers, policy.level, policy.std) == ("timm", 2, level, 0.5)
    assert policy.p == 0.5 and policy.increasing


@pytest.mark.parametrize(
    ("name", "resized", "size"),
    [
        ("eval-100", 224, 224),
        ("eval-232", 232, 224),
        ("eval-bicubic", 256, 224),
        ("eval-bicubic-95", 235, 224),
        ("eval-bicubic-100", 224, 224),
    ],
)
def test_evaluations(name, resized, size):
    ops = ops_of(name)
    assert ops["resize"].short == resized and ops["center_crop"].size == (size, size)
    assert (parse_recipe(name).filter == "bicubic") == ("bicubic" in name)


def test_both_recipes_of_a_preset():
    training, evaluation = augd.preset_recipes("timm-a3")
    assert parse_recipe(training) == parse_recipe("timm-a3")
    assert parse_recipe(evaluation) == parse_recipe("eval-bicubic-95")
    training, evaluation = augd.preset_recipes("timm-a3", 80)
    assert training["ops"][0]["size"] == 80
    assert [op.get("short", op.get("size")) for op in evaluation["ops"]] == [118, 112]
    assert len(augd.preset_recipes("dino").training["views"]) == 3
    training["ops"].clear()
    assert augd.preset_recipes("timm-a3").training["ops"], "the preset itself stays"
    with pytest.raises(augd.RecipeError, match=r"expected a published preset \(big-vision"):
        augd.preset_recipes("imagenet")
