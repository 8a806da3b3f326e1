"""What does it cost to augment: a row by its whole plan, against the same ops one after another.

In this process, on one core, from a decoded region that lies in memory to a row of 224 x 224. The
others do what augd does, op by op as their users compose it: OpenCV on arrays, torchvision (v2,
functional) on uint8 tensors where it is installed. Sides take turns within a round; CPU time.

Then whole streams, end to end: a recipe of eight ops against the preset `imagenet`, and beside it
the same eight ops one by one in a DataLoader, by OpenCV, Albumentations and torchvision v2.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from augd.pixels.colour_matrix import ColourPass
from augd.pixels.decode import configure
from augd.pixels.render import Renderer
from augd.pixels.row_plan import RowPlan
from augd.plan.plan import LocalWarpField
from benchmarks._competitors import (
    ENVIRONMENT_OF,
    Filter,
    augd_client,
    eight_op_client,
    eight_op_loader,
)
from benchmarks._report import Absent, Figure, Options, Target, rates, run_alone
from benchmarks._rounds import alternate, cost_ratios, spread
from benchmarks.peers.install import is_ready

QUESTION = "What does it cost to augment a row?"

Pixels = NDArray[np.uint8]
Work = Callable[[], object]

_SIDE = 224
_SIZE = (_SIDE, _SIDE)
_CENTRE = (_SIDE / 2, _SIDE / 2)
_ANGLE_DEG, _ZOOM, _SHEAR = 20.0, 1.1, 0.1
_LENS = 0.08
_WARP = LocalWarpField(alpha=120.0, sigma=10.0)
_BRIGHTER, _CONTRAST, _SATURATION = 1.2, 0.8, 1.3
_GREY = np.array([0.299, 0.587, 0.114])
_PCA = (4.0, -2.5, 1.5)
_SHARE_OF_ROUND = 0.02
_COLOUR_US = 25.0

# Who makes the eight ops, by the filter of the resize; Albumentations has no antialiased one.
_PEERS: Mapping[Filter, Sequence[str]] = {
    "linear": ("OpenCV", "Albumentations", "torchvision"),
    "antialias": ("OpenCV", "torchvision"),
}
_PACKAGES = {"torchvision": "torchvision"}


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of row, as each side makes it."""

    name: str
    sides: dict[str, Work]
    target: Target | None = None


def run(options: Options) -> list[Figure | Absent]:
    """Measure each case on its own; the sides of a case in turns."""
    configure()
    figures: list[Figure | Absent] = []
    for case in _cases():
        times = _rounds(case, options)
        for side, times_us in times.items():
            target = case.target if side == "augd" else None
            figures.append(Figure(f"{case.name}: {side}", "µs", spread(times_us), target))
        for side in list(times)[1:]:
            found = [other / ours for ours, other in zip(times["augd"], times[side], strict=True)]
            figures.append(Figure(f"{case.name}: {side} / augd", "x", spread(found)))
    return [*figures, *_end_to_end(options)]


def _end_to_end(options: Options) -> list[Figure | Absent]:
    """Compare whole streams: eight ops of geometry and colour, with imagenet and by others."""
    figures: list[Figure | Absent] = []
    filter: Filter
    for filter in ("linear", "antialias"):
        peers = [name for name in _PEERS[filter] if not _missing(name)]
        starts = [eight_op_client(options, filter), augd_client(options, filter)]
        starts += [eight_op_loader(options, filter, peer) for peer in peers]
        scores = alternate(starts, rounds=options.rounds, seconds=options.seconds)
        eight, imagenet = scores["augd, eight ops"], scores["augd"]
        name = f"end to end, {filter}: eight ops"
        cost = cost_ratios(eight, imagenet)
        figures.append(Figure(f"{name} / imagenet", "x CPU", cost, Target("<=", 1.7)))
        figures += rates(f"{name}, augd", eight)
        for peer in _PEERS[filter]:
            if peer not in peers:
                why = f"not measured, for want of it: {_missing(peer)}"
                figures.append(Absent(f"{name}, {peer}", why))
                continue
            theirs = scores[peer]
            figures += rates(f"{name}, {peer}", theirs)
            figures.append(Figure(f"{name}, {peer} / augd", "x CPU", cost_ratios(theirs, eight)))
    return figures


