"""The options of `augd serve` and `augd.serve`.

`augd/cli/app.py` makes the command line from them, `augd.serve` the words that start a daemon, and
`augd/server/daemon/startup.py` the daemon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from augd.client.shared_options import (
    Cache,
    DatasetOptions,
    Force,
    InheritedFd,
    Named,
    Pin,
    Plugins,
    Quiet,
    ShardCache,
)
from augd.process.options import Argument, Option


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions(DatasetOptions):
    """What a daemon serves, and how it is run.

    Attributes:
        named: datasets by name, as JSON, beside those of `paths`.
        listen: at most one path and one port; empty is the user's default path.
        producers: a number, "auto" or "ray:N"; None is one per core.
        ray_keys: a key that may produce, at this path on every node.
        keys: the folder of keys; None needs none.
        ready_fd: gets one line when the daemon serves, or why it cannot.
        lifeline_fd: the daemon drains when it is readable.
        supervisor: pid of the process that the daemon dies with.
        again: of a daemon that replaces one that died: what that one left, as JSON.
    """

    paths: Annotated[
        tuple[str, ...],
        Argument(
            "Folders of images, of class folders, of train/ and val/; .csv, .jsonl; s3://, "
            "https://; or plugin:MODULE:CLASS?ARGUMENT.",
            metavar="[NAME=]PATH...",
        ),
    ] = ()
    listen: Annotated[
        tuple[str, ...],
        Option(
            "ipc://PATH or tcp://HOST:PORT; may be given twice [a private ipc path].",
            metavar="ADDR",
            several="addresses",
        ),
    ] = ()
    insecure: Annotated[
        bool, Option("Accept every client that reaches the port, without keys.")
    ] = False
    keys: Annotated[
        str | None,
        Option(
            "Accept only clients with a key in this folder at the port.",
            metavar="DIR",
            is_path=True,
        ),
    ] = None
    producers: Annotated[
        str | None, Option("Producer processes [one per core].", metavar="N|auto|ray:N")
    ] = None
    force: Force = False
    ray_address: Annotated[
        str, Option("The Ray cluster that ray:N producers run on.", metavar="ADDR")
    ] = "auto"
    ray_keys: Annotated[
        str | None,
        Option("Key of the ray:N producers, at this path on every node.", metavar="FILE"),
    ] = None
    pin: Pin = False
    patience_s: Annotated[
        float | None,
        Option(
            "Kill a producer that has work and sends nothing for S seconds [30].",
            metavar="S",
            word="--patience",
        ),
    ] = None
    plugins: Plugins = ()
    cache: Cache = None
    shard_cache: ShardCache = None
    http: Annotated[
        str | None, Option("Serve the web page at this address.", metavar="HOST:PORT")
    ] = None
    http_token: Annotated[
        str | None,
        Option(
            "File with the token that the page asks for [no token].",
            metavar="FILE",
            is_path=True,
        ),
    ] = None
    log_format: Annotated[str, Option("Format of the log.", metavar="text|json")] = "text"
    quiet: Quiet = False
    named: Named = None
    lifeline_fd: InheritedFd = None
    ready_fd: InheritedFd = None
    supervisor: Annotated[int | None, Option(is_hidden=True)] = None
    again: Annotated[str | None, Option(is_hidden=True)] = None
