"""Pixelate: a mosaic of mean colours anchored to the region; cosmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers._pixels import put, resize, to_float

SUMMARY = "cosmetic, trained recognisers undo it: a mosaic of mean colours"
NEEDS = ("cv2",)
EXTRA = ""
SECURE = False

#: A block has at least this side, in pixels: without it a small region would come out as it went in.
LEAST = 3.0


def build(*, blocks: int = 8) -> Pixelate:
    """Build the cover.

    Args:
        blocks: blocks along the region's longer side, 1..64, however large the region is.

    Raises:
        InvalidRequest: blocks outside its range.
    """
    if not isinstance(blocks, int) or not 1 <= blocks <= 64:
        raise InvalidRequest(f"blocks must be a whole number of 1..64 (per longer side), got {blocks!r}")
    return Pixelate(blocks)


class Pixelate:
    """Mean colours of blocks; the grid starts at the region's corner, so it moves with what it hides."""

    name = "pixelate"
    secure = SECURE

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        import cv2

        for x1, y1, x2, y2 in regions:
            view = pixels[y1:y2, x1:x2]
            height, width = view.shape[:2]
            block = max(LEAST, max(height, width) / self._blocks)
            grid = (max(1, round(width / block)), max(1, round(height / block)))
            values = resize(to_float(view), grid, cv2.INTER_AREA)
            put(view, resize(values, (width, height), cv2.INTER_NEAREST))
