"""Boxes: what a detector found in one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Axis-aligned boxes with a score and a class name each; checked and frozen at construction.

    >>> boxes = Boxes([[10, 20, 30, 60]], [0.9], ["face"])
    >>> len(boxes), boxes.labels
    (1, ('face',))

    Args:
        xyxy: (n, 4) float32; x1, y1, x2, y2 in pixels of the picture, x1 <= x2 and y1 <= y2.
        scores: (n,) float32 in 0..1.
        labels: n class names.

    Raises:
        InvalidRequest: shapes differ, a value is not finite, or a box is inside out.
    """

    xyxy: Floats
    scores: Floats
    labels: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        xyxy = np.array(self.xyxy, dtype=np.float32).reshape(-1, 4)
        scores = np.array(self.scores, dtype=np.float32).reshape(-1)
        labels = tuple(str(label) for label in self.labels)
        if not len(xyxy) == len(scores) == len(labels):
            raise InvalidRequest(
                f"Boxes need one score and one label per box: got {len(xyxy)} boxes, "
                f"{len(scores)} scores, {len(labels)} labels"
            )
        if not (np.isfinite(xyxy).all() and np.isfinite(scores).all()):
            raise InvalidRequest("Boxes hold a value that is not finite")
        if (xyxy[:, 2:] < xyxy[:, :2]).any():
            raise InvalidRequest("Boxes need x1 <= x2 and y1 <= y2")
        xyxy.flags.writeable = scores.flags.writeable = False
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels)

    @classmethod
    def _checked(cls, xyxy: Floats, scores: Floats, labels: tuple[str, ...]) -> Boxes:
        """Return boxes out of arrays of our own that were checked already: a video makes thousands."""
        boxes = object.__new__(cls)
        xyxy.flags.writeable = scores.flags.writeable = False
        object.__setattr__(boxes, "xyxy", xyxy)
        object.__setattr__(boxes, "scores", scores)
        object.__setattr__(boxes, "labels", labels)
        return boxes

    @classmethod
    def empty(cls) -> Boxes:
        """Return no boxes."""
        return cls._checked(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())

    @classmethod
    def concat(cls, parts: Iterable[Boxes]) -> Boxes:
        """Return the boxes of all parts, in order."""
        items = [part for part in parts if len(part)]
        if not items:
            return cls.empty()
        if len(items) == 1:
            return items[0]
        return cls._checked(
            np.concatenate([part.xyxy for part in items]),
            np.concatenate([part.scores for part in items]),
            tuple(label for part in items for label in part.labels),
        )

    def __len__(self) -> int:
        return len(self.xyxy)

    def keep(self, mask: Sequence[bool] | NDArray[np.bool_]) -> Boxes:
        """Return the boxes where `mask`, (n,) bool, is true."""
        chosen = np.asarray(mask, dtype=bool).reshape(-1)
        if len(chosen) == len(self) and chosen.all():
            return self
        labels = tuple(label for label, yes in zip(self.labels, chosen.tolist(), strict=True) if yes)
        return Boxes._checked(self.xyxy[chosen], self.scores[chosen], labels)

    def where(self, rule: Callable[[str, float], bool]) -> Boxes:
        """Return the boxes for which `rule(label, score)` is true."""
        return self.keep([rule(name, float(s)) for name, s in zip(self.labels, self.scores, strict=True)])

    def clip(self, width: int, height: int) -> Boxes:
        """Return the boxes cut to a picture of this size in pixels; those left without area are dropped."""
        xyxy = np.minimum(np.maximum(self.xyxy, 0), np.array([width, height] * 2, np.float32))
        inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        return Boxes._checked(xyxy, self.scores, self.labels).keep(inside)


def iou(a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """Return intersection over union of every box in `a`, (n, 4), with every box in `b`, (m, 4): (n, m)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(bottom_right - top_left, 0)
    common = sides[..., 0] * sides[..., 1]
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = area_a[:, None] + area_b[None, :] - common
    result: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0).astype(np.float32)
    return result


def nms(boxes: Boxes, limit: float = 0.5) -> Boxes:
    """Non-maximum suppression per class: of boxes overlapping by more than `limit` IoU, keep the best."""
    order = np.argsort(-boxes.scores, kind="stable")
    kept: list[int] = []
    gone = np.zeros(len(boxes), dtype=bool)
    labels = np.array(boxes.labels)
    for index in order:
        if gone[index]:
            continue
        kept.append(int(index))
        overlap = iou(boxes.xyxy[index : index + 1], boxes.xyxy)[0] > limit
        gone |= overlap & (labels == labels[index])
    labels_kept = tuple(boxes.labels[index] for index in kept)
    return Boxes._checked(boxes.xyxy[kept], boxes.scores[kept], labels_kept)
