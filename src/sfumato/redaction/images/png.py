"""PNG of grey and alpha with 16 bits each, which neither Pillow nor OpenCV writes."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREY_ALPHA, UP = 4, 2


def png_of_grey(pixels: NDArray[Any]) -> bytes:
    """Return a PNG file of (height, width, 2) uint16 pixels, grey and alpha; every row less the one above.

    Source: PNG, third edition, 5.2 and 9.2.
    """
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, width * 4)
    raw = np.full((height, 1 + width * 4), UP, np.uint8)
    raw[:, 1:] = rows
    raw[1:, 1:] -= rows[:-1]
    head = struct.pack(">IIBBBBB", width, height, 16, GREY_ALPHA, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(raw.data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
