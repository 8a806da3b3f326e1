"""What does it cost to plan: order and parameters of a sample, measured inside producers.

As they count it themselves while they work, cold caches and all; at batches of 256.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client, eight_op_client
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import alternate, spread

QUESTION = "What does planning cost?"


def run(options: Options) -> list[Figure]:
    """Measure over the rounds of two daemons: the preset `imagenet`, and a recipe of eight ops."""
    starts = [augd_client(options, "linear"), eight_op_client(options, "linear")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    return [
        Figure(
            f"planning and order, per sample, {recipe}",
            "µs",
            spread(score.extras["plan_us"] for score in scores[name]),
            Target("<=", limit_us),
        )
        for name, recipe, limit_us in (
            ("augd", "imagenet", 8.0),
            ("augd, eight ops", "eight ops", 25.0),
        )
    ]


if __name__ == "__main__":
    run_alone("planning", QUESTION, run)
