"""The first pass: each chunk of a video is looked at by itself, and what was seen is put together."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import UnreadableMedia
from sfumato.redaction.job import Job
from sfumato.redaction.videos.frames import CutFinder, thumb_of
from sfumato.redaction.videos.looker import Looker
from sfumato.redaction.videos.reader import Shot, VideoReader, open_video
from sfumato.redaction.videos.scan import Scan, settle_steady
from sfumato.redaction.videos.survey import Chunk, Survey
from sfumato.redaction.videos.target import Target
from sfumato.redaction.videos.threads import ahead
from sfumato.vision.boxes import Boxes
from sfumato.vision.onnx import hand_back

#: Frames that wait to be looked at: the detector is slower than the decoder.
WAITING = 2
#: Of frames with more pixels, every so many, what lies free between others goes back to the system: smaller
#: ones leave little, and a millisecond is much to them.
LARGE, HANDED = 2**19, 10

#: Called with a number of frames done.
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSights:
    """What one chunk showed; picklable. Frames are counted from the chunk's first.

    Args:
        index: number of the chunk.
        times: of every frame, in order of showing, in units of the survey's time base.
        sights: looked-at frame -> boxes, weak ones included; the first and the last frame are among them.
        cuts: first frames of new scenes.
        thumbs: coarse pictures of the first and of the last frame.
        usual: the usual change from frame to frame at the end.
        crc: checksum of the chunk's packets.
        notes: what the output leaves out or changes.
    """

    index: int
    times: array[int]
    sights: dict[int, Boxes]
    cuts: set[int]
    thumbs: tuple[NDArray[np.float32], NDArray[np.float32]]
    usual: float
    crc: int
    notes: tuple[str, ...]


def look(source: Path, survey: Survey, index: int, job: Job, told: Told | None = None) -> ChunkSights:
    """Look at one chunk.

    Guarantee:
        What is seen depends on the source, the chunk and the job alone, not on other chunks.

    Args:
        source: the video.
        survey: what `survey` returned for it.
        index: number of the chunk.
        job: settings and finder.
        told: called with the number of frames done in this chunk, after each.

    Raises:
        UnreadableMedia: damaged, cut short, or it changed meanwhile.
        UnsupportedMedia: the picture size changes on the way.
    """
    chunk = survey.chunks[index]
    scan = Scan(survey.canvas, survey.time_base, survey.rate)
    looker = Looker(scan, job.settings.every, job.finder)
    large = survey.canvas.width * survey.canvas.height > LARGE
    with open_video(source, job.settings.max_pixels, checked=True) as reader:
        first: Any = None
        last: Any = None
        with contextlib.closing(ahead(shots_of(reader, survey, chunk), WAITING)) as shots:
            for shot in shots:
                looker.see(shot)
                scan.times.append(shot.pts)
                first, last = thumb_of(shot.frame) if first is None else first, shot.frame
                if large and len(scan.times) % HANDED == 1:
                    hand_back()
                if told is not None:
                    told(len(scan.times))
        looker.finish()
        if last is None:
            raise UnreadableMedia(f"{source.name} holds no picture that can be decoded")
        return ChunkSights(
            index=index,
            times=scan.times,
            sights=scan.sights,
            cuts=scan.cuts,
            thumbs=(first, thumb_of(last)),
            usual=looker.cuts.usual,
            crc=reader.crc,
            notes=tuple(reader.notes),
        )


def shots_of(reader: VideoReader, survey: Survey, chunk: Chunk) -> Iterator[Shot]:
    """Yield the frames of a chunk, counted from its first."""
    if chunk.at is None:
        yield from reader.frames()
    else:
        yield from reader.decoded(reader.section(chunk.at, chunk.packets), survey.size)


def together(name: str, form: Target, survey: Survey, parts: Sequence[ChunkSights]) -> Scan:
    """Return what all chunks showed, as if the video had been looked at in one go.

    Args:
        name: what messages call the video.
        form: how the output is written.
        survey: of the video.
        parts: of all its chunks, in order.

    Raises:
        UnsupportedMedia: the output cannot hold the video's times.
    """
    scan = Scan(survey.canvas, survey.time_base, survey.rate, spans=dict(survey.spans))
    scan.notes = survey.notes
    finder = CutFinder()
    before: ChunkSights | None = None
    for part in parts:
        shift = len(scan.times)
        if before is not None and (
            scan.is_gap(before.times[-1], part.times[0])
            or finder.is_jump(before.thumbs[1], part.thumbs[0], before.usual)
        ):
            scan.cuts.add(shift)
        scan.times.extend(part.times)
        scan.sights.update((frame + shift, boxes) for frame, boxes in part.sights.items())
        scan.cuts.update(cut + shift for cut in part.cuts)
        scan.notes += part.notes
        before = part
    scan.notes = tuple(dict.fromkeys(scan.notes))
    if form.steady:
        settle_steady(name, scan)
    return scan
