"""A picture and its boxes, moved, scaled, flipped and coloured: each by itself, or beside public pictures.

Everything random about one picture comes from a stream of its own, keyed by the picture, the step and the
view: no other picture of the batch has a part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.training.detect.stream import Stream
from sfumato.vision.letterbox import GREY
from sfumato.vision.opencv import opencv

#: A box that moved out of the picture stays while this share of it is seen, and it has these many pixels.
_SEEN, _SMALLEST = 0.1, 2.0


@dataclass(frozen=True, slots=True)
class Augment:
    """What may happen to a picture; the defaults are Ultralytics' own, but no private pictures are mixed.

    >>> Augment(scale=0.25).flip
    0.5

    Args:
        hue, saturation, value: largest change of the colour, as shares.
        translate: largest move, as a share of the side.
        scale: largest change of size, as a share.
        flip: probability of a mirror image.
        mosaic: probability that the picture is set beside three PUBLIC ones; needs them.
    """

    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    translate: float = 0.1
    scale: float = 0.5
    flip: float = 0.5
    mosaic: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            given = getattr(self, one.name)
            if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= 1:
                raise InvalidRequest(f"augmentation: {one.name} must lie in 0..1, got {given!r}")
        if self.scale >= 1:
            raise InvalidRequest(f"augmentation: scale must be below 1, got {self.scale!r}")


NONE = Augment(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Marked:
    """A picture with its boxes.

    Args:
        pixels: (height, width, 3) uint8, RGB.
        classes: (n,) int64.
        boxes: (n, 4) float64, x1 y1 x2 y2 in its pixels.
    """

    pixels: NDArray[np.uint8]
    classes: NDArray[np.int64]
    boxes: NDArray[np.float64]


def shown(
    picture: Marked, side: int, how: Augment, stream: Stream, partners: Sequence[Marked] = ()
) -> Marked:
    """Return the picture on a square canvas, changed at random.

    Args:
        picture: as it was read.
        side: of the canvas, in pixels.
        how: what may happen.
        stream: the picture's own stream.
        partners: three public pictures; none: the picture stands alone.
    """
    parts = [picture, *partners]
    if len(parts) > 1:
        seats = [parts[index] for index in stream.order(len(parts))]
        centre = stream.uniform(0.5, 1.5, 2) * side
        base, offset = 2 * side, np.array([-side, -side], float)
    else:
        seats, centre, base, offset = parts, np.zeros(2), side, np.array([-side / 2, -side / 2])
    zoom, tossed = 1 + how.scale * stream.uniform(-1, 1, 1)[0], stream.uniform(0, 1, 1)[0]
    mirror = -1.0 if tossed < how.flip else 1.0
    move = (0.5 + stream.uniform(-how.translate, how.translate, 2)) * side
    # canvas = zoom * (place - middle) + move, per axis
    gain = np.array([zoom * mirror, zoom])
    shift = gain * offset + move
    pixels = np.full((side, side, 3), GREY, np.uint8)
    kinds, places = [], []
    for seat, one in enumerate(seats):
        scale, corner = _seat(one.pixels.shape, side, seat, centre) if len(seats) > 1 else _alone(one, side)
        window = _window(seat, centre, base) if len(seats) > 1 else None
        _paint(pixels, one.pixels, gain * scale, gain * corner + shift, window, gain, shift)
        boxes, kept = _moved(one.boxes, scale, corner, window, gain, shift, side)
        kinds.append(one.classes[kept])
        places.append(boxes)
    pixels = _coloured(pixels, how, stream)
    return Marked(pixels, np.concatenate(kinds), np.concatenate(places))


def _alone(one: Marked, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and corner that set a picture in the middle of the canvas."""
    height, width = one.pixels.shape[:2]
    ratio = min(side / width, side / height)
    new = np.maximum(np.round(np.array([width, height]) * ratio), 1)
    return new / np.array([width, height]), np.floor((side - new) / 2)


