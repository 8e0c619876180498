"""Frames as pixels: upright copies in a format that the encoder keeps, planes to draw on, and scene cuts."""

from __future__ import annotations

import statistics
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

FULL_RANGE, LIMITED_RANGE = 2, 1  # AVColorRange
SMPTE170M = 6  # AVColorSpace: the matrix that RGB is converted with


@dataclass(frozen=True, slots=True)
class Turn:
    """How stored pixels are brought upright: transposed first, then mirrored along x and y."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return a (height, width, ...) array turned upright; a view where possible."""
        turned = pixels.swapaxes(0, 1) if self.transpose else pixels
        return turned[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """What every frame of a video is drawn on: size, sample format and colour tags of the output.

    Args:
        width, height: of the upright picture, in pixels.
        pix_fmt: FFmpeg's name of a planar YUV format, 8 or 10 bits.
        bits: bits per sample.
        cell: luma pixels per chroma sample along x and y.
        range, space, primaries, transfer: FFmpeg's numbers for the colour tags.
        aspect: width of a pixel over its height, or None when not said.
        turn: how stored pixels are brought upright.
        notes: what the output cannot keep, as sentences.
    """

    width: int
    height: int
    pix_fmt: str
    bits: int
    cell: tuple[int, int]
    range: int
    space: int
    primaries: int
    transfer: int
    aspect: Fraction | None
    turn: Turn
    notes: tuple[str, ...] = ()

    @property
    def full_range(self) -> bool:
        """Whether luma uses all values instead of 16..235."""
        return self.range == FULL_RANGE

    def as_stored(self, frame: Any) -> bool:
        """Say whether a decoded frame already is what would be drawn: same samples, upright."""
        return frame.format.name == self.pix_fmt and self.turn == Turn()

    def draw(self, frame: Any) -> Any:
        """Return a frame of our own, upright, with the picture of a decoded one and nothing else of it.

        The decoder still needs its frames to build later ones on, so they are never drawn on; and side data
        (captions, time codes, camera data) stays behind.
        """
        own = av.VideoFrame(self.width, self.height, self.pix_fmt)
        for mine, theirs in zip(planes(own), planes(self._converted(frame)), strict=True):
            mine[:] = self.turn.apply(theirs)
        return own

    def rgb(self, frame: Any) -> NDArray[np.uint8]:
        """Return a decoded frame as an upright (height, width, 3) uint8 RGB picture, not to be written to."""
        plane: Any = _reformatter().reformat(frame, format="rgb24").planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -1)
        rows = rows[::-1] if plane.line_size < 0 else rows
        pixels = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        picture: NDArray[np.uint8] = np.ascontiguousarray(self.turn.apply(pixels))
        return picture

    def _converted(self, frame: Any) -> Any:
        if frame.format.name.replace("yuvj", "yuv") == self.pix_fmt:
            return frame
        if frame.format.is_rgb or frame.format.has_palette:
            return frame.reformat(
                format=self.pix_fmt,
                dst_colorspace="SMPTE170M",
                dst_color_range="MPEG",
                src_color_range="JPEG",
            )
        return frame.reformat(
            format=self.pix_fmt, src_color_range=int(self.range), dst_color_range=int(self.range)
        )


_OWN = threading.local()


def _reformatter() -> VideoReformatter:
    """Return what converts frames in this thread: a frame's own would begin with tables, every time anew."""
    if not hasattr(_OWN, "reformatter"):
        _OWN.reformatter = VideoReformatter()
    reformatter: VideoReformatter = _OWN.reformatter
    return reformatter


