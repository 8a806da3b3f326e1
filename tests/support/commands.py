"""The `augd` command within the test's own process: what it prints, and how it ends.

A process of its own costs a third of a second of computing. Tests start one where it matters:
signals, streams, environments, what an interpreter finds at its start.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys

from augd.cli.app import main


def run_augd(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command as `python -m augd` does, in this process where that shows the same."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    command = [*map(str, words)]
    status: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command)
        except SystemExit as ended:
            status = ended.code
    if isinstance(status, str):
        print(status, file=err)
    number = status if isinstance(status, int) else int(status is not None)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess([sys.executable, "-m", "augd", *command], number, *said)


def start_augd(*words: object, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "augd", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
