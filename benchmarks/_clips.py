"""Clips made here: people over a moving background, with the boxes of their faces known by construction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]

#: The face of `skimage.data.astronaut()`: hairline to chin, between the ears.
ASTRONAUT = (178.0, 74.0, 266.0, 181.0)
RATE = 25
#: Portraits in a clip: (face's height as a share of the frame's shorter side, seconds to cross, row, first
#: frame as a share of a second). The third is as small as a face in the street; the last runs.
CAST = ((0.20, 9.0, 0.28, 0.0), (0.13, 6.0, 0.63, 0.8), (0.08, 12.0, 0.06, 0.4), (0.10, 4.5, 0.88, 2.0))


@dataclass(frozen=True, slots=True)
class Portrait:
    """A cut-out person, soft at its border: pixels, how much of each counts (0..1), and the face in it."""

    pixels: Pixels
    weight: NDArray[np.float32]
    face: Box


@dataclass(frozen=True, slots=True)
class Made:
    """A clip and where its faces are: boxes by frame, in pixels of `size` (width, height)."""

    path: Path
    size: tuple[int, int]
    frames: int
    boxes: dict[int, list[Box]]


def portraits(data: Path) -> list[Portrait]:
    """Return people cut out of labelled pictures, largest faces first; the astronaut where there are none."""
    from skimage import data as samples

    found = [_cut_out(samples.astronaut(), ASTRONAUT)]
    labels = data / "labels" / "faces.json"
    if labels.exists():
        large = []
        for name, entry in json.loads(labels.read_text()).items():
            path = data / "images" / name
            sides = [(box[3] - box[1], box) for box in entry["faces"] if box[3] - box[1] >= 100]
            if len(entry["faces"]) == 1 and sides and path.exists() and "astronaut" not in name:
                large.append((-sides[0][0], name, sides[0][1]))
        for _, name, box in sorted(large)[: len(CAST) - 1]:
            picture = cv2.cvtColor(cv2.imread(str(data / "images" / name)), cv2.COLOR_BGR2RGB)
            found.append(_cut_out(np.asarray(picture, np.uint8), tuple(box)))
    return found


def _cut_out(picture: Pixels, face: Box) -> Portrait:
    """Cut head and shoulders along an ellipse and bring the face to 150 pixels' height."""
    x1, y1, x2, y2 = face
    high, wide = y2 - y1, x2 - x1
    left, top = max(round(x1 - 0.9 * wide), 0), max(round(y1 - 0.6 * high), 0)
    right, bottom = (
        min(round(x2 + 0.9 * wide), picture.shape[1]),
        min(round(y2 + 1.0 * high), picture.shape[0]),
    )
    scale = 150 / high
    part = cv2.resize(picture[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = part.shape[:2]
    weight = np.zeros((height, width), np.float32)
    cv2.ellipse(weight, (width // 2, height // 2), (width // 2 - 8, height // 2 - 8), 0, 0, 360, 1.0, -1)
    weight = cv2.GaussianBlur(weight, (0, 0), 4)
    inside = tuple((value - shift) * scale for value, shift in zip(face, (left, top, left, top), strict=True))
    return Portrait(np.asarray(part, np.uint8), np.asarray(weight, np.float32), inside)


def make(path: Path, size: tuple[int, int], frames: int, people: list[Portrait], *, crf: int = 20) -> Made:
    """Write a clip of people who cross the picture, turn back and come again, over a wall that drifts."""
    boxes: dict[int, list[Box]] = {}
    write(path, _scene(size, frames, people, boxes), crf)
    return Made(path, size, frames, boxes)


def degrade(clip: Made, path: Path, *, width: int, noise: float, crf: int) -> Made:
    """Write a copy that is `width` pixels wide, noisy (standard deviation in grey levels) and coded low."""
    draw = np.random.default_rng(0)
    height = 2 * round(clip.size[1] * width / clip.size[0] / 2)

    def worse() -> Iterator[Pixels]:
        with av.open(str(clip.path)) as container:
            for frame in container.decode(video=0):
                small = cv2.resize(
                    frame.to_ndarray(format="rgb24"), (width, height), interpolation=cv2.INTER_AREA
                ).astype(np.float32)
                yield np.clip(small + noise * draw.standard_normal(small.shape), 0, 255).astype(np.uint8)

    write(path, worse(), crf)
    return Made(path, clip.size, clip.frames, clip.boxes)


def write(path: Path, pictures: Iterator[Pixels], crf: int) -> None:
    """Write pictures as H.264."""
    with av.open(str(path), "w") as container:
        stream = None
        for index, pixels in enumerate(pictures):
            if stream is None:
                stream = container.add_stream("libx264", rate=RATE, options={"crf": str(crf)})
                stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))


def _scene(
    size: tuple[int, int], frames: int, people: list[Portrait], boxes: dict[int, list[Box]]
) -> Iterator[Pixels]:
    width, height = size
    wall = _wall(width + 200, height + 60)
    for index in range(frames):
        x, y = round(100 + 90 * np.sin(index / 60)), round(30 + 25 * np.sin(index / 45))
        picture = wall[y : y + height, x : x + width].copy()
        boxes[index] = []
        for (share, crossing, row, begin), person in zip(CAST, _enough(people), strict=False):
            time = index / RATE - begin
            scale = share * min(size) / (person.face[3] - person.face[1])
            if time >= 0:
                box = _place(picture, person, scale, time / crossing, row)
                boxes[index] += [box] if box else []
        yield picture


def _place(picture: Pixels, person: Portrait, scale: float, part: float, row: float) -> Box | None:
    """Draw a person, `part` of the way across and back, and return the seen part of the face's box."""
    height, width = picture.shape[:2]
    across = person.pixels.shape[1] * scale
    way = 1 - abs(part % 2 - 1)
    x = way * (width + across) - across
    y = row * height - person.pixels.shape[0] * scale / 2 + 4 * np.sin(9 * part)
    shift = np.array([[scale, 0, x], [0, scale, y]])
    how = {"flags": cv2.INTER_AREA if scale < 0.6 else cv2.INTER_LINEAR}
    small = person.pixels if scale >= 0.6 else cv2.GaussianBlur(person.pixels, (0, 0), 0.35 / scale)
    drawn = cv2.warpAffine(small, shift, (width, height), **how)
    weight = cv2.warpAffine(person.weight, shift, (width, height), **how)[:, :, None]
    picture[:] = np.rint(picture + (drawn.astype(np.float32) - picture) * weight).astype(np.uint8)
    x1, y1, x2, y2 = (value * scale + offset for value, offset in zip(person.face, (x, y, x, y), strict=True))
    seen = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    # Of whom less than half a face is in the picture is not in it yet.
    if seen[2] - seen[0] < 0.5 * (x2 - x1) or seen[3] - seen[1] < 0.5 * (y2 - y1):
        return None
    return seen


def _enough(people: list[Portrait]) -> list[Portrait]:
    return [people[index % len(people)] for index in range(len(CAST))]


def _wall(width: int, height: int) -> Pixels:
    """Return a picture with coarse and fine structure, and no face in it."""
    draw = np.random.default_rng(1)
    total = np.full((height, width, 3), 120, np.float32)
    for cells, strength in ((4, 30), (16, 18), (90, 9)):
        coarse = draw.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 255).astype(np.uint8)
