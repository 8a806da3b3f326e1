"""Principal components of colours: against a covariance that is known, and their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augd.cli.options import PcaOptions
from augd.cli.pca import Moments, choose, find_components, measure, op_as_toml, run_pca
from augd.errors import DatasetError
from augd.plan.ops.all_ops import Pca
from augd.plan.recipe.recipe import recipe_from_toml
from tests.support.scenes import caught_noise

# Columns of length one, at right angles, each with a positive first entry.
VECTORS = np.linalg.qr(np.array([[2.0, 1.0, 0.3], [2.0, -1.0, 1.0], [1.0, 0.0, -2.0]]))[0]
VECTORS = VECTORS * np.sign(VECTORS[0])
SPREAD = np.array([0.2, 0.08, 0.03])  # standard deviations in [0, 1]


def made_photo(rng: np.random.Generator, height: int = 30, width: int = 40) -> np.ndarray:
    noise = np.clip(rng.standard_normal((height, width, 3)), -2, 2) * SPREAD
    colours = (0.5 + noise @ VECTORS.T) * 255
    assert colours.min() > -20
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def test_moments_are_exact() -> None:
    rng = np.random.default_rng(1)
    photo = rng.integers(0, 256, (1100, 1000, 3), np.uint8)
    found = measure(photo)
    pixels = photo.reshape(-1, 3).astype(np.int64)
    products = pixels.T @ pixels
    assert found.num_pixels == 1_100_000
    assert found.sums == tuple(pixels.sum(axis=0).tolist())
    assert found.products == tuple(products[np.triu_indices(3)].tolist())


def test_a_known_covariance_is_found() -> None:
    rng = np.random.default_rng(2)
    photos = [made_photo(rng, height, 40) for height in [20, 30, 60] * 20]
    components = find_components([measure(photo) for photo in photos])
    pixels = [photo.reshape(-1, 3) / 255 for photo in photos]
    mean = np.mean([one.mean(axis=0) for one in pixels], axis=0)
    covariance = np.mean([(one - mean).T @ (one - mean) / len(one) for one in pixels], axis=0)
    rebuilt = components.eigvec @ np.diag(components.eigval) @ components.eigvec.T
    np.testing.assert_allclose(rebuilt, covariance, atol=1e-12)
    np.testing.assert_allclose(components.mean, mean, atol=1e-12)
    # Clipped at two sigmas, a normal variance is 0.92 of what it was.
    np.testing.assert_allclose(components.eigval, 0.92 * SPREAD**2, rtol=0.03)
    assert (np.abs((components.eigvec * VECTORS).sum(axis=0)) > 0.999).all()
    assert (components.eigvec[0] > 0).all(), "signs are fixed"


def test_every_photo_counts_the_same() -> None:
    small, large = measure(np.zeros((2, 2, 3), np.uint8)), measure(np.full((40, 50, 3), 255, "u1"))
    components = find_components([small, large])
    np.testing.assert_allclose(components.mean, 0.5)
    np.testing.assert_allclose(components.eigval, [0.75, 0, 0], atol=1e-12)
    np.testing.assert_allclose(components.eigvec[:, 0], 3**-0.5)
    assert find_components([large, small]).eigval.tolist() == components.eigval.tolist()


def test_the_errors_are_those_of_other_samples() -> None:
    """The jackknife's standard error, beside the spread over 150 datasets of one law."""
    rng = np.random.default_rng(3)

    def dataset() -> list[Moments]:
        levels = rng.normal(120, 40, (60, 1, 1, 1)) + rng.normal(0, 10, (60, 2, 2, 3))
        return [measure(np.clip(one, 0, 255).astype(np.uint8)) for one in levels]

    found = [find_components(dataset()) for _ in range(150)]
    spread = np.std([one.eigval for one in found], axis=0)
    said = np.mean([one.errors for one in found], axis=0)
    np.testing.assert_allclose(said, spread, rtol=0.3)


def test_the_op_reads_back() -> None:
    rng = np.random.default_rng(4)
    components = find_components([measure(made_photo(rng)) for _ in range(4)])
    text = op_as_toml(components, "4 of 4 photos")
    (op,) = recipe_from_toml(text).ops
    assert isinstance(op, Pca)
    np.testing.assert_allclose(op.eigval, components.eigval, atol=1e-6)
    np.testing.assert_allclose(op.eigvec, components.eigvec, atol=1e-6)
    assert "# Standard errors of eigval" in text


def test_the_choice_is_the_same_when_files_are_added() -> None:
    paths = [f"a/{number}.jpg".encode() for number in range(500)]
    chosen = {paths[sample] for sample in choose(paths, 100)}
    assert len(chosen) == 100
    assert chosen == {paths[::-1][sample] for sample in choose(paths[::-1], 100)}
    more = [*paths, *(f"b/{number}.jpg".encode() for number in range(50))]
    assert len(chosen & {more[sample] for sample in choose(more, 100)}) > 80


def test_bad_files_are_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    for number in range(5):
        Image.fromarray(made_photo(rng)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    out = tmp_path / "pca.toml"
    with caught_noise():
        run_pca(PcaOptions(path=str(tmp_path), out=str(out), num_samples=100))
    said = capsys.readouterr().out
    assert "5 of 6 photos, 1 bad skipped" in said
    assert "bad.png" in said
    assert "5 of 6 photos, 1 bad skipped" in out.read_text()
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(b"nor this")
    with caught_noise(), pytest.raises(DatasetError, match="at least 2 photos that decode, got 1"):
        run_pca(PcaOptions(path=str(tmp_path), out=str(out), num_samples=100))
