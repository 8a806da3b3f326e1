"""A small network for a first dataset: five convolutions and a dropout.

An `--arch` beside torchvision's. Small enough to train from scratch on two thousand images. It has
no normalisation layers, so that rows do not influence each other.
"""

from __future__ import annotations

from torch import Tensor, nn

import augd

from .head import Head

SIDE_PX = 180
_WIDTHS = (32, 64, 128, 256, 256)
_DROPOUT = 0.5
_SIDE_MIN_PX = 78  # the smallest side that leaves one pixel after five convolutions


class SmallConvNet(nn.Module):
    """Five 3 x 3 convolutions of 32-64-128-256-256 channels, a pooling after each but the last.

    Images (B, 3, H, W) to logits (B, K). As in the source: no padding, ReLU, Glorot's uniform
    weights, dropout of half the features. Two things differ: a softmax over the classes where it
    has one sigmoid, and colours normalised as for ImageNet where it divides by 255.

    Source: Chollet, Deep Learning with Python, 2nd edition 2021, section 8.2.
    """

    def __init__(self, num_classes: int, size_px: tuple[int, int] = (SIDE_PX, SIDE_PX)) -> None:
        """Draw new weights, for images of one size.

        Raises:
            OptionError: the images are too small for five convolutions.
        """
        super().__init__()
        if min(size_px) < _SIDE_MIN_PX:
            raise augd.OptionError(
                f"--arch: small-convnet takes images from {_SIDE_MIN_PX} px on, got "
                f"{size_px[0]} x {size_px[1]} px; raise --size"
            )
        layers: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(_WIDTHS):
            if number:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        height, width = (_left_over(side_px) for side_px in size_px)
        self.classifier = Head(channels * height * width, num_classes, dropout=_DROPOUT)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.features(images)
        logits: Tensor = self.classifier(maps.flatten(1))
        return logits


def _left_over(side_px: int) -> int:
    for number in range(len(_WIDTHS)):
        side_px = (side_px // 2 if number else side_px) - 2
    return side_px
