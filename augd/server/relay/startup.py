"""The startup of the relay's process, from the options of `augd produce` to its end."""

from __future__ import annotations

import os
import socket

from augd.errors import OptionError
from augd.process.awake_clock import Awake
from augd.protocol.limits import PLACES_MAX
from augd.server.supervision.arguments import (
    check_shard_cache,
    check_sources,
    count_producers,
    has_remote,
    interruptions_held,
    list_own,
    load_index,
    name_paths,
    raise_fd_limit,
)
from augd.server.supervision.log_setup import set_up_log
from augd.server.supervision.produce_options import ProduceOptions
from augd.server.supervision.producer_process import ProducerOptions


def produce_forever(options: ProduceOptions) -> int:
    """Run producers for a daemon on another host until drained; returns the exit status.

    Raises:
        AugdError: the producers cannot join the daemon; no process is left running.
    """
    with interruptions_held():
        from augd.server.relay.loop import Relay
        from augd.server.relay.remote_producer import RelayContext
        from augd.server.supervision.fetcher_process import make_fetcher
        from augd.transport.address import parse_address
        from augd.transport.auth.curve import client_curve
        from augd.transport.zmq_sockets import Poller

    address = parse_address(options.connect)
    curve = client_curve(address, options.keys)
    sources = name_paths(options.paths, options.named)
    wanted = count_producers(options.producers, is_forced=options.force)
    check_sources(sources)
    check_shard_cache(options.shard_cache, sources)
    if not wanted:
        raise OptionError(f"--producers: expected 1..{PLACES_MAX}, got 0")
    if options.plugins:
        from augd.plugins.ops import survey

        survey(options.plugins)  # raises errors of plug-ins before producers are started
    set_up_log(is_quiet=options.quiet)
    raise_fd_limit(wanted)
    cores = sorted(os.sched_getaffinity(0)) if options.pin else ()
    datasets = {name: load_index(name, source) for name, source in sources.items()}
    host = options.host or socket.gethostname()
    producer_options = ProducerOptions(
        options.plugins, cores, list_own(sources), has_remote(sources)
    )
    fetcher = make_fetcher(datasets, options.shard_cache or "")
    context = RelayContext(
        address,
        curve,
        host[:256],
        datasets,
        producer_options,
        Poller(Awake.of_loop()),
        fetcher=fetcher,
    )
    return Relay(context, wanted, options.lifeline_fd).run()
