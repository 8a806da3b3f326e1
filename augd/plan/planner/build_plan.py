"""The last step of planning: turns a frame into a plan.

Runs after the samplers of a recipe have acted. It composes colour steps or compiles them, gives
rows at native size their crop, and gives bent rows their region in its place.

Invariants: which of the plan's fields are None depends on the recipe alone; nothing is drawn.
"""

from __future__ import annotations

import numpy as np

from augd.plan.boxes import stack_boxes
from augd.plan.colour_matrix import ColourStep, compose
from augd.plan.geometry.affine import Affine
from augd.plan.geometry.decode_scale import (
    round_crops,
    scale_of_matrix,
    scale_of_resize,
    share_scale,
)
from augd.plan.geometry.frame import Frame
from augd.plan.geometry.source_region import count_halvings, find_region
from augd.plan.plan import Bools, Int8s, Int32s, Mixture, Plan
from augd.plan.program import Program, compile_program, in_order
from augd.plan.random.numerics import Floats
from augd.plan.recipe.recipe import Recipe


def finish(frame: Frame, recipe: Recipe, num_views: int, impossible: dict[int, str]) -> Plan:
    """Write the frame out as a plan.

    With 0 views, the scales of decoding are as each row wants them: `share_scales` comes later.
    """
    crop, scaled, window = _write_exact_path(frame)
    mirror = np.zeros(frame.num_rows, np.bool_) if frame.mirror is None else frame.mirror
    colour, pivot, program = _compose_colours(frame)
    matrix = halvings = None
    erase, erase_fill = stack_boxes(frame.boxes) if frame.boxes else (None, None)
    scale = scale_of_resize(crop[2:], scaled) if recipe.scaled_decode == "auto" else None
    if frame.affine is not None and frame.bent is not None:
        matrix = frame.affine.stack()
        halvings, least = _write_regions(frame, frame.affine, frame.bent, recipe, crop)
        if scale is not None:
            np.copyto(scale, scale_of_matrix(least, halvings), where=frame.bent)
        np.copyto(scaled, frame.out_sides, where=frame.bent, casting="unsafe")
        np.copyto(window, 0, where=frame.bent)
        if frame.inset is not None:
            np.copyto(frame.inset[:2], 0.0, where=frame.bent)
            np.copyto(frame.inset[2:], frame.out_sides, where=frame.bent)
    if scale is not None and num_views:
        scale = share_scale(scale, num_views)
        round_crops(crop, scale, frame.image, frame.bent)
    return Plan(
        edits=frame.edits,
        crop=crop.T,
        scaled=scaled.T,
        window=window.T,
        mirror=mirror,
        flip=frame.upside_down,
        inset=None if frame.inset is None else frame.inset.T.astype(np.int32),
        colour=colour,
        impossible=impossible,
        matrix=matrix,
        bent=frame.bent,
        halvings=halvings,
        picture=None if frame.picture is None else frame.picture.T.astype(np.int32),
        is_bicubic=frame.is_bicubic,
        lens=frame.lens,
        warp=frame.warp,
        warp_key=frame.warp_key,
        warp_on=frame.warp_on,
        scale=scale,
        pivot=pivot,
        program=program,
        mixture=_plan_mixture(frame, recipe),
        erase=erase,
        erase_fill=erase_fill,
    )


def _plan_mixture(frame: Frame, recipe: Recipe) -> Mixture | None:
    """Write the chains that rows are blended with as plans of their own."""
    if frame.mixture is None:
        return None
    chains, weights = frame.mixture
    return Mixture(tuple(finish(chain, recipe, 1, {}) for chain in chains), weights)


def _compose_colours(frame: Frame) -> tuple[Floats | None, Floats | None, Program | None]:
    """Return A | b and C of all steps, or a program where some step is no matrix."""
    if not frame.steps:
        return None, None, None
    steps = in_order(frame.steps, frame.orders)
    matrices = [step for step in steps if isinstance(step, ColourStep)]
    if len(matrices) < len(steps):
        return None, None, compile_program(steps, frame.num_rows)
    composed = compose(matrices, frame.colour_order, frame.num_rows)
    return composed.stack(), composed.stack_pivot(), None


def _write_exact_path(frame: Frame) -> tuple[Int32s, Int32s, Int32s]:
    """Return crop (4, n), scaled (2, n) and window (2, n)."""
    num_rows = frame.num_rows
    is_resampled = frame.resampled_crop is not None
    offset, sides = frame.resampled_crop or (frame.offset, frame.sides)
    crop = np.zeros((4, num_rows), np.int32)
    if offset is not None:
        crop[:2] = offset
    crop[2:] = sides
    scaled = np.empty((2, num_rows), np.int32)
    scaled[...] = frame.scaled if is_resampled else frame.sides
    window = np.zeros((2, num_rows), np.int32)
    if is_resampled and frame.offset is not None:
        window[...] = frame.offset
    if frame.is_native is not None:
        _keep_native(frame, frame.is_native, crop, scaled, window)
    return crop, scaled, window


def _keep_native(
    frame: Frame, is_native: Bools, crop: Int32s, scaled: Int32s, window: Int32s
) -> None:
    """Reduce the crop of rows that were not resampled to their window."""
    np.add(crop[:2], window, out=crop[:2], where=is_native)
    for sides in (crop[2:], scaled):
        np.copyto(sides, frame.sides, where=is_native, casting="unsafe")
    np.copyto(window, 0, where=is_native)


def _write_regions(
    frame: Frame, affine: Affine, bent: Bools, recipe: Recipe, crop: Int32s
) -> tuple[Int8s, Floats]:
    """Write the regions of bent rows into `crop`.

    Returns how often each is halved, and by how much its matrix and lens reduce it at least.
    """
    reduction, least = affine.reductions()
    stretch: Floats | float = 1.0
    if frame.lens is not None:
        # If the lens pulls the edges in, radii grow by 1 + k at the corner and, from one pixel to
        # the next, by 1 + 3 k. If it pushes them out, both are below 1.
        outwards = np.maximum(frame.lens, 0.0)
        reduction = reduction * (1.0 + 3.0 * outwards)
        stretch = 1.0 + outwards
        least = least * np.maximum(1.0 + 3.0 * np.minimum(frame.lens, 0.0), 0.0)
    # The compression of a local warp is not counted: 1.4 at alpha = sigma ** 2, at one place in a
    # hundred. The whole row would be blurred for it.
    reach: Floats | float = 0.0
    if frame.warp is not None and frame.warp_on is not None:
        reach = np.where(frame.warp_on, frame.warp.alpha, 0.0)
    halvings = count_halvings(reduction)
    halvings[~bent] = 0
    picture = np.concatenate([np.zeros_like(frame.image), frame.image])
    if frame.picture is not None:
        if recipe.scaled_decode == "auto":
            _widen(frame.picture, scale_of_matrix(least, halvings), frame.image)
        picture = frame.picture
    fill, out_sides = recipe.fill, frame.out_sides
    num_around = 2 if recipe.filter in ("bicubic", "random") else 1
    region = find_region(affine, out_sides, picture, fill, halvings, stretch, reach, num_around)
    np.copyto(crop, region, where=bent)
    return halvings, least


def _widen(picture: Floats, scale: Int8s, image: Floats) -> None:
    """Move the edges of what counts as the image outwards to those of scaled pixels, in place."""
    end = np.minimum(np.ceil((picture[:2] + picture[2:]) / scale) * scale, image)
    picture[:2] = np.floor(picture[:2] / scale) * scale
    picture[2:] = end - picture[:2]