def _missing(peer: str) -> str:
    """Give the command that brings what a peer needs and is not here; empty when all is."""
    environment = ENVIRONMENT_OF.get(peer)
    if environment is not None:
        ready = is_ready(environment)
        return "" if ready else f"python -m benchmarks.peers.install {environment}"
    packages = ("torch", _PACKAGES[peer]) if peer in _PACKAGES else ("torch",)
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(missing)}" if missing else ""


def _rounds(case: _Case, options: Options) -> dict[str, list[float]]:
    """Return microseconds per row of each side, a number per round; each has warmed up before."""
    round_s = options.seconds * _SHARE_OF_ROUND
    times: dict[str, list[float]] = {side: [] for side in case.sides}
    for work in case.sides.values():
        _time_us(work, round_s)
    for number in range(options.rounds):
        sides: Iterable[str] = case.sides if number % 2 == 0 else reversed(case.sides)
        for side in sides:
            times[side].append(_time_us(case.sides[side], round_s))
    return times


def _time_us(work: Work, seconds: float) -> float:
    count, before_ns = 0, time.thread_time_ns()
    while (passed_ns := time.thread_time_ns() - before_ns) < seconds * 1e9 or count < 3:
        work()
        count += 1
    return passed_ns / count / 1000


def _cases() -> list[_Case]:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (36, 40, 3)).astype(np.uint8)
    region = np.asarray(cv2.resize(small, (320, 280), interpolation=cv2.INTER_CUBIC), np.uint8)
    row = np.ascontiguousarray(region[:_SIDE, :_SIDE])
    composed = _OneByOne(region, row)
    cases = [
        _Case("exact path, antialiased", {"augd": _exact(region, "antialias")}),
        _Case("exact path, linear", {"augd": _exact(region, "linear"), "OpenCV": composed.resize}),
        _Case("affine", {"augd": _bent(region), "OpenCV": composed.affine}),
        _Case("affine, lens", {"augd": _bent(region, _LENS), "OpenCV": composed.lens}),
        _Case(
            "affine, lens, local warp",
            {"augd": _bent(region, _LENS, True), "OpenCV": composed.local_warp},
        ),
        _Case("colour", {"augd": _coloured(row), "OpenCV": composed.colour},
              Target("<=", _COLOUR_US)),
    ]  # fmt: skip
    if importlib.util.find_spec("torchvision") is not None:
        tensors = _Tensors(region, row)
        cases[0].sides["torchvision"] = tensors.resize
        cases[2].sides["torchvision"] = tensors.affine
        cases[5].sides["torchvision"] = tensors.colour
    return cases


# augd: row_plans as the planner would make them.


def _exact(region: Pixels, filter: Any) -> Work:
    renderer, out = Renderer(filter, _SIZE), np.empty((*_SIZE, 3), np.uint8)
    row_plan = RowPlan(_SIZE, mirror=True)
    return lambda: renderer.render(region, row_plan, out)


def _bent(region: Pixels, lens: float = 0.0, is_warped: bool = False) -> Work:
    renderer, out = Renderer("linear", _SIZE), np.empty((*_SIZE, 3), np.uint8)
    resize = np.diag([region.shape[1] / _SIDE, region.shape[0] / _SIDE])
    linear = resize @ _shear() @ (_zoom() @ _rotation())
    centre = np.array([region.shape[1] / 2, region.shape[0] / 2])
    shift = centre - linear @ np.array(_CENTRE)
    row_plan = RowPlan(matrix=np.hstack([linear, shift[:, None]]).tolist(), lens=lens)
    row_plan.warp = _WARP if is_warped else None
    keys = iter(range(1 << 62))

    def work() -> None:
        row_plan.warp_key = next(keys)
        renderer.render(region, row_plan, out)

    return work


def _coloured(row: Pixels) -> Work:
    """Only the colour pass, again and again on the same row: its time depends on no value."""
    linear, pivot = np.eye(3) * _BRIGHTER * _CONTRAST, np.zeros((3, 3))
    pivot += (1 - _CONTRAST) * _BRIGHTER * _GREY
    saturate = _SATURATION * np.eye(3) + (1 - _SATURATION) * np.outer(np.ones(3), _GREY)
    colour = np.hstack([saturate @ linear, np.array(_PCA)[:, None]]).tolist()
    mean_part = (saturate @ pivot).tolist()
    tint, out = ColourPass(), row.copy()
    return lambda: tint.apply(colour, mean_part, out)


