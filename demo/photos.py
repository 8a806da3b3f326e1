"""Make a small labelled set of photo-like JPEGs, for the demo, the tests and the benchmarks.

Stands before the way of a batch: it makes the folder that a daemon then serves. A photo is a
scene of one class (bricks, fence, leaves, ...) in colours that say nothing about the class, under
1/f light and shade, sometimes out of focus, with sensor grain. Sizes, chroma sampling and quality
are drawn so that a set looks to a JPEG decoder like ImageNet's photos: bytes per pixel and time
to decode are what make a loader fast or slow.

Photo i is a pure function of (seed, i): a longer set begins with the shorter one, and nothing
depends on the clock, on the order of calls or on a process-wide generator.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.uint8]
Palette = NDArray[np.float64]
Painter = Callable[[Canvas, np.random.Generator, Palette], None]

_TILE_PX = 1024

# Width, height and weight, after 1,000 ImageNet photos: mean 468x401, median 500x375, 7 % with a
# short side under 224. `_size_px` turns some of them upright and jitters the rest.
_SIZES = (
    (500, 375, 47), (500, 333, 23), (500, 500, 4), (640, 480, 4), (800, 600, 3), (400, 300, 5),
    (600, 450, 3), (350, 263, 4), (250, 188, 4), (170, 170, 2), (120, 90, 1),
)  # fmt: skip
_UPRIGHT = 0.26
# JPEG quality and weight: most files are near 96, the rest were saved again by somebody.
_QUALITIES = ((96, 72), (90, 12), (80, 8), (70, 5), (50, 3))
_SAMPLINGS = (
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, 76),
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, 20),
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422, 2),
    (None, 2),  # grey: one component
)


def _bricks(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    height, width = canvas.shape[:2]
    tall = _extent(canvas) * rng.uniform(0.06, 0.1)
    long, gap = tall * rng.uniform(1.8, 2.6), max(1.5, tall * 0.1)
    reach = 0.6 * math.hypot(height, width)
    turn = _rotation(rng.uniform(-0.14, 0.14), (width / 2, height / 2))
    rows, columns = int(2 * reach / tall) + 1, int(2 * reach / long) + 2
    top = -reach + np.arange(rows)[:, None] * tall
    left = -reach + (np.arange(columns) + 0.5 * (np.arange(rows)[:, None] % 2)) * long
    corners = np.stack(np.broadcast_arrays(left, top), -1).reshape(-1, 1, 2)
    box = np.array([[0, 0], [long - gap, 0], [long - gap, tall - gap], [0, tall - gap]])
    _fill(canvas, (corners + box) @ turn[:, :2].T + turn[:, 2], _mix(rng, palette, len(corners)))


def _fence(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    height, width = canvas.shape[:2]
    step = _extent(canvas) * rng.uniform(0.09, 0.16)
    thick = max(2, round(step * rng.uniform(0.12, 0.22)))
    slope = rng.uniform(0.7, 1.4)
    starts = np.arange(-height / slope, width + height / slope, step)
    for lean in (-1.0, 1.0):
        colours = _mix(rng, palette, len(starts))
        for x, colour in zip(starts, colours, strict=True):
            end = (round(x + lean * height / slope), height)
            cv2.line(canvas, (round(x) + thick // 3, 0), end, (colour * 0.45).tolist(), thick)
            cv2.line(canvas, (round(x), 0), end, colour.tolist(), max(1, thick * 2 // 3))


def _leaves(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    num = 130
    along = np.linspace(0, 1, 7)
    bulge = 0.21 * np.sin(np.pi * along**0.8)
    outline = np.concatenate([np.stack([along, bulge], -1), np.stack([along, -bulge], -1)[-2:0:-1]])
    size = _extent(canvas) * rng.uniform(0.13, 0.24, num)
    leaves = _scatter(canvas, rng, outline, size, rng.uniform(0, 2 * np.pi, num))
    colours = _mix(rng, palette, num)
    for leaf, colour in zip(np.rint(leaves).astype(np.int32), colours, strict=True):
        cv2.fillPoly(canvas, [leaf], colour.tolist())
        tip, stalk = leaf[6].tolist(), leaf[0].tolist()
        cv2.line(canvas, stalk, tip, (colour * 0.6).tolist(), 1, cv2.LINE_AA)


def _pebbles(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    num = 150
    height, width = canvas.shape[:2]
    radii = _extent(canvas) * np.sort(rng.uniform(0.025, 0.085, num))[::-1]
    at = rng.uniform(0, 1, (num, 2)) * (width, height)
    for (x, y), radius, colour in zip(at, radii, _mix(rng, palette, num), strict=True):
        centre, r = (round(x), round(y)), max(2, round(radius))
        cv2.circle(canvas, centre, r, (colour * 0.45).tolist(), -1)
        cv2.circle(canvas, (centre[0], centre[1] - r // 8), r * 7 // 8, colour.tolist(), -1)
        light = np.minimum(colour * 1.25 + 12, 255).tolist()
        cv2.circle(canvas, (centre[0] - r // 4, centre[1] - r // 3), max(1, r // 3), light, -1)


def _reeds(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    num = 110
    height, width = canvas.shape[:2]
    wide = _extent(canvas) * rng.uniform(0.008, 0.02, num)
    lean = rng.uniform(-0.12, 0.12, num) * height
    foot = rng.uniform(-0.1, 1.1, num) * width
    tip_y = rng.uniform(-0.4, 0.35, num) * height
    low = np.full(num, float(height))
    xs = np.stack([foot - wide, foot + lean, foot + wide], -1)
    ys = np.stack([low, tip_y, low], -1)
    _fill(canvas, np.stack([xs, ys], -1), _mix(rng, palette, num))


def _waves(canvas: Canvas, rng: np.random.Generator, palette: Palette) -> None:
    height, width = canvas.shape[:2]
    step = _extent(canvas) * rng.uniform(0.035, 0.06)
    tops = np.arange(-step, height + step, step)
    x = np.linspace(0, width, 40)
    phase = rng.uniform(0, 2 * np.pi, (len(tops), 1))
    turns = rng.uniform(2.0, 4.0, (len(tops), 1)) * 2 * np.pi * width / _extent(canvas)
    crest = tops[:, None] + 0.35 * step * np.sin(turns * x / width + phase)
    line = np.stack(np.broadcast_arrays(x, crest), -1)
    low = np.broadcast_to(np.array([[width, height + step], [0, height + step]]), (len(tops), 2, 2))
    _fill(canvas, np.concatenate([line, low], 1), _mix(rng, palette, len(tops)))


_SCENES: dict[str, Painter] = {
    "bricks": _bricks,
    "fence": _fence,
    "leaves": _leaves,
    "pebbles": _pebbles,
    "reeds": _reeds,
    "waves": _waves,
}
CLASSES: tuple[str, ...] = tuple(_SCENES)


def make_photos(
    folder: str | Path,
    num_photos: int,
    *,
    classes: Sequence[str] = CLASSES,
    flat: bool = False,
    seed: int = 0,
    megapixels: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write `num_photos` JPEGs into class folders under `folder`, or flat into it.

    Photo i has class `classes[i % len(classes)]`. With `megapixels` each photo has that size, at
    4:3; without, sizes are drawn. `progress` is called with the number of photos written so far.
    Equal arguments give equal bytes with equal versions of NumPy and OpenCV.

    Raises ValueError for an unknown class, or a negative number of photos.
    """
    unknown = sorted(set(classes) - set(_SCENES))
    if unknown or not classes:
        raise ValueError(f"classes: expected some of {', '.join(CLASSES)}, got {unknown}.")
    if num_photos < 0:
        raise ValueError(f"num_photos: expected 0 or more, got {num_photos}.")
    root = Path(folder)
    for name in ("",) if flat else classes:
        (root / name).mkdir(parents=True, exist_ok=True)
    for i in range(num_photos):
        name = classes[i % len(classes)]
        path = root / f"{i:06d}.jpg" if flat else root / name / f"{name}_{i:06d}.jpg"
        path.write_bytes(make_photo(name, i, seed=seed, megapixels=megapixels))
        if progress is not None:
            progress(i + 1)


