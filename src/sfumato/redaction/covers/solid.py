"""Solid: a constant colour; nothing of the inside is left."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover, Form, form_of
from sfumato.redaction.covers._colours import painted

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
    outlined = True

    def __init__(self, colour: tuple[int, int, int], form: Form | None = None) -> None:
        self._colour, self._form = colour, form

    def suited(self, form: Form) -> Cover:
        """Return the cover whose colour is right for pictures of this form."""
        return Solid(self._colour, form)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        form = self._form or form_of(pixels)
        paint = painted(np.array(self._colour) / 255, form)
        if np.issubdtype(pixels.dtype, np.integer):
            paint = np.rint(paint)
        colour = paint.astype(pixels.dtype)
        for x1, y1, x2, y2 in regions:
            pixels[y1:y2, x1:x2] = colour[0] if pixels.ndim == 2 else colour
