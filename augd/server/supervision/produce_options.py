"""The options of `augd produce`.

`augd/cli/app.py` makes the command line from them, `ray_producers.py` the words that start a relay
on a node of a cluster, and `server/relay/startup.py` the relay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from augd.client.shared_options import (
    ClientKeys,
    DatasetOptions,
    Force,
    InheritedFd,
    Named,
    Pin,
    Plugins,
    Producers,
    Quiet,
    ShardCache,
)
from augd.process.options import Argument, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceOptions(DatasetOptions):
    """Which producers join which daemon.

    Attributes:
        named: datasets by name, as JSON, beside those of `paths`.
        connect: the daemon's address; None is the user's default one.
        lifeline_fd: the relay ends when it is readable.
    """

    paths: Annotated[
        tuple[str, ...],
        Argument("The daemon's datasets, at their paths on this host.", metavar="[NAME=]PATH..."),
    ] = ()
    connect: Annotated[
        str | None, Option("Address of the daemon [your default one].", metavar="ADDR")
    ] = None
    producers: Producers = None
    force: Force = False
    keys: ClientKeys = None
    pin: Pin = False
    plugins: Plugins = ()
    shard_cache: ShardCache = None
    host: Annotated[str | None, Option("Name of this host in `augd status`.", metavar="NAME")] = (
        None
    )
    quiet: Quiet = False
    named: Named = None
    lifeline_fd: InheritedFd = None
