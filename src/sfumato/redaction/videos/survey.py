"""The survey of a video: its packets are read, not decoded, and it is cut into chunks for both passes.

A chunk is a run of whole groups of pictures (GOPs) that begins where decoding can begin. Chunks depend on the
file alone, so whoever works on them, wherever and in whatever order, makes the same output.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from sfumato.core.errors import UnreadableMedia
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos import h264
from sfumato.redaction.videos.frames import Canvas, canvas_for
from sfumato.redaction.videos.reader import Spot, VideoReader, open_video
from sfumato.redaction.videos.target import Target

#: Least frames of a chunk, but for the last one.
CHUNK = 300
#: Samples of one video, and packets in each: they are encoded for a trial.
SAMPLES, SAMPLE = 4, 8
#: Containers in which a time leads to the packet that was meant.
SEEKABLE = ("mov", "matroska")
#: Codecs in which each key packet needs nothing of those before it.
CLOSED = frozenset({"vp9", "mjpeg", "prores", "dnxhd"})
HEVC_IDR = (19, 20)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a video that is worked on by itself.

    Args:
        index: its number.
        first: packets, and frames, before it.
        packets: how many it has.
        at: of its first packet; None: the chunk is the file, however many frames that gives.
        keys: packets of the chunk, counted from 0, that begin a GOP.
    """

    index: int
    first: int
    packets: int
    at: Spot | None
    keys: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The first packets of a GOP: where the first is (None: they are the first of the file), how many there
    are, and their bytes."""

    at: Spot | None
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known of a video before its pictures are looked at; picklable.

    Args:
        canvas: what frames are drawn on.
        size: width and height of the pictures as stored.
        time_base: unit of times, in seconds.
        rate: usual frames per second.
        chunks: all of the file.
        samples: of the file, spread evenly.
        depth: packets by which one may come before its turn in order of showing.
        header: of the source, where its packets may be copied; None: all is encoded anew.
        bits: of all video packets.
        spans: audio stream index -> (start, end) in seconds.
        alone: whether the file holds neither sound nor subtitles.
        notes: what the output leaves out.
    """

    canvas: Canvas
    size: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    chunks: tuple[Chunk, ...]
    samples: tuple[Sample, ...]
    depth: int
    header: h264.Header | None
    bits: int
    spans: dict[int, tuple[Fraction, Fraction]]
    alone: bool
    notes: tuple[str, ...]

    @property
    def packets(self) -> int:
        """Video packets of the file."""
        return sum(chunk.packets for chunk in self.chunks)


def survey(source: Path, form: Target, settings: Settings) -> Survey:
    """Read the packets of a video and decide how it is cut: the first thing done with it.

    Args:
        source: the video.
        form: how the output will be written; it decides what frames are drawn on.
        settings: how many pixels a frame may have.

    Raises:
        UnreadableMedia, UnsupportedMedia, MediaTooLarge: see `open_video`.
    """
    formats = form.pixel_formats()
    with open_video(source, settings.max_pixels) as reader:
        book = _Book(reader, form)
        for packet in reader.survey():
            book.add(packet)
        spans, notes = reader.spans, tuple(reader.notes)
        shot = reader.first()
        if shot is None:
            raise UnreadableMedia(f"{source.name} holds no picture that can be decoded")
        stream, frame = reader.stream, shot.frame
        canvas = canvas_for(frame, stream.codec_context, stream.sample_aspect_ratio, formats, form.even)
        chunks = book.chunks()
        header = book.header if canvas.as_stored(frame) else None
        return Survey(
            canvas=canvas,
            size=(frame.width, frame.height),
            time_base=stream.time_base,
            rate=reader.rate,
            chunks=chunks,
            samples=book.samples(chunks),
            depth=book.depth() if header else 0,
            header=header,
            bits=8 * book.bytes(),
            spans=spans,
            alone=not (reader.audio or reader.container.streams.subtitles),
            notes=notes,
        )


def _header(reader: VideoReader, form: Target) -> h264.Header | None:
    """Return the parameter sets of a source whose pictures the output could hold as they are."""
    if reader.stream.codec_context.name != "h264" or form.video != "libx264":
        return None
    try:
        header = h264.read_header(reader.stream.codec_context.extradata)
        header.free_id()
    except h264.Foreign:
        return None
    return header


