"""What does it cost that shards are elsewhere: by HTTP ranges on loopback, against local ones.

The same packed photos, cores and recipe; daemons with their producers and a client take turns. The
server is a small one in Python, on the same cores, which answers at once or after 20 ms, as a store
in the same region does. Its work, the fetcher's and the copies between are what is seen; a network
that is slower than the producers is not.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from augd.cli.pack.command import pack
from augd.cli.pack.options import PackOptions
from benchmarks._competitors import Start, cached_client, recipe
from benchmarks._report import Figure, Options, rates, run_alone
from benchmarks._rounds import alternate, ratios

QUESTION = "What does it cost that shards are elsewhere?"

_ROUND_TRIP_S = 0.02


@contextmanager
def _served(folder: Path, delay_s: float) -> Iterator[str]:
    """Serve a folder's ranges; yields its address."""
    program = [sys.executable, "-m", "benchmarks.sides.range_server", str(folder), str(delay_s)]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.communicate()


def run(options: Options) -> list[Figure]:
    """Pack the photos, and measure in turns."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="augd-bench-")))
        packed = folder / "packed"
        pack(str(options.photos), str(packed), PackOptions())
        near = opened.enter_context(_served(packed, 0.0))
        far = opened.enter_context(_served(packed, _ROUND_TRIP_S))

        def side(name: str, photos: str, **more: Any) -> Start:
            return cached_client(options, recipe("linear"), name, None, photos=photos, **more)

        scores = alternate(
            [
                side("local", str(packed)),
                side("at once", near),
                side("after 20 ms", far),
                side("shard cache", far, shard_cache=f"{folder}/blocks:20GB"),
            ],
            rounds=options.rounds,
            seconds=options.seconds,
        )
        local = scores.pop("local")
        return [
            *rates("local shards", local),
            *(
                Figure(f"{name} / local shards", "x images/s", ratios(found, local))
                for name, found in scores.items()
            ),
        ]


if __name__ == "__main__":
    run_alone("stores", QUESTION, run)