def canvas_for(
    frame: Any, context: Any, aspect: Fraction | None, formats: Collection[str], even: bool
) -> Canvas:
    """Return the canvas for a video, from its first decoded frame.

    Args:
        frame: the first frame.
        context: its decoder, for the colour tags that a frame does not carry.
        aspect: sample aspect ratio as stored, or None.
        formats: pixel formats that the encoder takes.
        even: whether the encoder needs even sides where chroma is halved.
    """
    turn = turn_of(frame)
    width, height = (frame.height, frame.width) if turn.transpose else (frame.width, frame.height)
    source = frame.format
    pix_fmt, notes = _pixel_format(source, turn, formats, (width, height) if even else None)
    own = av.VideoFormat(pix_fmt)
    rgb = source.is_rgb or source.has_palette
    full = source.name.startswith("yuvj") or (not rgb and int(frame.color_range) == FULL_RANGE)
    return Canvas(
        width=width,
        height=height,
        pix_fmt=pix_fmt,
        bits=max(component.bits for component in own.components),
        cell=(16 // own.chroma_width(16), 16 // own.chroma_height(16)),
        range=FULL_RANGE if full else LIMITED_RANGE if rgb else int(frame.color_range),
        space=SMPTE170M if rgb else int(frame.colorspace),
        primaries=int(context.color_primaries),
        transfer=int(context.color_trc),
        aspect=1 / aspect if aspect and turn.transpose else aspect,
        turn=turn,
        notes=notes,
    )


def turn_of(frame: Any) -> Turn:
    """Return how a frame is brought upright, to the nearest quarter turn, from its display matrix."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data)[:36], "=i4")[:5].tolist()
            if abs(b) > abs(a):
                return Turn(True, c < 0, b < 0)
            return Turn(False, a < 0, d < 0)
    return Turn()


def planes(frame: Any) -> list[NDArray[Any]]:
    """Return the planes of a planar frame as (height, width) arrays that share its memory."""
    dtype = _sample_type(frame.format.name)
    result = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width]
        result.append(rows[::-1] if plane.line_size < 0 else rows)
    return result


@cache
def _sample_type(pix_fmt: str) -> np.dtype[Any]:
    """Return the type of the samples of a pixel format; frames of a video all have the same."""
    wide = max(component.bits for component in av.VideoFormat(pix_fmt).components) > 8
    return np.dtype(np.uint16 if wide else np.uint8)


def _pixel_format(
    source: Any, turn: Turn, formats: Collection[str], sides: tuple[int, int] | None
) -> tuple[str, tuple[str, ...]]:
    """Return the planar YUV format nearest to `source` that the encoder takes, and what is lost by it."""
    colour = [component for component in source.components if not component.is_alpha]
    cell = (16 // source.chroma_width(16), 16 // source.chroma_height(16))
    if source.is_rgb or source.has_palette:
        name = "444"
    elif len(colour) == 1 or min(cell) >= 2:
        name = "420"
    else:
        name = "422" if cell[0] >= 2 and not turn.transpose else "444"
    if sides and ((name != "444" and sides[0] % 2) or (name == "420" and sides[1] % 2)):
        name = "444"
    if f"yuv{name}p" not in formats:
        name = "420"
    notes = []
    if len(colour) < len(source.components) or source.name == "pal8":
        notes.append("transparency was dropped")
    depth = max(component.bits for component in colour)
    suffix = "10le" if depth > 8 and f"yuv{name}p10le" in formats else ""
    if depth > (10 if suffix else 8):
        notes.append(f"{depth} bits per sample became {10 if suffix else 8}")
    return f"yuv{name}p{suffix}", tuple(notes)


class CutFinder:
    """Says at which frames a new scene begins, from a coarse look at brightness.

    A cut is a change of the whole picture, large in itself and against the changes just before: a pan or a
    shaking hand changes every frame as much. A false cut costs two looks of the detector.
    """

    def __init__(self, least: float = 16.0, ratio: float = 4.0) -> None:
        self._least, self._ratio = least, ratio
        self._last: NDArray[np.float32] | None = None
        self._usual: deque[float] = deque(maxlen=12)

    def is_cut(self, frame: Any) -> bool:
        """Return whether a decoded frame begins a new scene; frames must come in order."""
        thumb = thumb_of(frame)
        last, self._last = self._last, thumb
        if last is None or last.shape != thumb.shape:
            return last is not None
        usual, change = self.usual, _change(last, thumb)
        self._usual.append(change)
        return self._is_large(change, usual)

    @property
    def usual(self) -> float:
        """The usual change from frame to frame, lately."""
        return statistics.median(self._usual) if self._usual else 0.0

    def is_jump(self, last: NDArray[np.float32], thumb: NDArray[np.float32], usual: float) -> bool:
        """Say whether two thumbs in a row are of two scenes, where `usual` was the change before."""
        return last.shape != thumb.shape or self._is_large(_change(last, thumb), usual)

    def _is_large(self, change: float, usual: float) -> bool:
        return change > self._least and change > self._ratio * usual


def _change(last: NDArray[np.float32], thumb: NDArray[np.float32]) -> float:
    return float(np.abs(thumb - last).mean())


def thumb_of(frame: Any) -> NDArray[np.float32]:
    """Return a coarse grid of brightness, 0..255."""
    if not frame.format.is_planar or frame.format.is_rgb or frame.format.is_big_endian:
        frame = frame.reformat(format="gray")
    luma = planes(frame)[0]
    grid = luma[:: max(luma.shape[0] // 36, 1), :: max(luma.shape[1] // 64, 1)].astype(np.float32)
    bits = frame.format.components[0].bits
    thumb: NDArray[np.float32] = grid / np.float32(2.0 ** (bits - 8))
    return thumb
