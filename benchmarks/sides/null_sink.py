"""Competitor: one producer's lease runner with no daemon, no messages and no client.

The same `LeaseRunner` makes usual chunks by the same code, several leases deep, into private
memory; what it would report goes nowhere. N of these processes share each epoch chunk by
chunk, as N producers of a daemon do. What it lacks is what delivery costs. It can be run without
one of the things that keep a producer safe, to see what each costs.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from augd.dataset.index_file import IndexFile
from augd.dataset.scan.build_index import load_or_build
from augd.pixels.decode import configure, silence_library_noise
from augd.plan.recipe.recipe import expand, output_size, parse_recipe
from augd.process.sandbox import confine
from augd.protocol import messages as msg
from augd.protocol.slot_layout import slot_layout
from augd.server.daemon.broker.chunk_size import CHUNK_ROWS
from augd.server.daemon.broker.producers import DEPTH, LOW_WATER
from augd.server.producer import lease_runner
from augd.server.producer.lease_runner import LeaseRunner
from augd.transport.current_sample import CurrentSample, make_current_sample
from benchmarks._rounds import answer_rounds, run_chunks

_SLOTS = 2
_STREAM = 1
_DATASET = "photos"


class NullSink:
    """A lease runner that leases to itself, in turns with its siblings, without a daemon."""

    def __init__(
        self, index: IndexFile, arguments: Mapping[str, Any], current_sample: CurrentSample
    ) -> None:
        """Give it the dataset and a stream, as a daemon would."""
        batch_size = arguments["batch_size"]
        self._lease_runner = LeaseRunner(lambda lease: None, current_sample)
        self._rows: deque[int] = deque()  # of the leases in its queue
        self._leases = _leases(
            index.num_samples, batch_size, arguments["process"], arguments["workers"]
        )
        self._lease_runner.use_dataset(_DATASET, str(index.root), index.fd, index.dims_fd)
        recipe = parse_recipe(arguments["recipe"])
        height, width = output_size(recipe, index.first_size_px)
        arrays, slot_bytes = slot_layout(batch_size, height, width)
        use = msg.StreamMessage(
            stream=_STREAM,
            dataset=_DATASET,
            recipe=expand(recipe),
            layout=msg.Layout(batch_size),
            seed=0,
            shuffle=True,
            arrays=arrays,
            slot_bytes=slot_bytes,
            num_slots=_SLOTS,
        )
        private = mmap.mmap(-1, slot_bytes * _SLOTS, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._lease_runner.use_stream(use, private)

    def make_chunk(self) -> int:
        """Make the next chunk; returns its rows."""
        if len(self._lease_runner) <= LOW_WATER:
            while len(self._lease_runner) < DEPTH:
                lease = next(self._leases)
                self._lease_runner.accept(lease)
                self._rows.append(lease.rows)
        made = self._lease_runner.make_next()
        if made.num_bad:
            raise RuntimeError(f"bad samples spoil the comparison: {made.bad}")
        return self._rows.popleft()


def _leases(num_samples: int, batch_size: int, process: int, workers: int) -> Iterator[msg.Lease]:
    """Yield this process's share of the chunks of epoch 0, 1, 2, ..."""
    chunks = (
        (epoch, position, batch % _SLOTS, first_row, min(batch_size, num_samples - position))
        for epoch in range(2**31)
        for batch, position in enumerate(range(0, num_samples, batch_size))
        for first_row in range(0, min(batch_size, num_samples - position), CHUNK_ROWS)
    )
    for number, (epoch, position, slot, first_row, rows) in enumerate(chunks):
        if number % workers == process:
            count = min(CHUNK_ROWS, rows - first_row)
            yield msg.Lease(number, _STREAM, epoch, position, first_row, count, slot)


class _NoCurrentSample(CurrentSample):
    """Names nothing to nobody."""

    def set(self, lease: int, row: int, sample: int) -> None:
        """Do nothing."""

    def clear(self) -> None:
        """Do nothing."""


def _take_out(feature: str) -> CurrentSample:
    """Switch off what keeps a producer safe; returns the page to use."""
    if feature == "noise":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    else:
        silence_library_noise()
    if feature != "confinement":
        confine()
    if feature == "receipts":
        vars(lease_runner).update(rows_digest=lambda *_: 0, ids_digest=lambda *_: 0)
    current_sample, _fd = make_current_sample()
    return _NoCurrentSample.private() if feature == "crumb" else current_sample


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, process, without."""
    index = load_or_build(arguments["photos"])
    current_sample = _take_out(arguments.get("without", ""))
    configure()
    sink = NullSink(index, arguments, current_sample)

    def run_round(seconds: float) -> dict[str, float]:
        sink.make_chunk()
        return run_chunks(sink.make_chunk, seconds)

    answer_rounds(run_round)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
