"""A picture file without its metadata: its pixels, written again."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sfumato.core.errors import MediaError
from sfumato.redaction.images.metadata import leftovers
from sfumato.redaction.images.read import read_picture
from sfumato.redaction.images.write import write_picture
from sfumato.redaction.settings import Settings


def stripped(source: Path) -> tuple[bytes, int, int]:
    """Return a picture's pixels as a file of the same format, and its width and height in pixels.

    Guarantee (heuristic):
        The bytes are written from the decoded pixels, upright, and checked for anything but pixels. The
        pixels are all there: this hides nobody.

    Raises:
        UnreadableMedia, UnsupportedMedia, MediaTooLarge: the file cannot be read.
        MediaError: something but pixels was left.
    """
    picture = read_picture(source, Settings().max_pixels)
    height, width = picture.pages[0].pixels.shape[:2]
    with tempfile.TemporaryDirectory(prefix="sfumato-") as folder:
        target = Path(folder) / f"picture{source.suffix.lower()}"
        try:
            write_picture(picture, target)
        except (OSError, ValueError, RuntimeError) as error:
            raise MediaError(f"it could not be written as {picture.kind}: {error}") from error
        if found := leftovers(target):
            raise MediaError(f"its copy still held {'; '.join(found)}; it was not kept")
        return target.read_bytes(), width, height
