"""A stream as a `torch.utils.data.DataLoader`, for programs that need one.

Runs in the training process, on top of `Stream`, for Lightning, Accelerate and existing loops.
Nothing is collated or copied, and no worker is started: batches are the stream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import augd

from .host_feed import Pixels, for_views
from .stream import Stream

Pair = tuple[Any, Tensor]  # images or views, labels


class _Epochs(IterableDataset[Pair]):
    """Each iteration is the stream's next epoch."""

    def __init__(self, stream: Stream, *, drop_invalid: bool) -> None:
        self.stream = stream
        self._drop_invalid = drop_invalid

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> Iterator[Pair]:
        for batch in self.stream.next_epoch():
            images: Pixels = batch.views or batch.images
            labels = batch.labels
            if self._drop_invalid and not bool(batch.valid.all()):
                valid = batch.valid
                images = for_views(images, lambda _, rows: rows[valid])  # noqa: B023 - called here
                labels = labels[valid]
            if len(labels):
                yield images, labels
            elif self.stream.world > 1:
                # Skipped on this rank alone, the batch would leave the others waiting for a step.
                raise augd.DatasetError(
                    f"the batch at position {batch.position} of epoch {batch.epoch} has no "
                    "sample that can be read on this rank, and ranks must make the same steps: "
                    "repair the samples (augd status counts them), or pass drop_invalid=False"
                )


class StreamLoader(DataLoader[Pair]):
    """A `DataLoader` whose batches are a stream's; made by `as_dataloader`."""

    def __init__(self, stream: Stream, *, drop_invalid: bool) -> None:
        """Read the stream in this process: its memory is mapped here."""
        self._stream = stream
        epochs = _Epochs(stream, drop_invalid=drop_invalid)
        super().__init__(epochs, batch_size=None, num_workers=0, collate_fn=_as_it_is)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, as JSON data; Lightning puts it into its checkpoints."""
        return self._stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken; see `Stream.load_state_dict`."""
        self._stream.load_state_dict(state)


def _as_it_is(pair: Any) -> Any:
    return pair


def as_dataloader(stream: Stream, *, drop_invalid: bool = True) -> DataLoader[Pair]:
    """Wrap a stream for programs that take a `DataLoader`; each pass is the next epoch.

    Shuffling, sharding and batch size are the stream's, so `rank` and `world` belong to `connect`.
    Switch the program's own sampler off (Lightning: `Trainer(use_distributed_sampler=False)`).

    Args:
        stream: the caller still closes it.
        drop_invalid: drop rows that are bad samples or padding (label -100), so that the loss need
            not ignore them. On CUDA this waits for each batch's copy. A batch without a valid row
            is skipped. With ranks the stream must be of `connect(drop_last=True)`: in an epoch's
            last, short batch a rank may have no row. It would make one step less.

    Returns:
        A loader of (images, labels): (B, 3, H, W) in the stream's dtype and int64 (B,), on the
        stream's device. With view groups, (views, labels). Its `len` is the number of batches per
        epoch.

    Raises:
        OptionError: `drop_invalid` for one rank of several without `drop_last`: DDP would hang.
    """
    if drop_invalid and stream.world > 1 and not stream.drop_last:
        raise augd.OptionError(
            f"drop_invalid: with world={stream.world} and drop_last=False ranks give different "
            "numbers of batches, and DistributedDataParallel hangs; connect with drop_last=True, "
            "or pass drop_invalid=False and leave rows with label -100 out of the loss"
        )
    return StreamLoader(stream, drop_invalid=drop_invalid)
