"""Encoding: frames of ours become packets that can lie beside packets of the source."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av

from sfumato.redaction.videos import h264
from sfumato.redaction.videos.frames import Canvas
from sfumato.redaction.videos.target import Target

BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no library name or version in the stream
GLOBAL_HEADER = 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
#: Threads of the encoder. What it writes depends on their number, so it is the same on every machine; with
#: one, their timing does not matter either. Decoding has a thread of its own, and chunks are independent.
THREADS = 1


class Coded(NamedTuple):
    """One coded picture: its bytes, its time and length in units of the output, and whether decoding can
    begin with it; `copied` tells that the bytes are the source's."""

    data: bytes
    pts: int
    duration: int
    key: bool
    copied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How pictures of one video are encoded; picklable.

    Args:
        form: container and encoders.
        canvas: size, sample format and colour tags.
        time_base: unit of times in the output, in seconds.
        rate: usual frames per second; guides the encoder only.
        number: id of our H.264 parameter sets.
        options: of the encoder, over those of `form`.
    """

    form: Target
    canvas: Canvas
    time_base: Fraction
    rate: Fraction
    number: int = 0
    options: tuple[tuple[str, str], ...] = ()

    @property
    def is_h264(self) -> bool:
        """Whether the output is H.264."""
        return self.form.video == "libx264"

    def settings(self) -> dict[str, str]:
        """Return the options of the encoder."""
        options = {**self.form.options, **dict(self.options)}
        if self.is_h264:  # parameter sets that do not depend on the pictures or their quality
            own = f"sps-id={self.number}:stitchable=1"
            options["x264-params"] = ":".join(filter(None, (options.get("x264-params"), own)))
        return options

    def dress(self, context: Any) -> None:
        """Set up an encoder that is not open yet."""
        canvas = self.canvas
        context.width, context.height, context.pix_fmt = canvas.width, canvas.height, canvas.pix_fmt
        context.time_base, context.framerate = self.time_base, self.rate
        context.color_range, context.colorspace = canvas.range, canvas.space
        context.color_primaries, context.color_trc = canvas.primaries, canvas.transfer
        if canvas.aspect:
            context.sample_aspect_ratio = canvas.aspect
        context.thread_type, context.thread_count = "AUTO", THREADS
        context.flags |= BITEXACT | (GLOBAL_HEADER if self.is_h264 else 0)
        context.options = self.settings()

    def context(self) -> Any:
        """Return an encoder of its own, open."""
        context: Any = av.CodecContext.create(self.form.video, "w")
        self.dress(context)
        context.open()
        return context


class Coder:
    """Encodes one run of frames that begins with a key frame.

    Guarantee:
        What comes out depends on the frames, their times and the coding alone: one thread, and no assembly of
        x264 that reads what nobody wrote (see `X264` in target.py). Nothing but pictures is in it.

    Attributes:
        errors: squared errors of luma, summed, of each picture so far, where the options ask for "psnr".

    Args:
        coding: how.
    """

    def __init__(self, coding: Coding) -> None:
        self.errors: list[int] = []
        self._coding = coding
        self._context = coding.context()
        self._durations: dict[int, int] = {}

    def write(self, frame: Any, pts: int, duration: int) -> Iterator[Coded]:
        """Take a frame of ours with its time and length in units of the output; yield what is ready."""
        frame.pts, frame.time_base = pts, self._coding.time_base
        self._durations[pts] = duration
        yield from self._coded(self._context.encode(frame))

    def finish(self) -> Iterator[Coded]:
        """Yield what the encoder still holds back."""
        yield from self._coded(self._context.encode(None))

    def _coded(self, packets: list[Any]) -> Iterator[Coded]:
        for packet in packets:
            if (error := _luma_error(packet)) is not None:
                self.errors.append(error)
            data = bytes(packet)
            if self._coding.is_h264:
                data = h264.own_picture(data)
            yield Coded(data, packet.pts, self._durations.pop(packet.pts, 1), packet.is_keyframe)


def _luma_error(packet: Any) -> int | None:
    """Return the sum of squared errors of the luma of a packet, where the encoder tells it."""
    if not packet.has_sidedata("quality_stats"):
        return None
    data = bytes(packet.get_sidedata("quality_stats"))
    return int(struct.unpack_from("<Q", data, 8)[0]) if len(data) >= 16 and data[5] else None
