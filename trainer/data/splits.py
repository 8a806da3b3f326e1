"""The two streams of a run: training and validation samples of one dataset, from one daemon.

Runs in the training process, before the network is built. The dataset's own train/, val/ and test/
decide; if it records none, a hash of each sample's path does. No sample is in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import augd
from augd.errors import counted

from .constants import choose_constants
from .recipes import Recipes, choose_recipes, with_mix
from .stream import Stream, connect

_CLASSES_MIN = 2
_NAMED = 4


@dataclass(frozen=True, slots=True)
class Splits:
    """Two open streams of one dataset; `close()` them, or use this in `with`.

    Attributes:
        training, validation: the streams, of `augd.torch.Stream`.
        validation_name: "val", or "test" of a dataset that has no "val".
        recipes: of both streams, and the size of their images.
        options: what both were opened with: `batch_size`, `seed` and others.
    """

    training: Stream
    validation: Stream
    validation_name: Literal["val", "test"]
    recipes: Recipes
    options: Mapping[str, Any]

    def close(self) -> None:
        self.training.close()
        self.validation.close()

    def __enter__(self) -> Splits:
        """Return the splits themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close both."""
        self.close()


def splits(
    address: str | None = None,
    *,
    recipe: str | Mapping[str, Any] = "imagenet",
    size: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    val_fraction: float = 0.1,
    balance: Literal["class"] | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    label_smoothing: float = 0.0,
    **options: Any,
) -> Splits:
    """Open the training and the validation stream of one dataset, with recipes that match.

    Validation gets images of the training recipe's size, cut from the centre, without randomness.
    The dataset's own train/, val/ and test/ decide which samples are whose; if it records none, a
    hash of each path does.

    Args:
        address: of the daemon, as in `augd.torch.connect`.
        recipe: "imagenet", "keras-small", "eval", "none", a TOML file, or a recipe.
        size: side of the images; None is what the recipe says.
        batch_size: images per batch, of both.
        seed: of order and augmentation.
        val_fraction: share for validation, if the dataset has no val/ or test/.
        balance: "class" draws classes in equal numbers, for training only.
        mean, std: what pixels are normalised with, as in `augd.torch.connect`.
        mixup, cutmix: alphas; the training images are mixed, as with a recipe's `mix`.
        label_smoothing: share of each label that `augd.torch.fit` spreads over all classes.
        options: for both streams, as `augd.torch.connect` takes them: `dataset`, `device`, `keys`,
            `max_bad_fraction`.

    Returns:
        `Splits`, to be closed. `augd.torch.fit` trains on them.

    Raises:
        DatasetError: no classes, a single one, or no samples to train on or to validate with.
        AugdError: as `augd.torch.connect` says.
    """
    constants = choose_constants(mean, std)
    opened = open_splits(
        address,
        with_mix(choose_recipes(recipe, size), mixup, cutmix, label_smoothing),
        balance=balance,
        batch_size=batch_size,
        seed=seed,
        val_fraction=val_fraction,
        **constants._asdict(),
        **options,
    )
    of_fit = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": label_smoothing}
    return replace(opened, options={**opened.options, **of_fit})


def open_splits(
    address: str | None, recipes: Recipes, *, balance: str | None = None, **options: Any
) -> Splits:
    """Open both streams and check that there are classes to tell apart.

    Args:
        address: of the daemon.
        recipes: for either stream.
        balance: of the training stream: "class" draws classes in equal numbers.
        options: for both, as `augd.torch.connect` takes them.

    Raises:
        DatasetError: no classes, a single one, or no samples to train on or to validate with.
        AugdError: as `augd.torch.connect` says.
    """
    training = _open_training(
        address, recipe=recipes.training, split="train", balance=balance, **options
    )
    try:
        refuse_targets(training)
        _check_classes(training.classes)
        refuse_unlabelled(training, "train")

        def open_one(split: str) -> Stream:
            chosen = {**options, "recipe": recipes.validation, "split": split}
            return connect(address, shuffle=False, **chosen)

        validation, name = _open_validation(open_one)
        try:
            refuse_unlabelled(validation, name)
        except BaseException:
            validation.close()
            raise
        return Splits(training, validation, name, recipes, {**options, "balance": balance})
    except BaseException:
        training.close()
        raise


def _open_training(address: str | None, **options: Any) -> Stream:
    try:
        return connect(address, **options)
    except augd.OptionError as error:
        if not _is_about_split(error):
            raise
        raise augd.DatasetError(
            f"nothing to train on: {error} Give the dataset a folder train/, or a smaller "
            "--val-fraction if it has no folders of that kind."
        ) from None


def _open_validation(
    open_one: Callable[[str], Stream],
) -> tuple[Stream, Literal["val", "test"]]:
    """Open "val", or "test" of a dataset that has no other."""
    try:
        return open_one("val"), "val"
    except augd.OptionError as error:
        if not _is_about_split(error):
            raise
        refusal = error
    try:
        return open_one("test"), "test"
    except augd.OptionError:
        raise augd.DatasetError(
            f"nothing to validate with: {refusal} Give the dataset a folder val/ or test/, or a "
            "larger --val-fraction if it has no folders of that kind."
        ) from None


def _is_about_split(error: augd.OptionError) -> bool:
    return str(error).startswith(("split:", "no sample is selected"))


def refuse_targets(stream: Stream) -> None:
    """Refuse a dataset whose labels are no classes.

    Raises:
        DatasetError: says what they are.
    """
    if stream.num_targets:
        first = ", ".join(map(repr, stream.classes[:_NAMED]))
        more = ", ..." if stream.num_targets > _NAMED else ""
        raise augd.DatasetError(
            f"dataset {stream.dataset!r} has {counted(stream.num_targets, 'target')} per image "
            f"({first}{more}), and no class: the trainer learns one class per image. Give it a "
            f"column 'label', or learn from batch.labels in a loop of your own (augd.torch.connect)"
        )


def refuse_unlabelled(stream: Stream, split: str) -> None:
    """Refuse samples that a loss has no label for, and targets, which are no classes.

    Raises:
        DatasetError: says how many there are.
    """
    refuse_targets(stream)
    if stream.num_unlabelled:
        raise augd.DatasetError(
            f"{stream.num_unlabelled} of the images of split {split!r} of dataset "
            f"{stream.dataset!r} have no class, so there is no loss of them: put them into class "
            f"folders, or name another split; `augd check` counts them"
        )


def _check_classes(classes: list[str]) -> None:
    if not classes:
        raise augd.DatasetError(
            "the dataset has no classes, so there is nothing to learn: put the images into a "
            "folder per class, or serve a manifest with a column 'label'"
        )
    if len(classes) < _CLASSES_MIN:
        raise augd.DatasetError(
            f"the dataset has one class only ({classes[0]!r}), so there is nothing to tell "
            "apart: add a folder of images of another class"
        )
