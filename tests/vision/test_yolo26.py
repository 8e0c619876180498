"""YOLO26: both heads, the file's own words, and what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest, MissingModel
from sfumato.vision.boxes import iou
from sfumato.vision.detectors import yolo26
from sfumato.vision.detectors.yolo26 import decode

SAID = {
    "names": "{0: 'person', 1: 'car', 2: 'licence plate'}",
    "stride": "32",
    "imgsz": "[64, 64]",
    "task": "detect",
    "end2end": "True",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
}
ROWS = [[8, 16, 24, 48, 0.9, 0], [30, 30, 50, 60, 0.4, 1], [8, 16, 24, 48, 0.2, 2], [0, 0, 0, 0, 0, 0]]


def free(rows):
    """The NMS-free head's output."""
    return np.array([rows], np.float32)


def dense(rows, classes=3):
    """The same boxes as the one-to-many head gives them, each one three times."""
    table = np.zeros((4 + classes, 3 * len(rows)), np.float32)
    for index, (x1, y1, x2, y2, score, kind) in enumerate(rows):
        for copy in range(3):
            place = 3 * index + copy
            table[:4, place] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
            table[4 + int(kind), place] = score * (1 - 0.01 * copy)
    return table[None]


@pytest.fixture
def build(tmp_path, tiny_model):
    def make(result, *, size=None, **changes):
        path = tmp_path / "model.onnx"
        said = {key: value for key, value in (SAID | changes.pop("said", {})).items() if value is not None}
        path.write_bytes(tiny_model(result, metadata=said, **changes))
        return yolo26.build(model=path, size=size, threads=1)

    return make


@pytest.mark.parametrize("head", [free, dense])
def test_both_heads_give_the_same(build, head):
    detector = build(head(ROWS))
    assert detector.finds == ("person", "car", "licence plate")
    assert detector.weights.licence == "AGPL-3.0"
    found = detector.detect(np.zeros((64, 64, 3), np.uint8), floor=0.1)
    assert found.labels == ("person", "car", "licence plate")
    np.testing.assert_allclose(found.xyxy, [row[:4] for row in ROWS[:3]])
    np.testing.assert_allclose(found.scores, [0.9, 0.4, 0.2], rtol=1e-6)
    assert detector.detect(np.zeros((64, 64, 3), np.uint8), floor=0.3).labels == ("person", "car")


def test_boxes_are_brought_back_along_each_axis(build):
    detector = build(free([[0, 10, 64, 54, 0.9, 0]]))
    found = detector.detect(np.zeros((67, 96, 3), np.uint8))  # scaled to 64 x 45, put at 0, 9
    gain = 45 / 67
    np.testing.assert_allclose(found.xyxy, [[0, (10 - 9) / gain, 96, (54 - 9) / gain]], atol=1e-3)


def test_a_place_may_be_of_two_classes():
    table = np.zeros((1, 7, 5), np.float32)
    table[0, :4, 2] = 30, 30, 10, 20
    table[0, 4:, 2] = 0.12, 0.7, 0
    xyxy, scores, kinds = decode(table, 3, 0.1)
    assert sorted(kinds.tolist()) == [0, 1]
    assert xyxy.tolist() == [[25, 20, 35, 40]] * 2
    assert scores[0] == np.float32(0.7)


def test_rows_that_make_no_sense_are_left_out():
    rows = [[5, 5, 2, 9, 0.9, 0], [0, 0, np.inf, 9, 0.9, 0], [0, 0, 9, 9, 0.9, 7], [0, 0, 9, 9, np.nan, 0]]
    assert len(decode(free(rows), 3, 0.1)[0]) == 0


def test_people_have_a_lower_threshold(build):
    assert build(free(ROWS)).thresholds == {"person": 0.10, "*": 0.25}


