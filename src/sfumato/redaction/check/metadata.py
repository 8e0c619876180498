"""What a file tells besides its pixels, and the pictures hidden in it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.redaction.check.looks import Looker, Picture
from sfumato.redaction.check.report import Find
from sfumato.redaction.plan import Kind

#: How embedded pictures begin.
STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
#: Most embedded pictures that are looked at in one file, and the least side of one in pixels.
MOST, LEAST = 16, 16
#: Thumbnails are enlarged to this long side: faces in them are few pixels wide.
ENLARGED = 480


def told(path: Path, kind: Kind, name: str, *, subtitles: bool = False) -> Iterator[Find]:
    """Yield everything in a file that is on no allow-list; `subtitles` says whether text tracks are on it.

    Raises:
        MediaError: a video that does not open.
    """
    if kind == "image":
        from sfumato.redaction.images.metadata import leftovers

        found = leftovers(path)
    else:
        from sfumato.redaction.videos import metadata

        found = metadata.leftovers(path, subtitles=subtitles)
    for what in found:
        yield Find(file=name, kind="metadata", label=what, look="metadata against the allow-list")


def thumbnails(path: Path, kind: Kind, name: str, looker: Looker) -> Iterator[Find]:
    """Yield what is seen in pictures embedded in a file: EXIF thumbnails, previews, covers of videos."""
    for picture in _embedded(path) if kind == "image" else _attached(path):
        for seen in looker.closely(_enlarged(picture)):
            yield Find(
                file=name, kind="thumbnail", label=seen.label, score=round(seen.score, 4), look=seen.look
            )


def _embedded(path: Path) -> Iterator[Picture]:
    """Yield every JPEG and PNG that begins inside a file, after its own beginning."""
    data = path.read_bytes()
    spots: list[int] = []
    for start in STARTS:
        at = data.find(start, 1)
        while at >= 0 and len(spots) < MOST:
            spots.append(at)
            at = data.find(start, at + 1)
    for at in sorted(spots):
        picture = _decoded(data[at:])
        if picture is not None:
            yield picture


def _decoded(data: bytes) -> Picture | None:
    """Return a picture, or None: bytes that only look like the beginning of one are common."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if min(image.size) < LEAST:
                return None
            return np.array(image.convert("RGB"))
    except Exception:  # decoders raise almost any type on bytes that are no picture
        return None


def _attached(path: Path) -> Iterator[Picture]:
    """Yield the pictures attached to a video."""
    import av

    from sfumato.redaction.videos.reader import ATTACHED_PICTURE

    with av.open(str(path.absolute()), metadata_errors="replace") as container:
        for stream in container.streams.video:
            if stream.disposition.value & ATTACHED_PICTURE:
                for packet in container.demux(stream):
                    frames: list[Any] = packet.decode()
                    for frame in frames:
                        yield frame.to_ndarray(format="rgb24")
                break


def _enlarged(picture: Picture) -> Picture:
    from sfumato.vision.opencv import opencv

    cv2 = opencv()
    factor = ENLARGED / max(picture.shape[:2])
    if factor <= 1:
        return picture
    size = (round(picture.shape[1] * factor), round(picture.shape[0] * factor))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
