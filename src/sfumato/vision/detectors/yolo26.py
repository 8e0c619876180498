"""YOLO26: people, vehicles and the other COCO classes, or whatever the weights given were trained on."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.core.errors import InvalidRequest
from sfumato.vision import models
from sfumato.vision.boxes import Boxes, nms
from sfumato.vision.coco import COCO
from sfumato.vision.export import exported
from sfumato.vision.letterbox import Letterbox, fit, letterbox
from sfumato.vision.onnx import run, session
from sfumato.vision.views import Sight, scan

SUMMARY = "people, vehicles and the other COCO classes; weights to fetch (Ultralytics, AGPL-3.0)"
NEEDS = ("cv2", "onnxruntime")
EXTRA = ""
FINDS = COCO

#: The one-to-many head needs doubles removed; of the NMS-free head only those that several views gave.
_LIMIT, _LIMIT_FREE = 0.7, 0.8
_LEAST = 0.01
_MOST = 3000
_SIDE = 640
#: The NMS-free head picks the best 300 places and fails where an input has fewer of them.
_SHORTEST = 160


@dataclass(frozen=True, slots=True)
class Card:
    """What a model file says about itself.

    Args:
        names: class names, by output index.
        stride: sides of the input are multiples of this.
        side: long side that the model was exported for, in pixels.
        fixed: (width, height) of the input where the file allows no other; None where it is free.
        free: the file has the NMS-free head.
        licence: as the file has it.
    """

    names: tuple[str, ...]
    stride: int
    side: int
    fixed: tuple[int, int] | None
    free: bool
    licence: str


def sight(card: Card) -> Sight:
    """Return how pictures are looked at: once up to 1.5 times the model's side, in tiles above."""
    side = card.side
    return Sight(
        tile=min(card.fixed) if card.fixed else 2 * side,
        overlap=side // 5,
        largest=side,
        small=side,
        slack=1.5,
        budget=10 * side * side,
        fixed=card.fixed is not None,
    )


class Yolo26:
    """Finds the classes of its weights; both heads of an exported file are read.

    Args:
        loaded: an `.onnx` file exported by Ultralytics.
        size: long side at which a picture is looked at, in pixels; None: by the picture. A file with a fixed
            input looks at larger sizes in tiles, and never at smaller ones.
        threads: onnxruntime threads; 0: one per core.

    Raises:
        InvalidRequest: not an exported detection model (its task, names or shapes say so).
    """

    def __init__(self, loaded: models.Loaded, size: int | None, threads: int) -> None:
        self.name = "yolo26"
        self._session = session(loaded.data, threads=threads)
        self._card = read_card(self._session, loaded.path.name)
        licence = loaded.weights.licence
        self.weights = replace(
            loaded.weights, licence=self._card.licence if licence == "unknown" else licence
        )
        self.finds = tuple(dict.fromkeys(self._card.names))
        self.thresholds = {"person": 0.10, "*": 0.25}
        self._port = self._session.get_inputs()[0]
        self.sight = sight(self._card)
        self._limit = _LIMIT_FREE if self._card.free else _LIMIT
        side = self._card.side if self._card.fixed else self._card.stride
        self._size = None if size is None else max(size, side)

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        """Return things scoring at least `floor` (and 0.01) in a (height, width, 3) uint8 RGB picture."""
        if not image.size:
            return Boxes.empty()
        least = max(floor, _LEAST)
        scale = self.sight.scale(image.shape[1], image.shape[0], self._size)
        return scan(
            image, scale, self.sight, lambda part, zoom: self._look(part, zoom, least), limit=self._limit
        )

    def _look(self, image: NDArray[np.uint8], scale: float, least: float) -> Boxes:
        box = self._canvas(image, scale)
        kind = np.float16 if self._port.type == "tensor(float16)" else np.float32
        tensor = (box.pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255).astype(kind)
        result = run(self._session, None, tensor)[0]
        xyxy, scores, classes = decode(result.astype(np.float32), len(self._card.names), least)
        labels = tuple(self._card.names[index] for index in classes)
        found = Boxes(box.undo(xyxy), scores, labels)
        return found if self._card.free else nms(found, _LIMIT)

    def _canvas(self, image: NDArray[np.uint8], scale: float) -> Letterbox:
        if self._card.fixed:
            return letterbox(image, scale, self._card.fixed)
        return fit(image, scale, self._card.stride, least=_SHORTEST)


