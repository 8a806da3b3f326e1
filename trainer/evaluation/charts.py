"""Charts of evaluations and inspections, as arrays of pixels.

The only module that imports matplotlib. It uses figure objects alone: no window system, no global
state, and no style set elsewhere.
"""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from numpy.typing import NDArray

from .images import Pixels

# From here on numbers are written into the cells, and names beside them.
_CLASSES_NAMED_MAX = 40
_DPI = 100


def draw_confusion(confusion: list[list[int]], classes: list[str]) -> Pixels:
    """Draw a confusion matrix: rows are labels, columns predictions, shades shares of the row."""
    counts = np.array(confusion, dtype=np.float64)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    side = min(14.0, 3.0 + 0.45 * len(classes))
    figure = Figure(figsize=(side + 1, side), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(shown, ax=axes, label="share of the label's images", shrink=0.8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    if len(classes) <= _CLASSES_NAMED_MAX:
        places = range(len(classes))
        axes.set_xticks(places, classes, rotation=90)
        axes.set_yticks(places, classes)
        for row, column in np.argwhere(counts > 0):
            axes.text(
                column,
                row,
                str(int(counts[row, column])),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.5 else "black",
            )
    return render(figure)


def render(figure: Figure) -> Pixels:
    """Turn a figure into pixels; no window system and no global state takes part."""
    canvas: Any = FigureCanvasAgg(figure)  # typed in some versions of matplotlib only
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


_THUMBNAIL_PX = 28
# matplotlib's ten colours, then again with another marker.
_MARKERS = "osD^v<>PX*"


def draw_scatter(
    points: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: list[str],
    title: str,
    thumbnails: list[Pixels] | None = None,
) -> Pixels:
    """Draw points (N, 2), a colour per class; with thumbnails, the images in frames of it."""
    figure = Figure(figsize=(10, 8), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    for label in np.unique(labels):
        chosen = points[labels == label]
        axes.scatter(
            chosen[:, 0],
            chosen[:, 1],
            s=18 if thumbnails is None else 1,
            color=f"C{label % 10}",
            marker=_MARKERS[label // 10 % len(_MARKERS)],
            label=classes[label],
        )
    for point, label, image in zip(points, labels, thumbnails or (), strict=False):
        zoom = _THUMBNAIL_PX / max(image.shape[:2])
        box = AnnotationBbox(
            OffsetImage(image, zoom=zoom),
            (float(point[0]), float(point[1])),
            pad=0.1,
            bboxprops={"edgecolor": f"C{label % 10}", "linewidth": 1.5},
        )
        axes.add_artist(box)
    if len(classes) <= _CLASSES_NAMED_MAX:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2)
    return render(figure)


def overlay(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """Lay heat (H, W), 0..1, over an image (H, W, 3): dark blue is nothing, yellow is most."""
    colours = matplotlib.colormaps["plasma"](heat)[..., :3] * 255
    share = 0.25 + 0.35 * heat[..., None]
    mixed: Pixels = (image * (1 - share) + colours * share).round().clip(0, 255).astype(np.uint8)
    return mixed


def draw_rows(rows: list[tuple[str, list[Pixels]]], title: str) -> Pixels:
    """Draw rows of images, each with its name on the left."""
    columns = max(len(images) for _, images in rows)
    figure = Figure(
        figsize=(1.2 * columns + 1.0, 1.2 * len(rows) + 0.5), dpi=_DPI, layout="constrained"
    )
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for (name, images), line in zip(rows, axes, strict=True):
        for number, cell in enumerate(line):
            cell.set_axis_off()
            if number < len(images):
                cell.imshow(images[number])
        line[0].text(
            *(-0.08, 0.5, name), fontsize=8, ha="right", va="center", transform=line[0].transAxes
        )
    return render(figure)
