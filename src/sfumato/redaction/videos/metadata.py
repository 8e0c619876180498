"""What a written video still tells besides its pictures and sound; checked on the file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import av.error

from sfumato.core.errors import MediaError
from sfumato.redaction.videos.labels import LANGUAGE
from sfumato.redaction.videos.reader import ATTACHED_PICTURE

#: What muxers write of themselves, the same for every file: key -> values allowed ("*": a number or a time).
ALLOWED: dict[str, tuple[str, ...]] = {
    "major_brand": ("*",),
    "minor_version": ("*",),
    "compatible_brands": ("*",),
    "encoder": ("Lavf",),
    "software": ("Lavf",),
    "language": ("und",),
    "handler_name": ("VideoHandler", "SoundHandler", "SubtitleHandler"),
    "vendor_id": ("[0][0][0][0]", "FFMP"),
    "duration": ("*",),
    "encoding_params": ("*",),
}

#: Codecs in which subtitles are written, as FFmpeg's decoders are called.
TEXT = ("mov_text", "srt", "subrip", "webvtt")


def leftovers(path: Path, *, subtitles: bool = False) -> list[str]:
    """Return what a video file holds besides one video, its sound and the muxer's own marks.

    >>> leftovers(Path("redacted.mp4"))  # doctest: +SKIP
    []

    Guarantee:
        Looks at the file, not at how it was made: every container and stream tag against a list of what may
        be there, the kinds of streams, chapters, and attached pictures.

    Args:
        path: a video file.
        subtitles: whether tracks of subtitles in plain text may be there.

    Raises:
        MediaError: the file does not open.
    """
    try:
        with av.open(str(path.absolute()), metadata_errors="replace") as container:
            return left_in(container, subtitles=subtitles)
    except av.error.FFmpegError as error:
        raise MediaError(f"the written video does not open again: {error.strerror}") from error


def left_in(container: Any, *, subtitles: bool) -> list[str]:
    """Return what `leftovers` does, of a file that is open."""
    found = _foreign(container.metadata, "the file")
    for stream in container.streams:
        found += _foreign(stream.metadata, f"{stream.type} stream {stream.index}")
        if not (stream.type in ("video", "audio") or (subtitles and _is_text(stream))):
            found.append(f"{stream.type} stream {stream.index}")
        elif stream.disposition.value & ATTACHED_PICTURE:
            found.append(f"attached picture in stream {stream.index}")
    if len(container.streams.video) != 1:
        found.append(f"{len(container.streams.video)} video streams")
    if hasattr(container, "chapters") and container.chapters():
        found.append(f"{len(container.chapters())} chapters")
    return found


def _is_text(stream: Any) -> bool:
    return (
        stream.type == "subtitle" and stream.codec_context is not None and stream.codec_context.name in TEXT
    )


def _foreign(metadata: dict[str, Any], where: str) -> list[str]:
    """Return the tags that are not the muxer's own, by name; values may be what must not be told."""
    found = []
    for key, value in metadata.items():
        allowed = ALLOWED.get(key.lower(), ())
        spoken = key.lower() == "language" and LANGUAGE.fullmatch(str(value))
        if not ("*" in allowed or str(value) in allowed or spoken):
            found.append(f"{key!r} of {where}")
    return found
