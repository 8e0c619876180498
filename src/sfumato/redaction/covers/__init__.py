"""Covers: how a region is hidden; one file each, found by name.

A cover module has the four things of a plugin, and `SECURE`: True when nothing that was inside the region
can be told from what it leaves there (beyond the region's own place and size), False when it is cosmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

CATALOGUE = Catalogue("cover", "sfumato.redaction.covers", "sfumato.covers")

Channel = Literal["grey", "red", "green", "blue", "cyan", "magenta", "yellow", "key", "alpha", "cb", "cr"]


#: channels -> what they hold when nobody says otherwise.
FORMS: dict[int, tuple[Channel, ...]] = {
    1: ("grey",),
    2: ("grey", "alpha"),
    3: ("red", "green", "blue"),
    4: ("red", "green", "blue", "alpha"),
}

#: What the planes of a YUV frame hold, in order.
PLANES: tuple[Channel, ...] = ("grey", "cb", "cr", "alpha")


@runtime_checkable
class Cover(Protocol):
    """Hides regions of one plane or picture, in place.

    A cover that paints values of its own (a colour, a neutral grey) may also have a method
    `suited(form: Form) -> Cover`, which returns the cover that paints them right in that form of picture.
    One that may be given a region in several pieces that touch, to follow the outline of a head, has
    `outlined = True`; others get each region in one piece.
    One that works on all planes of a frame at once, at less than the work of each by itself, has a method
    `apply_planes(planes, regions, cell, forms)`: regions in chroma samples, and luma pixels per sample.
    One that reads a file has `options`, its settings as a receipt may show them: the file by its hash.
    One that draws noise (dp-pixelate) is laid by the room itself, one grid per track: its `suited` refuses.
    """

    @property
    def name(self) -> str:
        """As it is found in the catalogue."""
        ...

    @property
    def secure(self) -> bool:
        """SECURE of its module."""
        ...

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place.

        Args:
            pixels: (height, width) or (height, width, channels), any unsigned integer or float type; a colour
                picture or a single plane of a video frame (luma, chroma), of any bit depth.
            regions: (n, 4) int32; x1, y1, x2, y2 in pixels, half open, inside the picture, x1 < x2, y1 < y2.
                They may overlap each other and touch the border.
        """
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """What the numbers of a picture or plane mean.

    Args:
        channels: what each channel holds, in order.
        low, high: the values of none and of all of it; for "cb" and "cr" the ends of the chroma range.
    """

    channels: tuple[Channel, ...]
    low: float = 0.0
    high: float = 255.0


def form_of(pixels: NDArray[Any]) -> Form:
    """Return the form of an array nobody described: grey, grey + alpha, RGB or RGBA, in full range."""
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    grey: Channel = "grey"
    channels = FORMS.get(count, (grey,) * count)
    whole = np.issubdtype(pixels.dtype, np.integer)
    return Form(channels, 0.0, float(np.iinfo(pixels.dtype).max) if whole else 1.0)


def suited(cover: Cover, form: Form) -> Cover:
    """Return the cover for pictures of this form: its own `suited(form)`, or the cover as it is."""
    adapt = getattr(cover, "suited", None)
    result: Cover = cover if adapt is None else adapt(form)
    return result


def apply_yuv(
    cover: Cover,
    planes: Sequence[NDArray[Any]],
    regions: NDArray[np.int32],
    *,
    subsampling: tuple[int, int],
    bits: int = 8,
    full_range: bool = False,
    interlaced: bool = False,
) -> None:
    """Hide regions of a planar video frame, in place, so that no chroma sample of the inside survives.

    Every region is widened to whole chroma cells before luma and chroma are covered, so up to one cell
    around a region changes too.

    Args:
        cover: a cover of the catalogue.
        planes: luma; or luma, Cb, Cr; or these and alpha: (height, width) each, chroma divided by
            `subsampling` and rounded up. Alpha has luma's size.
        regions: (n, 4) int32 in luma pixels; x1, y1, x2, y2, half open, inside the picture.
        subsampling: luma pixels per chroma sample along x and y: (2, 2) for 4:2:0, (2, 1) for 4:2:2,
            (1, 1) for 4:4:4, (4, 1) for 4:1:1.
        bits: bits used of each sample, from 8 to 16; the value lies in the low bits.
        full_range: luma uses 0..2^bits-1 ("pc", yuvj) instead of 16..235 scaled.
        interlaced: the lines of two fields alternate, so a chroma cell is twice as tall.

    Raises:
        InvalidRequest: number, size or bit depth of the planes cannot be.
    """
    height, width = planes[0].shape[:2] if planes else (0, 0)
    sx, sy = subsampling
    chroma_shape = (-(-height // sy), -(-width // sx))
    shapes = [(height, width), chroma_shape, chroma_shape, (height, width)][: len(planes)]
    if len(planes) not in (1, 3, 4) or [plane.shape for plane in planes] != shapes or not 8 <= bits <= 16:
        raise InvalidRequest(
            f"a YUV frame has 1, 3 or 4 planes of 8..16 bits, chroma divided by {subsampling}: "
            f"got {[plane.shape for plane in planes]} with {bits} bits"
        )
    if not len(regions):
        return
    cell_y = sy * 2 if interlaced and sy > 1 else sy
    cells = widened(regions, (sx, cell_y), (width, height)) if len(planes) > 1 else regions
    chroma = cells.copy()
    chroma[:, 0::2] = -(-cells[:, 0::2] // sx)
    chroma[:, 1::2] = -(-cells[:, 1::2] // sy)
    forms = [_plane_form(index, bits, full_range) for index in range(len(planes))]
    together = getattr(cover, "apply_planes", None)
    if together is not None and len(planes) > 2:
        together(planes, chroma, subsampling, forms)
        return
    for index, (plane, form) in enumerate(zip(planes, forms, strict=True)):
        suited(cover, form).apply(plane, chroma if index in (1, 2) else cells)


def widened(regions: NDArray[np.int32], cell: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int32]:
    """Return regions grown outwards to multiples of `cell` (x, y), cut to `size` (width, height)."""
    step = np.array(cell, np.int32)
    low = regions[:, :2] // step * step
    high = np.minimum(-(-regions[:, 2:] // step) * step, np.array(size, np.int32))
    return np.concatenate([low, high], axis=1).astype(np.int32)


def _plane_form(index: int, bits: int, full_range: bool) -> Form:
    scale = 2.0 ** (bits - 8)
    channel = PLANES[index]
    if channel == "alpha" or (full_range and channel == "grey"):
        return Form((channel,), 0.0, 2.0**bits - 1)
    if full_range:
        return Form((channel,), 1.0, 2.0**bits - 1)
    return Form((channel,), 16 * scale, (235 if channel == "grey" else 240) * scale)
