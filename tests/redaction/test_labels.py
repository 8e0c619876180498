"""The labels of the test clips, and the count of what a cover left open."""

from __future__ import annotations

import doctest
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest

from sfumato.vision.boxes import iou
from sfumato.vision.detectors import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
FACES, PERSONS = "video_faces.json", "video_persons.json"


@pytest.fixture(scope="module")
def counting() -> Iterator[ModuleType]:
    """Return benchmarks/_labels.py."""
    spec = importlib.util.spec_from_file_location("_labels", ROOT / "benchmarks" / "_labels.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["_labels"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["_labels"]


def faults(clips: dict[str, Any], kind: str) -> list[str]:
    """Return what is wrong with a file of labels."""
    found = []
    for name, clip in clips.items():
        if set(clip) != {"size", "frames"}:
            found.append(f"{name}: keys {sorted(clip)}")
        width, height = clip["size"]
        order = [int(index) for index in clip["frames"]]
        if order != sorted(set(order)) or min(order) < 0:
            found.append(f"{name}: order of the frames")
        for index, frame in clip["frames"].items():
            if set(frame) != {kind, "ignore"}:
                found.append(f"{name} {index}: keys {sorted(frame)}")
            for x1, y1, x2, y2 in [*frame.get(kind, []), *frame["ignore"]]:
                if not all(isinstance(value, int) for value in (x1, y1, x2, y2)):
                    found.append(f"{name} {index}: not whole pixels")
                if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                    found.append(f"{name} {index}: outside the frame or empty")
                if min(x2 - x1, y2 - y1) < 8:
                    found.append(f"{name} {index}: a speck")
            if len({tuple(box) for box in frame.get(kind, [])}) != len(frame.get(kind, [])):
                found.append(f"{name} {index}: one box twice")
    return found


@pytest.mark.parametrize(("name", "kind"), [(FACES, "faces"), (PERSONS, "persons")])
def test_the_labels_are_sane(video_labels, name, kind):
    assert faults(video_labels(name), kind) == []


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([160, 20, 180, 60], "outside"),
        ([-1, 20, 30, 60], "outside"),
        ([60, 20, 50, 60], "outside"),
        ([10.5, 20, 50, 60], "whole"),
        ([10, 20, 12, 60], "speck"),
    ],
)
def test_a_bad_box_is_seen(video_labels, box, fault):
    clips = video_labels(FACES)
    clips["carphone.mp4"]["frames"]["17"]["faces"].append(box)
    assert any(fault in one for one in faults(clips, "faces"))


def test_there_are_enough(video_labels):
    faces = [frame["faces"] for clip in video_labels(FACES).values() for frame in clip["frames"].values()]
    assert sum(bool(boxes) for boxes in faces) >= 100
    persons = video_labels(PERSONS)["vtest.avi"]["frames"]
    assert len(persons) == 24
    assert max(map(int, persons)) - min(map(int, persons)) > 700
    assert all(frame["persons"] for frame in persons.values())


@pytest.mark.parametrize("file", [FACES, PERSONS])
def test_the_labels_fit_the_clips(video_labels, testdata, file):
    for name, clip in video_labels(file).items():
        with av.open(str(testdata(f"video/{name}"))) as container:
            track = container.streams.video[0]
            assert clip["size"] == [track.width, track.height]
            assert max(map(int, clip["frames"])) < track.frames


@pytest.mark.parametrize(
    ("name", "index"), [("carphone.mp4", 84), ("bikes.mp4", 40), ("bikes.mp4", 79), ("bikes.mp4", 110)]
)
def test_a_labelled_face_is_a_face(video_labels, testdata, look, name, index):
    """Frame numbers that were off by a shot would show here."""
    picture = look(testdata(f"video/{name}"))[index]
    enlarged = np.ascontiguousarray(picture.repeat(2, axis=0).repeat(2, axis=1))
    found = CATALOGUE.build("centerface", threads=1).detect(enlarged).xyxy / 2
    box = np.array(video_labels(FACES)[name]["frames"][str(index)]["faces"], float)
    assert iou(box, found).max() > 0.5


