"""Following: from boxes found in some frames to a region for every frame. Pure arithmetic, no pixels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.redaction.videos.link import DUBIOUS, Chain, link
from sfumato.vision.boxes import Boxes, iou
from sfumato.vision.tracks import Track

Box = NDArray[np.float32]

#: A thing that is held may have gone this many of its own sides.
FARTHEST = 3
#: A motion is even whose change over a gap moves no side of the box farther than this share of the box.
EVEN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How far what was seen reaches beyond the frames in which it was seen.

    Args:
        step: usual distance, in frames, of two looked-at frames.
        bridge: longest gap, in frames, between two sightings of one thing that is closed.
        linger: frames of hold beyond the neighbouring looked-at frame in which the thing was not found.
        lead: share of a gap by which the thing may run ahead of or behind an even motion.
        growth: share of the box's side by which it grows per frame away from a sighting.
        most: largest such growth.

    Raises:
        InvalidRequest: a value outside its range.
    """

    step: int = 5
    bridge: int = 20
    linger: int = 3
    lead: float = 0.15
    growth: float = 0.02
    most: float = 0.2

    def __post_init__(self) -> None:
        if self.step < 1 or self.bridge < self.step or self.linger < 0:
            raise InvalidRequest(
                f"Rules need step >= 1, bridge >= step and linger >= 0: "
                f"got {self.step}, {self.bridge}, {self.linger}"
            )
        if not (0 <= self.lead <= 1 and 0 <= self.growth <= self.most):
            raise InvalidRequest(
                f"Rules need lead in 0..1 and growth <= most: got {self.lead}, {self.growth}, {self.most}"
            )


def follow(
    sights: Mapping[int, Boxes],
    *,
    frames: int,
    cuts: Collection[int],
    sure: Callable[[str, float], bool],
    rules: Rules,
) -> list[Track]:
    """Return tracks that cover each thing in every frame in which it may be seen.

    >>> boxes = Boxes([[0, 0, 10, 10]], [0.9], ["face"])
    >>> later = Boxes([[8, 0, 18, 10]], [0.9], ["face"])
    >>> seen = {0: boxes, 4: later}
    >>> tracks = follow(seen, frames=6, cuts=(), sure=lambda name, score: score > 0.5, rules=Rules(step=4))
    >>> [(track.first, track.last) for track in tracks]
    [(0, 5)]

    Guarantee:
        - A box that is `sure` lies inside a track of its class at its frame.
        - A track has a box for every frame from its first to its last, also where the thing was missed.
        - A track begins and ends no later than the neighbouring looked-at frame, and `linger` frames beyond.
        - No track reaches over a cut.
        - A thing that was never `sure` gives no track.

    Args:
        sights: looked-at frame -> the boxes found there, with weak candidates; a looked-at frame without a
            box must be there too, as `Boxes.empty()`.
        frames: frames in the video.
        cuts: first frames of new scenes.
        sure: whether a score reaches the full threshold of its class.
        rules: how far sightings reach.

    Raises:
        InvalidRequest: a looked-at frame lies outside the video.
    """
    looked = sorted(sights)
    if looked and not (looked[0] >= 0 and looked[-1] < frames):
        raise InvalidRequest(f"frames {looked[0]}..{looked[-1]} were looked at, the video has {frames}")
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < frames}), frames]
    tracks = []
    for start, stop in pairwise(edges):
        inside = looked[bisect_left(looked, start) : bisect_left(looked, stop)]
        scene = {frame: sights[frame] for frame in inside}
        for label, chains in link(scene, sure, step=rules.step, bridge=rules.bridge).items():
            tracks += [_track(label, chain, inside, (start, stop), rules) for chain in chains]
    return sorted(tracks, key=lambda track: (track.first, track.last, track.label))


class Timeline:
    """The boxes of many tracks, frame by frame; asking for rising frames costs next to nothing.

    Attributes:
        numbers: for each box that `at` returned last, the index of its track in the sequence given.
    """

    def __init__(self, tracks: Sequence[Track]) -> None:
        self._waiting = sorted(enumerate(tracks), key=lambda one: one[1].first, reverse=True)
        self._active: list[tuple[int, Track]] = []
        self._now = -1
        self.numbers: tuple[int, ...] = ()

    def at(self, frame: int) -> Boxes:
        """Return the boxes at a frame, which must not lie before the one asked for last."""
        if frame < self._now:
            raise InvalidRequest(f"a timeline runs forward: frame {frame} was asked for after {self._now}")
        self._now = frame
        while self._waiting and self._waiting[-1][1].first <= frame:
            self._active.append(self._waiting.pop())
        self._active = [(number, track) for number, track in self._active if track.last >= frame]
        found = [(number, track.label, track.at(frame)) for number, track in self._active]
        here = [(number, label, box) for number, label, box in found if box is not None]
        self.numbers = tuple(number for number, _, _ in here)
        if not here:
            return Boxes.empty()
        boxes = np.stack([box for _, _, box in here])
        return Boxes(boxes, np.ones(len(here), np.float32), tuple(label for _, label, _ in here))


