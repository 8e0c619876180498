from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfumato.redaction.covers import CATALOGUE
from sfumato.redaction.job import Job
from sfumato.redaction.settings import Settings
from sfumato.redaction.videos import looker as looking
from sfumato.redaction.videos import second_look
from sfumato.redaction.videos.redact import scan_video
from sfumato.redaction.videos.scan import Scan
from sfumato.redaction.videos.second_look import glance_length
from sfumato.redaction.videos.writer import target_of
from sfumato.vision.boxes import Boxes
from sfumato.vision.finder import Finder
from sfumato.vision.toy import MAGENTA, ToyDetector

WIDTH, HEIGHT = 640, 384
Squares = Callable[[int], list[tuple[int, int, int]]]
Scene = Callable[..., Scan]


class Glancer(ToyDetector):
    """Sees in a smaller copy only what is at least 14 pixels wide there, and keeps account."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int | None] = []

    def glance(self, image: NDArray[np.uint8], *, floor: float, length: int | None) -> Boxes:
        self.lengths.append(None if length is None else round(length / max(image.shape[:2]) * WIDTH))
        found = self.detect(image, floor=floor)
        scale = 1.0 if length is None else length / max(image.shape[:2])
        return found.keep((found.xyxy[:, 2] - found.xyxy[:, 0]) * scale >= 14)

    @property
    def full(self) -> int:
        return self.lengths.count(None)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Return a function that scans a clip of magenta squares."""

    def run(squares: Squares, detector: ToyDetector, *, frames: int = 60, every: int = 5) -> Scan:
        path = tmp_path / "in.mp4"
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(
                "libx264", rate=25, options={"crf": "10", "preset": "ultrafast"}
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
            for index in range(frames):
                image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
                for x, y, side in squares(index):
                    image[y : y + side, max(x, 0) : max(x + side, 0)] = MAGENTA
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        finder = Finder([detector])
        return scan_video(path, Job(Settings(every=every), finder, CATALOGUE.build("fill")), target_of(path))

    return run


def test_between_full_looks_a_smaller_copy_does(scene: Scene) -> None:
    detector = Glancer()
    scan = scene(lambda n: [(200 + n, 100, 80)], detector)
    assert sorted(scan.sights) == [*range(0, 60, 5), 59]
    assert detector.full == 4  # the first frame, one each second, the last
    assert all(len(boxes) == 1 for boxes in scan.sights.values())


def test_every_frame_is_looked_at_in_full_where_that_is_asked(scene: Scene) -> None:
    detector = Glancer()
    scan = scene(lambda n: [(200 + n, 100, 80)], detector, frames=12, every=1)
    assert detector.lengths == [None] * 12
    assert sorted(scan.sights) == list(range(12))


def test_without_glances_all_looks_are_full(scene: Scene) -> None:
    scan = scene(lambda n: [(200 + n, 100, 80)], ToyDetector())
    assert sorted(scan.sights) == [*range(0, 60, 5), 59]


def test_what_only_a_full_look_shows_is_traced_back(scene: Scene) -> None:
    # 20 pixels wide, it is 10 in a glance at 320; it comes just after the first full look.
    detector = Glancer()
    scan = scene(lambda n: [(200, 100, 80)] + ([(500, 60, 20)] if n >= 7 else []), detector)
    with_it = [frame for frame, boxes in sorted(scan.sights.items()) if len(boxes) == 2]
    assert with_it[0] == 7
    assert set(range(10, 26, 5)) <= set(with_it)


def test_what_a_glance_shows_late_is_traced_back_too(scene: Scene) -> None:
    # It grows: 22 pixels wide at frame 5, it is 11 in a glance at 320, and 14 only at frame 13.
    def squares(n: int) -> list[tuple[int, int, int]]:
        return [(200, 100, 80)] + ([(500, 60, 18 + 4 * n // 5)] if n >= 5 else [])

    scan = scene(squares, Glancer(), frames=24)
    with_it = [frame for frame, boxes in sorted(scan.sights.items()) if len(boxes) == 2]
    assert with_it[0] == 5


def test_and_a_twin_that_trusts_glances_sees_it_late(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_look.SecondLook, "was_faint", lambda self, things, *size: Boxes.empty())
    monkeypatch.setattr(looking.Looker, "_halve", lambda *_: None)

    def squares(n: int) -> list[tuple[int, int, int]]:
        return [(200, 100, 80)] + ([(500, 60, 18 + 4 * n // 5)] if n >= 5 else [])

    scan = scene(squares, Glancer(), frames=24)
    assert min(frame for frame, boxes in scan.sights.items() if len(boxes) == 2) > 5


def test_and_a_twin_that_never_looks_back_sees_it_late(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking.Looker, "_walk_back", lambda *_: None)
    monkeypatch.setattr(looking.Looker, "_halve", lambda *_: None)
    scan = scene(lambda n: [(200, 100, 80)] + ([(500, 60, 20)] if n >= 7 else []), Glancer())
    assert min(frame for frame, boxes in scan.sights.items() if len(boxes) == 2) == 25


def test_what_comes_between_looks_is_sought_to_the_frame(scene: Scene) -> None:
    scan = scene(lambda n: [(300, 100, 60)] if 13 <= n < 37 else [], Glancer())
    seen = [frame for frame, boxes in sorted(scan.sights.items()) if len(boxes)]
    assert (seen[0], seen[-1]) == (13, 36)
    assert {12, 37} <= set(scan.sights)


def test_small_things_are_looked_for_in_parts_of_their_own(scene: Scene) -> None:
    detector = Glancer()
    scan = scene(lambda n: [(200 + n, 100, 80), (500, 60, 14)], detector)
    assert detector.full <= 4
    assert all(len(boxes) == 2 for boxes in scan.sights.values())


def test_frames_that_are_kept_fit_the_room(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    real = looking.Looker.see

    def spy(self: looking.Looker, shot: Any) -> None:
        nonlocal most
        real(self, shot)
        most = max(most, sum(looking._bytes(one) for one in self._kept))

    monkeypatch.setattr(looking.Looker, "see", spy)
    one = 3 * WIDTH * HEIGHT
    monkeypatch.setattr(looking, "ROOM", 12 * one)
    scan = scene(lambda n: [(200 + n, 100, 80)], Glancer())
    assert 5 * one < most <= 1.2 * 12 * one  # rows are padded
    assert all(len(boxes) == 1 for boxes in scan.sights.values())


def test_the_same_clip_gives_the_same_sights(scene: Scene) -> None:
    one, two = (scene(lambda n: [(20 + 9 * n, 100, 60)], Glancer(), frames=30) for _ in range(2))
    assert {k: v.xyxy.tolist() for k, v in one.sights.items()} == {
        k: v.xyxy.tolist() for k, v in two.sights.items()
    }


@pytest.mark.parametrize(
    ("sides", "size", "length"),
    [([], (640, 360), 320), ([16.0], (1080, 608), None), ([24.0], (1080, 608), 768), ([], (320, 180), 320)],
)
def test_a_glance_is_as_small_as_what_was_seen_allows(
    sides: list[float], size: tuple[int, int], length: int | None
) -> None:
    assert glance_length(sides, *size) == length
