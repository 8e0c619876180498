"""Regions: what a box is widened to before it is covered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes

#: Above a face the margin is this much larger: a face box ends at the brow, and hair rises above it.
ABOVE = 1.85
#: Below a face it is smaller: the box ends at the chin.
BELOW = 0.5
#: A head's outline is |x|^p + |y|^p = 1 in its region: an ellipse.
ROUND = 2.0
#: An outline is laid out in so many bands at most, of so many lines or a multiple: chroma has cells of two.
BANDS, LEAST_LINES = 32, 2


def regions_of(boxes: Boxes, settings: Settings, width: int, height: int) -> NDArray[np.int32]:
    """Return the region of every box: its margin added on each side, rounded outwards, cut to the picture.

    >>> regions_of(Boxes([[10.5, 20, 30, 40]], [0.9], ["face"]), Settings(), 100, 50).tolist()
    [[4, 8, 36, 43]]

    Guarantee:
        Every pixel that a box touches inside the picture lies in that box's region. A box that touches no
        pixel of the picture has no region; one without area has the pixels it lies on.

    Args:
        boxes: boxes in pixels of the picture; they may reach past its border.
        settings: gives the margin of each class, as a share of the box's own side.
        width, height: of the picture, in pixels.

    Returns:
        (n, 4) int32; x1, y1, x2, y2 in pixels, half open, inside the picture, x1 < x2 and y1 < y2.
    """
    return shapes_of(boxes, settings, width, height, outlined=False)[0]


def outlines_of(boxes: Boxes, settings: Settings, width: int, height: int) -> NDArray[np.int32]:
    """Return what `regions_of` returns with the corners of heads cut off: bands that touch, for each face.

    Of a face's region the outline keeps what lies within a rounded shape that touches all four sides. All
    else has its region in one piece.

    Guarantee:
        Every pixel that a box touches inside the picture lies in its outline, whatever the margin.

    Args:
        boxes, settings, width, height: see `regions_of`.

    Returns:
        (m, 4) int32, m >= n; as `regions_of`.
    """
    return shapes_of(boxes, settings, width, height, outlined=True)[0]


def shapes_of(
    boxes: Boxes, settings: Settings, width: int, height: int, *, outlined: bool
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return what `outlines_of` or `regions_of` returns, and for each region the index of its box.

    Args:
        boxes, settings, width, height: see `regions_of`.
        outlined: whether the corners of heads are cut off.

    Returns:
        (m, 4) int32 as `regions_of`, and (m,) indices.
    """
    wide, owners = _widened(boxes, settings), np.arange(len(boxes))
    face = _faces(boxes)
    if not outlined or not face.any():
        return _inside(_outwards(wide), owners, width, height)
    heads, there = _bands(boxes.xyxy[face].astype(np.float64), wide[face])
    laid = np.repeat(owners[face], there)
    if face.all():
        return _inside(heads, laid, width, height)
    regions = np.concatenate([_outwards(wide[~face]), heads])
    return _inside(regions, np.concatenate([owners[~face], laid]), width, height)


def _faces(boxes: Boxes) -> NDArray[np.bool_]:
    return np.array([label == "face" for label in boxes.labels], bool)


def _widened(boxes: Boxes, settings: Settings) -> NDArray[np.float64]:
    """Return boxes, (n, 4), with their margins."""
    xyxy = boxes.xyxy.astype(np.float64).reshape(-1, 4)
    share = np.array([settings.margin(label) for label in boxes.labels])[:, None]
    reach = (xyxy[:, 2:] - xyxy[:, :2]) * share
    face = _faces(boxes)
    wide: NDArray[np.float64] = xyxy + reach[:, [0, 1, 0, 1]] * np.array([-1.0, -1.0, 1.0, 1.0])
    wide[face, 1] = xyxy[face, 1] - reach[face, 1] * ABOVE
    wide[face, 3] = xyxy[face, 3] + reach[face, 1] * BELOW
    return wide


def _outwards(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes, (n, 4), rounded outwards to whole pixels, one at least."""
    low = np.floor(boxes[:, :2])
    return np.concatenate([low, np.maximum(np.ceil(boxes[:, 2:]), low + 1)], axis=1)


def _bands(
    boxes: NDArray[np.float64], regions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the outlines of heads in regions, (n, 4): bands from top to bottom that hold the boxes too.

    With them the number of bands of each head.
    """
    left, first, right, end = _outwards(regions).T[:, :, None]
    whole = _outwards(boxes).T[:, :, None]
    lines = LEAST_LINES * np.maximum(np.ceil((end - first) / (LEAST_LINES * BANDS)), 1)
    edges = (np.floor(first / lines) + np.arange(BANDS + 1)) * lines
    top, bottom = np.maximum(edges, first), np.minimum(edges + lines, end)
    x1, y1, x2, y2 = regions.T[:, :, None]
    middle, half = (y1 + y2) / 2, np.maximum((y2 - y1) / 2, 1e-6)
    # The line of a band that is nearest to the middle is its widest.
    away = (np.maximum(np.maximum(top - middle, middle - bottom), 0) / half).clip(0, 1)
    reach = (1 - away**ROUND) ** (1 / ROUND) * (x2 - x1) / 2
    across = (x1 + x2) / 2
    low, high = np.floor(across - reach), np.ceil(across + reach)
    held = (top < whole[3]) & (bottom > whole[1])
    low = np.where(held, np.minimum(low, whole[0]), low).clip(left, right - 1)
    high = np.where(held, np.maximum(high, whole[2]), high).clip(left + 1, right)
    bands = np.stack([low, top, np.maximum(high, low + 1), bottom], axis=2)
    there = top < bottom
    return bands[there], there.sum(axis=1)


def _inside(
    regions: NDArray[np.float64], owners: NDArray[np.intp], width: int, height: int
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return regions cut to the picture, and their owners; without those that lie outside."""
    # Clipped as floats: a box far outside would wrap around as int32.
    cut = regions.clip(0, [width, height, width, height]).astype(np.int32)
    kept = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    return cut[kept], owners[kept]
