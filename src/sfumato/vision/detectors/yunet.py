"""YuNet: faces, several times cheaper than CenterFace; its small file is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision import models
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.letterbox import fit
from sfumato.vision.onnx import free_shapes, run, session
from sfumato.vision.views import Sight, scan

SUMMARY = "faces, several times cheaper than centerface; 0.2 MB to fetch (MIT)"
NEEDS = ("cv2", "onnxruntime")
EXTRA = ""
FINDS = ("face",)

_STRIDES = (8, 16, 32)
_OUTPUTS = tuple(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox") for stride in _STRIDES)
_PORTS = frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES)
_LIMIT = 0.3
_LEAST = 0.02
_MOST = 5000

#: Trained on faces of about 10 to 300 pixels (its authors' page).
SIGHT = Sight(tile=1280, overlap=128, largest=300, small=960, enlarge=2.0, budget=12e6)


class YuNet:
    """Finds faces from about 10 pixels at the network's input.

    Args:
        loaded: the weights.
        size: long side at which a picture is looked at, in pixels; None: by the picture (see `SIGHT`).
        threads: onnxruntime threads; 0: one per core.

    Raises:
        InvalidRequest: the weights are not an ONNX file of YuNet.
    """

    def __init__(self, loaded: models.Loaded, size: int | None, threads: int) -> None:
        self.name = "yunet"
        self.weights = loaded.weights
        self.finds = FINDS
        self.thresholds = {"face": 0.6}
        self._size = size
        # The graph computes its sizes from the input; only the declared numbers (640) stand in the way.
        data = free_shapes(
            loaded.data, lambda name, axis: axis > 1 if name == "input" else name in _PORTS and axis == 1
        )
        self._session = session(data, threads=threads)
        inputs = [port.name for port in self._session.get_inputs()]
        outputs = {port.name for port in self._session.get_outputs()}
        if inputs != ["input"] or not set(_OUTPUTS) <= outputs:
            raise InvalidRequest(
                f"the file {loaded.path.name!r} is not YuNet: its inputs are {inputs} and its outputs "
                f"{sorted(outputs)}. Fetch it with: sfumato models pull yunet-2023mar"
            )

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return faces scoring at least `floor` (and 0.02) in a (height, width, 3) uint8 RGB picture."""
        if not image.size:
            return Boxes.empty()
        least = max(floor, _LEAST)
        scale = SIGHT.scale(image.shape[1], image.shape[0], self._size)
        return scan(
            image, scale, SIGHT, lambda part, zoom: self._look(part, zoom, least), limit=_LIMIT, distinct=True
        )

    def _look(self, image: NDArray[np.uint8], scale: float, least: float) -> Boxes:
        box = fit(image, scale)
        tensor = box.pixels[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32)  # it was trained on BGR
        results = run(self._session, _OUTPUTS, tensor)
        width = box.pixels.shape[1]
        scores, xyxy = [], []
        for index, stride in enumerate(_STRIDES):
            kind, thing, shape = results[index][0], results[index + 3][0], results[index + 6][0]
            score = np.sqrt(kind[:, 0].clip(0, 1) * thing[:, 0].clip(0, 1))
            cells = np.nonzero(score >= least)[0]
            row, column = np.divmod(cells, width // stride)
            x, y = (column + shape[cells, 0]) * stride, (row + shape[cells, 1]) * stride
            half = np.exp(shape[cells, 2:4].clip(-8, 8)) * stride / 2
            xyxy.append(np.stack([x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]], axis=1))
            scores.append(score[cells])
        every = np.concatenate(scores)
        best = np.argsort(-every, kind="stable")[:_MOST]
        return nms(Boxes(box.undo(np.concatenate(xyxy)[best]), every[best], FINDS * len(best)), _LIMIT)


def build(*, model: Path | None = None, size: int | None = None, threads: int = 0) -> YuNet:
    """Build the detector; without `model` the file of the model cache is used.

    Raises:
        MissingModel: no file was given and none is in the cache, or the file given does not exist.
        DownloadFailed: the file in the cache is not the published one.
        InvalidRequest: the file is not YuNet.

    Source:
        Wu et al. 2023, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20.
    """
    return YuNet(models.load("yunet", model), size, threads)
