"""Linking: which boxes of different frames are the same thing. Pure arithmetic, no pixels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfumato.vision.boxes import Boxes, iou

Box = NDArray[np.float32]

#: Sightings whose motion a prediction uses; further back, people have turned.
MEMORY = 3
#: But over fewer frames than this the shaking of boxes would pass for motion.
LEAST_SPAN = 4
#: Cost added to a weak box, so that a sure one is taken first.
WEAK = 0.3
#: Below this overlap of two linked boxes nobody can say how the thing went from one to the other.
DUBIOUS = 0.2


@dataclass(slots=True)
class Chain:
    """Sightings of one thing, in order of time.

    Args:
        frames: index of each frame in which it was seen, rising.
        boxes: where, (4,) each.
        sure: whether one sighting at least reached the full threshold.
        tries: closer looks taken for it since it was last seen.
    """

    frames: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    sure: bool = False
    tries: int = 0

    def add(self, frame: int, box: Box, sure: bool) -> None:
        """Append a sighting later than all others."""
        self.frames.append(frame)
        self.boxes.append(box)
        self.sure |= sure
        self.tries = 0

    def after(self, other: Chain) -> Chain:
        """Return the chain of `other` and then this one."""
        return Chain(other.frames + self.frames, other.boxes + self.boxes, self.sure or other.sure)

    def velocity(self, *, at_end: bool) -> Box:
        """Return the motion of the box's corners in pixels per frame, (4,), at one end of the chain."""
        last = len(self.frames) - 1
        if at_end:
            one, two = max(last - MEMORY + 1, 0), last
            while one and self.frames[two] - self.frames[one] < LEAST_SPAN:
                one -= 1
        else:
            one, two = 0, min(MEMORY - 1, last)
            while two < last and self.frames[two] - self.frames[one] < LEAST_SPAN:
                two += 1
        span = self.frames[two] - self.frames[one]
        if not span:
            return np.zeros(4, np.float32)
        x1, y1, x2, y2 = (self.boxes[two] - self.boxes[one]).tolist()
        x, y = (x1 + x2) / 2 / span, (y1 + y2) / 2 / span
        return np.array([x, y, x, y], np.float32)

    def gap(self, frame: int) -> int:
        """Return the distance of a frame outside the chain from its nearer end."""
        return max(frame - self.frames[-1], self.frames[0] - frame)

    def predict(self, frame: int) -> Box:
        """Return where the thing would be at a frame outside the chain, at constant velocity."""
        at_end = frame > self.frames[-1]
        end = -1 if at_end else 0
        moved = self.velocity(at_end=at_end) * (frame - self.frames[end])
        result: Box = (self.boxes[end] + moved).astype(np.float32)
        return result


def link(
    sights: Mapping[int, Boxes], sure: Callable[[str, float], bool], *, step: int, bridge: int
) -> dict[str, list[Chain]]:
    """Link the boxes of one scene into chains, per class.

    Forward in time with a constant-velocity prediction; then the chains left over are joined backwards, from
    each beginning to an earlier end, so that a thing whose motion was not yet known when it was missed is
    bridged too.

    Guarantee:
        Every box with `sure(label, score)` is in exactly one chain of its class; every chain holds one such
        box at least; no chain holds two boxes of one frame.

    Args:
        sights: frame index -> boxes found there, weak ones included.
        sure: whether a score reaches the full threshold of its class.
        step: usual distance of two looked-at frames.
        bridge: longest gap, in frames, between two sightings of one thing.
    """
    labels = sorted({label for boxes in sights.values() for label in boxes.labels})
    chains: dict[str, list[Chain]] = {}
    for label in labels:
        forward = _forward(sights, label, sure, step=step, bridge=bridge)
        joined = _join([one for one in forward if one.sure], sorted(sights), step=step, bridge=bridge)
        if joined:
            chains[label] = joined
    return chains


