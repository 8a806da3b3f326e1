"""The startup of the daemon's process, from the options of `augd serve` to its end.

The order matters for the time to the first batch. Producers are started first, because they import
NumPy and OpenCV while this process scans the folders. This module imports nothing slow at the top.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augd.errors import (
    AugdError,
    OptionError,
    counted,
    install_extra,
)
from augd.process.command import say
from augd.process.system_errors import as_refusal
from augd.protocol.limits import PLACES_MAX
from augd.server.supervision.arguments import (
    Source,
    absolute_shard_cache,
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

if TYPE_CHECKING:
    from augd.client.serve_options import ServeOptions
    from augd.dataset.index_file import IndexFile
    from augd.plan.recipe.op_catalogue import Catalogue
    from augd.server.daemon.broker.dataset_facts import DaemonHistory
    from augd.server.daemon.decoded_cache import CacheSpec, CacheStore
    from augd.server.daemon.http_listener import HttpListener
    from augd.server.daemon.loop import DaemonSetup
    from augd.server.supervision.producer_process import ProducerOptions, ProducerProcess
    from augd.server.supervision.ray_producers import RayOptions
    from augd.transport.address import Address, TcpAddress
    from augd.transport.auth.authenticator import Authenticator

_told: set[int] = set()  # ready fds that have got their one line and were closed


_END_S = 0.5  # a killed process exits within milliseconds, unless the kernel keeps it
PATIENCE_MIN_S = 2  # a working producer sends ALIVE every second, if no row takes longer
PATIENCE_MAX_S = 3600


@dataclass(frozen=True, slots=True)
class ProducerCount:
    """What `--producers` asks for.

    Attributes:
        num_producers: own producers; None is one per core.
        is_auto: as many own producers as are needed, one per core at most.
        num_ray: producers that Ray places on the nodes of a cluster.
    """

    num_producers: int | None = None
    is_auto: bool = False
    num_ray: int = 0


def serve_forever(options: ServeOptions) -> int:
    """Serve until drained; returns the exit status.

    Raises:
        AugdError: it cannot start; nothing is left running.
    """
    try:
        return _serve_locked(_take_over(options))
    except AugdError as error:
        return refuse(error, options.ready_fd)
    except OSError as error:
        if (refused := as_refusal(error)) is None:
            raise
        return refuse(refused, options.ready_fd)


def refuse(error: AugdError, ready_fd: int | None) -> int:
    """Send an error to the parent, which raises it; without a ready fd raise it here."""
    if ready_fd is None or ready_fd in _told:
        raise error from None
    tell_ready(ready_fd, {"code": error.code, "error": str(error)})
    return 1


def _take_over(options: ServeOptions) -> ServeOptions:
    """Use the addresses and ports of a crashed daemon, if this one replaces it."""
    if options.again is None:
        return options
    left = json.loads(options.again)
    http = options.http if left["http"] is None else left["http"].rpartition("//")[2]
    return replace(options, listen=tuple(left["addresses"]) or options.listen, http=http)


def _history_of(options: ServeOptions) -> DaemonHistory:
    """Return how many daemons crashed before this one."""
    from augd.server.daemon.broker.dataset_facts import DaemonHistory

    left = {} if options.again is None else json.loads(options.again)
    return DaemonHistory(options.supervisor or 0, left.get("deaths", 0), left.get("last_death", ""))


def _serve_locked(options: ServeOptions) -> int:
    with interruptions_held():
        from augd.server.daemon.address_lock import AddressLock
        from augd.server.supervision.producer_process import ProducerOptions, spawn_producer
        from augd.transport.address import Address, make_runtime_dir

    asked = read_producers(options.producers)
    sources = name_paths(options.paths, options.named)
    wanted = count_producers(asked.num_producers, is_forced=options.force)
    check_sources(sources)
    _check_patience(options.patience_s)
    cache = _read_cache(options.cache)
    check_shard_cache(options.shard_cache, sources)
    _check_dashboard(options)
    addresses = choose_addresses(options.listen, is_insecure=options.insecure, keys=options.keys)
    with ExitStack() as cleaning:
        for address in addresses:
            if isinstance(address, Address):
                make_runtime_dir(address.path.parent)
                cleaning.callback(AddressLock.acquire(address).release)
        listener = _open_listener(options, cleaning)
        if asked.num_ray:
            from augd.server.supervision.ray_producers import check_ray

            check_ray(addresses, options.ray_keys, needs_key=options.keys is not None)
        raise_fd_limit(wanted)
        spawned: list[ProducerProcess] = []
        cleaning.callback(_end_producers, spawned)
        catalogue = _load_catalogue(options.plugins)
        cores = sorted(os.sched_getaffinity(0)) if options.pin else ()
        producer_options = ProducerOptions(
            options.plugins, cores, list_own(sources), has_remote(sources)
        )
        spawned.extend(spawn_producer(producer_options, place) for place in range(wanted))
        if options.supervisor is not None:
            from augd.process.parent_death import die_with

            die_with(options.supervisor)
        authenticator = _open_authenticator(options.keys) if options.keys is not None else None
        prepared = _Prepared(
            *(addresses, sources, spawned, producer_options, asked),
            authenticator,
            catalogue,
            cache,
            listener,
        )
        return _serve(prepared, options, cleaning)


def _check_dashboard(options: ServeOptions) -> None:
    """Reject options of the dashboard and the log that cannot work, before anything starts."""
    if options.log_format not in ("text", "json"):
        raise OptionError(f"--log-format: expected text or json, got {options.log_format!r}")
    if options.http is None:
        if options.http_token is not None:
            raise OptionError("--http-token: expected --http HOST:PORT with it; it is for the page")
        return
    from importlib.util import find_spec

    missing = [
        name for name in ("starlette", "uvicorn", "prometheus_client") if not find_spec(name)
    ]
    if missing:
        raise OptionError(
            f"--http: not installed: {', '.join(missing)}; {install_extra('http')} brings them"
        )


def _open_listener(options: ServeOptions, cleaning: ExitStack) -> HttpListener | None:
    if options.http is None:
        return None
    from augd.server.daemon.http_listener import open_listener

    listener = open_listener(options.http, options.http_token)
    cleaning.callback(listener.listener.close)
    return listener


def _load_catalogue(plugins: Sequence[str]) -> Catalogue | None:
    """List the ops of the plug-ins, so that an error is raised before producers are started."""
    if not plugins:
        return None
    from augd.plugins.ops import survey

    return survey(plugins)


def _open_authenticator(keys: str) -> Authenticator:
    """Read the keys, and test that clients without one are rejected, before a port is bound."""
    with interruptions_held():
        from augd.transport.auth.authenticator import Authenticator
        from augd.transport.auth.self_test import run_self_test

    authenticator = Authenticator(Path(keys))
    try:
        run_self_test(authenticator)
    except BaseException:
        authenticator.close()
        raise
    return authenticator


def _end_producers(spawned: list[ProducerProcess]) -> None:
    """Kill and reap the producers that still run; after a drain only unkillable ones do."""
    from augd.process.exit_status import reap

    left = [one.process for one in spawned if one.process.poll() is None]
    for process in left:
        process.kill()
    ends_at = time.monotonic() + _END_S
    for process in left:
        reap(process, max(0.0, ends_at - time.monotonic()))


def choose_addresses(
    listen: Sequence[str], *, is_insecure: bool, keys: str | None = None
) -> list[Address | TcpAddress]:
    """Parse `--listen`: one path and one port at most.

    Raises:
        OptionError: there are two of a kind, other hosts could reach the port without keys, or
            there is no port for keys.
    """
    from augd.transport.address import Address, TcpAddress, parse_address

    addresses = [parse_address(text) for text in (listen or (None,))]
    for kind, name in ((TcpAddress, "tcp://HOST:PORT"), (Address, "ipc://PATH")):
        if sum(isinstance(address, kind) for address in addresses) > 1:
            raise OptionError(f"--listen: expected at most one {name}, got {', '.join(listen)}")
    if keys is not None and is_insecure:
        raise OptionError("--keys and --insecure: expected one of them; with keys a port is secure")
    if keys is not None and not any(isinstance(address, TcpAddress) for address in addresses):
        raise OptionError(
            "--keys: expected a port for them, got no --listen tcp://HOST:PORT; a path needs no "
            "keys"
        )
    for address in addresses:
        is_open = isinstance(address, TcpAddress) and not address.is_loopback()
        if is_open and not is_insecure and keys is None:
            raise OptionError(
                f"--listen {address}: every host that reaches this port could read the images and "
                "use the producers; listen on tcp://127.0.0.1:PORT, add --keys DIR (`augd keys new "
                "NAME` makes it), or add --insecure on a trusted network"
            )
    return addresses


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What is parsed, opened and started before the daemon's own modules are imported."""

    addresses: Sequence[Address | TcpAddress]
    sources: dict[str, Source]
    spawned: list[ProducerProcess]
    producer_options: ProducerOptions
    asked: ProducerCount
    authenticator: Authenticator | None
    catalogue: Catalogue | None
    cache: CacheSpec | None
    listener: HttpListener | None


