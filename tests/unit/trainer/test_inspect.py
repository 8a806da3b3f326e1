"""What `trainer.evaluation.inspect` shows, against arithmetic by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import augd
from tests.support.learning import subject_of
from trainer.cli.inspect import _Inspection, in_detail
from trainer.data.host_feed import Batch
from trainer.evaluation.charts import draw_rows, draw_scatter, overlay
from trainer.evaluation.inspect import (
    Box,
    ChannelPeak,
    cut,
    features,
    field,
    filters,
    find_layer,
    grad_cam,
    project,
    strongest,
)
from trainer.models.stages import find_stages


@pytest.fixture(autouse=True)
def seeded(one_torch_thread):
    torch.manual_seed(8)


class Small(nn.Module):
    """Two convolutions and a global average, whose CAM can be written down."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.pool = nn.AvgPool2d(2)
        self.two = nn.Conv2d(4, 5, 3)
        self.relu = nn.ReLU(inplace)
        self.fc = nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.relu(self.two(self.pool(self.one(images))))
        return self.fc(maps.mean((2, 3)))


class ChannelsLast(nn.Module):
    """Between two permutations maps are (B, H, W, C), as in Swin and in ConvNeXt's blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.mix = nn.Linear(4, 5)
        self.back = Permute()
        self.fc = nn.Linear(5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.back(self.mix(self.one(images).permute(0, 2, 3, 1)))
        return self.fc(maps.mean((2, 3)))


class Permute(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 3, 1, 2)


def test_filters_are_shown_around_grey():
    network = Small()
    image = filters(network)
    weights = network.one.weight.detach()
    first = image[:36, :36].reshape(3, 12, 3, 12, 3)
    assert (first == first[:, :1, :, :1]).all(), "each weight is a square"
    scaled = (weights[0] / weights[0].abs().max() + 1) * 127.5
    assert np.abs(first[:, 0, :, 0] - scaled.permute(1, 2, 0).numpy()).max() <= 0.5
    assert image.shape == (2 * 36 + 2, 2 * 36 + 2, 3)
    with pytest.raises(augd.OptionError, match="Linear has no convolution over the three colours"):
        filters(nn.Linear(2, 2))


def test_a_receptive_field_is_that_of_the_arithmetic():
    network = Small()
    image = torch.randn(1, 3, 24, 24)
    for row, column in ((0, 0), (3, 5), (8, 8)):
        box = field(network, "two", 2, ChannelPeak(0.0, 0, row, column), image)
        # 3 pixels, doubled by the pooling and widened by the first convolution.
        assert box == Box(2 * row, 2 * column, 2 * row + 8, 2 * column + 8)
    assert field(network, "one", 0, ChannelPeak(0.0, 0, 4, 7), image) == Box(4, 7, 7, 10)
    with torch.no_grad():
        network.two.weight.zero_()
    assert field(network, "two", 0, ChannelPeak(0.0, 0, 1, 1), image) == Box(0, 0, 24, 24)
    assert Box(1, 2, 3, 4).scaled(3) == Box(3, 6, 9, 12)


def test_the_strongest_places_are_found():
    network = Small()
    images = torch.randn(10, 3, 16, 16)
    ids = torch.arange(10) + 100
    valid = torch.ones(10, dtype=torch.bool)
    valid[4] = False
    batches = [
        Batch((images[a:b], ids[a:b], ids[a:b], valid[a:b]), (0, 0, a))
        for a, b in ((0, 4), (4, 5), (5, 10))
    ]
    best = strongest(network, "two", batches, 3)
    with torch.no_grad():
        maps = network.two(network.pool(network.one(images)))
    assert len(best) == 5
    for channel, places in enumerate(best):
        peaks = {int(n) + 100: maps[n, channel].max().item() for n in range(10) if valid[n]}
        expected = sorted(peaks, key=lambda sample: -peaks[sample])[:3]
        assert [place.sample for place in places] == expected
        for place in places:
            value = maps[place.sample - 100, channel, place.row, place.column]
            assert value.item() == pytest.approx(place.value, rel=1e-5)
            assert place.value == pytest.approx(peaks[place.sample], rel=1e-5)
    assert not network.two._forward_hooks


@pytest.mark.parametrize("inplace", [False, True])
def test_grad_cam_of_an_average_is_cam(inplace):
    """Source: Selvaraju et al. 2017, section 3.1: for such networks both are proportional."""
    network = Small(inplace=inplace).eval().requires_grad_(False)
    images = torch.randn(6, 3, 20, 20)
    heat, classes = grad_cam(network, "relu", images)
    with torch.no_grad():
        assert torch.equal(classes, network(images).argmax(1))
        maps = network.relu(network.two(network.pool(network.one(images))))
    cam = torch.einsum("bkhw,bk->bhw", maps, network.fc.weight[classes]).relu()
    cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)
    stretched = nn.functional.interpolate(cam[:, None], (20, 20), mode="bilinear")[:, 0]
    assert torch.allclose(heat, stretched, atol=1e-5)
    assert heat.shape == (6, 20, 20) and heat.max() <= 1 and heat.min() >= 0
    other, asked = grad_cam(network, "relu", images, torch.zeros(6, dtype=torch.int64))
    assert (asked == 0).all() and not torch.equal(other, heat)


def test_grad_cam_before_a_relu_in_place():
    plain, inplace = Small().eval(), Small(inplace=True).eval()
    inplace.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 20, 20)
    assert torch.equal(grad_cam(plain, "two", images)[0], grad_cam(inplace, "two", images)[0])


class TestLayers:
    def find(self, arch: str, name: str | None = None) -> str:
        staged = subject_of(arch)
        staged.network.eval()
        image = torch.zeros(1, 3, 64, 64)
        return find_layer(staged.network, staged.stages, name, image)

    def test_the_last_with_maps_is_taken(self):
        assert self.find("resnet18") == "layer4.1"
        assert self.find("shufflenet_v2_x0_5") == "conv5.2"

    def test_others_by_name(self):
        assert self.find("resnet18", "layer2.0.conv1") == "layer2.0.conv1"
        with pytest.raises(
            augd.OptionError, match=r"there is no 'layer9'; did you mean one of lay"
        ):
            self.find("resnet18", "layer9")
        with pytest.raises(augd.OptionError, match=r"gives maps .*, and fc gives none: choose ano"):
            self.find("resnet18", "fc")

    def test_one_that_gives_a_tuple(self):
        attention = "encoder.layers.encoder_layer_0.self_attention"
        network = subject_of("vit_b_32", 3)
        with pytest.raises(augd.OptionError, match=rf"and {attention} gives none: choose ano"):
            find_layer(network.network, network.stages, attention, torch.zeros(1, 3, 32, 32))

    def test_channels_last_of_four_are_no_maps(self):
        network = ChannelsLast()
        stages = find_stages(network, (16, 16))
        image = torch.zeros(1, 3, 16, 16)
        assert find_layer(network, stages, "back", image) == "back"
        with pytest.raises(augd.OptionError, match=r"\(B, C, H, W\), and mix gives none"):
            find_layer(network, stages, "mix", image)


def test_features_are_what_the_head_gets():
    network = Small().eval()
    images = torch.randn(3, 3, 16, 16)
    found = features(network, find_stages(network, (16, 16)), images)
    with torch.no_grad():
        assert torch.equal(network.fc(found), network(images))


def test_projections():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(40, 6)).astype(np.float32) * [9, 4, 1, 1, 1, 1]
    points = points.astype(np.float32)
    found = project(points, "pca")
    centred = points - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    for column in range(2):
        by_hand = centred @ axes[column]
        assert abs(np.corrcoef(found[:, column], by_hand)[0, 1]) == pytest.approx(1, abs=1e-4)
    apart = np.concatenate([points[:20], points[20:] + 200])
    plane = project(apart, "tsne")
    assert np.array_equal(plane, project(apart, "tsne")), "the same each time"
    between = np.linalg.norm(plane[:20].mean(0) - plane[20:].mean(0))
    within = max(plane[:20].std(), plane[20:].std())
    assert between > 2 * within


def test_a_recipe_in_detail_shows_the_same_part():
    recipe = {
        "ops": [{"op": "resize", "short": 256}, {"op": "center_crop", "size": [224, 200]}],
        "filter": "linear",
    }
    assert in_detail(recipe, 3) == {
        "ops": [{"op": "resize", "short": 768}, {"op": "center_crop", "size": [672, 600]}],
        "filter": "linear",
    }


def test_several_labels_per_image_are_refused():
    images = torch.zeros(2, 3, 8, 8)
    rows = (images, torch.zeros(2, 3), torch.arange(2), torch.ones(2, dtype=torch.bool))
    stream = SimpleNamespace(
        epoch=lambda epoch: iter([Batch(rows, (epoch, 0, 0))]), classes=["a"], dataset="tags"
    )
    inspection = object.__new__(_Inspection)
    inspection._stream = stream
    with pytest.raises(augd.DatasetError, match="'tags' has targets, and no class per image;"):
        inspection._first_batch()


def test_cut_keeps_the_sides_ratio():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:30, 20:30] = 255
    part = cut(image, Box(10, 20, 30, 30), 16)
    assert part.shape == (16, 16, 3) and (part[:, 4:12] == 255).all()
    assert (part[:, :4] == 0).all() and (part[:, 12:] == 0).all()


def test_charts_draw_what_they_are_given():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    labels = np.array([0, 1, 11])
    classes = [str(n) for n in range(12)]
    dots = draw_scatter(points, labels, classes, "title")
    red = [np.full((8, 8, 3), (255, 0, 0), np.uint8)] * 3
    thumbs = draw_scatter(points, labels, classes, "title", red)
    pure = (thumbs == (255, 0, 0)).all(2).sum()
    assert pure > 3 * 20 * 20 and (dots == (255, 0, 0)).all(2).sum() == 0
    rows = draw_rows([("a", red), ("b", red[:1])], "title")
    assert (rows == (255, 0, 0)).all(2).sum() > 4 * 50 * 50
    warm = overlay(red[0], np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    assert warm[0, 0, 2] > warm[7, 7, 2] and warm[7, 7, 1] > 100, "from blue to yellow"
