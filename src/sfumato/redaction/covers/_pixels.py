"""Pixels as floats for resampling and back, whatever their type."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


def float_type(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    """Return the float type sums over pixels of this type are taken in."""
    return np.float32 if dtype.itemsize <= 2 else np.float64


def to_float(pixels: NDArray[Any]) -> Floats:
    """Return a (height, width, channels) float copy."""
    copy: Floats = pixels.astype(float_type(pixels.dtype))
    return copy[:, :, None] if copy.ndim == 2 else copy


def put(pixels: NDArray[Any], values: Floats) -> None:
    """Write (height, width, channels) floats into a view of the same size, rounded to its type."""
    if pixels.dtype.kind in "ui":
        limits = np.iinfo(pixels.dtype)
        values = np.rint(values)
        np.clip(values, limits.min, limits.max, out=values)
    pixels[...] = values[:, :, 0] if pixels.ndim == 2 else values


def resize(values: Floats, size: tuple[int, int], how: int) -> Floats:
    """Return `cv2.resize` of (height, width, channels) floats to (width, height), any number of channels."""
    import cv2

    parts = [
        cv2.resize(np.ascontiguousarray(values[:, :, start : start + 4]), size, interpolation=how)
        for start in range(0, values.shape[2], 4)
    ]
    shaped: list[Floats] = [part[:, :, None] if part.ndim == 2 else part for part in parts]
    return shaped[0] if len(shaped) == 1 else np.concatenate(shaped, axis=2)