def _serve(prepared: _Prepared, options: ServeOptions, cleaning: ExitStack) -> int:
    with interruptions_held():
        from augd.server.daemon.loop import Daemon
        from augd.server.supervision.log_setup import set_up_log

    set_up_log(is_quiet=options.quiet, log_format=options.log_format)
    datasets = {name: load_index(name, source) for name, source in prepared.sources.items()}
    setup = _set_up(prepared, options, datasets, cleaning)
    daemon = Daemon(setup)
    # First the supervisor is told: if the daemon crashes after a person was told, it has served.
    told: dict[str, Any] = {"addresses": [str(one) for one in daemon.addresses], "pid": os.getpid()}
    listener = prepared.listener
    tell_ready(options.ready_fd, told if listener is None else {**told, "http": listener.url})
    if not options.quiet and not setup.history.deaths:
        _announce(prepared, options, daemon.addresses, datasets)
    if not prepared.asked.num_ray:
        return daemon.run()
    from augd.server.supervision.ray_producers import running_ray

    with running_ray(_ray_options(prepared, options), daemon.addresses):
        return daemon.run()


def _set_up(
    prepared: _Prepared,
    options: ServeOptions,
    datasets: dict[str, IndexFile],
    cleaning: ExitStack,
) -> DaemonSetup:
    """Open what the daemon needs and is not prepared yet: cache, dashboard and fetcher."""
    from augd.plan.recipe.op_catalogue import BUILT_IN
    from augd.server.daemon.loop import DaemonSetup
    from augd.server.supervision.fetcher_process import make_fetcher

    store = _open_cache(prepared.cache, datasets) if prepared.cache is not None else None
    if store is not None:
        cleaning.callback(store.close)
    dashboard = None
    if prepared.listener is not None:
        from augd.server.daemon.dashboard_process import DashboardProcess

        dashboard = DashboardProcess(prepared.listener, options.plugins, tuple(datasets))
    return DaemonSetup(
        prepared.addresses,
        datasets,
        prepared.spawned,
        prepared.producer_options,
        lifeline_fd=options.lifeline_fd,
        authenticator=prepared.authenticator,
        patience_s=options.patience_s,
        catalogue=prepared.catalogue or BUILT_IN,
        cache=store,
        dashboard=dashboard,
        producers_max=len(prepared.spawned) if prepared.asked.is_auto else 0,
        fetcher=make_fetcher(datasets, options.shard_cache or ""),
        history=_history_of(options),
    )


