"""Accuracy, top-5, per class and confusion against counting by hand; averages after the softmax."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from trainer.cli.evaluate import as_text
from trainer.evaluation.charts import draw_confusion
from trainer.evaluation.images import as_seen, contact_sheet
from trainer.evaluation.metrics import Scores
from trainer.evaluation.predict import probabilities
from trainer.training.class_counts import ClassCounts
from trainer.training.distributed import Ranks

CPU = torch.device("cpu")


def test_counts_against_counting_by_hand():
    torch.manual_seed(4)
    classes = [f"c{number}" for number in range(7)]
    shares = torch.randn(50, 7).softmax(1)
    labels = torch.randint(0, 6, (50,))  # the last class has no sample
    scores = Scores(classes, CPU)
    for first in range(0, 50, 8):
        scores.add(shares[first : first + 8], labels[first : first + 8])
    found = scores.as_data()
    ranked = shares.argsort(1, descending=True)
    assert found["samples"] == 50
    assert found["accuracy"] == sum(ranked[i, 0] == labels[i] for i in range(50)) / 50
    assert found["top5"] == sum(labels[i] in ranked[i, :5] for i in range(50)) / 50
    losses = [-math.log(shares[i, labels[i]]) for i in range(50)]
    assert found["loss"] == pytest.approx(sum(losses) / 50, rel=1e-6)
    for label, one in enumerate(found["classes"]):
        mine = [i for i in range(50) if labels[i] == label]
        assert (one["name"], one["samples"]) == (f"c{label}", len(mine))
        hits = sum(int(ranked[i, 0]) == label for i in mine)
        assert one["accuracy"] == (hits / len(mine) if mine else None)
        row = [sum(int(ranked[i, 0]) == other for i in mine) for other in range(7)]
        assert found["confusion"][label] == row
    assert found["classes"][6]["accuracy"] is None


def test_fewer_classes_than_five_and_a_probability_of_nothing():
    scores = Scores(["a", "b"], CPU)
    scores.add(torch.tensor([[1.0, 0.0], [0.25, 0.75]]), torch.tensor([1, 1]))
    found = scores.as_data()
    assert (found["accuracy"], found["top5"]) == (0.5, 1.0)
    assert math.isfinite(found["loss"]) and found["loss"] > 40


class Linear(nn.Module):
    """Logits of an image: its mean per channel, times something."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert len(images) <= 4, "no more rows at once than asked for"
        return images.mean((2, 3)) * self.factor


def test_views_are_averaged_after_the_softmax():
    torch.manual_seed(1)
    views = torch.randn(5, 10, 3, 6, 6) * 4
    found = probabilities(Linear(3.0), views, 4)
    by_hand = torch.stack([(row.mean((2, 3)) * 3).softmax(1).mean(0) for row in views])
    assert torch.allclose(found, by_hand, atol=1e-6)
    of_mean_logits = (views.mean((1, 3, 4)) * 3).softmax(1)
    assert not torch.allclose(found, of_mean_logits, atol=1e-3), "which would be something else"


def test_results_are_written_with_a_row_of_the_matrix_per_line():
    result = {"samples": 3, "confusion": [[1, 0], [0, 2]], "alone": [0.5, 1.0]}
    text = as_text(result)
    assert json.loads(text) == result
    assert text.endswith('  "confusion": [\n    [1, 0],\n    [0, 2]\n  ]\n}\n')


def test_a_confusion_matrix_is_darkest_where_most_are():
    image = draw_confusion([[90, 10], [30, 70]], ["cat", "dog"])
    assert image.dtype == np.uint8 and image.shape[2] == 3 and image.shape[0] > 200
    blues = (image[..., 2].astype(int) - image[..., 0] > 60).mean()
    assert 0.05 < blues < 0.6
    many = draw_confusion(np.eye(60, dtype=int).tolist(), [str(n) for n in range(60)])
    assert many.shape[0] > image.shape[0]


def test_images_undo_the_normalisation():
    from trainer.data.host_feed import HostNormaliser

    rng = np.random.default_rng(0)
    levels = torch.from_numpy(rng.integers(0, 256, (5, 8, 12, 3), np.uint8))
    images = HostNormaliser(torch.float32, channels_last=True)(levels)
    assert np.array_equal(as_seen(images), levels.numpy())
    sheet = contact_sheet(images)
    assert np.array_equal(sheet[:8, :12], levels[0].numpy())
    assert sheet.shape == (3 * 8 + 2 * 2, 2 * 12 + 2, 3)
    assert np.array_equal(sheet[10:18, :12], levels[2].numpy())


class TestClassCounts:
    def counts(self, labels: list[int], num_classes: int = 3) -> ClassCounts:
        found = ClassCounts(list("abcdefgh")[:num_classes], torch.device("cpu"))
        found.add(torch.tensor(labels))
        return found

    def test_all_is_well(self):
        found = self.counts([0, 1, 2, 2])
        assert found.told_of_training(Ranks(), is_balanced=False) == []
        assert found.told_of_validation(Ranks()) == []

    def test_a_class_is_missing(self):
        (line,) = self.counts([1] * 3).told_of_training(Ranks(), is_balanced=False)
        assert line.startswith("No image to train on has the class 'a', 'c': the network cannot")
        (line,) = self.counts([0], 7).told_of_validation(Ranks())
        assert line.startswith(
            "No image to validate with has the class 'b', 'c', 'd', 'e' and 2 more: the accuracy"
        )

    def test_sixteen_to_one(self):
        found = self.counts([0] * 31 + [1, 1, 2, 2])
        assert found.told_of_training(Ranks(), is_balanced=False) == []
        found.add(torch.tensor([0]))
        (line,) = found.told_of_training(Ranks(), is_balanced=False)
        assert line.startswith("Class 'a' has 32 images to train on, and 'b' 2: --balance class")
        assert found.told_of_training(Ranks(), is_balanced=True) == []