def _track(label: str, chain: Chain, looked: list[int], scene: tuple[int, int], rules: Rules) -> Track:
    """Lay out one chain: held before its first sighting, filled between, held after its last."""
    before = looked[: bisect_left(looked, chain.frames[0])]
    after = looked[bisect_right(looked, chain.frames[-1]) :]
    first = max((before[-1] if before else scene[0]) - rules.linger, scene[0])
    last = min((after[0] if after else scene[1] - 1) + rules.linger, scene[1] - 1)
    chain = _steady(chain)
    parts = [_hold(chain, range(first, chain.frames[0]), rules, at_end=False)]
    for index in range(len(chain.frames) - 1):
        parts += [chain.boxes[index][None], _between(chain, index, rules)]
    parts += [chain.boxes[-1][None], _hold(chain, range(chain.frames[-1] + 1, last + 1), rules, at_end=True)]
    return Track(label, first, np.concatenate(parts))


def _steady(chain: Chain) -> Chain:
    """Return the chain with boxes that shrink for one look widened to what lies around them in time.

    A detector that sees half of a thing for once, between two sightings of all of it, gives a half box.
    """
    boxes = list(chain.boxes)
    for index in range(1, len(boxes) - 1):
        before, here, after = chain.frames[index - 1 : index + 2]
        one, box, two = chain.boxes[index - 1 : index + 2]
        usual = one + (two - one) * np.float32((here - before) / (after - before))
        area, usual_area = float((box[2:] - box[:2]).prod()), float((usual[2:] - usual[:2]).prod())
        common = np.minimum(box[2:], usual[2:]) - np.maximum(box[:2], usual[:2])
        if area < 0.75 * usual_area and float(common.clip(0).prod()) > 0.5 * area:
            boxes[index] = _hull(box, usual)
    return Chain(chain.frames, boxes, chain.sure)


def _between(chain: Chain, index: int, rules: Rules) -> Box:
    """Return boxes for the frames between two sightings.

    An even motion, widened by what it bends there as far as the sightings before and after tell; where they
    tell nothing, by what the thing covers when it runs ahead or behind. Where the two boxes hardly meet and
    the motion is not known to be even, the way is anyone's guess, and the hull of both is hidden throughout.
    """
    start, stop = chain.frames[index : index + 2]
    one, two = chain.boxes[index], chain.boxes[index + 1]
    count = stop - start - 1
    share = (np.arange(1, count + 1, dtype=np.float32) / (stop - start))[:, None]
    bends = _bends(chain, index, rules)
    side = np.tile(np.minimum(one[2:] - one[:2], two[2:] - two[:2]), 2)
    even = bool(bends) and all((np.abs(bend) * (stop - start) ** 2 <= EVEN * side).all() for bend in bends)
    if not even and iou(one[None], two[None])[0, 0] < DUBIOUS:
        return np.tile(_hull(one, two), (count, 1))
    line: Box = (one + (two - one) * share).astype(np.float32)
    boxes = line
    for bend in bends:
        bent: Box = (line - bend / 2 * share * (1 - share) * (stop - start) ** 2).astype(np.float32)
        boxes = _hull(boxes, bent)
    if len(bends) < 2:
        early, late = (one + (two - one) * (share + by).clip(0, 1) for by in (-rules.lead, rules.lead))
        boxes = _hull(boxes, _hull(early, late))
    steps = np.minimum(np.arange(1, count + 1), np.arange(count, 0, -1))
    # Between two usual looks the margin holds what a detector's boxes shake.
    return _grown(boxes, np.maximum(steps - rules.step // 2, 0), rules)


def _bends(chain: Chain, index: int, rules: Rules) -> list[Box]:
    """Return how the motion changes before and after a gap, where known: (4,), pixels per frame squared."""
    here = _slope(chain, index)
    known = []
    for at in (index - 1, index + 1):
        there = _slope(chain, at)
        if here and there and there[1] <= 2 * rules.step:
            sign = 1 if at > index else -1
            known.append((sign * (there[0] - here[0]) / ((there[1] + here[1]) / 2)).astype(np.float32))
    return known


def _slope(chain: Chain, index: int) -> tuple[Box, int] | None:
    """Return the motion of a box after a sighting, (4,), in pixels per frame, and for how many frames."""
    if not 0 <= index < len(chain.frames) - 1:
        return None
    span = chain.frames[index + 1] - chain.frames[index]
    return ((chain.boxes[index + 1] - chain.boxes[index]) / span).astype(np.float32), span


def _hold(chain: Chain, frames: range, rules: Rules, *, at_end: bool) -> Box:
    """Return boxes for frames outside the sightings: where it stood, and where it may have gone to."""
    box = chain.boxes[-1 if at_end else 0]
    edge = chain.frames[-1 if at_end else 0]
    away = np.array(frames, dtype=np.float32) - edge
    side = np.tile(box[2:] - box[:2], 2)
    moved = (chain.velocity(at_end=at_end)[None] * away[:, None]).clip(-FARTHEST * side, FARTHEST * side)
    return _grown(_hull(np.broadcast_to(box, moved.shape), box + moved), np.abs(away), rules)


def _hull(one: Box, two: Box) -> Box:
    """Return the smallest boxes, (..., 4), that hold both."""
    low, high = np.minimum(one[..., :2], two[..., :2]), np.maximum(one[..., 2:], two[..., 2:])
    return np.concatenate([low, high], axis=-1).astype(np.float32)


def _grown(boxes: Box, steps: NDArray[np.floating] | NDArray[np.integer], rules: Rules) -> Box:
    """Return boxes, (n, 4), grown on every side for each of `steps`, (n,), frames away from a sighting."""
    share = np.minimum(np.asarray(steps, np.float32) * rules.growth, rules.most)[:, None]
    by = (boxes[:, 2:] - boxes[:, :2]) * share
    return np.concatenate([boxes[:, :2] - by, boxes[:, 2:] + by], axis=1).astype(np.float32)
