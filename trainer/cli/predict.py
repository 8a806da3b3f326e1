"""`trainer predict`: what checkpoints say of images, one line each, at the loader's full rate."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

import augd
from augd.errors import counted

from ..data.images_by_path import NamedImages, open_images
from ..evaluation.predict import predict
from ..training.load_trained import check_ensemble, read_trained
from ..training.progress import Display, Pace
from .evaluate import VIEWS, recipe_of
from .options import ImagesOptions, PredictOptions

_RUN = Path("run")
_FORMATS = ("csv", "jsonl")
_NAMED_MAX = 5


def run_predict(options: PredictOptions) -> int:
    """Predict; returns the exit status: 0, or 1 if no image can be read.

    Raises:
        AugdError: an option, a checkpoint or a path does not fit.
    """
    check_images(options)
    if options.views not in VIEWS:
        raise augd.OptionError(f"--views: expected {', '.join(VIEWS)}, got {options.views!r}")
    form = _form_of(options)
    trained = [read_trained(path, options.arch) for path in options.checkpoint or [_RUN]]
    check_ensemble(trained)
    first = trained[0]
    with ExitStack() as cleaning:
        opened = open_images(
            options.paths,
            cleaning,
            address=options.connect,
            dataset=options.dataset,
            producers=options.producers,
            keys=options.keys,
            recipe=recipe_of(first, options.views),
            batch_size=options.batch_size,
            device=options.device,
            max_bad_fraction=options.max_bad_fraction,
            **first.constants._asdict(),
        )
        networks = [one.staged.network.to(opened[0].stream.device) for one in trained]
        display = cleaning.enter_context(Display(1, is_json=True))
        file = cleaning.enter_context(_open(options.out))
        writer = _writer_of(form, file, first.classes, options.top)
        paces = [Pace(one.stream) for one in opened]
        bad: list[str] = []
        num_rows = 0
        for images, pace in zip(opened, paces, strict=True):
            display.begin("predicting", 0, len(images.stream))
            for path, shares in _answers(networks, images, options.batch_size, display, pace):
                writer.write(path, shares)
                num_rows += 1
                if shares is None:
                    bad.append(path)
        rate, waiting = paces[-1].read()
    _tell(num_rows, bad, rate, waiting)
    return 1 if len(bad) == num_rows else 0


def check_images(options: ImagesOptions) -> None:
    """Check that there is one place to get images from.

    Raises:
        OptionError: neither or both, or producers for a daemon that runs already.
    """
    if bool(options.paths) == (options.connect is not None):
        found = "both" if options.paths else "neither"
        raise augd.OptionError(f"expected either PATHs or --connect ADDR, got {found}")
    if options.connect is not None and options.producers is not None:
        raise augd.OptionError(
            "--producers: a running daemon has its own; leave --producers out with --connect"
        )


def _answers(
    networks: Sequence[Any], images: NamedImages, rows_max: int, display: Display, pace: Pace
) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
    """Yield the path and the probabilities of each image; None for one that cannot be read."""
    for predicted in predict(networks, images.stream, rows_max):
        shares = iter(predicted.shares)
        paths = images.paths(predicted.ids)
        for path, is_bad in zip(paths, predicted.is_bad, strict=True):
            yield path, None if is_bad else next(shares)
        display.advance(None, None, pace)


def _form_of(options: PredictOptions) -> str:
    suffix = "" if options.out is None else options.out.suffix.removeprefix(".")
    form = options.format or (suffix if suffix in _FORMATS else "csv")
    if form not in _FORMATS:
        raise augd.OptionError(f"--format: expected csv or jsonl, got {form!r}")
    return form


def _open(out: Path | None) -> Any:
    if out is None:
        return nullcontext(sys.stdout)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return out.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    except OSError as error:
        raise augd.AugdError(f"{out} cannot be written ({error}); choose another --out") from None


class _Writer(Protocol):
    def write(self, path: str, shares: NDArray[np.float32] | None) -> None: ...


def _writer_of(form: str, file: TextIO, classes: list[str], top: int | None) -> _Writer:
    return _Csv(file, classes, top) if form == "csv" else _Jsonl(file, classes, top)


class _Csv:
    """Columns: path, class, probability, error; then a column for each class, or for each place."""

    def __init__(self, file: TextIO, classes: list[str], top: int | None) -> None:
        self._classes = classes
        self._top = None if top is None else min(top, len(classes))
        self._writer = csv.writer(file, lineterminator="\n")
        if self._top is None:
            more = [f"p_{name}" for name in classes]
        else:
            more = [f"{what}_{n}" for n in range(1, self._top + 1) for what in ("class", "p")]
        self._num_more = len(more)
        self._writer.writerow(["path", "class", "probability", "error", *more])

    def write(self, path: str, shares: NDArray[np.float32] | None) -> None:
        if shares is None:
            self._writer.writerow([path, "", "", "cannot be read", *[""] * self._num_more])
            return
        order = np.argsort(-shares, kind="stable")
        more: list[str] = []
        if self._top is None:
            more = [_number(share) for share in shares]
        else:
            for label in order[: self._top]:
                more += [self._classes[label], _number(shares[label])]
        best = order[0]
        self._writer.writerow([path, self._classes[best], _number(shares[best]), "", *more])


class _Jsonl:
    """An object per line: path, class, probability and all probabilities; or path and error."""

    def __init__(self, file: TextIO, classes: list[str], top: int | None) -> None:
        self._file, self._classes, self._top = file, classes, top

    def write(self, path: str, shares: NDArray[np.float32] | None) -> None:
        line: dict[str, Any] = {"path": path}
        if shares is None:
            line["error"] = "cannot be read"
        else:
            order = np.argsort(-shares, kind="stable")
            line |= {"class": self._classes[order[0]], "probability": _rounded(shares[order[0]])}
            shown = range(len(shares)) if self._top is None else order[: self._top]
            line["probabilities"] = {self._classes[one]: _rounded(shares[one]) for one in shown}
        self._file.write(json.dumps(line) + "\n")


def _number(share: np.float32) -> str:
    return format(float(share), ".7g")


def _rounded(share: np.float32) -> float:
    return float(_number(share))


def _tell(num_rows: int, bad: list[str], rate: float, waiting: float) -> None:
    """Say how it went, on stderr: stdout has the answers."""
    line = f"{counted(num_rows, 'image')}, {rate:.0f} images/s, waiting {waiting:.1%}"
    print(line, file=sys.stderr)
    if bad:
        shown = ", ".join(map(ascii, bad[:_NAMED_MAX]))
        more = f" and {len(bad) - _NAMED_MAX} more" if len(bad) > _NAMED_MAX else ""
        told = f"{counted(len(bad), 'image')} cannot be read: {shown}{more}; `augd check` says why"
        print(told, file=sys.stderr)
