"""The sound of a video: kept, silenced or dropped; its shift against the picture stays.

Sound that is kept is decoded and encoded anew, in its own codec where that can be. Codec headers, fill
elements, padding and the ends of packets have room for words (in AAC, MP3, AC-3 and Opus alike), and only
samples are known to hold sound alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Protocol

import av
import av.error

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.settings import Audio
from sfumato.redaction.videos.labels import label
from sfumato.redaction.videos.reader import VideoReader
from sfumato.redaction.videos.writer import BITEXACT, VideoWriter

#: Beginning of the name of a codec -> the encoder for it.
ENCODERS = {
    "aac": "aac", "mp3": "libmp3lame", "opus": "libopus", "ac3": "ac3", "eac3": "eac3", "flac": "flac",
    "alac": "alac", "mp2": "mp2",
}  # fmt: skip
#: Bits per second and channel for encoders that lose some: at least and at most.
BITS = (64_000, 160_000)
#: Encoders whose bits per second are left at what FFmpeg chooses: lossless ones, and MP2 with its few rates.
FREE = ("flac", "alac", "mp2", "pcm_")
RATE = 48_000
#: How far silence is written ahead of the picture, in seconds.
AHEAD = Fraction(1, 2)
#: How late sound may start, in seconds, in a container that starts all tracks at nought.
AVI_SLACK = Fraction(1, 20)


class Track(Protocol):
    """One track of sound on its way into the output; `lost` counts packets that do not decode."""

    lost: int

    def take(self, packet: Any) -> None:
        """Take one packet of the source's track."""

    def until(self, time: Fraction) -> None:
        """Write what belongs before a time in seconds."""

    def finish(self) -> None:
        """Write what is left."""


class Sound:
    """All tracks of sound of one video.

    Args:
        reader: the open source; None: it has no sound.
        writer: the output, before its first frame.
        mode: "copy", "mute" or "drop".
        spans: audio stream index -> (start, end) of the source's track in seconds.
        end: of the pictures, in seconds; silence goes no further.

    Guarantee:
        Of the source's sound nothing but samples reaches the output.

    Raises:
        UnsupportedMedia: a track cannot be decoded.
    """

    def __init__(
        self,
        reader: VideoReader | None,
        writer: VideoWriter,
        mode: Audio,
        spans: dict[int, tuple[Fraction, Fraction]],
        end: Fraction,
    ) -> None:
        self.notes: list[str] = []
        self._tracks: dict[int, Track] = {}
        if reader is None or mode == "drop":
            return
        for stream in reader.audio:
            if stream.index not in spans or (mode == "mute" and spans[stream.index][0] >= end):
                self.notes.append("an audio track without sound was dropped")
                continue
            start = spans[stream.index][0]
            if mode == "mute":
                self._tracks[stream.index] = _Silent(
                    writer, stream, (start, min(spans[stream.index][1], end))
                )
            elif writer.target.steady and start > AVI_SLACK:
                raise UnsupportedMedia(
                    f"{reader.path.name}: its sound starts at {float(start):.3f} s, which .avi cannot hold; "
                    f"write to .mp4 or .mkv, or use audio='mute' or audio='drop'"
                )
            else:
                self._tracks[stream.index] = track = _Transcoded(writer, stream, reader.path.name)
                if not track.same:
                    self.notes.append(
                        f"an audio track was encoded anew, from {track.source} to {track.codec}"
                    )

    def __len__(self) -> int:
        return len(self._tracks)

    def take(self, packet: Any) -> None:
        """Take one packet of any audio stream of the source."""
        if packet.stream_index in self._tracks:
            self._tracks[packet.stream_index].take(packet)

    def until(self, time: Fraction) -> None:
        """Write what belongs before a time in seconds and a little ahead of it."""
        for track in self._tracks.values():
            track.until(time + AHEAD)

    def finish(self) -> None:
        """Write what is left."""
        for track in self._tracks.values():
            track.finish()
        if lost := sum(track.lost for track in self._tracks.values()):
            self.notes.append(f"{lost} damaged packets of sound were left out")


def _name(context: Any) -> str:
    """Return the name of a codec without that of the library which decodes it."""
    return str(context.name).removeprefix("lib")


def _depth(form: Any) -> str:
    """Return the type of samples, however the channels lie."""
    return str(form.name).removesuffix("p") if form is not None else ""


