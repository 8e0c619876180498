"""Tracks of faces for the attack: only the inside of a region can tell who it is.

Every head is cut out along an ellipse that lies inside the region's outline, brought to one size, and laid on
a background drawn at random for each track. So neither surroundings nor the region's size or shape identify.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfumato.redaction.regions import outlines_of, regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes

Pixels = NDArray[np.uint8]

#: Width and height of a frame, and of the face's box in its middle, in pixels.
FRAME, FACE = (128, 176), (40, 50)
#: Where the middle of the box lies: the region reaches further up than down.
MIDDLE = (64, 93)
#: Half axes of the head that is cut out, and how far above the box's middle its own lies: from the chin to a
#: third of the box's height above it, and a quarter wider than the box.
HEAD, RISE = (25, 34), 8
#: A labelled face with a shorter side than this is too small to be told from others.
SMALLEST = 24
#: Noise of the sensor, taken from another place for every frame.
GRAIN = np.random.default_rng(0).normal(0, 4, (700, 700, 3)).astype(np.float32)


@dataclass(frozen=True)
class Faces:
    """Pictures of people, each (FRAME) with the face in the middle; where they came from."""

    people: list[list[Pixels]]
    source: str


def load(data: Path, most: int) -> Faces:
    """Return an AT&T-style set (faces/sNN/*.pgm), else the labelled faces, one picture to a person.

    Raises:
        FileNotFoundError: neither is there.
    """
    folders = sorted((data / "faces").glob("s[0-9]*"), key=lambda folder: int(folder.name[1:]))
    if folders:
        return Faces([[_att(path) for path in sorted(one.glob("*.pgm"))] for one in folders[:most]], "AT&T")
    labels = data / "labels" / "faces.json"
    if not labels.exists():
        raise FileNotFoundError(
            f"no faces under {data}: set SFUMATO_TESTDATA to a folder with faces/sNN/*.pgm, or with "
            "labels/faces.json and images/"
        )
    boxes = [
        (min(box[2] - box[0], box[3] - box[1]), name, box)
        for name, entry in json.loads(labels.read_text()).items()
        for box in entry["faces"]
        if (data / "images" / name).exists()
    ]
    large = [one for one in sorted(boxes, key=lambda one: (-one[0], one[1], one[2])) if one[0] >= SMALLEST]
    people = []
    for _, name, box in large[:most]:
        picture = np.asarray(Image.open(data / "images" / name).convert("RGB"))
        people.append([_centred(picture, box)])
    return Faces(people, "labelled faces, one picture each")


def _att(path: Path) -> Pixels:
    picture = np.asarray(Image.open(path).convert("RGB"))
    height, width = picture.shape[:2]
    return _centred(picture, [0.12 * width, 0.22 * height, 0.88 * width, 0.95 * height])


def _centred(picture: Pixels, box: list[float]) -> Pixels:
    """Bring a face's box to its place and size."""
    x1, y1, x2, y2 = box
    if (shrink := (y2 - y1) / FACE[1]) > 2:  # a warp takes no means: shrink first
        picture = cv2.resize(picture, None, fx=2 / shrink, fy=2 / shrink, interpolation=cv2.INTER_AREA)
        x1, y1, x2, y2 = (value * 2 / shrink for value in (x1, y1, x2, y2))
    scale = np.array([FACE[0] / (x2 - x1), FACE[1] / (y2 - y1)])
    shift = np.array(MIDDLE) - scale * [(x1 + x2) / 2, (y1 + y2) / 2]
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return cv2.warpAffine(picture, matrix, FRAME, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def track(
    face: Pixels, frames: int, rng: np.random.Generator
) -> Iterator[tuple[Pixels, NDArray[np.int32], NDArray[np.int32]]]:
    """Yield frames, the region in each and its outline.

    The head moves, the light flickers, the detector's box jitters.
    """
    ground = _background(rng)
    if rng.random() < 0.5:
        face = np.ascontiguousarray(face[:, ::-1])
    light, tint = rng.uniform(0.8, 1.2), rng.uniform(-12, 12)
    head = (MIDDLE[0], MIDDLE[1] - RISE)
    mask = np.zeros((FRAME[1], FRAME[0]), np.float32)
    cv2.ellipse(mask, head, HEAD, 0, 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (5, 5), 1)
    settings = Settings()
    for _ in range(frames):
        matrix = cv2.getRotationMatrix2D(head, rng.uniform(-6, 6), rng.uniform(0.94, 1.06))
        matrix[:, 2] += rng.uniform(-2, 2, 2)
        moved = cv2.warpAffine(face, matrix, FRAME, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
        soft = cv2.warpAffine(mask, matrix, FRAME)[:, :, None]
        x, y = rng.integers(0, 9, 2)
        behind = ground[y : y + FRAME[1], x : x + FRAME[0]]
        moved = moved * (light * rng.uniform(0.95, 1.05)) + tint
        u, v = rng.integers(0, GRAIN.shape[0] - FRAME[1]), rng.integers(0, GRAIN.shape[1] - FRAME[0])
        scene = behind + (moved - behind) * soft + GRAIN[u : u + FRAME[1], v : v + FRAME[0]]
        corner = np.array(MIDDLE) - np.array(FACE) / 2
        box = np.concatenate([corner, corner + FACE]) + rng.uniform(-1, 1, 4)
        boxes = Boxes([box.tolist()], [1.0], ["face"])
        region, outline = (shape(boxes, settings, *FRAME) for shape in (regions_of, outlines_of))
        yield np.clip(np.rint(scene), 0, 255).astype(np.uint8), region, outline


def _background(rng: np.random.Generator) -> NDArray[np.float32]:
    size = (FRAME[0] + 8, FRAME[1] + 8)
    # Soft and near grey: strong colours would drown the face in a blur, which no real wall does.
    total = np.full((size[1], size[0], 3), 128, np.float32)
    for cells, height in ((3, 20), (9, 12), (40, 6)):
        coarse = rng.normal(0, height, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255)
