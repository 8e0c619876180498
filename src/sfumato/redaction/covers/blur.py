"""Blur: a Gaussian as wide as the region asks for; cosmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers._pixels import put, resize, to_float

SUMMARY = "cosmetic, trained recognisers undo it: Gaussian blur relative to the region"
NEEDS = ("cv2",)
EXTRA = ""
SECURE = False

#: A wider Gaussian than this, in pixels, is taken on a smaller copy: the same look at a fraction of the cost.
WIDEST = 6.0


def build(*, strength: float = 0.15) -> Blur:
    """Build the cover.

    Args:
        strength: the Gaussian's sigma as a share of the region's longer side, 0.01..1.

    Raises:
        InvalidRequest: strength outside its range.
    """
    if not 0.01 <= strength <= 1:
        raise InvalidRequest(f"strength must lie in 0.01..1 (sigma as a share of the side), got {strength}")
    return Blur(float(strength))


class Blur:
    """Gaussian blur of what is inside each region; what it leaves can be recognised."""

    name = "blur"
    secure = SECURE

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        import cv2

        for x1, y1, x2, y2 in regions:
            view = pixels[y1:y2, x1:x2]
            height, width = view.shape[:2]
            sigma = self._strength * max(height, width)
            step = max(1.0, sigma / WIDEST)
            small = (max(1, round(width / step)), max(1, round(height / step)))
            values = to_float(view)
            if step > 1:
                values = resize(values, small, cv2.INTER_AREA)
            for index in range(values.shape[2]):
                plane = np.ascontiguousarray(values[:, :, index])
                values[:, :, index] = cv2.GaussianBlur(
                    plane, (0, 0), sigma / step, borderType=cv2.BORDER_REPLICATE
                )
            put(view, resize(values, (width, height), cv2.INTER_LINEAR) if step > 1 else values)
