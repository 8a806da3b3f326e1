"""The options of the trainer's commands, one struct per command.

Apart from the commands' work: the help and a mistyped option need not wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from augd.process.options import Argument, Option

from ..training.options import (
    AsJson,
    BatchSize,
    Connect,
    DatasetName,
    Device,
    FitOptions,
    Keys,
    LearningOptions,
    Producers,
    SamplesOptions,
)

__all__ = [
    "EvaluateOptions",
    "ExportOptions",
    "FeaturesOptions",
    "FitOptions",
    "InspectOptions",
    "PredictOptions",
]

OwnArch = Annotated[
    str | None,
    Option("Own code, or moved folder, of the network: MODULE:CALLABLE, hf:DIR.", metavar="ARCH"),
]
HeldBack = Annotated[
    str | None, Option("Split to read [test, else val].", metavar="train|val|test")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesOptions(LearningOptions):
    """Which features to store, and which head to train on them."""

    weights: Annotated[
        str,
        Option("DEFAULT, IMAGENET1K_V1, ...; or a .pt or .safetensors file.", metavar="NAME|FILE"),
    ] = "DEFAULT"
    recipe: Annotated[
        str, Option("imagenet, deit, eval, none or another preset, or a TOML file with a recipe.")
    ] = "eval"
    passes: Annotated[
        int, Option("Epochs to store, each augmented differently.", metavar="K", least=1)
    ] = 1
    epochs: Annotated[int, Option("Epochs of the head.", metavar="N", least=1)] = 30
    out: Annotated[
        Path, Option("Folder for features/ and best.pt.", metavar="DIR", is_last=True)
    ] = Path("features")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(SamplesOptions):
    """Which checkpoints to measure, and on which samples."""

    checkpoint: Annotated[
        tuple[Path, ...],
        Option("Checkpoint of trainer fit, or its folder; several are averaged.", metavar="FILE"),
    ] = ()
    arch: OwnArch = None
    split: HeldBack = None
    views: Annotated[str, Option("Test-time views: none, ten-crop or multi-scale.")] = "none"
    batch_size: BatchSize = 64
    producers: Producers = None
    device: Device = None
    out: Annotated[
        Path, Option("Folder for results.json and confusion.png.", metavar="DIR", is_last=True)
    ] = Path("evaluation")
    as_json: AsJson = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions(SamplesOptions):
    """Which checkpoint to look into, and with which samples."""

    checkpoint: Annotated[
        Path | None, Option("Checkpoint of trainer fit, or its folder [run].", metavar="FILE")
    ] = None
    arch: OwnArch = None
    split: HeldBack = None
    # More dots than that are a blot, and t-SNE would take days.
    limit: Annotated[
        int, Option("Number of images to read.", metavar="N", least=1, most=100_000)
    ] = 500
    layer: Annotated[
        str | None, Option("Layer of patches and Grad-CAM [last maps].", metavar="NAME")
    ] = None
    channel: Annotated[
        tuple[int, ...],
        Option("Channel of patches; repeat for more [the six strongest].", metavar="C"),
    ] = ()
    thumbnails: Annotated[bool, Option("Scatter the images, not dots.")] = False
    cams: Annotated[int, Option("Number of images for Grad-CAM.", metavar="N", least=1)] = 6
    batch_size: BatchSize = 32
    producers: Producers = None
    device: Device = None
    out: Annotated[Path, Option("Folder for the image files.", metavar="DIR", is_last=True)] = Path(
        "inspection"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesOptions:
    """Which images, of any labels or none. `paths` are given, or `connect`."""

    paths: Annotated[
        tuple[str, ...],
        Argument("Image files; or folders, .csv or .jsonl manifests.", metavar="[PATH]..."),
    ] = ()
    connect: Connect = None
    keys: Keys = None
    dataset: DatasetName = None
    arch: OwnArch = None
    producers: Producers = None
    device: Device = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions(ImagesOptions):
    """Which checkpoints to ask, about which images, and where the answers go.

    Attributes:
        out: None is stdout; a suffix decides the format.
    """

    checkpoint: Annotated[
        tuple[Path, ...],
        Option("Checkpoint of trainer fit, or its folder; several are averaged.", metavar="FILE"),
    ] = ()
    views: Annotated[str, Option("Test-time views: none, ten-crop or multi-scale.")] = "none"
    top: Annotated[
        int | None, Option("Only the K likeliest classes of each image.", metavar="K", least=1)
    ] = None
    max_bad_fraction: Annotated[
        float, Option("Share of the images that may be bad.", metavar="F", least=0, most=1)
    ] = 1.0
    batch_size: BatchSize = 64
    format: Annotated[
        str | None, Option("csv or jsonl [as --out ends, else csv].", metavar="csv|jsonl")
    ] = None
    out: Annotated[
        Path | None, Option("File for the answers [stdout].", metavar="FILE", is_last=True)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions(ImagesOptions):
    """Which checkpoint to write in which form, and with which images to check it."""

    checkpoint: Annotated[
        Path | None, Option("Checkpoint of trainer fit, or its folder [run].", metavar="FILE")
    ] = None
    max_bad_fraction: Annotated[
        float, Option("Share of the images that may be bad.", metavar="F", least=0, most=1)
    ] = 1.0
    out: Annotated[
        Path,
        Option(
            "File: .onnx, .torchscript, .safetensors or .pt; FILE.json says the preprocessing.",
            metavar="FILE",
            is_last=True,
        ),
    ] = Path("model.onnx")
