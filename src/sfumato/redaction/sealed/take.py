"""What a frame or a page is about to hide, told to a sealer just before it is covered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import widened
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places
from sfumato.redaction.regions import regions_of
from sfumato.redaction.sealed.areas import Rect
from sfumato.redaction.sealed.pack import pack_plain, pack_video
from sfumato.redaction.sealed.sealer import Part, Region, Sealer
from sfumato.vision.boxes import Boxes, iou, nms

if TYPE_CHECKING:
    from sfumato.redaction.videos.frames import Canvas

#: Boxes of one class in one picture that overlap more than this are sightings of one thing.
SAME = 0.5
#: Numbers of zones begin here: above those of any video's tracks.
ZONES = 1_000_000
_CANVAS = ("width", "height", "pix_fmt", "bits", "range", "space", "primaries", "transfer")


class FrameSeal:
    """Seals what the frames of a video hide; frames must come in order.

    Args:
        part: the part of the sealed file that these frames go to.
        job: margins and covers.
        canvas: what frames are drawn on.
        fixed: what is hidden in every frame.
    """

    def __init__(self, part: Part, job: Job, canvas: Canvas, fixed: Places) -> None:
        self._part, self._job, self._canvas, self._fixed = part, job, canvas, fixed
        self._pack = partial(pack_video, pix_fmt=canvas.pix_fmt, bits=canvas.bits, cell=canvas.cell)

    def take(
        self,
        planes: list[NDArray[Any]],
        index: int,
        boxes: Boxes,
        numbers: tuple[int, ...],
        *,
        interlaced: bool = False,
    ) -> None:
        """Keep what a frame is about to hide.

        Args:
            planes: of the frame, not covered yet.
            index: its number in the video.
            boxes, numbers: what is hidden there, and the number of each one's track.
            interlaced: whether its lines are of two fields.
        """
        canvas = self._canvas
        sx, sy = canvas.cell
        cell = (sx, sy * 2 if interlaced and sy > 1 else sy)
        regions = list(_regions(self._job, boxes, numbers, self._fixed, (canvas.width, canvas.height), cell))
        self._part.take(index, planes, regions, self._pack, canvas.cell)


class PageSeal:
    """Seals what the pages of a picture hide; every page's things have numbers of their own."""

    def __init__(self, sealer: Sealer, job: Job) -> None:
        self._sealer, self._part, self._job = sealer, sealer.part(), job
        self._next = self._pages = 0

    def take(self, pixels: NDArray[Any], boxes: Boxes, fixed: Places) -> None:
        """Keep what the next page is about to hide."""
        numbers = [self._next + number for number in _things(boxes)]
        self._next = max(numbers, default=self._next - 1) + 1
        height, width = pixels.shape[:2]
        regions = list(_regions(self._job, boxes, tuple(numbers), fixed, (width, height), (1, 1)))
        self._part.take(self._pages, [pixels], regions, pack_plain)
        self._pages += 1

    def finish(self) -> None:
        """Say that this was the last page."""
        self._part.finish()
        self._sealer.describe({"kind": "image", "frames": self._pages})


def about_video(canvas: Canvas, frames: int) -> dict[str, Any]:
    """Return what a restore needs to know of a redacted video."""
    aspect = canvas.aspect
    return {
        "kind": "video",
        "frames": frames,
        "canvas": {
            **{name: getattr(canvas, name) for name in _CANVAS},
            "cell": list(canvas.cell),
            "aspect": None if aspect is None else [aspect.numerator, aspect.denominator],
        },
    }


def canvas_of(about: Mapping[str, Any]) -> Canvas:
    """Return the canvas of a redacted video, by what `about_video` said; frames of it stand upright."""
    from sfumato.redaction.videos.frames import Canvas, Turn

    said = about["canvas"]
    aspect = None if said["aspect"] is None else Fraction(*said["aspect"])
    plain = {name: said[name] for name in _CANVAS}
    return Canvas(**plain, cell=(said["cell"][0], said["cell"][1]), aspect=aspect, turn=Turn())


def _regions(
    job: Job,
    boxes: Boxes,
    numbers: tuple[int, ...],
    fixed: Places,
    size: tuple[int, int],
    cell: tuple[int, int],
) -> Iterator[Region]:
    """Yield the region of each thing and zone, on whole chroma cells, with its soft edge."""
    feather = float(job.settings.cover_options.get("feather", 0) or 0)
    if feather:  # a share of the shorter side of all that hangs together: no longer than that of all there is
        every = np.concatenate([regions_of(boxes, job.settings, *size), *(r for _, r in fixed.hidden)])
        feather *= float((every[:, 2:].max(axis=0) - every[:, :2].min(axis=0)).min()) if len(every) else 0.0
    for place, number in enumerate(numbers):
        one = np.arange(len(boxes)) == place
        for rect in _on_cells(regions_of(boxes.keep(one), job.settings, *size), feather, size, cell):
            yield number, boxes.labels[place], rect
    for place, (label, (_, rects)) in enumerate(zip(fixed.counts, fixed.hidden, strict=True)):
        for rect in _on_cells(rects, feather, size, cell):
            yield ZONES + place, label, rect


def _on_cells(
    regions: NDArray[np.int32], feather: float, size: tuple[int, int], cell: tuple[int, int]
) -> Iterator[Rect]:
    """Yield regions on whole chroma cells, with a soft edge of so many pixels."""
    for region in regions:
        grown = region[None]
        if feather:
            reach = math.ceil(feather) + 2 * max(cell)
            most = np.array([*size, *size], np.int32)
            grown = np.clip(grown + np.array([-reach, -reach, reach, reach], np.int32), 0, most)
        x1, y1, x2, y2 = widened(grown.astype(np.int32), cell, size)[0].tolist()
        yield x1, y1, x2, y2


def _things(boxes: Boxes) -> list[int]:
    """Return for each box the number of the thing that it shows: a picture is looked at in several ways."""
    if not len(boxes):
        return []
    kept = nms(boxes, SAME)
    alike = iou(boxes.xyxy, kept.xyxy)
    same = np.array([[one == other for other in kept.labels] for one in boxes.labels])
    return [int(number) for number in np.where(same, alike, -1.0).argmax(axis=1)]
