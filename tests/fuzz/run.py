"""Fuzz one target, guided by coverage: `python -m tests.fuzz.run TARGET [SECONDS]`; `make fuzz`.

Needs atheris, the extra `fuzz`. A finding is written to the folder from which it runs, as
`finding-TARGET-*`; once it is mended, minimise it and put it into `corpus/`.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris
import msgspec

with atheris.instrument_imports(include=["augd", "msgspec"]):
    from tests.fuzz import targets
    from tests.fuzz.seeds import MAX_BYTES, seeds

from augd.pixels import decode as decoding


def main(target: str, seconds: int) -> None:
    """Run until the time is over (exit 0), or until something is found (exit 77)."""
    run = targets.TARGETS[target]

    def once(data: bytes) -> None:
        if decoding._noise_fd is None:
            decoding._noise_fd = decoding._divert_standard_error()
        run(data)

    with tempfile.TemporaryDirectory(prefix="augd-fuzz-") as folder:
        for number, seed in enumerate(seeds(target)):
            (Path(folder) / f"{number:04}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix=finding-{target}-",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-close_fd_mask=2",  # libFuzzer keeps a copy; descriptor 2 becomes the decoder's noise
            "-print_final_stats=1",
            "-verbosity=1",
        ]
        mutate = _other_value if target == "wire" else None
        atheris.Setup([sys.argv[0], *options, folder], once, custom_mutator=mutate)
        atheris.Fuzz()


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**62, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x" * 300, "\n\x1b[2J\0", "mirror", b"", b"\xff", [], {}, [[]] * 9, {"": {}},
    [1, 1], {"op": "resize"}, msgspec.msgpack.Ext(7, b"x"), msgspec.msgpack.Ext(-1, b"\xff" * 12),
)  # fmt: skip


def _other_value(data: bytes, max_size: int, seed: int) -> bytes:
    """Put another value somewhere into a msgpack tree; half of the time, change bytes.

    msgspec is not Python, so that coverage can't lead to what it accepts.
    """
    rng = random.Random(seed)
    try:
        assert rng.random() < 0.5
        tree = msgspec.msgpack.decode(data[2:])
        changed = msgspec.msgpack.encode(_changed(tree, rng))
    except (AssertionError, ValueError, TypeError, RecursionError, msgspec.MsgspecError):
        return bytes(atheris.Mutate(data, max_size))
    return (data[:2] + changed)[:max_size]


def _changed(tree: Any, rng: random.Random) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        return {**tree, key: _changed(tree[key], rng)}
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        at = rng.randrange(len(tree))
        return [*tree[:at], _changed(tree[at], rng), *tree[at + 1 :]]
    return rng.choice(_VALUES)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)
