"""Colour with 16 bits per channel, which Pillow cuts to 8: read through OpenCV, checked by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import UnreadableMedia, UnsupportedMedia
from sfumato.redaction.covers import Channel
from sfumato.redaction.kinds import head_of

# TIFF tags
BITS, PHOTOMETRIC, SAMPLES, FORMAT, SUB_FILES, DNG = 258, 262, 277, 339, 330, 50706
RGB = 2


def refuse_odd_tiff(path: Path, tags: Any) -> None:
    """Refuse TIFF pages that Pillow reads as something other than what they hold.

    Raises:
        UnsupportedMedia: camera raw (the page would be its preview), or deep pixels that are not grey or RGB.
    """
    if DNG in tags or tags.get(PHOTOMETRIC) in (32803, 34892) or (SUB_FILES in tags and tags.get(254) == 1):
        raise UnsupportedMedia(f"{path.name} is a camera raw file: develop it to a JPEG, PNG or TIFF first")
    bits = tags.get(BITS, (1,))
    deep = isinstance(bits, tuple) and len(bits) > 1 and max(bits) > 8
    if deep and not (_is_rgb(tags) and set(bits) == {16} and set(tags.get(FORMAT, (1,))) == {1}):
        raise UnsupportedMedia(
            f"{path.name} has {len(bits)} channels of {max(bits)} bits, photometric {tags.get(PHOTOMETRIC)}: "
            "only grey and RGB(A) keep more than 8 bits; convert it first"
        )


def _is_rgb(tags: Any) -> bool:
    return tags.get(PHOTOMETRIC) == RGB and tags.get(SAMPLES) in (3, 4)


def is_deep(path: Path, tags: Any) -> bool:
    """Return whether a page holds several channels of 16 bits; `tags` are those of a TIFF page, or None."""
    if tags is not None:
        bits = tags.get(BITS, (1,))
        return isinstance(bits, tuple) and len(bits) > 1 and max(bits) == 16
    head = head_of(path, 26)
    return head.startswith(b"\x89PNG") and head[24] == 16 and head[25] in (2, 4, 6)


def decode(path: Path, page: int, eight: NDArray[Any]) -> tuple[NDArray[Any], tuple[Channel, ...]]:
    """Return a page's pixels, (height, width, 3 or 4) uint16, RGB or RGBA.

    Args:
        path: a PNG or TIFF file.
        page: which page of it.
        eight: the same page decoded to 8 bits by Pillow, upright if it is TIFF.

    Raises:
        UnreadableMedia: OpenCV cannot decode it.
        UnsupportedMedia: the two decoders do not agree on what the picture is.
    """
    import cv2

    data = np.fromfile(path, np.uint8)
    if page:
        pages = list(cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED, range=(page, page + 1))[1])
        found = pages[0] if pages else None
    else:
        found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.ndim != 3 or found.shape[2] not in (3, 4):
        raise UnreadableMedia(f"{path.name}: its 16-bit pixels do not decode; save it again or as 8 bits")
    alpha = found.shape[2] == 4
    pixels = np.ascontiguousarray(found[:, :, [2, 1, 0, 3] if alpha else [2, 1, 0]])
    if not _agree(pixels, eight):
        raise UnsupportedMedia(
            f"{path.name}: two decoders read its 16-bit pixels differently (premultiplied alpha or separate "
            "planes, perhaps); save it as plain RGB or as 8 bits"
        )
    return pixels, ("red", "green", "blue", "alpha") if alpha else ("red", "green", "blue")


def _agree(pixels: NDArray[Any], eight: NDArray[Any]) -> bool:
    """Return whether 16-bit pixels are the 8-bit ones, up to rounding."""
    if eight.ndim == 3 and eight.shape[2] == 2:  # grey and alpha: OpenCV repeats the grey
        eight = eight[:, :, [0, 0, 0, 1]]
    if pixels.shape[:2] != eight.shape[:2] or eight.ndim != 3:
        return False
    count = min(pixels.shape[2], eight.shape[2])
    high = (pixels[:, :, :count] >> 8).astype(np.int16)
    return bool((np.abs(high - eight[:, :, :count].astype(np.int16)) <= 1).all())
