"""The grids of a video, taken before it is covered: one frame for each track, chosen without a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import UnreadableMedia
from sfumato.redaction.covers.dp_pixelate import DpPixelate
from sfumato.redaction.grids import FULL, LIMITED, Levels, Look, in_chroma, looks_of_sums, sums_of
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places
from sfumato.redaction.looks import Key, Spot, noisy_cover, noisy_spots
from sfumato.redaction.regions import regions_of
from sfumato.redaction.videos.follow import Timeline
from sfumato.redaction.videos.frames import Canvas, planes
from sfumato.redaction.videos.reader import open_video
from sfumato.redaction.videos.scan import Scan
from sfumato.vision.boxes import Boxes
from sfumato.vision.tracks import Track


def looks_of(source: Path, scan: Scan, tracks: Sequence[Track], fixed: Places, job: Job) -> dict[Key, Look]:
    """Return the look of every track and zone that is covered by a grid; read once, before the second pass.

    Guarantee:
        Noise is drawn once for a whole video: every frame shows the same grid, so that frames can neither be
        averaged nor compared. Each track gives the samples of one frame, and which one is decided by its
        boxes: the largest inside the picture, of several the first. A zone gives those of the first frame.

    Args:
        source: the video.
        scan: what the first pass learnt.
        tracks, fixed: what is hidden.
        job: with a cover that may draw noise.

    Raises:
        InvalidRequest: the cover has no permit here.
        UnreadableMedia: the video reads otherwise than in the first pass.
    """
    cover = noisy_cover(job)
    if cover is None:
        return {}
    wanted = _wanted(scan.canvas, tracks, fixed, job)
    looks: dict[Key, Look] = {}
    if not wanted:
        return looks
    left = dict(wanted)
    with open_video(source, job.settings.max_pixels) as reader:
        for shot in reader.frames():
            if shot.index >= len(scan.times) or shot.pts != scan.times[shot.index]:
                break
            if (spots := left.pop(shot.index, None)) is not None:
                looks |= _looks_in_frame(cover, scan.canvas, scan.canvas.draw(shot.frame), spots)
            if not left:
                return looks
    raise UnreadableMedia(
        f"{source.name} read differently the second time: it changed meanwhile, or it is damaged. Copy it "
        "aside and try again"
    )


def _wanted(canvas: Canvas, tracks: Sequence[Track], fixed: Places, job: Job) -> Mapping[int, list[Spot]]:
    """Return frame -> the spots whose grids are taken from it."""
    chosen: dict[int, set[Key]] = {}
    for number, track in enumerate(tracks):
        if isinstance(job.cover_of(track.label), DpPixelate):
            frame = _chosen(track, canvas, job)
            if frame is not None:
                chosen.setdefault(frame, set()).add(("track", number))
    for index, (cover, _) in enumerate(fixed.hidden):
        if isinstance(cover, DpPixelate):
            chosen.setdefault(0, set()).add(("zone", index))
    timeline, wanted = Timeline(tracks), {}
    for frame in sorted(chosen):
        here = timeline.at(frame)
        spots = noisy_spots(job, here, timeline.numbers, fixed, canvas.width, canvas.height)
        wanted[frame] = [spot for spot in spots if spot.key in chosen[frame]]
    return wanted


def _chosen(track: Track, canvas: Canvas, job: Job) -> int | None:
    """Return the frame that a track's grid is taken from, by its boxes; None where it has no region."""
    size = np.array([canvas.width, canvas.height] * 2, np.float32)
    inside = track.xyxy.clip(0, size)
    areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    best = int(np.argmax(areas))  # the first of several
    for index in (best, *range(len(areas))):
        box = Boxes(track.xyxy[index : index + 1], np.ones(1, np.float32), (track.label,))
        if len(regions_of(box, job.settings, canvas.width, canvas.height)):
            return int(track.first + index)
    return None


def _looks_in_frame(cover: DpPixelate, canvas: Canvas, frame: Any, spots: list[Spot]) -> dict[Key, Look]:
    """Take the grids of one frame of our own."""
    shift = canvas.bits - 8
    samples = planes(frame)[:3]

    def read(region: NDArray[np.int32]) -> list[Levels]:
        x1, y1, x2, y2 = (int(value) for value in region)
        cx1, cy1, cx2, cy2 = in_chroma((x1, y1, x2, y2), canvas.cell)
        parts = [samples[0][y1:y2, x1:x2], *(plane[cy1:cy2, cx1:cx2] for plane in samples[1:])]
        return [(part >> shift).clip(0, 255).astype(np.uint8) for part in parts]

    regions = np.stack([spot.extent for spot in spots])
    sums = sums_of(cover, read, regions, (canvas.width, canvas.height), canvas.cell)
    looks = looks_of_sums(cover, sums, FULL if canvas.full_range else LIMITED)
    return {spot.key: look for spot, look in zip(spots, looks, strict=True)}
