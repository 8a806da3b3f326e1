"""How each competitor is started, with the same work for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from augd.plan.recipe.recipe import expand, parse_recipe
from augd.process.child_environment import ENVIRONMENT
from benchmarks._report import Options
from benchmarks._rounds import Competitor
from benchmarks.peers.install import python_of

BATCH_SIZE = 256
# A photo of three megapixels takes ten times as long: as many batches in a round.
_LARGE_PHOTO_BATCH_SIZE = 32
# The slowest library makes about a hundred rows a second, and what it prefetched is waited for
# after each round. What a row costs does not depend on it.
_ONE_BY_ONE_BATCH_SIZE = 32
# Ten views of a photo take as much memory as five photos.
_RECIPE_BATCH_SIZE = 64

ENVIRONMENT_OF = {"Albumentations": "albumentations"}
"""Libraries of `eight_op_loader` that have a peers' environment of their own."""

_COMPILES_S = 300.0  # FFCV compiles its pipeline before the first batch

Filter = Literal["antialias", "linear"]
Start = Callable[[], Competitor]


def recipe(filter: Filter) -> dict[str, Any]:
    """Write out the preset `imagenet` with this filter."""
    ops = [
        {"op": "random_resized_crop", "size": 224, "scale": [0.08, 1.0]},
        {"op": "mirror", "p": 0.5},
        {"op": "pca", "alpha_std": 0.1, "mode": "eigval"},
    ]
    return {"ops": ops, "filter": filter}


def eight_ops(filter: Filter) -> dict[str, Any]:
    """Write out a recipe of eight ops: four of geometry, which make one matrix, four of colour."""
    ops = [
        {"op": "random_resized_crop", "size": 224},
        {"op": "mirror"},
        {"op": "rotate", "degrees": 10},
        {"op": "shear", "x": 0.1},
        {"op": "brightness", "v": 0.4},
        {"op": "contrast", "v": 0.4},
        {"op": "saturation", "v": 0.4},
        {"op": "pca"},
    ]
    return {"ops": ops, "filter": filter}


def eight_op_client(options: Options, filter: Filter) -> Callable[[], Competitor]:
    """Start augd with a recipe of eight ops."""
    arguments = {**_augd_arguments(options, filter), "recipe": eight_ops(filter)}
    return lambda: Competitor("augd, eight ops", "augd_client", arguments=arguments)


def augd_client(options: Options, filter: Filter) -> Callable[[], Competitor]:
    """Start augd: a daemon, its producers, a client."""
    return lambda: Competitor(
        "augd", "augd_client", arguments=_augd_arguments(options, filter)
    )  # fmt: skip


def cached_client(
    options: Options, plain: dict[str, Any], name: str, cache: str | None, **more: Any
) -> Start:
    """Start augd with a cache that is full before the first round, or with none."""
    arguments = {**_augd_arguments(options, "linear"), "recipe": plain, "cache": cache, **more}
    return lambda: Competitor(name, "augd_client", arguments=arguments)


def new_daemon(
    options: Options,
    plain: dict[str, Any],
    name: str,
    *,
    is_cold: bool,
    cache: str | None = None,
    folder: str = "",
) -> Start:
    """Start what measures a new daemon's first epoch; see `benchmarks.sides.new_daemon`."""
    arguments = {**_augd_arguments(options, "linear"), "recipe": plain, "batch_size": 50}
    arguments |= {"is_cold": is_cold, "cache": cache, "folder": folder}
    return lambda: Competitor(name, "new_daemon", arguments=arguments, ready_s=_COMPILES_S)


def resize_only(options: Options, plain: dict[str, Any], name: str) -> Start:
    """Start the resize kernel alone, on the crops of the same law, from decoded images."""
    arguments = {**_augd_arguments(options, "linear"), "recipe": plain}
    return lambda: Competitor(
        name,
        "resize_only",
        arguments=arguments,
        processes=options.workers,
        environment=ENVIRONMENT,
    )


def ffcv_raw(options: Options, file: str, name: str) -> Start:
    """Start FFCV on a file of decoded photos."""
    arguments = {"file": file, "batch_size": BATCH_SIZE, "workers": options.workers}
    return lambda: Competitor(
        name,
        "peers.ffcv_loader",
        arguments=arguments,
        python=python_of("ffcv"),
        ready_s=_COMPILES_S,
    )


def remote_client(options: Options, filter: Filter, *, has_keys: bool) -> Callable[[], Competitor]:
    """Start augd with a daemon that has no producer, and a relay that lends it all."""
    name = "remote, CURVE" if has_keys else "remote"
    arguments = {**_augd_arguments(options, filter), "remote": name}
    return lambda: Competitor(name, "augd_client", arguments=arguments)


