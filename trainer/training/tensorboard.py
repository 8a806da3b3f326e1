"""A run's TensorBoard log: numbers and images, by step.

The loop and the evaluation call it with numbers that are on the CPU already. Without tensorboard,
and on every rank but the first, nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import augd


class TensorBoardLog:
    """Events in a folder; use it in `with`, or `close` it: a thread writes them."""

    def __init__(self, folder: Path | None, first_step: int = 0) -> None:
        """Write nothing yet; events that a crashed run wrote after `first_step` are removed.

        An epoch's point stands at the steps done by its end: a run that goes on from there has it.
        """
        self._folder, self._first_step = folder, first_step
        self._writer: Any = None

    def _open(self) -> Any:
        """Return the writer; None where nothing is written.

        Raises:
            AugdError: the folder cannot be written.
        """
        if self._writer is None and self._folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._folder = None  # a run is worth more than its curves
                return None
            # The writer strikes out its step, too, and steps that are done stay.
            purge_step = self._first_step + 1 if self._first_step else None
            try:
                self._writer = SummaryWriter(str(self._folder), purge_step=purge_step)
            except OSError as error:
                raise augd.AugdError(
                    f"{self._folder} cannot be written ({error}); choose another --out"
                ) from None
        return self._writer

    def numbers(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write numbers by name, such as "loss/training"; None is left out."""
        writer = self._open()
        if writer is not None:
            for name, value in values.items():
                if value is not None:
                    writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: NDArray[np.uint8]) -> None:
        """Write an image, uint8 (H, W, 3), RGB."""
        writer = self._open()
        if writer is not None:
            writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left, and end the thread."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
