"""What `augd serve` does, from its options to the end of the daemon.

Order matters for the time to the first batch: the producers are started first, because
they import NumPy and OpenCV while this process scans the folders. Imports nothing slow at
the top.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from augd.errors import (
    AugdError,
    DatasetError,
    OptionError,
    OverLimit,
    counted,
    install_extra,
    verb,
)
from augd.process.command import say
from augd.process.resource_limits import num_cores, why_too_many
from augd.process.system_errors import as_refusal
from augd.protocol.limits import PLACES_MAX

if TYPE_CHECKING:
    from augd.broker.facts import Life
    from augd.dataset.index_file import IndexFile
    from augd.dataset.source_spec import OwnSource
    from augd.hire import Hired, Terms
    from augd.plan.recipe.op_catalogue import Catalogue
    from augd.transport.address import Address, TcpAddress
    from augd.transport.auth import Gate
    from augd.transport.cache import CacheSpec, CacheStore
    from augd.transport.http import Porch

_told: set[int] = set()  # fds that were closed behind the one line that is for them

Source: TypeAlias = "Path | str | OwnSource"
"""Where a data set lies: a path, as a text the address of one in an object store, or a class."""

_PROGRESS_AFTER_S = 1.0
_END_S = 0.5  # a process that got SIGKILL is gone in milliseconds, unless the kernel keeps it
# Its link, its pidfd and the fetcher's end of its hatch. What is spared are the daemon's own, about
# thirty, and those of a few clients.
_FDS_OF_PRODUCER = 4
_FDS_SPARE = 64
PATIENCE_MIN_S = 2  # a producer at work speaks every second, if no row takes longer
PATIENCE_MAX_S = 3600


@dataclass(frozen=True, slots=True)
class Options:
    """How the daemon is run, apart from what it serves."""

    named: str | None = None  # data sets by name, as JSON, beside those of the command line
    listen: tuple[str, ...] = ()  # empty: the user's default path
    num_producers: int | None = None
    is_forced: bool = False  # more than four producers per core are meant
    is_auto: bool = False  # as many producers as are needed, one per core at most
    ray: int = 0  # producers that Ray places on the nodes of a cluster, instead of own ones
    ray_address: str = "auto"
    ray_keys: str | None = None  # a key that may produce, at this path on every node
    patience_s: float | None = None  # None: the daemon's own
    is_quiet: bool = False
    is_insecure: bool = False
    lifeline_fd: int | None = None
    ready_fd: int | None = None
    supervisor: int | None = None  # its pid: this process dies with it
    again: str | None = None  # of a daemon that takes a dead one's place: what that left, as JSON
    keys: str | None = None  # the folder of keys; None: nobody needs one
    plugins: tuple[str, ...] = ()  # modules with own ops, by name
    is_pinned: bool = False  # each producer to a core
    cache: str | None = None  # where decoded pictures are kept; None: nowhere
    shard_cache: str | None = None  # DIR:SIZE for shards that lie in object stores
    http: str | None = None  # HOST:PORT of the page
    http_token: str | None = None  # the file that its token is in
    log_format: str = "text"  # or "json"


def serve_forever(paths: Sequence[str], options: Options) -> int:
    """Serve until drained; returns the exit status.

    Raises:
        AugdError: it cannot start; nothing is left running.
    """
    try:
        return _serve_locked(paths, _take_over(options))
    except AugdError as error:
        return refuse(error, options.ready_fd)
    except OSError as error:
        if (refused := as_refusal(error)) is None:
            raise
        return refuse(refused, options.ready_fd)


def refuse(error: AugdError, ready_fd: int | None) -> int:
    """Tell whoever started this daemon, who raises it; printed here, it would be read twice."""
    if ready_fd is None or ready_fd in _told:
        raise error from None
    tell_ready(ready_fd, {"code": error.code, "error": str(error)})
    return 1


def _take_over(options: Options) -> Options:
    """Take the place of a daemon that died, if one did: at its addresses, ports included."""
    if options.again is None:
        return options
    left = json.loads(options.again)
    http = options.http if left["http"] is None else left["http"].rpartition("//")[2]
    return replace(options, listen=tuple(left["addresses"]) or options.listen, http=http)


def _life_of(options: Options) -> Life:
    """Tell which daemons died before this one."""
    from augd.broker.facts import Life

    left = {} if options.again is None else json.loads(options.again)
    return Life(options.supervisor or 0, left.get("deaths", 0), left.get("last_death", ""))


def _serve_locked(paths: Sequence[str], options: Options) -> int:
    with interruptions_held():
        from augd.hire import Terms, hire
        from augd.transport.address import Address, make_runtime_dir
        from augd.transport.lock import AddressLock

    sources = name_paths(paths, options.named)
    wanted = count_producers(options.num_producers, is_forced=options.is_forced)
    check_sources(sources)
    _check_patience(options.patience_s)
    cache = _read_cache(options.cache)
    check_shard_cache(options.shard_cache, sources)
    _check_page(options)
    addresses = choose_addresses(options.listen, is_insecure=options.is_insecure, keys=options.keys)
    with ExitStack() as cleaning:
        for address in addresses:
            if isinstance(address, Address):
                make_runtime_dir(address.path.parent)
                cleaning.callback(AddressLock.acquire(address).release)
        porch = _open_porch(options, cleaning)
        if options.ray:
            from augd.on_ray import check_ray

            check_ray(addresses, options.ray_keys, needs_key=options.keys is not None)
        raise_fd_limit(wanted)
        hired: list[Hired] = []
        cleaning.callback(_end, hired)
        catalogue = _look_at(options.plugins)
        cores = sorted(os.sched_getaffinity(0)) if options.is_pinned else ()
        terms = Terms(options.plugins, cores, list_own(sources), has_remote(sources))
        hired.extend(hire(terms, place) for place in range(wanted))
        if options.supervisor is not None:
            from augd.process.parent_death import die_with

            die_with(options.supervisor)
        gate = _open_gate(options.keys) if options.keys is not None else None
        parts = gate, catalogue, cache, porch
        return _serve(addresses, sources, hired, terms, options, *parts, cleaning)


def _check_page(options: Options) -> None:
    """Refuse what the page cannot be, before anything is started."""
    if options.log_format not in ("text", "json"):
        raise OptionError(f"--log-format: expected text or json, got {options.log_format!r}")
    if options.http is None:
        if options.http_token is not None:
            raise OptionError("--http-token: expected --http HOST:PORT with it; it guards the page")
        return
    from importlib.util import find_spec

    missing = [
        name for name in ("starlette", "uvicorn", "prometheus_client") if not find_spec(name)
    ]
    if missing:
        raise OptionError(
            f"--http: not installed: {', '.join(missing)}; {install_extra('http')} brings them"
        )


def _open_porch(options: Options, cleaning: ExitStack) -> Porch | None:
    if options.http is None:
        return None
    from augd.transport.http import open_porch

    porch = open_porch(options.http, options.http_token)
    cleaning.callback(porch.listener.close)
    return porch


def _look_at(plugins: Sequence[str]) -> Catalogue | None:
    """Find which ops the plug-ins bring, before producers that would all fail are started."""
    if not plugins:
        return None
    from augd.plugins import survey

    return survey(plugins)


def _open_gate(keys: str) -> Gate:
    """Read the keys and prove that they keep strangers out, before anything is bound for them."""
    with interruptions_held():
        from augd.transport.auth import Gate
        from augd.transport.proof import prove

    gate = Gate(Path(keys))
    try:
        prove(gate)
    except BaseException:
        gate.close()
        raise
    return gate


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back meanwhile; start no process in it, which would inherit that.

    For imports: an exception raised within a native module's own start can end the process by
    SIGSEGV, and then without a word.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(hired: list[Hired]) -> None:
    """Kill and reap what is left of the producers; after a drain only what the kernel keeps is."""
    from augd.deaths import reap

    left = [one.process for one in hired if one.process.poll() is None]
    for process in left:
        process.kill()
    ends_at = time.monotonic() + _END_S
    for process in left:
        reap(process, max(0.0, ends_at - time.monotonic()))


def choose_addresses(
    listen: Sequence[str], *, is_insecure: bool, keys: str | None = None
) -> list[Address | TcpAddress]:
    """Parse what `--listen` says: one path and one port at most.

    Raises:
        OptionError: there are two of a kind, strangers could reach the port, or there is no port
            for keys.
    """
    from augd.transport.address import Address, TcpAddress, parse_address

    addresses = [parse_address(text) for text in (listen or (None,))]
    for kind, name in ((TcpAddress, "tcp://HOST:PORT"), (Address, "ipc://PATH")):
        if sum(isinstance(address, kind) for address in addresses) > 1:
            raise OptionError(f"--listen: expected at most one {name}, got {', '.join(listen)}")
    if keys is not None and is_insecure:
        raise OptionError("--keys and --insecure: expected one of them, since keys shut the port")
    if keys is not None and not any(isinstance(address, TcpAddress) for address in addresses):
        raise OptionError(
            "--keys: expected a port that they are for, got no --listen tcp://HOST:PORT; a path "
            "needs no keys"
        )
    for address in addresses:
        is_open = isinstance(address, TcpAddress) and not address.is_loopback()
        if is_open and not is_insecure and keys is None:
            raise OptionError(
                f"--listen {address}: whoever reaches this port could read the images and use the "
                "producers; listen on tcp://127.0.0.1:PORT, say --keys DIR (`augd keys new NAME` "
                "makes it), or add --insecure on a network where you trust everybody"
            )
    return addresses


def _serve(
    addresses: Sequence[Address | TcpAddress],
    sources: dict[str, Source],
    hired: list[Hired],
    terms: Terms,
    options: Options,
    gate: Gate | None,
    catalogue: Catalogue | None,
    cache: CacheSpec | None,
    porch: Porch | None,
    cleaning: ExitStack,
) -> int:
    with interruptions_held():
        from augd.daemon import Daemon
        from augd.fetcher import make_fetcher
        from augd.logs import set_up_log

    set_up_log(is_quiet=options.is_quiet, log_format=options.log_format)
    datasets = {name: load_index(name, source) for name, source in sources.items()}
    from augd.plan.recipe.op_catalogue import BUILT_IN

    life = _life_of(options)
    store = _open_cache(cache, datasets) if cache is not None else None
    if store is not None:
        cleaning.callback(store.close)
    page = None
    if porch is not None:
        from augd.page import Page

        page = Page(porch, options.plugins, tuple(datasets))
    daemon = Daemon(
        *(addresses, hired, datasets, options.lifeline_fd, gate),
        patience_s=options.patience_s,
        terms=terms,
        catalogue=catalogue or BUILT_IN,
        cache=store,
        page=page,
        producers_max=len(hired) if options.is_auto else 0,
        fetcher=make_fetcher(datasets, options.shard_cache or ""),
        life=life,
    )
    at = " and ".join(str(address) for address in daemon.addresses)
    served = ", ".join(_introduce(name, index) for name, index in datasets.items())
    # First: a daemon that dies after it said so to people has served, as its supervisor must know.
    told: dict[str, Any] = {"addresses": [str(one) for one in daemon.addresses], "pid": os.getpid()}
    tell_ready(options.ready_fd, told if porch is None else {**told, "http": porch.url})
    if not options.is_quiet and not life.deaths:
        say(
            f"augd: serving {served} at {at} with {counted(len(hired), 'producer')}; Ctrl-C ends it"
        )
        _tell_skipped(datasets)
        if not hired and not options.ray:
            say("augd: no batch is made until producers join: `augd produce PATH --connect ADDR`")
        if gate is not None:
            say(
                f"augd: the port is for {counted(len(gate.clients), 'client')} with keys in "
                f"{options.keys}"
            )
        if porch is not None:
            say(f"augd: look at it at {porch.url}")
    if not options.ray:
        return daemon.run()
    from augd.on_ray import Placed, placing

    produce = Placed(
        num_producers=options.ray,
        ray_address=options.ray_address,
        paths={
            name: os.path.abspath(source) if isinstance(source, Path) else str(source)
            for name, source in sources.items()
        },
        keys=options.ray_keys,
        plugins=options.plugins,
        shard_cache=_absolute(options.shard_cache),
    )
    with placing(produce, daemon.addresses):
        return daemon.run()


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
    from augd.transport.cache import check_room, parse_cache

    spec = parse_cache(text)
    check_room(spec)
    return spec


def _open_cache(spec: CacheSpec, datasets: dict[str, IndexFile]) -> CacheStore:
    from augd.transport.cache import CacheStore

    return CacheStore(spec, datasets)


def raise_fd_limit(num_producers: int) -> None:
    """Take all the fds that may be had: libzmq ends the process when accept finds none at a path.

    Each client takes up to four, each connection of a stranger one; 1,024 are the usual start.
    Source: ipc_listener_t::accept of libzmq 4.3.5 asserts on EMFILE, tcp_listener_t doesn't.

    Raises:
        OverLimit: so many producers leave too few for clients.
    """
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    needed = _FDS_SPARE + _FDS_OF_PRODUCER * num_producers
    if 0 <= most < needed:
        enough = (most - _FDS_SPARE) // _FDS_OF_PRODUCER
        raise OverLimit(
            f"{counted(num_producers, 'producer')} {verb(num_producers, 'needs', 'need')} "
            f"{needed} open files, and {most} are allowed: "
            f"raise the limit, ulimit -n {needed} (LimitNOFILE= of a systemd unit)"
            + (f", or ask for {enough} --producers" if enough > 0 else "")
        )


def tell_ready(ready_fd: int | None, said: dict[str, Any]) -> None:
    """Write one line to whoever started this daemon, once, and close the pipe."""
    if ready_fd is not None:
        _told.add(ready_fd)
        os.write(ready_fd, json.dumps(said).encode() + b"\n")
        os.close(ready_fd)


def load_index(name: str, source: Source) -> IndexFile:
    """Open a data set's index, or make it, with a line on the terminal while that takes time."""
    if not isinstance(source, Path | str):
        from augd.own_sources import index_own

        return index_own(name, source)
    from augd.dataset.scan.build_index import load_or_build

    progress = _Progress(name)
    try:
        index = load_or_build(source, progress=progress)
    finally:
        progress.close()
    if index.warning is not None:
        say(f"augd: {index.warning}", file=sys.stderr)
    if index.change is not None:
        say(
            f"augd: {name}: since the last index {index.change}; they are read as they are now, "
            f"and rows of changed files are others than in runs before",
            file=sys.stderr,
        )
    from augd.dataset.scan.likely_mistakes import doubts_of

    for note in (*index.notes, *doubts_of(index)):
        say(f"augd: {name}: {note}", file=sys.stderr)
    if missed := [one for one in index.skipped if one.is_picture]:
        from augd.dataset.scan.skipped_files import say_skipped

        say(f"augd: {name}: not read: {say_skipped(missed)}", file=sys.stderr)
    return index


