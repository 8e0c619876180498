"""Levels and tiles: everything is seen whole somewhere, at bounded cost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.vision.boxes import Boxes
from sfumato.vision.detectors.centerface import SIGHT as FACES
from sfumato.vision.detectors.yolo26 import Card, sight
from sfumato.vision.views import Sight, scan, views

PEOPLE = sight(Card(("person",), 32, 640, (640, 640), True, ""))
FREE = sight(Card(("person",), 32, 640, None, True, ""))
widths = st.integers(1, 9000)
kinds = st.sampled_from([FACES, PEOPLE, FREE])


def check_whole(all_views, width, height, sight, scale, thing):
    """A thing (x, y, side) lies whole in a view that keeps it, neither too large nor too small there."""
    x, y, side = thing
    enough = min(side * scale, sight.overlap * sight.step / sight.slack)
    for view in all_views:
        left, top, right, bottom = view.window
        whole = left <= x and top <= y and x + side <= right and y + side <= bottom
        good = enough - 1 <= side * view.scale <= sight.largest + 1
        if whole and side >= view.least and good:
            return
    raise AssertionError(f"a thing of {side} pixels at {x}, {y} in {width}x{height} is seen whole nowhere")


@settings(max_examples=150, deadline=None)
@given(kinds, widths, widths, st.data())
def test_everything_is_seen_whole_somewhere(sight, width, height, data):
    scale = sight.scale(width, height)
    side = data.draw(st.integers(1, max(1, int(min(width, height) * 0.999))))
    x, y = data.draw(st.integers(0, width - side)), data.draw(st.integers(0, height - side))
    check_whole(list(views(width, height, scale, sight)), width, height, sight, scale, (x, y, side))


def test_tiles_without_overlap_are_caught():
    apart = list(views(4000, 3000, 1.0, replace(FACES, overlap=0)))
    with pytest.raises(AssertionError, match="whole nowhere"):
        check_whole(apart, 4000, 3000, FACES, 1.0, (990, 990, 30))


@settings(max_examples=150, deadline=None)
@given(kinds, widths, widths)
def test_the_cost_is_bounded_and_every_pixel_seen(sight, width, height):
    scale = sight.scale(width, height)
    all_views = list(views(width, height, scale, sight))
    seen = np.zeros((height // 16 + 1, width // 16 + 1), bool)
    cost = 0.0
    for view in all_views:
        left, top, right, bottom = view.window
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert max(right - left, bottom - top) * view.scale <= sight.tile + 0.5
        cost += max(32, (right - left) * view.scale) * max(32, (bottom - top) * view.scale)
        if view.scale == scale:
            seen[top // 16 : -(-bottom // 16), left // 16 : -(-right // 16)] = True
    assert seen[: height // 16, : width // 16].all()
    assert cost <= 2.0 * max(sight.budget, (sight.small * sight.slack) ** 2)


def test_a_panorama_costs_no_more_than_its_pixels():
    scale = FACES.scale(20000, 500)
    assert scale == 1.0
    assert sum(1 for _ in views(20000, 500, scale, FACES)) < 40
    assert FACES.scale(100_000, 2000) < 0.3


def test_small_pictures_are_enlarged_modestly():
    assert FACES.scale(640, 480) == 1.5
    assert FACES.scale(100, 80) == 2.0
    assert FACES.scale(4000, 3000, size=800) == 0.2


def test_a_fixed_input_prefers_fewer_tiles():
    scale = PEOPLE.scale(1280, 720)
    assert 0.75 <= scale < 1
    assert PEOPLE.tiles(1280, scale) * PEOPLE.tiles(720, scale) == 2
    assert PEOPLE.tiles(1280, 1.0) * PEOPLE.tiles(720, 1.0) == 6
    assert len(list(views(768, 576, PEOPLE.scale(768, 576), PEOPLE))) == 1


SMALL = Sight(tile=64, overlap=16, largest=48, small=64, budget=1e9)


def look_for_bright(part, scale):
    """Find bright runs; the score is their brightness."""
    columns = np.nonzero(part[..., 0].max(axis=0) > 0)[0]
    if not len(columns):
        return Boxes.empty()
    runs = np.split(columns, np.nonzero(np.diff(columns) > 1)[0] + 1)
    boxes, scores = [], []
    for r in runs:
        rows = np.nonzero(part[:, r[0] : r[-1] + 1, 0].max(axis=1) > 0)[0]
        boxes.append([r[0], rows[0], r[-1] + 1, rows[-1] + 1])
        scores.append(part[rows[0], r[0], 0] / 255)
    return Boxes(boxes, scores, ["thing"] * len(boxes))


def test_tiles_give_each_thing_once():
    image = np.zeros((40, 300, 3), np.uint8)
    for x in (3, 55, 118, 200, 290):
        image[10:20, x : x + 10] = 200
    found = scan(image, 1.0, SMALL, look_for_bright, limit=0.5)
    assert sorted(found.xyxy[:, 0].tolist()) == [3, 55, 118, 200, 290]


@pytest.mark.parametrize(("score", "alone"), [(0.9, True), (0.2, False)])
def test_a_piece_is_dropped_for_its_whole_only_if_that_scores_as_much(score, alone):
    def look(part, scale):
        if part.shape[1] == 180:
            return Boxes([[20, 5, 100, 35]], [score], ["thing"])
        return Boxes([[20, 5, 90, 35]], [0.5], ["thing"]) if part[0, 0, 0] else Boxes.empty()

    image = np.zeros((40, 180, 3), np.uint8)
    image[0, 0] = 255  # marks the first tile, which cuts the thing
    found = scan(image, 1.0, SMALL, look, limit=0.7)
    assert [20, 5, 100, 35] in found.xyxy.tolist()
    assert (len(found) == 1) == alone


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9))
def test_a_higher_floor_only_takes_boxes_away(seed, floor):
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 150, (60, 2))
    boxes = np.concatenate([xy, xy + rng.uniform(1, 50, (60, 2))], axis=1)
    scores = rng.uniform(0.05, 1, 60)

    def look_from(least):
        def look(part, scale):
            chosen = scores >= least
            return Boxes(boxes[chosen], scores[chosen], ["thing"] * int(chosen.sum()))

        return look

    image = np.zeros((200, 200, 3), np.uint8)
    low = scan(image, 1.0, SMALL, look_from(0.05), limit=0.4)
    high = scan(image, 1.0, SMALL, look_from(floor), limit=0.4)
    kept = low.keep(low.scores >= floor)
    np.testing.assert_array_equal(kept.xyxy, high.xyxy)


def test_doubles_of_one_look_are_merged_unless_it_is_said_to_have_none():
    twice = Boxes([[2, 2, 12, 12], [3, 2, 13, 12]], [0.9, 0.8], ["face", "face"])
    image = np.zeros((SMALL.overlap, SMALL.overlap, 3), np.uint8)
    assert len(scan(image, 1.0, SMALL, lambda part, zoom: twice, limit=0.5)) == 1
    assert len(scan(image, 1.0, SMALL, lambda part, zoom: twice, limit=0.5, distinct=True)) == 2
