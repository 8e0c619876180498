"""What the first pass over a video learns: which frames are looked at, and what is found there."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.videos.frames import Canvas, CutFinder
from sfumato.redaction.videos.reader import Shot
from sfumato.redaction.videos.second_look import SecondLook
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

    def is_gap(self, before: int, now: int) -> bool:
        """Say whether so much time lies between two frames that nobody knows where things went."""
        time = (now - before) * self.time_base
        return time >= LONGEST_STEP and time > 4 / self.rate


class Looker:
    """Chooses the frames to look at and keeps what the finder finds there."""

    def __init__(self, scan: Scan, every: int, finder: Finder) -> None:
        self._scan, self._every = scan, every
        self.cuts = CutFinder()
        self._eye = SecondLook(finder, weak=WEAK, step=scan.step(every), patience=round(PATIENCE * scan.rate))
        self._before: Shot | None = None
        self._looked: Shot | None = None

    def see(self, shot: Shot) -> None:
        """Take the next frame: look at it where it is due, and on both sides of a cut or a gap in time."""
        before, looked = self._before, self._looked
        new_scene = self.cuts.is_cut(shot.frame) or (
            before is not None and self._scan.is_gap(before.pts, shot.pts)
        )
        if new_scene and before is not None:
            self._scan.cuts.add(shot.index)
            self._look(before)
            self._eye.forget()
        if (
            new_scene
            or looked is None
            or shot.index - looked.index >= self._every
            or (shot.pts - looked.pts) * self._scan.time_base >= LONGEST_STEP
        ):
            self._look(shot)
        self._before = shot

    def finish(self) -> None:
        """Look at the last frame."""
        if self._before is not None:
            self._look(self._before)

    def _look(self, shot: Shot) -> None:
        if self._looked is None or shot.index > self._looked.index:
            picture = self._scan.canvas.rgb(shot.frame)
            self._scan.sights[shot.index] = self._eye.candidates(shot.index, picture)
            self._looked = shot


def settle_steady(name: str, scan: Scan) -> None:
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
