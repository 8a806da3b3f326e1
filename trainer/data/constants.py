"""The mean and the standard deviation of the pixels that a network was trained with.

Chosen in the training process, before a stream opens. A stream's batches are normalised with them;
a checkpoint keeps them. They belong to the network, so they are no part of a stream's `content`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import augd

Numbers = tuple[float, float, float]  # of R, G, B in [0, 1]
Choice = str | Sequence[float] | None


class Constants(NamedTuple):
    """What pixels x in [0, 1] become: (x - mean) / std, per channel, RGB."""

    mean: Numbers
    std: Numbers


IMAGENET: Final = Constants((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGENET_MEAN, IMAGENET_STD = IMAGENET

# ImageNet's are torchvision's and most of timm's; timm/data/constants.py has all of these.
NAMED: Final = {
    "imagenet": IMAGENET,
    "inception": Constants((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": Constants((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": Constants((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def choose_constants(mean: Choice = None, std: Choice = None) -> Constants:
    """Return the constants that two arguments ask for; each is a name, or three numbers.

    Of a name alone, the other number has the same name. Neither is ImageNet.

    Raises:
        OptionError: an unknown name, numbers that cannot be, or numbers for one of the two only.
    """
    if mean is None and std is None:
        return IMAGENET
    if mean is None or std is None:
        given, other, found = ("std", "mean", std) if mean is None else ("mean", "std", mean)
        if not isinstance(found, str):
            raise augd.OptionError(
                f"{other}: expected three numbers or a name beside {given}={found!r}, got none; "
                "give both"
            )
        mean = std = found
    return Constants(_numbers("mean", mean), _numbers("std", std))


def constants_of(settings: Mapping[str, Any]) -> Constants:
    """Return the constants in a checkpoint's settings; one without any had ImageNet's."""
    if "mean" not in settings:
        return IMAGENET
    return choose_constants(settings["mean"], settings["std"])


def parse_choice(option: str, text: str | None) -> Choice:
    """Read a name or "R,G,B" as a command line has it.

    Raises:
        OptionError: neither.
    """
    if text is None or "," not in text:
        return text
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise augd.OptionError(
            f"{option}: expected {_NAMES} or three numbers such as 0.5,0.5,0.5, got {text!r}"
        ) from None


_NAMES: Final = ", ".join(NAMED)


def _numbers(which: str, choice: str | Sequence[float]) -> Numbers:
    if isinstance(choice, str):
        if choice not in NAMED:
            raise augd.OptionError(f"{which}: expected {_NAMES} or three numbers, got {choice!r}")
        found: Numbers = getattr(NAMED[choice], which)
        return found
    try:
        red, green, blue = (float(number) for number in choice)
    except (TypeError, ValueError):
        raise augd.OptionError(
            f"{which}: expected {_NAMES} or three numbers (of R, G, B in [0, 1]), got {choice!r}"
        ) from None
    numbers = (red, green, blue)
    is_std = which == "std"
    # 124, 116, 104 is ImageNet's mean in grey levels: whoever gives that gets black images.
    if not all(math.isfinite(one) and 0 <= one <= 1 for one in numbers) or (
        is_std and not all(numbers)
    ):
        least = "above 0" if is_std else "0 or more"
        raise augd.OptionError(
            f"{which}: expected numbers {least}, and 1 at most, of pixels in [0, 1], got "
            f"{choice!r}; divide grey levels by 255"
        )
    return numbers
