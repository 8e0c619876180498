from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.redaction.videos.second_look import MOST, TRIES, Part, SecondLook, part_around
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector

SIZE = (600, 800)  # height, width


class NearSighted(ToyDetector):
    """Sees nothing in whole pictures while it is tired."""

    def __init__(self) -> None:
        super().__init__()
        self.tired = False
        self.shapes: list[tuple[int, int]] = []

    def detect(self, image: NDArray[np.uint8], *, floor: float = 0.0) -> Boxes:
        self.shapes.append((image.shape[0], image.shape[1]))
        if self.tired and image.shape[:2] == SIZE:
            return Boxes.empty()
        return super().detect(image, floor=floor)


@pytest.fixture
def detector() -> NearSighted:
    return NearSighted()


@pytest.fixture
def eye(detector: NearSighted) -> SecondLook:
    return SecondLook(Finder([detector]), weak=0.5, step=5, patience=50)


def scene(*squares: tuple[int, int], side: int = 20, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    image = np.full((*size, 3), 90, np.uint8)
    for x, y in squares:
        image[y : y + side, x : x + side] = MAGENTA
    return image


def test_what_is_missed_in_the_whole_is_found_closer_where_it_would_be(
    eye: SecondLook, detector: NearSighted
) -> None:
    for frame, x in ((0, 300), (5, 310), (10, 320)):
        eye.candidates(frame, scene((x, 200)))
    detector.tired = True
    found = eye.candidates(15, scene((330, 200)))
    assert found.xyxy.tolist() == [[330, 200, 350, 220]]
    assert detector.shapes[-1] == (256, 256)
    assert eye.candidates(20, scene((340, 200))).xyxy.tolist() == [[340, 200, 360, 220]]


def test_nothing_lost_nothing_looked_at_twice(eye: SecondLook, detector: NearSighted) -> None:
    for frame in range(0, 50, 5):
        eye.candidates(frame, scene((300 + frame, 200), (100, 400)))
    assert len(detector.shapes) == 10


def test_what_the_whole_shows_is_always_among_the_result(eye: SecondLook, detector: NearSighted) -> None:
    eye.candidates(0, scene((300, 200), (420, 220)))
    found = eye.candidates(5, scene((300, 200)))
    assert found.xyxy.tolist() == [[300, 200, 320, 220]]  # and the closer look did not add it again
    assert len(detector.shapes) == 3


def test_what_does_not_come_back_is_given_up(eye: SecondLook, detector: NearSighted) -> None:
    eye.candidates(0, scene((300, 200)))
    for frame in range(5, 50, 5):
        assert len(eye.candidates(frame, scene())) == 0
    assert len(detector.shapes) == 10 + TRIES


def test_looks_at_one_frame_are_limited(eye: SecondLook, detector: NearSighted) -> None:
    many = [(x, y) for x in (60, 320, 600, 760) for y in (30, 300, 550)]
    eye.candidates(0, scene(*many))
    detector.tired = True
    eye.candidates(5, scene(*many))
    assert len(detector.shapes) == 2 + MOST


def test_a_small_picture_is_not_looked_at_closer() -> None:
    detector = NearSighted()
    eye = SecondLook(Finder([detector]), weak=0.5, step=5, patience=50)
    eye.candidates(0, scene((100, 100), size=(240, 320)))
    eye.candidates(5, scene(size=(240, 320)))
    assert len(detector.shapes) == 2


def test_what_left_the_picture_is_not_looked_for(eye: SecondLook, detector: NearSighted) -> None:
    for frame, x in ((0, 720), (5, 745), (10, 770)):
        eye.candidates(frame, scene((x, 200)))
    eye.candidates(15, scene())
    assert len(detector.shapes) == 4


def test_after_a_cut_nothing_is_missed(eye: SecondLook, detector: NearSighted) -> None:
    eye.candidates(0, scene((300, 200)))
    eye.forget()
    eye.candidates(5, scene())
    assert len(detector.shapes) == 2


def test_what_the_border_of_the_part_cuts_is_left_out(eye: SecondLook, detector: NearSighted) -> None:
    eye.candidates(0, scene((300, 200)))
    detector.tired = True
    # The part reaches from 182 to 438: the second square is cut by it.
    found = eye.candidates(5, scene((300, 200), (430, 200)))
    assert found.xyxy.tolist() == [[300, 200, 320, 220]]


@pytest.mark.parametrize(
    ("box", "part"),
    [
        ([300, 200, 320, 220], Part(182, 82, 256)),
        ([0, 0, 10, 10], Part(0, 0, 256)),
        ([790, 590, 799, 599], Part(544, 344, 256)),
        ([300, 200, 330, 270], Part(140, 60, 350)),
        ([300, 200, 330, 300], None),  # so large that a part would show nothing new
        ([810, 200, 820, 220], None),  # outside
    ],
)
def test_parts_lie_inside_the_picture(box: list[float], part: Part | None) -> None:
    assert part_around(np.array(box, np.float32), SIZE[1], SIZE[0]) == part
