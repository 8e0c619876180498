"""Reading a video: every frame in order of showing, or an error; never fewer frames without a word."""

from __future__ import annotations

import contextlib
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error

from sfumato.core.errors import MediaTooLarge, UnreadableMedia, UnsupportedMedia
from sfumato.redaction.videos.integrity import check_whole

#: Demuxers that may run: video files only, so that a playlist cannot make the reader open other files.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,mxf,nut,ogg,ivf,wtv,dv,gxf,"
    "h264,hevc,m4v,mjpeg,obu,av1,vc1,h261,h263,yuv4mpegpipe,rm,swf,gif"
)
#: Decoders in which every packet gives a frame, so that a frame that does not come is a frame lost.
STRICT = frozenset({
    "h264", "hevc", "vvc", "vp9", "libvpx-vp9", "av1", "libdav1d", "mjpeg",
    "mpeg1video", "mpeg2video", "prores", "dnxhd", "ffv1",
})  # fmt: skip
ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC
#: Most threads of a decoder; each holds frames. Up to so many pixels a frame is decoded in less time than is
#: spent on it elsewhere, and handing it from thread to thread costs up to a third of that.
MOST_THREADS, ONE_THREAD = 4, 1920 * 1088


@dataclass(frozen=True, slots=True)
class Shot:
    """One decoded frame: its number, its time in units of the stream's time base, and FFmpeg's frame."""

    index: int
    pts: int
    frame: Any


class Spot(NamedTuple):
    """A key packet: the time to seek to, and its own, in units of the stream's time base."""

    seek: int
    pts: int


@dataclass(slots=True)
class _Tally:
    """What came out of the file against what should have."""

    packets: int = 0
    due: int = 0
    early: int = 0
    frames: int = 0
    start: int | None = None
    started: bool = False
    interlaced: bool = False
    nudged: int = 0
    last: int | None = None
    ends: dict[int, tuple[Fraction, Fraction]] = field(default_factory=dict)


