"""How much of what the original shows is still there in the output, thing by thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.check.looks import SAME, Picture, Seen
from sfumato.redaction.check.report import Covered, Find
from sfumato.vision.boxes import iou
from sfumato.vision.opencv import opencv

#: A box is compared in so many cells along each side, of so many pixels.
CELLS, PIXELS = 6, 8
#: Grey levels of detail below which a cell tells nothing.
PLAIN = 2.0
#: Share of the original's detail from which a cell counts as open.
OPEN = 0.5
#: From this share of open cells on a thing is exposed: less than 90 % of it is covered.
EXPOSED = 0.1
#: Frames for which a thing may be out of sight and is still the same track.
GAP = 12


def open_share(before: Picture, after: Picture, box: Sequence[float] | NDArray[Any]) -> float:
    """Return the share of a box's telling cells in which the original's detail is still there.

    A cell's share is the slope of the output's detail on the original's, so that a re-encoding (slope near 1)
    is told from a cover (near 0), and a blur from both.

    Args:
        before, after: (height, width, 3) uint8 RGB of the same size.
        box: x1, y1, x2, y2 in pixels.
    """
    one, two = _details(before, box), _details(after, box)
    if one is None or two is None:
        return 0.0
    energy = (one**2).mean(axis=(1, 3))
    slope = (one * two).mean(axis=(1, 3)) / np.maximum(energy, 1e-6)
    telling = energy >= PLAIN**2
    if not telling.any():
        return 0.0
    return float((slope[telling] > OPEN).mean())


def _details(picture: Picture, box: Sequence[float] | NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the detail of a box as (cells, pixels, cells, pixels)."""
    cv2 = opencv()
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    part = picture[max(0, y1) : min(height, y2), max(0, x1) : min(width, x2)]
    if min(part.shape[:2]) < 4:
        return None
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    side = CELLS * PIXELS
    even = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    rest = even - cv2.GaussianBlur(even, (0, 0), 4.0)
    return np.asarray(rest, np.float32).reshape(CELLS, PIXELS, CELLS, PIXELS)


@dataclass(slots=True)
class _Track:
    label: str
    box: tuple[float, float, float, float]
    last: int
    frames: int = 0
    exposed: list[tuple[int | None, float | None, tuple[float, float, float, float], float]] = field(
        default_factory=list
    )
    most: float = 0.0


class Compared:
    """The things of one original, followed through its frames, and how much of each the output shows."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tracks: list[_Track] = []

    def still(self, before: Picture, after: Picture, found: Sequence[Seen], number: int | None) -> None:
        """Compare a page: everything in it is a thing of its own."""
        for seen in found:
            track = _Track(seen.label, seen.box, 0)
            self._tracks.append(track)
            self._add(track, before, after, seen, number, None)

    def frame(
        self, before: Picture, after: Picture, found: Sequence[Seen], index: int, seconds: float
    ) -> None:
        """Compare a frame: what overlaps a thing of the frames before is the same."""
        free = [track for track in self._tracks if index - track.last <= GAP]
        for seen in found:
            near = [track for track in free if track.label == seen.label]
            boxes = np.array([track.box for track in near]).reshape(-1, 4)
            shares = iou(np.array([seen.box]), boxes)[0] if near else np.zeros(1, np.float32)
            if near and shares.max() > SAME:
                track = near[int(shares.argmax())]
                free.remove(track)
            else:
                track = _Track(seen.label, seen.box, index)
                self._tracks.append(track)
            track.box, track.last = seen.box, index
            self._add(track, before, after, seen, index, seconds)

    def _add(
        self,
        track: _Track,
        before: Picture,
        after: Picture,
        seen: Seen,
        index: int | None,
        seconds: float | None,
    ) -> None:
        share = open_share(before, after, seen.box)
        track.frames += 1
        track.most = max(track.most, share)
        if share > EXPOSED:
            track.exposed.append((index, seconds, seen.box, share))

    def coverage(self) -> list[Covered]:
        """Return how well each thing is covered."""
        return [
            Covered(
                file=self._name,
                track=number,
                label=track.label,
                frames=track.frames,
                exposed=len(track.exposed),
                least=round(1 - track.most, 4),
            )
            for number, track in enumerate(self._tracks)
        ]

    def finds(self) -> list[Find]:
        """Return the things that are exposed somewhere, each at its worst."""
        result = []
        for track in self._tracks:
            if track.exposed:
                index, seconds, box, share = max(track.exposed, key=lambda one: one[3])
                result.append(
                    Find(
                        file=self._name,
                        kind="exposed",
                        label=track.label,
                        score=round(share, 4),
                        box=box,
                        frame=index,
                        seconds=seconds,
                        look="compared with the original",
                        frames=len(track.exposed),
                    )
                )
        return result
