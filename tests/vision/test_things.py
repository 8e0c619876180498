"""Text, plates and codes: on drawn pictures everywhere, on real ones where the test data is."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest, MissingExtra, MissingModel
from sfumato.redaction.regions import regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision import models
from sfumato.vision.boxes import Boxes
from sfumato.vision.choice import expand
from sfumato.vision.detectors import CATALOGUE
from sfumato.vision.detectors.codes import build as codes
from sfumato.vision.detectors.plates import Plates
from sfumato.vision.detectors.text import build as text
from sfumato.vision.detectors.text import clearer, lines
from sfumato.vision.finder import make_finder


@pytest.fixture(scope="module")
def reader():
    try:
        return text(threads=1)
    except (MissingExtra, MissingModel) as error:
        pytest.skip(str(error))


def test_a_patch_of_the_map_becomes_a_box_grown_by_its_own_offset():
    chances = np.zeros((100, 200), np.float32)
    chances[40:50, 50:150] = 0.9
    boxes, scores = lines(chances)
    reach = 10 * 100 * 1.9 / (2 * 110)
    np.testing.assert_allclose(boxes[0], [50 - reach, 40 - reach, 150 + reach, 50 + reach], atol=1.0)
    assert scores[0] == pytest.approx(0.9, abs=0.15)
    assert not len(lines(chances, 0.95)[0])
    assert not len(lines(np.zeros((32, 32), np.float32))[0])


def test_a_slanted_line_lies_wholly_in_its_box():
    chances = np.zeros((200, 200), np.float32)
    cv2.line(chances, (30, 30), (170, 120), 0.9, 8)
    box = lines(chances)[0][0]
    assert (box[:2] < 30).all()
    assert box[2] > 170
    assert box[3] > 120


def test_only_faint_pictures_are_made_clearer():
    plain = np.full((64, 64, 3), 128, np.uint8)
    strong = np.tile(np.array([0, 255], np.uint8)[:, None, None], (32, 64, 3))
    faint = plain.copy()
    faint[:, ::4] = 70
    assert clearer(plain) is None
    assert clearer(strong) is None
    assert np.ptp(clearer(faint)) == 255


@pytest.mark.parametrize("turn", [0, 90, 180])
def test_text_is_found_whatever_way_it_runs(reader, turn):
    image = np.full((400, 400, 3), 200, np.uint8)
    cv2.putText(image, "PRIVATE", (60, 210), cv2.FONT_HERSHEY_SIMPLEX, 2, (30, 60, 30), 4)
    image = np.ascontiguousarray(np.rot90(image, turn // 90))
    dark = (image[..., 0] < 100)[None]
    mask = np.zeros((400, 400), bool)
    for x1, y1, x2, y2 in regions_of(reader.detect(image, floor=0.35), Settings(), 400, 400):
        mask[y1:y2, x1:x2] = True
    assert mask[dark[0]].mean() > 0.99


def test_weights_that_are_no_text_detector_are_refused(tiny_model, tmp_path):
    path = tmp_path / "other.onnx"
    path.write_bytes(tiny_model(np.zeros((1, 3), np.float32)))
    with pytest.raises(InvalidRequest, match="not a text detector"):
        text(model=path)


def test_text_weights_come_from_the_wheel_and_name_the_extra(monkeypatch):
    one = models.entry("ppocrv4-det")
    assert (one.licence, one.extra) == ("Apache-2.0", "text")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"sfumato\[text\]"):
        models.load("text")


class Still:
    """A detector that returns given boxes."""

    def __init__(self, boxes: Boxes, name: str = "still"):
        self.boxes, self.name = boxes, name
        self.weights = CATALOGUE.build("codes").weights

    def detect(self, image, *, floor=0.0):
        return self.boxes.keep(self.boxes.scores >= floor)

    def look(self, image, scale, least):
        return Boxes.empty()


def test_only_text_on_vehicles_counts_as_a_plate_where_vehicles_are_known():
    image = np.zeros((200, 200, 3), np.uint8)
    written = Still(Boxes([[50, 60, 80, 70], [150, 150, 180, 160]], [0.9, 0.9], ["text"] * 2))
    cars = Still(Boxes([[30, 30, 120, 100], [140, 140, 190, 190]], [0.9, 0.9], ["car", "person"]))
    assert Plates(written, cars, None).detect(image).xyxy.tolist() == [[50, 60, 80, 70]]
    assert len(Plates(written, None, None).detect(image)) == 2
    assert Plates(written, cars, None).weights.licence == "Apache-2.0 AND Apache-2.0"


@pytest.mark.parametrize("gated", [True, False])
def test_labelled_plates_are_covered(reader, testdata, gated):
    labels = json.loads(testdata("labels/plates.json").read_text())
    given = {"yolo26": testdata("models/yolo26n_e2e_640.onnx")} if gated else {}
    finder = make_finder(["plate"], models=given, threads=1)
    done = []
    for name, boxes in labels.items():
        image = cv2.imread(str(testdata(f"images/{name}")))[:, :, ::-1]
        mask = np.zeros(image.shape[:2], bool)
        for x1, y1, x2, y2 in regions_of(finder.find(image), Settings(), *image.shape[1::-1]):
            mask[y1:y2, x1:x2] = True
        done += [mask[y1:y2, x1:x2].mean() >= 0.9 for x1, y1, x2, y2 in boxes]
    assert len(done) == 6
    assert sum(done) >= (6 if gated else 5)


@pytest.mark.parametrize("side", [60, 120, 400])
def test_qr_codes_of_many_sizes_are_found(side):
    code = cv2.QRCodeEncoder.create().encode("who am I")
    image = np.full((600, 800, 3), 190, np.uint8)
    image[100 : 100 + side, 200 : 200 + side] = cv2.resize(code, (side, side), interpolation=0)[:, :, None]
    found = codes().detect(image).where(lambda label, score: label == "qr code")
    assert len(found) == 1
    quiet = side * 3 / code.shape[0]  # the border of a code is white and says nothing
    np.testing.assert_allclose(
        found.xyxy[0], [200 + quiet, 100 + quiet, 200 + side - quiet, 100 + side - quiet], atol=side * 0.15
    )


def test_codes_have_no_weights_to_give(tmp_path):
    with pytest.raises(InvalidRequest, match="no weights"):
        codes(model=tmp_path / "x.onnx")


def test_screens_and_documents_are_classes_of_yolo26(testdata):
    assert expand("screen") == ("tv", "laptop", "cell phone")
    assert expand("document") == ("book",)
    given = {"yolo26": testdata("models/yolo26n_e2e_320.onnx")}
    finder = make_finder(["screen", "document", "clock", "traffic light"], models=given, threads=1)
    assert finder.hide == ("tv", "laptop", "cell phone", "book", "clock", "traffic light")
