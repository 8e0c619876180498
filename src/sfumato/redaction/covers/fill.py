"""Fill: the surroundings flow softly into the region; computed from outside pixels only.

Each hidden pixel is a mean of the pixels in a thin band around the region, weighted by the inverse square of
their distance. For a straight edge and for a disc that is the harmonic (soap film) surface through the
band: smooth everywhere, with detail of the band fading as it goes inwards. The sum is taken over a
pyramid, an octave of distances per level, so that its cost is linear in the region's area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover, Form, form_of
from sfumato.redaction.covers._pixels import Floats, float_type, put, resize, to_float

SUMMARY = "secure (default): the surroundings flow softly in; computed from outside pixels only"
NEEDS = ("cv2",)
EXTRA = ""
SECURE = True

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


@dataclass(frozen=True, slots=True)
class _Patch:
    """The surface of one group of regions over a crop that starts at (x, y), and where in it they lie."""

    x: int
    y: int
    values: Floats
    members: NDArray[np.int64]
    hidden: NDArray[np.bool_]


class Fill:
    """Hides regions under a smooth surface computed from pixels outside all of them."""

    name = "fill"
    secure = SECURE
    outlined = True
    joint = True

    def __init__(self, feather: float = 0.0, form: Form | None = None, look: str = "plain") -> None:
        self._feather, self._form, self.look = feather, form, look

    def suited(self, form: Form) -> Cover:
        """Return the cover whose neutral colour, for a picture with no outside, is right for this form."""
        return Fill(self._feather, form, self.look)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        boxes = np.asarray(regions, dtype=np.int64).reshape(-1, 4)
        # All surfaces are computed before the first is written, so no fill reads another.
        groups = _groups(boxes, 2 * GUARD)
        patches = [self._patch(pixels, np.delete(boxes, group, axis=0), boxes[group]) for group in groups]
        for patch in patches:
            if self._feather:
                self._soften(pixels, boxes, patch)
            self._lay(pixels, patch)

    def _lay(self, pixels: NDArray[Any], patch: _Patch) -> None:
        """Write the surface into the group's regions: all at once, as there may be many bands of a head."""
        height, width = patch.values.shape[:2]
        view = pixels[patch.y : patch.y + height, patch.x : patch.x + width]
        surface = np.empty_like(view)
        put(surface, patch.values)
        hidden = patch.hidden if view.ndim == 2 else patch.hidden[:, :, None]
        np.copyto(view, surface, where=hidden)

    def _patch(self, pixels: NDArray[Any], others: NDArray[np.int64], members: NDArray[np.int64]) -> _Patch:
        """Compute the surface of regions that touch or nearly touch, from what surrounds them."""
        height, width = pixels.shape[:2]
        side = int(np.min(members[:, 2:].max(axis=0) - members[:, :2].min(axis=0)))
        band = max(2, round(side * BAND))
        for guard in (GUARD, 0):
            reach = max(guard + band, round(side * self._feather))
            x1, y1 = (max(0, int(value) - reach) for value in members[:, :2].min(axis=0))
            x2 = min(width, int(members[:, 2].max()) + reach)
            y2 = min(height, int(members[:, 3].max()) + reach)
            frame = (x1, y1, x2 - x1, y2 - y1)
            hidden = _mask(members, frame, 0)
            known = _grown(hidden, guard + band) & ~(_grown(hidden, guard) | _mask(others, frame, guard))
            crop = pixels[y1:y2, x1:x2]
            if crop.dtype.kind == "f":
                known &= np.isfinite(crop) if crop.ndim == 2 else np.isfinite(crop).all(axis=2)
            if known.any():
                return _Patch(x1, y1, _surface(crop, known), members, hidden)
        flat = np.empty((*crop.shape[:2], 1 if crop.ndim == 2 else crop.shape[2]))
        flat[...] = _neutral(self._form or form_of(pixels))
        return _Patch(x1, y1, flat, members, hidden)

    def _soften(self, pixels: NDArray[Any], boxes: NDArray[np.int64], patch: _Patch) -> None:
        """Blend the surface into the pixels outside, less and less away from the group."""
        height, width = patch.values.shape[:2]
        frame = (patch.x, patch.y, width, height)
        side = int(np.min(patch.members[:, 2:].max(axis=0) - patch.members[:, :2].min(axis=0)))
        ramp = _ramp(patch.hidden, round(side * self._feather))
        ramp[_mask(boxes, frame, 0)] = 0
        view = pixels[patch.y : patch.y + height, patch.x : patch.x + width]
        old = to_float(view)
        mixed = np.empty_like(view)
        put(mixed, old + (patch.values - old) * ramp[:, :, None])
        touched = ramp > 0
        np.copyto(view, mixed, where=touched if view.ndim == 2 else touched[:, :, None])


def _surface(crop: NDArray[Any], known: NDArray[np.bool_]) -> Floats:
    """Return the inverse-square mean of the known pixels at every pixel of the crop."""
    import cv2

    height, width = known.shape
    shaped = crop[:, :, None] if crop.ndim == 2 else crop
    values = np.zeros(shaped.shape, float_type(crop.dtype))
    # Unknown pixels are never read: multiplied by zero, a NaN inside would still come through.
    np.copyto(values, shaped, where=known[:, :, None], casting="unsafe")
    stack: Floats = np.concatenate([values, known[:, :, None]], axis=2, dtype=values.dtype)
    step = max(1, -(-max(height, width) // GRID))
    if step > 1:
        stack = resize(stack, (-(-width // step), -(-height // step)), cv2.INTER_AREA)
    spread = np.concatenate([_spread(stack[:, :, at : at + 4]) for at in range(0, stack.shape[2], 4)], axis=2)
    mean: Floats = spread[:, :, :-1] / spread[:, :, -1:]
    if step > 1:
        low, high = mean.min(axis=(0, 1)), mean.max(axis=(0, 1))
        mean = resize(mean, (width, height), cv2.INTER_CUBIC)
        np.clip(mean, low, high, out=mean)  # a cubic overshoots, which a 10-bit plane has no room for
    return mean


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


def _mask(boxes: NDArray[np.int64], frame: tuple[int, int, int, int], grow: int) -> NDArray[np.bool_]:
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


def _groups(boxes: NDArray[np.int64], gap: int) -> list[NDArray[np.intp]]:
    """Return the indices of boxes that hang together: closer than `gap` pixels, directly or in a chain."""
    if not len(boxes):
        return []
    # The bands of a head come one after the other, so runs of neighbours are found first; few are left.
    follows = _near(boxes[:-1], boxes[1:], gap)
    starts = np.flatnonzero(np.concatenate([[True], ~follows]))
    runs = np.split(np.arange(len(boxes)), starts[1:])
    low, high = (
        np.minimum.reduceat(boxes[:, :2], starts, axis=0),
        np.maximum.reduceat(boxes[:, 2:], starts, axis=0),
    )
    around = np.concatenate([low, high], axis=1)
    group = list(range(len(runs)))
    near = np.triu(_near(around[:, None], around[None, :], gap), 1)
    for one, two in zip(*(places.tolist() for places in np.nonzero(near)), strict=True):
        if group[one] != group[two] and _near(boxes[runs[one]][:, None], boxes[runs[two]][None], gap).any():
            old, new = sorted((group[one], group[two]))[::-1]
            group = [new if number == old else number for number in group]
    return [
        np.concatenate([run for run, number in zip(runs, group, strict=True) if number == each])
        for each in dict.fromkeys(group)
    ]


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