def decode(
    result: NDArray[np.float32], classes: int, least: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp]]:
    """Return boxes (n, 4) in input pixels, scores (n,) and class indices (n,) from a network's output.

    Args:
        result: (1, n, 6), rows of x1, y1, x2, y2, score, class (the NMS-free head); or (1, 4 + classes, n),
            columns of centre x, centre y, width, height and one score per class (the one-to-many head). In
            the latter a place may be of several classes: a person behind a dog is both.
        classes: number of classes.
        least: lower scores are left out.
    """
    table = result[0]
    if table.shape[1] == 6:
        table = table[table[:, 4] >= least]
        kinds = table[:, 5].astype(np.intp)
        xyxy, scores = table[:, :4], table[:, 4]
    else:
        kinds, places = np.nonzero(table[4:] >= least)
        scores = table[4 + kinds, places]
        centre, half = table[:2, places].T, table[2:4, places].T / 2
        xyxy = np.concatenate([centre - half, centre + half], axis=1)
    good = (kinds >= 0) & (kinds < classes) & np.isfinite(xyxy).all(axis=1)
    good &= (xyxy[:, 2:] >= xyxy[:, :2]).all(axis=1)
    best = np.nonzero(good)[0]
    best = best[np.argsort(-scores[best], kind="stable")[:_MOST]]
    return xyxy[best], scores[best].clip(0, 1), kinds[best]


def read_card(net: Any, file: str) -> Card:
    """Read what an exported file says about itself, and refuse what is not a detection model.

    Args:
        net: the session.
        file: the file's name, for messages.

    Raises:
        InvalidRequest: names are missing, the task is another, or the shapes do not fit.
    """
    said: Mapping[str, str] = net.get_modelmeta().custom_metadata_map
    if "names" not in said:
        raise InvalidRequest(
            f"the model {file!r} names no classes: it was not exported by Ultralytics. Give a file made by: "
            "yolo export model=FILE.pt format=onnx nms=False"
        )
    if (task := said.get("task", "detect")) != "detect":
        raise InvalidRequest(
            f"the model {file!r} is for the task {task!r}; only 'detect' is read. Give a detection model."
        )
    named = _literal(said["names"], file, "names")
    names = list(named.values()) if isinstance(named, dict) else named
    side = _literal(said.get("imgsz", str(_SIDE)), file, "imgsz")
    side = max(side) if isinstance(side, list | tuple) else side
    stride = _literal(said.get("stride", "32"), file, "stride")
    whole = isinstance(side, int) and isinstance(stride, int) and side >= stride > 0
    if not isinstance(names, list) or not names or not whole:
        raise InvalidRequest(
            f"the model {file!r} describes itself oddly: names {names!r}, imgsz {side!r}, stride {stride!r}"
        )
    fixed, free = _shapes(net, len(names), file)
    licence = (
        "AGPL-3.0" if said.get("license", "").startswith("AGPL-3.0") else said.get("license", "unknown")[:60]
    )
    return Card(
        tuple(str(name) for name in names), stride, max(fixed) if fixed else side, fixed, free, licence
    )


def _literal(text: str, file: str, key: str) -> Any:
    """Read a Python literal out of a file's metadata."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InvalidRequest(f"the model {file!r} has unreadable metadata: {key} = {text[:60]!r}") from error


def _shapes(net: Any, classes: int, file: str) -> tuple[tuple[int, int] | None, bool]:
    """Check the shapes; return the input's fixed (width, height) or None, and if the head is NMS-free."""
    port = net.get_inputs()[0]
    batch, channels, *sides = port.shape if len(port.shape) == 4 else (0, 0)
    fixed = (sides[1], sides[0]) if sides and all(isinstance(side, int) for side in sides) else None
    out = net.get_outputs()[0].shape
    if batch != 0 and not all(isinstance(side, int) for side in out[1:]):
        side = 320  # a file with free sizes may not declare its output: see what comes
        kind = np.float16 if port.type == "tensor(float16)" else np.float32
        out = list(run(net, None, np.zeros((1, 3, side, side), kind))[0].shape)
    heads = len(out) == 3 and (out[2] == 6 or out[1] == 4 + classes)
    if (isinstance(batch, int) and batch != 1) or (isinstance(channels, int) and channels != 3) or not heads:
        raise InvalidRequest(
            f"the model {file!r} takes {port.shape} and gives {out}; expected [1, 3, height, width] "
            f"and [1, n, 6] or [1, {4 + classes}, n]. Export it with: "
            "yolo export model=FILE.pt format=onnx nms=False"
        )
    return fixed, out[2] == 6


def build(*, model: Path | None = None, size: int | None = None, threads: int = 0) -> Yolo26:
    """Build the detector; without `model` the model cache is searched.

    The weights published by Ultralytics are AGPL-3.0, which may bind whoever offers a service with them. A
    `.pt` file needs the extra `yolo` and is exported once.

    Raises:
        MissingModel: no file was given and none is in the cache, or the file given does not exist.
        MissingExtra: a `.pt` file was given and Ultralytics is not installed.
        DownloadFailed: a file in the cache is not the published one.
        InvalidRequest: the file is not an exported detection model.

    Source:
        https://docs.ultralytics.com/models/yolo26/
    """
    loaded = models.load("yolo26", model)
    return Yolo26(replace(loaded, data=exported(loaded)), size, threads)
