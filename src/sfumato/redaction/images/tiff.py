"""TIFF written from arrays: only the tags that say how to read the pixels.

Pillow cuts 16-bit colour to 8 and leaves stray bytes between pages, and OpenCV leaves out the tag that says
which channel is alpha; a page of plain pixels is short enough to write whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Channel

_PHOTOMETRIC = {"grey": 1, "red": 2, "cyan": 5}
_FORMAT = {"u": 1, "i": 2, "f": 3}
DEFLATE = 8
UNASSOCIATED_ALPHA = 2


def tiff_of(pages: Sequence[tuple[NDArray[Any], tuple[Channel, ...]]]) -> bytes:
    """Return a little-endian TIFF file, one deflated strip a page.

    Args:
        pages: pixels, (height, width[, channels]), of integers or floats of 8 to 32 bits; and what each
            channel is: grey, RGB or CMYK, with or without alpha.

    Raises:
        ValueError: more than 4 GB, which TIFF cannot hold.

    Source: TIFF 6.0; TIFF Technical Note 2 (compression 8).
    """
    file = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for index, (pixels, channels) in enumerate(pages):
        page = _page(pixels, channels, len(file), last=index == len(pages) - 1)
        if len(file) + len(page) >= 1 << 32:
            raise ValueError("a TIFF file holds at most 4 GB")
        file += page
    return bytes(file)


def _page(pixels: NDArray[Any], channels: tuple[Channel, ...], place: int, *, last: bool) -> bytes:
    """Return a page's tags, their longer values and its strip, as they stand at `place` in the file."""
    height, width = pixels.shape[:2]
    count = len(channels)
    strip = zlib.compress(np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder("<"))).data)
    strip += bytes(len(strip) % 2)
    tags = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [pixels.dtype.itemsize * 8] * count),
        259: ("H", [DEFLATE]),
        262: ("H", [_PHOTOMETRIC[channels[0]]]),
        273: ("I", [0]),  # where the strip starts: set below
        277: ("H", [count]),
        278: ("I", [height]),
        279: ("I", [len(strip)]),
        284: ("H", [1]),
        338: ("H", [UNASSOCIATED_ALPHA] * channels.count("alpha")),
        339: ("H", [_FORMAT[pixels.dtype.kind]] * count),
    }
    tags = {tag: (form, values) for tag, (form, values) in tags.items() if values}
    after = place + 2 + 12 * len(tags) + 4
    longer = sum(2 * len(values) for form, values in tags.values() if form == "H" and len(values) > 2)
    tags[273] = ("I", [after + longer])
    entries, extra = struct.pack("<H", len(tags)), b""
    for tag, (form, values) in tags.items():
        data = struct.pack(f"<{len(values)}{form}", *values)
        entries += struct.pack("<HHI", tag, 3 if form == "H" else 4, len(values))
        entries += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", after + len(extra))
        extra += data if len(data) > 4 else b""
    following = 0 if last else after + longer + len(strip)
    return entries + struct.pack("<I", following) + extra + strip
