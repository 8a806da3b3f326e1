"""How fast are frames: slots over loopback TCP against a plain socket that moves the same bytes.

No image work: the daemon's own sending end and a client's own receiving end, in two processes,
with slots that are filled beforehand. On the other side `sendall` and `recv_into`, between two
processes as well, with the same slots and as many under way.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks._competitors import transfer
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import Score, alternate, ratios, spread

QUESTION = "How fast are frames?"


def run(options: Options) -> list[Figure]:
    """Measure in turns."""
    starts = [transfer("frames"), transfer("plain socket")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    ours, plain = scores["frames"], scores["plain socket"]
    return [
        Figure("frames / plain socket", "x", ratios(ours, plain), Target(">=", 0.7)),
        *_costs("frames", ours, Target(">=", 1.0)),
        *_costs("plain socket", plain, None),
    ]


def _costs(name: str, scores: Sequence[Score], target: Target | None) -> list[Figure]:
    def figure(what: str, key: str, unit: str, target: Target | None = None) -> Figure:
        return Figure(f"{name}{what}", unit, spread(one.extras[key] for one in scores), target)

    return [
        figure("", "gb_per_s", "GB/s", target),
        figure(", sender", "sender_cpu_s_per_gb", "CPU-s/GB"),
        figure(", receiver", "receiver_cpu_s_per_gb", "CPU-s/GB"),
    ]


if __name__ == "__main__":
    run_alone("frames", QUESTION, run)
