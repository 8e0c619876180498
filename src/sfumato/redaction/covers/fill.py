"""Fill: the surroundings flow softly into the region; computed from outside pixels only.

Each hidden pixel is a mean of the pixels in a thin band around the region, weighted by the inverse square of
their distance. For a straight edge and for a disc that is the harmonic (soap film) surface through the
band: smooth everywhere, with detail of the band fading as it goes inwards. The sum is taken over a
pyramid, an octave of distances per level, so that its cost is linear in the region's area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover, Form, form_of
from sfumato.redaction.covers._pixels import Floats, float_type, resize, to_float

SUMMARY = "secure (default): the surroundings flow softly in; computed from outside pixels only"
NEEDS = ("cv2",)
EXTRA = ""
SECURE = True

Rectangle = tuple[int, int, int, int]

#: Pixels next to a region that the fill does not read, where others can be had: they blend into the inside
#: by upsampled chroma, ringing and soft focus, and would tint the fill.
GUARD = 2
#: The band that is read is this share of the region's shorter side wide, and at least two pixels.
BAND = 0.05
#: A region longer than this, in pixels, is computed on a coarser grid: the fill has no detail to lose.
GRID = 96


def build(*, feather: float = 0.0, look: str = "plain") -> Fill:
    """Build the cover.

    Args:
        feather: a soft edge around the region, as a share of its shorter side, 0..0.5; it lies outside, so
            with it pixels outside the regions change too.
        look: "plain", or "track": tinted by the number of the track, the same in all its frames.

    Raises:
        InvalidRequest: feather outside 0..0.5, or a look that is neither.
    """
    if not 0 <= feather <= 0.5:
        raise InvalidRequest(
            f"feather must lie in 0..0.5 (share of the region's shorter side), got {feather}"
        )
    if look not in ("plain", "track"):
        raise InvalidRequest(
            f"look must be 'plain' or 'track' (tinted by the number of the track), got {look!r}"
        )
    return Fill(float(feather), look=look)


class _Layer(NamedTuple):
    """One array that is covered, and its pixels per cell of the grid that the regions are given in."""

    pixels: NDArray[Any]
    cell: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Patch:
    """The surface of one group of regions, in cells from (x, y) on, and where in it they lie.

    Args:
        x, y: the first cell.
        values: one coarse picture for each channel of each layer.
        side: the shorter side of the group, in cells.
        hidden: the cells of the group.
    """

    x: int
    y: int
    values: list[Floats]
    side: int
    hidden: NDArray[np.bool_]


class Fill:
    """Hides regions under a smooth surface computed from pixels outside all of them."""

    name = "fill"
    secure = SECURE
    outlined = True

    def __init__(self, feather: float = 0.0, form: Form | None = None, look: str = "plain") -> None:
        self._feather, self._form, self.look = feather, form, look

    def suited(self, form: Form) -> Cover:
        """Return the cover whose neutral colour, for a picture with no outside, is right for this form."""
        return Fill(self._feather, form, self.look)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        boxes = np.asarray(regions, dtype=np.int64).reshape(-1, 4)
        self._cover([_Layer(pixels, (1, 1))], boxes, [self._form or form_of(pixels)])

    def apply_planes(
        self,
        planes: Sequence[NDArray[Any]],
        regions: NDArray[np.int32],
        cell: tuple[int, int],
        forms: Sequence[Form],
    ) -> None:
        """Hide `regions`, in chroma samples, in all planes of a frame, in place: one surface for all."""
        cells = [(1, 1) if index in (1, 2) else cell for index in range(len(planes))]
        layers = [_Layer(*one) for one in zip(planes, cells, strict=True)]
        self._cover(layers, regions.astype(np.int64), forms)

    def _cover(self, layers: Sequence[_Layer], boxes: NDArray[np.int64], forms: Sequence[Form]) -> None:
        groups = _groups(boxes, 2 * GUARD)
        bounds = [_bounds(group) for group in groups]
        # All surfaces are computed before the first is written, so no fill reads another.
        patches = [self._patch(layers, groups, bounds, number, forms) for number in range(len(groups))]
        for patch in patches:
            at = 0
            for layer in layers:
                count = 1 if layer.pixels.ndim == 2 else layer.pixels.shape[2]
                self._lay(layer, patch.values[at : at + count], boxes, patch)
                at += count

    def _patch(
        self,
        layers: Sequence[_Layer],
        groups: Sequence[NDArray[np.int64]],
        bounds: Sequence[Rectangle],
        number: int,
        forms: Sequence[Form],
    ) -> _Patch:
        """Compute the surface of regions that touch or nearly touch, from what surrounds them."""
        width, height = _size(layers)
        left, top, right, bottom = bounds[number]
        side = min(right - left, bottom - top)
        band = max(2, round(side * BAND))
        for guard in (GUARD, 0):
            reach = max(guard + band, round(side * self._feather))
            x1, y1 = max(0, left - reach), max(0, top - reach)
            x2, y2 = min(width, right + reach), min(height, bottom + reach)
            frame = (x1, y1, x2 - x1, y2 - y1)
            hidden = _mask(groups[number], frame, 0)
            known = _grown(hidden, guard + band) & ~_grown(hidden, guard)
            for other, around in enumerate(bounds):
                if other != number and _meets(around, (x1 - guard, y1 - guard, x2 + guard, y2 + guard)):
                    known &= ~_mask(groups[other], frame, guard)
            crop = [channel for layer in layers for channel in _cells(layer, frame)]
            for channel in crop:
                if channel.dtype.kind == "f":
                    known &= np.isfinite(channel)
            if known.any():
                return _Patch(x1, y1, _surface(crop, known), side, hidden)
        flat = [np.full((1, 1), value) for form in forms for value in _neutral(form)]
        return _Patch(x1, y1, flat, side, hidden)

    def _lay(self, layer: _Layer, values: Sequence[Floats], boxes: NDArray[np.int64], patch: _Patch) -> None:
        """Write the surface into the group's regions: all at once, as there may be many bands of a head."""
        (rows, columns), (wide, high) = patch.hidden.shape, layer.cell
        x, y, hidden = patch.x * wide, patch.y * high, patch.hidden
        view = layer.pixels[y : y + rows * high, x : x + columns * wide]
        size = (columns * wide, rows * high)
        if layer.cell != (1, 1):
            hidden = _enlarged(hidden, size)[: view.shape[0], : view.shape[1]]
        surface = [_fitted(one, size)[: view.shape[0], : view.shape[1]] for one in values]
        if self._feather:
            frame = (x, y, view.shape[1], view.shape[0])
            scaled = boxes * np.array([wide, high, wide, high])
            ramp = _ramp(hidden, round(patch.side * min(layer.cell) * self._feather))
            ramp[_mask(scaled, frame, 0)] = 0
            old = to_float(view)
            mixed = old + (np.stack(surface, axis=2) - old) * ramp[:, :, None]
            _write(view, [mixed[:, :, index] for index in range(mixed.shape[2])], ramp > 0)
        _write(view, surface, hidden)


