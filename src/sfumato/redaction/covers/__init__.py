"""Covers: how a region is hidden; one file each, found by name.

A cover module has the four things of a plugin, and `SECURE`: True when nothing that was inside the region
can be told from what it leaves there (beyond the region's own place and size), False when it is cosmetic.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfumato.core.plugins import Catalogue

CATALOGUE = Catalogue("cover", "sfumato.redaction.covers", "sfumato.covers")


@runtime_checkable
class Cover(Protocol):
    """Hides regions of one plane or picture, in place."""

    name: str
    secure: bool

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place.

        Args:
            pixels: (height, width) or (height, width, channels), any unsigned integer or float type; a colour
                picture or a single plane of a video frame (luma, chroma), of any bit depth.
            regions: (n, 4) int32; x1, y1, x2, y2 in pixels, half open, inside the picture, x1 < x2, y1 < y2.
                They may overlap each other and touch the border.
        """
        ...
