"""How files of each suffix are written: container and encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av

from sfumato.core.errors import UnsupportedMedia

#: The cost of "superfast", or a third more where quality.py asks for a finer search. Bits are not moved from
#: smooth to rough parts (aq-mode), which costs 1 dB at the same size; quality.py chooses the crf. Looking
#: five frames ahead, with B frames in a fixed order, takes a tenth to a fifth less for some 5 % more bits.
#: Without cpu-independent, mbtree runs code that rounds as each kind of processor does and, with AVX-512,
#: reads memory that nobody wrote to (x264 core 165): equal frames gave other bytes, in 1 of 80 runs on a toy
#: clip and in most where memory was full.
X264: Mapping[str, str] = {
    "crf": "18",
    "preset": "superfast",
    "a53cc": "0",
    "x264-params": "mbtree=1:rc-lookahead=5:b-adapt=0:aq-mode=0:cpu-independent=1",
}
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
FAST = {"movflags": "+faststart"}
_AS_IS = {"avoid_negative_ts": "disabled"}  # or sound that begins before nought shifts the picture
#: suffix -> how it is written. AVI knows no times but counts chunks, so H.264 in it is dated one frame late.
TARGETS: Mapping[str, Target] = {
    ".mp4": Target(muxer="mp4", holds=_MP4, muxing=FAST),
    ".m4v": Target(muxer="mp4", holds=_MP4, muxing=FAST),
    ".mov": Target(muxer="mov", holds=("aac", "mp3", "ac3", "eac3", "alac", "pcm_"), muxing=FAST),
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
