"""Covering frames: what is hidden in one frame, drawn onto its planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.covers import Cover, apply_yuv
from sfumato.redaction.grids import Look
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Layer, Places, layers_of_frames
from sfumato.redaction.looks import (
    TINT,
    Key,
    is_tinted,
    noisy_cover,
    noisy_spots,
    others,
    painter_of,
    tinted_spots,
    tints,
)
from sfumato.redaction.sealed.take import FrameSeal
from sfumato.redaction.videos.calm import Calm
from sfumato.redaction.videos.follow import Timeline
from sfumato.redaction.videos.frames import Canvas, planes
from sfumato.vision.boxes import Boxes
from sfumato.vision.tracks import Track

#: Frames in a row for which it is worked out at once what is hidden where.
AHEAD = 32


class _Frame(NamedTuple):
    """What is hidden in one frame: boxes, the number of the track of each, and what is laid but for grids."""

    boxes: Boxes
    numbers: tuple[int, ...]
    layers: list[Layer]


class Brush:
    """Hides in every frame what its tracks and fixed places say; frames must come in order.

    Args:
        job: covers and margins.
        canvas: what the frames are drawn on.
        tracks: what is followed.
        fixed: what is hidden, and what is kept, in every frame.
        looks: of tracks and zones that show a grid (videos/looks.py), taken once for the whole video.
        seal: is told of each frame before it is covered.
    """

    def __init__(
        self,
        job: Job,
        canvas: Canvas,
        tracks: Sequence[Track],
        fixed: Places,
        looks: Mapping[Key, Look] | None = None,
        seal: FrameSeal | None = None,
    ) -> None:
        self._job, self._canvas, self._fixed, self._looks = job, canvas, fixed, looks or {}
        self._timeline, self._calm, self._seal = Timeline(tracks), Calm(canvas.cell), seal
        self._ahead: dict[int, _Frame] = {}
        self._noisy = noisy_cover(job) is not None
        self._plain = others(job, Boxes.empty(), fixed)[1]

    def paint(self, frame: Any, index: int, *, interlaced: bool) -> None:
        """Cover one frame of our own, in place.

        Args:
            frame: in the format of the canvas.
            index: its number in the video.
            interlaced: whether its lines are of two fields.
        """
        if index not in self._ahead:
            self._ahead = self._frames(range(index, index + AHEAD))
        canvas, fixed, (here, numbers, laid) = self._canvas, self._fixed, self._ahead[index]
        size = (canvas.width, canvas.height)
        if self._seal is not None:
            self._seal.take(planes(frame), index, here, numbers, interlaced=interlaced)
        tinted = tinted_spots(self._job, here, numbers, fixed, *size)
        # Grids read nothing, so they are laid first: no other cover then reads what they hide.
        if grids := noisy_spots(self._job, here, numbers, fixed, *size):
            self._lay(*painter_of(grids, self._looks, cell=canvas.cell), frame, interlaced)
        for cover, regions in laid:
            self._lay(cover, regions, frame, interlaced)
            if tinted and is_tinted(cover):
                self._calm.steady(planes(frame), tinted, index)
                painter = painter_of(tinted, tints(tinted), cell=canvas.cell, opacity=TINT)
                self._lay(*painter, frame, interlaced)

    def _frames(self, indices: Sequence[int]) -> dict[int, _Frame]:
        """Return what is hidden in some frames in a row."""
        seen = [(self._timeline.at(index), self._timeline.numbers) for index in indices]
        rest, fixed = [boxes for boxes, _ in seen], self._fixed
        if self._noisy:
            rest, fixed = [others(self._job, boxes, fixed)[0] for boxes in rest], self._plain
        laid = layers_of_frames(self._job, rest, fixed, self._canvas.width, self._canvas.height)
        return {
            index: _Frame(boxes, numbers, layers)
            for index, (boxes, numbers), layers in zip(indices, seen, laid, strict=True)
        }

    def _lay(self, cover: Cover, regions: NDArray[np.int32], frame: Any, interlaced: bool) -> None:
        canvas = self._canvas
        apply_yuv(
            cover,
            planes(frame),
            regions,
            subsampling=canvas.cell,
            bits=canvas.bits,
            full_range=canvas.full_range,
            interlaced=interlaced,
        )
