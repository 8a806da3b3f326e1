"""`trainer inspect`: draw what a checkpoint has learnt, as PNG files and on TensorBoard.

Calls `trainer.evaluation.inspect`. A second stream of the same samples gives the patches, at three
times the resolution that the network sees.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

import augd
from augd.errors import counted

from ..data.host_feed import Batch
from ..data.source import usable_rows
from ..data.stream import Stream
from ..evaluation.charts import draw_rows, draw_scatter, overlay
from ..evaluation.images import Pixels, as_seen, save_png
from ..evaluation.inspect import (
    Box,
    ChannelPeak,
    cut,
    features,
    field,
    filters,
    find_layer,
    grad_cam,
    project,
    strongest,
)
from ..training.load_trained import Trained, read_trained
from ..training.tensorboard import TensorBoardLog
from .evaluate import Split, open_for
from .fit import check_place
from .options import InspectOptions

_RUN = Path("run")
_PATCHES = 8  # of a channel
_CHANNELS = 6  # unless some are named: those that answer most
_PATCH_PX = 96
_DETAIL = 3  # photo pixels per pixel that the network sees, along a side
_SIZES = ("short", "size")  # parameters of `resize` and `center_crop` that are pixels
_POINTS_MIN = 4  # for a scatter, and for t-SNE's neighbours


def run_inspect(options: InspectOptions) -> int:
    """Draw everything; returns the exit status 0.

    Raises:
        AugdError: an option, the checkpoint or the dataset does not fit.
    """
    check_place(options.path, options.connect, options.producers)
    trained = read_trained(options.checkpoint or _RUN, options.arch)
    with ExitStack() as cleaning:
        address = options.connect
        if options.path is not None:
            served = augd.serve(options.path, producers=options.producers)
            address = cleaning.enter_context(served).address
        inspection = _Inspection(options, trained, address, cleaning)
        charts = {
            "filters": filters(trained.staged.network),
            **inspection.scatters(),
            "patches": inspection.patches(),
            "grad-cam": inspection.cams(),
        }
    with TensorBoardLog(options.out / "tensorboard") as log:
        for name, chart in charts.items():
            save_png(options.out / f"{name}.png", chart)
            log.image(trained.epoch, f"inspection/{name}", chart)
            print(f"Written: {options.out / name}.png")
    return 0


class _Inspection:
    """A network on a device, and the samples that it is applied to."""

    def __init__(
        self, options: InspectOptions, trained: Trained, address: str | None, cleaning: ExitStack
    ) -> None:
        self._options, self._trained, self._address = options, trained, address
        self._cleaning = cleaning
        self._stream, self._split = self._open(trained.validation)
        self._network = trained.staged.network.to(self._stream.device)
        self._first = self._first_batch()
        images = self._first.images[self._first.valid]
        stages = trained.staged.stages
        self._layer = find_layer(self._network, stages, options.layer, images[:1])

    def _open(self, recipe: str | dict[str, Any], **more: Any) -> tuple[Stream, Split]:
        options = self._options
        return open_for(
            self._trained,
            self._cleaning,
            path=None,
            address=self._address,
            producers=None,
            split=options.split,
            dataset=options.dataset,
            max_bad_fraction=options.max_bad_fraction,
            keys=options.keys,
            recipe=recipe,
            batch_size=options.batch_size,
            limit=options.limit,
            device=options.device,
            **more,
        )

    def _first_batch(self) -> Batch:
        for batch in self._stream.epoch(0):
            if len(usable_rows(batch, self._stream)[1]):
                return batch
        raise augd.DatasetError(
            f"no image of split {self._split!r} of dataset {self._stream.dataset!r} can be read"
        )

    def scatters(self) -> dict[str, Pixels]:
        """Lay the images out by what the head gets."""
        stages = self._trained.staged.stages
        rows, labels, thumbnails = [], [], []
        for batch in self._stream.epoch(0):
            images, truth = usable_rows(batch, self._stream)
            if not len(truth):
                continue
            rows.append(features(self._network, stages, images).float().cpu().numpy())
            labels.append(truth.cpu().numpy())
            if self._options.thumbnails:
                thumbnails += [
                    cut(one, _whole(one), 64) for one in as_seen(images, self._trained.constants)
                ]
        points, of_points = np.concatenate(rows), np.concatenate(labels)
        if len(points) < _POINTS_MIN:
            raise augd.DatasetError(
                f"split {self._split!r} has {counted(len(points), 'image')} that can be read; a "
                f"scatter needs "
                f"{_POINTS_MIN}"
            )
        return {
            name: draw_scatter(
                project(points, name),
                of_points,
                self._trained.classes,
                f"last features by {title}: {counted(len(points), 'image')} of split "
                f"{self._split!r}",
                thumbnails or None,
            )
            for name, title in (("pca", "PCA"), ("tsne", "t-SNE"))
        }

    def patches(self) -> Pixels:
        """Cut out what some channels of a layer answer to most."""
        best = strongest(self._network, self._layer, self._stream.epoch(0), _PATCHES)
        channels = self._channels(best)
        wanted = {place.sample for channel in channels for place in best[channel]}
        images, photos = self._images(wanted), self._photos(wanted)
        rows = []
        for channel in channels:
            parts = []
            for place in best[channel]:
                image = images[place.sample]
                box = field(self._network, self._layer, channel, place, image[None])
                photo = photos[place.sample]
                factor = photo.shape[0] // image.shape[1]
                parts.append(cut(photo, box.scaled(factor), _PATCH_PX))
            rows.append((f"channel {channel}", parts))
        return draw_rows(rows, f"{self._layer}: the patches that excite a channel most")

    def _channels(self, best: list[list[ChannelPeak]]) -> list[int]:
        if self._options.channel:
            for channel in self._options.channel:
                if not 0 <= channel < len(best):
                    raise augd.OptionError(
                        f"--channel: {self._layer} has channels 0..{len(best) - 1}, got {channel}"
                    )
            return list(self._options.channel)
        order = sorted(range(len(best)), key=lambda channel: (-best[channel][0].value, channel))
        return sorted(order[:_CHANNELS])

    def _images(self, wanted: set[int]) -> dict[int, torch.Tensor]:
        """Return the images of some samples as the network sees them, (3, H, W)."""
        found = {}
        for batch in self._stream.epoch(0):
            for row, sample in enumerate(batch.ids.tolist()):
                if sample in wanted:
                    found[sample] = batch.images[row].clone()
        return found

    def _photos(self, wanted: set[int]) -> dict[int, Pixels]:
        """Return the same part of the photos, uint8 (H, W, 3), in more detail where that can be."""
        recipe = self._trained.validation
        detailed = recipe if isinstance(recipe, str) else in_detail(recipe, _DETAIL)
        stream, _ = self._open(detailed, normalize=False)
        found = {}
        for batch in stream.epoch(0):
            for row, sample in enumerate(batch.ids.tolist()):
                if sample in wanted:
                    found[sample] = batch.images[row].cpu().numpy().copy()
            batch.release()
        return found

    def cams(self) -> Pixels:
        """Show which regions of some images speak for what the network takes them for."""
        classes = self._trained.classes
        images, labels = self._some_of_each_class()
        heat, taken = grad_cam(self._network, self._layer, images)
        rows = []
        for seen, warm, label, found in zip(
            as_seen(images, self._trained.constants),
            heat.cpu().numpy(),
            labels,
            taken.tolist(),
            strict=True,
        ):
            name = classes[label] if label == found else f"{classes[label]}\nas {classes[found]}"
            rows.append((name, [seen, overlay(seen, warm)]))
        return draw_rows(rows, f"Grad-CAM at {self._layer}")

    def _some_of_each_class(self) -> tuple[torch.Tensor, list[int]]:
        """Return the first images of each class, as many of one as of another."""
        num_classes, count = len(self._trained.classes), self._options.cams
        of_class: dict[int, int] = {}
        images: list[torch.Tensor] = []
        labels: list[int] = []
        for batch in self._stream.epoch(0):
            for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
                seen = of_class.get(label, 0)
                if label >= 0 and len(images) < count and seen < max(1, count // num_classes):
                    of_class[label] = seen + 1
                    images.append(image.clone())
                    labels.append(label)
        return torch.stack(images), labels


def in_detail(recipe: dict[str, Any], factor: int) -> dict[str, Any]:
    """Return a recipe that gives the same part of each photo, `factor` times larger."""
    ops = [
        {name: _times(value, factor) if name in _SIZES else value for name, value in op.items()}
        for op in recipe["ops"]
    ]
    return {**recipe, "ops": ops}


def _times(pixels: Any, factor: int) -> Any:
    return [factor * one for one in pixels] if isinstance(pixels, list) else factor * pixels


def _whole(pixels: Pixels) -> Box:
    return Box(0, 0, pixels.shape[0], pixels.shape[1])
