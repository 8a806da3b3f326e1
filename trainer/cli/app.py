"""The trainer's command line: options in, one line of error or the work of a module out.

Holds no logic of its own. Every command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from augd.errors import AugdError

app = typer.Typer(
    name="trainer",
    help="Train networks on augd's streams.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


SamplesPath = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH", help="Folder of class folders, of train/ and val/; or .csv, .jsonl."
    ),
]
Connect = Annotated[
    str | None, typer.Option(metavar="ADDR", help="Read from a running daemon instead.")
]
Keys = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="NAME.key, if that daemon wants one [$AUGD_KEYS]."),
]
Dataset = Annotated[
    str | None, typer.Option(metavar="NAME", help="Which one, if the daemon serves several.")
]
MaxBadFraction = Annotated[
    float,
    typer.Option(min=0, max=1, metavar="F", help="Share of a stream's images that may be bad."),
]
Producers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Producer processes [one per core].")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N [cuda if any].")]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]

Arch = Annotated[str, typer.Option(help="Network of torchvision.models, or small-convnet.")]
Recipe = Annotated[
    str, typer.Option(help="imagenet, keras-small, eval, none, or a TOML file with a recipe.")
]
Size = Annotated[int | None, typer.Option(min=1, metavar="PX", help="Side of the images [224].")]
ValFraction = Annotated[
    float,
    typer.Option(min=0, max=1, help="For validation, if the data set has no val/ or test/."),
]
BatchSize = Annotated[int, typer.Option(min=1, metavar="B")]
HeldBack = Annotated[str | None, typer.Option(metavar="train|val|test", help="[test, else val].")]
Optimizer = Annotated[str, typer.Option(help="sgd, adamw or rmsprop.")]
Rate = Annotated[
    float | None, typer.Option(help="Highest learning rate [sgd: 0.1 B/256, others: 0.001].")
]
WeightDecay = Annotated[float | None, typer.Option(help="[sgd: 0.0001, adamw: 0.05, rmsprop: 0]")]
Schedule = Annotated[str, typer.Option(help="cosine or constant.")]
LabelSmoothing = Annotated[float, typer.Option(metavar="S", help="0.1, say.")]
Mixup = Annotated[float, typer.Option(metavar="ALPHA", help="0.2, say.")]
Dropout = Annotated[
    float | None, typer.Option(metavar="P", help="Before the head [what the network has].")
]
DropConnect = Annotated[float, typer.Option(metavar="P", help="Of the head's weights.")]
Ema = Annotated[
    float | None, typer.Option(metavar="DECAY", help="Average the weights: 0.999, say.")
]
Patience = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="End a phase after N epochs without a better one."),
]
Seed = Annotated[int, typer.Option(help="Decides weights, order and augmentation.")]


@app.callback()
def _root() -> None:
    """Train networks on augd's streams."""


