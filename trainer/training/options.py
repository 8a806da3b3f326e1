"""The options of a run, one struct per part: where samples come from, and what is learnt how.

The commands `trainer fit` and `trainer features` are made from them, and `augd.torch.fit` takes the
same names. Apart from the work: the help and a mistyped option need not wait for torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import augd
from augd.process.options import Argument, Option, fields_of

Producers = Annotated[
    int | None,
    Option("Producer processes [one per core].", metavar="N", least=1, is_last=True),
]
Device = Annotated[str | None, Option("cpu, cuda or cuda:N [cuda if any].", is_last=True)]
AsJson = Annotated[bool, Option("End with one JSON object on stdout.", word="--json", is_last=True)]
Connect = Annotated[str | None, Option("Read from a running daemon instead.", metavar="ADDR")]
Keys = Annotated[
    str | None, Option("NAME.key, if that daemon wants one [$AUGD_KEYS].", metavar="FILE")
]
DatasetName = Annotated[
    str | None, Option("Which one, if the daemon serves several.", metavar="NAME")
]
BatchSize = Annotated[int, Option("Images per batch.", metavar="B", least=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesOptions:
    """Where samples come from. Exactly one of `path` and `connect` is given."""

    path: Annotated[
        str | None,
        Argument("Folder of class folders, of train/ and val/; or .csv, .jsonl.", metavar="PATH"),
    ] = None
    connect: Connect = None
    keys: Keys = None
    dataset: DatasetName = None
    max_bad_fraction: Annotated[
        float,
        Option("Share of a stream's images that may be bad.", metavar="F", least=0, most=1),
    ] = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningOptions(SamplesOptions):
    """What `trainer fit` and `trainer features` have in common."""

    arch: Annotated[
        str,
        Option("Network of torchvision, small-convnet, timm:NAME, hf:DIR or MODULE:CALLABLE?a=1."),
    ] = "resnet18"
    head: Annotated[
        str | None, Option("Layer that tells classes apart [found].", metavar="NAME")
    ] = None
    weights: Annotated[
        str | None,
        Option("DEFAULT, IMAGENET1K_V1, ...; or a .pt or .safetensors file.", metavar="NAME|FILE"),
    ] = None
    recipe: Annotated[
        str, Option("imagenet, deit, eval, none or another preset, or a TOML file with a recipe.")
    ] = "imagenet"
    size: Annotated[int | None, Option("Side of the images [224].", metavar="PX", least=1)] = None
    mean: Annotated[
        str | None,
        Option("Mean of the pixels: imagenet, inception, clip, none or R,G,B.", metavar="M"),
    ] = None
    std: Annotated[str | None, Option("Their deviation, in the same form.", metavar="S")] = None
    val_fraction: Annotated[
        float,
        Option("Share for validation, if the dataset has no val/ or test/.", least=0, most=1),
    ] = 0.1
    batch_size: BatchSize = 64
    epochs: Annotated[int, Option("Length of the run.", metavar="N", least=1)] = 10
    optimizer: Annotated[str, Option("Optimizer: sgd, adamw or rmsprop.")] = "sgd"
    lr: Annotated[
        float | None, Option("Highest learning rate [sgd: 0.1 B/256, others: 0.001].")
    ] = None
    weight_decay: Annotated[
        float | None, Option("Weight decay [sgd: 0.0001, adamw: 0.05, rmsprop: 0].")
    ] = None
    schedule: Annotated[str, Option("Schedule of the learning rate: cosine or constant.")] = (
        "cosine"
    )
    label_smoothing: Annotated[float, Option("Label smoothing: 0.1, for example.", metavar="S")] = (
        0.0
    )
    mixup: Annotated[float, Option("Strength of mixup: 0.2, for example.", metavar="ALPHA")] = 0.0
    dropout: Annotated[
        float | None, Option("Dropout before the head [what the network has].", metavar="P")
    ] = None
    drop_connect: Annotated[float, Option("DropConnect of the head's weights.", metavar="P")] = 0.0
    ema: Annotated[
        float | None,
        Option("Average the weights with this decay: 0.999, for example.", metavar="DECAY"),
    ] = None
    patience: Annotated[
        int | None,
        Option("End a phase after N epochs without improvement.", metavar="N", least=1),
    ] = None
    seed: Annotated[int, Option("Seed of weights, order and augmentation.")] = 0
    producers: Producers = None
    device: Device = None
    out: Annotated[Path, Option("Folder for last.pt and best.pt.", metavar="DIR", is_last=True)] = (
        Path("run")
    )
    as_json: AsJson = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions(LearningOptions):
    """What to train, from where, and how.

    Attributes:
        strategy: None is "auto" with weights, and "scratch" without.
        class_weight: NAME=W each; a class that is not named has 1.
        head_epochs: of the first of two phases; None is half of `epochs`.
        warmup_epochs: None is a twentieth of `epochs` with the schedule "cosine", else none.
    """

    cutmix: Annotated[float, Option("Strength of CutMix: 1, for example.", metavar="ALPHA")] = 0.0
    strategy: Annotated[
        str | None,
        Option("What learns: scratch, head, partial, full, two-phase, auto [auto with weights]."),
    ] = None
    similar: Annotated[
        bool,
        Option(
            "Whether the images resemble those of the weights; for auto.",
            word="--similar/--different",
        ),
    ] = True
    unfreeze: Annotated[
        int, Option("Number of last stages that learn: partial, two-phase.", metavar="N", least=1)
    ] = 1
    head_epochs: Annotated[
        int | None,
        Option("Epochs of two-phase's first phase, for the head [half].", metavar="N", least=1),
    ] = None
    stage_share: Annotated[
        float | None,
        Option(
            "Factor of the learning rate from stage to stage down [upper 1/10, lower 1/100].",
            metavar="F",
        ),
    ] = None
    layer_decay: Annotated[
        float | None,
        Option(
            "Factor of the learning rate from layer to layer down: full, partial; 0.75, say.",
            metavar="F",
        ),
    ] = None
    norms: Annotated[
        str,
        Option("BatchNorm while fine-tuning: frozen, learn, or auto [by the number of images]."),
    ] = "auto"
    balance: Annotated[
        str | None, Option("Draw classes in equal numbers: class.", metavar="class")
    ] = None
    class_weight: Annotated[
        tuple[str, ...],
        Option("Weight of a class in the loss [1]; repeat for more.", metavar="NAME=W"),
    ] = ()
    low_share: Annotated[
        float, Option("Learning rate of two-phase's second phase, as a share.", metavar="F")
    ] = 0.01
    warmup_epochs: Annotated[float | None, Option("Epochs of warm-up [cosine: N/20].")] = None
    amp: Annotated[bool, Option("Compute in float16 on CUDA.")] = False
    resume: Annotated[
        bool, Option("Resume exactly from DIR/last.pt; `--resume auto`: if that exists.")
    ] = False
    resume_auto: Annotated[bool, Option("The same as --resume auto.", is_hidden=True)] = False
    checkpoint_every: Annotated[
        int | None, Option("Also save every N steps.", metavar="N", least=1)
    ] = None
    limit_train_batches: Annotated[
        int | None, Option("Shorten the epochs, for a trial.", metavar="N", least=1)
    ] = None


def check_ranges(options: FitOptions) -> None:
    """Check the numbers that Python passed, as the command line checks those of its words.

    Raises:
        OptionError: names the option, what was expected and found.
    """
    for one in fields_of(FitOptions):
        value, declared = getattr(options, one.name), one.declared
        if value is None or one.kind not in (int, float) or not isinstance(declared, Option):
            continue
        is_number = isinstance(value, int if one.kind is int else (int, float))
        low, high = declared.least, declared.most
        is_inside = is_number and (low is None or value >= low) and (high is None or value <= high)
        if isinstance(value, bool) or not is_inside:
            kind = "a whole number" if one.kind is int else "a number"
            bounds = "" if low is None else f", {low:g} or more"
            bounds += "" if high is None else f", {high:g} at most"
            raise augd.OptionError(f"{one.name}: expected {kind}{bounds}, got {value!r}")
