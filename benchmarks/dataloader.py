"""How fast against torch's DataLoader with OpenCV: same ops, same filter, same workers.

Batches of 256 on both sides; what each side does is in benchmarks/sides/.
"""

from __future__ import annotations

from benchmarks._competitors import augd_client, torch_loader
from benchmarks._report import Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, ratios

QUESTION = "How fast against a DataLoader?"


def run(options: Options) -> list[Figure]:
    """Measure in turns, with both filters."""
    figures = []
    for filter in ("linear", "antialias"):
        starts = [augd_client(options, filter), torch_loader(options, filter)]
        scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
        ours, theirs = scores["augd"], scores["DataLoader"]
        figures += [
            Figure(f"augd / DataLoader, {filter}", "x", ratios(ours, theirs), Target(">=", 1.2)),
            *rates(f"augd, {filter}", ours),
            *rates(f"DataLoader, {filter}", theirs),
        ]
    return figures


if __name__ == "__main__":
    run_alone("dataloader", QUESTION, run)
