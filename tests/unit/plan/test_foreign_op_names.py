"""Names of other libraries' ops lead to the ops here, and every hint names one that there is."""

from __future__ import annotations

import re

import pytest

from augd.errors import RecipeError
from augd.plan.ops.all_ops import OPS_BY_NAME
from augd.plan.recipe.foreign_op_names import _CALLED, called_here
from augd.plan.recipe.recipe import parse_recipe


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("RandomHorizontalFlip", "RandomHorizontalFlip: did you mean mirror?"),
        ("HorizontalFlip", "HorizontalFlip: did you mean mirror?"),
        ("random_horizontal_flip", "random_horizontal_flip: did you mean mirror?"),
        ("RandomResizedCrop", "RandomResizedCrop: did you mean random_resized_crop?"),
        ("ColorJitter", "did you mean color_jitter?"),
        ("Normalize", "Normalize: augd.torch.connect does it, on the device: leave it out."),
        ("ToTensorV2", "ToTensorV2: augd.torch.connect does it, on the device: leave it out."),
        ("GaussianBlur", "GaussianBlur: did you mean gaussian_blur?"),
        ("RandomPerspective", "RandomPerspective: there is no such op; an own op can do it (docs"),
        ("CoarseDropout", "CoarseDropout: did you mean coarse_dropout?"),
        ("mirorr", "Did you mean mirror?"),
        ("quux", "Use one of these names."),
    ],
)
def test_the_error_says_what_it_is_called_here(name: str, says: str) -> None:
    with pytest.raises(RecipeError) as raised:
        parse_recipe({"ops": [{"op": name}]})
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_hints_name_ops_that_there_are() -> None:
    for name, here in _CALLED.items():
        named = re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", here)
        assert set(named) <= set(OPS_BY_NAME), (name, here)
        first = re.split(r"[ ,]", here)[0]
        is_prose = first in ("there", "augd.torch.connect", "the", "nothing:", "mix")
        assert is_prose or first in OPS_BY_NAME, (name, here)


@pytest.mark.parametrize("name", [None, 5, "x" * 10_000, "mirror", ""])
def test_what_is_no_name_has_no_hint(name: object) -> None:
    assert called_here(name) is None
