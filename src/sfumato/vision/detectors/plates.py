"""Licence plates: text on vehicles. No open weights for plates themselves are free of conditions.

Text is looked for at 960 pixels or more, and closely in every vehicle; what lies on no vehicle is dropped.
Where YOLO26 has no weights on this machine nothing tells a plate from other text, and all text counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import MissingExtra, MissingModel
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.detectors import Detector, Weights
from sfumato.vision.detectors import text as text_module
from sfumato.vision.detectors import yolo26 as yolo_module

SUMMARY = "licence plates: text on vehicles (all text where yolo26 has no weights); extra `text`"
NEEDS = ("cv2", "onnxruntime")
EXTRA = "text"
FINDS = ("plate",)
#: Weights given for these detectors are used here too.
USES = ("text", "yolo26")

VEHICLES = ("car", "truck", "bus", "motorcycle", "train")
#: Below it plates of a usual street picture are lost (docs/guarantees/models.md).
_SIZE = 960
#: A vehicle counts from this score on, and reaches this share of its sides further: plates hang at the edge.
_SURE, _REACH = 0.15, 0.1
#: Long side at which a vehicle is looked at closely, the most it is enlarged, and how many are.
_CLOSE, _ENLARGE, _MOST = 640, 4.0, 12
#: A closer look than the first by less than this shows nothing new.
_GAIN = 1.25
_LIMIT = 0.5


class Plates:
    """Finds licence plates.

    Args:
        reader: finds text.
        vehicles: finds vehicles; None: all text is taken for plates.
        size: long side of the first look, in pixels; None or less: 960.
    """

    def __init__(self, reader: text_module.Text, vehicles: Detector | None, size: int | None) -> None:
        self.name = "plates"
        self.weights = _joined(reader.weights, vehicles)
        self.finds = FINDS
        self.thresholds = {"plate": 0.3}
        self.gated = vehicles is not None
        self._reader, self._vehicles, self._size = reader, vehicles, max(size or _SIZE, _SIZE)

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return plates scoring at least `floor` in a (height, width, 3) uint8 RGB picture."""
        found = self._reader.detect(image, floor=floor)
        if self._vehicles is not None and image.size:
            seen = self._vehicles.detect(image, floor=_SURE)
            seen = seen.where(lambda label, score: label in VEHICLES and score >= _SURE)
            places = _widened(seen.xyxy, *image.shape[1::-1])
            found = Boxes.concat([found, *self._closer(image, places, floor)])
            found = nms(found.keep(_on(found.xyxy, places)), _LIMIT)
        return Boxes(found.xyxy, found.scores, FINDS * len(found))

    def _closer(self, image: NDArray[np.uint8], places: NDArray[np.float32], floor: float) -> list[Boxes]:
        """Look at the largest vehicles, each by itself."""
        height, width = image.shape[:2]
        first = self._size / max(height, width)
        parts = []
        areas = np.prod(places[:, 2:] - places[:, :2], axis=1)
        for x1, y1, x2, y2 in places[np.argsort(-areas, kind="stable")[:_MOST]].astype(int).tolist():
            scale = min(_CLOSE / max(x2 - x1, y2 - y1, 1), _ENLARGE)
            if scale < _GAIN * first or min(x2 - x1, y2 - y1) < 4:
                continue
            near = self._reader.look(np.ascontiguousarray(image[y1:y2, x1:x2]), scale, max(floor, 0.05))
            near = near.clip(x2 - x1, y2 - y1)
            moved = near.xyxy + np.array([x1, y1, x1, y1], np.float32)
            parts.append(Boxes(moved, near.scores, near.labels).clip(width, height))
        return parts


def _widened(xyxy: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    reach = (xyxy[:, 2:] - xyxy[:, :2]) * _REACH
    wide = np.concatenate([xyxy[:, :2] - reach, xyxy[:, 2:] + reach], axis=1)
    return wide.clip(0, [width, height, width, height]).astype(np.float32)


def _on(xyxy: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say which boxes have their centre on one of the vehicles."""
    centre = (xyxy[:, :2] + xyxy[:, 2:])[:, None] / 2
    inside = (centre >= places[None, :, :2]) & (centre <= places[None, :, 2:])
    result: NDArray[np.bool_] = np.any(np.all(inside, axis=2), axis=1)
    return result


def _joined(reader: Weights, vehicles: Detector | None) -> Weights:
    """Return what a receipt says about both files: their names, and a hash of their hashes."""
    if vehicles is None:
        return reader
    other = vehicles.weights
    both = hashlib.sha256(f"{reader.sha256} {other.sha256}".encode()).hexdigest()
    return Weights(f"{reader.name}+{other.name}", both, f"{reader.licence} AND {other.licence}")


def build(
    *,
    model: Path | None = None,
    size: int | None = None,
    threads: int = 0,
    others: Mapping[str, Path] | None = None,
) -> Plates:
    """Build the detector.

    Args:
        model: the text detector's weights; None: those for "text".
        size, threads: as for every detector.
        others: detector name -> weights file, for "text" and "yolo26".

    Raises:
        MissingExtra: no text weights were given and their package is not installed.
        MissingModel: a file given does not exist.
        DownloadFailed, InvalidRequest: a file is not what it should be.
    """
    given = others or {}
    first = max(size or _SIZE, _SIZE)
    reader = text_module.build(model=model or given.get("text"), size=first, threads=threads)
    try:
        vehicles: Detector | None = yolo_module.build(model=given.get("yolo26"), threads=threads)
    except (MissingModel, MissingExtra):
        if "yolo26" in given:
            raise
        vehicles = None
    return Plates(reader, vehicles, size)