def _announce(
    prepared: _Prepared,
    options: ServeOptions,
    addresses: Sequence[Address | TcpAddress],
    datasets: Mapping[str, IndexFile],
) -> None:
    """Print what is served and where, and what else the operator should know."""
    at = " and ".join(str(address) for address in addresses)
    served = ", ".join(_introduce(name, index) for name, index in datasets.items())
    num_producers = counted(len(prepared.spawned), "producer")
    say(f"augd: serving {served} at {at} with {num_producers}; Ctrl-C ends it")
    _tell_skipped(datasets)
    if not prepared.spawned and not prepared.asked.num_ray:
        say("augd: no batch is made until producers join: `augd produce PATH --connect ADDR`")
    if prepared.authenticator is not None:
        clients = counted(len(prepared.authenticator.clients), "client")
        say(f"augd: the port is for {clients} with keys in {options.keys}")
    if prepared.listener is not None:
        say(f"augd: look at it at {prepared.listener.url}")


def _ray_options(prepared: _Prepared, options: ServeOptions) -> RayOptions:
    """Describe the producers that Ray places, with paths that are valid on every node."""
    from augd.server.supervision.ray_producers import RayOptions

    return RayOptions(
        num_producers=prepared.asked.num_ray,
        ray_address=options.ray_address,
        paths={
            name: os.path.abspath(source) if isinstance(source, Path) else str(source)
            for name, source in prepared.sources.items()
        },
        keys=options.ray_keys,
        plugins=options.plugins,
        shard_cache=absolute_shard_cache(options.shard_cache),
    )


