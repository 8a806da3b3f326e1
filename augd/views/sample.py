"""Single samples made again outside any stream: the same order, plan, decode and render.

Beside the way of a batch: what `augd preview` and `augd explain` show is made here, by the code
that producers run, so that it equals what a stream of the same recipe and seed delivers, byte for
byte. A stream with `split`, `classes`, `limit` or `balance` has another order, but without
`balance` the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from augd.dataset.arrays import IndexArrays
from augd.dataset.index import IndexFile, load_or_build
from augd.errors import DatasetError, OptionError
from augd.pixels.decode import Pixels, configure, decode, silence_library_noise
from augd.pixels.header import BadImage, Header, read_header
from augd.pixels.outline import Outline
from augd.pixels.render import Renderer
from augd.pixels.source import FolderSource
from augd.plan.draw import Draw
from augd.plan.planner import Planner
from augd.plan.recipe import Recipe, output_size
from augd.views.progress import Patience

_EPOCH_MAX = 2**32 - 1
_SEED_MAX = 2**63 - 1
_POSITIONS_AT_ONCE = 1 << 16


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for one sample in one epoch; sizes and places in pixels of the photo.

    `seen` is (x, y, width, height) of what ends up in the row: the crop, or for a window in a
    resized crop its part of the photo. `colour` is (3, 4), in grey levels, or None. `impossible`
    says why the row cannot be made, and is empty when it can.
    """

    epoch: int
    crop: tuple[int, int, int, int]
    scaled: tuple[int, int]
    window: tuple[int, int]
    seen: tuple[float, float, float, float]
    mirror: bool
    colour: NDArray[np.float64] | None
    impossible: str


@dataclass(frozen=True, slots=True)
class Negative:
    """A sample's file as it was read, with its header."""

    content: bytearray
    header: Header

    def develop(self) -> Pixels:
        """Decode all of it. Raises BadImage."""
        return decode(self.content, self.header, (0, 0, self.header.width, self.header.height))


class Darkroom:
    """Makes rows of one data set, recipe and seed, one at a time. Use it in a `with`."""

    def __init__(self, path: str, recipe: Recipe, seed: int) -> None:
        """Open the data set, indexed before or now. Takes this process's standard error over.

        Raises:
            DatasetError: there is no data set at `path`.
            OptionError: `seed` is out of range.
            RecipeError: the size of the rows follows from a first image that is bad.
        """
        _check_range("--seed", seed, _SEED_MAX)
        configure()
        silence_library_noise()
        self.recipe = recipe
        self.seed = seed
        with Patience("indexing") as progress:
            self.index: IndexFile = load_or_build(path, progress=progress)
        try:
            self.arrays = IndexArrays(self.index.fd, self.index.dims_fd)
            self.height, self.width = output_size(recipe, self.arrays.first_size_px)
            self._source = _open_source(self.arrays)
        except BaseException:
            self.index.close()
            raise
        self._planner = Planner(recipe, seed, (self.height, self.width))
        self._renderer = Renderer(recipe.filter, (self.height, self.width))
        self._draw = Draw(self.index.num_samples, seed, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.close()
        self.index.close()

    def first_ids(self, epoch: int, count: int) -> list[int]:
        """Return the samples at the first positions of an epoch, at most `count`."""
        positions = np.arange(min(count, self.index.num_samples))
        ids, _ = self._draw.rows(epoch, positions)
        found: list[int] = ids.tolist()
        return found

    def position_of(self, sample: int, epoch: int) -> int:
        """Return where in the shuffled order of an epoch a sample stands."""
        num_samples = self.index.num_samples
        for first in range(0, num_samples, _POSITIONS_AT_ONCE):
            positions = np.arange(first, min(first + _POSITIONS_AT_ONCE, num_samples))
            ids, _ = self._draw.rows(epoch, positions)
            if len(places := np.flatnonzero(ids == sample)):
                return first + int(places[0])
        raise AssertionError(f"sample {sample} is in no place of epoch {epoch}")

    def label_of(self, sample: int) -> str:
        """Say a sample's label in words; empty when it has none."""
        classes = self.arrays.classes
        if self.arrays.targets is not None:
            columns = np.flatnonzero(self.arrays.targets[sample] > 0).tolist()
            return ", ".join(classes[column] for column in columns)
        label = int(self.arrays.labels[sample])
        return classes[label] if label >= 0 else ""

    def read(self, sample: int) -> Negative:
        """Read a sample's file and its header. Raises BadImage."""
        content = self._source.read(sample)
        return Negative(content, read_header(content))

    def drawn(self, sample: int, epochs: Sequence[int], header: Header) -> list[Drawn]:
        """Draw the parameters of one sample in each of these epochs."""
        count = len(epochs)
        sides = np.empty((2, count), np.int32)
        sides[0], sides[1] = header.width, header.height
        ids = np.full(count, sample, np.int64)
        plan = self._planner.plan(ids, np.array(epochs, np.int64), sides[0], sides[1])
        return [
            self._drawn(
                epoch,
                tuple(plan.crop[row].tolist()),
                tuple(plan.scaled[row].tolist()),
                tuple(plan.window[row].tolist()),
                bool(plan.mirror[row]),
                None if plan.colour is None else plan.colour[row],
                plan.impossible.get(row, ""),
            )
            for row, epoch in enumerate(epochs)
        ]

    def _drawn(
        self,
        epoch: int,
        crop: tuple[int, int, int, int],
        scaled: tuple[int, int],
        window: tuple[int, int],
        *rest: Any,
    ) -> Drawn:
        x, y, width, height = crop
        step_x, step_y = width / scaled[0], height / scaled[1]
        seen = (
            x + window[0] * step_x,
            y + window[1] * step_y,
            self.width * step_x,
            self.height * step_y,
        )
        return Drawn(epoch, crop, scaled, window, seen, *rest)

    def row(self, negative: Negative, drawn: Drawn) -> Pixels:
        """Make one row: uint8 (height, width, 3), RGB, the caller's own. Raises BadImage."""
        if drawn.impossible:
            raise BadImage(drawn.impossible)
        region = decode(negative.content, negative.header, drawn.crop)
        out = np.empty((self.height, self.width, 3), np.uint8)
        colour = None if drawn.colour is None else drawn.colour.tolist()
        outline = Outline(drawn.scaled, drawn.window, drawn.mirror, colour)
        self._renderer.render(region, outline, out)
        return out


def check_epoch(epoch: int) -> None:
    """Refuse an epoch that no stream has."""
    _check_range("--epoch", epoch, _EPOCH_MAX)


def _check_range(name: str, value: int, highest: int) -> None:
    if not 0 <= value <= highest:
        raise OptionError(f"{name}: expected 0..{highest}, got {value}; the first one is 0")


def _open_source(arrays: IndexArrays) -> FolderSource:
    try:
        return FolderSource(arrays.root, arrays)
    except OSError as error:
        raise DatasetError(
            f"the data set's folder {arrays.root!r} cannot be opened ({error.strerror}). "
            "Check the path and its permissions."
        ) from None
