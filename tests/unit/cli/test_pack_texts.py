"""What `augd pack` says agrees in number with what it counts."""

from __future__ import annotations

import pytest

from augd.cli.pack.command import _lines


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (1, ["1 image in 1 shard", "1 of them was", "1 was shrunk", "1 file kept as it is"]),
        (
            5,
            ["5 images in 5 shards", "5 of them were", "5 were shrunk", "5 files kept as they are"],
        ),
    ],
)
def test_numbers_and_their_words_agree(number: int, says: list[str]) -> None:
    report = {
        "target": "packed",
        **dict.fromkeys(("num_samples", "num_shards", "resumed", "num_shrunk"), number),
        **dict.fromkeys(("seconds", "source_bytes", "shard_bytes", "index_bytes"), 1),
        "kept": [{"path": "a.png", "reason": "PNG"}] * number,
    }
    lines = "\n".join(_lines(report))
    for words in says:
        assert words in lines
