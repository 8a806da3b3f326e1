"""What a batch is mixed with: laws of the draws, partners, boxes and soft targets."""

from __future__ import annotations

import math

import numpy as np
import pytest

import augd
from augd.client.mix_images import mix_images
from augd.plan.mix_draws import Mixer, Mixing, soft_targets
from augd.plan.recipe.mix import Mix
from augd.plan.recipe.recipe import expand, parse_recipe, recipe_from_toml, recipe_to_toml

SIZE = (224, 224)
MANY = 100_000


def plan_of(mix: Mix, rows: int, epoch: int = 0, position: int = 0, seed: int = 3) -> Mixing:
    return Mixer(mix, seed, SIZE).plan(epoch, position, np.ones(rows, np.bool_))


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 4.0, 32.0])
def test_shares_of_mixup_follow_beta(alpha):
    """Mean, variance and the fourth moment of Beta(alpha, alpha), each within five deviations."""
    mixing = plan_of(Mix(mixup=alpha, scope="row"), MANY)
    share = mixing.share.astype(np.float64)
    variance = 1 / (4 * (2 * alpha + 1))
    fourth = 3 * variance**2 * (2 * alpha + 1) / (2 * alpha + 3)
    assert abs(share.mean() - 0.5) < 5 * math.sqrt(variance / MANY)
    square = (share - 0.5) ** 2
    assert abs(square.mean() - variance) < 5 * math.sqrt((fourth - variance**2) / MANY)
    assert abs((square**2).mean() - fourth) < 0.02 * fourth + 1e-4
    assert 0 <= share.min() <= share.max() <= 1


def test_shares_of_alpha_1_are_uniform():
    share = np.sort(plan_of(Mix(mixup=1.0, scope="row"), MANY).share.astype(np.float64))
    steps = (np.arange(MANY) + 0.5) / MANY
    assert np.abs(share - steps).max() < 1.95 / math.sqrt(MANY)  # Kolmogorov-Smirnov, p = 0.001


def test_the_mean_share_of_cutmix_is_that_of_clipped_boxes():
    share = plan_of(Mix(cutmix=1.0, scope="row"), MANY).share
    assert abs(float(share.mean()) - 0.682) < 0.002


def test_the_share_of_cutmix_counts_the_replaced_pixels():
    images = np.arange(32, dtype=np.uint8)[:, None, None, None] + np.zeros((32, 224, 224, 3))
    images = images.astype(np.uint8)
    mixing = plan_of(Mix(cutmix=1.0, scope="row", partner="permutation"), 32)
    mixed = mix_images(images, mixing)
    for row, partner in enumerate(mixing.partners.tolist()):
        kept = (mixed[row, :, :, 0] == row).mean()
        assert abs(kept - mixing.share[row]) < 1e-6
        assert set(np.unique(mixed[row]).tolist()) <= {row, partner}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_each_is_drawn_as_often_as_it_says(share):
    mix = Mix(mixup=0.2, cutmix=1.0, switch=share, prob=0.5, scope="row", partner="roll")
    mixing = plan_of(mix, MANY)
    is_mixed = mixing.partners != np.arange(MANY)
    assert abs(is_mixed.mean() - 0.5) < 5 * math.sqrt(0.25 / MANY)
    found = mixing.is_cut[is_mixed].mean()
    assert abs(found - share) <= 5 * math.sqrt(share * (1 - share) / is_mixed.sum())


def test_cutmix_takes_its_own_alpha():
    """Beside a strong mixup the shares of cut rows are as without it."""
    both = plan_of(Mix(mixup=32.0, cutmix=1.0, scope="row"), MANY)
    alone = plan_of(Mix(cutmix=1.0, scope="row"), MANY)
    cut = both.is_cut
    assert np.array_equal(both.share[cut], alone.share[cut])
    assert np.array_equal(both.box[cut], alone.box[cut])


@pytest.mark.parametrize("rows", [1, 2, 7, 16])
@pytest.mark.parametrize("partner", ["flip", "roll", "permutation"])
def test_partners_are_a_permutation(partner, rows):
    mixing = plan_of(Mix(mixup=0.5, partner=partner), rows)
    assert sorted(mixing.partners.tolist()) == list(range(rows))
    expected = {"flip": list(range(rows))[::-1], "roll": [rows - 1, *range(rows - 1)]}
    if partner in expected:
        assert mixing.partners.tolist() == expected[partner]


def test_a_batch_has_one_draw_and_every_batch_its_own():
    mix = Mix(mixup=0.8)
    shares = [plan_of(mix, 8, epoch, position).share for epoch in (0, 1) for position in (0, 8)]
    assert all(len(set(share.tolist())) == 1 for share in shares)
    assert len({float(share[0]) for share in shares}) == 4


def test_pairs_are_mixed_alike_whatever_the_batch_size():
    mix = Mix(mixup=0.8, cutmix=1.0, scope="pair")
    whole = plan_of(mix, 24)
    for size in (2, 4, 8, 12):
        for position in range(0, 24, size):
            part = plan_of(mix, size, position=position)
            rows = slice(position, position + size)
            assert np.array_equal(part.partners + position, whole.partners[rows])
            assert np.array_equal(part.share, whole.share[rows])
            assert np.array_equal(part.box, whole.box[rows])
    assert len(set(whole.share.tolist())) == 12
    odd = plan_of(mix, 5)
    assert odd.partners.tolist() == [1, 0, 3, 2, 4]
    assert odd.share[4] == 1


