"""Plates, text and codes: how much is covered, and what is still read of the outputs.

Plates are those of labels/plates.json, covered by the default margin, with and without YOLO26. The text
pictures are hidden and read again by PP-OCRv4's recogniser (of rapidocr-onnxruntime's wheel), both where text
was found before and where text is found now. QR and bar codes are drawn into photographs, hidden, and read
again by OpenCV's decoders. Needs the extra `text` and SFUMATO_TESTDATA.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from _bench import arguments, report
from _codes import placed, reads
from sfumato import redact
from sfumato.redaction.regions import regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder, make_finder

DATA = Path(os.environ.get("SFUMATO_TESTDATA", "../shared/data"))
MODEL = DATA / "models" / "yolo26n_e2e_640.onnx"
#: A plate counts as covered from this share of its box on.
COVERED = 0.9
#: A line counts as read with this mean confidence and so many letters and digits.
SURE, LETTERS = 0.6, 3

TEXTS = ("text_defocus.jpg", "text_motion.jpg", "imageTextN.png", "licenseplate_motion.jpg")
STREETS = ("coco_000000001532.jpg", "coco_000000001584.jpg", "pexels_double_decker_bus.jpg")


class Reader:
    """PP-OCRv4's recogniser: one line of text in, what it says out."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("rapidocr_onnxruntime")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("needs the extra `text`: pip install 'sfumato[text]'")
        file = Path(next(iter(spec.submodule_search_locations))) / "models/ch_PP-OCRv4_rec_infer.onnx"
        self._net = onnxruntime.InferenceSession(str(file))
        self._letters = ["", *self._net.get_modelmeta().custom_metadata_map["character"].splitlines(), " "]

    def read(self, line: np.ndarray) -> tuple[str, float]:
        width = max(16, round(48 * line.shape[1] / line.shape[0]))
        scaled = cv2.resize(line[:, :, ::-1], (min(width, 2400), 48)).astype(np.float32) / 127.5 - 1
        chances = self._net.run(None, {"x": scaled.transpose(2, 0, 1)[None]})[0][0]
        best = chances.argmax(axis=1)
        new = (best != 0) & (np.diff(best, prepend=-1) != 0)
        text = "".join(self._letters[index] for index in best[new])
        return text, float(chances.max(axis=1)[new].mean()) if new.any() else 0.0

    def lines(self, image: np.ndarray, boxes: Boxes) -> Iterator[str]:
        height, width = image.shape[:2]
        for x1, y1, x2, y2 in boxes.clip(width, height).xyxy.round().astype(int).tolist():
            if x2 - x1 >= 4 and y2 - y1 >= 4:
                text, sure = self.read(np.ascontiguousarray(image[y1:y2, x1:x2]))
                if sure >= SURE and sum(letter.isalnum() for letter in text) >= LETTERS:
                    yield text


def load(name: str) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(DATA / "images" / name))[:, :, ::-1])


def plates(finder: Finder) -> tuple[int, int, float]:
    """Return plates covered, plates in all, and the share of the pictures that was hidden."""
    labels = json.loads((DATA / "labels" / "plates.json").read_text())
    done = total = 0
    areas = []
    for name, boxes in labels.items():
        image = load(name)
        mask = np.zeros(image.shape[:2], bool)
        for x1, y1, x2, y2 in regions_of(finder.find(image), Settings(), *image.shape[1::-1]):
            mask[y1:y2, x1:x2] = True
        areas.append(mask.mean())
        total += len(boxes)
        done += sum(bool(mask[y1:y2, x1:x2].mean() >= COVERED) for x1, y1, x2, y2 in boxes)
    return done, total, float(np.mean(areas))


def codes(count: int) -> dict[str, int]:
    """Return, for each kind of code: how many there are, are covered, and are read before and after."""
    result: dict[str, int] = {}
    backgrounds = [fitted(load(name)) for name in (*STREETS, "bus.jpg", "city.jpg")]
    finder = make_finder(["qr code", "barcode"])
    for label, image, corners in placed(backgrounds, count):
        mask = np.zeros(image.shape[:2], bool)
        for x1, y1, x2, y2 in regions_of(finder.find(image), Settings(), *image.shape[1::-1]):
            mask[y1:y2, x1:x2] = True
        inside = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), corners.round().astype(int), 1) > 0
        was = reads(image, label)
        facts = {
            "drawn": 1,
            "covered": mask[inside].mean() >= COVERED,
            "read_before": was,
            "read_after": reads(redact(image, hide=("qr code", "barcode")).image, label),
            "read_before_and_covered": was and mask[inside].mean() >= COVERED,
        }
        for name, value in facts.items():
            key = f"{label.replace(' ', '_')}s_{name}"
            result[key] = result.get(key, 0) + int(value)
    return result


def fitted(image: np.ndarray) -> np.ndarray:
    """Return a picture with a long side of 1280."""
    scale = 1280 / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def main() -> None:
    options = arguments(__doc__ or "")
    result: dict[str, object] = {}
    lines = []
    gates = {"gated": {"yolo26": MODEL}, "ungated": {}}
    for name, models in gates.items():
        if name == "gated" and not MODEL.exists():
            continue
        done, total, area = plates(make_finder(["plate"], detectors=["plates"], models=models))
        result[f"plates_covered_{name}"] = done
        result["plates"] = total
        result[f"plates_masked_area_{name}"] = round(area, 4)
    reader, finder = Reader(), make_finder(["text"])
    before = after = 0
    for name in TEXTS if options.quick else (*TEXTS, *STREETS):
        image = load(name)
        found = finder.find(image)
        safe = redact(image, hide="text").image
        again = Boxes.concat([found, finder.find(safe)])
        was, now = list(reader.lines(image, found)), list(reader.lines(safe, again))
        before, after = before + len(was), after + len(now)
        lines.append(f"{name}: read before {was}, after {now}")
    result |= codes(20 if options.quick else 120)
    report({**result, "lines_read_before": before, "lines_read_after": after}, lines, options.json)


if __name__ == "__main__":
    main()
