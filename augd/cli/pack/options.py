"""The options of `augd pack` and `augd index`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from augd.client.shared_options import AsJson, DatasetOptions
from augd.process.options import Argument, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class PackOptions(DatasetOptions):
    """How images are packed. Sides in pixels, sizes in megabytes."""

    shard_mb: Annotated[int, Option("Size of a shard, at most.", metavar="MB")] = 256
    short_side_px: Annotated[
        int | None,
        Option("Shrink larger photos to this short side [off].", metavar="PX", word="--short-side"),
    ] = None
    quality: Annotated[int, Option("JPEG quality of shrunk photos.", metavar="Q")] = 90
    num_workers: Annotated[
        int | None,
        Option("Processes that pack [one per core].", metavar="N", word="--workers"),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PackCommandOptions(PackOptions):
    """What to pack, and into which folder."""

    source: Annotated[str, Argument("Any dataset that `augd serve` takes.", metavar="SRC")]
    target: Annotated[str, Argument("A new folder, or one begun before.", metavar="DST")]
    as_json: AsJson = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOptions(DatasetOptions):
    """Which dataset to index, and where the index goes beside the user's cache."""

    source: Annotated[
        str,
        Argument("Folder of WebDataset's .tar shards; or s3://, https://.", metavar="SRC"),
    ]
    beside: Annotated[bool, Option("For shards on S3: write augd.index next to them.")] = False
    out: Annotated[
        str | None,
        Option("For shards on S3 or HTTP: also write augd.index here.", metavar="FILE"),
    ] = None
    rebuild: Annotated[bool, Option("For any dataset: scan all of it again.")] = False
    as_json: AsJson = False
