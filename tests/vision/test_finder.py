"""Which detector looks for what, thresholds, and refusals before any work."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.core.errors import InvalidRequest, MissingExtra, MissingModel, UnknownName
from sfumato.core.plugins import Plugin
from sfumato.vision import choice
from sfumato.vision.boxes import Boxes
from sfumato.vision.detectors import CATALOGUE, Detector, Weights
from sfumato.vision.finder import Finder, make_finder
from sfumato.vision.toy import MAGENTA, ToyDetector


def picture(*boxes, size=(60, 80), fill=1.0):
    """Magenta rectangles; `fill` below 1 leaves a hole in the middle of each."""
    image = np.zeros((*size, 3), np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = MAGENTA
        hole = (1 - fill) ** 0.5
        w, h = round((x2 - x1) * hole / 2), round((y2 - y1) * hole / 2)
        cx, cy = (x1 + x2) // 2, (y1 + y2) // 2
        image[cy - h : cy + h, cx - w : cx + w] = 0
    return image


class Fixed:
    """Finds the same boxes everywhere and counts how often it runs."""

    def __init__(self, name, found, thresholds=None):
        self.name, self.runs, self.floors = name, 0, []
        self.found = found  # (label, score)
        self.weights = Weights(name, name * 8, "MIT")
        self.finds = tuple(dict.fromkeys(label for label, _ in found))
        self.thresholds = thresholds or {"*": 0.5}

    def detect(self, image, *, floor=0.0):
        self.runs += 1
        self.floors.append(floor)
        kept = [(label, score) for label, score in self.found if score >= floor]
        return Boxes([[0, 0, 9, 9]] * len(kept), [s for _, s in kept], [label for label, _ in kept])


class Shelf:
    """A catalogue of fake detector modules."""

    def __init__(self, **modules):
        self.modules = modules

    @property
    def names(self):
        return tuple(sorted(self.modules))

    def load(self, name):
        if name not in self.modules:
            raise UnknownName("detector", name, self.names)
        return Plugin("detector", name, self.modules[name])

    def build(self, name, **settings):
        return self.load(name).build(**settings)


def module(name, found, *, states=True, error=None, **more):
    """A detector module; `error` is raised by `build`."""
    built = types.ModuleType(name)
    built.SUMMARY, built.NEEDS, built.EXTRA = "fake", (), ""
    if states:
        built.FINDS = tuple(dict.fromkeys(label for label, _ in found))
    built.calls = []

    def build(*, model=None, size=None, threads=0):
        built.calls.append((model, size, threads))
        if error is not None and model is None:
            raise error
        return Fixed(name, more.get("given", found) if model else found, more.get("thresholds"))

    built.build = build
    return built


@pytest.fixture
def shelf(monkeypatch):
    def put(**modules):
        monkeypatch.setattr(choice, "CATALOGUE", Shelf(**modules))
        return modules

    return put


FACE = [("face", 0.9)]
STREET = [("person", 0.9), ("car", 0.9), ("bus", 0.2), ("dog", 0.9)]


def test_the_toy_is_a_detector_and_exact():
    toy = ToyDetector()
    assert isinstance(toy, Detector)
    found = toy.detect(picture((10, 20, 30, 50), (60, 0, 80, 10)))
    assert sorted(map(tuple, found.xyxy.tolist())) == [(10, 20, 30, 50), (60, 0, 80, 10)]
    assert found.scores.tolist() == [1.0, 1.0]
    hollow = toy.detect(picture((10, 10, 50, 50), fill=0.4))
    assert 0.3 < hollow.scores[0] < 0.5
    assert len(toy.detect(np.zeros((0, 0, 3), np.uint8))) == 0


def test_find_and_candidates_follow_the_threshold():
    weak = picture((10, 10, 50, 50), fill=0.4)
    finder = Finder([ToyDetector()], ("face",))
    assert finder.threshold("face") == 0.5
    assert len(finder.find(weak)) == 0
    assert len(finder.candidates(weak)) == 1
    assert len(Finder([ToyDetector()], ("face",), thresholds={"face": 0.3}).find(weak)) == 1
    assert len(Finder([ToyDetector()], ("face",), thresholds={"*": 0.3}).find(weak)) == 1
    assert Finder([ToyDetector()]).hide == ("face",)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.95), st.floats(0.05, 1), st.floats(0.1, 1))
def test_all_that_is_found_is_among_the_candidates(threshold, factor, fill):
    image = picture((5, 5, 40, 45), (50, 20, 70, 50), fill=fill)
    finder = Finder([ToyDetector()], ("face",), thresholds={"face": threshold})
    found, candidates = finder.find(image), finder.candidates(image, factor)
    assert {tuple(box) for box in found.xyxy.tolist()} <= {tuple(box) for box in candidates.xyxy.tolist()}
    assert (found.scores >= threshold - 1e-6).all()
    assert (candidates.scores >= factor * threshold - 1e-6).all()


def test_a_score_equal_to_the_threshold_counts():
    finder = Finder([Fixed("a", [("face", np.float32(0.3))], {"face": 0.3})], ("face",))
    assert len(finder.find(picture())) == 1


def test_only_wanted_classes_each_at_its_own_threshold():
    street = Fixed("street", STREET, {"person": 0.1, "*": 0.25})
    finder = Finder([street], ("person", "car", "bus"))
    assert finder.find(picture()).labels == ("person", "car")
    assert finder.candidates(picture()).labels == ("person", "car", "bus")
    assert street.floors == [0.1, 0.05]
    assert [finder.threshold(name) for name in ("person", "bus")] == [0.1, 0.25]
    with pytest.raises(UnknownName):
        finder.threshold("dog")


def test_a_detector_runs_once_for_all_its_classes_and_time_is_kept():
    street, face = Fixed("street", STREET), Fixed("face", FACE)
    finder = Finder([street, face], ("person", "car", "face"))
    assert sorted(finder.find(picture()).labels) == ["car", "face", "person"]
    assert (street.runs, face.runs) == (1, 1)
    assert finder.seconds > 0
    assert set(finder.weights) == {"street", "face"}
    threads = [threading.Thread(target=finder.find, args=(picture(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert street.runs == 9


def test_boxes_that_reach_outside_are_cut():
    class Wild(Fixed):
        def detect(self, image, *, floor=0.0):
            return Boxes([[-5, -5, 500, 500], [200, 200, 300, 300]], [0.9, 0.9], ["face", "face"])

    assert Finder([Wild("wild", FACE)]).find(picture(size=(60, 80))).xyxy.tolist() == [[0, 0, 80, 60]]


def test_pictures_of_another_kind_are_refused():
    finder = Finder([ToyDetector()])
    for bad in (np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.float32)):
        with pytest.raises(InvalidRequest, match="uint8 RGB"):
            finder.find(bad)
    with pytest.raises(InvalidRequest, match="factor"):
        finder.candidates(picture(), 0)


def test_a_finder_that_would_find_nothing_is_refused():
    with pytest.raises(InvalidRequest, match="name at least one class"):
        Finder([ToyDetector()], ())
    with pytest.raises(UnknownName, match="person"):
        Finder([ToyDetector()], ("person",))
    with pytest.raises(InvalidRequest, match="between 0 and 1"):
        Finder([ToyDetector()], thresholds={"face": 1.5})


def test_the_default_is_the_embedded_face_detector(no_models):
    finder = make_finder(["faces", "face"], threads=1)
    assert finder.hide == ("face",)
    assert list(finder.weights) == ["centerface"]
    assert make_finder("face", threads=1).hide == ("face",)


def test_the_best_installed_detector_is_chosen(shelf):
    away = MissingModel("yolo26 is not here. Run: get it")
    modules = shelf(
        centerface=module("centerface", FACE),
        yunet=module("yunet", FACE),
        zz=module("zz", FACE, states=False),
    )
    assert list(make_finder(["face"]).weights) == ["centerface"]
    assert not modules["yunet"].calls
    shelf(centerface=module("centerface", FACE, error=away), yunet=module("yunet", FACE))
    assert list(make_finder(["face"]).weights) == ["yunet"]
    shelf(
        centerface=module("centerface", FACE, error=MissingExtra("x", ["y"], "z")),
        yunet=module("yunet", FACE),
    )
    assert list(make_finder(["face"]).weights) == ["yunet"]


def test_weights_given_by_hand_are_preferred_for_what_they_are_known_for(shelf):
    shelf(centerface=module("centerface", FACE), yunet=module("yunet", FACE))
    assert list(make_finder(["face"], models={"yunet": "file.onnx"}).weights) == ["yunet"]


def test_weights_given_by_hand_may_find_other_things(shelf):
    plates = [("plate", 0.9)]
    shelf(centerface=module("centerface", FACE), yolo26=module("yolo26", STREET, given=plates))
    finder = make_finder(["face", "plate"], models={"yolo26": "plates.onnx"})
    assert finder.find(picture()).labels == ("face", "plate")
    with pytest.raises(MissingModel, match=r"'person'.*find only: plate"):
        make_finder(["person"], models={"yolo26": "plates.onnx"})


def test_forced_detectors_all_look_and_others_fill_in(shelf):
    shelf(
        centerface=module("centerface", FACE, thresholds={"face": 0.3}),
        yunet=module("yunet", FACE, thresholds={"face": 0.6}),
        yolo26=module("yolo26", STREET),
    )
    assert list(make_finder(["face"], detectors=["yunet"]).weights) == ["yunet"]
    both = make_finder(["face", "person"], detectors=["yunet", "centerface"])
    assert set(both.weights) == {"yunet", "centerface", "yolo26"}
    assert both.threshold("face") == 0.3
    with pytest.raises(InvalidRequest, match="'yunet' was asked for, but it finds none of person"):
        make_finder(["person"], detectors=["yunet"])
    with pytest.raises(UnknownName, match="did you mean 'yunet'"):
        make_finder(["face"], detectors=["yunett"])
    with pytest.raises(UnknownName, match="unknown detector"):
        make_finder(["face"], models={"nope": "x"})


def test_a_forced_detector_is_asked_only_for_what_it_was_chosen_for(shelf):
    shelf(centerface=module("centerface", FACE), yolo26=module("yolo26", [*STREET, *FACE]))
    finder = make_finder(["face", "person"])
    assert finder.find(picture()).labels == ("face", "person")  # not the other detector's face as well


def test_aliases_spread_over_what_the_model_knows(shelf):
    shelf(yolo26=module("yolo26", STREET))
    assert make_finder(["people"]).hide == ("person",)
    assert make_finder(["vehicle", "people", "car"]).hide == ("car", "bus", "person")
    finder = make_finder(["vehicle", "people"], thresholds={"vehicle": 0.15, "bus": 0.1})
    assert [finder.threshold(name) for name in finder.hide] == [0.15, 0.1, 0.5]


def test_a_class_that_a_model_calls_by_an_alias_is_taken_by_its_name(shelf):
    shelf(yolo26=module("yolo26", STREET, given=[("vehicle", 0.9)]))
    assert make_finder(["vehicle"], models={"yolo26": "x"}).hide == ("vehicle",)


def test_settings_reach_the_detector(shelf, tmp_path):
    modules = shelf(yolo26=module("yolo26", STREET))
    make_finder(["person", "car"], models={"yolo26": tmp_path}, size=320, threads=3)
    assert modules["yolo26"].calls == [(tmp_path, 320, 3)]


def test_people_without_a_model_are_refused_with_the_way_out(no_models):
    for word in ("person", "people", "vehicle"):
        with pytest.raises(MissingModel) as caught:
            make_finder(["face", word])
        text = str(caught.value)
        assert f"no installed model finds {word!r}; yolo26 would" in text
        assert "sfumato models pull yolo26n" in text
        assert "--model yolo26=FILE" in text
        assert caught.value.exit_code == 2


def test_a_given_file_that_is_absent_is_not_passed_over(tmp_path):
    with pytest.raises(MissingModel, match=r"gone\.onnx.*does not exist"):
        make_finder(["person"], models={"yolo26": tmp_path / "gone.onnx"})


def test_typos_suggest_the_nearest(no_models):
    with pytest.raises(UnknownName, match="did you mean 'face'"):
        make_finder(["fase"])
    with pytest.raises(UnknownName, match="did you mean 'person'"):
        make_finder(["face", "persn"])
    with pytest.raises(UnknownName, match=r"Known: airplane.*zebra"):
        make_finder(["qqqqqq"])
    with pytest.raises(UnknownName, match=r"did you mean 'face'.*threshold 0\.4"):
        make_finder(["face"], thresholds={"fce": 0.4})
    make_finder(["face"], thresholds={"person": 0.4, "people": 0.3}, threads=1)  # a policy may name more
    with pytest.raises(InvalidRequest, match="hide is empty"):
        make_finder([])


def test_a_detector_that_says_nothing_about_its_classes_is_asked(shelf):
    shelf(centerface=module("centerface", FACE), other=module("other", [("logo", 0.9)], states=False))
    assert list(make_finder(["logo"]).weights) == ["other"]
    with pytest.raises(UnknownName, match="did you mean 'logo'"):
        make_finder(["logoo"])


def test_the_real_catalogue_has_the_preferred_names():
    assert set(choice.PREFERENCE) <= set(CATALOGUE.names)
