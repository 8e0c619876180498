"""The pictures of a data.yaml, by privacy unit: what one step may look at."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.core.errors import InvalidRequest, UnreadableMedia
from sfumato.data.readers.yolo import Yolo
from sfumato.training.detect.augment import NONE, Augment, Marked, shown
from sfumato.training.detect.loss import Targets
from sfumato.training.detect.stream import Stream
from sfumato.vision.opencv import opencv

#: Pictures beside the one that is trained on, in a mosaic.
_PARTNERS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """One picture on disk, with its labels.

    Args:
        name: its path in the dataset.
        file: where it lies.
        classes: class numbers.
        boxes: x1 y1 x2 y2, as shares of the picture's sides.
    """

    name: str
    file: Path
    classes: tuple[int, ...]
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pictures ready for the model.

    Args:
        pixels: (n * views, 3, side, side) uint8; the views of each picture follow each other.
        targets: of the same pictures, in pixels of the canvas.
    """

    pixels: Tensor
    targets: Targets


class Dataset:
    """The training pictures of a data.yaml, and whose each is.

    Guarantee:
        What a picture becomes in a step is a function of itself, the public pictures, and a key; it does not
        depend on which other pictures are in the batch, or in the dataset.

    Args:
        data: a data.yaml, or the folder that holds one; its `train` split is read, no other.
        units: whose picture each is: path in the dataset -> key; None: each picture is a unit.
        side: of the canvas, in pixels; a multiple of 32.
        augment: what may happen to a picture; None: nothing.
        public: a data.yaml of PUBLIC pictures with the same class names, for mosaics; None: no mosaics.
        key: of all that is random here; the same key shows the same augmentations.

    Raises:
        InvalidRequest: it does not read, a picture has no unit, or a setting is out of range.
    """

    def __init__(
        self,
        data: Path,
        *,
        units: Mapping[str, str] | None = None,
        side: int = 640,
        augment: Augment | None = None,
        public: Path | None = None,
        key: bytes = b"",
    ) -> None:
        self.side, self.augment, self.key = _side(side), augment or NONE, key
        self.names = _named(data)
        self.pictures = _sources(data, self.names)
        if (self.augment.mosaic > 0) != (public is not None):
            raise InvalidRequest(
                "mosaics are made with public pictures only: give both augment.mosaic above 0 and public=, "
                "or neither. A mosaic of private pictures would put several people into one gradient."
            )
        self.public = _sources(public, self.names) if public is not None else ()
        # Reading and scaling leave Python's lock alone, so threads share the work.
        self._threads = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "sfumato-pictures")
        #: Whose picture each is.
        self.units = tuple(_unit(picture.name, units) for picture in self.pictures)

    def __len__(self) -> int:
        """Number of pictures: private, as what is counted may be."""
        return len(self.pictures)

    def batch(self, images: Sequence[int], step: int, views: int = 1) -> Batch:
        """Return some pictures for one step.

        Args:
            images: their numbers.
            step: its number; each step sees its own augmentations.
            views: how many times each picture is shown, augmented anew.

        Raises:
            UnreadableMedia: a picture does not read.
        """
        asked = [(self.pictures[index], step, view) for index in images for view in range(views)]
        made = list(self._threads.map(lambda one: self._seen(*one), asked))
        pixels = torch.zeros(len(made), 3, self.side, self.side, dtype=torch.uint8)
        for row, one in zip(pixels, made, strict=True):
            row.copy_(torch.from_numpy(one.pixels).permute(2, 0, 1))
        marked = [(torch.from_numpy(one.classes), torch.from_numpy(one.boxes).float()) for one in made]
        return Batch(pixels, Targets.of(marked))

    def _seen(self, source: Source, step: int, view: int) -> Marked:
        stream = Stream(self.key, "picture", source.name, step, view)
        partners: list[Marked] = []
        if self.public and stream.uniform(0, 1, 1)[0] < self.augment.mosaic:
            picked = stream.uniform(0, len(self.public), _PARTNERS).astype(int) % len(self.public)
            partners = [read(self.public[index]) for index in picked]
        return shown(read(source), self.side, self.augment, stream, partners)