def _introduce(name: str, index: IndexFile) -> str:
    from augd.dataset.scan_result import say_splits

    splits = say_splits(index.count_splits())
    kinds = counted(len(index.classes), "class", "classes")
    if index.num_targets:
        kinds = counted(len(index.classes), "target")
    said = f"{counted(index.num_samples, 'image')}, {kinds}"
    return f"{name} ({said}; {splits})" if splits else f"{name} ({said})"


def _read_cache(text: str | None) -> CacheSpec | None:
    if text is None:
        return None
    from augd.server.daemon.decoded_cache import check_room, parse_cache

    spec = parse_cache(text)
    check_room(spec)
    return spec


def _open_cache(spec: CacheSpec, datasets: dict[str, IndexFile]) -> CacheStore:
    from augd.server.daemon.decoded_cache import CacheStore

    return CacheStore(spec, datasets)


def tell_ready(ready_fd: int | None, said: dict[str, Any]) -> None:
    """Write one line to this daemon's parent, once, and close the pipe."""
    if ready_fd is not None:
        _told.add(ready_fd)
        os.write(ready_fd, json.dumps(said).encode() + b"\n")
        os.close(ready_fd)


def _tell_skipped(datasets: Mapping[str, IndexFile]) -> None:
    """Print which other files of the datasets are not read: those that are no images."""
    from augd.dataset.scan.skipped_files import say_skipped

    for name, index in datasets.items():
        if others := [one for one in index.skipped if not one.is_image]:
            say(f"augd: {name}: not read: {say_skipped(others)}")


def read_producers(text: str | None) -> ProducerCount:
    """Read what `--producers` says: a number, `auto` or `ray:N`.

    Raises:
        OptionError: it is none of these.
    """
    if text is None or text == "auto":
        return ProducerCount(is_auto=text is not None)
    kind, _, number = text.rpartition(":")
    if kind not in ("", "ray") or not (number.isascii() and number.isdigit()):
        raise OptionError(f"--producers: expected a number, auto or ray:N, got {text!r}")
    if kind == "":
        return ProducerCount(int(number))
    if not 1 <= int(number) <= PLACES_MAX:
        raise OptionError(f"--producers ray:N: expected N in 1..{PLACES_MAX}, got {number}")
    return ProducerCount(0, num_ray=int(number))


def _check_patience(patience_s: float | None) -> None:
    if patience_s is not None and not PATIENCE_MIN_S <= patience_s <= PATIENCE_MAX_S:
        raise OptionError(
            f"--patience: expected {PATIENCE_MIN_S}..{PATIENCE_MAX_S} seconds, got {patience_s:g}"
        )
