"""Grids: sums of levels inside regions, noise on them, and mosaics painted from what comes out.

Every sample (a pixel's brightness, or one sample of Cb or Cr) is a whole number of 0..255 and is counted in
one sum at most, also where regions overlap. So inputs that differ in m pixels have, in each channel, sums
that differ by 255 m at most, in all regions together; nothing is divided or rounded before the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover, Form
from sfumato.redaction.covers._colours import painted

if TYPE_CHECKING:
    from sfumato.redaction.covers.dp_pixelate import DpPixelate

Levels = NDArray[np.uint8]
#: Given a region, returns its samples as levels: brightness, or brightness, Cb and Cr.
Read = Callable[[NDArray[np.int32]], list[Levels]]
Looks = Sequence["Look"]

#: A region has only so many cells that the noise of a cell's brightness has a scale of so many levels.
MOST_NOISE = 24


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What a region shows: colours of a grid.

    Args:
        rgb: (rows, columns, 3) float64, 0..1.
    """

    rgb: NDArray[np.float64]


#: Mid grey: what a region without a grid shows.
NEUTRAL = Look(np.full((1, 1, 3), 0.5))


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one region: what noise is added to.

    Args:
        values: per channel, (rows, columns) int64 sums of levels; chroma has one cell.
        counts: per channel, the samples in each cell.
    """

    values: tuple[NDArray[np.int64], ...]
    counts: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The levels that stand for none and all of brightness and of chroma."""

    luma: tuple[float, float] = (0.0, 255.0)
    chroma: tuple[float, float] = (0.5, 255.5)  # neutral at 128, as `levels_of` and JPEG have it


LIMITED = Range((16.0, 235.0), (16.0, 240.0))
FULL = Range((0.0, 255.0), (1.0, 255.0))


def cells_of(cover: DpPixelate, width: int, height: int, channels: int) -> tuple[int, int]:
    """Return rows and columns of a region's grid; its size and the cover's settings decide, and no pixel.

    Args:
        width, height: of the region, in pixels.
        channels: 1 or 3.
    """
    least = cover.scale(channels, 0) / MOST_NOISE  # pixels in a cell
    for longer in range(min(cover.grid, max(width, height)), 1, -1):
        shorter = max(1, round(longer * min(width, height) / max(width, height)))
        if longer * shorter * least <= width * height:
            return (shorter, longer) if width >= height else (longer, shorter)
    return 1, 1


