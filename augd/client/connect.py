"""`augd.connect`: checks its arguments, opens a connection and returns a stream.

Runs in the training process. Its checks name the argument; the daemon would reject the same values.
Loads no NumPy before OPEN is sent, since producers may be starting at the same moment.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Unpack

from augd.client import argument_checks
from augd.client.connect_options import ConnectOptions, complete, takes_connect_options
from augd.client.connection import Connection, Start
from augd.client.recipe_file import read_recipe
from augd.dataset.scan_result import say_splits
from augd.errors import OptionError, counted, verb
from augd.plan.order.repeat_option import ONCE, read_repeats
from augd.plan.order.shuffle_option import read_shuffle
from augd.plan.recipe.phases import plain_recipe
from augd.process.awake_clock import Awake
from augd.process.command import open_streams
from augd.protocol import messages as msg
from augd.transport.address import Address, TcpAddress, parse_address
from augd.transport.auth.curve import ClientCurve, client_curve
from augd.transport.lifeline import ArenaUnavailable

if TYPE_CHECKING:
    from augd.client.stream import Stream

_log = logging.getLogger("augd")

_logged: deque[str] = deque(maxlen=1000)

_CLASSES_BYTES_MAX = 48_000  # of the 64 KiB that a request may have


@takes_connect_options
def connect(
    address: str | None = None, *, mixed: bool = True, **options: Unpack[ConnectOptions]
) -> Stream:
    """Connect to a daemon and open a stream; production starts at once.

    Args:
        address: `ipc://PATH` or `tcp://HOST:PORT` as the daemon printed it; None is the user's
            default daemon.
        dataset: a name that the daemon serves; not needed when it serves one.
        recipe: name of a preset, path to a TOML file (ends in `.toml`, or has a slash), or plain
            data (see `augd.plan.recipe.recipe`). Ops that are not built in come from the daemon's
            plug-ins.
        batch_size: samples per batch and rank, 1 or more.
        seed: decides order and augmentation, 0 <= seed < 2**63.
        shuffle: True shuffles the whole epoch, False gives the index's order. "blocks" keeps
            neighbours in the index near each other, so that shards are read in long ranges. It
            shuffles blocks of 64 samples and mixes each 256 of them. Other numbers are written
            "blocks:64x256" (docs/storage.md).
        repeats: how often each sample of an epoch comes, 1..64, each time augmented differently.
            The epoch keeps its length and has as many fewer samples (repeated augmentation). With
            one rank copies stand side by side, and each image is decoded once for all of them; with
            several they come to different ranks. "3x256" says how many positions apart they are, to
            resume with another batch size.
        drop_last: leave out the last batch of an epoch when it is not full.
        rank: which rows of the global batch, 0 <= rank < world. With world > 1 the tail is
            padded (id -1, label -100, valid false), so that ranks get equal numbers of batches.
        world: number of trainers that share each epoch.
        split: "train", "val" or "test" as the dataset's folders or manifest record it, or "all".
            None is "train" if the dataset records splits (a warning says so), else all. A dataset
            that records no splits still has "train" and "val", by a hash of each sample's path. So
            a file keeps its split when others are added.
        val_fraction: the expected share that this hash puts into "val", 0..1.
        classes: only samples of these classes; the place in this list is the label. For a
            multi-label dataset: samples with one of these targets above 0, and these columns.
        limit: at most so many of the samples selected so far: those with the smallest hash of
            their path, whatever their class.
        balance: "class" draws classes in equal numbers and, within a class, samples at random
            with replacement. The epoch keeps its length. A sample may come several times in it,
            augmented differently, or not at all.
        bad: for a bad sample, "mask" gives zeros, label -100 and valid false; "fail" raises
            `SampleFailed`.
        max_bad_fraction: share of an epoch's samples, 0..1 (rounded up), that may be bad.
        params: fill `batch.params` with the parameters drawn for each row.
        verify: recompute the digest of every batch's bytes and compare it with its producer's.
            Ids are always compared. Costs about 10 microseconds per row of 224 x 224.
        mixed: with a recipe that has `mix`, give mixed images, as a copy. False gives them as they
            were made, and `batch.mixing` says how to mix them, on a device for example.
        shared: read one production together with other trainers that ask for exactly the same;
            each batch is decoded once. True joins a running one at its next batch, where this
            stream then begins, or starts one. A number waits until so many trainers have come, at
            most half of `timeout_s`; all begin together at the place asked for. The arrays are
            read-only. A seek, or an epoch begun at another place than the sharers', leaves them.
        max_lag: of a shared stream: how many batches this trainer may lag behind the fastest.
            Beyond that it goes on alone, with a production of its own. None makes the others wait.
            It takes max_lag + 2 more slots, and holds at most that many.
        prefetch: batches made ahead of the one in hand, 1..1024; each takes a slot of memory.
        transport: "memfd" maps the daemon's memory (same host and user, ipc address); "frames"
            receives the bytes over a socket; "auto" maps if that is possible.
        timeout_s: the longest wait for anything, in seconds, the first batch included. A lost
            daemon is awaited for as long; the stream then goes on where it stood.
        keys: path of this client's NAME.key, for a port that needs one; None is the file that
            $AUGD_KEYS names, if any. Ignored for an ipc address.

    Returns:
        A `Stream`, to be closed. Its batches are views: images uint8 (B, H, W, 3), RGB, or (B, V,
        H, W, 3) with V > 1 views. Labels are int64 (B,), or float32 (B, K) if multi-label. A recipe
        with a list of views gives `views` by name in place of images.

    Raises:
        ConnectError: no daemon answers.
        Forbidden: the daemon wants a key, doesn't know this one, or not for this dataset.
        OptionError: an argument is out of range; the message names it.
        RecipeError: the recipe is invalid.
        DatasetError: the daemon has no such dataset, or it cannot be read.
        OverLimit: the stream needs more memory than the daemon may take.
    """
    open_streams()  # or new fds would get the numbers of missing standard streams
    chosen = complete(options)
    timeout_s = chosen["timeout_s"]
    spec = _spec(chosen)
    _check_options(spec, timeout_s)
    _check_mixed(spec.recipe, mixed)
    share = _share(chosen["shared"], chosen["max_lag"], spec.prefetch, timeout_s)
    found = parse_address(address)
    curve = client_curve(found, chosen["keys"])

    start = Start(share=share, is_split_open=chosen["split"] is None)
    connection = _open_by_transport(found, spec, chosen["transport"], timeout_s, start, curve)
    _check_repeats(connection, spec)
    settled = connection.session.transport
    _log_selection(connection)

    def connect_again(
        spec: msg.Spec, start: Start, within_s: float, log_wait: Callable[[], float], clock: Awake
    ) -> Connection:
        return _open(found, spec, settled, within_s, start, curve, log_wait, clock)

    from augd.client.stream import Stream  # loaded by now, while the daemon prepared the stream

    return Stream(
        connection, connect_again, timeout_s, is_verified=chosen["verify"], is_mixed=mixed
    )


def _spec(chosen: ConnectOptions) -> msg.Spec:
    return msg.Spec(
        dataset=chosen["dataset"],
        recipe=plain_recipe(read_recipe(chosen["recipe"])),
        layout=msg.Layout(
            chosen["batch_size"], chosen["rank"], chosen["world"], chosen["drop_last"]
        ),
        seed=chosen["seed"],
        shuffle=read_shuffle(chosen["shuffle"]),
        bad=chosen["bad"],
        max_bad_fraction=chosen["max_bad_fraction"],
        prefetch=chosen["prefetch"],
        selection=_selection(
            chosen["split"],
            chosen["val_fraction"],
            chosen["classes"],
            chosen["limit"],
            chosen["balance"],
        ),
        params=chosen["params"],
        repeats=read_repeats(chosen["repeats"], chosen["batch_size"], chosen["world"]),
    )


def _check_repeats(connection: Connection, spec: msg.Spec) -> None:
    """Reject a daemon of an earlier release, which ignores `repeats`."""
    opened = connection.session.opened
    assert opened is not None
    if spec.repeats != ONCE and "repeats" not in opened.content_fields:
        connection.close()
        raise OptionError(
            "repeats: the daemon is of an earlier release, which repeats no samples; start one of "
            "this release, or leave repeats out"
        )


def _log_selection(connection: Connection) -> None:
    """Log what users should know about the samples that were selected, one line each."""
    session = connection.session
    assert session.opened is not None
    name, lines = session.opened.dataset, list(session.notices)
    if session.splits:
        lines.append(
            f"dataset {name!r} records splits ({say_splits(session.splits)}): without split, its "
            f'training samples are read; pass split="train" or split="all" to choose'
        )
    if unlabelled := session.opened.num_unlabelled:
        lines.append(
            f"{unlabelled:,} of the {counted(session.opened.num_positions, 'sample')} of dataset "
            f"{name!r} {verb(unlabelled, 'has', 'have')} no class, and label -1: nothing can be "
            f"learnt from these labels"
        )
    for text in lines:
        if text not in _logged:  # once per process, however many streams it opens
            _logged.append(text)
            _log.warning("%s", text)


def _share(shared: Any, max_lag: Any, prefetch: int, timeout_s: float) -> msg.Share | None:
    if isinstance(shared, bool):
        sharers = 1
    elif isinstance(shared, int) and 1 <= shared <= 128:
        sharers = shared
    else:
        raise OptionError(
            f"shared: expected True, False or the number of trainers (1..128), got {shared!r}"
        )
    if max_lag is not None:
        if not shared:
            raise OptionError("max_lag: only a shared stream has one; connect with shared=True")
        if (
            isinstance(max_lag, bool)
            or not isinstance(max_lag, int)
            or not 0 <= max_lag <= prefetch
        ):
            raise OptionError(
                f"max_lag: expected a whole number in 0..{prefetch} (prefetch) or None, "
                f"got {max_lag!r}"
            )
    if not shared:
        return None
    return msg.Share("next" if sharers == 1 else "here", sharers, timeout_s / 2, max_lag)


def _open_by_transport(
    address: Address | TcpAddress,
    spec: msg.Spec,
    transport: str,
    timeout_s: float,
    start: Start,
    curve: ClientCurve | None,
) -> Connection:
    """Open with shared memory if possible, else with frames."""
    if transport not in ("auto", "memfd", "frames"):
        raise OptionError(f'transport: expected "auto", "memfd" or "frames", got {transport!r}')
    if isinstance(address, TcpAddress):
        if transport == "memfd":
            raise OptionError(
                f'transport: memory cannot be shared through {address}: use "frames" or "auto", '
                "or an ipc:// address on the daemon's host"
            )
        transport = "frames"
    try:
        way: Literal["memfd", "frames"] = "frames" if transport == "frames" else "memfd"
        return _open(address, spec, way, timeout_s, start, curve)
    except ArenaUnavailable as error:
        if transport == "memfd":
            raise
        warnings.warn(
            f"augd: memory cannot be shared with the daemon at {address} ({error}); batches come "
            'over a socket instead, which is slower. Pass transport="frames" to silence this.',
            RuntimeWarning,
            stacklevel=3,
        )
        return _open(address, spec, "frames", timeout_s, start, curve)


def _open(
    address: Address | TcpAddress,
    spec: msg.Spec,
    transport: Literal["memfd", "frames"],
    timeout_s: float,
    start: Start,
    curve: ClientCurve | None,
    log_wait: Callable[[], float] | None = None,
    clock: Awake | None = None,
) -> Connection:
    connection = Connection(address, spec, transport, timeout_s, start, curve, log_wait, clock)
    import augd.client.stream  # noqa: F401  NumPy loads while producers start and make rows

    connection.await_open()
    return connection


def _check_mixed(recipe: Mapping[str, Any], mixed: object) -> None:
    """Reject to mix images whose colours are left to a device."""
    if not isinstance(mixed, bool):
        raise OptionError(f"mixed: expected True or False, got {mixed!r}")
    phases: Sequence[Mapping[str, Any]] = recipe.get("phases") or (recipe,)
    if mixed and any("mix" in one and one.get("colour_on") == "device" for one in phases):
        raise OptionError(
            'mixed: True mixes finished images, and with colour_on="device" they lack their '
            "colours; pass mixed=False and mix on the device, or take colour_on out of the recipe"
        )


def _selection(
    split: Any, val_fraction: Any, classes: Any, limit: Any, balance: Any
) -> msg.Selection:
    """Check the selection with each argument's own name."""
    if split not in (None, "train", "val", "test", "all"):
        raise OptionError(f'split: expected "train", "val", "test", "all" or None, got {split!r}')
    split = None if split == "all" else split
    if not isinstance(val_fraction, int | float) or not 0 <= val_fraction <= 1:
        raise OptionError(f"val_fraction: expected 0..1, got {val_fraction!r}")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise OptionError(f"limit: expected a whole number from 1 on or None, got {limit!r}")
    if balance not in (None, "class"):
        raise OptionError(f'balance: expected "class" or None, got {balance!r}')
    names = None if classes is None else _class_names(classes)
    return msg.Selection(split, float(val_fraction), names, limit, balance)


