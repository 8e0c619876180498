"""Solid: a constant colour; nothing of the inside is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Channel, Cover, Form, form_of

SUMMARY = "secure: one flat colour"
NEEDS = ()
EXTRA = ""
SECURE = True


def build(*, colour: tuple[int, int, int] = (0, 0, 0)) -> Solid:
    """Build the cover.

    Args:
        colour: red, green and blue, 0..255 each; scaled to the depth of the picture.

    Raises:
        InvalidRequest: not three numbers of 0..255.
    """
    values = tuple(colour)
    if len(values) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise InvalidRequest(
            f"colour must be three whole numbers of 0..255 (red, green, blue), got {colour!r}"
        )
    return Solid((values[0], values[1], values[2]))


class Solid:
    """One flat colour in every region; alpha becomes opaque."""

    name = "solid"
    secure = SECURE

    def __init__(self, colour: tuple[int, int, int], form: Form | None = None) -> None:
        self._colour, self._form = colour, form

    def suited(self, form: Form) -> Cover:
        """Return the cover whose colour is right for pictures of this form."""
        return Solid(self._colour, form)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        form = self._form or form_of(pixels)
        shares = _shares(self._colour)
        values = np.array([shares[channel] for channel in form.channels])
        paint = form.low + values * (form.high - form.low)
        if np.issubdtype(pixels.dtype, np.integer):
            paint = np.rint(paint)
        colour = paint.astype(pixels.dtype)
        for x1, y1, x2, y2 in regions:
            pixels[y1:y2, x1:x2] = colour[0] if pixels.ndim == 2 else colour


def _shares(colour: tuple[int, int, int]) -> Mapping[Channel, float]:
    """Return the share, 0..1, of its range that each channel has in this colour (Y'CbCr by BT.601)."""
    red, green, blue = (value / 255 for value in colour)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    key = 1 - max(red, green, blue)
    ink = max(1 - key, 1e-9)
    return {
        "grey": grey,
        "red": red,
        "green": green,
        "blue": blue,
        "cyan": (1 - red - key) / ink,
        "magenta": (1 - green - key) / ink,
        "yellow": (1 - blue - key) / ink,
        "key": key,
        "alpha": 1.0,
        "cb": 0.5 + (blue - grey) / 1.772,
        "cr": 0.5 + (red - grey) / 1.402,
    }
