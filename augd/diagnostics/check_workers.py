"""Examines every file of a dataset in worker processes: reads it, and decodes all of it.

Runs under `augd check`. Reading and decoding are a producer's, without plan and render. Processes
are needed because `decode` learns of a broken scan from its process's standard error, and because a
file can kill a decoder. A worker that dies, or is silent for too long, is replaced. Each worker is
confined before its first file. For a dataset in an object store, which needs the network, a process
apart decodes.

Worker w of n examines samples w, w + n, ... in that order, and answers each with one line. The
parent reads the workers in turn, and so gets the samples in order. Changes nothing on disk.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import msgspec
import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.readers.open_source import open_source
from augd.dataset.readers.source import SampleSource
from augd.dataset.stores.address import is_address
from augd.diagnostics.decode_process import PATIENCE_S, START_S, DecodeProcess
from augd.errors import AugdError
from augd.pixels.decode import configure, decode, silence_library_noise
from augd.pixels.exif_orientation import DecodeStored
from augd.pixels.headers.read_header import BadImage, read_header
from augd.pixels.headers.size_limits import max_data_bytes
from augd.process import interpreter
from augd.process.awake_clock import Awake
from augd.process.child_environment import ENVIRONMENT
from augd.process.exit_status import reap
from augd.process.parent_death import die_with
from augd.process.sandbox import confine, limit

_READY = b"{}"  # a worker's first line


class Examined(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result for one file. `reason` says why it is bad; a good one has size and format.

    `digest` is set for files that have the same size as another.
    """

    sample: int
    format: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    digest: str = ""
    reason: str = ""


def examine_all(index: IndexFile, num_workers: int) -> Iterator[Examined]:
    """Yield the result for every file, in the order of the samples.

    Raises:
        AugdError: a worker failed, and not because of a file.
    """
    workers = [_CheckWorker(index, first, num_workers) for first in range(num_workers)]
    try:
        for sample in range(index.num_samples):
            worker = workers[sample % num_workers]
            line = worker.read_line()
            if line:
                yield msgspec.json.decode(line, type=Examined)
                continue
            yield Examined(sample=sample, reason=worker.end())
            workers[sample % num_workers] = _CheckWorker(index, sample + num_workers, num_workers)
    finally:
        for worker in workers:
            worker.close()


class _CheckWorker:
    """A process that examines every `step`-th sample from `first` on."""

    def __init__(self, index: IndexFile, first: int, step: int) -> None:
        fds = index.fd, index.dims_fd
        numbers = map(str, (*fds, first, step, os.getpid()))
        self._process = interpreter.start(
            *("augd.diagnostics.check_workers", *numbers),
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=fds,
            env={**os.environ, **ENVIRONMENT},
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._clock = Awake()
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._is_silent = self._is_ready = False

    def read_line(self) -> bytes:
        """Return its next line; empty if it died, or wrote none in time."""
        if not self._is_ready:
            if self._hear(START_S) != _READY:
                return b""
            self._is_ready = True
        return self._hear(PATIENCE_S)

    def _hear(self, patience_s: float) -> bytes:
        deadline_s = self._clock.now() + patience_s
        while not self._lines:
            left_s = max(0.0, deadline_s - self._clock.now())
            if not self._clock.wait(lambda s: self._poll.poll((s or 0.0) * 1000), left_s):
                self._is_silent = True
                return b""
            content = os.read(self._output.fileno(), 1 << 16)
            if not content:
                return b""
            *lines, self._rest = (self._rest + content).split(b"\n")
            self._lines += lines
        return self._lines.popleft()

    def end(self) -> str:
        """Reap it, and return what it did at the file that it did not answer."""
        if self._is_silent:
            self.close()
            if not self._is_ready:
                raise AugdError(
                    f"a process that looks at files did not start within {START_S:g} s: is the "
                    "machine, or its disk, overloaded?"
                )
            return f"its decoder was silent for {PATIENCE_S:g} s"
        status = self._process.wait()
        self.close()
        if status >= 0:
            raise AugdError(
                f"a process that looked at the files ended with status {status}; what it said "
                "before is the cause"
            )
        return f"the decoder died of it ({signal.Signals(-status).name})"

    def close(self) -> None:
        """Kill and reap it; closing twice is fine."""
        self._process.kill()
        reap(self._process)
        self._output.close()


def examine(
    index: IndexArrays,
    source: SampleSource,
    sample: int,
    has_twin: bool,
    decode: DecodeStored = decode,
) -> Examined:
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
    with open_source(index.root, index) as source, DecodeProcess() as apart:
        decoding: DecodeStored = apart.decode
        if not is_address(index.root):
            confine()
            decoding = decode
        sys.stdout.buffer.write(_READY + b"\n")
        sys.stdout.buffer.flush()
        for sample in range(first, index.num_samples, step):
            answer(examine(index, source, sample, bool(has_twin[sample]), decoding))


def begin_work() -> None:
    """Set up a worker; it ends silently on Ctrl-C, or when its output is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def answer(said: msgspec.Struct) -> None:
    """Write a worker's line to its parent."""
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run a worker."""
    *numbers, parent_pid = map(int, sys.argv[1:])
    die_with(parent_pid)
    begin_work()
    limit(max_data_bytes())
    configure()
    silence_library_noise()
    _work(*numbers)


if __name__ == "__main__":
    main()