@pytest.mark.parametrize("task", ["segment", "pose", "classify"])
def test_other_tasks_are_refused(build, task):
    with pytest.raises(InvalidRequest, match=f"task '{task}'; only 'detect'"):
        build(free(ROWS), said={"task": task})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"said": {"names": None}}, "names no classes"),
        ({"said": {"names": "__import__('os').getcwd()"}}, "unreadable metadata: names"),
        ({"said": {"names": "{0: "}}, "unreadable metadata"),
        ({"said": {"names": "{}"}}, "oddly"),
        ({"said": {"imgsz": "'x'"}}, "oddly"),
        ({"said": {"stride": "0"}}, "oddly"),
        ({"inputs": (4, 3, 64, 64)}, r"takes \[4, 3, 64, 64\]"),
        ({"inputs": (1, 1, 64, 64)}, r"takes \[1, 1, 64, 64\]"),
        ({"inputs": (1, 3, 64)}, r"takes \[1, 3, 64\]"),
    ],
)
def test_files_that_are_no_detection_model_are_refused(build, changes, match):
    with pytest.raises(InvalidRequest, match=match):
        build(free(ROWS), **changes)
    with pytest.raises(InvalidRequest, match="gives"):
        build(np.zeros((1, 5, 9)))


def test_free_sizes_are_probed_and_padded_little(build):
    shapes = {"inputs": ("batch", 3, "height", "width"), "declared": ("batch", "rows", "anchors")}
    detector = build(free(ROWS), said={"imgsz": "[160, 160]"}, **shapes)
    assert detector.detect(np.zeros((160, 160, 3), np.uint8), floor=0.3).labels == ("person", "car")
    assert detector._canvas(np.zeros((200, 300, 3), np.uint8), 1.0).pixels.shape == (224, 320, 3)
    assert detector._canvas(np.zeros((5, 300, 3), np.uint8), 1.0).pixels.shape == (160, 320, 3)
    assert build(dense(ROWS), **shapes)._card.free is False


def test_a_fixed_input_is_never_given_less_than_it_takes(build):
    small = build(free(ROWS), size=32)
    assert len(small.detect(np.zeros((64, 64, 3), np.uint8), floor=0.3)) == 2


def test_missing_weights(no_models, tmp_path):
    with pytest.raises(MissingModel, match="sfumato models pull yolo26n"):
        yolo26.build()
    with pytest.raises(MissingModel, match="does not exist"):
        yolo26.build(model=tmp_path / "gone.onnx")


def test_the_real_file_finds_the_people_of_the_bus(testdata):
    detector = yolo26.build(model=testdata("models/yolo26n_e2e_640.onnx"), threads=1)
    picture = cv2.imread(str(testdata("images/bus.jpg")))[..., ::-1]
    found = detector.detect(picture, floor=0.25)
    assert found.labels.count("person") == 4
    assert "bus" in found.labels
    # As Ultralytics' own code reads the same file (8.4.190): the surest person.
    surest = found.where(lambda label, _: label == "person").xyxy[:1]
    reference = np.array([[667.8, 396.0, 810.0, 878.5]])
    assert iou(surest, reference)[0, 0] > 0.98


def test_small_people_in_a_large_picture_need_tiles(testdata):
    """One look at 640 pixels misses people that tiles find."""
    picture = cv2.imread(str(testdata("images/bus.jpg")))[..., ::-1]
    small = cv2.resize(picture, None, fx=0.13, fy=0.13, interpolation=cv2.INTER_AREA)
    scene = np.full((1400, 2100, 3), 120, np.uint8)
    for x in range(50, 1900, 150):
        scene[600 : 600 + small.shape[0], x : x + small.shape[1]] = small
    model = testdata("models/yolo26n_e2e_640.onnx")
    once = yolo26.build(model=model, size=640, threads=2).detect(scene, floor=0.1)
    tiled = yolo26.build(model=model, threads=2).detect(scene, floor=0.1)
    people = [sum(label == "person" for label in found.labels) for found in (once, tiled)]
    assert people[1] > 1.5 * people[0]
