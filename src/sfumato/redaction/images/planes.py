"""The planes of a JPEG as it stores them, so that what is not covered is coded to what it was.

A decoder makes red, green and blue of them: chroma is smoothed to full size and colours out of range are cut
off. Coded again, that is another picture. Luma and chroma as they lie in the file give the same coefficients
again, but for a rounding here and there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from sfumato.redaction.images.orientation import TAG, orientation_of, upright

#: Two decoders' colours may differ by so much in rounding.
ROUNDING = 3
#: Sides below this are not worth the trouble.
LEAST = 16


def planes_of(path: Path, pixels: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Return a JPEG's luma and chroma, upright, (height, width, 3); chroma that is stored smaller repeats.

    Args:
        path: a JPEG file.
        pixels: the same picture as it was decoded, upright; (height, width, 3) RGB.

    Returns:
        None where the file stores no luma and chroma, or where its colours were converted since.
    """
    with path.open("rb") as file:
        image: Any = JpegImagePlugin.JpegImageFile(file)
        layers: list[Any] = [(horizontal, vertical) for _, horizontal, vertical, _ in image.layer]
        halved: dict[Any, tuple[int, int]] = {
            ((2, 2), (1, 1), (1, 1)): (2, 2),
            ((2, 1), (1, 1), (1, 1)): (1, 2),
        }
        step = (1, 1) if len(set(layers)) == 1 else halved.get(tuple(layers))
        if pixels.ndim != 3 or len(layers) != 3 or step is None or min(image.size) < LEAST:
            return None
        planes = _decoded(file, 1)
        if planes is None:
            return None
        turned = orientation_of(image.getexif().get(TAG))
        if not _same(upright(planes, turned), pixels):
            return None
        height, width = planes.shape[:2]
        if step == (2, 2):
            half = _decoded(file, 2)
            if half is None or half.shape[:2] != (-(-height // 2), -(-width // 2)):
                return None
            planes[:, :, 1:] = half[:, :, 1:].repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        elif step == (1, 2):
            for plane in (1, 2):
                planes[:, :, plane] = _narrowed(planes[:, :, plane]).repeat(2, axis=1)[:, :width]
    return upright(planes, turned)


def _decoded(file: Any, scale: int) -> NDArray[np.uint8] | None:
    """Decode to YCbCr; at half scale libjpeg leaves chroma that is halved both ways as it is."""
    file.seek(0)
    image: Any = JpegImagePlugin.JpegImageFile(file)
    image.draft("YCbCr", (image.size[0] // scale, image.size[1] // scale))
    if image.mode != "YCbCr":
        return None
    return np.array(image)


def _same(planes: NDArray[np.uint8], pixels: NDArray[Any]) -> bool:
    """Return whether planes at full size show these colours."""
    if planes.shape != pixels.shape or pixels.dtype != np.uint8:
        return False
    shown = np.asarray(_picture(planes).convert("RGB")).astype(np.int16)
    return int(np.abs(shown - pixels).max()) <= ROUNDING


def _picture(planes: NDArray[np.uint8]) -> Image.Image:
    height, width = planes.shape[:2]
    return Image.frombytes("YCbCr", (width, height), np.ascontiguousarray(planes).tobytes())


def _narrowed(wide: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return chroma of half the width from what libjpeg smoothed to full width.

    Smoothing made 3/4 of a sample and 1/4 of its neighbour, left for even and right for odd columns: the sums
    of both are a tridiagonal system, solved column by column.
    """
    if wide.shape[1] % 2:
        wide = np.concatenate([wide, wide[:, -1:]], axis=1)
    pairs = wide.astype(np.float64).reshape(wide.shape[0], -1, 2)
    sums = 4 * pairs.sum(axis=2)
    count = sums.shape[1]
    middle = np.full(count, 6.0)
    middle[[0, -1]] = 7.0  # at the ends a sample stands for itself
    solved = np.empty_like(sums)
    ratio = np.empty(count)
    ratio[0], solved[:, 0] = 1 / middle[0], sums[:, 0] / middle[0]
    for column in range(1, count):
        pivot = middle[column] - ratio[column - 1]
        ratio[column] = 1 / pivot
        solved[:, column] = (sums[:, column] - solved[:, column - 1]) / pivot
    for column in range(count - 2, -1, -1):
        solved[:, column] -= ratio[column] * solved[:, column + 1]
    narrow: NDArray[np.uint8] = np.rint(solved).clip(0, 255).astype(np.uint8)
    return narrow


def covered(
    planes: NDArray[np.uint8], before: NDArray[Any], after: NDArray[Any], regions: list[NDArray[np.int32]]
) -> NDArray[np.uint8]:
    """Return planes in which everything that was covered is what the cover made of it.

    Guarantee:
        Inside the regions, wherever a pixel changed, and for two pixels around, so that no sample of chroma
        which a hidden pixel had a part in stays, the planes come from `after` alone.

    Args:
        planes: of `planes_of`.
        before, after: (height, width, 3) uint8 RGB, without and with covers.
        regions: of every cover, (n, 4) x1, y1, x2, y2.
    """
    touched = (before != after).any(axis=2)
    for x1, y1, x2, y2 in np.concatenate([np.zeros((0, 4), np.int32), *regions]).tolist():
        touched[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    if not touched.any():
        return planes
    rows, columns = (np.flatnonzero(touched.any(axis=axis)) for axis in (1, 0))
    top, left = max(rows[0] - 4, 0), max(columns[0] - 4, 0)
    part = (slice(top, rows[-1] + 5), slice(left, columns[-1] + 5))
    made = np.asarray(Image.fromarray(np.ascontiguousarray(after[part])).convert("YCbCr"))
    result = planes.copy()
    result[part] = np.where(_wider(touched[part])[:, :, None], made, planes[part])
    return result


def _wider(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask grown by two pixels on every side."""
    wide = mask.copy()
    for shift in (1, 2):
        wide[shift:] |= mask[:-shift]
        wide[:-shift] |= mask[shift:]
    grown = wide.copy()
    for shift in (1, 2):
        grown[:, shift:] |= wide[:, :-shift]
        grown[:, :-shift] |= wide[:, shift:]
    return grown
