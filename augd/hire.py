"""Starting producer processes, before the daemon's own slow imports.

`subprocess`, never fork: a producer is a fresh interpreter, so it shares no lock, thread or
library state with the daemon. Imports nothing that is slow to import.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass

from augd.transport.link import make_link

# Producers are the parallelism: a pool of threads inside each would only fight the others,
# and OpenBLAS would set 8 MB aside for each of its own.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}


@dataclass(slots=True)
class Hired:
    """A producer process as the daemon holds it."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    pidfd: int

    def how_ended(self) -> str:
        """Say in words how a reaped producer ended: by which signal, or with which status."""
        status = self.process.returncode
        if status >= 0:
            return f"exit status {status}"
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"

    def close(self) -> None:
        """Close the fds of a producer that was reaped."""
        self.link.close()
        os.close(self.pidfd)


def hire() -> Hired:
    """Start one producer. It dies with the calling thread, which must be the main one."""
    near, far = make_link()
    with far:
        process = subprocess.Popen(
            [sys.executable, "-m", "augd.produce", str(far.fileno()), str(os.getpid())],
            pass_fds=(far.fileno(),),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT},
            # Ctrl-C in a terminal is for the daemon alone, which drains its producers.
            start_new_session=True,
        )
    return Hired(process, near, os.pidfd_open(process.pid))
