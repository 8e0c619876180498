"""Writing a video: source times kept, nothing in the file but pictures and sound."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error

from sfumato.core.errors import MediaError
from sfumato.redaction.videos import h264
from sfumato.redaction.videos.encode import BITEXACT, Coded, Coding
from sfumato.redaction.videos.target import FAST, Target, target_of

__all__ = ["BITEXACT", "Target", "VideoWriter", "target_of"]


class VideoWriter:
    """One video file being written from coded pictures; a context manager that closes it.

    Guarantee:
        Pictures keep the times they are given. No metadata, chapter, timecode or data stream is written.

    Args:
        path: file to write; its suffix does not matter.
        coding: how its pictures are encoded.
        source: parameter sets of copied pictures, if there are any.
        times: of all pictures, in order of showing, in units of `coding.time_base`.
        depth: packets by which one may come before its turn in order of showing.
    """

    def __init__(
        self, path: Path, coding: Coding, source: h264.Header | None, times: Sequence[int], depth: int
    ) -> None:
        target = coding.form
        options = {**target.muxing, "fflags": "+bitexact"}
        if target.muxing == FAST:  # a late start is told in units of the movie, a millisecond by default
            options["movie_timescale"] = str(_timescale(coding.time_base))
        self.target = target
        self.container = av.open(str(path.absolute()), "w", format=target.muxer, container_options=options)
        self._times, self._depth = times, min(depth, len(times) - 1)
        self._base, self._count = coding.time_base, 0
        self._stream: Any = self.container.add_stream(target.video, rate=coding.rate)
        context = self._stream.codec_context
        coding.dress(context)  # it encodes nothing: only what it says of itself is written
        context.open()
        if coding.is_h264:
            own = h264.annexb_header(context.extradata)
            context.extradata = h264.write_header([source, own] if source else [own])

    @property
    def now(self) -> Fraction:
        """The time of the next packet in the file, in seconds."""
        return self._dts() * self._base

    def _dts(self) -> int:
        """Return when the next picture is decoded: when another is shown, so that times rise evenly."""
        times, depth = self._times, self._depth
        if self._count < depth:
            return times[self._count] - (times[depth] - times[0])
        return times[self._count - depth]

    def write(self, coded: Coded) -> None:
        """Write the next picture in order of decoding.

        Raises:
            MediaError: it comes after its time, or there are more than were announced.
        """
        if self._count >= len(self._times) or coded.pts < (dts := self._dts()):
            raise MediaError(f"picture {self._count} came out of order; nothing was written")
        packet = av.Packet(coded.data)
        packet.stream, packet.time_base = self._stream, self._base
        packet.pts, packet.dts, packet.duration = coded.pts, dts, coded.duration
        packet.is_keyframe = coded.key
        self.container.mux(packet)
        self._count += 1

    def finish(self) -> None:
        """Check that no picture is missing.

        Raises:
            MediaError: fewer came than were announced.
        """
        if self._count != len(self._times):
            raise MediaError(f"{self._count} of {len(self._times)} pictures were made; nothing was written")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.container.close()
        except (av.error.FFmpegError, ValueError) as failure:
            if error is None:
                raise MediaError(f"the video could not be finished: {failure}") from failure


def _timescale(time_base: Fraction) -> int:
    """Return ticks per second that hold every time in units of `time_base`, as the MP4 muxer chooses them."""
    scale = time_base.denominator
    while scale < 10_000:
        scale *= 2
    return scale
