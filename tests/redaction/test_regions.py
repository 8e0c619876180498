from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as relaxed
from hypothesis import strategies as st
from PIL import Image

from sfumato.redaction.regions import outlines_of, regions_of
from sfumato.redaction.settings import Settings
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import make_finder

coordinate = st.floats(-50, 150, width=32)


@relaxed(deadline=None)
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


def _drawn(rectangles: np.ndarray, width: int = 100, height: int = 80) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in rectangles:
        mask[top:bottom, left:right] = True
    return mask


@relaxed(deadline=None)
@given(
    x=coordinate,
    y=coordinate,
    w=st.floats(0, 120, width=32),
    h=st.floats(0, 120, width=32),
    margin=st.sampled_from([0.0, 0.05, 0.31, 1.0]),
)
def test_an_outline_lies_in_the_region_and_holds_every_pixel_of_the_box(
    x: float, y: float, w: float, h: float, margin: float
) -> None:
    boxes = Boxes([[x, y, x + w, y + h]], [0.5], ["face"])
    settings = Settings(margins={"face": margin, "*": 0.0})
    outline = _drawn(outlines_of(boxes, settings, 100, 80))
    assert not (outline & ~_drawn(regions_of(boxes, settings, 100, 80))).any()
    bare = Boxes(boxes.xyxy, boxes.scores, ["x"])  # without a margin, in one piece
    assert not (_drawn(regions_of(bare, settings, 100, 80)) & ~outline).any()


def test_the_bands_of_an_outline_follow_each_other_and_leave_the_corners() -> None:
    boxes = Boxes([[40, 40, 60, 66]], [0.9], ["face"])
    bands = outlines_of(boxes, Settings(), 100, 100)
    assert (bands[1:, 1] == bands[:-1, 3]).all()
    region = regions_of(boxes, Settings(), 100, 100)[0]
    assert [*bands[:, :2].min(axis=0), *bands[:, 2:].max(axis=0)] == region.tolist()
    outline = _drawn(bands, 100, 100)
    assert outline.sum() < 0.9 * _drawn(region[None], 100, 100).sum()
    assert not outline[region[1], region[0]]


def test_all_but_faces_have_their_region_in_one_piece() -> None:
    boxes = Boxes([[40, 40, 60, 66], [0, 0, 9, 9]], [0.9, 0.9], ["person", "plate"])
    assert np.array_equal(outlines_of(boxes, Settings(), 100, 80), regions_of(boxes, Settings(), 100, 80))


def test_an_ellipse_alone_would_cut_a_box_without_margin() -> None:
    boxes = Boxes([[20, 20, 60, 60]], [0.9], ["face"])
    rows, columns = np.mgrid[0:80, 0:100]
    ellipse = ((columns + 0.5 - 40) / 20) ** 2 + ((rows + 0.5 - 40) / 20) ** 2 <= 1
    box = _drawn(np.array([[20, 20, 60, 60]]))
    assert (box & ~ellipse).any()
    assert not (box & ~_drawn(outlines_of(boxes, Settings(margins={"face": 0.0}), 100, 80))).any()


def test_faces_get_more_most_of_it_above_and_others_a_tenth() -> None:
    boxes = Boxes([[100, 100, 150, 200], [100, 100, 150, 200]], [0.9, 0.9], ["face", "person"])
    assert regions_of(boxes, Settings(), 1000, 1000).tolist() == [[85, 44, 165, 215], [95, 90, 155, 210]]


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
    """Return how many labelled faces there are, and of how many the ellipse of the head is in the outline."""
    labels = json.loads(testdata("labels/faces.json").read_text())
    finder = make_finder(["face"])
    total = inside = 0
    for name, entry in labels.items():
        picture = np.array(Image.open(testdata(f"images/{name}")).convert("RGB"))
        height, width = picture.shape[:2]
        hidden = np.zeros((height, width), bool)
        for left, top, right, bottom in outlines_of(finder.find(picture), settings, width, height):
            hidden[top:bottom, left:right] = True
        for x1, y1, x2, y2 in entry["faces"]:
            rows, columns = np.mgrid[0:height, 0:width] + 0.5
            half = 1.35 * (y2 - y1) / 2
            middle = y2 - half
            across = ((columns - (x1 + x2) / 2) / ((x2 - x1) / 2)) ** 2
            head = across + ((rows - middle) / half) ** 2 <= 1
            total, inside = total + 1, inside + bool(hidden[head].mean() >= 0.999)
    return total, inside


@pytest.mark.slow
def test_the_forehead_and_the_hair_above_it_are_inside(testdata: Callable[[str], Path]) -> None:
    total, inside = _heads_inside(testdata, Settings())
    assert inside >= 0.98 * total
    total, inside = _heads_inside(testdata, Settings(margins={"face": 0.15}))
    assert inside < 0.9 * total
