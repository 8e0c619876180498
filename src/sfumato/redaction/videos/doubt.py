"""Doubt: between which two looks nobody can say where a thing was, so that more frames must be looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.videos.link import DUBIOUS, Box, Chain, Linker
from sfumato.vision.boxes import Boxes, iou

#: A thing that moves less than this share of its side until the next look is held well enough when lost.
CALM = 0.25
#: A thing seen three times that is found again within this overlap of where it was expected moves evenly.
EXPECTED = 0.4


class Doubts:
    """Knows what was seen up to the last look, and whether the next one leaves a question open.

    A question is open where a sure thing has no counterpart in the other look that its box overlaps, unless
    it moves as evenly as before, or hardly at all. A thing that flickers opens none.

    Args:
        sure: whether a score reaches the full threshold of its class.
        step: usual distance of two looked-at frames.
        patience: frames for which a lost thing is remembered.
    """

    def __init__(self, sure: Callable[[str, float], bool], *, step: int, patience: int) -> None:
        self._sure, self._step, self._patience = sure, step, max(patience, step)
        self.forget()

    def forget(self) -> None:
        """Start anew, at a cut."""
        self._linkers: dict[str, Linker] = defaultdict(lambda: Linker(step=self._step, bridge=self._patience))
        self.last: int | None = None

    def see(self, frame: int, found: Boxes) -> None:
        """Take what a look found; frames must rise."""
        for label in set(found.labels) | set(self._linkers):
            self._linkers[label].see(frame, *self._of(found, label))
            self._linkers[label].done.clear()
        self.last = frame

    def open(self, frame: int, found: Boxes) -> bool:
        """Say whether what a later look found leaves a question open about the frames before it."""
        if self.last is None or frame - self.last < 2:
            return False
        return any(
            self._open_for(label, frame, *self._of(found, label))
            for label in set(found.labels) | set(self._linkers)
        )

    def _of(self, found: Boxes, label: str) -> tuple[Box, NDArray[np.bool_]]:
        here = found.keep([name == label for name in found.labels])
        return here.xyxy, np.array([self._sure(label, float(score)) for score in here.scores], dtype=bool)

    def _open_for(self, label: str, frame: int, xyxy: Box, sure: NDArray[np.bool_]) -> bool:
        chains = self._linkers[label].active
        met = np.zeros(len(xyxy), bool)
        open_end = False
        for chain in chains:
            same = _counterparts(chain, frame, xyxy)
            met |= same
            visible = chain.sure and chain.frames[-1] == self.last
            open_end |= visible and not same.any() and not _calm(chain, frame)
        return open_end or bool((sure & ~met).any())


def _counterparts(chain: Chain, frame: int, xyxy: Box) -> NDArray[np.bool_]:
    """Return which boxes, (n, 4), may be the chain's thing with no question where it was meanwhile."""
    if not len(xyxy):
        return np.zeros(0, bool)
    near = iou(chain.boxes[-1][None], xyxy)[0] >= DUBIOUS
    expected = iou(chain.predict(frame)[None], xyxy)[0]
    if len(chain.frames) < 3:
        # One sighting predicts no motion, so both are the same there.
        return np.asarray(near & (expected >= DUBIOUS), bool)
    return np.asarray(near & (expected >= DUBIOUS) | (expected >= EXPECTED), bool)


def _calm(chain: Chain, frame: int) -> bool:
    if len(chain.frames) < 2:
        return False
    box = chain.boxes[-1]
    way = np.abs(chain.velocity(at_end=True)[:2]) * (frame - chain.frames[-1])
    return bool((way < CALM * (box[2:] - box[:2])).all())