def read(source: Source) -> Marked:
    """Read a picture with its boxes in pixels.

    Raises:
        UnreadableMedia: it does not read.
    """
    cv2 = opencv()
    try:
        data = np.frombuffer(source.file.read_bytes(), np.uint8)
    except OSError as error:
        raise UnreadableMedia(f"{source.name}: {type(error).__name__}") from error
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if pixels is None:
        raise UnreadableMedia(f"{source.name} does not read as a picture: take it out, or mend it")
    height, width = pixels.shape[:2]
    boxes = np.array(source.boxes, np.float64).reshape(-1, 4) * (width, height, width, height)
    rgb: NDArray[np.uint8] = np.ascontiguousarray(pixels[:, :, ::-1])
    return Marked(rgb, np.array(source.classes, np.int64), boxes)


def unit_table(path: Path) -> dict[str, str]:
    """Read whose picture each is, from a CSV file: the columns are the picture's path and the unit's key.

    Raises:
        InvalidRequest: it does not read, or names a picture twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path} does not read as CSV ({type(error).__name__})") from error
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) < 2 or not row[1].strip():
            raise InvalidRequest(
                f"{path}, row {number}: a picture's path and the key of its person are needed"
            )
        if row[0].strip() in found:
            raise InvalidRequest(f"{path}, row {number}: {row[0].strip()!r} is there twice")
        found[row[0].strip()] = row[1].strip()
    return found


def _named(data: Path) -> dict[int, str]:
    if not data.exists():
        raise InvalidRequest(f"{data} does not exist: give a data.yaml, or the folder that holds one")
    names = Yolo().names(data)
    if sorted(names) != list(range(len(names))) or not names:
        raise InvalidRequest(f"{data}: names must be numbered 0, 1, 2, ... without gaps; got {sorted(names)}")
    return names


def _sources(data: Path, names: Mapping[int, str]) -> tuple[Source, ...]:
    """Return the pictures of the `train` split."""
    numbers = {name: number for number, name in names.items()}
    if len(numbers) < len(names):
        raise InvalidRequest(f"{data}: two classes have the same name")
    if _named(data) != dict(names):
        raise InvalidRequest(f"{data}: the public pictures must have the classes of the private ones")
    found = []
    for picture in Yolo().open(data).pictures():
        if picture.fields["split"] != "train":
            continue
        kinds, boxes = [], []
        for mark in picture.annotations:
            box = _corners(mark.get("annotation.box"), mark.get("annotation.points"))
            if box is not None:
                kinds.append(numbers[mark["annotation.category"]])
                boxes.append(box)
        found.append(Source(picture.path, picture.file, tuple(kinds), tuple(boxes)))
    if not found:
        raise InvalidRequest(f"{data}: the split 'train' holds no picture")
    return tuple(found)


def _corners(
    box: Sequence[float] | None, points: Sequence[float] | None
) -> tuple[float, float, float, float] | None:
    """Return a label's corners, inside the picture; None where nothing is left of it."""
    if box is not None:
        x, y, width, height = box
        low, high = (x - width / 2, y - height / 2), (x + width / 2, y + height / 2)
    else:
        across, down = (points or [])[0::2], (points or [])[1::2]
        low, high = (min(across), min(down)), (max(across), max(down))
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in (*low, *high))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _unit(name: str, units: Mapping[str, str] | None) -> str:
    if units is None:
        return name
    if name not in units:
        raise InvalidRequest(
            f"the picture {name!r} has no unit: name whose it is, or take it out of the training split"
        )
    return units[name]


def _side(side: int) -> int:
    if isinstance(side, bool) or not isinstance(side, int) or side < 32 or side % 32:
        raise InvalidRequest(f"the side of the input must be a multiple of 32 pixels, got {side!r}")
    return side
