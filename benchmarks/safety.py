"""What does each safety feature cost: the same work with it and without, in turns.

In a producer: receipts (digests of every row), the current sample (which one a producer works on),
the watch for what libjpeg says of broken scans, and the confinement (seccomp, Landlock). At the
client: `verify=True`. And what sharing a production costs its producers.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client, null_sink, sharers, verifying_client
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import alternate, cost_ratios

QUESTION = "What does each safety feature cost?"

_FEATURES = {
    "receipts": "receipts",
    "crumb": "current sample",
    "noise": "watch for broken scans",
    "confinement": "seccomp and Landlock",
}
_COST_MAX = Target("<=", 1.02)


def run(options: Options) -> list[Figure]:
    """Measure in turns: CPU-seconds per image, with against without."""
    return [*_of_producers(options), _of_verify(options), _of_sharing(options)]


def _of_producers(options: Options) -> list[Figure]:
    starts = [null_sink(options, "linear", name="all")]
    starts += [null_sink(options, "linear", without=feature, name=feature) for feature in _FEATURES]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    return [
        Figure(
            f"with / without {name}", "x CPU", cost_ratios(scores["all"], scores[one]), _COST_MAX
        )
        for one, name in _FEATURES.items()
    ]


def _of_verify(options: Options) -> Figure:
    starts = [verifying_client(options, "linear"), augd_client(options, "linear")]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    ratio = cost_ratios(scores["augd, verify=True"], scores["augd"])
    return Figure("with / without verify=True", "x CPU", ratio)


def _of_sharing(options: Options) -> Figure:
    starts = [sharers(options, "linear", clients) for clients in (2, 1)]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    ratio = cost_ratios(scores["2 sharing"], scores["1 sharing"])
    return Figure("producers: two sharers / one", "x CPU", ratio, Target("<=", 1.05))


if __name__ == "__main__":
    run_alone("safety", QUESTION, run)
