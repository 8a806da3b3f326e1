"""Today's recipes, per second of CPU: by augd, and by the libraries that they are published for.

Each side makes the rows of the same photos by the same recipe; see
`benchmarks.sides.published_loader`. As published, the others give normalised floats, made on the
CPU. The trainer of augd normalises on the device, so that each is also measured up to its uint8
tensors. And within augd: what RandAugment costs on top of the preset `imagenet`.

timm is in an environment of its own: `python -m benchmarks.peers.install timm`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks._competitors import Start, published_loader, recipe_client
from benchmarks._report import Absent, Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, cost_ratios
from benchmarks.peers.install import is_ready

QUESTION = "How fast are today's recipes?"

# The recipe of augd's, whose recipe it is, the environment, and how many times cheaper it is to be.
_CASES: tuple[tuple[str, str, str, float], ...] = (
    ("deit", "timm", "timm", 3.0),
    ("torchvision-v2", "torchvision", "", 3.0),
    ("dino", "dino", "", 8.0),
)
_RAND_AUGMENT: dict[str, Any] = {
    "fill": "constant",
    "ops": [
        {"op": "random_resized_crop", "size": 224},
        {"op": "mirror"},
        {"op": "rand_augment"},
    ],
}


def run(options: Options) -> list[Figure | Absent]:
    """Measure each recipe on its own; its sides in turns."""
    figures: list[Figure | Absent] = []
    for preset, published, environment, aim in _CASES:
        if environment and not is_ready(environment):
            advice = f"python -m benchmarks.peers.install {environment}"
            figures.append(Absent(preset, f"not measured, for want of it: {advice}"))
            continue
        figures += _case(options, preset, published, environment, aim)
    ours: list[Start] = [
        partial(recipe_client, options, _RAND_AUGMENT, "rand_augment"),
        partial(recipe_client, options, "imagenet", "imagenet"),
    ]
    scores = alternate(ours, rounds=options.rounds, seconds=options.seconds)
    cost = cost_ratios(scores["rand_augment"], scores["imagenet"])
    figures.append(Figure("augd, rand_augment / imagenet", "x CPU", cost, Target("<=", 1.35)))
    for name, found in scores.items():
        figures += rates(f"augd, {name}", found)
    return figures


def _case(
    options: Options, preset: str, published: str, environment: str, aim: float
) -> list[Figure]:
    floats, levels = f"{published}, as published", f"{published}, uint8"
    starts: list[Start] = [
        partial(recipe_client, options, preset, "augd"),
        partial(published_loader, options, published, floats, environment, is_normalised=True),
        partial(published_loader, options, published, levels, environment, is_normalised=False),
    ]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    figures = rates(f"{preset}, augd", scores["augd"])
    for name in (floats, levels):
        ratio = cost_ratios(scores[name], scores["augd"])
        target = Target(">=", aim) if name == floats else None
        figures.append(Figure(f"{preset}: {name} / augd", "x CPU", ratio, target))
        figures += rates(f"{preset}, {name}", scores[name])
    return figures


if __name__ == "__main__":
    run_alone("recipes", QUESTION, run)
