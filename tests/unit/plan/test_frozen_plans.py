"""Plans of every op, frozen: what a seed gives may not change.

A change of any of these needs a new `content.PLAN_SCHEME`. After one, write the file again with
`python -m tests.unit.plan.test_frozen_plans`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augd.plan.boxes import BoxFill
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.plan import Mixture
from augd.plan.planner.planner import Plan, Planner
from augd.plan.program import Program
from augd.plan.recipe.plain_ops import list_names
from augd.plan.recipe.recipe import output_size, parse_recipe

FILE = Path(__file__).with_name("frozen_plans.json")
SEED = 11

CROP = {"op": "random_resized_crop", "size": 64}
SHORT = {"op": "resize", "short": 80}
CUT = {"op": "center_crop", "size": 64}
COLOURS = [
    {"op": "brightness"},
    {"op": "contrast"},
    {"op": "saturation", "p": 0.5},
    {"op": "hue", "h": 0.1},
    {"op": "pca"},
]

RECIPES: dict[str, dict[str, Any]] = {
    "resize": {"ops": [{"op": "resize", "size": [60, 80]}]},
    "center_crop": {"ops": [CUT]},
    "random_crop": {"ops": [{"op": "random_crop", "size": 64}]},
    "random_crop, padded": {"ops": [{"op": "random_crop", "size": 500, "pad": 40}]},
    "random_crop, enlarged": {"ops": [{"op": "random_crop", "size": 400, "pad": 4}]},
    "random_crop, min_area": {"ops": [{"op": "random_crop", "size": 64, "min_area": 0.5}]},
    "scale_jitter": {"ops": [{"op": "scale_jitter"}]},
    "vertical_flip": {"ops": [CROP, {"op": "vertical_flip"}, {"op": "mirror"}]},
    "vertical_flip, in a matrix": {
        "ops": [{"op": "vertical_flip"}, {"op": "rotate", "degrees": 10}, SHORT, CUT]
    },
    "letterbox": {
        "ops": [{"op": "resize", "longest": [64, 80]}, {"op": "mirror"}],
        "fill": "constant",
    },
    "letterbox, bent": {
        "ops": [{"op": "resize", "longest": 64}, {"op": "rotate", "degrees": 9, "p": 0.5}],
        "fill": "constant",
        "fill_value": 114,
    },
    "filter, drawn": {
        "ops": [CROP, {"op": "mirror"}, {"op": "rotate", "degrees": 9, "p": 0.5}],
        "filter": "random",
        "views": 4,
    },
    "filter, bicubic": {"ops": [CROP, {"op": "rotate", "degrees": 9}], "filter": "bicubic"},
    "mirror, in a matrix": {"ops": [CROP, {"op": "mirror"}, {"op": "rotate", "degrees": 10}]},
    "rotate": {"ops": [CROP, {"op": "rotate", "factor": 0.1}]},
    "zoom": {"ops": [CROP, {"op": "zoom", "height": 0.2}]},
    "zoom, both": {"ops": [CROP, {"op": "zoom", "height": 0.2, "width": 0.3}]},
    "shear": {"ops": [CROP, {"op": "shear", "x": 0.3, "y": 0.1}]},
    "stretch": {"ops": [CROP, {"op": "stretch", "x": 0.3, "y": 0.1}]},
    "translate": {"ops": [CROP, {"op": "translate", "x": 0.3, "y": 0.1}]},
    "lens": {"ops": [CROP, {"op": "lens"}]},
    "local_warp": {"ops": [CROP, {"op": "local_warp", "alpha": 8, "sigma": 4, "p": 0.5}]},
    "before the resize": {"ops": [{"op": "rotate", "degrees": 90}, SHORT, CUT], "fill": "wrap"},
    "pca": {"ops": [CROP, {"op": "pca", "mode": "stdev"}]},
    "rgb_shift": {"ops": [CROP, {"op": "rgb_shift"}]},
    "brightness": {"ops": [CROP, {"op": "brightness"}]},
    "contrast": {"ops": [CROP, {"op": "contrast"}]},
    "saturation": {"ops": [CROP, {"op": "saturation"}]},
    "hue": {"ops": [CROP, {"op": "hue", "h": 0.5}]},
    "grayscale": {"ops": [CROP, {"op": "grayscale", "p": 0.5}]},
    "colours, shuffled": {"ops": [CROP, *COLOURS], "shuffle_colour": True},
    "posterize": {"ops": [CROP, {"op": "posterize", "bits": [1, 8]}]},
    "solarize": {"ops": [CROP, {"op": "solarize", "threshold": [0, 256], "p": 0.5}]},
    "solarize_add": {"ops": [CROP, {"op": "solarize_add", "add": [-50, 110]}]},
    "invert": {"ops": [CROP, {"op": "invert", "p": 0.5}]},
    "gamma": {"ops": [CROP, {"op": "gamma", "gamma": [0.5, 2.0]}]},
    "equalize": {"ops": [CROP, {"op": "equalize", "p": 0.5}]},
    "autocontrast": {"ops": [CROP, {"op": "autocontrast", "p": 0.5}]},
    "sharpness": {"ops": [CROP, {"op": "sharpness", "factor": [0.1, 1.9]}]},
    "gaussian_blur": {"ops": [CROP, {"op": "gaussian_blur", "p": 0.7}]},
    "gaussian_noise": {"ops": [CROP, {"op": "gaussian_noise", "std": [0, 20]}]},
    "jpeg": {"ops": [CROP, {"op": "jpeg", "quality": [20, 90]}]},
    "color_jitter": {
        "ops": [
            CROP,
            {
                "op": "color_jitter",
                "brightness": 0.4,
                "contrast": [0.5, 2],
                "saturation": 1.5,
                "hue": 0.1,
                "p": 0.8,
            },
        ]
    },
    "a program": {
        "ops": [
            CROP,
            {"op": "contrast"},
            {"op": "posterize", "bits": [1, 8], "p": 0.5},
            {"op": "brightness"},
            {"op": "hue", "h": 0.1},
            {"op": "gamma", "gamma": [0.5, 2.0], "p": 0.5},
            {"op": "invert", "p": 0.5},
        ]
    },
    "one_of": {
        "ops": [
            CROP,
            {
                "op": "one_of",
                "ops": [
                    {"op": "rotate", "degrees": 10},
                    {"op": "solarize", "threshold": [0, 256]},
                    {"op": "hue", "h": 0.1, "p": 0.5},
                ],
                "weights": [1, 2, 3],
                "p": 0.9,
            },
        ]
    },
    "all_of": {
        "ops": [
            CROP,
            {
                "op": "all_of",
                "ops": [
                    {"op": "contrast"},
                    {"op": "mirror"},
                    {"op": "gamma", "gamma": [0.5, 2.0]},
                    {"op": "posterize", "bits": [1, 8]},
                    {"op": "translate", "x": 0.1},
                ],
                "p": 0.7,
                "shuffle": True,
            },
        ],
        "views": 2,
    },
    "rand_augment": {"ops": [CROP, {"op": "rand_augment"}]},
    "rand_augment, timm": {
        "ops": [CROP, {"op": "rand_augment", "spec": "rand-m9-mstd0.5-inc1-n3"}],
        "fill": "constant",
    },
    "rand_augment, weighted": {"ops": [CROP, {"op": "rand_augment", "spec": "rand-m9-t3aw-p1"}]},
    "rand_augment, tf": {"ops": [CROP, {"op": "rand_augment", "style": "tf", "layers": 4}]},
    "trivial_augment": {"ops": [CROP, {"op": "trivial_augment", "bounded": False}]},
    "auto_augment": {"ops": [CROP, {"op": "auto_augment", "policy": "svhn"}]},
    "three_augment": {"ops": [CROP, {"op": "three_augment", "p": 0.8}]},
    "aug_mix": {"ops": [CROP, {"op": "hue", "h": 0.1}, {"op": "aug_mix", "p": 0.7}]},
    "erase": {"ops": [CROP, {"op": "erase", "p": 0.7}]},
    "erase, several": {
        "ops": [CROP, {"op": "erase", "count": [1, 3], "fill": "random", "p": 0.7}],
    },
    "coarse_dropout": {"ops": [CROP, {"op": "coarse_dropout", "count": [1, 4], "fill": "pixel"}]},
    "cutout": {"ops": [CROP, {"op": "cutout", "size": 21}]},
    "five_crop": {"ops": [SHORT, {"op": "five_crop", "size": 64}]},
    "ten_crop": {"ops": [SHORT, {"op": "ten_crop", "size": 64}]},
    "multi_scale": {"ops": [{"op": "multi_scale", "short": [64, 81], "crop": 64}]},
    "scaled": {
        "ops": [
            {"op": "random_resized_crop", "size": 48},
            {"op": "rotate", "degrees": 9, "p": 0.5},
        ],
        "scaled_decode": "auto",
        "views": 2,
    },
    "views": {"ops": [CROP, {"op": "mirror"}, {"op": "pca"}], "views": 3},
}

# (id, epoch, width, height)
ROWS = [(0, 0, 500, 375), (48123, 90, 640, 480), (2**40 + 5, 2**32 - 1, 333, 500)]


def make_plan(name: str) -> Plan:
    recipe = parse_recipe(RECIPES[name])
    ids, epochs, widths, heights = (
        np.array(column, np.int64) for column in zip(*ROWS, strict=True)
    )
    planner = Planner(recipe, SEED, output_size(recipe, None))
    return planner.plan(ids, epochs, widths.astype(np.int32), heights.astype(np.int32))


def write_array(array: np.ndarray) -> list[list[Any]]:
    """Write one list for each row, floats by their bits."""
    flat = array.reshape(len(array), -1).tolist()
    return [[v.hex() if isinstance(v, float) else v for v in row] for row in flat]


def write_out(plan: Plan) -> dict[str, Any]:
    """Write a plan as JSON data, floats by their bits; what is None is left out."""
    written: dict[str, Any] = {}
    for field in fields(plan):
        value = getattr(plan, field.name)
        if isinstance(value, np.ndarray):
            value = write_array(value)
        elif isinstance(value, Program | BoxFill):
            value = {part.name: write_array(getattr(value, part.name)) for part in fields(value)}
        elif isinstance(value, Mixture):
            chains = [write_out(chain) for chain in value.chains]
            value = {"weights": write_array(value.weights), "chains": chains}
        elif field.name == "impossible":
            value = {str(sample): reason for sample, reason in value.items()}
        elif value is not None:
            value = list(value)
        if value is not None:
            written[field.name] = value
    return written


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_plans_of_every_op_are_frozen(name):
    frozen = json.loads(FILE.read_text())
    assert sorted(frozen) == sorted(RECIPES)
    assert write_out(make_plan(name)) == frozen[name]


def test_no_op_is_left_out():
    used = {name for recipe in RECIPES.values() for name in list_names(recipe["ops"])}
    assert used == set(OPS_BY_NAME)


def found_features() -> list[str]:
    """Return the processor's instruction sets that NumPy chose beyond its baseline."""
    config: Any = np.show_config(mode="dicts")
    return list(config["SIMD Extensions"].get("found", []))


@pytest.mark.skipif(not found_features(), reason="this processor has NumPy's baseline only")
def test_the_plans_are_the_same_on_another_kind_of_processor():
    code = (
        "import json; from tests.unit.plan import test_frozen_plans as t;"
        "assert not t.found_features();"
        "frozen = json.loads(t.FILE.read_text());"
        "assert all(t.write_out(t.make_plan(name)) == frozen[name] for name in frozen)"
    )
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found_features())}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    lines = [f"{json.dumps(n)}: {json.dumps(write_out(make_plan(n)))}" for n in sorted(RECIPES)]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
