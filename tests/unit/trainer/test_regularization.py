"""Mixed samples, soft labels, averaged weights and schedules, each against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from trainer.training.optimizers import make_optimiser, share_of_rate
from trainer.training.regularization import Average, Mixed, loss_of, mixup


def test_mixup_blends_pairs_and_their_losses():
    torch.manual_seed(3)
    images, labels = torch.randn(6, 3, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    mixed = mixup(images, labels, 0.8)
    assert 0 < mixed.share < 1 and torch.equal(mixed.labels, labels)
    assert not torch.equal(mixed.partners, labels)
    for row, partner in zip(mixed.images, mixed.partners, strict=True):
        candidates = [
            mixed.share * images[i] + (1 - mixed.share) * images[j]
            for i in range(6)
            for j in range(6)
            if labels[j] == partner
        ]
        assert any(torch.allclose(row, one, atol=1e-6) for one in candidates)
    logits = torch.randn(6, 3)
    soft = mixed.share * functional.one_hot(labels, 3).float()
    soft += (1 - mixed.share) * functional.one_hot(mixed.partners, 3)
    by_hand = functional.cross_entropy(logits, soft)
    assert loss_of(logits, mixed, 0.0).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_shares_are_beta():
    torch.manual_seed(0)
    images, labels = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    shares = torch.tensor([mixup(images, labels, 0.4).share for _ in range(2000)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * 1.8), rel=0.08)


def test_smoothing_spreads_a_share_over_all_classes():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    soft = 0.9 * functional.one_hot(labels, 4).float() + 0.1 / 4
    by_hand = -(soft * functional.log_softmax(logits, 1)).sum(1).mean()
    found = loss_of(logits, Mixed(logits, labels, labels, 1.0), 0.1)
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_classes_weigh_the_rows(smoothing):
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 0, 1])
    weights = torch.tensor([0.5, 1.0, 1.5])
    soft = (1 - smoothing) * functional.one_hot(labels, 3).float() + smoothing / 3
    by_hand = -(soft * weights * functional.log_softmax(logits, 1)).sum(1).mean()
    found = loss_of(logits, Mixed(logits, labels, labels, 1.0), smoothing, weights)
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-6)


class TestAverage:
    def test_follows_its_formula(self):
        network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        weight = network[0].weight
        with torch.no_grad():
            weight.fill_(0.0)
        average, expected = Average(network, 0.5), 0.0
        for n in range(12):
            with torch.no_grad():
                weight.fill_(float(n))
            network[1].num_batches_tracked.fill_(n)
            average.update()
            decay = min(0.5, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * n
        assert average.state_dict()["0.weight"].item() == pytest.approx(expected, rel=1e-6)
        assert average.state_dict()["1.num_batches_tracked"] == 11

    def test_is_in_place_only_inside(self):
        network = nn.Linear(2, 2)
        average = Average(network, 0.9)
        before = network.weight.detach().clone()
        with torch.no_grad():
            network.weight.add_(1)
        with average.in_place():
            assert torch.equal(network.weight, before)
        assert torch.equal(network.weight, before + 1)
        with pytest.raises(ZeroDivisionError), average.in_place():
            raise ZeroDivisionError
        assert torch.equal(network.weight, before + 1)


def test_a_constant_rate_may_rise_first():
    shares = [share_of_rate("constant", step, 3, 100) for step in range(6)]
    assert shares == [0.25, 0.5, 0.75, 1, 1, 1]
    assert share_of_rate("constant", 0, 0, 100) == 1


def test_rmsprop_is_that_of_keras():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimiser = make_optimiser([{"params": [weight]}], "rmsprop", 0.1, 0.0)
    mean_square, expected = 0.0, 1.0
    for gradient in (0.5, -2.0, 1.0):
        weight.grad = torch.tensor([gradient])
        optimiser.step()
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        expected -= 0.1 * gradient / (mean_square**0.5 + 1e-7)
    assert weight.item() == pytest.approx(expected, rel=1e-5)
