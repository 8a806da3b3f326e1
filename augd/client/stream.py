"""A stream of batches as NumPy arrays: what `augd.connect` returns.

Runs in the training process. `augd/client/epoch_reader.py` reads its epochs,
`augd/client/stream_connection.py` keeps its connection to a daemon, and `augd/client/batch.py`
makes the batches. Copies no pixel.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

from augd.client import argument_checks
from augd.client.batch import Batch, Labels
from augd.client.connection import Connection
from augd.client.epoch_pass import EpochPass
from augd.client.epoch_reader import EpochReader
from augd.client.state_format import EPOCH_MAX
from augd.client.stream_connection import Connect, StreamConnection
from augd.errors import OptionError, counted
from augd.protocol import epoch_layout


class Stream:
    """A stream of batches. Iterate `epoch(n)` for batches, or the stream itself for pairs.

    For one thread at a time. `close()` it, or use it in `with`. A stream that is dropped closes
    itself; so does the end of the process, however it ends.
    """

    def __init__(
        self,
        connection: Connection,
        connect: Connect,
        timeout_s: float,
        *,
        is_verified: bool,
        is_mixed: bool = True,
    ) -> None:
        """Made by `connect`; the function given here connects again."""
        self._connection = StreamConnection(connection, connect, timeout_s)
        self._reader = EpochReader(self._connection, is_verified=is_verified, is_mixed=is_mixed)

    @property
    def num_samples(self) -> int:
        """Samples per epoch that this rank gets, padding not counted."""
        return epoch_layout.samples_of_rank(
            self._connection.spec.layout, self._connection.opened.num_positions, 0
        )

    @property
    def classes(self) -> list[str]:
        """Names of the classes by label; empty for a dataset without labels."""
        return list(self._connection.current.classes)

    @property
    def content(self) -> str:
        """Digest of everything that decides a sample's pixels and their order."""
        return self._connection.opened.content

    @property
    def dataset(self) -> str:
        """The dataset's name at the daemon."""
        return self._connection.opened.dataset

    @property
    def num_unlabelled(self) -> int:
        """Samples of an epoch, over all ranks, that have no class: their label is -1."""
        return self._connection.opened.num_unlabelled

    @property
    def num_targets(self) -> int:
        """K of `labels` (B, K), which are targets then; 0 if a label is a class."""
        arrays = self._connection.opened.arrays
        labels = next(array for array in arrays if array.name == "labels")
        return labels.shape[1] if len(labels.shape) > 1 else 0

    @property
    def has_colour(self) -> bool:
        """Whether colours are left to the device: batches then carry their matrices."""
        arrays = self._connection.opened.arrays
        return any(array.name.partition(".")[0] == "colour" for array in arrays)

    @property
    def arena(self) -> memoryview:
        """All slots as one mapped piece of memory, to register with a device; empty once closed.

        A reference to it keeps the mapping, also after `close`.
        """
        return self._connection.current.arena

    def is_ready(self) -> bool:
        """Say whether the next batch, or the epoch's end, has arrived; never waits."""
        return self._connection.current.is_ready()

    def __len__(self) -> int:
        """Batches per epoch."""
        return self._reader.batches_left(0)

    def batches_of(self, epoch: int) -> int:
        """Count the batches of the next pass over an epoch: the rest, if a state was loaded.

        Args:
            epoch: counted from 0.
        """
        return self._reader.batches_of(epoch)

    def __repr__(self) -> str:
        epoch, position = self._reader.yielded
        connection = self._connection.current
        where = "closed" if connection.is_closed else f"at {connection.address}"
        classes = counted(len(self.classes), "class", "classes") if connection.classes else ""
        samples = counted(self.num_samples, "sample") + (classes and f", {classes}")
        batches = counted(len(self), "batch", "batches")
        return (
            f"<Stream of {self.dataset!r} {where}: {samples}, "
            f"{batches} of {self._connection.spec.layout.batch_size}; epoch {epoch}, position "
            f"{position:,}>"
        )

    # passes

    def epoch(self, epoch: int) -> EpochPass[Batch]:
        """Yield the batches of one epoch, in order; the same batches at every call.

        The first pass after `load_state_dict`, or after a shared stream was joined, begins at that
        place if it is over its epoch. Every other pass begins where its epoch does. While an epoch
        ends, the batches of the next one are already being made. A new pass ends an unfinished one.
        If the daemon is lost, the pass waits for it and goes on where it stood.

        Args:
            epoch: counted from 0, at most 2**31 - 2.

        Returns:
            An iterator; its `len` is the number of batches of the pass.

        Raises:
            BatchesHeld: the caller holds every slot of the stream.
            ConnectError: nothing came within `timeout_s`, or no daemon is back by then.
            SpecMismatch: the daemon that is back serves other content.
            ReceiptMismatch: what came is not what was made.
            SampleFailed: with `bad="fail"`, a sample cannot be read.
            ProducersUnhealthy: producers die again and again.
        """
        epoch = argument_checks.whole("epoch", epoch, 0, EPOCH_MAX)
        return EpochPass(self._reader.batches(epoch), epoch, self.batches_of(epoch))

    def __iter__(self) -> Iterator[tuple[Any, Labels]]:
        """Yield (images, labels) of the epoch after the last one that was begun, at first of 0.

        A recipe with view groups gives (views, labels) instead.
        """
        epoch = self._reader.next_pass
        return EpochPass(self._pairs(), epoch, self.batches_of(epoch))

    def _pairs(self) -> Generator[tuple[Any, Labels], None, None]:
        for batch in self.epoch(self._reader.next_pass):
            pair = batch.views or batch.images, batch.labels
            del batch  # only the arrays hold the slot
            yield pair

    # questions

    def paths(self, ids: Iterable[int]) -> list[str]:
        """Return the paths of samples below the dataset's root, in the order of `ids`.

        Asks the daemon over a connection of its own, so other threads may call it meanwhile. Too
        slow for each batch of a training.

        Args:
            ids: those of a batch (`batch.ids`); -1, which is no sample, has the path "".

        Returns:
            A path per id. Names that are not UTF-8 are as `os.fsdecode` returns them.

        Raises:
            ConnectError: the daemon doesn't answer within `timeout_s`.
            SpecMismatch: the daemon serves another dataset by that name now.
            OptionError: an id is none of the dataset's.
        """
        self._connection.current.check_usable()
        try:
            wanted = [operator.index(sample) for sample in ids]
        except TypeError:
            raise OptionError(f"ids: expected whole numbers, got {str(ids)[:80]!r}") from None
        known = sorted({sample for sample in wanted if sample >= 0})
        opened = self._connection.opened
        digest = json.loads(opened.content_fields["dataset"])
        current = self._connection.current
        found = current.paths(self.dataset, digest, known) if known else []
        named = dict(zip(known, map(os.fsdecode, found), strict=True))
        return [named.get(sample, "") for sample in wanted]

    def note_transfer(self, seconds: float) -> None:
        """Report the time that moving batches to a device took, with the next slot given back.

        For `augd status` and the dashboard. `augd.torch.connect` calls it.

        Args:
            seconds: time in which the caller neither waited for a batch nor worked on one.
        """
        self._connection.current.session.transfer_us += max(0, round(1e6 * seconds))

    def stats(self) -> dict[str, float]:
        """Return what was delivered so far, and the seconds spent waiting for it.

        Returns:
            - `batches` and `samples` that were handed out;
            - `wait_s`, seconds spent waiting;
            - `fetch_s`, the part of `wait_s` in which a finished batch was on its way (0 with
              shared memory);
            - `lost`, connections that ended and were opened again;
            - `detached`, 1 once this stream lagged too far behind its sharers and went on alone;
            - `quarantined`, samples masked for good.
        """
        return {
            "batches": self._reader.num_batches,
            "samples": self._reader.num_samples,
            "wait_s": self._reader.wait_s,
            "fetch_s": self._connection.current.fetch_s,
            "lost": self._connection.num_lost,
            "detached": self._connection.num_detached,
            "quarantined": len(self._connection.current.session.quarantine),
        }

    @property
    def notices(self) -> list[str]:
        """Warnings that stop nothing, from the daemon on this connection and from this stream.

        Files that were replaced under a stream, or since its state was saved, are named here.
        """
        return [*self._connection.current.session.notices, *self._connection.notices]

    def receipt(self, epoch: int) -> dict[str, Any]:
        """Return what was handed out of an epoch, as JSON data.

        Digests are sums over rows. They are equal for equal content whatever the batch size. Those
        of all ranks add up, modulo 2**64 and 2**128, to those of a single trainer.

        Args:
            epoch: one of the last thousand that were begun.

        Returns:
            - `epoch`; `batches`, `samples` and `num_bad`, counts;
            - `ids`, a digest of which sample stood where;
            - `bytes`, a digest of all ids, labels and pixels;
            - `is_complete`, whether the epoch was counted from its start to its end, resumes
              included;
            - `files_changed`, whether the dataset's files were replaced, under another daemon,
              between batches of this epoch (`notices` names them).

        Raises:
            OptionError: nothing of this epoch was handed out.
        """
        return self._reader.receipts.receipt(epoch)

    # saved state

    def state_dict(self, after: tuple[int, int] | None = None) -> dict[str, Any]:
        """Return where the stream stands, as JSON data; the batch in hand counts as handed out.

        Args:
            after: (epoch, position) of a batch that was handed out: the state right after it.
        """
        return self._reader.state_dict(after)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a state was taken: the next pass, if over its epoch, yields the rest of it.

        Batch size, rank and world may differ from the run that saved it: the global sequence of
        samples stays. With another rank or world the epoch's receipt is not complete: the part that
        this rank would have had before is not known.

        Args:
            state: what `state_dict` returned.

        Raises:
            SpecMismatch: the content differs; the message names each field and both values.
            OptionError: this is no state of a stream.
        """
        self._reader.load_state_dict(state)

    def close(self) -> None:
        """End the stream; batches that are held stay readable."""
        self._connection.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