@app.command(epilog="Example: trainer fit photos/ --arch resnet18 --epochs 30 --out run")
def fit(
    path: SamplesPath = None,
    connect: Connect = None,
    keys: Keys = None,
    dataset: Dataset = None,
    max_bad_fraction: MaxBadFraction = 0.01,
    arch: Arch = "resnet18",
    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="DEFAULT, IMAGENET1K_V1, ...; or a .pt file."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="scratch, head, partial, full, two-phase, auto [auto with weights]."),
    ] = None,
    similar: Annotated[
        bool, typer.Option("--similar/--different", help="To the weights' images; for auto.")
    ] = True,
    unfreeze: Annotated[
        int, typer.Option(min=1, metavar="N", help="Last stages that learn: partial, two-phase.")
    ] = 1,
    head_epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of two-phase, for the head [half].")
    ] = None,
    stage_share: Annotated[
        float | None,
        typer.Option(metavar="F", help="Rate from stage to stage down [upper 1/10, lower 1/100]."),
    ] = None,
    low_share: Annotated[
        float, typer.Option(metavar="F", help="Rate of two-phase's second phase.")
    ] = 0.01,
    recipe: Recipe = "imagenet",
    size: Size = None,
    val_fraction: ValFraction = 0.1,
    batch_size: BatchSize = 64,
    epochs: Annotated[int, typer.Option(min=1, metavar="N")] = 10,
    optimizer: Optimizer = "sgd",
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = "cosine",
    warmup_epochs: Annotated[
        float | None, typer.Option(help="Rising learning rate at first [cosine: N/20].")
    ] = None,
    label_smoothing: LabelSmoothing = 0.0,
    mixup: Mixup = 0.0,
    dropout: Dropout = None,
    drop_connect: DropConnect = 0.0,
    ema: Ema = None,
    patience: Patience = None,
    seed: Seed = 0,
    producers: Producers = None,
    device: Device = None,
    amp: Annotated[bool, typer.Option("--amp", help="Compute in float16 on CUDA.")] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets last.pt and best.pt.")] = Path(
        "run"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from DIR/last.pt, exactly.")
    ] = False,
    checkpoint_every: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Save every N steps, too.")
    ] = None,
    limit_train_batches: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Shorten the epochs, for a trial.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a network, from the beginning or from weights, and validate it after every epoch.

    Exits with 1 when something is wrong, and with 130 after Ctrl-C, which saves.
    """
    given = dict(locals())
    from .fit import FitOptions, run_fit

    raise typer.Exit(run_fit(FitOptions(**given)))


@app.command(epilog="Example: trainer features photos/ --arch resnet50 --weights DEFAULT")
def features(
    path: SamplesPath = None,
    connect: Connect = None,
    keys: Keys = None,
    dataset: Dataset = None,
    max_bad_fraction: MaxBadFraction = 0.01,
    arch: Arch = "resnet18",
    weights: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="DEFAULT, IMAGENET1K_V1, ...; or a .pt file.")
    ] = "DEFAULT",
    recipe: Recipe = "eval",
    size: Size = None,
    passes: Annotated[
        int, typer.Option(min=1, metavar="K", help="Epochs to store, each augmented differently.")
    ] = 1,
    val_fraction: ValFraction = 0.1,
    batch_size: BatchSize = 64,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Of the head.")] = 30,
    optimizer: Optimizer = "sgd",
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    schedule: Schedule = "cosine",
    label_smoothing: LabelSmoothing = 0.0,
    mixup: Mixup = 0.0,
    dropout: Dropout = None,
    drop_connect: DropConnect = 0.0,
    ema: Ema = None,
    patience: Patience = None,
    seed: Seed = 0,
    producers: Producers = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets features/ and best.pt.")] = Path(
        "features"
    ),
    as_json: AsJson = False,
) -> None:
    """Store what a frozen network makes of each image, and train a new head on that in seconds.

    Asked again, it uses what is stored; of other weights, recipe or samples it refuses to.
    """
    given = dict(locals())
    from .features import FeaturesOptions, run_features

    raise typer.Exit(run_features(FeaturesOptions(**given)))


@app.command(epilog="Example: trainer evaluate photos/ --checkpoint run/best.pt --views ten-crop")
def evaluate(
    path: SamplesPath = None,
    connect: Connect = None,
    keys: Keys = None,
    dataset: Dataset = None,
    max_bad_fraction: MaxBadFraction = 0.01,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Of trainer fit, or its folder; several are averaged."),
    ] = None,
    split: HeldBack = None,
    views: Annotated[str, typer.Option(help="none, ten-crop or multi-scale.")] = "none",
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="B", help="Images that pass at once.")
    ] = 64,
    producers: Producers = None,
    device: Device = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Gets results.json and confusion.png.")
    ] = Path("evaluation"),
    as_json: AsJson = False,
) -> None:
    """Measure checkpoints on samples that were held back: accuracy, top-5, who is taken for whom.

    With views or several checkpoints, probabilities are averaged after the softmax.
    """
    given = dict(locals())
    from .evaluate import EvaluateOptions, run_evaluate

    raise typer.Exit(run_evaluate(EvaluateOptions(**given)))


@app.command(epilog="Example: trainer inspect photos/ --checkpoint run --layer layer3 --channel 7")
def inspect(
    path: SamplesPath = None,
    connect: Connect = None,
    keys: Keys = None,
    dataset: Dataset = None,
    max_bad_fraction: MaxBadFraction = 0.01,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of trainer fit, or its folder [run].")
    ] = None,
    split: HeldBack = None,
    # More dots than that are a blot, and t-SNE would take days.
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, metavar="N", help="Images to look at.")
    ] = 500,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of patches and Grad-CAM [last maps].")
    ] = None,
    channel: Annotated[
        list[int] | None, typer.Option(metavar="C", help="Of patches [the six strongest].")
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Scatter the images, not dots.")
    ] = False,
    cams: Annotated[int, typer.Option(min=1, metavar="N", help="Images for Grad-CAM.")] = 6,
    batch_size: Annotated[int, typer.Option(min=1, metavar="B")] = 32,
    producers: Producers = None,
    device: Device = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Gets the pictures.")] = Path(
        "inspection"
    ),
) -> None:
    """Draw filters, features by PCA and t-SNE, patches that excite channels, and Grad-CAM."""
    given = dict(locals())
    from .inspect import InspectOptions, run_inspect

    raise typer.Exit(run_inspect(InspectOptions(**given)))


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; errors that are the user's to mend are one line on stderr."""
    try:
        app(args=arguments, prog_name="trainer")
    except AugdError as error:
        print(f"trainer: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        # By its name: whoever asks for --help only, or mistypes, need not wait for torch.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        reason = str(error).partition("\n")[0]
        print(
            f"trainer: error: the device has no memory left ({reason}). Choose a smaller "
            "--batch-size or --size, or end what else runs on it.",
            file=sys.stderr,
        )
        sys.exit(1)
