"""`augd replay`: recompute one batch of a training run, and compare it with the one received then.

A batch is a pure function of content, layout, quarantine and position. So any daemon can recompute
any batch at any time. The command reads as a client does, and writes nothing but the file of
`--out`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augd.cli.options import ReplayOptions
from augd.client.batch import Batch
from augd.client.connect import connect
from augd.client.serve import serve
from augd.client.stream import Stream
from augd.errors import AugdError, OptionError, counted
from augd.protocol.slot_layout import array_name

_ARRAYS = ("ids", "labels", "valid")
_IMAGES = "images"
_ROWS_NAMED = 8


def run_replay(options: ReplayOptions, recipe: dict[str, Any]) -> int:
    """Make the batch, write it, compare it; returns 0, or 1 when it differs.

    Raises:
        AugdError: an option is wrong, the batch doesn't exist, or a file can't be read or written.
    """
    state = None if options.state is None else _read_state(options.state)
    earlier = None if options.against is None else _read_batch(options.against)
    with _opened(options, recipe) as stream:
        batch = _batch_at(stream, options, state)
        print(f"batch {batch.number} of epoch {batch.epoch}: {counted(len(batch), 'row')}")
        print(f"content   {stream.content}")
        print(f"digest    {batch.digest}")
        if options.out is not None:
            _write(options.out, batch)
            print(f"written   {options.out}")
        differences = list(_differences(batch, options.expect, earlier))
    for text in differences:
        print(f"DIFFERS   {text}")
    if not differences and (options.expect or earlier is not None):
        print("the same bytes")
    return 1 if differences else 0


@contextmanager
def _opened(options: ReplayOptions, recipe: dict[str, Any]) -> Iterator[Stream]:
    if (options.path is None) == (options.connect is None):
        raise OptionError("replay: give the folder that was trained from, or --connect ADDR")
    with ExitStack() as stack:
        address = options.connect
        if options.path is not None:
            daemon = serve(options.path, producers=1, plugins=options.plugins)
            address = stack.enter_context(daemon).address
        stream = connect(address, recipe=recipe, prefetch=1, verify=True, **_arguments_of(options))
        yield stack.enter_context(stream)


def _arguments_of(options: ReplayOptions) -> dict[str, Any]:
    """Return what `connect` takes under the same names as this command."""
    names = ("batch_size", "seed", "drop_last", "rank", "world", "dataset", "split", "bad", "keys")
    shuffle = options.shuffle if options.blocks is None else f"blocks:{options.blocks}"
    repeats = options.repeats or 1
    if isinstance(repeats, str) and repeats.isdecimal():
        repeats = int(repeats)
    given = {"shuffle": shuffle, "repeats": repeats}
    return {**given, **{name: getattr(options, name) for name in names}}


def _batch_at(stream: Stream, options: ReplayOptions, state: dict[str, Any] | None) -> Batch:
    if options.batch < 0:
        raise OptionError(f"--batch: expected 0 or more, got {options.batch}")
    here = stream.state_dict()
    saved = here if state is None else {"quarantine": [], **state}
    position = options.batch * options.batch_size * options.world
    place = {"version": 1, "epoch": options.epoch, "position": position}
    stream.load_state_dict({**saved, **place, "receipt": None})
    # Only now is it known how many there are: a state may be of all splits.
    if options.batch >= len(stream):
        raise OptionError(
            f"--batch: expected 0..{len(stream) - 1} in an epoch of this layout, "
            f"got {options.batch}"
        )
    return next(stream.epoch(options.epoch))


def _read_state(path: str) -> dict[str, Any]:
    try:
        state = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise OptionError(f"--state: {path} is not a saved state_dict(): {error}") from None
    if not isinstance(state, dict):
        raise OptionError(f"--state: {path}: expected a JSON object, got {type(state).__name__}")
    return state


def _read_batch(path: str) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images = [name for name in file.files if name.partition(".")[0] == _IMAGES]
            return {name: file[name] for name in (*_ARRAYS, *(images or [_IMAGES]))}
    except (OSError, ValueError, KeyError) as error:
        raise OptionError(f"--against: {path} is no batch of `augd replay`: {error}") from None


def _write(path: str, batch: Batch) -> None:
    names = ("epoch", "number", "position", "digest")
    arrays: dict[str, Any] = {**_arrays_of(batch)}
    arrays |= {name: np.asarray(getattr(batch, name)) for name in names}
    try:
        with open(path, "wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise AugdError(f"--out: {path} cannot be written: {error.strerror}") from None


def _arrays_of(batch: Batch) -> dict[str, NDArray[Any]]:
    """Return the arrays of a batch as its file names them: `images`, or `images.NAME` of views."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(batch, name) for name in _ARRAYS}
    if not batch.views:
        return {**arrays, _IMAGES: batch.images}
    return {**arrays, **{array_name(_IMAGES, name): a for name, a in batch.views.items()}}


def _differences(
    batch: Batch, expect: str | None, earlier: Mapping[str, NDArray[Any]] | None
) -> Iterator[str]:
    if expect is not None and expect.lower() != batch.digest:
        yield f"digest: expected {expect}, got {batch.digest}"
    if earlier is None:
        return
    arrays = _arrays_of(batch)
    for name in dict.fromkeys((*arrays, *earlier)):
        if name not in arrays or name not in earlier:
            where = "here" if name in arrays else "then"
            yield f"{name}: only {where}: the batches are of different recipes"
            continue
        here, there = arrays[name], earlier[name]
        if here.shape != there.shape or here.dtype != there.dtype:
            yield f"{name}: {there.dtype} {there.shape} then, {here.dtype} {here.shape} now"
            continue
        rows = np.flatnonzero((here != there).reshape(len(here), -1).any(axis=1)).tolist()
        if rows:
            ids = [int(batch.ids[row]) for row in rows[:_ROWS_NAMED]]
            more = " ..." if len(rows) > _ROWS_NAMED else ""
            yield f"{name}: {len(rows)} of {counted(len(here), 'row')}, samples {ids}{more}"
