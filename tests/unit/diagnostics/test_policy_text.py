"""What policies draw, in words."""

from __future__ import annotations

import pytest

from augd.diagnostics.policy_text import say_mixture, say_policy


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (
            {"op": "rotate", "degrees": 12.3, "level": 5.0, "top_level": 30.0},
            "rotated 12.3° left (level 5 of 30)",
        ),
        ({"op": "rotate", "degrees": -12.3}, "rotated 12.3° right"),
        ({"op": "shear_y", "shear": -0.27}, "sheared y -0.27"),
        ({"op": "translate_x", "pixels": -30.0}, "moved left 30 px"),
        ({"op": "translate_y", "pixels": 45.36}, "moved down 45.4 px"),
        ({"op": "color", "factor": 0.0}, "grey"),
        ({"op": "color", "factor": 0.73}, "saturation 0.73"),
        ({"op": "sharpness", "factor": 1.9}, "sharpness 1.90"),
        ({"op": "posterize", "bits": 1.0}, "posterized to 1 bit"),
        ({"op": "posterize", "bits": 4.0}, "posterized to 4 bits"),
        ({"op": "solarize", "threshold": 170.5}, "solarized above 170"),
        ({"op": "solarize", "threshold": 128.0}, "solarized above 127"),
        ({"op": "solarize", "threshold": 0.0}, "inverted"),
        ({"op": "solarize_add", "add": 99.0}, "99 added below 128"),
        ({"op": "equalize"}, "equalized"),
        ({"op": "autocontrast"}, "autocontrast"),
        ({"op": "invert"}, "inverted"),
        ({"op": "cutout", "half_side": 40.0, "centre": [7.0, 9.0]}, "cut out 80 px at 7,9"),
        ({"op": "blur", "sigma": 1.234}, "blurred by 1.23 px"),
    ],
)
def test_a_layer_is_said(layer, said):
    assert say_policy({"layers": [layer]}) == said


def test_layers_are_said_in_their_order():
    layers = [{"op": "equalize"}, {"op": "rotate", "degrees": 9.0, "level": 9.0, "top_level": 30.0}]
    assert say_policy({"layers": layers}) == "equalized, rotated 9.0° left (level 9 of 30)"


def test_a_mixture_says_its_shares():
    layers = [{"op": "equalize"}, {"op": "invert"}]
    chains = [{"weight": 0.25, "layers": layers}, {"weight": 0.125, "layers": layers[:1]}]
    said = "62% as it was, 25% equalized + inverted, 12% equalized"
    assert say_mixture({"image": 0.625, "chains": chains}) == said
