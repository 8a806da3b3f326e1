"""The environment of child processes: one thread per library, and no secrets."""

from __future__ import annotations

import os

# Producers are the parallelism: a thread pool inside each would compete with the others, and
# OpenBLAS would reserve 8 MB for each of its threads.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}

SECRETS = ("AWS_",)
"""What names of variables begin with that no confined process gets."""


def without_secrets() -> dict[str, str]:
    """Return the environment for a confined process: without credentials of object stores."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}