def _rotation() -> NDArray[np.float64]:
    angle = math.radians(_ANGLE_DEG)
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _zoom() -> NDArray[np.float64]:
    return np.eye(2) * _ZOOM


def _shear() -> NDArray[np.float64]:
    return np.array([[1.0, _SHEAR], [0.0, 1.0]])


class _OneByOne:
    """The same ops, each a call of OpenCV on the result of the one before."""

    def __init__(self, region: Pixels, row: Pixels) -> None:
        self._region, self._row = region, row
        self._matrices = [self._about(m) for m in (_rotation(), _zoom(), _shear())]
        y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float32)
        self._x, self._y = x, y
        from_x, from_y = x - _SIDE / 2 + 0.5, y - _SIDE / 2 + 0.5
        grown = _LENS * (from_x**2 + from_y**2) / (2 * (_SIDE / 2) ** 2)
        self._lens = (x + from_x * grown, y + from_y * grown)
        self._rng = np.random.default_rng(0)

    @staticmethod
    def _about(linear: NDArray[np.float64]) -> NDArray[np.float64]:
        centre = np.array(_CENTRE) - 0.5
        return np.hstack([linear, (centre - linear @ centre)[:, None]])

    def resize(self) -> Any:
        return cv2.flip(cv2.resize(self._region, _SIZE, interpolation=cv2.INTER_LINEAR), 1)

    def affine(self) -> Any:
        row: Any = cv2.resize(self._region, _SIZE, interpolation=cv2.INTER_LINEAR)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for matrix in self._matrices:
            row = cv2.warpAffine(row, matrix, _SIZE, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return row

    def lens(self) -> Any:
        return self._moved(self.affine(), *self._lens)

    def local_warp(self) -> Any:
        field = [self._rng.random(_SIZE, dtype=np.float32) * 2 - 1 for _ in range(2)]
        dx, dy = (cv2.GaussianBlur(noise, (0, 0), _WARP.sigma) * _WARP.alpha for noise in field)
        return self._moved(self.lens(), self._x + dx, self._y + dy)

    def _moved(self, row: Any, x: Any, y: Any) -> Any:
        return cv2.remap(row, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    def colour(self) -> Any:
        row: Any = cv2.convertScaleAbs(self._row, alpha=_BRIGHTER)
        mean = float(cv2.mean(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY))[0])
        row = cv2.convertScaleAbs(row, alpha=_CONTRAST, beta=(1 - _CONTRAST) * mean)
        grey = cv2.cvtColor(cv2.cvtColor(row, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        row = cv2.addWeighted(row, _SATURATION, grey, 1 - _SATURATION, 0.0)
        step: Any = (*_PCA, 0.0)
        return cv2.add(row, step)


class _Tensors:
    """The same ops by torchvision, each on the result of the one before; on one thread."""

    def __init__(self, region: Pixels, row: Pixels) -> None:
        import torch

        transforms = importlib.import_module("torchvision.transforms.v2")
        torch.set_num_threads(1)
        self._ops = transforms.functional
        self._bilinear = transforms.InterpolationMode.BILINEAR
        self._region = torch.from_numpy(region).permute(2, 0, 1)
        self._row = torch.from_numpy(row).permute(2, 0, 1)

    def resize(self) -> Any:
        resized = self._ops.resize(self._region, [_SIDE, _SIDE], antialias=True)
        return self._ops.horizontal_flip(resized)

    def affine(self) -> Any:
        row = self._ops.resize(self._region, [_SIDE, _SIDE], antialias=True)
        shear_deg = math.degrees(math.atan(_SHEAR))
        for angle, scale, shear in (
            (_ANGLE_DEG, 1.0, 0.0),
            (0.0, _ZOOM, 0.0),
            (0.0, 1.0, shear_deg),
        ):
            row = self._ops.affine(
                row, angle, [0, 0], scale, [shear, 0.0], interpolation=self._bilinear
            )
        return row

    def colour(self) -> Any:
        row = self._ops.adjust_brightness(self._row, _BRIGHTER)
        row = self._ops.adjust_contrast(row, _CONTRAST)
        return self._ops.adjust_saturation(row, _SATURATION)


if __name__ == "__main__":
    run_alone("augmentation", QUESTION, run)
