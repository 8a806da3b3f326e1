"""Renders all views of one image from as few decodes as are cheapest.

Views of one image show regions that overlap or lie apart. One decode of the region around all of
them serves every view. Where the regions lie far apart, decoding each by itself is cheaper. A JPEG
cannot be entered in the middle: a region costs the decoding of the entropy code down to its last
line, and then its own pixels.

Invariants: the bytes are the same either way; what is decided follows from sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels, at_scale, is_native
from augd.pixels.exif_orientation import Region
from augd.pixels.headers.read_header import Header
from augd.pixels.row_plan import RowPlans

if TYPE_CHECKING:
    from augd.pixels.render import Renderer

# Of a decoded pixel, against one whose entropy code is passed: measured, 2.4 ns and 1.0 ns.
_PIXEL_COST: Final = 2.4


@dataclass(slots=True)
class ViewsOfSample:
    """Views of one sample that one renderer makes.

    Their row plans begin at `first`. `out` is uint8 (views, height, width, 3), `colour_out` float32
    (views, 3, 4) or None.
    """

    renderer: Renderer
    row_plans: RowPlans
    first: int
    out: Pixels
    colour_out: NDArray[np.float32] | None

    def crops(self) -> list[Region]:
        """Return the region that each view needs."""
        return self.row_plans.crop[self.first : self.first + len(self.out)]

    def colour(self, view: int) -> NDArray[np.float32] | None:
        """Return where a view's colour matrix is written; None if nowhere."""
        return None if self.colour_out is None else self.colour_out[view]


def render_views(
    data: bytes | bytearray,
    header: Header,
    groups: Sequence[ViewsOfSample],
    origin: tuple[int, int] | None = None,
) -> None:
    """Render views of one sample, whose renderers decode alike; see `Renderer.render_sample`."""
    crops = [crop for group in groups for crop in group.crops()]
    scale = groups[0].row_plans.scale[groups[0].first]
    if not is_united(header, crops, origin):
        for group in groups:
            for view, crop in enumerate(group.crops()):
                group.renderer.render_image(
                    *(data, header, crop, scale, group.row_plans[group.first + view]),
                    *(group.out[view], group.colour(view)),
                    origin=origin,
                )
        return
    whole = box_around(crops)
    left, top = origin or (0, 0)
    shifted = whole[0] - left, whole[1] - top, whole[2], whole[3]
    decoded = groups[0].renderer.decode(data, header, shifted, scale)
    for group in groups:
        for view, crop in enumerate(group.crops()):
            region = cut_region(decoded, whole, crop, scale)
            row_plan = group.row_plans[group.first + view]
            group.renderer.render(region, row_plan, group.out[view], group.colour(view))


def is_united(
    header: Header, crops: Sequence[Region], origin: tuple[int, int] | None = None
) -> bool:
    """Return whether one decode of all regions is cheaper than one of each.

    An image that no native kernel decodes is decoded whole for any region. Of a JPEG with several
    scans or restarts, the whole entropy code is decoded.
    """
    if not is_native(header) or not header.can_stop_early:
        return True
    top = 0 if origin is None else origin[1]
    costs = (_cost(header, crop, top) for crop in crops)
    return _cost(header, box_around(crops), top) <= sum(costs)


def _cost(header: Header, crop: Region, top: int) -> float:
    _, y, width, height = crop
    return header.width * (y + height - top) + _PIXEL_COST * width * height


def box_around(crops: Sequence[Region]) -> Region:
    """Return the region of an image that holds all crops."""
    left, top = min(crop[0] for crop in crops), min(crop[1] for crop in crops)
    right = max(crop[0] + crop[2] for crop in crops)
    bottom = max(crop[1] + crop[3] for crop in crops)
    return left, top, right - left, bottom - top


def cut_region(decoded: Pixels, whole: Region, crop: Region, scale: int) -> Pixels:
    """Return the crop as a view of the decoded part of the image: `whole`, at 1/scale."""
    x, y, width, height = at_scale((crop[0] - whole[0], crop[1] - whole[1], *crop[2:]), scale)
    return decoded[y : y + height, x : x + width]
