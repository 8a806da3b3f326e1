"""Rows of tensors that are mixed, and recipes that a command gives a mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augd import Mixing
from augd.client.mix_images import mix_images
from trainer.data.mixing import mix_rows
from trainer.data.recipes import choose_recipes, with_mix


def mixing() -> Mixing:
    """Row 0 blends with 1, row 1 gets a box of 2, rows 2 and 3 stay."""
    return Mixing(
        partners=np.array([1, 2, 2, 3]),
        share=np.array([0.3, 0.75, 1, 1], np.float32),
        is_cut=np.array([False, True, False, False]),
        box=np.array([[0] * 4, [0.5, 0, 1, 0.5], [0] * 4, [0] * 4], np.float64),
    )


@pytest.mark.parametrize("views", [(), (2,)])
def test_bytes_are_mixed_as_augd_does(views):
    images = np.random.default_rng(0).integers(0, 256, (4, *views, 6, 8, 3), np.uint8)
    found = mix_rows(torch.from_numpy(images), mixing())
    assert np.array_equal(found.numpy(), mix_images(images, mixing()))
    assert np.array_equal(found[2:].numpy(), images[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_floats_are_blended_and_cut(dtype):
    images = torch.randn(4, 3, 6, 8).to(dtype)
    found = mix_rows(images, mixing())
    assert found.dtype == dtype
    blended = 0.3 * images[0].float() + 0.7 * images[1].float()
    assert torch.allclose(found[0].float(), blended, atol=0.03)
    assert torch.equal(found[1, :, :3, 4:], images[2, :, :3, 4:])
    assert torch.equal(found[1, :, 3:], images[1, :, 3:])
    assert torch.equal(found[2:], images[2:])


def test_options_of_a_command_are_a_mix_of_its_training_recipe():
    recipes = with_mix(choose_recipes("imagenet", 64), 0.2, 0.0, 0.1)
    assert recipes.training["mix"] == {"mixup": 0.2, "smoothing": 0.1}
    assert "mix" not in recipes.validation
    plain = choose_recipes("imagenet", 64)
    assert with_mix(plain, 0.0, 0.0, 0.1) is plain
    assert with_mix(choose_recipes("none", None), 0.0, 1.0, 0.0).training == {
        "ops": [],
        "mix": {"cutmix": 1.0},
    }


def test_a_file_with_a_mix_validates_without(tmp_path):
    path = tmp_path / "my.toml"
    path.write_text('[[ops]]\nop = "resize"\nsize = 64\n[mix]\nmixup = 0.2\nscope = "pair"\n')
    recipes = with_mix(choose_recipes(str(path), None), 0.4, 0.0, 0.0)
    assert recipes.training["mix"] == {"mixup": 0.4, "scope": "pair"}
    assert "mix" not in recipes.validation
