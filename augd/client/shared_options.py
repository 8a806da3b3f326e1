"""Options that several commands share.

The struct of every command that opens a dataset extends `DatasetOptions`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from augd.process.options import Option

Force = Annotated[bool, Option("Allow more than four producers per core.")]
Pin = Annotated[bool, Option("Pin each producer to one core.")]
Quiet = Annotated[bool, Option("Print warnings and errors only.")]
Plugins = Annotated[
    tuple[str, ...],
    Option(
        "Python module with own ops; repeat for more.",
        metavar="MODULE",
        word="--plugin",
        several="module names",
    ),
]
Cache = Annotated[
    str | None, Option("Keep decoded images: ram:8GB, disk:DIR:200GB.", metavar="SPEC")
]
ShardCache = Annotated[
    str | None,
    Option("Keep downloaded shards on disk: /fast:200GB.", metavar="DIR:SIZE"),
]
ClientKeys = Annotated[
    str | None, Option("NAME.key, if the daemon wants one [$AUGD_KEYS].", metavar="FILE")
]
Producers = Annotated[int | None, Option("Producer processes [one per core].", metavar="N")]
AsJson = Annotated[bool, Option("Print one JSON object.", word="--json")]
InheritedFd = Annotated[int | None, Option(is_hidden=True)]
Named = Annotated[str | None, Option(is_hidden=True)]
"""Datasets by name, as JSON, beside those that are given as paths."""

_LinksTo = Annotated[
    tuple[str, ...],
    Option(
        "Follow links out of the dataset to below DIR; repeat for more.",
        metavar="DIR",
        is_path=True,
        is_last=True,
    ),
]
_FollowLinks = Annotated[bool, Option("Follow links out of the dataset to anywhere.", is_last=True)]
_Root = Annotated[
    str | None,
    Option(
        "Folder that a manifest's paths are relative to [its own].",
        metavar="DIR",
        is_path=True,
        is_last=True,
    ),
]
_MaxPixels = Annotated[
    int | None,
    Option("Largest image that is read, in pixels [64,000,000].", metavar="N", is_last=True),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """How a command opens datasets."""

    links_to: _LinksTo = ()
    follow_links: _FollowLinks = False
    root: _Root = None
    max_pixels: _MaxPixels = None

    def apply(self) -> None:
        """Have this process, and every process that it starts, open datasets so.

        The environment carries it (`dataset/access.py`, `pixels/headers/size_limits.py`): no
        command passes it on by hand.

        Raises:
            OptionError: a folder is none, or the number is out of range.
        """
        if self.links_to or self.follow_links or self.root is not None:
            from augd.dataset.access import give_access

            give_access(self.links_to, follow_links=self.follow_links, root=self.root)
        if self.max_pixels is not None:
            from augd.pixels.headers.size_limits import allow_pixels

            allow_pixels(self.max_pixels)
