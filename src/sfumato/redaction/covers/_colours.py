"""Colours as what each channel of a picture holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.redaction.covers import Channel, Form

Shares = NDArray[np.float64]


def shares(red: ArrayLike, green: ArrayLike, blue: ArrayLike) -> Mapping[Channel, Shares]:
    """Return the share, 0..1, of its range that each channel has in colours of 0..1 (Y'CbCr by BT.601)."""
    red, green, blue = (np.asarray(value, np.float64) for value in (red, green, blue))
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    key = 1 - np.maximum(np.maximum(red, green), blue)
    ink = np.maximum(1 - key, 1e-9)
    return {
        "grey": grey,
        "red": red,
        "green": green,
        "blue": blue,
        "cyan": (1 - red - key) / ink,
        "magenta": (1 - green - key) / ink,
        "yellow": (1 - blue - key) / ink,
        "key": key,
        "alpha": np.ones_like(grey),
        "cb": 0.5 + (blue - grey) / 1.772,
        "cr": 0.5 + (red - grey) / 1.402,
    }


def painted(rgb: NDArray[Any], form: Form) -> NDArray[np.float64]:
    """Return (..., 3) colours of 0..1 as (..., channels) values of a picture of this form."""
    table = shares(rgb[..., 0], rgb[..., 1], rgb[..., 2])
    values = np.stack([table[channel] for channel in form.channels], axis=-1)
    result: NDArray[np.float64] = form.low + values * (form.high - form.low)
    return result