class VideoReader:
    """One open video file. Use `open_video`.

    Attributes:
        container, stream: FFmpeg's container and the video stream that is read.
        audio: the audio streams.
        also: further streams whose packets are handed on; none unless somebody sets it.
        notes: what the file also holds and the reader leaves out, and what it had to mend, as sentences.
        spans: audio stream index -> (start, end) in seconds; complete once `frames` or `survey` has run to
            its end.
        crc: checksum of the video packets read so far.
    """

    def __init__(self, path: Path, container: Any, max_pixels: int, blocks: Counter[int]) -> None:
        self.path, self.container, self._limit, self._blocks = path, container, max_pixels, blocks
        videos = [s for s in container.streams.video if not s.disposition.value & ATTACHED_PICTURE]
        if not videos:
            raise UnsupportedMedia(f"{path.name} holds no video: only sound, pictures or data")
        self.stream = videos[0]
        if self.stream.codec_context is None:
            raise UnsupportedMedia(
                f"{path.name}: no decoder for its video is installed; convert it to MP4 first"
            )
        self.audio = tuple(container.streams.audio)
        self.also: tuple[Any, ...] = ()
        self._check_size(self.stream.codec_context.width, self.stream.codec_context.height)
        self.stream.thread_type = "AUTO"
        few = self.stream.codec_context.width * self.stream.codec_context.height <= ONE_THREAD
        self.stream.codec_context.thread_count = 1 if few else min(os.cpu_count() or 1, MOST_THREADS)
        self.stream.codec_context.options = {"max_pixels": str(max_pixels)}
        self.rate = _rate(self.stream.guessed_rate, self.stream.average_rate)
        self.notes = _left_out(container, len(videos) - 1)
        self._tally = _Tally()
        self.crc = 0
        self._first: Any = None
        self._index_at_open = len(getattr(self.stream, "index_entries", ()))  # PyAV from 16 on

    @property
    def spans(self) -> dict[int, tuple[Fraction, Fraction]]:
        """Audio stream index -> (start, end) in seconds, of the packets read so far."""
        return self._tally.ends

    @property
    def strict(self) -> bool:
        """Whether every packet has to give a frame."""
        return self.stream.codec_context.name in STRICT

    def guess_frames(self) -> int | None:
        """Return how many frames the header promises, or None; good for a progress bar only."""
        if self.stream.frames:
            return int(self.stream.frames)
        duration = self.container.duration
        return max(int(duration * self.rate / av.time_base), 1) if duration else None

    def frames(self, other: Callable[[Any], None] | None = None) -> Iterator[Shot]:
        """Yield every frame in order of showing; may be run once.

        Guarantee:
            Numbers rise by one and times rise strictly. When the iteration ends without an error, every frame
            that the file declares and a player could show has been yielded.

        Args:
            other: called with each packet of the streams in `audio` and `also`, in file order.

        Raises:
            UnreadableMedia: damaged or cut short.
            UnsupportedMedia: the picture size changes on the way.
            MediaTooLarge: a frame has more pixels than allowed.
        """
        for packet in self._packets():
            if packet.stream.index != self.stream.index:  # packet.stream_index is 0 where a track ends
                self._hear(packet)
                if other is not None:
                    other(packet)
                continue
            self._count(packet)
            for frame in self._decoded(packet):
                yield self._shot(frame)
        self._settle_packets()
        self._settle()

    def survey(self) -> Iterator[Any]:
        """Yield every video packet, undecoded, and hear all others; `spans` and `first` are known afterwards.

        Raises:
            UnreadableMedia: a packet is damaged, or the file cannot be read to its end.
        """
        for packet in self._packets():
            if packet.stream_index != self.stream.index:
                self._hear(packet)
            elif packet.size or packet.pts is not None:
                self._count(packet)
                self._peek(packet)
                yield packet
        self._settle_packets()

    def first(self) -> Shot | None:
        """Return the first frame, after a survey: it is decoded in passing, as opening a file takes long.

        Raises:
            UnreadableMedia, UnsupportedMedia, MediaTooLarge: see `frames`.
        """
        self._peek(None)
        if isinstance(self._first, UnreadableMedia):
            raise self._first
        return None if self._first is None else self._shot(self._first)

    def _peek(self, packet: Any) -> None:
        """Decode a packet while there is no frame yet; what is wrong with it is said by `first`."""
        if self._first is None:
            try:
                self._first = next(iter(self._decoded(packet)), None)
            except UnreadableMedia as error:
                self._first = error

    def others(self) -> Iterator[Any]:
        """Yield the packets of the streams in `audio` and `also`, in file order."""
        streams = (*self.audio, *self.also)
        if not streams:
            return
        try:
            yield from self.container.demux(*streams)
        except av.error.FFmpegError as error:
            raise self._broken(f"it cannot be read ({error.strerror})") from error

    def section(self, at: Spot, count: int) -> Iterator[Any]:
        """Yield the `count` video packets from the one at this spot on, undecoded.

        Raises:
            UnreadableMedia: they are not there any more, or one is damaged.
        """
        self.container.seek(at.seek, stream=self.stream)
        found = self._run(at.pts, count)
        first = next(found, None)
        if first is None:
            self.container.seek(0, backward=True)
            found = self._run(at.pts, count)
            first = next(found, None)
        left = count
        if first is not None:
            yield first
            left -= 1
            for packet in found:
                yield packet
                left -= 1
        if left:
            raise changed(self.path.name, self._tally.frames, count)

    def _run(self, pts: int, count: int) -> Iterator[Any]:
        left = 0
        for packet in self._packets(sound=False):
            if not packet.size:
                continue
            if not left:
                if packet.is_keyframe and packet.pts > pts:
                    return
                left = count if packet.pts == pts else 0
            if left:
                self._count(packet)
                yield packet
                left -= 1
                if not left:
                    return

    def decoded(self, packets: Iterable[Any], size: tuple[int, int]) -> Iterator[Shot]:
        """Yield the frames of packets that begin with a key frame and refer to no others.

        Guarantee:
            As many frames as `frames` would yield for them, or an error.

        Args:
            packets: of the video, undecoded.
            size: width and height of the pictures.

        Raises:
            UnreadableMedia, UnsupportedMedia, MediaTooLarge: see `frames`.
        """
        tally = self._tally
        due, done, fields = tally.due, tally.frames, tally.interlaced
        self.stream.codec_context.flush_buffers()
        for packet in itertools.chain(packets, (None,)):
            for frame in self._decoded(packet):
                yield self._shot(frame, size)
        wanted = (tally.due - due) // (2 if fields or tally.interlaced else 1)
        if tally.frames - done < wanted:
            raise self._broken(f"{wanted - tally.frames + done} of {wanted} frames could not be decoded")
        self._note(0)

    def _packets(self, *, sound: bool = True) -> Iterator[Any]:
        try:
            yield from self.container.demux(self.stream, *(self.audio if sound else ()))
        except av.error.FFmpegError as error:
            raise self._broken(f"it cannot be read ({error.strerror})") from error

    def _decoded(self, packet: Any) -> list[Any]:
        try:
            frames: list[Any] = self.stream.codec_context.decode(packet)
        except av.error.FFmpegError as error:
            raise self._broken(f"it cannot be decoded ({error.strerror})") from error
        return frames

    def _hear(self, packet: Any) -> None:
        if packet.size and packet.pts is not None:
            start = Fraction(packet.pts) * packet.time_base
            end = start + (packet.duration or 0) * packet.time_base
            seen = self._tally.ends.get(packet.stream_index, (start, end))
            self._tally.ends[packet.stream_index] = (min(seen[0], start), max(seen[1], end))

    def _count(self, packet: Any) -> None:
        tally = self._tally
        if packet.is_corrupt:
            raise self._broken("a packet is incomplete or damaged")
        if not packet.size and packet.pts is None and packet.dts is None:
            return  # the flush at the end
        tally.packets += 1
        self.crc = zlib.crc32(packet, self.crc)
        if not packet.size or packet.is_discard:
            return
        if not tally.started and packet.is_keyframe:
            tally.started, tally.start = True, packet.pts
        leading = None not in (packet.pts, tally.start) and packet.pts < tally.start
        if tally.started and not leading:
            tally.due += 1
        else:
            tally.early += 1

    def _shot(self, frame: Any, size: tuple[int, int] | None = None) -> Shot:
        tally = self._tally
        if frame.is_corrupt:
            raise self._broken("the decoder had to guess parts of a picture")
        self._check_size(frame.width, frame.height)
        context = self.stream.codec_context
        if (frame.width, frame.height) != (size or (context.width, context.height)):
            raise UnsupportedMedia(
                f"{self.path.name}: the picture changes size at frame {tally.frames}, to "
                f"{frame.width}x{frame.height}; convert it to one size first"
            )
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is None:
            step = max(round(1 / (self.rate * self.stream.time_base)), 1)
            pts = 0 if tally.last is None else tally.last + step
        if tally.last is not None and pts <= tally.last:
            pts, tally.nudged = tally.last + 1, tally.nudged + 1
        tally.last = pts
        tally.interlaced |= bool(frame.interlaced_frame)
        tally.frames += 1
        return Shot(tally.frames - 1, int(pts), frame)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limit:
            raise MediaTooLarge(
                f"{self.path.name}: frames of {width}x{height} have more than {self._limit} pixels; "
                f"raise max_pixels if you trust the file"
            )

    def _settle_packets(self) -> None:
        """Compare the packets that came with what the container declares."""
        tally, name = self._tally, self.container.format.name
        declared = 0
        if name.startswith("mov"):
            declared = self._index_at_open
        elif name == "avi" and tally.frames:  # how many it dropped is known from their times only
            declared = self.stream.frames
        if tally.packets + (self._dropped() if name == "avi" else 0) < declared:
            raise self._broken(f"it declares {declared} frames and holds {tally.packets}")
        if self.strict and self._blocks and tally.packets not in self._blocks.values():
            raise self._broken("frames could not be reached")

    def _settle(self) -> None:
        """Compare the frames that came with the packets."""
        tally, strict = self._tally, self.strict
        if not tally.frames:
            raise self._broken("not one picture could be decoded")
        due = tally.due // 2 if tally.interlaced else tally.due
        if strict and tally.frames < due:
            raise self._broken(f"{due - tally.frames} of {due} frames could not be decoded")
        self._note(tally.early if tally.frames <= tally.due else 0)

    def _dropped(self) -> int:
        """Return how many frames of an AVI file were dropped by the camera: they are counted, and empty."""
        last = self._tally.last
        entries = sum(not entry.size for entry in getattr(self.stream, "index_entries", ()))
        return max(entries, 0 if last is None else last + 1 - self._tally.packets)

    def _note(self, early: int) -> None:
        tally = self._tally
        if early and self.strict:
            self.notes.append(f"{early} frames before the first key frame cannot be shown and were left out")
        if tally.nudged:
            self.notes.append(f"{tally.nudged} frames whose time did not rise were moved by one tick")
        if tally.interlaced:
            self.notes.append("interlaced frames were written as whole pictures")

    def _broken(self, what: str) -> UnreadableMedia:
        return UnreadableMedia(
            f"{self.path.name} is damaged or cut short: {what}, after frame {self._tally.frames}. "
            f"Copy it again from where it came, or repair it first"
        )


