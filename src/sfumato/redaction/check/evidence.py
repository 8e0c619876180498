"""Whether a place in a picture shows something, or only a cover that a detector takes for it.

Detectors see faces in what surrounds a covered one: hair, shoulders, a frame of skin. A cover leaves no
detail of the size of eyes and mouths (fill, solid, blur), or all of it on the lines of a grid (pixelate).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.vision.opencv import opencv

#: A place is looked at in so many pixels: eyes and mouths are a few of them across.
SIDE = 24
#: Shares of the box, around its middle, that are looked at, and the least strength of detail in each, in grey
#: levels of 255. Of 139 labelled faces the weakest have 4.2 and 3.2, and 1.8 and 1.5 at most under a fill.
CORES = ((0.8, 3.0), (0.5, 2.5))
#: Where it is dark, detail is as much weaker: so many grey levels and this share of the mean brightness are
#: enough. Of 56 faces in a clip in the shade 23 show less than `CORES` ask, down to a third.
DIM, SHADE = 0.3, 0.025
#: From this share of all steps on so few of the lines, they are those of a grid. Labelled faces have 0.83 at
#: most, 0.99 in the median under a mosaic.
LINES, GRID = 0.4, 0.84
#: Least side, in pixels, of a box in which a grid is looked for.
LEAST = 8


def detail(picture: NDArray[np.uint8], box: NDArray[Any], share: float) -> float:
    """Return the strength of detail of the size of a face's features inside a box, in grey levels.

    Args:
        picture: (height, width, 3) uint8 RGB.
        box: (4,) x1, y1, x2, y2 in pixels.
        share: of the box's sides, around its middle.
    """
    cv2 = opencv()
    grey = _core(picture, box, share)
    if grey is None:
        return 0.0
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    rest = small - cv2.GaussianBlur(small, (0, 0), 2.0)
    return float(np.sqrt((rest[2:-2, 2:-2] ** 2).mean()))


def gridded(picture: NDArray[np.uint8], box: NDArray[Any]) -> float:
    """Return the share of all steps between pixels that lies on the strongest of the lines, 0..1."""
    grey = _core(picture, box, 1.0)
    if grey is None or min(grey.shape) < LEAST:
        return 0.0
    values = grey.astype(np.float32)
    shares = []
    for axis in (0, 1):
        steps = np.sort((np.abs(np.diff(values, axis=axis)) ** 2).sum(axis=1 - axis))[::-1]
        shares.append(float(steps[: max(1, round(LINES * len(steps)))].sum() / max(float(steps.sum()), 1e-6)))
    return min(shares)


def is_open(picture: NDArray[np.uint8], box: NDArray[Any]) -> bool:
    """Return whether a box holds detail that no cover would have left."""
    whole = _core(picture, box, 1.0)
    if whole is None:
        return False
    usual = CORES[0][1]
    dim = min(1.0, (DIM + SHADE * float(whole.mean())) / usual)
    found = all(detail(picture, box, share) >= dim * least for share, least in CORES)
    return found and gridded(picture, box) < GRID


def _core(picture: NDArray[np.uint8], box: NDArray[Any], share: float) -> NDArray[np.uint8] | None:
    """Return the middle of a box in grey, or None where it has no pixels."""
    cv2 = opencv()
    x1, y1, x2, y2 = (float(value) for value in box)
    cut_x, cut_y = (x2 - x1) * (1 - share) / 2, (y2 - y1) * (1 - share) / 2
    height, width = picture.shape[:2]
    left, right = max(0, round(x1 + cut_x)), min(width, round(x2 - cut_x))
    top, bottom = max(0, round(y1 + cut_y)), min(height, round(y2 - cut_y))
    if right - left < 2 or bottom - top < 2:
        return None
    grey: NDArray[np.uint8] = cv2.cvtColor(
        np.ascontiguousarray(picture[top:bottom, left:right]), cv2.COLOR_RGB2GRAY
    )
    return grey
