"""What does it cost to plan: order and parameters of a sample, measured inside producers.

As they count it themselves while they work, cold caches and all; at batches of 256. And the order
alone, in a process that does nothing else: of a shuffle of the whole epoch and of one by blocks,
which begins a new window the more often the more producers share it.
"""

from __future__ import annotations

from functools import partial

from benchmarks._competitors import augd_client, eight_op_client
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import Competitor, alternate, spread

QUESTION = "What does planning cost?"

_IMAGENET_SAMPLES = 1_281_167


def run(options: Options) -> list[Figure]:
    """Measure over the rounds of two daemons: the preset `imagenet`, and a recipe of eight ops."""
    starts = [augd_client(options, "linear"), eight_op_client(options, "linear")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    planned = [
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
    return planned + _order(options)


def _order(options: Options) -> list[Figure]:
    """Measure the order alone, of ImageNet's number of samples."""
    cases: list[tuple[bool | str, int]] = [(True, 1), ("blocks", 1), ("blocks", 64)]
    starts = []
    for shuffle, producers in cases:
        arguments = {"num_samples": _IMAGENET_SAMPLES, "shuffle": shuffle, "producers": producers}
        name = f"order alone, per sample, shuffle={shuffle}, one of {producers} producers"
        starts.append(partial(Competitor, name, "order_only", arguments=arguments))
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    return [
        Figure(name, "µs", spread(1000 * one.cpu_s_per_1000 for one in found))
        for name, found in scores.items()
    ]


if __name__ == "__main__":
    run_alone("planning", QUESTION, run)