def changed(name: str, number: int, count: int) -> UnreadableMedia:
    """Return the error of a video that is not the one it was: tracks would lie on the wrong pictures."""
    return UnreadableMedia(
        f"{name} read differently the second time, at frame {number} of {count}: "
        f"it changed meanwhile, or it is damaged. Copy it aside and try again"
    )


@contextlib.contextmanager
def open_video(path: Path, max_pixels: int, *, checked: bool = False) -> Iterator[VideoReader]:
    """Open a video file for reading.

    Args:
        path: the file.
        max_pixels: most pixels that a frame may have.
        checked: the structure of the file was walked before, and only a part of it is to be read.

    Raises:
        UnreadableMedia: empty, damaged, cut short, not a video, or not readable.
        UnsupportedMedia: no video in it, or no decoder.
        MediaTooLarge: more pixels than allowed.
    """
    blocks: Counter[int] = Counter() if checked else check_whole(path)
    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "file",
        "max_pixels": str(max_pixels),
    }
    try:
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableMedia(
            f"{path.name} is not a video that can be read ({getattr(error, 'strerror', error)}): "
            f"damaged, cut short, or another kind of file"
        ) from error
    with container:
        yield VideoReader(path, container, max_pixels, blocks)


def _rate(guessed: Fraction | None, average: Fraction | None) -> Fraction:
    """Return the usual frames per second; the guess of a stream with uneven times may be its time base."""
    if guessed and (not average or average / 2 <= guessed <= average * 2):
        rate = guessed
    else:
        rate = average or Fraction(25)
    return min(max(rate, Fraction(1, 10)), Fraction(1000))


def _left_out(container: Any, further: int) -> list[str]:
    """Return a sentence for each kind of thing that the reader leaves out."""
    kinds = Counter(stream.type for stream in container.streams)
    pictures = sum(bool(s.disposition.value & ATTACHED_PICTURE) for s in container.streams.video)
    found = {
        "further video track": further,
        "attached picture": pictures,
        "data track": kinds["data"] + kinds["unknown"],
        "attachment": kinds["attachment"],
        "chapter": len(container.chapters()) if hasattr(container, "chapters") else 0,
    }
    return [f"dropped: {n} {what}{'s' if n > 1 else ''}" for what, n in found.items() if n]