def _class_names(classes: Any) -> tuple[str, ...]:
    names = tuple(classes) if isinstance(classes, Sequence) else ()
    if isinstance(classes, str) or not names or not all(isinstance(n, str) for n in names):
        raise OptionError(f"classes: expected a list of class names or None, got {classes!r}")
    size_bytes = sum(len(name.encode("utf-8", "replace")) + 3 for name in names)
    if size_bytes > _CLASSES_BYTES_MAX:
        raise OptionError(
            f"classes: {len(names)} names take {size_bytes} bytes, more than the "
            f"{_CLASSES_BYTES_MAX} that a request can carry; serve a dataset of these classes only"
        )
    return names


def _check_options(spec: msg.Spec, timeout_s: float) -> None:
    """Check what the daemon would reject, with each argument's own name."""
    layout = spec.layout
    world: Any = layout.world
    bounds: tuple[tuple[str, Any, float, float], ...] = (
        ("batch_size", layout.batch_size, 1, 2**24),
        ("world", layout.world, 1, 2**20),
        ("rank", layout.rank, 0, max(world - 1, 0) if isinstance(world, int) else 0),
        ("seed", spec.seed, 0, 2**63 - 1),
        ("prefetch", spec.prefetch, 1, 1024),
    )
    for name, value, low, high in bounds:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise OptionError(f"{name}: expected a whole number in {low}..{high}, got {value!r}")
    if spec.bad not in ("mask", "fail"):
        raise OptionError(f'bad: expected "mask" or "fail", got {spec.bad!r}')
    if not isinstance(layout.drop_last, bool):
        raise OptionError(f"drop_last: expected True or False, got {layout.drop_last!r}")
    if spec.dataset is not None:
        argument_checks.text("dataset", spec.dataset)
    argument_checks.share("max_bad_fraction", spec.max_bad_fraction)
    argument_checks.seconds("timeout_s", timeout_s)
