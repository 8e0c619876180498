"""YuNet: the same faces as OpenCV's own reader of the file."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest, MissingModel
from sfumato.vision.boxes import iou
from sfumato.vision.detectors import yunet
from sfumato.vision.letterbox import GREY

FILE = "models/face_detection_yunet_2023mar.onnx"


@pytest.mark.parametrize("name", ["zidane.jpg", "coco_000000001000.jpg", "bus.jpg", "coco_000000000785.jpg"])
def test_it_agrees_with_opencv(testdata, name):
    if not hasattr(cv2, "FaceDetectorYN"):
        pytest.skip("this OpenCV has no FaceDetectorYN")
    picture = cv2.imread(str(testdata(f"images/{name}")))
    height, width = (-(-side // 32) * 32 for side in picture.shape[:2])
    canvas = np.full((height, width, 3), GREY, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    reference = cv2.FaceDetectorYN.create(str(testdata(FILE)), "", (width, height), 0.6, 0.3)
    rows = reference.detect(canvas)[1]
    assert rows is not None
    theirs = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1).clip(0, (width, height) * 2)
    detector = yunet.build(model=testdata(FILE), size=max(width, height), threads=1)
    # One view only, as the reference: without the level for faces that fill the picture.
    ours = detector._look(canvas[..., ::-1], 1.0, 0.6).clip(width, height)
    assert len(ours) == len(theirs)
    overlap = iou(ours.xyxy, theirs)
    assert (overlap.max(axis=1) > 0.99).all()
    np.testing.assert_allclose(ours.scores, rows[overlap.argmax(axis=1), 14], atol=1e-3)


def test_the_other_size_of_the_network_reads_as_well(testdata):
    detector = yunet.build(model=testdata("models/yunet_n_640.onnx"), threads=1)
    picture = cv2.imread(str(testdata("images/zidane.jpg")))[..., ::-1]
    assert len(detector.detect(picture, floor=0.6)) == 2
    assert detector.weights.name == "yunet"


def test_without_a_file_the_way_out_is_said(no_models):
    with pytest.raises(MissingModel, match="sfumato models pull yunet-2023mar"):
        yunet.build()


def test_another_model_is_refused_by_name(tmp_path, tiny_model):
    path = tmp_path / "other.onnx"
    path.write_bytes(tiny_model(np.zeros((1, 300, 6))))
    with pytest.raises(InvalidRequest, match=r"other\.onnx' is not YuNet"):
        yunet.build(model=path)
