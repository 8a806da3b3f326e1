"""What does it cost that producers are elsewhere: lent over loopback TCP, against a daemon's own.

The same photos, cores and client: only the way of the rows differs, from the producers' memory by
the relay and ZeroMQ into the slot. Beside it the rows alone, without image work, against a plain
socket that moves the same bytes, and with CURVE, which encrypts them. On one machine producers,
relay and daemon share the cores; between two the relay's and the daemon's part lies apart.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client, remote_client, transfer
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import alternate, ratios, spread

QUESTION = "What does it cost that producers are elsewhere?"


def run(options: Options) -> list[Figure]:
    """Measure in turns."""
    lent = [augd_client(options, "antialias")]
    lent += [remote_client(options, "antialias", has_keys=keys) for keys in (False, True)]
    made = alternate(lent, rounds=options.rounds, seconds=options.seconds)
    ways = [transfer("rows"), transfer("rows, CURVE"), transfer("plain socket")]
    moved = alternate(ways, rounds=options.rounds, seconds=options.seconds)
    return [
        Figure("remote / local", "x", ratios(made["remote"], made["augd"]), Target(">=", 0.9)),
        Figure("remote with CURVE / local", "x", ratios(made["remote, CURVE"], made["augd"])),
        *(
            Figure(f"{who}, {name}", "CPU-s/1,000", spread(one.extras[key] for one in scores))
            for name, scores in made.items()
            for who, key in (("daemon", "daemon_cpu_s"), ("relay", "relay_cpu_s"))
        ),
        Figure("rows / plain socket", "x", ratios(moved["rows"], moved["plain socket"])),
        Figure("CURVE / rows", "x", ratios(moved["rows, CURVE"], moved["rows"])),
        *(
            Figure(name, "GB/s", spread(one.extras["gb_per_s"] for one in scores))
            for name, scores in moved.items()
        ),
    ]


if __name__ == "__main__":
    run_alone("remote", QUESTION, run)
