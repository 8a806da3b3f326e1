"""The environment of child processes: one thread per library, and no secrets."""

from __future__ import annotations

import os

# Producers are the parallelism: a pool of threads inside each would only fight the others,
# and OpenBLAS would set 8 MB aside for each of its own.
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
