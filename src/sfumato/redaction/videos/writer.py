"""Writing a video: source times kept, nothing in the file but pictures and sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error

from sfumato.core.errors import MediaError, UnsupportedMedia
from sfumato.redaction.videos.frames import Canvas

BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no library name or version in the stream
X264: Mapping[str, str] = {"crf": "18", "preset": "veryfast", "a53cc": "0"}
VP9: Mapping[str, str] = {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"}
MPEG4: Mapping[str, str] = {"flags": "+qscale", "global_quality": str(3 * 118), "bf": "0"}  # FF_QP2LAMBDA


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How files of one suffix are written.

    Args:
        muxer: FFmpeg's name of the container format.
        video, audio: encoders; `audio` is used where the source's sound cannot be copied.
        holds: beginnings of the names of audio codecs that players expect in the container.
        options: of the video encoder.
        even: whether the encoder needs even sides where chroma is halved.
        muxing: options of the container.
    """

    muxer: str
    video: str = "libx264"
    audio: str = "aac"
    holds: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=lambda: X264)
    even: bool = True
    muxing: Mapping[str, str] = field(default_factory=dict)

    @property
    def steady(self) -> bool:
        """Whether the container has one frame duration for all frames, and starts at nought."""
        return self.muxer == "avi"

    def pixel_formats(self) -> frozenset[str]:
        """Return the pixel formats that the video encoder takes.

        Raises:
            UnsupportedMedia: the encoder is not in the installed PyAV.
        """
        if self.video not in av.codecs_available:
            raise UnsupportedMedia(
                f"the installed PyAV ({av.__version__}) has no encoder {self.video!r}, which "
                f"{self.muxer} files need. Install the wheel from PyPI (pip install --force-reinstall av), "
                f"or choose another suffix: {', '.join(TARGETS)}"
            )
        return frozenset(one.name for one in av.Codec(self.video, "w").video_formats or ())


_MP4 = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac", "pcm_")
_FAST = {"movflags": "+faststart"}
_AS_IS = {"avoid_negative_ts": "disabled"}  # or sound that begins before nought shifts the picture
#: suffix -> how it is written. AVI knows no times but counts chunks, so H.264 in it is dated one frame late.
TARGETS: Mapping[str, Target] = {
    ".mp4": Target(muxer="mp4", holds=_MP4, muxing=_FAST),
    ".m4v": Target(muxer="mp4", holds=_MP4, muxing=_FAST),
    ".mov": Target(muxer="mov", holds=("aac", "mp3", "ac3", "eac3", "alac", "pcm_"), muxing=_FAST),
    ".mkv": Target(muxer="matroska", holds=(*_MP4, "mp2", "vorbis"), muxing=_AS_IS),
    ".webm": Target(
        muxer="webm",
        video="libvpx-vp9",
        audio="libopus",
        holds=("opus", "vorbis"),
        options=VP9,
        even=False,
        muxing=_AS_IS,
    ),
    ".avi": Target(
        muxer="avi",
        video="mpeg4",
        audio="libmp3lame",
        holds=("mp3", "mp2", "ac3", "pcm_"),
        options=MPEG4,
        even=False,
    ),
}


def target_of(path: Path) -> Target:
    """Return how a file of this name is written.

    Raises:
        UnsupportedMedia: a suffix that no video is written to.
    """
    if path.suffix.lower() not in TARGETS:
        raise UnsupportedMedia(
            f"no video is written to {path.suffix or 'a name without suffix'!r}; "
            f"choose one of {', '.join(TARGETS)}"
        )
    return TARGETS[path.suffix.lower()]


class VideoWriter:
    """One video file being written; a context manager that closes it.

    Guarantee:
        Frames keep the times they are given. No metadata, chapter, timecode or data stream is written.

    Args:
        path: file to write; its suffix does not matter.
        target: container and encoders.
        canvas: size, sample format and colour tags.
        time_base: unit of the times given to `write`, in seconds.
        rate: usual frames per second; guides the encoder only.
    """

    def __init__(
        self, path: Path, target: Target, canvas: Canvas, time_base: Fraction, rate: Fraction
    ) -> None:
        options = {**target.muxing, "fflags": "+bitexact"}
        if target.muxing is _FAST:  # a late start is told in units of the movie, a millisecond by default
            options["movie_timescale"] = str(_timescale(time_base))
        self.target = target
        self.container = av.open(str(path.absolute()), "w", format=target.muxer, container_options=options)
        self._time_base = 1 / rate if target.steady else time_base
        self._usual = max(round(1 / rate / self._time_base), 1)
        self._durations: dict[int, int] = {}
        self._stream: Any = self.container.add_stream(target.video, rate=rate, options=dict(target.options))
        self._dress(self._stream.codec_context, canvas)

    def _dress(self, context: Any, canvas: Canvas) -> None:
        context.width, context.height, context.pix_fmt = canvas.width, canvas.height, canvas.pix_fmt
        context.time_base = self._time_base
        context.color_range, context.colorspace = canvas.range, canvas.space
        context.color_primaries, context.color_trc = canvas.primaries, canvas.transfer
        if canvas.aspect:
            context.sample_aspect_ratio = canvas.aspect
        context.thread_type = "AUTO"
        context.flags |= BITEXACT

    def write(self, frame: Any, pts: int, duration: int | None, time_base: Fraction) -> None:
        """Encode and write one frame.

        Args:
            frame: in the format of the canvas.
            pts, duration: its time and length, in units of `time_base`; None: not known.
            time_base: in seconds.
        """
        at = round(pts * time_base / self._time_base)
        frame.pts, frame.time_base = at, self._time_base
        self._durations[at] = round((duration or 0) * time_base / self._time_base) or self._usual
        self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, 0) or 1
            self.container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds back."""
        self._mux(self._stream.encode())

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
