"""Does the trainer wait: its share of waiting when it takes less than its producers can make.

Without a GPU its step is a sleep, of the length that takes 0.8 of the rate which the producers had
just before. `benchmarks.gpu` asks the same of a GPU.
"""

from __future__ import annotations

from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import Competitor, alternate, spread
from benchmarks.peers.catalogue import recipe

QUESTION = "Does the trainer wait?"
_SHARES = (0.8, 0.95)
_BATCH_SIZE = 64


def run(options: Options) -> list[Figure]:
    """Measure at two rates of the trainer, in turns."""

    def start(share: float) -> Competitor:
        arguments = {
            "photos": str(options.photos),
            "recipe": recipe("antialias"),
            "batch_size": _BATCH_SIZE,
            "workers": options.workers,
            "share": share,
        }
        return Competitor(str(share), "paced_trainer", arguments=arguments)

    starts = [lambda share=share: start(share) for share in _SHARES]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    figures = []
    for share in _SHARES:
        found = scores[str(share)]
        waiting = spread(100 * score.extras["waiting"] for score in found)
        rate = spread(score.extras["producers_rate"] for score in found)
        target = Target("<=", 2.0) if share == _SHARES[0] else None
        figures += [
            Figure(f"waiting, at {share:g} of the producers' rate", "%", waiting, target),
            Figure(f"producers' rate, before {share:g} of it", "images/s", rate),
        ]
    return figures


if __name__ == "__main__":
    run_alone("waiting", QUESTION, run)
