"""The second pass: each chunk of a video is made by itself, and all of them are joined with the sound.

In a chunk, GOPs in which nothing is hidden are copied where the output can hold them; runs of the others are
decoded, covered and encoded anew.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from sfumato.redaction.grids import Look
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places, places
from sfumato.redaction.looks import Key, noisy_cover
from sfumato.redaction.sealed.sealer import Sealer
from sfumato.redaction.sealed.take import FrameSeal
from sfumato.redaction.videos import h264
from sfumato.redaction.videos.audio import Sound
from sfumato.redaction.videos.brush import Brush
from sfumato.redaction.videos.encode import Coded, Coder, Coding
from sfumato.redaction.videos.looking import ChunkSights, Told
from sfumato.redaction.videos.looks import looks_of
from sfumato.redaction.videos.quality import tuned
from sfumato.redaction.videos.reader import Shot, VideoReader, changed, open_video
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.subtitles import Words
from sfumato.redaction.videos.survey import Chunk, Survey
from sfumato.redaction.videos.target import Target
from sfumato.redaction.videos.threads import ahead
from sfumato.redaction.videos.times import converted
from sfumato.redaction.videos.writer import VideoWriter
from sfumato.vision.tracks import Track

#: Frames that a run of untouched GOPs has at least where it is copied; shorter ones cost more than they save.
LEAST_COPY = 8
#: Packets by which our H.264 encoder may send one before its turn.
OWN_DEPTH = 2
#: How far the sound is ahead of the pictures in the file, in seconds.
LEAD = Fraction(1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What has to be known to make the chunks of one video, all but the job; picklable.

    Args:
        survey: of the video.
        coding: how pictures are encoded.
        times: of all frames, in units of the survey's time base.
        start: time that becomes nought in the output, in the same unit.
        firsts: frames before each chunk.
        crcs: checksum of the packets of each chunk, as they were looked at.
        tracks: what is followed, and hidden.
        looks: of tracks and zones that show a grid; drawn once, in the driver.
    """

    survey: Survey
    coding: Coding
    times: array[int]
    start: int
    firsts: tuple[int, ...]
    crcs: tuple[int, ...]
    tracks: tuple[Track, ...]
    looks: Mapping[Key, Look] = field(default_factory=dict)

    def at(self, time: int) -> int:
        """Return a time of the source in units of the output."""
        return converted(time - self.start, self.survey.time_base, self.coding.time_base)

    def lasts(self, duration: int | None) -> int:
        """Return a length of the source in units of the output; that of a usual frame where not known."""
        length = converted(duration or 0, self.survey.time_base, self.coding.time_base)
        return length or max(round(1 / self.survey.rate / self.coding.time_base), 1)


@dataclass(frozen=True, slots=True)
class Run:
    """Frames of a chunk, from `start` to before `stop`, that are all copied or all encoded anew."""

    start: int
    stop: int
    copied: bool


def edit_for(
    source: Path,
    form: Target,
    survey: Survey,
    parts: Sequence[ChunkSights],
    scan: Scan,
    tracks: Sequence[Track],
    job: Job,
) -> Edit:
    """Return what is to be made of a video, after a short trial of how finely it is to be encoded.

    Args:
        source: the video.
        form: how the output is written.
        survey: of the video.
        parts: what was seen in each chunk, in order.
        scan: the same, put together.
        tracks: what is hidden.
        job: its zones decide which frames change.
    """
    firsts, count = [], 0
    for part in parts:
        firsts.append(count)
        count += len(part.times)
    coding = Coding(
        form=form,
        canvas=survey.canvas,
        time_base=1 / survey.rate if form.steady else survey.time_base,
        rate=survey.rate,
        number=survey.header.free_id() if survey.header else 0,
    )
    edit = Edit(
        survey=survey,
        coding=coding,
        times=scan.times,
        start=scan.start,
        firsts=tuple(firsts),
        crcs=tuple(part.crc for part in parts),
        tracks=tuple(tracks),
    )
    fixed = places(job, source, survey.canvas.width, survey.canvas.height)
    edit = replace(edit, looks=looks_of(source, scan, tracks, fixed, job))
    runs = (run for index in range(len(parts)) for run in runs_of(edit, index, fixed))
    # The trial encodes the source as it is: the quality chosen would tell something of the inside.
    if noisy_cover(job) is not None or all(run.copied for run in runs):
        return edit
    return replace(edit, coding=tuned(source, survey, coding, job.settings.max_pixels))


def runs_of(edit: Edit, index: int, fixed: Places) -> list[Run]:
    """Return the runs of one chunk: which frames are copied, and which encoded anew."""
    chunk, first = edit.survey.chunks[index], edit.firsts[index]
    if edit.survey.header is None or len(fixed.hidden):
        return [Run(0, chunk.packets, False)]
    busy = [(track.first - first, track.last - first) for track in edit.tracks]
    runs: list[Run] = []
    for start, stop in pairwise([*chunk.keys, chunk.packets]):
        copied = not any(one < stop and two >= start for one, two in busy)
        runs = _added(runs, Run(start, stop, copied))
    merged: list[Run] = []
    for run in runs:
        merged = _added(merged, Run(run.start, run.stop, run.copied and run.stop - run.start >= LEAST_COPY))
    return merged


def _added(runs: list[Run], run: Run) -> list[Run]:
    if runs and runs[-1].copied == run.copied:
        return [*runs[:-1], Run(runs[-1].start, run.stop, run.copied)]
    return [*runs, run]


