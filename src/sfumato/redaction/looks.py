"""Looks: which regions show a grid or a tint of their own, and where these lie in one frame."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Cover, Form
from sfumato.redaction.covers.dp_pixelate import DpPixelate
from sfumato.redaction.grids import NEUTRAL, Look, Painter
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places
from sfumato.redaction.regions import regions_of
from sfumato.redaction.zones import without
from sfumato.vision.boxes import Boxes

#: ("track", its number) or ("zone", its place among the fixed ones).
Key = tuple[str, int]

#: How much of a tint is mixed into a fill.
TINT = 0.3
#: The golden section: neighbours in number are far apart in hue, however many there are.
GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """One region of one frame that shows a look.

    Args:
        key: whose look.
        extent: (4,) int32: the region, which the look is stretched to.
        pieces: (n, 4) int32: what of it is covered.
    """

    key: Key
    extent: NDArray[np.int32]
    pieces: NDArray[np.int32]


def noisy_cover(job: Job) -> DpPixelate | None:
    """Return the cover that draws noise, where a job has one; a job has one at most."""
    return next((one for one in job.all_covers if isinstance(one, DpPixelate)), None)


def noisy_spots(
    job: Job, boxes: Boxes, numbers: Sequence[int], fixed: Places, width: int, height: int
) -> list[Spot]:
    """Return the regions of a frame that are covered by grids.

    Args:
        boxes: what is hidden there.
        numbers: of the track of each box.
        fixed: zones, and what is kept.
        width, height: of the frame, in pixels.
    """
    spots = []
    for index, label in enumerate(boxes.labels):
        if isinstance(job.cover_of(label), DpPixelate):
            spots += _spot(("track", numbers[index]), _region(job, boxes, index, width, height), fixed)
    for index, (cover, rectangles) in enumerate(fixed.hidden):
        if isinstance(cover, DpPixelate):
            spots += _spot(("zone", index), rectangles, fixed)
    return spots


def is_tinted(cover: Cover) -> bool:
    """Return whether what a cover shows is tinted by the number of the track, and steady in time."""
    return getattr(cover, "look", "") == "track"


def tinted_spots(
    job: Job, boxes: Boxes, numbers: Sequence[int], fixed: Places, width: int, height: int
) -> list[Spot]:
    """Return the regions of a frame whose fill is tinted by the number of their track."""
    spots = []
    for index, label in enumerate(boxes.labels):
        if is_tinted(job.cover_of(label)):
            spots += _spot(("track", numbers[index]), _region(job, boxes, index, width, height), fixed)
    return spots


def _region(job: Job, boxes: Boxes, index: int, width: int, height: int) -> NDArray[np.int32]:
    one = np.arange(len(boxes)) == index
    return regions_of(boxes.keep(one), job.settings, width, height)


def _spot(key: Key, rectangles: NDArray[np.int32], fixed: Places) -> list[Spot]:
    if not len(rectangles):
        return []
    extent = np.concatenate([rectangles[:, :2].min(axis=0), rectangles[:, 2:].max(axis=0)])
    return [Spot(key, extent, without(rectangles, fixed.kept))]


def others(job: Job, boxes: Boxes, fixed: Places) -> tuple[Boxes, Places]:
    """Return what is left for the covers that draw no noise."""
    plain = [not isinstance(job.cover_of(label), DpPixelate) for label in boxes.labels]
    hidden = tuple(layer for layer in fixed.hidden if not isinstance(layer[0], DpPixelate))
    return boxes.keep(np.array(plain, bool)), replace(fixed, hidden=hidden)


def painter_of(
    spots: Sequence[Spot],
    looks: Mapping[Key, Look],
    *,
    cell: tuple[int, int] = (1, 1),
    opacity: float = 1.0,
    form: Form | None = None,
) -> tuple[Painter, NDArray[np.int32]]:
    """Return what paints the looks of some spots, and the rectangles to give it."""
    pieces = [spot.pieces for spot in spots]
    owners = tuple(number for number, spot in enumerate(spots) for _ in spot.pieces)
    extents = np.stack([spot.extent for spot in spots])
    # A look that is not there leaves grey: less is shown, never more.
    shown = [looks.get(spot.key, NEUTRAL) for spot in spots]
    return Painter(shown, extents, owners, cell, opacity, form), np.concatenate(pieces)


def tints(spots: Sequence[Spot]) -> dict[Key, Look]:
    """Return a plain colour for each track, from its number alone."""
    return {spot.key: tint(spot.key[1]) for spot in spots}


def tint(number: int) -> Look:
    """Return the colour of a track, by its number."""
    return Look(np.array(colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.75, 0.85)).reshape(1, 1, 3))
