"""`augd pca`: the principal components of a dataset's colours, as an op of a recipe.

A separate, sandboxed process decodes whole images, one at a time, as they are stored. The command
writes one file and changes nothing else.

Every image counts the same, whatever its size, as in a training that cuts one crop from each. A
keyed hash of the paths selects the images: the same at every run, and mostly the same after files
were added.

Invariants: sums over an image's pixels are exact, and sums over images are rounded once. So neither
the order of the images nor the processor decides a digit. At most one image is held in memory.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from augd.cli.options import PcaOptions
from augd.dataset.index_arrays import IndexArrays
from augd.dataset.index_file import IndexFile
from augd.dataset.readers.open_source import open_source
from augd.dataset.readers.source import SampleSource
from augd.dataset.scan.build_index import load_or_build
from augd.dataset.scan_result import shown
from augd.diagnostics.decode_process import DecodeProcess
from augd.diagnostics.progress_bar import ProgressBar
from augd.diagnostics.split_samples import ids_of_split
from augd.errors import DatasetError, OptionError, counted
from augd.pixels.decode import Pixels
from augd.pixels.headers.read_header import BadImage, read_header
from augd.plan.ops.all_ops import IMAGENET_EIGVAL

Floats = NDArray[np.float64]

_KEY = b"augd pca"
_GROUPS = 20  # of the jackknife
_PIXELS_AT_ONCE = 1 << 20  # as float64, 24 MiB; sums of 2**20 products of bytes are exact
_SAMPLES_MIN = 2
_NOTHING = 1e-9  # what rounding leaves of an entry that is zero, in a vector of length one


@dataclass(frozen=True, slots=True)
class Moments:
    """Of RGB in 0..255, over one photo: number of pixels, sums, and sums of products."""

    num_pixels: int
    sums: tuple[int, ...]
    products: tuple[int, ...]
    """rr, rg, rb, gg, gb, bb"""


@dataclass(frozen=True, slots=True)
class Components:
    """Of RGB in [0, 1]: mean (3,), eigenvalues (3,), largest first, and vectors as columns.

    Each vector's first entry that is not zero is positive. `errors` are standard errors of the
    eigenvalues.
    """

    mean: Floats
    eigval: Floats
    eigvec: Floats
    errors: Floats


def run_pca(options: PcaOptions) -> None:
    """Measure, write the op and print the components.

    Raises:
        AugdError: an option is wrong, the dataset has too few good photos, or the file cannot be
            written.
    """
    if options.num_samples < _SAMPLES_MIN:
        raise OptionError(
            f"--samples: expected at least {_SAMPLES_MIN}, got {options.num_samples}; "
            "a few thousand give two digits"
        )
    with ProgressBar("indexing") as progress:
        index = load_or_build(options.path, progress=progress)
    try:
        ids = ids_of_split(index, options.split)
        of = range(index.num_samples) if ids is None else ids.tolist()
        found, bad = _measure(index, of, options.num_samples)
    finally:
        index.close()
    name = shown(os.fsencode(options.path))
    if len(found) < _SAMPLES_MIN:
        raise DatasetError(
            f"{name}: expected at least {_SAMPLES_MIN} photos that decode, got {len(found)}; "
            "`augd check` names the bad ones"
        )
    components = find_components(found)
    skipped = f", {len(bad):,} bad skipped" if bad else ""
    source = f"{len(found):,} of {counted(len(of), 'photo')}{skipped}"
    _write(options.out, op_as_toml(components, source))
    print(f"{name}: {source}")
    for reason in bad[:3]:
        print(f"  bad     {reason}")
    print("\n".join(_lines(components)))
    print(f"{options.out}: an op to paste into a recipe")


def _measure(
    index: IndexFile, of: Sequence[int], num_samples: int
) -> tuple[list[Moments], list[str]]:
    arrays = IndexArrays(index.fd, index.dims_fd)
    places = choose([arrays.path_bytes(sample) for sample in of], num_samples)
    chosen = [of[place] for place in places]
    found, bad = [], []
    progress = ProgressBar("looking at colours", len(chosen))
    with open_source(arrays.root, arrays) as source, DecodeProcess() as apart, progress:
        for num_done, sample in enumerate(chosen, 1):
            try:
                found.append(measure(_decoded(source, sample, apart)))
            except BadImage as error:
                bad.append(f"{arrays.path(sample)}: {error}")
            progress(num_done)
    return found, bad


def choose(paths: Sequence[bytes], num_samples: int) -> list[int]:
    """Return the samples whose paths have the smallest hashes, in the order of these."""
    hashes = [hashlib.blake2b(path, key=_KEY, digest_size=16).digest() for path in paths]
    return sorted(range(len(paths)), key=hashes.__getitem__)[:num_samples]


def _decoded(source: SampleSource, sample: int, apart: DecodeProcess) -> Pixels:
    content = source.read(sample)
    header = read_header(content)
    return apart.decode(content, header, (0, 0, header.width, header.height))


def measure(photo: Pixels) -> Moments:
    """Sum a photo's colours and their products, exactly. `photo` is uint8 (h, w, 3)."""
    sums, products = np.zeros(3, np.int64), np.zeros((3, 3), np.int64)
    for pixels in _parts(photo):
        part = pixels.astype(np.float64)
        sums += part.sum(axis=0).astype(np.int64)
        products += (part.T @ part).astype(np.int64)
    upper = np.triu_indices(3)
    return Moments(
        photo.shape[0] * photo.shape[1], tuple(sums.tolist()), tuple(products[upper].tolist())
    )


