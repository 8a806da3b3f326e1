"""Charts of what was measured: matrices and scatters, as arrays of pixels.

Where it stands: after an evaluation or an inspection. The one module that knows matplotlib, through
its objects alone: no window system, no global state, no style that somebody set elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.pictures import Picture

# From here on numbers are written into the cells, and names beside them.
_CLASSES_NAMED_MAX = 40
_DPI = 100


def draw_confusion(confusion: list[list[int]], classes: list[str]) -> Picture:
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


def render(figure: Figure) -> Picture:
    """Turn a figure into pixels; no window system and no global state takes part."""
    canvas: Any = FigureCanvasAgg(figure)  # typed in some versions of matplotlib only
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
