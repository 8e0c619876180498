"""Covering frames: what is hidden in one frame, drawn onto its planes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sfumato.redaction.covers import apply_yuv
from sfumato.redaction.job import Job
from sfumato.redaction.layers import Places, layers
from sfumato.redaction.sealed.take import FrameSeal
from sfumato.redaction.videos.follow import Timeline
from sfumato.redaction.videos.frames import Canvas, planes
from sfumato.vision.tracks import Track


class Brush:
    """Hides in every frame what its tracks and fixed places say; frames must come in order.

    Args:
        job: covers and margins.
        canvas: what the frames are drawn on.
        tracks: what is followed.
        fixed: what is hidden, and what is kept, in every frame.
        seal: is told of each frame before it is covered.
    """

    def __init__(
        self,
        job: Job,
        canvas: Canvas,
        tracks: Sequence[Track],
        fixed: Places,
        seal: FrameSeal | None = None,
    ) -> None:
        self._job, self._canvas, self._fixed, self._seal = job, canvas, fixed, seal
        self._timeline = Timeline(tracks)

    def paint(self, frame: Any, index: int, *, interlaced: bool) -> None:
        """Cover one frame of our own, in place.

        Args:
            frame: in the format of the canvas.
            index: its number in the video.
            interlaced: whether its lines are of two fields.
        """
        canvas = self._canvas
        here = self._timeline.at(index)
        if self._seal is not None:
            self._seal.take(planes(frame), index, here, self._timeline.numbers, interlaced=interlaced)
        for cover, regions in layers(self._job, here, self._fixed, canvas.width, canvas.height):
            apply_yuv(
                cover,
                planes(frame),
                regions,
                subsampling=canvas.cell,
                bits=canvas.bits,
                full_range=canvas.full_range,
                interlaced=interlaced,
            )
