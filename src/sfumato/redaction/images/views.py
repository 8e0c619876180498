"""What a detector is shown of a picture: 8-bit RGB, in each way in which its pixels can be looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Channel
from sfumato.redaction.images.colour import CMYK

#: What shows through transparent pixels, for the detector.
BACKDROP = 128
#: So many pixels are converted at a time: floats take four and eight times the room of the picture.
STRIP = 1 << 20
#: Percentiles are taken of about so many values.
SAMPLE = 1 << 20
#: A deep picture whose usual values span less than this share of its range is also searched stretched.
NARROW = 0.5


def views(pixels: NDArray[Any], channels: Sequence[Channel]) -> Iterator[NDArray[np.uint8]]:
    """Yield (height, width, 3) uint8 RGB pictures to search, one at a time: each is as large as `pixels`.

    Pixels under a transparent area stay in the file and come back with one click, so they are searched too,
    and so is what the alpha plane itself shows. The values of a deep picture may fill a small part of their
    range: then it is also searched with that part stretched.

    Args:
        pixels: (height, width[, channels]) of any number type.
        channels: what each channel is.
    """
    planes = pixels.reshape(*pixels.shape[:2], -1)
    colours = [index for index, channel in enumerate(channels) if channel != "alpha"]
    kinds = tuple(channels[index] for index in colours)
    whole = planes[:, :, : len(colours)] if colours == list(range(len(colours))) else planes[:, :, colours]
    ranges = _ranges(whole)
    alpha = planes[:, :, list(channels).index("alpha")] if "alpha" in channels else None
    clear = alpha is not None and bool((alpha != _full(alpha)).any())
    for low, high in ranges:
        if alpha is not None and clear:
            yield _shown(whole, kinds, alpha, low, high)
        yield _rgb(_eight(whole, low, high), kinds)
    if alpha is not None and (alpha != alpha.flat[0]).any():
        for low, high in _ranges(alpha[:, :, None]):
            yield _rgb(_eight(alpha[:, :, None], low, high), ("grey",))


def _strips(planes: NDArray[Any]) -> Iterator[slice]:
    """Yield slices of rows with about `STRIP` pixels each."""
    rows = max(1, STRIP // max(1, planes.shape[1]))
    for top in range(0, planes.shape[0], rows):
        yield slice(top, top + rows)


def _shown(
    planes: NDArray[Any], kinds: tuple[Channel, ...], alpha: NDArray[Any], low: float, high: float
) -> NDArray[np.uint8]:
    """Return the picture as viewers show it, over grey."""
    shown = np.empty((*planes.shape[:2], 3), np.uint8)
    for rows in _strips(planes):
        share = np.clip(alpha[rows].astype(np.float32) / np.float32(_full(alpha)), 0, 1)[:, :, None]
        raw = _rgb(_eight(planes[rows], low, high), kinds)
        shown[rows] = np.rint(raw * share + BACKDROP * (1 - share))
    return shown


def _full(alpha: NDArray[Any]) -> float:
    """Return the value of a pixel that nothing shines through."""
    return float(np.iinfo(alpha.dtype).max) if alpha.dtype.kind in "ui" else 1.0


def _ranges(planes: NDArray[Any]) -> list[tuple[float, float]]:
    """Return the (low, high) that become 0 and 255, for each way of looking at the values."""
    if planes.dtype == np.uint8:
        return [(0.0, 255.0)]
    low, high = _percentiles(planes)
    if planes.dtype == np.uint16:
        # A deep picture often uses a few of its bits only.
        top = float((1 << max(8, int(planes.max()).bit_length())) - 1)
    elif (
        planes.dtype.kind == "f" and low >= 0 and 0.5 <= high <= 1 and planes.min() >= 0 and planes.max() <= 1
    ):
        top = 1.0
    else:
        return [(low, high)]
    narrow = 0 < high - low < NARROW * top
    return [(0.0, top), (low, high)] if narrow else [(0.0, top)]


def _percentiles(planes: NDArray[Any]) -> tuple[float, float]:
    """Return what nearly all values lie between."""
    values = planes.reshape(-1)[:: max(1, planes.size // SAMPLE)].astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, (0.5, 99.5)))
    return low, high


def _eight(planes: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return values as 0..255, `low` becoming 0 and `high` 255."""
    if planes.dtype == np.uint8:
        return planes.view(np.uint8)
    eight = np.empty(planes.shape, np.uint8)
    gain = 255 / (high - low) if high > low else 1.0
    for rows in _strips(planes):
        values = np.nan_to_num(planes[rows].astype(np.float64), nan=low, posinf=high, neginf=low)
        eight[rows] = np.rint(((values - low) * gain).clip(0, 255))
    return eight


def _rgb(planes: NDArray[np.uint8], channels: tuple[Channel, ...]) -> NDArray[np.uint8]:
    if channels == CMYK:
        rgb = np.empty((*planes.shape[:2], 3), np.uint8)
        for rows in _strips(planes):
            ink = 255 - planes[rows].astype(np.uint16)
            rgb[rows] = ink[:, :, :3] * ink[:, :, 3:] // 255
        return rgb
    if planes.shape[2] == 1:
        return np.repeat(planes, 3, axis=2)
    return np.ascontiguousarray(planes)
