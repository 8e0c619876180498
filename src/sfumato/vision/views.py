"""Looking at one picture at several scales and in tiles, so that both tiny and huge things are found.

A network sees things of a certain range of sizes, and its memory grows with its input. So a picture is looked
at in levels, each a fraction of the one before, and a level larger than one tile in tiles that overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.vision.boxes import Boxes, iou
from sfumato.vision.letterbox import scaled


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a network sees well, and how much work a picture is worth; lengths in pixels of its input.

    Args:
        tile: longest side of one input.
        overlap: tiles share at least this much; a thing no larger lies whole in one of them.
        largest: things up to this length are found.
        small: long side to which smaller pictures are enlarged, and that of the last level.
        slack: a picture whose long side is up to this many times `small` is looked at once.
        enlarge: no picture is enlarged by more than this.
        budget: a picture with more pixels than this is shrunk to it.
        fixed: the input has always the size of a tile, so that a scale that needs fewer of them is better.
        step: each level is this fraction of the one before.
    """

    tile: int
    overlap: int
    largest: int
    small: int
    slack: float = 1.0
    enlarge: float = float("inf")
    budget: float
    fixed: bool = False
    step: float = 1 / 3

    def scale(self, width: int, height: int, size: int | None = None) -> float:
        """Return input pixels per picture pixel at the finest level; `size` asks for a long side."""
        longest = max(width, height)
        if size is not None or longest <= self.small * self.slack:
            return min((size or self.small) / longest, self.enlarge)
        scale = min(1.0, math.sqrt(self.budget / (width * height)))
        return self._thrifty(width, height, scale) if self.fixed else scale

    def _thrifty(self, width: int, height: int, scale: float) -> float:
        """Return the scale, at most a quarter lower, that takes the fewest tiles; of equals the largest."""
        lengths = [self.tile + count * (self.tile - self.overlap) for count in range(64)]
        full = [length / side for side in (width, height) for length in lengths]
        options = [scale, *(one for one in full if 0.75 * scale <= one <= scale)]
        return min(options, key=lambda one: (self.tiles(width, one) * self.tiles(height, one), -one))

    def tiles(self, side: int, scale: float) -> int:
        """Return how many tiles a side of a picture takes."""
        length = scaled(side, scale)
        return 1 if length <= self.tile else math.ceil((length - self.overlap) / (self.tile - self.overlap))


@dataclass(frozen=True, slots=True)
class View:
    """One part of a picture, (x1, y1, x2, y2) in pixels, and the scale at which it is looked at.

    Args:
        window: the part.
        scale: input pixels per picture pixel.
        least: things with both sides below this, in picture pixels, belong to a finer level.
        inner: for left, top, right, bottom: true where another tile goes on.
    """

    window: tuple[int, int, int, int]
    scale: float
    least: float
    inner: tuple[bool, bool, bool, bool]


def views(width: int, height: int, scale: float, sight: Sight) -> Iterator[View]:
    """Yield what to look at, the finest level first, at `scale` input pixels per picture pixel."""
    least = 0.0
    while True:
        columns = _spans(width, scale, sight)
        rows = _spans(height, scale, sight)
        for top, bottom in rows:
            for left, right in columns:
                inner = (left > 0, top > 0, right < width, bottom < height)
                yield View((left, top, right, bottom), scale, least, inner)
        seen = sight.largest if len(columns) == len(rows) == 1 else sight.overlap
        if min(width, height) * scale <= seen:
            return
        least = 0.75 * seen / scale
        finer, scale = scale, scale * sight.step
        if sight.fixed and max(width, height) * scale <= sight.small * sight.slack:
            scale = min(sight.small / max(width, height), 0.9 * finer)


def _spans(side: int, scale: float, sight: Sight) -> list[tuple[int, int]]:
    """Cut a side into the fewest overlapping spans that fit a tile, in picture pixels."""
    count = sight.tiles(side, scale)
    if count == 1:
        return [(0, side)]
    most = math.floor(sight.tile / scale)
    length = (
        most if sight.fixed else min(most, math.ceil((side + (count - 1) * sight.overlap / scale) / count))
    )
    starts = [round(index * (side - length) / (count - 1)) for index in range(count)]
    return [(start, start + length) for start in starts]


#: Given a part of the picture and a scale, returns what is there, in pixels of the part.
Look = Callable[[NDArray[np.uint8], float], Boxes]


def scan(
    image: NDArray[np.uint8], scale: float, sight: Sight, look: Look, *, limit: float, distinct: bool = False
) -> Boxes:
    """Look at all views of a picture and merge what was found.

    Guarantee:
        Raising the score from which `look` returns boxes only takes away boxes below it: a box is dropped
        only for one that scores at least as high.

    Args:
        image: (height, width, 3) uint8.
        scale: input pixels per picture pixel at the finest level.
        sight: what the network sees well.
        look: runs the network on one view.
        limit: of boxes overlapping by more than this IoU, the best is kept.
        distinct: what `look` returns for one view has been through that already, best first.
    """
    height, width = image.shape[:2]
    parts: list[Boxes] = []
    cuts: list[NDArray[np.bool_]] = []
    for view in views(width, height, scale, sight):
        left, top, right, bottom = view.window
        found = look(image[top:bottom, left:right], view.scale).clip(right - left, bottom - top)
        sides = (found.xyxy[:, 2:] - found.xyxy[:, :2]).max(axis=1, initial=0)
        found = found.keep(sides >= view.least)
        cuts.append(_cut(found, view))
        shift = np.array([left, top, left, top], np.float32)
        parts.append(Boxes(found.xyxy + shift, found.scores, found.labels))
    if distinct and len(parts) == 1:
        return parts[0].clip(width, height)
    return _merge(Boxes.concat(parts), np.concatenate(cuts), limit).clip(width, height)


def _cut(found: Boxes, view: View) -> NDArray[np.bool_]:
    """Return which boxes, in pixels of the view, end at a border where another tile goes on."""
    width, height = view.window[2] - view.window[0], view.window[3] - view.window[1]
    near = 4 / view.scale
    gaps = np.stack(
        [found.xyxy[:, 0], found.xyxy[:, 1], width - found.xyxy[:, 2], height - found.xyxy[:, 3]], axis=1
    )
    result: NDArray[np.bool_] = ((gaps <= near) & np.array(view.inner)).any(axis=1)
    return result


def _merge(boxes: Boxes, cut: NDArray[np.bool_], limit: float) -> Boxes:
    """Drop doubles, and pieces cut by a tile's border that a whole box of at least their score covers."""
    xyxy, scores = boxes.xyxy, boxes.scores
    kinds = np.unique(np.array(boxes.labels, dtype=object), return_inverse=True)[1]
    areas = np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1)
    gone = np.zeros(len(boxes), dtype=bool)
    kept = np.zeros(len(boxes), dtype=bool)
    for index in np.argsort(-scores, kind="stable"):
        if gone[index]:
            continue
        kept[index] = True
        doubles = iou(xyxy[index : index + 1], xyxy)[0] > limit
        if not cut[index]:
            corner = np.maximum(xyxy[:, :2], xyxy[index, :2])
            common = np.prod((np.minimum(xyxy[:, 2:], xyxy[index, 2:]) - corner).clip(0), axis=1)
            doubles |= cut & (common >= 0.8 * areas)
        gone |= doubles & (kinds == kinds[index])
    order = np.argsort(-scores, kind="stable")
    order = order[kept[order]]
    return Boxes(xyxy[order], scores[order], tuple(boxes.labels[i] for i in order))
