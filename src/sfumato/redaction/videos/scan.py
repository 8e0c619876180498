"""The first pass over a video: which frames are looked at, and what is found there."""

from __future__ import annotations

from array import array
from collections import deque
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from sfumato.core.errors import UnreadableMedia, UnsupportedMedia
from sfumato.redaction.job import Progress
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos.doubt import Doubts
from sfumato.redaction.videos.frames import Canvas, CutFinder, canvas_for
from sfumato.redaction.videos.reader import Shot, VideoReader, open_video
from sfumato.redaction.videos.second_look import SecondLook
from sfumato.redaction.videos.writer import Target
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder

#: Share of the full threshold from which a box may extend or bridge a track.
WEAK = 0.5
#: Longest time, in seconds, between two looks: in a slow video every k-th frame would be too seldom.
LONGEST_STEP = Fraction(1, 2)
#: How far from its place a frame may be, in frames, where others are gone and the container counts frames.
OFF_GRID = Fraction(1, 10)
#: Seconds for which a thing that was lost is looked for more closely.
PATIENCE = 2
#: Frames since the last look that are kept, to be looked at where the next one leaves a question open.
KEPT = 8


@dataclass(slots=True)
class Scan:
    """What the first pass learnt.

    Args:
        canvas: what frames are drawn on.
        time_base: unit of `times`, in seconds.
        rate: usual frames per second.
        times: of every frame, in order of showing.
        start: time that becomes nought in the output, in the same unit.
        sights: looked-at frame -> boxes, weak ones included.
        cuts: first frames of new scenes.
        spans: audio stream index -> (start, end) in seconds.
        notes: what the output leaves out or changes.
    """

    canvas: Canvas
    time_base: Fraction
    rate: Fraction
    times: array[int] = field(default_factory=lambda: array("q"))
    start: int = 0
    sights: dict[int, Boxes] = field(default_factory=dict)
    cuts: set[int] = field(default_factory=set)
    spans: dict[int, tuple[Fraction, Fraction]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def end(self) -> Fraction:
        """The end of the last frame, in seconds."""
        return self.times[-1] * self.time_base + 1 / self.rate

    def step(self, every: int) -> int:
        """Return the usual distance, in frames, of two looked-at frames."""
        return max(min(every, int(LONGEST_STEP * self.rate)), 1)


def scan_video(source: Path, form: Target, settings: Settings, finder: Finder, tell: Progress) -> Scan:
    """Read every frame of a video and look at some: the first pass.

    Args:
        source: the video.
        form: how the output will be written; it decides what frames are drawn on.
        settings: how often to look, and how many pixels a frame may have.
        finder: finds what is to be hidden.
        tell: called with (frames done, frames in both passes or None).

    Raises:
        UnreadableMedia, UnsupportedMedia, MediaTooLarge: see `open_video`.
        UnsupportedMedia: the output cannot hold the video's times.
    """
    formats = form.pixel_formats()
    with open_video(source, settings.max_pixels) as reader:
        guess = reader.guess_frames()
        scan: Scan | None = None
        looker: _Looker | None = None
        for shot in reader.frames():
            if scan is None or looker is None:
                scan = _new_scan(reader, shot, formats, form.even)
                looker = _Looker(scan, settings.every, finder)
            looker.see(shot)
            scan.times.append(shot.pts)
            tell(shot.index + 1, 2 * guess if guess and shot.index < guess else None)
        if scan is None or looker is None:
            raise UnreadableMedia(f"{source.name} holds no picture that can be decoded")
        looker.finish()
        scan.spans, scan.notes = reader.spans, tuple(reader.notes)
    if form.steady:
        _settle_steady(source.name, scan)
    return scan


def _new_scan(reader: VideoReader, shot: Shot, formats: frozenset[str], even: bool) -> Scan:
    stream = reader.stream
    canvas = canvas_for(shot.frame, stream.codec_context, stream.sample_aspect_ratio, formats, even)
    return Scan(canvas, stream.time_base, reader.rate)


class _Looker:
    """Chooses the frames to look at and keeps what the finder finds there."""

    def __init__(self, scan: Scan, every: int, finder: Finder) -> None:
        self._scan, self._every = scan, every
        self._cuts, self._finder = CutFinder(), finder
        step, patience = scan.step(every), round(PATIENCE * scan.rate)
        self._eye = SecondLook(finder, weak=WEAK, step=step, patience=patience)
        least = {label: finder.threshold(label) - 1e-6 for label in finder.hide}
        self._doubts = Doubts(lambda label, score: score >= least[label], step=step, patience=patience)
        self._kept: deque[Shot] = deque(maxlen=KEPT)
        self._before: Shot | None = None
        self._looked: Shot | None = None

    def see(self, shot: Shot) -> None:
        """Take the next frame: look at it where it is due, and on both sides of a cut or a gap in time."""
        before, looked = self._before, self._looked
        new_scene = self._cuts.is_cut(shot.frame) or (before is not None and self._is_gap(before, shot))
        if new_scene and before is not None:
            self._scan.cuts.add(shot.index)
            self._look(before)
            self._eye.forget()
            self._doubts.forget()
        if (
            new_scene
            or looked is None
            or shot.index - looked.index >= self._every
            or (shot.pts - looked.pts) * self._scan.time_base >= LONGEST_STEP
        ):
            self._look(shot)
        else:
            self._kept.append(shot)
        self._before = shot

    def finish(self) -> None:
        """Look at the last frame."""
        if self._before is not None:
            self._look(self._before)

    def _is_gap(self, before: Shot, shot: Shot) -> bool:
        """Say whether so much time has passed that nobody knows where things went."""
        time = (shot.pts - before.pts) * self._scan.time_base
        return time >= LONGEST_STEP and time > 4 / self._scan.rate

    def _look(self, shot: Shot) -> None:
        if self._looked is None or shot.index > self._looked.index:
            found = self._eye.candidates(shot.index, self._scan.canvas.rgb(shot.frame))
            self._look_between(shot.index, found)
            self._looked = shot
            self._kept.clear()

    def _look_between(self, index: int, found: Boxes) -> None:
        """Keep what a look found, after looks at frames before it for as long as a question is open."""
        waiting = [(index, found)]
        while waiting:
            index, found = waiting[-1]
            between = [shot for shot in self._kept if (self._doubts.last or 0) < shot.index < index]
            if between and self._doubts.open(index, found):
                shot = between[len(between) // 2]
                picture = self._scan.canvas.rgb(shot.frame)
                waiting.append((shot.index, self._finder.candidates(picture, WEAK)))
            else:
                waiting.pop()
                self._scan.sights[index] = found
                self._doubts.see(index, found)


def _settle_steady(name: str, scan: Scan) -> None:
    """Fit a video to a container that has one frame duration and starts at nought.

    Raises:
        UnsupportedMedia: its times are too uneven for that, or it starts too late.
    """
    frame = 1 / scan.rate
    start = scan.times[0] * scan.time_base
    uneven = False
    if any(abs(t * scan.time_base - start - n * frame) > frame / 2 for n, t in enumerate(scan.times)):
        # Frames that were dropped leave whole gaps, which the container can hold.
        places = [(time * scan.time_base - start) / frame for time in scan.times]
        rounded = [round(place) for place in places]
        uneven = any(abs(place - at) > OFF_GRID for place, at in zip(places, rounded, strict=True))
        uneven |= len(set(rounded)) < len(rounded)
    if uneven or not 0 <= start <= 3 * frame:
        raise UnsupportedMedia(
            f"{name}: its frames start at {float(start):.3f} s or do not last equally long, which .avi "
            f"cannot hold; write to .mp4 or .mkv"
        )
    if start:
        scan.start = scan.times[0]
        scan.notes += (f"the first frame is shown {float(start):.3f} s earlier: .avi starts at nought",)
