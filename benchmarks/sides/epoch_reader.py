"""Competitor: one whole epoch by a new stream, with the photos in the page cache or out of it.

A round is one epoch, however long it is told to be: only then is every file read once. A new
stream has nothing made ahead. The producers stay; their next epoch has other crops.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import mmap
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import augd
from benchmarks._rounds import answer_rounds, settle
from benchmarks._tree import cpu_between, cpu_by_pid, tree
from benchmarks.sides.peers._loop import photo_paths


def evict(paths: Sequence[str]) -> None:
    """Ask the kernel to drop the files' pages; those not yet written are written first."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def resident_share(paths: Sequence[str]) -> float:
    """Return the share of the files' pages that are in the page cache, 0..1."""
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    pages = resident = 0
    for path in paths:
        size = Path(path).stat().st_size
        if not size:
            continue
        with (
            Path(path).open("rb") as file,
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        ):
            view = np.frombuffer(mapped, np.uint8)
            found = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
            if mincore(view.ctypes.data, size, found.ctypes.data):
                raise OSError(ctypes.get_errno(), "mincore", path)
            del view  # or the mapping could not be closed
        pages += len(found)
        resident += int((found & 1).sum())
    return resident / max(1, pages)


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, recipe, batch_size, workers, is_cold."""
    paths = photo_paths(arguments["photos"])
    epochs = itertools.count()
    with augd.serve(arguments["photos"], producers=arguments["workers"]) as daemon:

        def run_round(seconds: float) -> dict[str, float]:
            if arguments["is_cold"]:
                evict(paths)
            else:
                for path in paths:
                    Path(path).read_bytes()
            resident = resident_share(paths)
            settle(tree(os.getpid()))
            before, started, images = cpu_by_pid(os.getpid()), time.monotonic(), 0
            with augd.connect(
                daemon.address, recipe=arguments["recipe"], batch_size=arguments["batch_size"]
            ) as stream:
                for batch in stream.epoch(next(epochs)):
                    images += len(batch)
                    batch.release()
                passed_s = time.monotonic() - started
                used_s = cpu_between(before, cpu_by_pid(os.getpid()))
            settle(tree(os.getpid()))
            return {"images": images, "seconds": passed_s, "cpu_s": used_s, "resident": resident}

        answer_rounds(run_round)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