def _opens(codec: str, rate: int, settings: Mapping[str, Any]) -> bool:
    """Say whether an encoder takes these settings."""
    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.time_base = rate, Fraction(1, rate)
    for name, value in settings.items():
        setattr(context, name, value)
    try:
        context.open()
    except (av.error.FFmpegError, ValueError):
        return False
    return True


class _Encoded:
    """What an encoded track needs: an encoder for the container, in the source's codec where it can be."""

    def __init__(self, writer: VideoWriter, stream: Any) -> None:
        self._container = writer.container
        context = stream.codec_context
        self.source = _name(context) if context else "an unknown codec"
        self.lost = 0
        own = [encoder for name, encoder in ENCODERS.items() if self.source.startswith(name)]
        if self.source.startswith("pcm_"):
            own = [self.source]
        fits = [name for name in own if name.removeprefix("lib").startswith(writer.target.holds)]
        for self.codec in dict.fromkeys((*fits, writer.target.audio)):
            if out := self._open(context):
                label(out, stream, writer.target.muxer)
                self._out: Any = out
                return
        raise UnsupportedMedia(
            f"the installed PyAV cannot encode sound for {writer.target.muxer} files; use audio='drop'"
        )

    @property
    def same(self) -> bool:
        """Whether the codec is the source's."""
        return self.codec == self.source or ENCODERS.get(self.source.removesuffix("float")) == self.codec

    def _open(self, context: Any) -> Any:
        """Return a new stream for `self.codec`, or None where the container or PyAV has no such thing."""
        if self.codec not in av.codecs_available or context is None:
            return None
        codec = av.Codec(self.codec, "w")
        rate = getattr(context, "sample_rate", 0) or RATE
        rate = rate if rate in (codec.audio_rates or [rate]) else RATE
        channels = getattr(context, "channels", 0) or 2
        settings: dict[str, Any] = {"flags": BITEXACT}
        if deep := [one.name for one in codec.audio_formats or () if _depth(one) == _depth(context.format)]:
            settings["format"] = deep[0]
        if not self.codec.startswith(FREE):
            least, most = (bits * channels for bits in BITS)
            settings["bit_rate"] = min(max(context.bit_rate or most, least), most)
        layouts = (
            (context.layout.name, "stereo") if channels > 2 else ("mono" if channels == 1 else "stereo",)
        )
        for layout in layouts:
            settings["layout"] = layout
            if _opens(self.codec, rate, settings):
                break
        try:
            out: Any = self._container.add_stream(self.codec, rate=rate)
        except ValueError:
            return None
        for name, value in settings.items():
            setattr(out.codec_context, name, value)
        return out

    def _encode(self, frame: Any) -> None:
        for packet in self._out.encode(frame):
            self._container.mux(packet)

    def finish(self) -> None:
        """Write what the encoder still holds back."""
        self._encode(None)


class _Transcoded(_Encoded):
    def __init__(self, writer: VideoWriter, stream: Any, name: str) -> None:
        if stream.codec_context is None:
            raise UnsupportedMedia(f"{name}: its sound cannot be decoded; use audio='drop'")
        super().__init__(writer, stream)

    def take(self, packet: Any) -> None:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self.lost += 1
            return
        for frame in frames:
            self._encode(frame)

    def until(self, time: Fraction) -> None:
        """Packets come by themselves."""


class _Silent(_Encoded):
    """Silence for as long as the source's track and the pictures last; its samples are never touched."""

    def __init__(self, writer: VideoWriter, stream: Any, span: tuple[Fraction, Fraction]) -> None:
        super().__init__(writer, stream)
        rate = self._out.codec_context.sample_rate
        self._rate = rate
        start = 0 if writer.target.steady else max(span[0], 0)
        self._at, self._end = round(start * rate), round(span[1] * rate)

    def take(self, packet: Any) -> None:
        """The source's sound goes nowhere."""

    def until(self, time: Fraction) -> None:
        while self._at < min(self._end, time * self._rate):
            context = self._out.codec_context
            samples = min(1024, self._end - self._at)
            frame = av.AudioFrame(format=context.format.name, layout=context.layout.name, samples=samples)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.time_base, frame.pts = self._rate, Fraction(1, self._rate), self._at
            self._encode(frame)
            self._at += samples

    def finish(self) -> None:
        self.until(Fraction(self._end, self._rate))
        super().finish()
