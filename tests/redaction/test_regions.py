from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sfumato.redaction.regions import regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes

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


def test_faces_get_the_whole_head_and_others_a_tenth() -> None:
    boxes = Boxes([[100, 100, 150, 200], [100, 100, 150, 200]], [0.9, 0.9], ["face", "person"])
    assert regions_of(boxes, Settings(), 1000, 1000).tolist() == [[85, 55, 165, 230], [95, 90, 155, 210]]


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
