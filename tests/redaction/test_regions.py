from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfumato.redaction.regions import regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import make_finder

coordinate = st.floats(-50, 150, width=32)


@given(x=coordinate, y=coordinate, w=st.floats(0, 120, width=32), h=st.floats(0, 120, width=32))
def test_every_pixel_a_box_touches_is_in_its_region(x: float, y: float, w: float, h: float) -> None:
    boxes = Boxes([[x, y, x + w, y + h]], [0.5], ["face"])
    regions = regions_of(boxes, Settings(margins={"*": 0.0}), 100, 80)
    assert regions.dtype == np.int32
    x1, y1, x2, y2 = boxes.xyxy[0]
    touched = [
        (column, row)
        for column in range(100)
        for row in range(80)
        if column < x2 and column + 1 > x1 and row < y2 and row + 1 > y1
    ]
    for left, top, right, bottom in regions:
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
    if touched:
        columns, rows = zip(*touched, strict=True)
        left, top, right, bottom = regions[0]
        assert left <= min(columns) <= max(columns) < right
        assert top <= min(rows) <= max(rows) < bottom


def test_faces_get_more_most_of_it_above_and_others_a_tenth() -> None:
    boxes = Boxes([[100, 100, 150, 200], [100, 100, 150, 200]], [0.9, 0.9], ["face", "person"])
    assert regions_of(boxes, Settings(), 1000, 1000).tolist() == [[80, 40, 170, 240], [95, 90, 155, 210]]


def test_margins_can_be_set_by_class() -> None:
    boxes = Boxes([[100, 100, 150, 200]], [0.9], ["car"])
    settings = Settings(margins={"car": 1.0, "*": 0.0})
    assert regions_of(boxes, settings, 1000, 1000).tolist() == [[50, 0, 200, 300]]


def test_boxes_at_and_past_the_border() -> None:
    xyxy = [[-40, -40, 10, 10], [95, 75, 1e9, 1e9], [200, 10, 220, 20], [50, 50, 50, 50], [-9, 5, -3, 9]]
    boxes = Boxes(xyxy, [0.9] * 5, ["x"] * 5)
    settings = Settings(margins={"*": 0.0})
    assert regions_of(boxes, settings, 100, 80).tolist() == [
        [0, 0, 10, 10],
        [95, 75, 100, 80],
        [50, 50, 51, 51],
    ]


def test_no_boxes_give_no_regions() -> None:
    regions = regions_of(Boxes.empty(), Settings(), 100, 80)
    assert regions.shape == (0, 4)
    assert regions.dtype == np.int32


def _heads_inside(testdata: Callable[[str], Path], settings: Settings) -> tuple[int, int]:
    """Return how many labelled faces there are, and how many lie in a region with 35 % more above them."""
    labels = json.loads(testdata("labels/faces.json").read_text())
    finder = make_finder(["face"])
    total = inside = 0
    for name, entry in labels.items():
        picture = np.array(Image.open(testdata(f"images/{name}")).convert("RGB"))
        height, width = picture.shape[:2]
        hidden = np.zeros((height, width), bool)
        for left, top, right, bottom in regions_of(finder.find(picture), settings, width, height):
            hidden[top:bottom, left:right] = True
        for x1, y1, x2, y2 in entry["faces"]:
            above = max(0, round(y1 - 0.35 * (y2 - y1)))
            head = hidden[above : int(np.ceil(y2)), max(0, int(x1)) : int(np.ceil(x2))]
            total, inside = total + 1, inside + bool(head.mean() >= 0.999)
    return total, inside


@pytest.mark.slow
def test_the_forehead_and_the_hair_above_it_are_inside(testdata: Callable[[str], Path]) -> None:
    total, inside = _heads_inside(testdata, Settings())
    assert inside >= 0.98 * total
    total, inside = _heads_inside(testdata, Settings(margins={"face": 0.2}))
    assert inside < 0.9 * total
