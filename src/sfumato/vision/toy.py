"""A toy detector for tests: it finds magenta patches and calls them faces. It protects nobody."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from sfumato.vision.boxes import Boxes
from sfumato.vision.detectors import Weights
from sfumato.vision.opencv import opencv

#: The colour that it looks for, RGB.
MAGENTA = (255, 0, 255)


class ToyDetector:
    """Finds patches of saturated magenta (255, 0, 255); the score is the share of the box that is filled.

    >>> import numpy as np
    >>> picture = np.zeros((48, 64, 3), np.uint8)
    >>> picture[10:20, 30:50] = MAGENTA
    >>> ToyDetector().detect(picture).xyxy.tolist()
    [[30.0, 10.0, 50.0, 20.0]]

    Guarantee:
        Exact and deterministic. A solid rectangle scores 1.0, a frame or a checkerboard less, so that
        thresholds can be tried. Colours shifted by a lossy codec (up to 60 levels) still count.

    Args:
        label: the class name given to every patch.
        threshold: default score threshold.
        least: patches with a side shorter than this many pixels are specks, not patches.
    """

    def __init__(self, label: str = "face", threshold: float = 0.5, least: int = 3) -> None:
        self.name = "toy"
        self.weights = Weights("toy", hashlib.sha256(b"sfumato.vision.toy").hexdigest(), "Apache-2.0")
        self.finds = (label,)
        self.thresholds = {"*": threshold}
        self.least = least

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return every patch scoring at least `floor` in a (height, width, 3) uint8 RGB picture."""
        cv2 = opencv()

        if not image.size:
            return Boxes.empty()
        red, green, blue = image[..., 0], image[..., 1], image[..., 2]
        mask = ((red >= 195) & (green <= 60) & (blue >= 195)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        left, top, width, height, area = np.asarray(stats, np.float32)[1:].T  # row 0 is the background
        scores = area / (width * height)
        keep = (width >= self.least) & (height >= self.least) & (scores >= floor)
        xyxy = np.stack([left, top, left + width, top + height], axis=1)[keep]
        return Boxes(xyxy, scores[keep], self.finds * int(keep.sum()))