def _tell_skipped(datasets: Mapping[str, IndexFile]) -> None:
    """Print what else of the data sets is not read: what nobody would take for a picture."""
    from augd.dataset.scan.skipped_files import say_skipped

    for name, index in datasets.items():
        if others := [one for one in index.skipped if not one.is_picture]:
            say(f"augd: {name}: not read: {say_skipped(others)}")


class _Progress:
    """A line on the terminal once indexing has taken a second; silent elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._started = time.monotonic()
        self._is_shown = False

    def __call__(self, num_seen: int) -> None:
        passed_s = time.monotonic() - self._started
        if passed_s > _PROGRESS_AFTER_S and sys.stderr.isatty():
            self._is_shown = True
            rate = num_seen / passed_s
            text = f"indexing {self._name}: {num_seen:,} files, {rate:,.0f} per second"
            say(f"\r\x1b[Kaugd: {text}", end="", file=sys.stderr)

    def close(self) -> None:
        if self._is_shown:
            say(file=sys.stderr)


def list_own(sources: Mapping[str, Source]) -> list[str]:
    """List the own sources among them, as producers are told of them."""
    return [
        json.dumps({name: str(source)})
        for name, source in sources.items()
        if not isinstance(source, Path | str)
    ]


def name_paths(paths: Sequence[str], named: str | None = None) -> dict[str, Source]:
    """Turn `NAME=PATH` and plain paths into sources by name.

    A plain path has the name of its last part, a manifest's without the ending; an own source that
    of its class. `named` are more of them by name, as JSON: so they need not be read from words.
    """
    from augd.dataset.source_spec import dataset_name, parse_own
    from augd.dataset.stores.address import is_address, parse_store
    from augd.protocol.codec import as_text

    sources: dict[str, Source] = {}
    for name, text in (json.loads(named) if named else {}).items():
        store = str(parse_store(text)) if is_address(text) else None
        sources[as_text(name)] = store or parse_own(text) or Path(text)
    for text in paths:
        name, separator, rest = text.partition("=")
        alone = parse_own(text)
        # A plain path that contains "=" has a slash before it, or exists as it is written.
        if alone is not None:
            name, rest = alone.class_name, text
        elif not separator or "/" in name or Path(text).exists():
            rest = text
            name = dataset_name(text if is_address(text) else Path(text).absolute())
        name = as_text(name)
        if not name or not rest:
            raise OptionError(f"PATH: expected a folder or manifest, or NAME=PATH, got {text!r}")
        if name in sources:
            raise OptionError(
                f"PATH: two data sets are named {name!r}; name them apart: NAME={rest}"
            )
        if is_address(rest):
            sources[name] = str(parse_store(rest))
        else:
            sources[name] = parse_own(rest) or Path(rest)
    if not sources:
        raise OptionError("PATH: expected a folder or manifest, or NAME=PATH, got none")
    return sources


def read_producers(text: str | None) -> dict[str, Any]:
    """Read what `--producers` says into fields of `Options`: a number, `auto` or `ray:N`.

    Raises:
        OptionError: it is none of these.
    """
    if text is None or text == "auto":
        return {"is_auto": text is not None}
    kind, _, number = text.rpartition(":")
    if kind not in ("", "ray") or not (number.isascii() and number.isdigit()):
        raise OptionError(f"--producers: expected a number, auto or ray:N, got {text!r}")
    if kind == "":
        return {"num_producers": int(number)}
    if not 1 <= int(number) <= PLACES_MAX:
        raise OptionError(f"--producers ray:N: expected N in 1..{PLACES_MAX}, got {number}")
    return {"num_producers": 0, "ray": int(number)}


def has_remote(sources: Mapping[str, Source]) -> bool:
    """Say whether one of these lies in an object store."""
    return any(isinstance(source, str) for source in sources.values())


def _absolute(shard_cache: str | None) -> str | None:
    """Name the folder of a shard cache from anywhere."""
    if shard_cache is None:
        return None
    folder, _, size = shard_cache.rpartition(":")
    return f"{os.path.abspath(folder)}:{size}"


def check_shard_cache(text: str | None, sources: Mapping[str, Source]) -> None:
    """Refuse a shard cache that cannot be, or that nothing would ever be in.

    Raises:
        OptionError: it is no DIR:SIZE, the folder cannot be used, or no data set is remote.
        OverLimit: its disk has not that much space.
    """
    if text is None:
        return
    from augd.dataset.stores.shard_cache import check_shard_cache as check

    if not has_remote(sources):
        raise OptionError(
            "--shard-cache: expected a data set in an object store, as s3://BUCKET/PREFIX; what "
            "lies on local disks needs none"
        )
    check(text)


def check_sources(sources: Mapping[str, Source]) -> None:
    """Refuse what is no data set, before anything is started for it.

    Raises:
        DatasetError: names the first.
        OptionError: one lies in an object store, and what reads these is not installed.
    """
    from augd.dataset.source_spec import is_manifest, why_no_folder

    for source in sources.values():
        if isinstance(source, str):
            from augd.dataset.stores.object_store import patience_s, require_engine

            require_engine()
            patience_s()
            continue
        if not isinstance(source, Path):
            continue  # found out by surveying it
        if (why := why_no_folder(source)) is not None:
            raise DatasetError(why)
        if not source.is_dir() and not (is_manifest(source) and source.is_file()):
            raise DatasetError(
                f"{source} is not a folder, nor a .csv or .jsonl manifest; give the folder of "
                f"the images, or the file that lists them"
            )


def count_producers(wanted: int | None, *, is_forced: bool = False) -> int:
    """Return how many producers an option asks for: one per core where it says nothing.

    Raises:
        OptionError: it is out of range, or far more than cores without being forced.
    """
    if wanted is None:
        return min(num_cores(), PLACES_MAX)
    if not 0 <= wanted <= PLACES_MAX:
        raise OptionError(f"--producers: expected 0..{PLACES_MAX}, got {wanted}")
    if not is_forced and (why := why_too_many(wanted)):
        raise OptionError(f"--producers: {why}; add --force if you mean it")
    return wanted


def _check_patience(patience_s: float | None) -> None:
    if patience_s is not None and not PATIENCE_MIN_S <= patience_s <= PATIENCE_MAX_S:
        raise OptionError(
            f"--patience: expected {PATIENCE_MIN_S}..{PATIENCE_MAX_S} seconds, got {patience_s:g}"
        )
