"""A bounded subset of a dataset, copied into a folder, for trials that would take long with all.

Used by `augd/diagnostics/tuning.py`. Files are copied unchanged, so that all trials read from the
same place, and a subset of shards is made like one of files.

Invariants: the dataset is only read; all output lies in the folder.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.pixels.headers.read_header import BadImage, read_header

_IMAGES_MAX = 512
_BYTES_MAX = 128 << 20
_SHARE_SEGMENTED = 0.5  # of the images: a dataset with more of them segmented was packed


@dataclass(frozen=True, slots=True)
class Subset:
    """A subset copied to `path`, and estimates for the whole dataset.

    `decoded_bytes` counts the subset's pixels; `all_decoded_bytes` estimates all images by their
    mean. `is_segmented` means that the index records JPEG segments of most images. `num_jpegs`
    counts the images that could have segments.
    """

    path: str
    num_images: int
    num_samples: int
    num_jpegs: int
    decoded_bytes: int
    all_decoded_bytes: int
    is_segmented: bool


def copy_subset(source: str, folder: str) -> Subset | None:
    """Copy some images of a dataset, evenly spread over it; None if none can be read.

    Raises:
        DatasetError: the dataset cannot be opened.
        OSError: the folder cannot be written.
    """
    os.mkdir(folder)
    num_images = num_jpegs = num_segmented = decoded_bytes = copied_bytes = 0
    with closing(load_or_build(source)) as opened:
        index = IndexArrays(opened.fd, opened.dims_fd)
        wanted = np.linspace(0, index.num_samples, _IMAGES_MAX, endpoint=False).astype(np.int64)
        # Spread over the whole dataset, also if the limit of bytes is reached first.
        spread = np.random.default_rng(0).permutation(np.unique(wanted)).tolist()
        with open_source(index.root, index) as images:
            for sample in spread:
                if copied_bytes + int(index.sizes_bytes[sample]) > _BYTES_MAX and num_images:
                    break
                with suppress(BadImage):
                    content = images.read(sample)
                    header = read_header(content)
                    ending = "jpg" if header.format == "jpeg" else header.format
                    Path(folder, f"{sample:012}.{ending}").write_bytes(content)
                    num_images += 1
                    num_jpegs += header.format == "jpeg"
                    num_segmented += index.segments(sample) is not None
                    copied_bytes += len(content)
                    decoded_bytes += header.width * header.height * 3
        num_samples = index.num_samples
    if not num_images:
        return None
    return Subset(
        folder,
        num_images,
        num_samples,
        num_jpegs,
        decoded_bytes,
        decoded_bytes * num_samples // num_images,
        num_segmented > _SHARE_SEGMENTED * num_images,
    )
