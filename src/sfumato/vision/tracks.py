"""Tracks: one thing followed through the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One thing through time: a box for every frame from its first to its last, without gaps.

    >>> track = Track("face", 7, [[0, 0, 4, 4], [1, 0, 5, 4]])
    >>> track.last, track.at(8).tolist(), track.at(9)
    (8, [1.0, 0.0, 5.0, 4.0], None)

    Args:
        label: class name.
        first: index of the first frame, counted from 0.
        xyxy: (frames, 4) float32 boxes in pixels, one per frame from `first` on.

    Raises:
        InvalidRequest: no frame, a negative start, values not finite, or a box inside out.
    """

    label: str
    first: int
    xyxy: NDArray[np.float32]

    def __post_init__(self) -> None:
        xyxy = np.array(self.xyxy, dtype=np.float32).reshape(-1, 4)
        if self.first < 0 or not len(xyxy):
            raise InvalidRequest(
                f"a track needs a frame and a start >= 0: {len(xyxy)} frames at {self.first}"
            )
        if not np.isfinite(xyxy).all() or (xyxy[:, 2:] < xyxy[:, :2]).any():
            raise InvalidRequest(f"the track of {self.label!r} holds a box that is inside out or not finite")
        xyxy.flags.writeable = False
        object.__setattr__(self, "xyxy", xyxy)

    @property
    def last(self) -> int:
        """Index of the last frame."""
        return self.first + len(self.xyxy) - 1

    def at(self, frame: int) -> NDArray[np.float32] | None:
        """Return the box, (4,), at a frame, or None where the track is absent."""
        return self.xyxy[frame - self.first] if self.first <= frame <= self.last else None