def _parts(photo: Pixels) -> Iterator[Pixels]:
    height, width = photo.shape[:2]
    step = max(1, _PIXELS_AT_ONCE // width)
    for top in range(0, height, step):
        yield photo[top : top + step].reshape(-1, 3)


def find_components(found: Sequence[Moments]) -> Components:
    """Decompose the covariance of all pixels, each photo having the same weight.

    Standard errors are those of the delete-a-group jackknife with at most 20 groups of photos.
    """
    mean, covariance = _covariance(found)
    eigval, eigvec = _decompose(covariance)
    num_groups = min(_GROUPS, len(found))
    without = np.array(
        [
            _decompose(_covariance([one for i, one in enumerate(found) if i % num_groups != g])[1])[
                0
            ]
            for g in range(num_groups)
        ]
    )
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return Components(mean, eigval, eigvec, np.sqrt(spread * (num_groups - 1) / num_groups))


def _covariance(found: Sequence[Moments]) -> tuple[Floats, Floats]:
    """Return mean (3,) and covariance (3, 3) of RGB in [0, 1]."""
    mean = np.array([_average([one.sums[c] / one.num_pixels for one in found]) for c in range(3)])
    products = [_average([one.products[k] / one.num_pixels for one in found]) for k in range(6)]
    whole = np.empty((3, 3))
    whole[np.triu_indices(3)] = products
    whole.T[np.triu_indices(3)] = products
    return mean / 255.0, (whole - np.outer(mean, mean)) / 255.0**2


def _average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _decompose(covariance: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues, largest first and none below 0, and vectors with a positive start."""
    eigval, eigvec = np.linalg.eigh(covariance)
    eigval, eigvec = np.maximum(eigval[::-1], 0.0), eigvec[:, ::-1]
    first = np.argmax(np.abs(eigvec) > _NOTHING, axis=0)
    signs = np.where(eigvec[first, range(3)] < 0.0, -1.0, 1.0)
    return eigval, eigvec * signs


def op_as_toml(components: Components, source: str) -> str:
    """Write the op, with what it was measured on and its errors as comments."""
    eigval = ", ".join(f"{value:.6f}" for value in components.eigval)
    rows = [", ".join(f"{entry:.6f}" for entry in row) for row in components.eigvec + 0.0]
    errors = ", ".join(f"{error:.2g}" for error in components.errors)
    mean = ", ".join(f"{value:.4f}" for value in components.mean)
    return "\n".join(
        [
            f"# By `augd pca`, of {source}; RGB in [0, 1], every photo counts the same.",
            f"# Standard errors of eigval, by the jackknife: {errors}. Mean: {mean}.",
            "# Each vector's sign is such that its first entry is positive; it has no effect.",
            "[[ops]]",
            'op = "pca"',
            "alpha_std = 0.1",
            'mode = "eigval"',
            f"eigval = [{eigval}]",
            "eigvec = [ # rows R, G, B; column i is the vector of eigval[i]",
            *(f"    [{row}]," for row in rows),
            "]",
            "",
        ]
    )


def _lines(components: Components) -> Iterator[str]:
    yield "  mean    " + "  ".join(f"{value:.4f}" for value in components.mean)
    for column, (value, error) in enumerate(zip(components.eigval, components.errors, strict=True)):
        vector = "  ".join(f"{entry:+.4f}" for entry in components.eigvec[:, column])
        reference = IMAGENET_EIGVAL[column]
        yield (f"  eigval  {value:.5f} ± {error:.5f} (ImageNet {reference:.4f})   vector  {vector}")


def _write(out: str, text: str) -> None:
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise OptionError(
            f"--out: {out} cannot be written ({error.strerror}); write elsewhere"
        ) from None
