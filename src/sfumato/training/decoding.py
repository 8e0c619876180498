"""One picture file to one square array; whatever is wrong with it is said."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import MediaError, MediaTooLarge, UnreadableMedia

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

#: More are a decompression bomb, or not meant for training.
MAX_PIXELS = 100_000_000


def decode(
    source: Path | bytes, *, side: int, channels: int = 3, name: str = "", max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Return a picture upright, cut to its middle square and scaled: (channels, side, side) uint8.

    Args:
        source: a file, or its bytes.
        side: pixels of the result's sides.
        channels: 1 (grey) or 3 (RGB).
        name: what to call it in messages; default: the file's name.
        max_pixels: most pixels that are decoded.

    Raises:
        UnreadableMedia: it does not decode completely.
        MediaTooLarge: it has more pixels.
    """
    from PIL import Image, ImageOps

    from sfumato.vision.pillow import whole_pictures

    called = name or (source.name if isinstance(source, Path) else "a picture")
    try:
        with whole_pictures(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not read, and of sizes, checked here
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                if opened.width * opened.height > max_pixels:
                    raise MediaTooLarge(
                        f"{called} has {opened.width}x{opened.height} pixels, more than {max_pixels:,}: make "
                        "it smaller first"
                    )
                opened.draft("RGB" if channels == 3 else "L", (side, side))  # JPEG: decode small where it can
                upright = ImageOps.exif_transpose(opened)
                picture = _eight_bits(upright).convert("L" if channels == 1 else "RGB")
                picture = ImageOps.fit(picture, (side, side), Image.Resampling.BILINEAR)
    except MediaError:
        raise
    except Image.DecompressionBombError as error:
        raise MediaTooLarge(f"{called}: {error}; make it smaller first") from error
    except Exception as error:  # decoders raise almost any type on damaged input
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UnreadableMedia(f"{called} does not decode ({why}): it is damaged, or no picture") from error
    pixels = np.asarray(picture, np.uint8)
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def _eight_bits(picture: Opened) -> Opened:
    """Scale a picture of 16 bits to 8: Pillow's own conversion would clip it."""
    from PIL import Image

    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        wide = np.asarray(picture).astype(np.uint32)
        return Image.fromarray((wide >> 8).clip(0, 255).astype(np.uint8))
    return picture
