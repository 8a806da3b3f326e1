"""The `trainer` command: each function is a command, made from its options struct.

Holds no logic of its own. Every command imports what it needs when it runs.
"""

from __future__ import annotations

import sys

from augd.cli.command_line import add_command, make_app, run_app

from .options import (
    EvaluateOptions,
    ExportOptions,
    FeaturesOptions,
    FitOptions,
    InspectOptions,
    PredictOptions,
)

app = make_app("trainer", "Train networks on augd's streams.")


@app.callback()
def _root() -> None:
    """Train networks on augd's streams."""


@add_command(app, "trainer fit photos/ --arch resnet18 --epochs 30 --out run")
def fit(options: FitOptions) -> int:
    """Train a network, from the beginning or from weights, and validate it after every epoch.

    Exits with 1 when something is wrong, with 130 after Ctrl-C and 143 after SIGTERM, which save.
    """
    from .fit import run_fit

    return run_fit(options)


@add_command(app, "trainer features photos/ --arch resnet50 --weights DEFAULT")
def features(options: FeaturesOptions) -> int:
    """Store a frozen network's features of each image, and train a new head on them in seconds.

    A second run reuses what is stored; it rejects features of other weights, recipe or samples.
    """
    from .features import run_features

    return run_features(options)


@add_command(app, "trainer evaluate photos/ --checkpoint run/best.pt --views ten-crop")
def evaluate(options: EvaluateOptions) -> int:
    """Measure checkpoints on samples that were held back: accuracy, top-5, confused classes.

    With views or several checkpoints, probabilities are averaged after the softmax.
    """
    from .evaluate import run_evaluate

    return run_evaluate(options)


@add_command(app, "trainer inspect photos/ --checkpoint run --layer layer3 --channel 7")
def inspect(options: InspectOptions) -> int:
    """Draw filters, features by PCA and t-SNE, patches that excite channels, and Grad-CAM."""
    from .inspect import run_inspect

    return run_inspect(options)


@add_command(app, "trainer predict photos/ --checkpoint run --out predictions.csv")
def predict(options: PredictOptions) -> int:
    """Write what a network says of each image: its class and the probabilities, as CSV or JSONL.

    An image that cannot be read has a line that says so. Exits with 1 if none can be read.
    """
    from .predict import run_predict

    return run_predict(options)


@add_command(app, "trainer export photos/ --checkpoint run --out model.onnx")
def export(options: ExportOptions) -> int:
    """Write a network for other programs, and check it against predict on 20 images.

    ONNX and TorchScript take RGB in 0..1 and give probabilities. Weights alone are as in training.
    """
    from .export import run_export

    return run_export(options)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one line on stderr."""
    try:
        run_app(app, "trainer", _spelled(sys.argv[1:] if arguments is None else arguments))
    except RuntimeError as error:
        # By its name: the help and a mistyped option need not wait for torch.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        reason = str(error).partition("\n")[0]
        print(
            f"trainer: error: the device has no memory left ({reason}). Choose a smaller "
            "--batch-size or --size, or end what else runs on it.",
            file=sys.stderr,
        )
        sys.exit(1)


def _spelled(arguments: list[str]) -> list[str]:
    """Write `--resume auto` as the flag that it is: typer has no option with and without a
    value."""
    words: list[str] = []
    for word in arguments:
        if word == "auto" and words[-1:] == ["--resume"]:
            words[-1] = "--resume-auto"
        else:
            words.append("--resume-auto" if word == "--resume=auto" else word)
    return words
