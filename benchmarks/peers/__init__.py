"""augd beside its peers: same photos, same law of crops, same cores, in turns.

    python -m benchmarks.peers [--data DIR] [--rounds N] [--seconds S] [--sides NAME ...]
    python -m benchmarks.peers --write-docs     the same, and the figures into docs/performance/

`catalogue` names the sides, `install` makes the environments that they run in, `compare` measures,
`figures` does the arithmetic, `table` and `plots` show it.

A side is added in two steps. Write `benchmarks/sides/peers/NAME.py`, which makes an iterator of
uint8 batches that never ends and gives it to `_loop.serve_batches`. It gets one JSON object with
photos, batch_size, workers and the options of the catalogue. Then add a row to `catalogue.SIDES`,
and to `catalogue.ENVIRONMENTS` where it needs libraries that the checkout's own has not.

A side that makes no images, such as entropy decoding alone, yields batches whose arrays have the
right number of rows and no pixels, (n, 0, 0, 3), and says `images=False` in its row: it is timed
and counted like the others, and not looked at. `figures.aims` is where it is then held against
another side. One that works on a single core wants a run with `--workers 1`.
"""
