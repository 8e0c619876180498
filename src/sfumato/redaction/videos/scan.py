"""What the first pass over a video learns: which frames are looked at, and what is found there."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction

from sfumato.core.errors import UnsupportedMedia
from sfumato.redaction.videos.frames import Canvas
from sfumato.redaction.videos.looker import LONGEST_STEP
from sfumato.redaction.videos.times import reaches
from sfumato.vision.boxes import Boxes

#: How far from its place a frame may be, in frames, where others are gone and the container counts frames.
OFF_GRID = Fraction(1, 10)


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
        time = now - before
        return reaches(time, self.time_base, LONGEST_STEP) and time * self.time_base > 4 / self.rate


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