def test_the_benchmarks_read_the_same(counting, video_labels):
    clips = counting.labels()
    assert set(clips) == set(video_labels(FACES))
    assert clips["carphone.mp4"].boxes[0] == [
        tuple(video_labels(FACES)["carphone.mp4"]["frames"]["0"]["faces"][0])
    ]
    assert clips["carphone.mp4"].size == (176, 144)
    assert clips["bikes.mp4"].ignore[45]
    assert not clips["bikes.mp4"].boxes[45]
    assert sum(map(len, counting.labels("persons")["vtest.avi"].boxes.values())) == 139


def test_the_example_holds(counting):
    assert doctest.testmod(counting).attempted


def mask_of(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (100, 80)) -> np.ndarray:
    mask = np.zeros(size[::-1], bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize(("columns", "open_"), [(20, 0), (18, 0), (17, 1), (0, 1)])
def test_nine_tenths_are_enough(counting, columns, open_):
    assert counting.exposed({3: [(10, 10, 30, 40)]}, {3: mask_of((10, 10, 10 + columns, 40))}) == (open_, 1)


def test_every_box_of_every_frame_counts(counting):
    boxes = {0: [(0, 0, 10, 10), (50, 50, 60, 60)], 1: [], 2: [(20, 20, 40, 40)]}
    masks = {0: mask_of((0, 0, 10, 10)), 2: mask_of((0, 0, 100, 80)), 9: mask_of()}
    assert counting.exposed(boxes, masks) == (1, 3)
    assert counting.exposed({}, masks) == (0, 0)


def test_covers_join(counting):
    joined = mask_of((10, 10, 20, 30), (20, 10, 30, 30))
    assert counting.exposed({0: [(10, 10, 30, 30)]}, {0: joined}) == (0, 1)
    assert counting.exposed({0: [(10, 10, 30, 30)]}, {0: mask_of((10, 10, 20, 30))}) == (1, 1)


def test_a_scaled_copy_counts_the_same(counting):
    boxes = {0: [(7, 9, 31, 43)]}
    for size in ((100, 80), (200, 160), (37, 80), (50, 40)):
        whole = mask_of((0, 0, size[0], size[1]), size=size)
        assert counting.exposed(boxes, {0: whole}, size=(100, 80)) == (0, 1)
        assert counting.exposed(boxes, {0: whole & False}, size=(100, 80)) == (1, 1)
    half = np.zeros((40, 50), bool)
    half[:, :10] = True
    assert counting.covered_share((15 / 2, 0, 25 / 2, 40), half) == pytest.approx(0.5)
    assert counting.covered_share((9.5, 0, 10.5, 40), half) == pytest.approx(0.5)


def test_a_box_over_the_edge_counts_inside(counting):
    assert counting.covered_share((90, 0, 110, 80), mask_of((90, 0, 100, 80))) == 1.0


def test_a_missing_mask_and_a_lost_box_are_errors(counting):
    with pytest.raises(ValueError, match="no mask for 1 frames that have boxes, the first is 4"):
        counting.exposed({4: [(0, 0, 5, 5)], 5: []}, {})
    with pytest.raises(ValueError, match="has no pixel in a picture of 100x80"):
        counting.exposed({0: [(100, 0, 120, 20)]}, {0: mask_of()})


def test_every_face_hidden_and_one_forgotten(counting):
    """The whole file: nothing is open under perfect covers; one frame without them shows."""
    clip = counting.labels()["carphone.mp4"]
    masks = {index: mask_of(*boxes, size=clip.size) for index, boxes in clip.boxes.items()}
    assert counting.exposed(clip.boxes, masks, size=clip.size) == (0, 120)
    masks[60] = mask_of(size=clip.size)
    assert counting.exposed(clip.boxes, masks, size=clip.size) == (1, 120)
