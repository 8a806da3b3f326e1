"""What do the native kernels gain: against the libraries that they replace, and against the limit.

The crops of `imagenet`'s law, of the photos that are given. In this process, on one core, sides
in turns: a crop to a row by the kernels, and by OpenCV and Pillow as without them; the resize
alone, from decoded crops, against Pillow, OpenCV and torch; crops turned by ten degrees, halving
included, and the colour pass, as without them; each step of a program against that pass and
against Pillow, OpenCV or NumPy. Then one producer's lease runner as a process, against
libjpeg-turbo's entropy decoding alone of the same rows on the same core.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from augd.dataset.index_arrays import IndexArrays
from augd.dataset.readers.open_source import open_source
from augd.dataset.scan.build_index import load_or_build
from augd.pixels import native
from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import Pixels, configure, decode, is_native, silence_library_noise
from augd.pixels.headers.read_header import Header, read_header
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan
from augd.plan.planner.planner import Planner
from augd.plan.recipe.recipe import parse_recipe
from benchmarks._competitors import entropy, null_sink, recipe
from benchmarks._program_steps import step_cases
from benchmarks._report import Figure, Options, Target, run_alone
from benchmarks._rounds import Spread, alternate, ratios, spread

QUESTION = "What do the native kernels gain?"

_SIZE = (224, 224)
_NUM_PHOTOS = 100
_CUBICS = Target(">=", 1 / 1.35)  # of antialias over bicubic
_COS, _SIN = math.cos(math.radians(10)), math.sin(math.radians(10))
_TINT = [[1.1, -0.1, 0.05, 3.0], [0.02, 0.9, 0.1, -4.0], [-0.05, 0.1, 1.2, 2.0]]


@dataclass(frozen=True, slots=True)
class _Crop:
    content: bytearray
    header: Header
    region: tuple[int, int, int, int]
    pixels: Pixels


Work = Callable[[_Crop], object]


def run(options: Options) -> list[Figure]:
    """Measure the kernels side by side with what they replace, then a whole producer."""
    if native.kernels is None:
        raise SystemExit("benchmarks.kernels: no native kernels here; augd doctor says why")
    configure()
    silence_library_noise()
    crops = _crops(options)
    figures: list[Figure] = []
    for name, sides, targets in _cases():
        times = _measure(sides, crops, options)
        figures += [Figure(f"{name}: {side}", "µs", spread(us)) for side, us in times.items()]
        for side in list(times)[1:]:
            found = _ratio(times[side], times["augd"])
            figures.append(Figure(f"{name}: {side} / augd", "x", found, targets.get(side)))
    starts = [null_sink(options, "linear", name="producer", processes=1)]
    starts += [entropy(options, whole=whole) for whole in (True, False)]
    scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
    producer = scores.pop("producer")
    for extent, alone in scores.items():
        name = f"one producer, linear / entropy decoding alone, {extent}"
        figures.append(Figure(name, "x images/s", ratios(producer, alone), Target(">=", 0.85)))
    return figures


def _ratio(others: Sequence[float], ours: Sequence[float]) -> Spread:
    return spread(other / our for other, our in zip(others, ours, strict=True))


def _crops(options: Options) -> list[_Crop]:
    index = load_or_build(str(options.photos))
    arrays = IndexArrays(index.fd, index.dims_fd)
    planner = Planner(parse_recipe(recipe("linear")), 0, _SIZE)
    found = []
    with open_source(arrays.root, arrays) as source:
        step = max(1, index.num_samples // _NUM_PHOTOS)
        for sample in range(0, index.num_samples, step):
            content = source.read(sample)
            header = read_header(content)
            if not is_native(header):
                continue
            size = (np.full(1, side, np.int32) for side in (header.width, header.height))
            plan = planner.plan(np.array([sample]), np.zeros(1, np.int64), *size)
            x, y, width, height = plan.crop[0].tolist()
            region = (x, y, width, height)
            found.append(_Crop(content, header, region, decode(content, header, region).copy()))
    index.close()
    return found


def _measure(
    sides: dict[str, Work], crops: Sequence[_Crop], options: Options
) -> dict[str, list[float]]:
    """Return CPU time per crop in µs, a number per round: all sides at one crop, then the next."""
    times: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(options.rounds + 1):
        totals = dict.fromkeys(sides, 0)
        for crop in crops:
            for side, work in sides.items():
                before_ns = time.thread_time_ns()
                work(crop)
                totals[side] += time.thread_time_ns() - before_ns
        if number:  # the first round warms up
            for side, total_ns in totals.items():
                times[side].append(total_ns / len(crops) / 1000)
    return times


def _cases() -> list[tuple[str, dict[str, Work], dict[str, Target]]]:
    resize_targets = {"torch": Target(">=", 1.5)}
    return [
        ("a crop of a JPEG to a row, linear", _from_jpeg("linear"), {}),
        ("a crop of a JPEG to a row, antialiased", _from_jpeg("antialias"), {}),
        ("a crop of a JPEG to a row, bicubic", _from_jpeg("bicubic"), {}),
        ("resize, linear", _resizes("linear"), {}),
        ("resize, antialiased", _resizes("antialias"), resize_targets),
        ("resize, bicubic", _resizes("bicubic"), {}),
        ("bent row", _warped_rows("linear"), {}),
        ("bent row, bicubic", _warped_rows("bicubic"), {}),
        ("colour pass", _tints(), {}),
        *((name, sides, {}) for name, sides in step_cases()),
        ("a crop of a JPEG to a row", _by_filter(_from_jpeg), {"antialias": _CUBICS}),
        ("resize", _by_filter(_resizes), {}),
    ]


def _by_filter(make: Callable[[str], dict[str, Work]]) -> dict[str, Work]:
    """Set the bicubic filter against the triangle, in one round."""
    return {"augd": make("bicubic")["augd"], "antialias": make("antialias")["augd"]}


def _without_kernels(make: Callable[[], Any]) -> Any:
    """Make something that uses OpenCV and Pillow, in the process that has the kernels."""
    kernels, native.kernels = native.kernels, None
    try:
        return make()
    finally:
        native.kernels = kernels


def _from_jpeg(filter: Any) -> dict[str, Work]:
    ours, theirs = Renderer(filter, _SIZE), _without_kernels(lambda: Renderer(filter, _SIZE))
    out = np.empty((*_SIZE, 3), np.uint8)
    row_plan = RowPlan(_SIZE, mirror=True)

    def by_libraries(crop: _Crop) -> None:
        kernels, native.kernels = native.kernels, None
        theirs.render_image(crop.content, crop.header, crop.region, 1, row_plan, out)
        native.kernels = kernels

    return {
        "augd": lambda crop: ours.render_image(
            crop.content, crop.header, crop.region, 1, row_plan, out
        ),
        "OpenCV" if filter == "linear" else "OpenCV + Pillow": by_libraries,
    }


def _resizes(filter: Any) -> dict[str, Work]:
    renderer, out = Renderer(filter, _SIZE), np.empty((*_SIZE, 3), np.uint8)
    row_plan = RowPlan(_SIZE)
    sides: dict[str, Work] = {"augd": lambda crop: renderer.render(crop.pixels, row_plan, out)}
    if filter == "linear":
        sides["OpenCV"] = lambda crop: cv2.resize(crop.pixels, _SIZE, dst=out)
        return sides
    is_bicubic = filter == "bicubic"
    method = Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR
    sides["Pillow"] = lambda crop: Image.fromarray(crop.pixels).resize(_SIZE, method)
    if importlib.util.find_spec("torch") is not None:
        sides["torch"] = _torch_resize("bicubic" if is_bicubic else "bilinear")
    return sides


def _torch_resize(mode: str) -> Work:
    """As torchvision does it, on uint8 in the faster of its two layouts: channels last."""
    import torch

    torch.set_num_threads(1)
    interpolate: Any = torch.nn.functional.interpolate

    def resize(crop: _Crop) -> object:
        image = torch.from_numpy(crop.pixels).permute(2, 0, 1)[None]
        return interpolate(image, _SIZE, mode=mode, antialias=True)

    return resize


def _warped_rows(filter: Any) -> dict[str, Work]:
    """Turn each crop about its middle, halved where more than 1.5 to 1 would be left."""
    ours, theirs = Renderer(filter, _SIZE), _without_kernels(lambda: Renderer(filter, _SIZE))
    out = np.empty((*_SIZE, 3), np.uint8)
    turn = np.array([[_COS, -_SIN], [_SIN, _COS]])

    def row_plan_of(crop: _Crop) -> RowPlan:
        sides = np.array(crop.region[2:])
        steps = np.diag(sides / _SIZE[0]) @ turn
        start = sides / 2 - steps @ (np.array(_SIZE) / 2)
        halvings = max(0, math.ceil(math.log2(max(crop.region[2:]) / _SIZE[0] / 1.5)))
        matrix = np.hstack([steps, start[:, None]])
        return RowPlan(matrix=matrix.tolist(), halvings=halvings)

    row_plans: dict[int, RowPlan] = {}

    def by(renderer: Renderer) -> Work:
        def work(crop: _Crop) -> None:
            row_plan = row_plans.get(id(crop)) or row_plans.setdefault(id(crop), row_plan_of(crop))
            renderer.render(crop.pixels, row_plan, out)

        return work

    return {"augd": by(ours), "OpenCV" if filter == "linear" else "NumPy": by(theirs)}


def _tints() -> dict[str, Work]:
    ours, theirs = ColourPass(), _without_kernels(ColourPass)
    row = np.random.default_rng(0).integers(0, 256, (*_SIZE, 3)).astype(np.uint8)
    return {
        "augd": lambda _: ours.apply(_TINT, None, row),
        "OpenCV": lambda _: theirs.apply(_TINT, None, row),
    }


if __name__ == "__main__":
    run_alone("kernels", QUESTION, run)
