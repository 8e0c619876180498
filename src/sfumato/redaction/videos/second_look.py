"""Looking with a memory: how closely a frame is looked at goes by what was seen just before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.sizes import by_frame
from sfumato.redaction.videos.doubts import near
from sfumato.redaction.videos.link import Box, Chain, Linker
from sfumato.vision.boxes import Boxes, iou
from sfumato.vision.finder import Finder

#: Side of the part that is looked at, in long sides of the thing; detectors like a thing to fill a quarter.
REACH = 5.0
#: The same for a thing that was seen a few frames away: as far as `doubts.near` goes, and itself.
CLOSE = 4.0
#: Least side of that part in pixels: smaller ones are only blown up.
LEAST = 256
#: The part must be this much smaller than the picture, or a second look shows nothing new.
GAIN = 0.75
#: Second looks at one frame, and at one thing without finding it. With 2 tries a quarter of the looks is
#: saved, and somebody who bends over a car far away (vtest, from frame 740) is lost.
MOST, TRIES = 2, 4
#: By how much a part is enlarged for a closer look, and the long side of a thing in it that is long enough.
ZOOM, ENOUGH = 1.5, 80.0
#: Least side of the part in which a small thing is looked for that was there just before, and of its input.
NEARBY, CROP = 128, 192
#: Long side of the smallest copy that a glance takes, and least side in it of what was seen lately.
SMALLEST, PLAIN = 320, 16.0
#: Long side, in pixels of its input, at which a detector has no trouble with a thing; and the shorter side
#: below which it may miss it.
AMPLE, FAINT = 50.0, 20.0
#: A glance must have this much smaller a side than the picture, or it saves little.
SAVES = 0.85
#: Smaller pictures are enlarged to this long side for a full look.
LEAST_FULL = 640


class SecondLook:
    """A finder with a short memory.

    Guarantee:
        What the finder finds in the whole picture is always among the result of a full look. At most two
        parts more are looked at per frame.

    Args:
        finder: finds things in a picture.
        weak: share of the full thresholds from which a box counts.
        step: usual distance, in frames, of two looked-at frames.
        patience: frames for which a lost thing is looked for.
    """

    def __init__(self, finder: Finder, *, weak: float, step: int, patience: int) -> None:
        self._finder, self._weak, self._step, self._patience = finder, weak, step, patience
        self._least = {label: finder.threshold(label) for label in finder.hide}
        self.forget()

    def forget(self) -> None:
        """Start anew: what was seen before has nothing to do with what comes."""
        self._linkers: dict[str, Linker] = defaultdict(
            lambda: Linker(step=self._step, bridge=max(self._patience, self._step))
        )
        self._latest = -1

    def candidates(self, frame: int, picture: NDArray[np.uint8]) -> Boxes:
        """Return the boxes, weak ones included, of an upright RGB picture, and remember them.

        Args:
            frame: index of the frame; must rise from call to call.
            picture: its pixels.
        """
        found = self.closer(frame, picture, self.full(picture))
        self.remember(frame, found)
        return found

    def full(self, picture: NDArray[np.uint8]) -> Boxes:
        """Return what the whole picture shows at its usual size."""
        return self._finder.glance(picture, self._weak)

    def glance(self, frame: int, picture: NDArray[np.uint8]) -> Boxes | None:
        """Return what a smaller copy shows, as small as what was seen lately allows.

        Returns:
            None where only a full look will do: something seen in the frame remembered last is gone, or a
            smaller copy would save little.
        """
        height, width = picture.shape[:2]
        seen = [chain for chain in self._chains() if chain.sure and chain.frames[-1] == self._latest]
        seen.sort(key=_side)
        # What is small, and little of it, is looked for in parts of the picture of its own.
        plans = [
            (count * CROP**2 + length**2 * min(width, height) / max(width, height), count, length)
            for count in range(min(MOST, len(seen)) + 1)
            if (length := glance_length([_side(chain) for chain in seen[count:]], width, height)) is not None
        ]
        if not self._finder.glances or not plans:
            return None
        length = min(plans)[-1]
        found = self._finder.glance(picture, self._weak, length=length)
        found = self.closer(frame, picture, found, least=NEARBY)
        lost = [chain for chain in self._missing(frame, found) if chain.frames[-1] == self._latest]
        # Where a closer look did not find it either, a look at the whole would be less close.
        return found if all(chain.tries for chain in lost) else None

    def again(self, picture: NDArray[np.uint8], *known: Boxes) -> Boxes:
        """Return what shows all that is known to be near in time: a copy, and parts around what is small."""
        height, width = picture.shape[:2]
        things = Boxes.concat([self._sure(boxes) for boxes in known])
        sides = (things.xyxy[:, 2:] - things.xyxy[:, :2]).min(axis=1)
        order = np.argsort(sides, kind="stable")
        usual = max(width, height, LEAST_FULL)
        plans: list[tuple[float, list[Part], int | None]] = []
        for count in range(len(order) + 1):
            parts = self._parts(things.xyxy[order[:count]], width, height)
            if parts is None or len(parts) > MOST:
                break
            length = glance_length(sides[order[count:]].tolist(), width, height)
            area = (length or usual) ** 2 * min(width, height) / max(width, height)
            cost = sum((part.side * _usual_zoom(width, height)) ** 2 for part in parts)
            plans.append((area + cost, parts, length))
        _, parts, length = min(plans, key=lambda plan: plan[0])
        found = self._finder.glance(picture, self._weak, length=length)
        for part in parts:
            found = with_new(found, self._closer(picture, part, _usual_zoom(width, height)))
        return found

    def nearby(self, picture: NDArray[np.uint8], thing: Boxes) -> Boxes:
        """Return what the picture shows around one thing, which is somewhere near in time.

        A part is looked at at the size of a full look, or where the thing is large enough, and closer where
        it is not found; or all of the picture where a part would be hardly less.
        """
        height, width = picture.shape[:2]
        side = float((thing.xyxy[0, 2:] - thing.xyxy[0, :2]).max())  # the border may cut the other one
        zoom = min(_usual_zoom(width, height), AMPLE / max(side, 1.0))
        part = part_around(thing.xyxy[0], width, height, NEARBY, CLOSE)
        if part is None:
            length = -(-round(max(zoom * max(width, height), SMALLEST)) // 64) * 64
            length = min(length, by_frame(width, height) or length)  # no closer than a full look
            return self._finder.glance(picture, self._weak, length=length)
        found = self._closer(picture, part, zoom)
        if len(near(found, thing)) or zoom * side >= AMPLE - 1:
            return found
        return self._closer(picture, part, ZOOM * zoom)

    def was_faint(self, things: Boxes, width: int, height: int) -> Boxes:
        """Return the things that a glance before may have missed because they are small in it."""
        sides = (things.xyxy[:, 2:] - things.xyxy[:, :2]).min(axis=1) * SMALLEST / max(width, height)
        return things.keep(sides < FAINT)

    def settled(self, frame: int, found: Boxes) -> bool:
        """Say whether the boxes leave no question: nothing new, nothing gone that was seen just before."""
        lost = [chain for chain in self._missing(frame, found) if chain.frames[-1] == self._latest]
        return not lost and not len(self.news(frame, found))

    def closer(self, frame: int, picture: NDArray[np.uint8], found: Boxes, *, least: int = LEAST) -> Boxes:
        """Return `found` and what closer looks show where something seen lately is missing."""
        height, width = picture.shape[:2]
        looked: list[Part] = []
        for chain in self._missing(frame, found):
            box = chain.predict(frame)
            part = part_around(box, width, height, least)
            if part is None or any(_behind(box, one.xyxy) for one in looked):
                continue
            if len(looked) == MOST:
                break
            looked.append(part)
            chain.tries += 1
            side = float((box[2:] - box[:2]).max())
            zoom = min(ZOOM, ENOUGH / max(side, 1.0))
            found = with_new(found, self._closer(picture, part, zoom))
        return found

    def remember(self, frame: int, found: Boxes) -> None:
        """Take what was found in a frame later than all before."""
        for label in set(found.labels) | set(self._linkers):
            self._linkers[label].see(frame, *self._of(found, label))
            self._linkers[label].done.clear()
        self._latest = frame

    def haste(self) -> float:
        """Return how fast the fastest thing in sight moves, in sides of its own per frame."""
        speeds = [0.0]
        for chain in self._chains():
            if chain.sure and chain.frames[-1] == self._latest:
                motion = float(np.linalg.norm(chain.velocity(at_end=True)[:2]))
                speeds.append(motion / max(_side(chain), 1.0))
        return max(speeds)

    def _chains(self) -> list[Chain]:
        return [chain for linker in self._linkers.values() for chain in linker.active]

    def news(self, frame: int, found: Boxes) -> Boxes:
        """Return what is sure among the boxes and nothing seen before explains."""
        new = np.zeros(len(found), dtype=bool)
        for label in set(found.labels):
            xyxy, sure = self._of(found, label)
            here = np.array([name == label for name in found.labels])
            new[here] = sure & ~self._linkers[label].explains(frame, xyxy, sure)
        return found.keep(new)

    def _missing(self, frame: int, found: Boxes) -> list[Chain]:
        """Return what was seen lately and is not found, newest first; not what something else may hide."""
        lost = [
            chain
            for label, linker in self._linkers.items()
            for chain in linker.missing(frame, *self._of(found, label))
            if chain.tries < TRIES and not _behind(chain.predict(frame), found.xyxy)
        ]
        return sorted(lost, key=lambda chain: (-chain.frames[-1], -len(chain.frames)))

    def _of(self, found: Boxes, label: str) -> tuple[Box, NDArray[np.bool_]]:
        here = found.keep([name == label for name in found.labels])
        return here.xyxy, here.scores >= self._least[label] - 1e-6

    def _sure(self, boxes: Boxes) -> Boxes:
        return boxes.where(lambda label, score: score >= self._least.get(label, 1.0) - 1e-6)

    def _parts(self, things: Box, width: int, height: int) -> list[Part] | None:
        """Return parts of a picture that hold some things with room around them; None: one is too large."""
        parts: list[Part] = []
        for box in things:
            if any(part.holds(box, width, height) for part in parts):
                continue
            part = part_around(box, width, height, NEARBY, CLOSE)
            if part is None:
                return None
            parts.append(part)
        return parts

    def _closer(self, picture: NDArray[np.uint8], part: Part, zoom: float) -> Boxes:
        """Return what is found in a part of the picture, but for things that the part's border cuts."""
        height, width = picture.shape[:2]
        x, y, side = part.x, part.y, part.side
        near = self._finder.glance(
            np.ascontiguousarray(picture[y : y + side, x : x + side]),
            self._weak,
            length=-(-round(zoom * side) // 32) * 32,
        )
        inner = [x > 0, y > 0, x + side < width, y + side < height]
        cut = (np.abs(near.xyxy - [0, 0, side, side]) < 1) & inner
        moved = near.xyxy + np.array([x, y, x, y], np.float32)
        return Boxes(moved, near.scores, near.labels).keep(~cut.any(axis=1))


def _side(chain: Chain) -> float:
    """Return the shorter side of the box seen last."""
    return float((chain.boxes[-1][2:] - chain.boxes[-1][:2]).min())


def glance_length(sides: Sequence[float], width: int, height: int) -> int | None:
    """Return the long side of the copy to glance at, or None where it would save too little.

    >>> [glance_length(sides, 640, 360) for sides in ([], [100.0], [30.0], [14.0])]
    [320, 320, 384, None]

    Args:
        sides: shorter sides, in pixels, of the things seen lately.
        width, height: of the picture.
    """
    longest = max(width, height)
    needed = max(longest * PLAIN / max(min(sides, default=PLAIN * longest), 1.0), SMALLEST)
    length = -(-round(needed) // 64) * 64
    # Small pictures are enlarged for a full look, so that a glance at their own size still saves.
    return length if length <= SAVES * max(longest, LEAST_FULL) else None


@dataclass(frozen=True, slots=True)
class Part:
    """A square part of a picture: its left top corner and its side, in pixels."""

    x: int
    y: int
    side: int

    @property
    def xyxy(self) -> Box:
        """The part as one box, (1, 4)."""
        return np.array([[self.x, self.y, self.x + self.side, self.y + self.side]], np.float32)

    def holds(self, box: Box, width: int, height: int) -> bool:
        """Say whether a box lies inside with a side of its own around it, as far as the picture goes."""
        around = box + np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
        inside = around.clip(0, [width, height, width, height]) - self.xyxy[0]
        return bool((inside[:2] >= 0).all() and (inside[2:] <= 0).all())


def part_around(box: Box, width: int, height: int, least: int = LEAST, reach: float = REACH) -> Part | None:
    """Return the part to look at for a thing near `box`, or None where that shows nothing new."""
    centre = (box[:2] + box[2:]) / 2
    side = round(max(reach * float((box[2:] - box[:2]).max()), least))
    if side > GAIN * min(height, width) or not ((centre >= 0) & (centre < [width, height])).all():
        return None
    x, y = (
        min(max(round(float(c)) - side // 2, 0), size - side)
        for c, size in zip(centre, (width, height), strict=True)
    )
    return Part(x, y, side)


def _usual_zoom(width: int, height: int) -> float:
    """Return by how much a full look enlarges a picture of this size."""
    longest = max(width, height)
    return max((by_frame(width, height) or longest) / longest, 1.0)


def _behind(box: Box, others: Box) -> bool:
    """Say whether a good part of a box lies inside one of the others: it is covered with them."""
    common = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
    area = max(float((box[2:] - box[:2]).prod()), 1e-6)
    return bool((common.clip(0).prod(axis=1) > 0.3 * area).any())


def with_new(found: Boxes, more: Boxes) -> Boxes:
    """Return all of `found`, and of `more` what is not there yet."""
    if not (len(found) and len(more)):
        return Boxes.concat([found, more])
    same = np.array(more.labels)[:, None] == np.array(found.labels)[None, :]
    return Boxes.concat([found, more.keep(~((iou(more.xyxy, found.xyxy) > 0.5) & same).any(axis=1))])