def make_photo(scene: str, number: int, *, seed: int = 0, megapixels: float | None = None) -> bytes:
    """Return the bytes of one baseline JPEG: photo `number` of the set with this seed."""
    rng = np.random.Generator(np.random.Philox(key=[seed, number]))
    width, height = _size_px(rng, megapixels)
    quality = _pick(rng, _QUALITIES)
    sampling = _pick(rng, _SAMPLINGS)
    image = _expose(_paint(scene, rng, width, height), rng, width, height)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if sampling is None:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    else:
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    written, encoded = cv2.imencode(".jpg", image, flags)
    if not written:
        raise RuntimeError(f"OpenCV could not encode photo {number} ({width}x{height}) as JPEG.")
    return encoded.tobytes()


def _paint(scene: str, rng: np.random.Generator, width: int, height: int) -> Canvas:
    """Draw the scene on a smooth ground, at no more than a megapixel (larger ones are enlarged)."""
    shrink = min(1.0, math.sqrt(1e6 / (width * height)))
    size = (max(8, round(width * shrink)), max(8, round(height * shrink)))
    palette = rng.uniform(25, 230, (4, 3))
    ground = np.rint(_mix(rng, palette, 4) * 0.6).astype(np.uint8).reshape(2, 2, 3)
    canvas = np.asarray(cv2.resize(ground, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    _SCENES[scene](canvas, rng, palette)
    return canvas


def _expose(canvas: Canvas, rng: np.random.Generator, width: int, height: int) -> Canvas:
    """Light, focus and grain: from the drawn scene to the image that a camera would keep."""
    light, grain = _tiles()
    rows, columns = canvas.shape[:2]
    lit = _add(canvas, _patch(light, rng, columns, rows), rng.uniform(0.5, 1.2))
    blur_px = rng.uniform(0.5, 1.6)
    soft: Any = cv2.GaussianBlur(lit, (0, 0), blur_px)
    if (columns, rows) != (width, height):
        soft = cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR)
    return _add(soft, _patch(grain, rng, width, height), rng.gamma(2.0, 0.08))


def _add(image: Canvas, tile: Canvas, gain: float) -> Canvas:
    """Add a tile whose zero is 128."""
    return np.asarray(cv2.addWeighted(image, 1.0, tile, gain, -128.0 * gain), np.uint8)


@functools.cache
def _tiles() -> tuple[Canvas, Canvas]:
    """Make the 1/f light tile and the grain tile, once: (1024, 1024, 3), zero at 128, periodic."""
    rng = np.random.Generator(np.random.Philox(key=[0, 0x7469_6C65]))
    white = rng.standard_normal((_TILE_PX, _TILE_PX), np.float32)
    fy, fx = np.fft.fftfreq(_TILE_PX)[:, None], np.fft.rfftfreq(_TILE_PX)[None, :]
    # No scale is larger than a quarter of the tile, or whole photos would be black.
    falloff = (1.0 / np.sqrt(fx**2 + fy**2 + (4 / _TILE_PX) ** 2)).astype(np.float32)
    pink = np.fft.irfft2(np.fft.rfft2(white) * falloff, s=white.shape)
    pink = pink / pink.std()
    # A little colour in the light: the same field, shifted, differs from channel to channel.
    tint = [pink + 0.22 * np.roll(pink, (211 * c, 383 * c), (0, 1)) for c in (1, 2, 3)]
    light = np.stack(tint, -1) * 30.0
    grain = cv2.GaussianBlur(rng.standard_normal((_TILE_PX, _TILE_PX, 3), np.float32), (0, 0), 0.5)
    return _centred(light), _centred(np.asarray(grain) * 40.0)


def _centred(field: NDArray[Any]) -> Canvas:
    return np.clip(np.rint(field + 128.0), 0, 255).astype(np.uint8)


def _patch(tile: Canvas, rng: np.random.Generator, width: int, height: int) -> Canvas:
    """Cut a patch at a random place: a view where the tile is large enough, else repeated."""
    repeat = (-(-height // _TILE_PX), -(-width // _TILE_PX), 1)
    whole = tile if max(repeat) == 1 else np.tile(tile, repeat)
    y = rng.integers(0, whole.shape[0] - height, endpoint=True)
    x = rng.integers(0, whole.shape[1] - width, endpoint=True)
    return whole[y : y + height, x : x + width]


def _size_px(rng: np.random.Generator, megapixels: float | None) -> tuple[int, int]:
    if megapixels is not None:
        width = round(math.sqrt(megapixels * 1e6 * 4 / 3))
        return width, round(width * 3 / 4)
    width, height = _pick(rng, [((w, h), weight) for w, h, weight in _SIZES])
    upright, jitter = rng.random(2)
    if jitter < 0.4:
        height = round(height * (0.9 + 0.5 * jitter))
    return (height, width) if upright < _UPRIGHT else (width, height)


def _pick(rng: np.random.Generator, table: Sequence[tuple[Any, ...]]) -> Any:
    """Draw the first entry of one row, with the row's last entry as its weight."""
    place = rng.random() * sum(row[-1] for row in table)
    for row in table:
        place -= row[-1]
        if place < 0:
            return row[0]
    return table[-1][0]


def _mix(rng: np.random.Generator, palette: Palette, num: int) -> Palette:
    """Draw `num` colours: convex mixtures of the palette's, with a jitter in brightness."""
    shares = rng.gamma(0.7, 1.0, (num, len(palette))) + 1e-9
    colours = (shares / shares.sum(1, keepdims=True)) @ palette
    mixed: Palette = np.clip(colours * rng.uniform(0.7, 1.25, (num, 1)), 0, 255)
    return mixed


def _extent(canvas: Canvas) -> float:
    """Return the side of a square of the canvas's area: things are sized relative to it."""
    return math.sqrt(canvas.shape[0] * canvas.shape[1])


def _rotation(angle_rad: float, centre: tuple[float, float]) -> NDArray[np.float64]:
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return np.array([[cos, -sin, centre[0]], [sin, cos, centre[1]]])


def _scatter(
    canvas: Canvas,
    rng: np.random.Generator,
    outline: NDArray[np.float64],
    size_px: NDArray[np.float64],
    angle_rad: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Place one outline (k, 2) at random, sized and turned: (n, k, 2)."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    at = rng.uniform(-0.05, 1.05, (len(size_px), 1, 2)) * canvas.shape[1::-1]
    placed: NDArray[np.float64] = outline @ turn * size_px[:, None, None] + at
    return placed


def _fill(canvas: Canvas, shapes: NDArray[np.float64], colours: Palette) -> None:
    for shape, colour in zip(np.rint(shapes).astype(np.int32), colours.tolist(), strict=True):
        cv2.fillPoly(canvas, [shape], colour)


def main() -> None:
    """Run `python -m demo.photos DIR --num N [--seed S] [--megapixels M] [--flat]`."""
    parser = argparse.ArgumentParser(prog="python -m demo.photos", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=1000, help="how many photos (1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megapixels", type=float, help="size of every photo; drawn by default")
    parser.add_argument("--flat", action="store_true", help="no class folders")
    args = parser.parse_args()
    make_photos(
        args.folder, args.num, flat=args.flat, seed=args.seed, megapixels=args.megapixels
    )  # fmt: skip
    print(f"{args.num} photo{'s' if args.num != 1 else ''} in {args.folder}")


if __name__ == "__main__":
    main()
