"""tf.data: `decode_and_crop_jpeg` and a 2-tap resize, on a thread pool of its own.

TensorFlow's own law of crops: as torchvision's, but the ratio is drawn evenly and not evenly in
its logarithm; areas are the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from benchmarks._law import RATIO, SCALE, SIDE_PX
from benchmarks.sides.peers._loop import photo_paths, serve_batches

_PREFETCH = 2
_TRIES = 10


def make_row(path: Any) -> Any:
    """Make uint8 (224, 224, 3), in TensorFlow's graph."""
    content = tf.io.read_file(path)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(content),
        tf.zeros([1, 0, 4]),
        min_object_covered=0.0,
        aspect_ratio_range=RATIO,
        area_range=SCALE,
        max_attempts=_TRIES,
        use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], size[:2]], 0)
    crop = tf.image.decode_and_crop_jpeg(content, window, channels=3)
    row = tf.image.resize(crop, [SIDE_PX, SIDE_PX])
    return tf.cast(tf.image.random_flip_left_right(row) + 0.5, tf.uint8)


def main(arguments: Mapping[str, Any]) -> None:
    """Serve rounds. Arguments: photos, batch_size, workers."""
    paths, workers = photo_paths(arguments["photos"]), arguments["workers"]
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.autotune.enabled = False
    dataset = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths))
        .repeat()
        .map(make_row, num_parallel_calls=workers)
        .batch(arguments["batch_size"], drop_remainder=True)
        .prefetch(_PREFETCH)
        .with_options(options)
    )
    serve_batches(
        dataset.as_numpy_iterator(),
        lambda batch: batch,
        ahead=_PREFETCH + 1,
        versions=lambda: {"tensorflow": tf.__version__},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
