"""Contact sheets: small pictures of outputs, as JPEG without any metadata. Only outputs are opened here."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sfumato.redaction.plan import Kind

#: Long side of a thumbnail, in pixels.
SIDE = 240
QUALITY = 72
#: Most pictures, most videos and most frames of a video that are shown.
PICTURES, VIDEOS, FRAMES = 48, 12, 12

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Thumb:
    """One small picture. `jpeg` is None where the output could not be shown."""

    jpeg: bytes | None
    width: int = 0
    height: int = 0
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """The thumbnails of one video, or of many pictures."""

    title: str
    thumbs: tuple[Thumb, ...]


def sheets(outputs: Sequence[tuple[Path, Kind, str]]) -> Iterator[Sheet]:
    """Yield contact sheets of outputs: one for the pictures, evenly spread, and one per video.

    Args:
        outputs: (file, "image" or "video", sha256), in the order of the receipt.
    """
    numbered = [(number, *output) for number, output in enumerate(outputs, start=1)]
    pictures = [one for one in numbered if one[2] == "image"]
    if pictures:
        shown = spread(pictures, PICTURES)
        thumbs = tuple(_picture(path, f"{number} · {digest[:8]}") for number, path, _, digest in shown)
        yield Sheet(_title(len(shown), len(pictures), "picture"), thumbs)
    videos = [one for one in numbered if one[2] == "video"]
    for number, path, _, digest in spread(videos, VIDEOS):
        yield Sheet(f"Video {number} · {digest[:8]}", _video(path))


def spread(items: Sequence[T], most: int) -> list[T]:
    """Return at most `most` items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[index * (len(items) - 1) // (most - 1)] for index in range(most)]


def _title(shown: int, total: int, what: str) -> str:
    if shown < total:
        return f"{shown} of {total} {what}s, evenly spread"
    return f"{total} {what}{'s' * (total != 1)}"


def _picture(path: Path, caption: str) -> Thumb:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures; this one is our own
            return _thumb(_open(path), caption)
    except Exception:  # a picture that this machine cannot show is not a failed redaction
        return Thumb(None, caption=caption)


def _open(path: Path) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        import pillow_heif

        return pillow_heif.open_heif(path).to_pillow()
    image.draft("RGB", (2 * SIDE, 2 * SIDE))
    return image


def _thumb(image: Any, caption: str) -> Thumb:
    """Return a small copy that holds pixels and nothing else."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value / 257).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "P"):
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    plain = Image.frombytes("RGB", image.size, image.tobytes())
    out = io.BytesIO()
    plain.save(out, "JPEG", quality=QUALITY, optimize=True)
    return Thumb(out.getvalue(), *plain.size, caption)


def _video(path: Path) -> tuple[Thumb, ...]:
    try:
        return tuple(_frames(path))
    except Exception:  # as for pictures
        return (Thumb(None),)


def _frames(path: Path) -> Iterator[Thumb]:
    """Yield thumbnails of evenly spread frames, each reached from the key frame before it."""
    import av

    with av.open(str(path.absolute())) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        base = float(stream.time_base or 1)
        start = float(stream.start_time or 0) * base
        length = float(stream.duration or 0) * base or (container.duration or 0) / av.time_base
        last = -1.0
        for index in range(FRAMES):
            at = start + length * (index + 0.5) / FRAMES
            if at <= last:
                continue
            container.seek(round(at / base), stream=stream)
            frame = _at(container.decode(stream), at)
            if frame is None:
                return
            shown = float(frame.time or 0)
            if shown > last:
                last = shown
                yield _thumb(frame.to_image(), f"{shown - start:.1f} s")


def _at(frames: Iterator[Any], at: float) -> Any:
    """Return the frame shown at a time: the last one that begins no later, else the first."""
    found = None
    for frame in frames:
        if found is not None and (frame.time or 0) > at:
            break
        found = frame
    return found
