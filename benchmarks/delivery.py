"""What does delivery cost: images/s at a client against the same work into a null sink.

The same producers make the same chunks; on one side daemon, messages and client are added.
Also the daemon's share of all CPU time, on the delivered side.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client, null_sink
from benchmarks._report import Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, ratios, spread

QUESTION = "What does delivery cost?"


def run(options: Options) -> list[Figure]:
    """Measure in turns, with both filters."""
    figures = []
    for filter in ("linear", "antialias"):
        starts = [augd_client(options, filter), null_sink(options, filter)]
        scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
        ours, null = scores["augd"], scores["null sink"]
        ratio, target = ratios(ours, null), Target(">=", 0.97)
        share = spread(100 * score.extras["daemon_cpu_share"] for score in ours)
        figures += [
            Figure(f"delivered / null sink, {filter}", "x", ratio, target),
            Figure(f"daemon's share of CPU, {filter}", "%", share, Target("<=", 2.0)),
            *rates(f"delivered, {filter}", ours),
            *rates(f"null sink, {filter}", null),
        ]
    return figures


if __name__ == "__main__":
    run_alone("delivery", QUESTION, run)
