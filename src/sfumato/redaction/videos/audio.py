"""The sound of a video: copied, silenced or dropped; its shift against the picture stays."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

import av
import av.error

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.settings import Audio
from sfumato.redaction.videos.reader import VideoReader
from sfumato.redaction.videos.writer import BITEXACT, VideoWriter

#: Beginning of the name of a codec -> the encoder for it.
ENCODERS = {"aac": "aac", "mp3": "libmp3lame", "opus": "libopus", "ac3": "ac3", "flac": "flac"}
LAYOUTS = {1: "mono", 2: "stereo"}
RATE = 48_000
#: How far silence is written ahead of the picture, in seconds.
AHEAD = Fraction(1, 2)
#: How late sound may start, in seconds, in a container that starts all tracks at nought.
AVI_SLACK = Fraction(1, 20)


class Track(Protocol):
    """One track of sound on its way into the output."""

    def take(self, packet: Any) -> None:
        """Take one packet of the source's track."""

    def until(self, time: Fraction) -> None:
        """Write what belongs before a time in seconds."""

    def finish(self) -> None:
        """Write what is left."""


class Sound:
    """All tracks of sound of one video.

    Args:
        reader: the open source.
        writer: the output, before its first frame.
        mode: "copy", "mute" or "drop".
        spans: audio stream index -> (start, end) of the source's track in seconds.

    Raises:
        UnsupportedMedia: a track can be neither copied nor decoded.
    """

    def __init__(
        self,
        reader: VideoReader,
        writer: VideoWriter,
        mode: Audio,
        spans: dict[int, tuple[Fraction, Fraction]],
    ) -> None:
        self.notes: list[str] = []
        self._tracks: dict[int, Track] = {}
        for stream in () if mode == "drop" else reader.audio:
            if stream.index not in spans:
                self.notes.append("an audio track without sound was dropped")
                continue
            start = spans[stream.index][0]
            if mode == "mute":
                self._tracks[stream.index] = _Silent(writer, stream, spans[stream.index])
            elif writer.target.steady and start > AVI_SLACK:
                raise UnsupportedMedia(
                    f"{reader.path.name}: its sound starts at {float(start):.3f} s, which .avi cannot hold; "
                    f"write to .mp4 or .mkv, or use audio='mute' or audio='drop'"
                )
            elif copied := _copied(writer, stream):
                self._tracks[stream.index] = copied
            else:
                self._tracks[stream.index] = track = _Transcoded(writer, stream, reader.path.name)
                self.notes.append(f"an audio track was encoded anew, from {track.source} to {track.codec}")

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


def _name(context: Any) -> str:
    """Return the name of a codec without that of the library which decodes it."""
    return str(context.name).removeprefix("lib")


def _copied(writer: VideoWriter, stream: Any) -> _Copied | None:
    """Return a track that copies packets, or None where the container holds no such sound.

    The codecs that any container here holds carry sound and nothing that a person wrote, but for Vorbis.
    """
    context = stream.codec_context
    if context is None or not _name(context).startswith(writer.target.holds):
        return None
    try:
        out = writer.container.add_stream_from_template(stream)
    except ValueError:
        return None
    if "vorbis" in context.name:
        out.codec_context.extradata = _vorbis_without_comments(bytes(context.extradata or b""))
    return _Copied(writer, out)


class _Copied:
    def __init__(self, writer: VideoWriter, out: Any) -> None:
        self._container, self._out = writer.container, out

    def take(self, packet: Any) -> None:
        if packet.size and packet.dts is not None:
            packet.stream = self._out
            self._container.mux(packet)

    def until(self, time: Fraction) -> None:
        """Packets come by themselves."""

    def finish(self) -> None:
        """Packets come by themselves."""


class _Encoded:
    """What an encoded track needs: an encoder for the container, in the source's codec where it can be."""

    def __init__(self, writer: VideoWriter, stream: Any) -> None:
        self._container = writer.container
        context = stream.codec_context
        self.source = _name(context) if context else "an unknown codec"
        same = [
            encoder
            for name, encoder in ENCODERS.items()
            if self.source.startswith(name) and name in writer.target.holds
        ]
        for self.codec in dict.fromkeys((*same, writer.target.audio)):
            if out := self._open(context):
                self._out: Any = out
                return
        raise UnsupportedMedia(
            f"the installed PyAV cannot encode sound for {writer.target.muxer} files; use audio='drop'"
        )

    def _open(self, context: Any) -> Any:
        """Return a new stream for `self.codec`, or None where the container or PyAV has no such thing."""
        if self.codec not in av.codecs_available:
            return None
        rate = getattr(context, "sample_rate", 0) or RATE
        rates = av.Codec(self.codec, "w").audio_rates or [rate]
        try:
            out: Any = self._container.add_stream(self.codec, rate=rate if rate in rates else RATE)
        except ValueError:
            return None
        out.codec_context.layout = LAYOUTS.get(getattr(context, "channels", 2), "stereo")
        out.codec_context.flags |= BITEXACT
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
            raise UnsupportedMedia(f"{name}: its sound can be neither copied nor decoded; use audio='drop'")
        super().__init__(writer, stream)

    def take(self, packet: Any) -> None:
        for frame in packet.decode():
            self._encode(frame)

    def until(self, time: Fraction) -> None:
        """Packets come by themselves."""


class _Silent(_Encoded):
    """Silence from the first to the last moment of the source's track; its samples are never touched."""

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


def _vorbis_without_comments(extradata: bytes) -> bytes:
    """Return Vorbis codec data with an empty comment header; titles and artists live there."""
    if extradata[:1] != b"\x02":
        raise UnsupportedMedia("Vorbis sound without its three headers; use audio='mute' or audio='drop'")
    at, sizes = 1, []
    for _ in range(2):
        size = 0
        while extradata[at] == 255:
            size, at = size + 255, at + 1
        sizes.append(size + extradata[at])
        at += 1
    first, setup = extradata[at : at + sizes[0]], extradata[at + sum(sizes) :]
    comment = b"\x03vorbis" + bytes(8) + b"\x01"  # no vendor, no comments, framing bit
    return b"\x02" + bytes([len(first), len(comment)]) + first + comment + setup
