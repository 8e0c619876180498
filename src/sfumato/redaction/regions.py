"""Regions: what a box is widened to before it is covered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes

#: Above a face the margin is this much larger: a face box ends at the brow, and hair rises above it.
HEADROOM = 1.5


def regions_of(boxes: Boxes, settings: Settings, width: int, height: int) -> NDArray[np.int32]:
    """Return the region of every box: its margin added on each side, rounded outwards, cut to the picture.

    >>> regions_of(Boxes([[10.5, 20, 30, 40]], [0.9], ["face"]), Settings(), 100, 50).tolist()
    [[2, 8, 38, 48]]

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
    return widen(boxes.xyxy, boxes.labels, settings, width, height)


def widen(
    xyxy: NDArray[np.floating], labels: Sequence[str], settings: Settings, width: int, height: int
) -> NDArray[np.int32]:
    """Return the regions of (n, 4) boxes with n class names: see `regions_of`."""
    boxes = np.asarray(xyxy, np.float64).reshape(-1, 4)
    share = np.array([settings.margin(label) for label in labels])[:, None]
    reach = (boxes[:, 2:] - boxes[:, :2]) * share
    above = np.array([HEADROOM if label == "face" else 1.0 for label in labels])
    low = np.floor(boxes[:, :2] - reach * np.stack([np.ones_like(above), above], axis=1))
    high = np.maximum(np.ceil(boxes[:, 2:] + reach), low + 1)
    # Clipped as floats: a box far outside would wrap around as int32.
    size = np.array([width, height], np.float64)
    regions = np.concatenate([low.clip(0, size), high.clip(0, size)], axis=1).astype(np.int32)
    return regions[(regions[:, 2:] > regions[:, :2]).all(axis=1)]
