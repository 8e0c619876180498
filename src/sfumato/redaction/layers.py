"""Which cover goes where: regions by cover, zones added, kept places left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Cover
from sfumato.redaction.job import Job
from sfumato.redaction.regions import shapes_of
from sfumato.redaction.zones import Pick, coarse, picks, without
from sfumato.vision.boxes import Boxes

Layer = tuple[Cover, NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Places:
    """What is fixed in one picture, or in every frame of one video.

    Args:
        hidden: cover and regions of each zone that is covered.
        kept: rectangles that are never covered.
        counts: zone -> 1, for the counts of an outcome.
        notes: which zones were not for this size; which were kept.
    """

    hidden: tuple[Layer, ...]
    kept: NDArray[np.int32]
    counts: Counter[str]
    notes: tuple[str, ...]


def places(job: Job, path: Path | None, width: int, height: int) -> Places:
    """Return what is fixed in pictures of this size from this file."""
    hidden: list[Layer] = []
    kept = [np.zeros((0, 4), np.int32)]
    counts: Counter[str] = Counter()
    notes = []
    for zone in job.settings.zones:
        if not zone.is_for(path):
            continue
        if not zone.fits(width, height):
            notes.append(
                f"the zone {zone.name} is for pictures of {zone.size} and was not used on one of "
                f"{(width, height)}"
            )
        elif zone.name in job.settings.keep:
            kept.append(zone.rectangles(width, height, inner=True))
            notes.append(f"the zone {zone.name} was kept visible, as asked")
        else:
            hidden.append((job.cover_of(zone.label), coarse(zone.rectangles(width, height))))
            counts[zone.label] += 1
    return Places(tuple(hidden), np.concatenate(kept), counts, tuple(notes))


def layers(job: Job, boxes: Boxes, fixed: Places, width: int, height: int) -> list[Layer]:
    """Return covers with the regions they hide, in the order in which they must be laid.

    Covers that read nothing come first, cosmetic ones last: a fill never reads what a solid cover hides.
    """
    return layers_of_frames(job, [boxes], fixed, width, height)[0]


def layers_of_frames(
    job: Job, frames: Sequence[Boxes], fixed: Places, width: int, height: int
) -> list[list[Layer]]:
    """Return what `layers` returns for each of some frames: together they take hardly longer than one.

    Args:
        frames: the boxes of each.
        fixed: what is hidden, and what is kept, in all of them.
    """
    labels = [label for boxes in frames for label in boxes.labels]
    covers = {id(cover): cover for cover in map(job.cover_of, dict.fromkeys(labels))}
    covers |= {id(cover): cover for cover, _ in fixed.hidden}
    frame_of = np.repeat(np.arange(len(frames)), [len(boxes) for boxes in frames])
    whose = np.array([id(job.cover_of(label)) for label in labels], np.int64)
    boxes = Boxes.concat(frames)
    found: list[list[Layer]] = [[] for _ in frames]
    for cover in sorted(covers.values(), key=_rank):
        here = whose == id(cover)
        # A cover that is drawn to the shape of a region needs it in one piece.
        outlined = bool(getattr(cover, "outlined", False))
        regions, owners = shapes_of(boxes.keep(here), job.settings, width, height, outlined=outlined)
        at = frame_of[here][owners]
        always = [rectangles for one, rectangles in fixed.hidden if one is cover]
        for number, layers in enumerate(found):
            these = regions if len(frames) == 1 else regions[at == number]
            if always:
                these = np.concatenate([these, *always])
            if len(fixed.kept):
                these = without(these, fixed.kept)
            if len(these):
                layers.append((cover, these))
    return found


def _rank(cover: Cover) -> tuple[int, str]:
    return (0 if cover.name == "solid" else 1 if cover.secure else 2, cover.name)


def spared(job: Job, boxes: Boxes, width: int, height: int) -> tuple[Boxes, tuple[str, ...]]:
    """Return the boxes of a picture without those that are to be kept, and what to say about it."""
    notes = []
    for pick in picks(job.settings.keep):
        meant = [
            pick.marks(label, box, width, height)
            for label, box in zip(boxes.labels, boxes.xyxy.tolist(), strict=True)
        ]
        boxes = boxes.keep(~np.array(meant, bool))
        notes.append(said(pick, any(meant)))
    return boxes, tuple(notes)


def said(pick: Pick, found: bool) -> str:
    """Return the sentence about one thing that was to be kept."""
    place = f"{pick.label} at {pick.x:g},{pick.y:g}"
    place += "" if pick.seconds is None else f" at {pick.seconds:g} s"
    return f"the {place} was kept visible, as asked" if found else f"nothing was kept: there is no {place}"
