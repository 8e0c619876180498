"""Pictures scaled to a network's input, and boxes brought back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision.opencv import opencv

GREY = 114


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A picture scaled into a canvas, with grey around it.

    Args:
        pixels: (canvas height, canvas width, 3) uint8.
        gain: (x, y), canvas pixels per picture pixel; each axis has its own, since sides are whole pixels.
        offset: (left, top) of the picture in the canvas.
    """

    pixels: NDArray[np.uint8]
    gain: tuple[float, float]
    offset: tuple[int, int]

    def undo(self, xyxy: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return boxes, (n, 4) in canvas pixels, in pixels of the picture."""
        shift = np.array(self.offset * 2, np.float32)
        gain = np.array(self.gain * 2, np.float32)
        result: NDArray[np.float32] = ((xyxy - shift) / gain).astype(np.float32)
        return result


def letterbox(image: NDArray[np.uint8], scale: float, canvas: tuple[int, int]) -> Letterbox:
    """Scale a picture and set it in the middle of a grey canvas.

    Args:
        image: (height, width, 3) uint8.
        scale: canvas pixels per picture pixel; a side is rounded to whole pixels, at least 1.
        canvas: (width, height) in pixels, no smaller than the scaled picture.

    Raises:
        InvalidRequest: the scaled picture is larger than the canvas, or the picture has no pixels.
    """
    cv2 = opencv()

    height, width = image.shape[:2]
    if not image.size:
        raise InvalidRequest(f"the picture has no pixels: {image.shape}")
    new = scaled(width, scale), scaled(height, scale)
    if new[0] > canvas[0] or new[1] > canvas[1]:
        raise InvalidRequest(f"a picture of {new} pixels does not fit into a canvas of {canvas}")
    if new != (width, height):
        # Bilinear looks at four pixels only: shrinking by more than two it would skip pixels.
        method = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, new, interpolation=method), np.uint8)
    if new == canvas:
        return Letterbox(image, (new[0] / width, new[1] / height), (0, 0))
    left = round((canvas[0] - new[0]) / 2 - 0.1)
    top = round((canvas[1] - new[1]) / 2 - 0.1)
    pixels = np.full((canvas[1], canvas[0], 3), GREY, np.uint8)
    pixels[top : top + new[1], left : left + new[0]] = image
    return Letterbox(pixels, (new[0] / width, new[1] / height), (left, top))


def scaled(side: int, scale: float) -> int:
    """Return a side's length after scaling, in whole pixels."""
    return max(1, round(side * scale))


def fit(image: NDArray[np.uint8], scale: float, stride: int = 32, *, least: int = 1) -> Letterbox:
    """Scale a picture and pad it to the smallest canvas with sides of whole strides, `least` or more."""
    height, width = image.shape[:2]
    sides = [max(scaled(side, scale), least) for side in (width, height)]
    return letterbox(image, scale, (-(-sides[0] // stride) * stride, -(-sides[1] // stride) * stride))
