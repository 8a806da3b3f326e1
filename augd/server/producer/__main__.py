"""The program of a producer: `augd.server.producer LINK_FD SAMPLE_FD PID FETCH [PLUGIN...]`.

SAMPLE_FD is the memory of its current sample. PID is its daemon's. FETCH are the two fds of its
fetch channel (transport/fetch_client.py), separated by a comma; it is `-` if no dataset lies in an
object store. A PLUGIN is a module with ops, or, as JSON, an own source:
{NAME: "plugin:MODULE:CLASS?ARGUMENT"}.

A producer ties itself to its daemon before anything slow is imported: it dies with the daemon's
main thread (PDEATHSIG) and with the link. Its memory is limited, and if it cannot start it sends
the reason. Then it loads its libraries and plug-ins and opens its own sources. It gives up the
network, other processes and writing before it reads the first image. It never forks.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

from augd.pixels.headers.size_limits import max_data_bytes
from augd.process.parent_death import die_with
from augd.process.sandbox import confine, limit
from augd.process.system_errors import as_refusal
from augd.protocol.codec import encode
from augd.protocol.messages import LastWords
from augd.transport import unix_link
from augd.transport.current_sample import CurrentSample

if TYPE_CHECKING:
    from augd.plan.recipe.op_catalogue import Catalogue
    from augd.server.producer.lease_runner import OpenOwn


def main(
    link_fd: int, current_sample_fd: int, daemon_pid: int, fetch_channel: str, *words: str
) -> int:
    """Run a producer on its inherited fds; returns the exit status."""
    plugins = tuple(word for word in words if not word.startswith("{"))
    sources = _read_sources(word for word in words if word.startswith("{"))
    die_with(daemon_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit(max_data_bytes())
    daemon = socket.socket(fileno=link_fd)
    try:
        from augd.pixels.decode import configure, silence_library_noise
        from augd.plan.recipe.op_catalogue import BUILT_IN
        from augd.server.producer.loop import ProducerLoop

        silence_library_noise()
        configure()
        # Not earlier: importing writes the compiled modules that a fresh installation lacks.
        catalogue = _load(plugins) if plugins else BUILT_IN
        open_own = _open(sources) if sources else None
        asking, _, fetch_buffer = fetch_channel.partition(",")
        fetch_fds = (int(asking), int(fetch_buffer)) if fetch_buffer else None
        current_sample = CurrentSample.inherited(current_sample_fd)
        ProducerLoop(daemon, current_sample, confine(), catalogue, open_own, fetch_fds).run()
    except EOFError:
        return 0
    except BaseException as error:
        refused = as_refusal(error) if isinstance(error, OSError) else None
        if refused is None:
            traceback.print_exc()  # all of it for the operator, one line for the client
        error = refused or error
        text = "".join(traceback.format_exception_only(error)).strip()
        unix_link.send(daemon, encode(LastWords(text[-4000:])))
        return 1
    return 0


def _load(plugins: tuple[str, ...]) -> Catalogue:
    from augd.plugins.ops import load

    return load(plugins)


def _read_sources(words: Iterable[str]) -> dict[str, str]:
    from json import loads  # is needed with own sources only

    return {name: text for word in words for name, text in loads(word).items()}


def _open(sources: dict[str, str]) -> OpenOwn:
    from augd.plugins.sources import OwnSources

    return OwnSources(sources).open


if __name__ == "__main__":
    # The interpreter's own tear-down frees what the kernel frees anyway, and takes 20 ms.
    link_fd, current_sample_fd, daemon_pid = map(int, sys.argv[1:4])
    os._exit(main(link_fd, current_sample_fd, daemon_pid, sys.argv[4], *sys.argv[5:]))
