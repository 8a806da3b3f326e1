"""Looking at every file of a data set: read, header, whole decode, in several processes.

The same reading and decoding as a producer's, without plan and render. Processes, because
`decode` learns of a broken scan from its process's standard error; and a decoder that dies of a
file takes one process with it, which is replaced.

Worker w of n looks at samples w, w + n, ... in that order and answers each with one line, so that
the asker reads the workers in turns and gets the samples in order. Changes nothing on disk.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import numpy as np

from augd.dataset.arrays import IndexArrays
from augd.dataset.index import IndexFile
from augd.errors import AugdError
from augd.hire import ENVIRONMENT
from augd.pixels.decode import configure, decode, silence_library_noise
from augd.pixels.header import BadImage, read_header
from augd.pixels.shards import open_source
from augd.pixels.source import Source


class Examined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one file is. `reason` says why it is bad; sizes and format are known unless it is.

    `digest` is there for files that have the same size as another.
    """

    sample: int
    format: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: str = ""
    reason: str = ""


def examine_all(index: IndexFile, num_workers: int) -> Iterator[Examined]:
    """Yield what every file is, in the order of the samples.

    Raises:
        AugdError: a worker failed by itself, by no file's fault.
    """
    workers = [_start(index, first, num_workers) for first in range(num_workers)]
    try:
        for sample in range(index.num_samples):
            worker = workers[sample % num_workers]
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if line.endswith(b"\n"):
                yield msgspec.json.decode(line, type=Examined)
                continue
            yield Examined(sample=sample, reason=_cause_of_death(worker))
            _end(worker)
            workers[sample % num_workers] = _start(index, sample + num_workers, num_workers)
    finally:
        for worker in workers:
            _end(worker)


def _start(index: IndexFile, first: int, step: int) -> subprocess.Popen[bytes]:
    fds = index.fd, index.dims_fd
    numbers = map(str, (*fds, first, step))
    command = [sys.executable, "-m", "augd.views.examine", *numbers]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        env={**os.environ, **ENVIRONMENT},
    )


def _cause_of_death(worker: subprocess.Popen[bytes]) -> str:
    status = worker.wait()
    if status >= 0:
        raise AugdError(
            f"a process that looked at the files ended with status {status}; what it said before "
            "is the cause"
        )
    return f"the decoder died of it ({signal.Signals(-status).name})"


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    if worker.stdout is not None:
        worker.stdout.close()


def examine(index: IndexArrays, source: Source, sample: int, has_twin: bool) -> Examined:
    """Read and decode one file whole."""
    try:
        content = source.read(sample)
        digest = hashlib.blake2b(content, digest_size=16).hexdigest() if has_twin else ""
        header = read_header(content)
        decode(content, header, (0, 0, header.width, header.height))
    except BadImage as bad:
        return Examined(sample=sample, reason=str(bad))
    return Examined(
        sample=sample,
        format=header.format,
        width=header.width,
        height=header.height,
        orientation=header.orientation,
        digest=digest,
    )


def _work(index_fd: int, dims_fd: int, first: int, step: int) -> None:
    """Answer every `step`-th sample from `first` on standard output, a line each."""
    index = IndexArrays(index_fd, dims_fd)
    _, places, counts = np.unique(index.sizes_bytes, return_inverse=True, return_counts=True)
    has_twin = counts[places] > 1
    with open_source(index.root, index) as source:
        for sample in range(first, index.num_samples, step):
            answer(examine(index, source, sample, bool(has_twin[sample])))


def begin_work() -> None:
    """Set up a worker that decodes; it ends without a word on Ctrl-C, or when nobody reads it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    configure()
    silence_library_noise()


def answer(said: msgspec.Struct) -> None:
    """Write a worker's line to whoever started it."""
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run a worker."""
    begin_work()
    _work(*map(int, sys.argv[1:]))


if __name__ == "__main__":
    main()
