"""QR codes and bar codes, found by OpenCV's own detectors; what they say is not read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.detectors import Weights
from sfumato.vision.opencv import opencv

SUMMARY = "QR codes and bar codes (EAN, UPC); OpenCV's own, no weights (Apache-2.0)"
NEEDS = ("cv2",)
EXTRA = ""
FINDS = ("qr code", "barcode")

#: OpenCV gives no scores.
_SCORE = 0.9
#: Long sides at which a picture is looked at: bar codes have a narrow range of sizes that are seen.
_SIDES = (640, 1280, 2560)
#: No picture is enlarged by more than this.
_ENLARGE = 2.0
_LIMIT = 0.5
#: A picture with a side shorter than this holds no code: a QR code has 21 modules.
_SHORTEST = 21


class Codes:
    """Finds QR codes and bar codes.

    Args:
        size: longest long side at which a picture is looked at, in pixels; None: 2560.
    """

    def __init__(self, size: int | None) -> None:
        cv2 = opencv()
        self.name = "codes"
        stamp = hashlib.sha256(f"opencv {cv2.__version__} codes".encode()).hexdigest()
        self.weights = Weights(f"opencv-{cv2.__version__}-codes", stamp, "Apache-2.0")
        self.finds = FINDS
        self.thresholds = {"*": 0.5}
        self._sides = tuple(side for side in _SIDES if size is None or side <= size) or (size or _SIDES[0],)

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return the codes in a (height, width, 3) uint8 RGB picture; all score 0.9."""
        if floor > _SCORE or min(image.shape[:2], default=0) < _SHORTEST:
            return Boxes.empty()
        cv2 = opencv()
        height, width = image.shape[:2]
        grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        parts = []
        for scale in self._scales(width, height):
            sides = (max(1, round(width * scale)), max(1, round(height * scale)))
            if min(sides) < _SHORTEST:
                continue
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            seen = grey if scale == 1 else cv2.resize(grey, sides, interpolation=method)
            gain = np.array([sides[0] / width, sides[1] / height] * 2, np.float32)
            parts += [_boxes(quads / gain[:2], label) for label, quads in _found(seen, cv2)]
        return nms(Boxes.concat(parts).clip(width, height), _LIMIT)

    def _scales(self, width: int, height: int) -> list[float]:
        longest = max(width, height)
        scales = [min(side / longest, _ENLARGE) for side in self._sides]
        if longest <= self._sides[-1]:
            scales.append(1.0)
        return sorted(set(scales))


def _found(grey: NDArray[np.uint8], cv2: Any) -> list[tuple[str, NDArray[np.float32]]]:
    """Return class and corners, (n, 4, 2), of the codes in a grey picture."""
    result = []
    # The detector object keeps state between pictures, so each picture has one of its own.
    for label, detector in (
        ("qr code", cv2.QRCodeDetectorAruco()),
        ("barcode", cv2.barcode.BarcodeDetector()),
    ):
        try:
            good, corners = detector.detectMulti(grey)
        except cv2.error:  # some pictures of a few pixels' height make it fail: no code is that low
            continue
        if good and corners is not None:
            quads = np.asarray(corners, np.float32).reshape(-1, 4, 2)
            result.append((label, quads[np.isfinite(quads).all(axis=(1, 2))]))
    return result


def _boxes(quads: NDArray[np.float32], label: str) -> Boxes:
    xyxy = np.concatenate([quads.min(axis=1), quads.max(axis=1)], axis=1)
    return Boxes(xyxy, np.full(len(xyxy), _SCORE, np.float32), (label,) * len(xyxy))


def build(*, model: Path | None = None, size: int | None = None, threads: int = 0) -> Codes:
    """Build the detector; it has no weights, and `threads` has no effect.

    Raises:
        InvalidRequest: a model was given.

    Source:
        https://docs.opencv.org/4.x/de/dc3/classcv_1_1QRCodeDetector.html
    """
    if model is not None:
        raise InvalidRequest(
            f"the detector 'codes' has no weights to replace, got {str(model)!r}; leave it out"
        )
    return Codes(size)
