"""Who is seen in the test clips, and how much of it a cover left open.

The labels lie under tests/redaction/labels; its README says by which rule they were made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "redaction" / "labels"
#: A box of which less than this share is covered counts as exposed.
LEAST = 0.9

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Clip:
    """The labels of one clip: boxes x1, y1, x2, y2 in pixels of `size` (width, height), by frame from 0."""

    size: tuple[int, int]
    boxes: dict[int, list[Box]]
    ignore: dict[int, list[Box]]


def labels(kind: str = "faces") -> dict[str, Clip]:
    """Return the labels of every clip, by file name; `kind` is "faces" or "persons"."""
    raw = json.loads((FOLDER / f"video_{kind}.json").read_text(encoding="utf-8"))
    return {
        name: Clip(
            (clip["size"][0], clip["size"][1]),
            {int(index): [tuple(box) for box in frame[kind]] for index, frame in clip["frames"].items()},
            {int(index): [tuple(box) for box in frame["ignore"]] for index, frame in clip["frames"].items()},
        )
        for name, clip in raw.items()
    }


def covered_share(box: Sequence[float], mask: NDArray[np.bool_]) -> float:
    """Return how much of a box (x1, y1, x2, y2 in pixels of the mask) is covered, 0 to 1.

    A pixel that the box cuts counts by the part inside; what lies outside the picture is not counted.
    """
    x1, y1, x2, y2 = box
    rows, columns = _overlap(y1, y2, mask.shape[0]), _overlap(x1, x2, mask.shape[1])
    area = float(rows.sum() * columns.sum())
    if area <= 0:
        raise ValueError(f"the box {tuple(box)} has no pixel in a picture of {mask.shape[1]}x{mask.shape[0]}")
    return float(rows @ mask.astype(float) @ columns) / area


def _overlap(low: float, high: float, length: int) -> NDArray[np.float64]:
    """Return how much of each pixel [i, i + 1) lies between low and high."""
    edges = np.arange(length + 1, dtype=float).clip(low, max(low, high))
    return np.diff(edges)


def exposed(
    frames_boxes: Mapping[int, Sequence[Sequence[float]]],
    covered_masks: Mapping[int, NDArray[np.bool_]],
    *,
    size: tuple[int, int] | None = None,
    least: float = LEAST,
) -> tuple[int, int]:
    """Count the labelled boxes left open: (exposed, total), over all frames that have boxes.

    >>> mask = np.zeros((20, 20), bool)
    >>> mask[:, :10] = True
    >>> exposed({0: [(0, 0, 10, 10), (5, 0, 15, 10)]}, {0: mask})
    (1, 2)

    Args:
        frames_boxes: frame -> boxes x1, y1, x2, y2; as `labels()[name].boxes`.
        covered_masks: frame -> bool, height x width: what is hidden. May hold more frames.
        size: (width, height) in whose pixels the boxes are; absent: those of each mask. For scaled copies.
        least: a box is exposed when less than this share of it is covered.

    Raises:
        ValueError: a frame with boxes has no mask, or a box lies outside the picture.
    """
    wanted = {index: boxes for index, boxes in frames_boxes.items() if len(boxes)}
    missing = sorted(set(wanted) - set(covered_masks))
    if missing:
        raise ValueError(f"no mask for {len(missing)} frames that have boxes, the first is {missing[0]}")
    count = total = 0
    for index, boxes in wanted.items():
        mask = np.asarray(covered_masks[index], bool)
        height, width = mask.shape
        across, down = (width / size[0], height / size[1]) if size else (1.0, 1.0)
        for x1, y1, x2, y2 in boxes:
            share = covered_share((x1 * across, y1 * down, x2 * across, y2 * down), mask)
            count += share < least - 1e-9
            total += 1
    return count, total