def test_bad_rows_are_neither_mixed_nor_mixed_in():
    valid = np.array([True, False, True, True, True, False, True, True])
    mixing = Mixer(Mix(mixup=1.0), 3, SIZE).plan(0, 0, valid)
    for row, partner in enumerate(mixing.partners.tolist()):
        assert valid[row] and valid[partner] if partner != row else mixing.share[row] == 1
    assert mixing.partners.tolist() == [7, 1, 2, 4, 3, 5, 6, 0]


def test_mixing_ends_with_its_epoch():
    mix = Mix(mixup=1.0, off_epoch=3)
    assert plan_of(mix, 4, epoch=2).partners.tolist() == [3, 2, 1, 0]
    last = plan_of(mix, 4, epoch=3)
    assert last.partners.tolist() == [0, 1, 2, 3]
    assert last.share.tolist() == [1.0] * 4


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_sum_to_one(smoothing):
    labels = np.array([0, 4, 2, 1, 3, 0])
    mixing = plan_of(Mix(mixup=0.8, scope="row", partner="roll"), 6)
    targets = soft_targets(labels, mixing, 5, smoothing)
    assert targets.dtype == np.float32
    assert np.allclose(targets.sum(axis=1), 1, atol=1e-6)
    low = smoothing / 5
    own = np.where(labels == labels[mixing.partners], 1.0, mixing.share)
    for row, label in enumerate(labels):
        assert targets[row, label] == pytest.approx(low + (1 - smoothing) * own[row], abs=1e-6)


def test_targets_of_rows_without_a_class_and_of_several_labels():
    mixing = plan_of(Mix(smoothing=0.1), 3)
    targets = soft_targets(np.array([1, -1, -100]), mixing, 2, 0.1)
    assert np.allclose(targets, [[0.05, 0.95], [0, 0], [0, 0]])
    many = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
    mixing = plan_of(Mix(mixup=0.8), 2)
    share = mixing.share[0]
    assert np.allclose(
        soft_targets(many, mixing, 3, 0.0)[0], share * many[0] + (1 - share) * many[1]
    )


def test_a_blend_is_rounded_to_the_nearest_level():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 2, 9, 7, 3), np.uint8)
    mixing = plan_of(Mix(mixup=1.0, scope="row", partner="roll"), 6)
    share = mixing.share.astype(np.float64)[:, None, None, None, None]
    exact = share * images + (1 - share) * images[mixing.partners]
    assert np.abs(mix_images(images, mixing) - exact).max() <= 0.5 + 1 / 256


def test_a_recipe_with_mix_is_read_back_equal():
    recipe = parse_recipe({"ops": [], "mix": {"mixup": 0.2, "cutmix": 1, "off_epoch": 9}})
    assert parse_recipe(expand(recipe)) == recipe
    assert recipe_from_toml(recipe_to_toml(recipe)) == recipe
    assert "mix" not in expand(parse_recipe("imagenet"))


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"mixup": -1}, r"recipe\.mix\.mixup: expected 0 <= mixup <= 1000, got -1"),
        ({"cutmix": float("nan")}, r"recipe\.mix\.cutmix: expected .* got nan"),
        ({"mixp": 1}, r"recipe\.mix\.mixp: expected one of the keys .* Did you mean mixup"),
        ({"mixup": 1, "scope": "rows"}, r"recipe\.mix\.scope: expected one of 'batch', 'pair'"),
        ({"mixup": 1, "scope": "pair", "partner": "roll"}, r"recipe\.mix\.partner: expected none"),
        ({"mixup": 1, "switch": 2}, r"recipe\.mix\.switch: expected 0 <= switch <= 1, got 2"),
        ({"mixup": 1, "off_epoch": -1}, r"recipe\.mix\.off_epoch: expected 0 or more, got -1"),
        ({"smoothing": 1}, r"recipe\.mix\.smoothing: expected 0 <= smoothing < 1"),
        ({}, r"recipe\.mix\.mixup: expected an alpha above 0"),
        (5, r"recipe\.mix: expected mapping or nothing, got 5"),
    ],
)
def test_bad_mixes_are_named(mix, said):
    with pytest.raises(augd.RecipeError, match=said):
        parse_recipe({"ops": [], "mix": mix})


KNOWN = [
    (3, 0.773597, True, [0, 144, 142, 224]),
    (2, 0.712327, False, [0, 0, 0, 0]),
    (0, 0.179444, False, [0, 0, 0, 0]),
    (1, 0.83821, True, [0, 0, 82, 99]),
    (5, 0.659382, False, [0, 0, 0, 0]),
    (4, 0.467953, True, [7, 82, 195, 224]),
]


def test_known_answers():
    """Frozen: a change of these numbers changes the images of streams that are resumed."""
    mixing = plan_of(Mix(mixup=0.8, cutmix=1.0, scope="row", partner="permutation"), 6, 2, 40, 7)
    found = [
        (partner, round(share, 6), cut, box)
        for partner, share, cut, box in zip(
            mixing.partners.tolist(),
            mixing.share.tolist(),
            mixing.is_cut.tolist(),
            mixing.pixels(*SIZE).tolist(),
            strict=True,
        )
    ]
    assert found == KNOWN
