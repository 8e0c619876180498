"""Doubts: whether what two looks show leaves open what happened between them. Pure arithmetic, no pixels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sfumato.redaction.videos.link import DUBIOUS
from sfumato.vision.boxes import Boxes, iou

#: How far a thing may be from where it was a few frames before or after, in long sides of its own.
REACH = 1.5


def open_question(before: Boxes, after: Boxes, least: Mapping[str, float]) -> bool:
    """Say whether a sure box of one look meets no box of its class in the other.

    Then it came, went, or moved by more than itself, and nobody can say where it was between.

    >>> face = Boxes([[0, 0, 10, 10]], [0.9], ["face"])
    >>> moved = Boxes([[4, 0, 14, 10]], [0.2], ["face"])
    >>> far = Boxes([[30, 0, 40, 10]], [0.9], ["face"])
    >>> [open_question(face, other, {"face": 0.3}) for other in (moved, far, Boxes.empty())]
    [False, True, True]

    Args:
        before, after: the boxes of the two looks, weak ones included.
        least: class -> score from which a box is sure.
    """
    return _unmet(before, after, least) or _unmet(after, before, least)


def near(found: Boxes, things: Boxes) -> Boxes:
    """Return the boxes that may be one of some things a few frames away: within one and a half sides of it.

    >>> face, other = (Boxes([[x, 0, x + 10, 10]], [0.9], ["face"]) for x in (0, 40))
    >>> len(near(face, face)), len(near(other, face))
    (1, 0)
    """
    if not (len(found) and len(things)):
        return Boxes.empty()
    one, two = ((boxes.xyxy[:, :2] + boxes.xyxy[:, 2:]) / 2 for boxes in (found, things))
    sides = (things.xyxy[:, 2:] - things.xyxy[:, :2]).max(axis=1)
    apart = np.linalg.norm(one[:, None] - two[None], axis=2) / np.maximum(sides, 1.0)
    same = np.array(found.labels)[:, None] == np.array(things.labels)[None, :]
    return found.keep(((apart < REACH) & same).any(axis=1))


def _unmet(these: Boxes, those: Boxes, least: Mapping[str, float]) -> bool:
    sure = these.where(lambda label, score: score >= least.get(label, 1.0) - 1e-6)
    if not len(sure):
        return False
    same = np.array(sure.labels)[:, None] == np.array(those.labels)[None, :]
    return bool(((iou(sure.xyxy, those.xyxy) * same).max(axis=1, initial=0.0) < DUBIOUS).any())
