"""The eight orientations of EXIF, applied to pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: EXIF and TIFF tag number.
TAG = 0x0112


def orientation_of(value: object) -> int:
    """Return a tag's value as an orientation, 1..8; anything else means upright, as viewers read it."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return 1
    return number if 1 <= number <= 8 else 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the pixels, (height, width, ...), turned so that the picture stands as it was taken.

    >>> upright(np.array([[1, 2], [3, 4]]), 6).tolist()
    [[3, 1], [4, 2]]

    Source: EXIF 2.32, 4.6.4, tag 0x0112: which side of the scene row 0 and column 0 show.
    """
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
