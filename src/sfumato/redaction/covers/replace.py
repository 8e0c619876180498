"""Replace: a picture is pasted over the region, on a fill computed from outside pixels only."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.covers import Cover, Form, form_of
from sfumato.redaction.covers._colours import painted
from sfumato.redaction.covers._pixels import Floats, put, resize, to_float
from sfumato.redaction.covers.fill import Fill

SUMMARY = "secure: a drawn face, or a picture of yours, pasted on a fill"
NEEDS = ("cv2", "PIL")
EXTRA = ""
SECURE = True

#: Longest side that a picture is kept at, in pixels; a larger one is shrunk once.
LARGEST = 512
#: More pixels than this are not decoded.
MOST_PIXELS = 50_000_000
#: Side of the built-in drawing, in pixels.
DRAWN = 256


def build(*, picture: str | os.PathLike[str] = "") -> Replace:
    """Build the cover.

    Args:
        picture: an image file (PNG with transparency, JPEG, ...); it is stretched to the
            region, and nothing but its pixels is used. Empty: a simple drawn face.

    Raises:
        InvalidRequest: there is no such file, or it is no picture.
    """
    if not isinstance(picture, (str, os.PathLike)):
        raise InvalidRequest(f"picture must be an image file, such as 'smile.png', got {picture!r}")
    if not os.fspath(picture):
        return Replace(_sizes(_drawn()), {})
    path = Path(picture).expanduser()
    data, shown = _read(path)
    return Replace(_sizes(shown), {"picture": f"sha256:{hashlib.sha256(data).hexdigest()}"})


class Replace:
    """Hides regions under a fill, with a picture over each.

    Args:
        pictures: one picture in falling sizes, (height, width, 4) floats, 0..1: red, green and blue, each
            times the opacity; and the opacity.
        options: the settings as a receipt shows them: a picture by its hash, not by its path.
    """

    name = "replace"
    secure = SECURE

    def __init__(
        self, pictures: Sequence[Floats], options: Mapping[str, Any], form: Form | None = None
    ) -> None:
        self._pictures, self.options, self._form = pictures, options, form

    def suited(self, form: Form) -> Cover:
        """Return the cover whose colours are right for pictures of this form."""
        return Replace(self._pictures, self.options, form)

    def apply(self, pixels: NDArray[Any], regions: NDArray[np.int32]) -> None:
        """Hide `regions` in `pixels`, in place."""
        form = self._form or form_of(pixels)
        # Below the picture nothing of the inside is left, so whatever shines through it is outside.
        Fill(form=form).apply(pixels, regions)
        for x1, y1, x2, y2 in regions:
            self._paste(pixels[y1:y2, x1:x2], form)

    def _paste(self, view: NDArray[Any], form: Form) -> None:
        """Lay the picture over one region, stretched to it: so it is where it should be in chroma as well."""
        import cv2

        height, width = view.shape[:2]
        enough = [one for one in self._pictures if one.shape[0] >= height and one.shape[1] >= width]
        picture = (enough or self._pictures[:1])[-1]
        small = resize(picture, (width, height), cv2.INTER_AREA).astype(np.float64)
        opacity = small[:, :, 3:]
        colour = painted(np.clip(small[:, :, :3] / np.maximum(opacity, 1e-6), 0, 1), form)
        old = to_float(view).astype(np.float64)
        put(view, old + (colour - old) * np.clip(opacity, 0, 1))


def _read(path: Path) -> tuple[bytes, Floats]:
    """Return a file's bytes, and its first picture, upright, as colours weighted by opacity."""
    from PIL import Image, ImageOps

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"picture {str(path)!r} cannot be read: {error.strerror}") from error
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InvalidRequest(
                    f"picture {path.name!r} has {image.width} x {image.height} pixels, and the limit is "
                    f"{MOST_PIXELS}: give a smaller one"
                )
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except InvalidRequest:
        raise
    except Exception as error:  # decoders raise almost any type on damaged input
        raise InvalidRequest(f"picture {path.name!r} does not read as an image: {error}") from error
    upright.thumbnail((LARGEST, LARGEST))
    return data, _weighted(np.asarray(upright))


def _sizes(picture: Floats) -> list[Floats]:
    """Return a picture, its half, its quarter: a small region need not shrink the largest each time."""
    import cv2

    sizes = [picture]
    while min(sizes[-1].shape[:2]) >= 32:
        height, width = sizes[-1].shape[:2]
        sizes.append(resize(sizes[-1], (width // 2, height // 2), cv2.INTER_AREA))
    return sizes


def _weighted(rgba: NDArray[np.uint8]) -> Floats:
    """Return colours multiplied by their opacity, so that shrinking lets none of what is transparent in."""
    result: Floats = np.divide(rgba, 255, dtype=np.float32)
    result[:, :, :3] *= result[:, :, 3:].copy()
    return result


def _drawn() -> Floats:
    """Return a round face with two eyes and a mouth: an ellipse that nearly fills the region."""
    import cv2

    half = DRAWN // 2
    art: NDArray[np.uint8] = np.zeros((DRAWN, DRAWN, 4), np.uint8)
    skin, ink = (250, 205, 70, 255), (70, 50, 20, 255)
    cv2.circle(art, (half, half), half - 4, skin, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(art, (half + side * 42, half - 32), (13, 20), 0, 0, 360, ink, -1, cv2.LINE_AA)
    cv2.ellipse(art, (half, half + 18), (62, 48), 0, 20, 160, ink, 9, cv2.LINE_AA)
    return _weighted(art)