def large_photo_client(
    options: Options, photos: Path, side_px: int, scaled_decode: str
) -> Callable[[], Competitor]:
    """Start augd on other photos, with rows of `side_px` and scaled decoding off or "auto"."""
    plain = recipe("linear")
    plain["ops"][0]["size"] = side_px
    plain["scaled_decode"] = scaled_decode
    arguments = {**_augd_arguments(options, "linear"), "photos": str(photos), "recipe": plain}
    arguments["batch_size"] = _LARGE_PHOTO_BATCH_SIZE
    return lambda: Competitor(scaled_decode, "augd_client", arguments=arguments)


def verifying_client(options: Options, filter: Filter) -> Callable[[], Competitor]:
    """Start augd with a client that digests every byte again."""
    arguments = {**_augd_arguments(options, filter), "verify": True}
    return lambda: Competitor("augd, verify=True", "augd_client", arguments=arguments)


def null_sink(
    options: Options,
    filter: Filter,
    *,
    without: str = "",
    name: str = "null sink",
    processes: int = 0,
) -> Callable[[], Competitor]:
    """Start the producers' work alone, in as many processes or in so many; `without` a safety."""
    workers = processes or options.workers
    return lambda: Competitor(
        name,
        "null_sink",
        arguments={**_augd_arguments(options, filter), "workers": workers, "without": without},
        processes=workers,
        environment=ENVIRONMENT,
    )


def preset_sink(options: Options, preset: str, photos: Path, name: str) -> Callable[[], Competitor]:
    """Start the producers' work alone on a preset, with 2x2 taps, and on these photos."""
    plain = {**expand(parse_recipe(preset)), "filter": "linear"}
    arguments = {**_augd_arguments(options, "linear"), "photos": str(photos), "recipe": plain}
    return lambda: Competitor(
        name,
        "null_sink",
        arguments=arguments,
        processes=options.workers,
        environment=ENVIRONMENT,
    )


def crops(photos: Path, way: str) -> Callable[[], Competitor]:
    """Start reading and decoding crops of 224 px: "segments", "region" or "whole"."""
    arguments = {"photos": str(photos), "side_px": 224, "way": way}
    return lambda: Competitor(way, "crop_reader", arguments=arguments, environment=ENVIRONMENT)


def entropy(options: Options, *, whole: bool) -> Callable[[], Competitor]:
    """Start libjpeg-turbo's entropy decoding alone: whole photos, or down to the crops' ends."""
    name = "whole photos" if whole else "down to the crops' ends"
    arguments = {"photos": str(options.photos), "recipe": recipe("linear"), "whole": whole}
    return lambda: Competitor(name, "entropy", arguments=arguments, environment=ENVIRONMENT)


def sharers(options: Options, filter: Filter, clients: int) -> Callable[[], Competitor]:
    """Start augd with so many clients on one production."""
    arguments = {**_augd_arguments(options, filter), "clients": clients}
    return lambda: Competitor(f"{clients} sharing", "sharers", arguments=arguments)


def torch_loader(options: Options, filter: Filter) -> Callable[[], Competitor]:
    """Start a DataLoader with as many workers."""
    return lambda: Competitor(
        "DataLoader",
        "torch_loader",
        arguments={
            "photos": str(options.photos),
            "filter": filter,
            "batch_size": BATCH_SIZE,
            "workers": options.workers,
        },
    )


def eight_op_loader(options: Options, filter: Filter, library: str) -> Callable[[], Competitor]:
    """Start a DataLoader whose rows get the eight ops one by one, by this library."""
    return lambda: Competitor(
        library,
        "eight_ops_loader",
        arguments={
            "photos": str(options.photos),
            "filter": filter,
            "batch_size": _ONE_BY_ONE_BATCH_SIZE,
            "workers": options.workers,
            "library": library,
        },
        python=python_of(ENVIRONMENT_OF.get(library, "")),
    )


def recipe_client(options: Options, plain: str | dict[str, Any], name: str) -> Competitor:
    """Start augd with a recipe: a preset's name, or plain data."""
    arguments = {**_augd_arguments(options, "antialias"), "recipe": plain}
    arguments["batch_size"] = _RECIPE_BATCH_SIZE
    return Competitor(name, "augd_client", arguments=arguments)


def published_loader(
    options: Options, published: str, name: str, environment: str, *, is_normalised: bool
) -> Competitor:
    """Start a DataLoader whose rows are made by the library that a recipe is published for."""
    arguments = {
        "photos": str(options.photos),
        "recipe": published,
        "batch_size": _ONE_BY_ONE_BATCH_SIZE,
        "workers": options.workers,
        "is_normalised": is_normalised,
    }
    return Competitor(name, "published_loader", arguments=arguments, python=python_of(environment))


def transfer(
    kind: Literal["frames", "plain socket", "rows", "rows, CURVE"],
) -> Callable[[], Competitor]:
    """Start two processes that move slots over loopback."""
    return lambda: Competitor(kind, "transfer", arguments={"receive": kind})


def _augd_arguments(options: Options, filter: Filter) -> dict[str, Any]:
    return {
        "photos": str(options.photos),
        "recipe": recipe(filter),
        "batch_size": BATCH_SIZE,
        "workers": options.workers,
    }
