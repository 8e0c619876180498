"""CenterFace: recall on labelled pictures, tiny and huge faces."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest
from sfumato.vision.detectors import centerface

FACE = (175, 55, 272, 180)  # of the astronaut, in a picture of 512x512


@pytest.fixture(scope="module")
def detector():
    return centerface.build(threads=2)


@pytest.fixture(scope="module")
def astronaut():
    return np.ascontiguousarray(
        pytest.importorskip(
            "skimage.data", reason="its portrait is the picture: pip install scikit-image"
        ).astronaut()
    )


def covered(box, regions, margin=0.3):
    """Share of a box that regions with a margin cover."""
    x = np.linspace(box[0], box[2], 66)[1:-1]
    y = np.linspace(box[1], box[3], 66)[1:-1]
    mask = np.zeros((64, 64), bool)
    for x1, y1, x2, y2 in regions:
        dx, dy = margin * (x2 - x1), margin * (y2 - y1)
        mask |= ((x >= x1 - dx) & (x <= x2 + dx))[None] & ((y >= y1 - dy) & (y <= y2 + dy))[:, None]
    return mask.mean()


def recall(detector, testdata, names=None, thresholds=(0.3,)):
    """Return, for each threshold, how many labelled faces are covered by at least 0.9; and all labelled."""
    labels = json.loads(testdata("labels/faces.json").read_text())
    hits = dict.fromkeys(thresholds, 0)
    for name in names or labels:
        image = cv2.imread(str(testdata(f"images/{name}")))[..., ::-1]
        found = detector.detect(image, floor=min(thresholds))
        for threshold in thresholds:
            kept = found.xyxy[found.scores >= threshold]
            hits[threshold] += sum(covered(box, kept) >= 0.9 for box in labels[name]["faces"])
    return hits, sum(len(labels[name]["faces"]) for name in names or labels)


def test_faces_of_some_pictures_are_covered(detector, testdata):
    names = (
        "bus.jpg",
        "zidane.jpg",
        "coco_000000001000.jpg",
        "coco_000000000885.jpg",
        "coco_000000003553.jpg",
    )
    hits, total = recall(detector, testdata, names)
    assert total >= 10
    assert hits[0.3] >= 0.93 * total


@pytest.mark.slow
def test_the_measured_recall_holds(detector, testdata):
    hits, total = recall(detector, testdata, thresholds=(0.3, 0.85))
    assert total == 139
    assert hits[0.3] >= 0.97 * total  # 139 of 139 when written; 0.93 is what the project promises
    assert hits[0.85] < 0.93 * total  # a threshold that is too high fails the same check


@pytest.mark.parametrize("side", [18, 97, 300, 700, 1300])
def test_faces_of_any_size_are_found(detector, astronaut, side):
    """From 18 pixels in a large picture to a close-up that fills it."""
    factor = side / (FACE[2] - FACE[0])
    if side < 97:
        image = np.full((1500, 2200, 3), 90, np.uint8)
        small = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image[701 : 701 + len(small), 901 : 901 + len(small)] = small
        box = np.array(FACE) * factor + (901, 701) * 2
    else:
        part = astronaut[:220, 120:330]  # the head fills most of it
        image = cv2.resize(part, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        box = (np.array(FACE) - (120, 0) * 2) * factor
    assert covered(box, detector.detect(image, floor=0.3).xyxy) >= 0.9


def test_at_one_size_a_small_face_in_a_large_picture_is_missed(astronaut):
    """The negative control of the test above: looking once, at 960 pixels, is not enough."""
    image = np.full((1500, 2200, 3), 90, np.uint8)
    small = cv2.resize(astronaut, (95, 95), interpolation=cv2.INTER_AREA)
    image[701:796, 901:996] = small
    assert len(centerface.build(size=960, threads=2).detect(image, floor=0.3)) == 0
    assert len(centerface.build(threads=2).detect(image, floor=0.3)) == 1


def test_a_face_on_the_border_of_tiles_is_found_once(detector, astronaut):
    image = np.full((900, 2200, 3), 90, np.uint8)
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    for x in range(960, 1180, 100):  # two tiles meet around the middle
        image[:] = 90
        image[300:556, x : x + 256] = small
        found = detector.detect(image, floor=0.3).xyxy
        assert len(found) == 1
        assert covered(np.array(FACE) / 2 + (x, 300) * 2, found) >= 0.9


def test_boxes_fit_the_face_and_not_more(detector, astronaut):
    (box,) = detector.detect(astronaut, floor=0.3).xyxy
    area = (box[2] - box[0]) * (box[3] - box[1])
    assert area < 1.5 * (FACE[2] - FACE[0]) * (FACE[3] - FACE[1])


def test_another_model_is_refused_by_name(tmp_path, tiny_model):
    path = Path(tmp_path / "other.onnx")
    path.write_bytes(tiny_model(np.zeros((1, 300, 6))))
    with pytest.raises(InvalidRequest, match=r"other\.onnx' is not CenterFace.*images"):
        centerface.build(model=path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidRequest, match=r"ONNX"):
        centerface.build(model=path)
