"""Which size of the detectors' input a picture or a frame gets, where one size does not fit all."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder

#: Frames up to these long sides are looked at with an input of that long side.
SMALL = (640, 960)
#: Frames so much longer are shrunk to it: at their own size a look takes a quarter more. On labelled pictures
#: at 1080, all faces from 16 pixels on are found, and 13 of 15 from 12 to 16, both ways; of 14 smaller ones
#: 4 instead of 7.
SLACK = 1.125
#: Frames up to this long side are looked at like pictures, larger ones at this size. Measured
#: (docs/guarantees/models.md): of the faces found in pictures, all at 1920 x 1080, 96 % at 3840 x 2160.
LARGEST = 2880
#: Pictures up to this long side may be enlarged to it by a detector's default.
ENLARGED = 960

#: Given a picture's width and height, returns the long side of the input; None is the detectors' default.
Choose = Callable[[int, int], int | None]


def by_frame(width: int, height: int) -> int | None:
    """Return the size for a frame of a video, or a part of one.

    >>> [by_frame(width, width // 2) for width in (320, 854, 1080, 1920, 3840)]
    [640, 960, 960, None, 2880]
    """
    longest = max(width, height)
    for size in SMALL:
        if longest <= size:
            return size
    if longest <= SLACK * SMALL[-1]:
        return SMALL[-1]
    return None if longest <= LARGEST else LARGEST


def at_least_default(size: int, default: Choose) -> Choose:
    """Return the rule that uses `size` where it shows the detectors no less than the default would."""

    def choose(width: int, height: int) -> int | None:
        usual = default(width, height)
        full = max(width, height, ENLARGED) if usual is None else usual
        return size if size >= full else usual

    return choose


class SizedFinder(Finder):
    """A finder that chooses the size by the picture it is given; for each size there is one finder, kept.

    Args:
        make: builds the finder for a size.
        choose: the rule.
    """

    def __init__(self, make: Callable[[int | None], Finder], choose: Choose) -> None:
        self._make, self._choose = make, choose
        self._building = threading.Lock()
        first = choose(1, 1)
        self._first = make(first)
        self._sizes = {first: self._first}
        self.hide, self.weights = self._first.hide, self._first.weights

    @property
    def seconds(self) -> float:
        """Time spent inside the detectors so far, in seconds, summed over threads and sizes."""
        return sum(finder.seconds for finder in tuple(self._sizes.values()))

    def threshold(self, label: str) -> float:
        """Return the least score that hides a class: see `Finder`."""
        return self._first.threshold(label)

    def default(self, label: str) -> float:
        """Return the detectors' own threshold for a class: see `Finder`."""
        return self._first.default(label)

    def rest(self) -> None:
        """Let go of memory: see `Finder`."""
        for finder in tuple(self._sizes.values()):
            finder.rest()

    def _run(self, image: NDArray[np.uint8], factor: float) -> Boxes:
        return self._at(*image.shape[1::-1]).candidates(image, factor)

    @property
    def glances(self) -> bool:
        """Whether all detectors can look at a size chosen by the caller: see `Finder`."""
        return self._first.glances

    def _glance(self, image: NDArray[np.uint8], factor: float, length: int | None) -> Boxes:
        height, width = image.shape[:2]
        if not self.glances:
            return self._at(width, height).glance(image, factor)
        # One session for all sizes: each would hold the memory of its largest input.
        length = length or self._choose(width, height) or max(width, height)
        return self._first.glance(image, factor, length=length)

    def _at(self, width: int, height: int) -> Finder:
        size = self._choose(width, height)
        with self._building:
            if size not in self._sizes:
                self._sizes[size] = self._make(size)
            return self._sizes[size]
