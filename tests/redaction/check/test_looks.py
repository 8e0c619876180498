"""Ways to look, and what counts as seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest, MissingModel, UnknownName
from sfumato.redaction.check import looks
from sfumato.redaction.check.coverage import open_share
from sfumato.redaction.check.evidence import is_open
from sfumato.redaction.check.looks import EVERY, Eye, Looker, Way, make_looker
from sfumato.redaction.covers import CATALOGUE as COVERS
from sfumato.vision.boxes import Boxes
from sfumato.vision.toy import MAGENTA, ToyDetector


@pytest.mark.parametrize("way", EVERY, ids=lambda way: way.name)
def test_every_way_leads_back(way: Way) -> None:
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[10:30, 40:70] = MAGENTA
    found = way.back(ToyDetector().detect(way.show(picture)), 100, 60)
    assert len(found) == 1
    assert np.abs(found.xyxy[0] - [40, 10, 70, 30]).max() <= 2


def test_a_wrong_way_back_is_noticed() -> None:
    """Negative control: a turn that is undone in the wrong direction lands elsewhere."""
    picture = np.zeros((60, 100, 3), np.uint8)
    picture[10:30, 40:70] = MAGENTA
    shown = ToyDetector().detect(Way("", quarters=1).show(picture))
    assert np.abs(Way("", quarters=3).back(shown, 100, 60).xyxy[0] - [40, 10, 70, 30]).max() > 2


@pytest.fixture(scope="module")
def portrait() -> tuple[np.ndarray, np.ndarray]:
    """Return a picture with one face, and the face's box."""
    data = pytest.importorskip("skimage.data", reason="its portrait is the picture: pip install scikit-image")
    return data.astronaut(), np.array([179.5, 60.9, 269.1, 177.0])


@pytest.mark.parametrize("cover", ["fill", "solid", "blur", "pixelate"])
def test_a_cover_leaves_nothing_open(cover: str, portrait: tuple[np.ndarray, np.ndarray]) -> None:
    picture, box = portrait
    assert is_open(picture, box)
    assert open_share(picture, picture, box) == 1
    covered = picture.copy()
    COVERS.build(cover).apply(covered, np.array([[144, 0, 305, 223]], np.int32))
    assert not is_open(covered, box)
    assert open_share(picture, covered, box) <= 0.1


@pytest.mark.parametrize("light", [1.0, 0.5, 0.2])
def test_a_face_in_the_dark_is_as_open(light: float, portrait: tuple[np.ndarray, np.ndarray]) -> None:
    picture, box = portrait
    dark = (picture * light).astype(np.uint8)
    assert is_open(dark, box)
    COVERS.build("fill").apply(dark, np.array([[144, 0, 305, 223]], np.int32))
    assert not is_open(dark, box)


def test_half_a_face_is_half_open(portrait: tuple[np.ndarray, np.ndarray]) -> None:
    picture, box = portrait
    half = picture.copy()
    half[60:177, 179:224] = 128
    assert 0.3 < open_share(picture, half, box) < 0.7


def test_names() -> None:
    with pytest.raises(UnknownName, match="did you mean 'face'"):
        make_looker(["fase"])
    with pytest.raises(UnknownName, match="detector"):
        make_looker(["face"], models={"yunett": Path("x")})
    with pytest.raises(MissingModel, match="nothing on this machine can look for 'car'"):
        make_looker(["car"])
    with pytest.raises(InvalidRequest, match="nothing to look for"):
        Looker([])


def test_other_detectors_than_those_that_hid_look_first(testdata: Callable[[str], Path]) -> None:
    given = testdata("models/face_detection_yunet_2023mar.onnx")
    looker, notes = make_looker(["faces"], models={"yunet": given}, hid=["centerface"])
    assert looker.detectors[0] == "yunet"
    assert "centerface" in looker.detectors
    assert not notes


class Once(ToyDetector):
    """Finds its patch in the upright picture only, and is hardly sure."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score, self.calls = score, 0

    def detect(self, image: np.ndarray, *, floor: float = 0.0) -> Boxes:
        self.calls += 1
        found = super().detect(image)
        return Boxes(found.xyxy, np.full(len(found), self.score, np.float32), found.labels).keep(
            [self.calls == 1] * len(found)
        )


@pytest.mark.parametrize(("score", "count"), [(0.55, 0), (0.95, 1)])
def test_one_unsure_look_alone_does_not_count(score: float, count: int) -> None:
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 80, (80, 80, 3), dtype=np.uint8)
    patch = rng.integers(0, 60, (40, 40, 3))
    picture[20:60, 20:60] = np.abs(np.array(MAGENTA) - patch)  # a texture that is magenta still
    looker = Looker([Eye(Once(score), frozenset({"face"}))])
    assert len(looker.closely(picture)) == count


@pytest.mark.parametrize(("second", "seen"), [(0.8, 1), (0.4, 0)])
def test_any_sure_hit_shows_that_a_thing_is_open(
    second: float, seen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes of one face differ by some pixels, and the best may miss its features; weak ones show nothing."""

    class Two:
        name, thresholds = "two", {"face": 0.5}

        def detect(self, image: np.ndarray, *, floor: float) -> Boxes:
            found = Boxes([[10, 10, 40, 40], [12, 12, 44, 44]], [0.9, second], ["face", "face"])
            return found.where(lambda label, score: score >= floor)

    monkeypatch.setattr(looks, "is_open", lambda picture, box: box[0] > 11)
    monkeypatch.setattr(looks, "_any_open", lambda picture, hits: True)
    looker = Looker([Eye(Two(), frozenset({"face"}))])
    monkeypatch.setattr(
        Eye, "look", lambda self, picture, way, share: self.detector.detect(picture, floor=0.3)
    )
    assert len(looker.quickly(np.zeros((60, 60, 3), np.uint8))) == seen
