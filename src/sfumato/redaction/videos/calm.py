"""Calm fills: what a track shows changes slowly, so that a cover does not flicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.redaction.grids import in_chroma
from sfumato.redaction.looks import Key, Spot

#: Share of what a track showed in the frame before that stays.
STAYS = 0.8

Patches = list[NDArray[np.float32]]


class Calm:
    """Mixes what each track showed in the frame before into its fill.

    Guarantee:
        It reads what a fill has just written, and nothing else: surfaces made of outside pixels, of this
        frame and of those before it.

    Args:
        cell: luma pixels per chroma sample along x and y.
    """

    def __init__(self, cell: tuple[int, int]) -> None:
        self._cell = cell
        self._before: dict[Key, Patches] = {}
        self._frame = -1

    def steady(self, planes: Sequence[NDArray[Any]], spots: Sequence[Spot], frame: int) -> None:
        """Calm the fills of one frame, in place, right after they were laid.

        Args:
            planes: luma; or luma, Cb and Cr; or these and alpha, which is left as it is.
            spots: the regions, all under a fill.
            frame: its number; after a gap, tracks begin anew.
        """
        import cv2

        before = self._before if frame == self._frame + 1 else {}
        self._frame, self._before = frame, {}
        # All are read before one is written: where regions meet, none takes in what another has mixed.
        fresh = {spot.key: self._patches(planes, spot) for spot in spots}
        for spot in spots:
            shown = fresh[spot.key]
            for index, old in enumerate(before.get(spot.key, [])):
                patch = shown[index]
                was = cv2.resize(old, patch.shape[::-1], interpolation=cv2.INTER_LINEAR)
                shown[index] = patch + (was.reshape(patch.shape) - patch) * np.float32(STAYS)
                self._write(planes[index], shown[index], spot, chroma=index > 0)
            self._before[spot.key] = shown

    def _patches(self, planes: Sequence[NDArray[Any]], spot: Spot) -> Patches:
        boxes = [self._box(spot.extent, chroma=index > 0) for index in range(len(planes[:3]))]
        return [
            plane[y1:y2, x1:x2].astype(np.float32)
            for plane, (x1, y1, x2, y2) in zip(planes, boxes, strict=False)
        ]

    def _write(self, plane: NDArray[Any], patch: NDArray[np.float32], spot: Spot, *, chroma: bool) -> None:
        left, top, _, _ = self._box(spot.extent, chroma=chroma)
        for piece in spot.pieces:
            x1, y1, x2, y2 = self._box(piece, chroma=chroma)
            plane[y1:y2, x1:x2] = np.rint(patch[y1 - top : y2 - top, x1 - left : x2 - left])

    def _box(self, box: NDArray[np.int32], *, chroma: bool) -> tuple[int, int, int, int]:
        x1, y1, x2, y2 = (int(value) for value in box)
        return in_chroma((x1, y1, x2, y2), self._cell) if chroma else (x1, y1, x2, y2)
