"""The entry of the `augd` command: `augd serve` starts without loading a command-line library.

It is the supervisor that starts first, which starts the daemon (augd/server/supervisor/loop.py).

The time to the first batch begins when the command is typed, and typer takes a tenth of a second
of it. `read_serve` reads plain `augd serve` lines from the same options struct. `augd/cli/app.py`
reads every other line, and explains what is wrong with it (a typo, --help).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING

from augd.errors import AugdError
from augd.process.command import run
from augd.process.interpreter import leave_working_directory

if TYPE_CHECKING:
    from augd.client.serve_options import ServeOptions


def train(*, is_module: bool = False) -> None:
    """Run the trainer's command line, whatever else has the name `trainer` here."""
    leave_working_directory(is_module=is_module)
    run("trainer", lambda: import_module("augd.torch.cli.app").main())


def main() -> None:
    """Run the command line; errors that are the user's to mend are one line on stderr."""
    leave_working_directory()
    run("augd", lambda: _main(sys.argv[1:]))


def _main(words: list[str]) -> None:
    if words[:1] == ["serve"] and "--supervisor" not in words:
        from augd.server.supervisor.loop import supervise

        sys.exit(supervise(words))  # which starts this program again, with that word
    try:
        _run(words)
    except AugdError as error:
        if (ready_fd := _ready_fd_of(words)) is None:
            raise
        from augd.server.daemon.startup import refuse

        sys.exit(refuse(error, ready_fd))


def _run(words: list[str]) -> None:
    options = read_serve(words)
    if options is None:
        from augd.cli.app import app

        app(args=words, prog_name="augd")
        return
    from augd.server.daemon.startup import serve_forever

    options.apply()
    sys.exit(serve_forever(options))


def _ready_fd_of(words: Sequence[str]) -> int | None:
    """Find the pipe for the reason why a daemon cannot serve, before its options are read."""
    after = dict(pairwise(words)).get("--ready-fd", "")
    return int(after) if words[:1] == ["serve"] and after.isdecimal() else None


def read_serve(words: Sequence[str]) -> ServeOptions | None:
    """Read a plain `serve` line; None when there is anything in it that needs explaining."""
    if not words or words[0] != "serve":
        return None
    from augd.client.serve_options import ServeOptions
    from augd.process.options import read_words

    options = read_words(ServeOptions, words[1:])
    return options if options and (options.paths or options.named is not None) else None
