"""Damage that a decoder covers up: libjpeg fills what is lost of a JPEG with grey and says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfumato.core.errors import UnreadableMedia


def refuse_damaged_jpeg(path: Path) -> None:
    """Refuse a JPEG whose coded data breaks off or cannot be: who hides in the rest may not be found.

    FFmpeg's decoder, told to stop at the first error, is asked as well: it noticed each of 80 pictures
    whose coded data ended early, of which Pillow noticed none. A few flipped bits often give other valid
    data, which nothing can tell from a picture.

    Raises:
        UnreadableMedia: the coded data is damaged.
    """
    import av
    import av.error

    decoder: Any = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
    decoder.thread_count = 1
    try:
        frames = [*decoder.decode(av.Packet(path.read_bytes())), *decoder.decode(None)]
    except av.error.InvalidDataError as error:
        raise UnreadableMedia(
            f"{path.name} is damaged: its coded data breaks off or is mixed up, so that part of the picture "
            "is lost. Copy it again from where it came, or save it anew if it looks right"
        ) from error
    except (av.error.FFmpegError, ValueError):
        return  # a kind of JPEG that only the other decoder knows
    if frames and frames[0].is_corrupt:
        raise UnreadableMedia(f"{path.name} is damaged: part of the picture is lost. Copy it again")