def make(
    source: Path, edit: Edit, index: int, job: Job, sealer: Sealer | None = None
) -> Generator[Coded, None, None]:
    """Make one chunk: yield its coded pictures in order of decoding, the first of them a key frame.

    Guarantee:
        - The bytes depend on the source, the edit, the chunk and the job's settings alone.
        - Every frame of the chunk is there, at its time, covered as its tracks and the zones say.
        - A picture that is copied decodes to the same samples, and lies in a GOP in which nothing is hidden.

    Args:
        source: the video.
        edit: what is to be made of it.
        index: number of the chunk.
        job: covers and margins.
        sealer: keeps what is hidden, encrypted, in a part of this chunk.

    Raises:
        UnreadableMedia: it reads differently than when it was looked at.
    """
    survey = edit.survey
    fixed = places(job, source, survey.canvas.width, survey.canvas.height)
    runs = runs_of(edit, index, fixed)
    part = None if sealer is None else sealer.part(index)
    seal = None if part is None else FrameSeal(part, job, survey.canvas, fixed)
    brush = Brush(job, survey.canvas, edit.tracks, fixed, edit.looks, seal)
    with open_video(source, job.settings.max_pixels, checked=True) as reader:
        chunk = survey.chunks[index]
        with contextlib.closing(ahead(_pieces(reader, survey, chunk, runs))) as pieces:
            yield from _coded(source.name, edit, edit.firsts[index], brush, pieces)
        if reader.crc != edit.crcs[index]:
            raise changed(source.name, edit.firsts[index], len(edit.times))
    if part is not None:
        part.finish()


def _pieces(reader: VideoReader, survey: Survey, chunk: Chunk, runs: list[Run]) -> Iterator[Any]:
    """Yield packets to be copied and frames to be covered, and None after each run of frames."""
    if chunk.at is None:
        yield from reader.frames()
        yield None
        return
    packets = reader.section(chunk.at, chunk.packets)
    for run in runs:
        part = islice(packets, run.stop - run.start)
        if run.copied:
            yield from part
        else:
            yield from reader.decoded(part, survey.size)
            yield None
    for _ in packets:  # its end: it looks for packets that are missing
        pass


def _coded(name: str, edit: Edit, first: int, brush: Brush, pieces: Iterable[Any]) -> Iterator[Coded]:
    """Turn the pieces of one chunk into coded pictures."""
    coder: Coder | None = None
    number = first
    for piece in pieces:
        if isinstance(piece, Shot):
            if number >= len(edit.times) or piece.pts != edit.times[number]:
                raise changed(name, number, len(edit.times))
            coder = coder or Coder(edit.coding)
            frame = edit.survey.canvas.draw(piece.frame)
            brush.paint(frame, number, interlaced=bool(piece.frame.interlaced_frame))
            yield from coder.write(frame, edit.at(piece.pts), edit.lasts(piece.frame.duration))
            number += 1
        elif piece is None:
            if coder is not None:
                yield from coder.finish()
            coder = None
        else:
            yield _copied(name, edit, piece)
            number += 1
    if number != (*edit.firsts, len(edit.times))[edit.firsts.index(first) + 1]:
        raise changed(name, number, len(edit.times))


def _copied(name: str, edit: Edit, packet: Any) -> Coded:
    header = edit.survey.header
    try:
        units = h264.picture_units(bytes(packet), header) if header else []
    except h264.Foreign:
        units = []
    if not units or packet.pts is None:
        raise changed(name, 0, len(edit.times))
    key = units[0][0] & 31 == h264.IDR
    return Coded(h264.joined(units), edit.at(packet.pts), edit.lasts(packet.duration), key, copied=True)


def join(
    source: Path, aside: Path, edit: Edit, pictures: Iterable[Coded], job: Job, told: Told | None = None
) -> tuple[Sound, Words]:
    """Write the coded pictures of all chunks, the sound and the subtitles, to a file.

    Args:
        source: the video, for its sound.
        aside: file to write.
        edit: what was made.
        pictures: what `make` yielded for every chunk, in order.
        job: what becomes of the sound.
        told: called with the number of frames done, after each.

    Raises:
        UnsupportedMedia: a track of sound cannot be decoded, or the container cannot hold it.
        MediaError: pictures are missing, or out of order.
    """
    survey = edit.survey
    depth = max(OWN_DEPTH, survey.depth) if edit.coding.is_h264 else 0
    times = array("q", (edit.at(time) for time in edit.times))
    end = edit.times[-1] * survey.time_base + 1 / survey.rate
    opened = open_video(source, job.settings.max_pixels, checked=True)
    with (
        contextlib.nullcontext() if survey.alone else opened as reader,
        VideoWriter(aside, edit.coding, survey.header, times, depth) as writer,
    ):
        sound = Sound(reader, writer, job.settings.audio, survey.spans, end)
        words = Words(reader, writer, job.settings.subtitles, edit.start * survey.time_base)
        others = reader.others() if reader and (len(sound) or len(words)) else iter(())
        for done, picture in enumerate(pictures, 1):
            if reader is not None:
                now = writer.now + edit.start * survey.time_base
                sound.until(now)
                for packet in others:
                    sound.take(packet)
                    words.take(packet)
                    if packet.dts is not None and packet.dts * packet.time_base > now + LEAD:
                        break
            writer.write(picture)
            if told is not None:
                told(done)
        writer.finish()
        for packet in others:
            sound.take(packet)
            words.take(packet)
        sound.finish()
        words.finish()
    return sound, words