def _seat(
    shape: tuple[int, ...], side: int, seat: int, centre: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and corner of a picture in a mosaic: one of its corners touches the centre."""
    height, width = shape[:2]
    ratio = min(side / width, side / height)
    new = np.array([width, height]) * ratio
    corner = centre - new * np.array([seat % 2 == 0, seat < 2], float)
    return np.full(2, ratio), corner


def _window(seat: int, centre: NDArray[np.float64], base: int) -> NDArray[np.float64]:
    """Return the part of the mosaic that a seat may fill: x1 y1 x2 y2."""
    low = np.where([seat % 2 == 0, seat < 2], 0.0, centre)
    high = np.where([seat % 2 == 0, seat < 2], centre, float(base))
    return np.concatenate((low, high))


def _paint(
    canvas: NDArray[np.uint8],
    pixels: NDArray[np.uint8],
    gain: NDArray[np.float64],
    shift: NDArray[np.float64],
    window: NDArray[np.float64] | None,
    outer: NDArray[np.float64],
    move: NDArray[np.float64],
) -> None:
    """Warp a picture onto the canvas, inside its window of the mosaic."""
    cv2 = opencv()
    side = canvas.shape[0]
    # Half a pixel: the middle of pixel 0 lies at 0.5 of the scale that boxes are measured on.
    matrix = np.array(
        [[gain[0], 0, shift[0] + (gain[0] - 1) / 2], [0, gain[1], shift[1] + (gain[1] - 1) / 2]]
    )
    small = float(np.abs(gain).min())
    if small < 0.5:  # bilinear looks at four pixels only; shrink by areas first
        new = [max(1, round(length * small * 1.5)) for length in (pixels.shape[1], pixels.shape[0])]
        ratio = np.array([new[0] / pixels.shape[1], new[1] / pixels.shape[0]])
        pixels = np.asarray(cv2.resize(pixels, tuple(new), interpolation=cv2.INTER_AREA), np.uint8)
        matrix[:, :2] /= ratio
        matrix[:, 2] = shift + (np.diag(matrix[:, :2]) - 1) / 2
    grey = (GREY, GREY, GREY)
    painted = cv2.warpAffine(
        pixels, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=grey
    )
    if window is None:
        canvas[:] = painted
        return
    ends = np.sort(np.stack((outer * window[:2] + move, outer * window[2:] + move)), axis=0)
    (x1, y1), (x2, y2) = np.clip(np.round(ends), 0, side).astype(int)
    canvas[y1:y2, x1:x2] = painted[y1:y2, x1:x2]


def _moved(
    boxes: NDArray[np.float64],
    scale: NDArray[np.float64],
    corner: NDArray[np.float64],
    window: NDArray[np.float64] | None,
    gain: NDArray[np.float64],
    shift: NDArray[np.float64],
    side: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the boxes on the canvas that are still to be seen, and which these are."""
    placed = boxes * np.tile(scale, 2) + np.tile(corner, 2)
    whole = np.abs(np.prod((placed[:, 2:] - placed[:, :2]) * gain, axis=1))
    if window is not None:
        placed = np.clip(placed, np.tile(window[:2], 2), np.tile(window[2:], 2))
    placed = placed * np.tile(gain, 2) + np.tile(shift, 2)
    low = np.clip(np.minimum(placed[:, :2], placed[:, 2:]), 0, side)
    high = np.clip(np.maximum(placed[:, :2], placed[:, 2:]), 0, side)
    sides = high - low
    kept = (sides >= _SMALLEST).all(axis=1) & (np.prod(sides, axis=1) >= _SEEN * whole)
    return np.concatenate((low, high), axis=1)[kept], kept


def _coloured(pixels: NDArray[np.uint8], how: Augment, stream: Stream) -> NDArray[np.uint8]:
    """Return the picture with hue, saturation and value changed by one factor each."""
    hue, saturation, value = 1 + stream.uniform(-1, 1, 3) * (how.hue, how.saturation, how.value)
    if not (how.hue or how.saturation or how.value):
        return pixels
    cv2 = opencv()
    levels = np.arange(256, dtype=np.float64)
    tables = [(levels * hue) % 180, np.clip(levels * saturation, 0, 255), np.clip(levels * value, 0, 255)]
    channels = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    changed = [cv2.LUT(one, table.astype(np.uint8)) for one, table in zip(channels, tables, strict=True)]
    return np.asarray(cv2.cvtColor(cv2.merge(changed), cv2.COLOR_HSV2RGB), np.uint8)