class Linker:
    """Forward linking of the boxes of one class, one looked-at frame after the other.

    Args:
        step: usual distance of two looked-at frames.
        bridge: longest gap, in frames, between two sightings of one thing.
    """

    def __init__(self, *, step: int, bridge: int) -> None:
        self._step, self._bridge = step, bridge
        self.done: list[Chain] = []
        self.active: list[Chain] = []
        self._matched: tuple[int, bytes, bytes, list[tuple[Chain, int]]] | None = None

    def see(self, frame: int, xyxy: Box, sure: NDArray[np.bool_]) -> None:
        """Take the boxes, (n, 4), of a frame later than all before; `sure` says which reach the threshold."""
        self.done += [chain for chain in self.active if frame - chain.frames[-1] > self._bridge]
        self.active = [chain for chain in self.active if frame - chain.frames[-1] <= self._bridge]
        taken: set[int] = set()
        for chain, column in self._match(frame, xyxy, sure):
            chain.add(frame, xyxy[column], bool(sure[column]))
            taken.add(column)
        for column in range(len(xyxy)):
            if column not in taken:
                self.active.append(Chain([frame], [xyxy[column]], bool(sure[column])))
        self._matched = None

    def missing(self, frame: int, xyxy: Box, sure: NDArray[np.bool_]) -> list[Chain]:
        """Return the sure chains that none of the boxes of a frame would be linked to, newest first."""
        met = {id(chain) for chain, _ in self._match(frame, xyxy, sure)}
        lost = [chain for chain in self.active if chain.sure and id(chain) not in met]
        return sorted(lost, key=lambda chain: -chain.frames[-1])

    def explains(self, frame: int, xyxy: Box, sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the boxes of a frame, (n, 4), would be linked to something surely seen before."""
        known = np.zeros(len(xyxy), dtype=bool)
        known[[column for chain, column in self._match(frame, xyxy, sure) if chain.sure]] = True
        return known

    def _match(self, frame: int, xyxy: Box, sure: NDArray[np.bool_]) -> list[tuple[Chain, int]]:
        if not self.active or not len(xyxy):
            return []
        asked = (frame, xyxy.tobytes(), sure.tobytes())
        # What is missing, what is new and what goes on is asked of the same boxes, one after the other.
        if self._matched is None or self._matched[:3] != asked:
            cost = _costs(self.active, [frame] * len(self.active), xyxy, self._step)
            pairs = [(self.active[row], column) for row, column in _greedy(cost + WEAK * ~sure)]
            self._matched = (*asked, pairs)
        return self._matched[3]


def _forward(
    sights: Mapping[int, Boxes], label: str, sure: Callable[[str, float], bool], *, step: int, bridge: int
) -> list[Chain]:
    linker = Linker(step=step, bridge=bridge)
    for frame in sorted(sights):
        here = sights[frame].keep([name == label for name in sights[frame].labels])
        linker.see(
            frame, here.xyxy, np.array([sure(label, float(score)) for score in here.scores], dtype=bool)
        )
    return linker.done + linker.active


def _join(chains: list[Chain], looked: list[int], *, step: int, bridge: int) -> list[Chain]:
    """Join beginnings to earlier ends, cheapest first, by predicting backwards.

    Between two successive looks both are held anyway. There they are joined only where the motion of the
    earlier one allows it too, or the hold of a thing that goes on would end where another is first seen.
    """
    by_end = sorted(chains, key=lambda chain: chain.frames[-1])
    ends = [chain.frames[-1] for chain in by_end]
    offers: list[tuple[float, int, int]] = []
    for late, chain in enumerate(by_end):
        start = chain.frames[0]
        window = range(bisect_left(ends, start - bridge), bisect_left(ends, start))
        if not window:
            continue
        last = np.stack([by_end[early].boxes[-1] for early in window])
        cost = _costs([chain] * len(window), [ends[early] for early in window], last, step).diagonal().copy()
        before_start = bisect_left(looked, start) - 1
        for place, early in enumerate(window):
            if ends[early] == looked[before_start]:
                ahead = _costs([by_end[early]], [start], chain.boxes[0][None], step)[0, 0]
                cost[place] = max(cost[place], ahead)
        offers += [(float(c), early, late) for c, early in zip(cost, window, strict=True) if np.isfinite(c)]
    before: dict[int, int] = {}
    followed: set[int] = set()
    for _, early, late in sorted(offers):
        if late not in before and early not in followed:
            before[late] = early
            followed.add(early)
    result = []
    for tip in range(len(by_end)):
        if tip in followed:
            continue
        chain, index = by_end[tip], tip
        while index in before:
            index = before[index]
            chain = chain.after(by_end[index])
        result.append(chain)
    return result


def _costs(chains: Sequence[Chain], frames: Sequence[int], found: Box, step: int) -> NDArray[np.float64]:
    """Return (n, m) costs of taking each found box for each chain, row by row at the frame given."""
    pairs = list(zip(chains, frames, strict=True))
    slack = np.array([_slack(chain, chain.gap(frame), step) for chain, frame in pairs])
    return _cost(np.stack([chain.predict(frame) for chain, frame in pairs]), found, slack)


def _slack(chain: Chain, gap: int, step: int) -> float:
    """Return how far, in box sides, a prediction may be off: more after a gap, or when no motion is known.

    It may be generous: a link between boxes that hardly meet hides the hull of both, so a wrong one hides
    too much, not too little.
    """
    steps = max(gap / max(step, 1), 1.0) - 1
    return min(0.5 + 0.15 * steps, 1.0) if len(chain.frames) > 1 else min(1.6 + 0.2 * steps, 2.0)


def _cost(predicted: Box, found: Box, slack: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, m) costs of taking each found box for each predicted one; infinite where it cannot be."""
    overlap = iou(predicted, found).astype(np.float64)
    sides_p, sides_f = (np.maximum(b[:, 2:] - b[:, :2], 1e-3) for b in (predicted, found))
    centre_p, centre_f = ((b[:, :2] + b[:, 2:]) / 2 for b in (predicted, found))
    scale = (sides_p.mean(axis=1)[:, None] + sides_f.mean(axis=1)[None, :]) / 2
    way = centre_p[:, None] - centre_f[None]
    apart = np.hypot(way[..., 0], way[..., 1]) / scale
    area_p, area_f = sides_p[:, 0] * sides_p[:, 1], sides_f[:, 0] * sides_f[:, 1]
    growth = np.abs(np.log(area_p[:, None] / area_f[None, :]))
    possible = ((overlap > 0.1) | (apart < slack[:, None])) & (growth < np.log(4))
    return np.where(possible, apart + (1 - overlap) + 0.25 * growth, np.inf)


def _greedy(cost: NDArray[np.float64]) -> Iterable[tuple[int, int]]:
    """Yield pairs (row, column), cheapest first, no row or column twice."""
    rows, columns = np.nonzero(np.isfinite(cost))
    order = np.argsort(cost[rows, columns], kind="stable")
    used_rows: set[int] = set()
    used_columns: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in used_rows and column not in used_columns:
            used_rows.add(row)
            used_columns.add(column)
            yield row, column
