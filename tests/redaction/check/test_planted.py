"""One face left open, in one picture or one frame: the check finds 95 % of them at least."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sfumato.redaction.check.looks import Looker, make_looker
from sfumato.redaction.covers import CATALOGUE as COVERS
from sfumato.redaction.regions import regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes

FOLDER = Path(__file__).resolve().parents[1] / "labels"


def planted(picture: np.ndarray, boxes: list[Any], which: int) -> np.ndarray:
    """Return the picture with every face filled but one."""
    height, width = picture.shape[:2]
    regions = regions_of(Boxes(boxes, [1.0] * len(boxes), ["face"] * len(boxes)), Settings(), width, height)
    result = picture.copy()
    COVERS.build("fill").apply(result, regions)
    x1, y1, x2, y2 = regions_of(Boxes([boxes[which]], [1.0], ["face"]), Settings(), width, height)[0]
    result[y1:y2, x1:x2] = picture[y1:y2, x1:x2]
    return result


def found(looker: Looker, picture: np.ndarray, box: Any, *, closely: bool) -> bool:
    seen = looker.closely(picture) if closely else looker.quickly(picture)
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(one.box[0] < middle[0] < one.box[2] and one.box[1] < middle[1] < one.box[3] for one in seen)


def frames(testdata: Callable[[str], Path], name: str, every: int) -> Iterator[tuple[np.ndarray, list[Any]]]:
    clips = json.loads((FOLDER / "video_faces.json").read_text())
    with av.open(str(testdata(f"video/{name}"))) as container:
        for index, frame in enumerate(container.decode(video=0)):
            known = clips[name]["frames"].get(str(index), {}).get("faces")
            if known and index % every == 0:
                yield frame.to_ndarray(format="rgb24"), known


def all_plantings(testdata: Callable[[str], Path]) -> Iterator[tuple[np.ndarray, Any, bool]]:
    for name, known in json.loads(testdata("labels/faces.json").read_text()).items():
        boxes = known["faces"]
        picture = np.array(Image.open(testdata(f"images/{name}")).convert("RGB")) if boxes else None
        for which in range(0, len(boxes), -(-len(boxes) // 2) or 1):
            assert picture is not None
            yield planted(picture, boxes, which), boxes[which], True
    for name, every in (("carphone.mp4", 4), ("bikes.mp4", 2)):
        for picture, boxes in frames(testdata, name, every):
            yield planted(picture, boxes, 0), boxes[0], False


def test_a_face_in_the_shade_is_found_in_one_frame(testdata: Callable[[str], Path]) -> None:
    looker, _ = make_looker(["face"], threads=1)
    some = list(frames(testdata, "bikes.mp4", 12))
    assert len(some) >= 4
    for picture, boxes in some:
        assert found(looker, planted(picture, boxes, 0), boxes[0], closely=False)


@pytest.mark.slow
def test_planted_misses_are_found(testdata: Callable[[str], Path]) -> None:
    given = testdata("models/face_detection_yunet_2023mar.onnx")
    looker, _ = make_looker(["face"], models={"yunet": given}, threads=2)
    hits = [found(looker, picture, box, closely=close) for picture, box, close in all_plantings(testdata)]
    assert len(hits) >= 60
    assert np.mean(hits) >= 0.95
