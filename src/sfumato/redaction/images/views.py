"""What a detector is shown of a picture: 8-bit RGB, once as it looks and once as its hidden pixels look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Channel
from sfumato.redaction.images.colour import CMYK

#: What shows through transparent pixels, for the detector.
BACKDROP = 128


def views(pixels: NDArray[Any], channels: Sequence[Channel]) -> list[NDArray[np.uint8]]:
    """Return (height, width, 3) uint8 RGB pictures to search: one, or two where alpha hides something.

    Pixels under a transparent area stay in the file and come back with one click, so they are searched too.

    Args:
        pixels: (height, width[, channels]) of any number type.
        channels: what each channel is.
    """
    planes = pixels.reshape(*pixels.shape[:2], -1)
    colours = [index for index, channel in enumerate(channels) if channel != "alpha"]
    raw = _rgb(_eight(planes[:, :, colours]), tuple(channels[index] for index in colours))
    if "alpha" not in channels:
        return [raw]
    alpha = planes[:, :, list(channels).index("alpha")]
    share = _share(alpha)[:, :, None]
    if (share == 1).all():
        return [raw]
    shown = np.rint(raw * share + BACKDROP * (1 - share)).astype(np.uint8)
    return [shown, raw]


def _share(alpha: NDArray[Any]) -> NDArray[np.float32]:
    full = float(np.iinfo(alpha.dtype).max) if alpha.dtype.kind in "ui" else 1.0
    share: NDArray[np.float32] = np.clip(alpha.astype(np.float32) / np.float32(full), 0, 1)
    return share


def _eight(planes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values as 0..255. A deep picture often uses a few of its bits only, so its own range counts."""
    if planes.dtype == np.uint8:
        return planes.view(np.uint8)
    if planes.dtype == np.uint16:
        bits = max(8, int(planes.max()).bit_length())
        shifted: NDArray[np.uint8] = (planes >> (bits - 8)).astype(np.uint8)
        return shifted
    values = np.nan_to_num(planes.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if planes.dtype.kind == "f" and values.min() >= 0 and 0.5 <= values.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    scaled = (values - low) * (255 / (high - low) if high > low else 1.0)
    eight: NDArray[np.uint8] = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return eight


def _rgb(planes: NDArray[np.uint8], channels: tuple[Channel, ...]) -> NDArray[np.uint8]:
    if channels == CMYK:
        ink = 255 - planes.astype(np.uint16)
        return (ink[:, :, :3] * ink[:, :, 3:] // 255).astype(np.uint8)
    if planes.shape[2] == 1:
        return np.repeat(planes, 3, axis=2)
    return np.ascontiguousarray(planes)
