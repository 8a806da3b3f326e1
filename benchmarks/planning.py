"""What does it cost to plan: order and parameters of a sample, measured inside producers.

As they count it themselves while they work, cold caches and all; at batches of 256.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import alternate, spread

QUESTION = "What does planning cost?"


def run(options: Options) -> list[Figure]:
    """Measure over the rounds of one daemon."""
    starts = [augd_client(options, "linear")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)["augd"]
    plan_us = spread(score.extras["plan_us"] for score in scores)
    return [Figure("planning and order, per sample", "µs", plan_us, Target("<=", 8.0))]


if __name__ == "__main__":
    run_alone("planning", QUESTION, run)