class _Book:
    """Takes down where packets lie in time, and where decoding can begin."""

    def __init__(self, reader: VideoReader, form: Target) -> None:
        self._name = str(reader.stream.codec_context.name)
        self._nals = _nal_length(reader) if self._name in ("h264", "hevc") else 0
        self.header = _header(reader, form)
        self._sizes = array("q")
        self._cuttable = reader.container.format.name.startswith(SEEKABLE) and (
            self._name in CLOSED or self._nals > 0
        )
        self._times, self._seeks, self._keys = array("q"), array("q"), array("q")

    def add(self, packet: Any) -> None:
        """Take the next packet."""
        self._sizes.append(packet.size)
        count = len(self._times)
        if packet.pts is None or packet.is_discard or not packet.size:
            self._cuttable = False
        self._times.append(packet.pts or 0)
        self._seeks.append(packet.pts or 0 if packet.dts is None else packet.dts)
        if self._cuttable and packet.is_keyframe and self._begins(packet):
            self._keys.append(count)
        if self.header is not None:
            try:
                h264.picture_units(bytes(packet), self.header)
            except h264.Foreign:
                self.header = None

    def _begins(self, packet: Any) -> bool:
        """Say whether decoding can begin with this packet."""
        if not self._nals:
            return True
        kinds = h264.kinds(bytes(packet), self._nals)
        if self._name == "hevc":
            pictures = [kind >> 1 & 63 for kind in kinds if kind >> 1 & 63 < 32]
            return bool(pictures) and all(kind in HEVC_IDR for kind in pictures)
        return h264.IDR in [kind & 31 for kind in kinds]

    def _sound(self) -> bool:
        """Say whether keys cut the file into groups that do not overlap in time, in one order."""
        times, edges = self._times, [*self._keys, len(self._times)]
        if not self._cuttable or not self._keys or self._keys[0] or len(set(times)) < len(times):
            return False
        groups = [times[start:stop] for start, stop in pairwise(edges)]
        return all(one[0] == min(one) for one in groups) and all(
            max(one) < two[0] for one, two in pairwise(groups)
        )

    def chunks(self) -> tuple[Chunk, ...]:
        """Return the chunks; call it after the last packet."""
        count = len(self._times)
        if not self._sound():
            self.header = None
            return (Chunk(0, 0, count, None, (0,)),)
        starts = [0]
        for key in self._keys:
            if key - starts[-1] >= CHUNK and count - key >= CHUNK // 2:
                starts.append(key)
        found = []
        keys = iter([*self._keys, count])
        key = next(keys)
        for index, (start, stop) in enumerate(pairwise([*starts, count])):
            inside = []
            while key < stop:
                inside.append(key - start)
                key = next(keys)
            found.append(Chunk(index, start, stop - start, self._spot(start), tuple(inside)))
        return tuple(found)

    def _spot(self, packet: int) -> Spot:
        return Spot(self._seeks[packet], self._times[packet])

    def samples(self, chunks: Sequence[Chunk]) -> tuple[Sample, ...]:
        """Return what is encoded for a trial."""
        keys = [chunk.first + key for chunk in chunks for key in chunk.keys]
        ends = dict(pairwise([*keys, len(self._times)]))
        found = []
        for key in sorted({keys[len(keys) * n // SAMPLES] for n in range(SAMPLES)}):
            sizes = self._sizes[key : min(key + SAMPLE, ends[key])]
            found.append(Sample(None if chunks[0].at is None else self._spot(key), len(sizes), sum(sizes)))
        return tuple(found)

    def bytes(self) -> int:
        """Return the size of all packets."""
        return sum(self._sizes)

    def depth(self) -> int:
        """Return how many packets come before one in the file, and are shown after it, at most."""
        return _depth(self._times, [*self._keys, len(self._times)])


def _depth(times: Sequence[int], edges: Sequence[int]) -> int:
    """Return the largest number of places by which a packet comes before its turn in order of showing.

    >>> _depth([0, 4, 2, 1, 3], [0, 5])
    2
    """
    worst = 0
    for start, stop in pairwise(edges):
        ranks = sorted(range(start, stop), key=times.__getitem__)
        worst = max(worst, *(at - rank for rank, at in enumerate(ranks, start)))
    return worst


def _nal_length(reader: VideoReader) -> int:
    """Return how many bytes tell the length of a unit, or 0 where none do."""
    data = reader.stream.codec_context.extradata or b""
    if len(data) < 23 and not (len(data) > 6 and reader.stream.codec_context.name == "h264"):
        return 0
    if data[0] != 1:
        return 0
    return (data[4 if reader.stream.codec_context.name == "h264" else 21] & 3) + 1