def _size(layers: Sequence[_Layer]) -> tuple[int, int]:
    """Return the width and height of the grid of cells."""
    pixels, (wide, high) = layers[0]
    return -(-pixels.shape[1] // wide), -(-pixels.shape[0] // high)


def _cells(layer: _Layer, frame: Rectangle) -> list[NDArray[Any]]:
    """Return the channels of a part of a layer, (x, y, width, height) in cells: the mean of each cell."""
    import cv2

    (x, y, width, height), (wide, high) = frame, layer.cell
    crop = layer.pixels[y * high : (y + height) * high, x * wide : (x + width) * wide]
    if layer.cell != (1, 1):
        if crop.shape[:2] != (height * high, width * wide):  # the last cell is cut by the border
            missing = ((0, height * high - crop.shape[0]), (0, width * wide - crop.shape[1]))
            crop = np.pad(crop, missing, mode="edge")
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
    return [crop] if crop.ndim == 2 else [crop[:, :, index] for index in range(crop.shape[2])]


def _enlarged(hidden: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask of cells as one of pixels; `size` is (width, height)."""
    import cv2

    large: NDArray[np.bool_] = cv2.resize(hidden.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(
        bool
    )
    return large


def _fitted(values: Floats, size: tuple[int, int]) -> Floats:
    """Return a coarse picture at `size`, (width, height)."""
    import cv2

    if values.shape == size[::-1]:
        return values
    fitted: Floats = cv2.resize(values, size, interpolation=cv2.INTER_CUBIC)
    # A cubic overshoots, which a 10-bit plane has no room for.
    np.clip(fitted, values.min(), values.max(), out=fitted)
    return fitted


def _write(view: NDArray[Any], surface: Sequence[Floats], where: NDArray[np.bool_]) -> None:
    """Write the channels of a surface into a view, rounded to its type."""
    for index, one in enumerate(surface):
        rounded = np.rint(one) if view.dtype.kind in "ui" else one
        target = view if view.ndim == 2 else view[:, :, index]
        np.copyto(target, rounded.astype(view.dtype), where=where)


def _surface(crop: Sequence[NDArray[Any]], known: NDArray[np.bool_]) -> list[Floats]:
    """Return the inverse-square mean of the known pixels of each channel, at every pixel of a coarse grid."""
    import cv2

    height, width = known.shape
    dtype = float_type(crop[0].dtype)
    stack = np.zeros((height, width, len(crop) + 1), dtype)
    for index, channel in enumerate(crop):
        # Unknown pixels are never read: multiplied by zero, a NaN inside would still come through.
        np.copyto(stack[:, :, index], channel, where=known, casting="unsafe")
    stack[:, :, -1] = known
    step = max(1, -(-max(height, width) // GRID))
    if step > 1:
        stack = resize(stack, (-(-width // step), -(-height // step)), cv2.INTER_AREA)
    sums = [
        stack_sum
        for at in range(0, stack.shape[2], 4)
        for stack_sum in cv2.split(_spread(stack[:, :, at : at + 4]))
    ]
    return [one / sums[-1] for one in sums[:-1]]


def _spread(stack: Floats) -> Floats:
    """Return the sum of a stack seen through Gaussians of every octave: a kernel that falls as 1/d^2."""
    import cv2

    levels: list[Floats] = [np.ascontiguousarray(stack)]
    while max(levels[-1].shape[:2]) > 1:
        levels.append(cv2.pyrDown(levels[-1]))
    total = levels.pop()
    while levels:
        finer = levels.pop()
        total = cv2.pyrUp(total, dstsize=finer.shape[1::-1])
        total += finer.reshape(total.shape)
    return total.reshape(stack.shape)


def _mask(boxes: NDArray[np.int64], frame: Rectangle, grow: int) -> NDArray[np.bool_]:
    """Return where boxes, grown by some pixels, lie in a frame (x, y, width, height)."""
    x, y, width, height = frame
    mask = np.zeros((height, width), bool)
    corners = np.maximum(boxes - [x + grow, y + grow, x - grow, y - grow], 0)
    # Slices end at the border by themselves.
    for x1, y1, x2, y2 in corners[(corners[:, 2:] > 0).all(axis=1)].tolist():
        mask[y1:y2, x1:x2] = True
    return mask


def _grown(hidden: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return what lies within so many pixels along x and y of what is hidden."""
    import cv2

    if not by:
        return hidden
    square = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    grown: NDArray[np.bool_] = cv2.dilate(hidden.view(np.uint8), square).view(bool)
    return grown


def _groups(boxes: NDArray[np.int64], gap: int) -> list[NDArray[np.int64]]:
    """Return the boxes in groups that hang together: closer than `gap` pixels, directly or in a chain."""
    if not len(boxes):
        return []
    # The bands of a head come one after the other, so runs of neighbours are found first; few are left.
    breaks = np.flatnonzero(~_near(boxes[:-1], boxes[1:], gap)) + 1
    runs = [boxes[start:stop] for start, stop in pairwise([0, *breaks.tolist(), len(boxes)])]
    if len(runs) == 1:
        return runs
    around = [_bounds(run) for run in runs]
    group = list(range(len(runs)))
    for one, two in combinations(group, 2):
        left, top, right, bottom = around[two]
        if (
            group[one] != group[two]
            and _meets(around[one], (left - gap, top - gap, right + gap, bottom + gap))
            and _near(runs[one][:, None], runs[two][None], gap).any()
        ):
            old, new = sorted((group[one], group[two]))[::-1]
            group = [new if number == old else number for number in group]
    together: dict[int, list[NDArray[np.int64]]] = {}
    for number, run in zip(group, runs, strict=True):
        together.setdefault(number, []).append(run)
    return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in together.values()]


def _bounds(boxes: NDArray[np.int64]) -> Rectangle:
    """Return the smallest box around some boxes."""
    left, top = boxes[:, :2].min(axis=0).tolist()
    right, bottom = boxes[:, 2:].max(axis=0).tolist()
    return left, top, right, bottom


def _meets(one: Rectangle, two: Rectangle) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _near(one: NDArray[np.int64], two: NDArray[np.int64], gap: int) -> NDArray[np.bool_]:
    """Return whether boxes, (..., 4), lie closer to each other than `gap` pixels."""
    close = (one[..., :2] < two[..., 2:] + gap) & (two[..., :2] < one[..., 2:] + gap)
    return close[..., 0] & close[..., 1]


def _ramp(hidden: NDArray[np.bool_], width: int) -> NDArray[np.float32]:
    """Return 1 where hidden, falling smoothly to 0 over `width` pixels outside."""
    import cv2

    away = cv2.distanceTransform((~hidden).astype(np.uint8), cv2.DIST_L2, 5)
    share = np.clip(1 - away / (width + 1), 0, 1)
    ramp: NDArray[np.float32] = (share * share * (3 - 2 * share)).astype(np.float32)
    return ramp


def _neutral(form: Form) -> NDArray[np.float64]:
    """Return mid grey, opaque: what a picture without an outside is filled with."""
    shares = {"alpha": 1.0, "cyan": 0.0, "magenta": 0.0, "yellow": 0.0}
    values = np.array([shares.get(channel, 0.5) for channel in form.channels])
    return form.low + values * (form.high - form.low)