def sums_of(
    cover: DpPixelate, read: Read, regions: NDArray[np.int32], size: tuple[int, int], cell: tuple[int, int]
) -> list[Sums]:
    """Return the sums of regions of one frame or picture.

    Guarantee:
        Frames that differ in at most m pixels give sums that differ, over all regions, by at most 255 m in
        each channel: a sample has one level of 0..255 and lies in one sum at most.

    Args:
        read: gives the levels of a region.
        regions: (n, 4) int32, inside the frame; the first that holds a sample counts it.
        size: (width, height) of the frame.
        cell: pixels per chroma sample along x and y.
    """
    width, height = size
    chroma = (-(-height // cell[1]), -(-width // cell[0]))
    free = [np.ones((height, width), bool), np.ones(chroma, bool)]
    done = []
    for region in regions:
        planes = read(region)
        x1, y1, x2, y2 = (int(value) for value in region)
        values, counts = [], []
        for index, plane in enumerate(planes):
            box = (x1, y1, x2, y2) if index == 0 else in_chroma((x1, y1, x2, y2), cell)
            part = free[min(index, 1)][box[1] : box[3], box[0] : box[2]]
            rows, columns = cells_of(cover, x2 - x1, y2 - y1, len(planes)) if index == 0 else (1, 1)
            where = _cell_numbers(plane.shape[0], plane.shape[1], rows, columns)[part]
            total = np.zeros(rows * columns, np.int64)
            np.add.at(total, where, plane[part].astype(np.int64))
            values.append(total.reshape(rows, columns))
            counts.append(np.bincount(where, minlength=rows * columns).reshape(rows, columns))
        free[0][y1:y2, x1:x2] = False
        cx1, cy1, cx2, cy2 = in_chroma((x1, y1, x2, y2), cell)
        free[1][cy1:cy2, cx1:cx2] = False
        done.append(Sums(tuple(values), tuple(counts)))
    return done


def in_chroma(box: tuple[int, int, int, int], cell: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box of luma pixels in chroma samples, rounded outwards."""
    return box[0] // cell[0], box[1] // cell[1], -(-box[2] // cell[0]), -(-box[3] // cell[1])


def noisy_sums(cover: DpPixelate, sums: Sequence[Sums]) -> list[Sums]:
    """Return sums with noise, drawn once on each: what is released. All that follows reads nothing else.

    Guarantee:
        Epsilon-differentially private for frames that differ in at most `cover.pixels` pixels: see `sums_of`.

    Raises:
        InvalidRequest: no permit gives noise.
    """
    if cover.noise is None:
        raise InvalidRequest(
            "dp-pixelate draws its noise through a permit, in the process that holds it: hide by redact, "
            "Redactor or redact_files inside a project, with the local engine"
        )
    noisy: dict[tuple[int, int], NDArray[np.int64]] = {}
    for channels in sorted({len(one.values) for one in sums}):
        mine = [number for number, one in enumerate(sums) if len(one.values) == channels]
        for index in range(channels):
            flat = np.concatenate([sums[number].values[index].ravel() for number in mine])
            flat = cover.noise.add(flat, cover.scale(channels, index))
            edges = np.cumsum([sums[number].values[index].size for number in mine])[:-1]
            noisy |= {(number, index): part for number, part in zip(mine, np.split(flat, edges), strict=True)}
    return [
        Sums(
            tuple(noisy[number, index].reshape(values.shape) for index, values in enumerate(one.values)),
            one.counts,
        )
        for number, one in enumerate(sums)
    ]


def looks_of_sums(cover: DpPixelate, sums: Sequence[Sums], levels: Range) -> list[Look]:
    """Return what regions show, given their sums without noise.

    Raises:
        InvalidRequest: no permit gives noise.
    """
    looks = []
    for one in noisy_sums(cover, sums):
        means = [values / np.maximum(count, 1) for values, count in zip(one.values, one.counts, strict=True)]
        means[0][one.counts[0] == 0] = sum(levels.luma) / 2
        for mean, count in zip(means[1:], one.counts[1:], strict=True):
            mean[count == 0] = sum(levels.chroma) / 2
        looks.append(Look(_colours(means, levels)))
    return looks


def looks_in_picture(
    cover: DpPixelate, pixels: NDArray[Any], form: Form, regions: NDArray[np.int32]
) -> list[Look]:
    """Return what the regions of one picture show; each has a grid of its own.

    Args:
        pixels: (height, width[, channels]).
        form: what its numbers mean: grey, RGB or CMYK, with or without alpha.
        regions: (n, 4) int32, inside the picture.
    """

    def read(region: NDArray[np.int32]) -> list[Levels]:
        x1, y1, x2, y2 = region
        return levels_of(pixels[y1:y2, x1:x2], form)

    height, width = pixels.shape[:2]
    return looks_of_sums(cover, sums_of(cover, read, regions, (width, height), (1, 1)), Range())


def levels_of(part: NDArray[Any], form: Form) -> list[Levels]:
    """Return the levels of a picture: brightness, and where it has colours Cb and Cr; pixel by pixel.

    Raises:
        InvalidRequest: channels that are neither grey, RGB nor CMYK.
    """
    shaped = part[:, :, None] if part.ndim == 2 else part
    at = {channel: index for index, channel in enumerate(form.channels)}

    def level(channel: Any) -> NDArray[np.int64]:
        values: NDArray[Any] = shaped[:, :, at[channel]]
        if values.dtype == np.uint8 and (form.low, form.high) == (0, 255):
            return values.astype(np.int64)
        share = (np.nan_to_num(values.astype(np.float64)) - form.low) / (form.high - form.low)
        whole: NDArray[np.int64] = np.floor(share.clip(0, 1) * 255).astype(np.int64)
        return whole

    if at.keys() >= {"red", "green", "blue"}:
        red, green, blue = level("red"), level("green"), level("blue")
    elif at.keys() >= {"cyan", "magenta", "yellow", "key"}:
        key = 255 - level("key")
        red, green, blue = ((255 - level(ink)) * key // 255 for ink in ("cyan", "magenta", "yellow"))
    elif "grey" in at:
        return [level("grey").astype(np.uint8)]
    else:
        raise InvalidRequest(f"dp-pixelate takes grey, RGB and CMYK pictures, got {form.channels}")
    luma = (299 * red + 587 * green + 114 * blue) // 1000
    cb = 128 + (-168736 * red - 331264 * green + 500000 * blue) // 10**6
    cr = 128 + (500000 * red - 418688 * green - 81312 * blue) // 10**6
    return [plane.clip(0, 255).astype(np.uint8) for plane in (luma, cb, cr)]


def _cell_numbers(height: int, width: int, rows: int, columns: int) -> NDArray[np.int64]:
    """Return the number of the cell that each of (height, width) samples lies in."""
    return _cells(np.arange(height), 0, height, rows)[:, None] * columns + _cells(
        np.arange(width), 0, width, columns
    )


def _cells(places: NDArray[np.integer], start: int, stop: int, count: int) -> NDArray[np.int64]:
    """Return which of `count` equal parts of start..stop each place lies in; those outside, the nearest."""
    numbers: NDArray[np.int64] = (places.astype(np.int64) - start) * count // (stop - start)
    return numbers.clip(0, count - 1)


def _colours(means: list[NDArray[np.float64]], levels: Range) -> NDArray[np.float64]:
    """Return mean levels as colours of 0..1."""
    low, high = levels.luma
    grey = (means[0] - low) / (high - low)
    if len(means) == 1:
        return np.repeat(grey.clip(0, 1)[:, :, None], 3, axis=2)
    low, high = levels.chroma
    cb, cr = ((mean - low) / (high - low) - 0.5 for mean in means[1:])
    red, blue = grey + 1.402 * cr, grey + 1.772 * cb
    green = (grey - 0.299 * red - 0.114 * blue) / 0.587
    return np.stack([red, green, blue], axis=2).clip(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Painter:
    """Paints looks over regions, each stretched to the region it is of; it reads nothing but them.

    Args:
        looks: one for each extent.
        extents: (n, 4) int32, in pixels of the whole frame: what each look is stretched to.
        owners: for each region that `apply` is given, which extent it is a part of; empty: one to one.
        cell: pixels per chroma sample along x and y.
        opacity: 1: what is below is gone; less: it is tinted.
        form: what the numbers of the picture mean.
    """

    looks: Looks
    extents: NDArray[np.int32]
    owners: tuple[int, ...] = ()
    cell: tuple[int, int] = (1, 1)
    opacity: float = 1.0
    form: Form | None = None
    name: str = "painter"
    secure: bool = False

    def suited(self, form: Form) -> Cover:
        """Return the painter for a picture or plane of this form."""
        return replace(self, form=form)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Paint `regions` of `pixels`, in place; where they overlap, the first lies on top."""
        assert self.form is not None
        chroma = self.form.channels[0] in ("cb", "cr")
        for number in range(len(regions) - 1, -1, -1):
            owner = self.owners[number] if self.owners else number
            left, top, right, bottom = (int(value) for value in self.extents[owner])
            if chroma:
                left, top, right, bottom = in_chroma((left, top, right, bottom), self.cell)
            x1, y1, x2, y2 = (int(value) for value in regions[number])
            colours = painted(self.looks[owner].rgb, self.form)
            rows = _cells(np.arange(y1, y2), top, bottom, colours.shape[0])
            columns = _cells(np.arange(x1, x2), left, right, colours.shape[1])
            _lay(pixels[y1:y2, x1:x2], colours[rows[:, None], columns], self.opacity)


def _lay(view: NDArray[Any], colours: NDArray[np.float64], opacity: float) -> None:
    """Write colours into a view, or mix them in."""
    if view.ndim == 2:
        colours = colours[:, :, 0]
    if opacity < 1:
        colours = view + (colours - view) * opacity
    if view.dtype.kind in "ui":
        limits = np.iinfo(view.dtype)
        colours = np.rint(colours).clip(limits.min, limits.max)
    view[...] = colours.astype(view.dtype)
