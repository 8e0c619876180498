"""The subtitles of a video: left out, or their words written anew, at their times.

Subtitles speak names, so they are dropped unless somebody asks for them. What is kept is text: packets and
headers of subtitle codecs have room for styles, comments and unknown parts, so every cue is decoded to plain
words and encoded again in the codec of the output's container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import av.error

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.settings import Subtitles
from sfumato.redaction.videos.labels import label
from sfumato.redaction.videos.reader import VideoReader
from sfumato.redaction.videos.writer import VideoWriter

#: Container -> the codec that its subtitles are written in.
CODECS = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip", "webm": "webvtt"}
#: Codecs of text; others hold pictures, or commands for a television set.
TEXT = frozenset({"mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text"})
#: How long a cue stays whose end is not told, in seconds.
USUAL = Fraction(3)
_TICK = Fraction(1, 1000)
#: What FFmpeg's encoders want to know of the style; the same for every file.
_HEADER = (
    "[Script Info]\nScriptType: v4.00+\nPlayResX: 384\nPlayResY: 288\n\n[V4+ Styles]\n"
    "Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, "
    "Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, "
    "Alignment, MarginL, MarginR, MarginV, Encoding\n"
    "Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0\n\n[Events]\n"
    "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
).replace("\n", "\r\n")
_MARK = re.compile(r"\\\{\{\}|\\[Nnh{}]|\{\\[^}]*\}")
_MEANING = {r"\N": "\n", r"\n": "\n", r"\h": " ", r"\{{}": "{", r"\{": "{", r"\}": "}"}


@dataclass(frozen=True, slots=True)
class Cue:
    """Words and when they are shown, in seconds."""

    start: Fraction
    end: Fraction
    words: str


class Words:
    """All subtitle tracks of one video.

    Args:
        reader: the open source, which is told what streams to read; None: it has no subtitles.
        writer: the output, before its first frame.
        mode: "drop" or "copy".
        start: time of the source, in seconds, that becomes nought.

    Guarantee:
        Of the source's subtitles nothing but plain words, their times, their language and their marks
        (default, forced, for the hard of hearing) reaches the output.

    Raises:
        UnsupportedMedia: the installed PyAV cannot write subtitles.
    """

    def __init__(
        self, reader: VideoReader | None, writer: VideoWriter, mode: Subtitles, start: Fraction
    ) -> None:
        self.notes: list[str] = []
        self._tracks: dict[int, _Track] = {}
        if reader is None:
            return
        streams = tuple(reader.container.streams.subtitles)
        codec = CODECS.get(writer.target.muxer)
        if mode == "drop":
            if streams:
                self.notes.append(_dropped(len(streams), ""))
            return
        pictures = [s for s in streams if s.codec_context is None or s.codec_context.name not in TEXT]
        if pictures:
            self.notes.append(_dropped(len(pictures), ", made of pictures: only text can be written anew"))
        text = [stream for stream in streams if stream not in pictures]
        if text and codec is None:
            self.notes.append(
                _dropped(len(text), f", which .{writer.target.muxer} cannot hold: use .mkv or .mp4")
            )
            return
        for stream in text:
            self._tracks[stream.index] = _Track(writer, stream, str(codec), start)
        reader.also = tuple(text)

    def __len__(self) -> int:
        return len(self._tracks)

    def take(self, packet: Any) -> None:
        """Take one packet of any stream of the source."""
        if packet.stream_index in self._tracks:
            self._tracks[packet.stream_index].take(packet)

    def finish(self) -> None:
        """Write what is left."""
        for track in self._tracks.values():
            track.finish()
        if lost := sum(track.lost for track in self._tracks.values()):
            self.notes.append(f"{lost} subtitles that do not decode were left out")


def _dropped(count: int, why: str) -> str:
    return f"dropped: {count} subtitle track{'s' if count > 1 else ''}{why}"


class _Track:
    """One track on its way; `lost` counts packets that do not decode."""

    def __init__(self, writer: VideoWriter, stream: Any, codec: str, start: Fraction) -> None:
        self.lost = 0
        self._container, self._source, self._start = writer.container, stream, start
        self._codec = codec
        self._shown: list[Cue] = []
        self._at = Fraction(0)
        out: Any = writer.container.add_stream(codec)
        context = out.codec_context
        if not hasattr(context, "subtitle_header"):
            raise UnsupportedMedia(
                f"the installed PyAV ({av.__version__}) cannot write subtitles: "
                "pip install --upgrade av, or use subtitles='drop'"
            )
        context.subtitle_header = _HEADER.encode()
        context.time_base = out.time_base = _TICK
        label(out, stream, writer.target.muxer)
        self._out = out

    def take(self, packet: Any) -> None:
        if not packet.size or packet.pts is None:
            return
        try:
            shown = self._source.codec_context.decode2(packet)
        except (av.error.FFmpegError, ValueError):
            self.lost += 1
            return
        lines = [_plain(rect) for rect in shown.rects] if shown is not None else []
        words = "\n".join(line for line in lines if line)
        if not words:
            return
        start = max(packet.pts * packet.time_base - self._start, Fraction(0))
        length = (packet.duration or 0) * packet.time_base or Fraction(
            shown.end_display_time % (1 << 32), 1000
        )
        cue = Cue(start, start + (length if 0 < length < 3600 else USUAL), words)
        if self._codec != "mov_text":  # there one cue is shown at a time
            self._write(cue)
            return
        self._until(cue.start)
        if not self._shown:
            self._at = max(cue.start, self._at)
        self._shown.append(cue)

    def _until(self, time: Fraction | None) -> None:
        """Write what is shown before a time; cues that overlap become one cue while they do."""
        while self._shown and (time is None or self._at < time):
            end = min(cue.end for cue in self._shown)
            end = end if time is None else min(end, time)
            if end > self._at:
                self._write(Cue(self._at, end, "\n".join(cue.words for cue in self._shown)))
                self._at = end
            self._shown = [cue for cue in self._shown if cue.end > end]

    def _write(self, cue: Cue) -> None:
        start, end = round(cue.start / _TICK), round(cue.end / _TICK)
        packet = av.Packet(_coded(cue.words, self._codec))
        packet.stream = self._out
        packet.pts = packet.dts = start
        packet.duration, packet.time_base = end - start, _TICK
        self._container.mux(packet)

    def finish(self) -> None:
        """Write what is still shown."""
        self._until(None)


def _plain(rect: Any) -> str:
    """Return the words of a decoded cue, without styles and control characters.

    Source: the ASS format: eight fields and the words, where a backslash begins a break or a literal brace.
    """
    fields = getattr(rect, "ass", b"").decode("utf-8", "replace").split(",", 8)
    words = _MARK.sub(lambda found: _MEANING.get(found[0], ""), fields[-1])
    lines = ("".join(char for char in line if char.isprintable()).strip() for line in words.splitlines())
    return "\n".join(line for line in lines if line)


def _coded(words: str, codec: str) -> bytes:
    """Return words as a packet of a subtitle codec."""
    if codec == "mov_text":
        data = words.encode()[: (1 << 16) - 1].decode("utf-8", "ignore").encode()
        return len(data).to_bytes(2, "big") + data
    if codec == "webvtt":
        words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return words.encode()
