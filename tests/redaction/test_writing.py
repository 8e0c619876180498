"""Writing is gone: an OCR that reads the originals reads nothing of the outputs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from sfumato import redact
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import make_finder

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def things():
    if importlib.util.find_spec("rapidocr_onnxruntime") is None:
        pytest.skip("needs the text models: pip install 'sfumato[text]'")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import things
    finally:
        sys.path.remove(str(BENCHMARKS))
    return things


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("imageTextN.png", 10),
        ("text_defocus.jpg", 0),
        ("text_motion.jpg", 0),
        ("licenseplate_motion.jpg", 0),
        ("coco_000000001532.jpg", 8),
        ("coco_000000001584.jpg", 1),
        ("pexels_double_decker_bus.jpg", 2),
    ],
)
def test_an_ocr_reads_nothing_of_the_output(things, testdata, name, least):
    from PIL import Image

    with Image.open(testdata(f"images/{name}")) as opened:
        image = np.asarray(opened.convert("RGB"))
    finder = make_finder(["text"], threads=1)
    found = finder.find(image)
    safe = redact(image, hide="text", cover="blur").image  # writing is made solid all the same
    places = Boxes.concat([found, finder.find(safe)])
    reader = things.Reader()
    assert len(list(reader.lines(image, found))) >= least  # the control: it can read
    assert list(reader.lines(safe, places)) == []
