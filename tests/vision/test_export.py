"""A `.pt` file becomes ONNX once, apart from this process, offline."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

import numpy as np
import pytest

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.vision import models
from sfumato.vision.detectors import yolo26
from sfumato.vision.export import exported

FAKE = """
import json, os, sys
from pathlib import Path

class Settings(dict):
    def update(self, *rest, **more):
        super().update(*rest, **more)
settings = Settings(sync=True)

class YOLO:
    def __init__(self, source):
        self.source = Path(source)
        if self.source.read_bytes().startswith(b"evil"):
            raise RuntimeError("weights only load failed")

    def export(self, **how):
        record = {"how": how, "sync": settings["sync"], "cwd": os.getcwd(), "source": str(self.source)}
        record["env"] = {key: os.environ.get(key) for key in (
            "YOLO_OFFLINE", "ULTRALYTICS_SAFE_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "YOLO_AUTOINSTALL",
            "YOLO_CONFIG_DIR")}
        here = Path(__file__).parent
        (here / "record.json").write_text(json.dumps(record))
        written = self.source.with_suffix(".onnx")
        written.write_bytes((here / "model.onnx").read_bytes())
        print("noise on standard output")
        return str(written)
"""
ROWS = np.array([[[8, 16, 24, 48, 0.9, 0]]], np.float32)
SAID = {"names": "{0: 'person'}", "imgsz": "[64, 64]", "stride": "32", "task": "detect"}


@pytest.fixture
def fake(tmp_path, monkeypatch, tiny_model, no_models):
    """A stand-in for the package `ultralytics`, on the path of this process and of its children."""
    package = tmp_path / "site" / "ultralytics"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    (package / "model.onnx").write_bytes(tiny_model(ROWS, metadata=SAID))
    monkeypatch.syspath_prepend(str(package.parent))
    return package


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "my weights.pt"
    path.write_bytes(b"weights of mine")
    return path


def test_it_is_exported_once_and_kept_by_content(fake, weights, no_models):
    before = dict(os.environ)
    detector = yolo26.build(model=weights, threads=1)
    assert detector.finds == ("person",)
    assert len(detector.detect(np.zeros((64, 64, 3), np.uint8))) == 1
    assert detector.weights.sha256 == models.load("yolo26", weights).weights.sha256
    record = json.loads((fake / "record.json").read_text())
    assert record["how"]["format"] == "onnx"
    assert record["how"]["nms"] is False
    assert (len(list((no_models / "exported").iterdir())), dict(os.environ)) == (1, before)
    assert "ultralytics" not in sys.modules
    (fake / "record.json").unlink()
    weights.rename(weights.with_name("other.pt"))
    yolo26.build(model=weights.with_name("other.pt"), threads=1)
    assert not (fake / "record.json").exists()
    weights.write_bytes(b"other weights")
    yolo26.build(model=weights, threads=1)
    assert (fake / "record.json").exists()
    assert len(list((no_models / "exported").iterdir())) == 2


def test_nothing_phones_home_and_no_code_is_loaded(fake, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ultralytics.py").write_text("raise SystemExit('code of the working folder was run')")
    exported(models.load("yolo26", weights))
    record = json.loads((fake / "record.json").read_text())
    env = record["env"]
    assert record["sync"] is False
    assert env["YOLO_OFFLINE"] == env["ULTRALYTICS_SAFE_LOAD"] == env["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
    assert env["YOLO_AUTOINSTALL"] == "0"
    assert env["YOLO_CONFIG_DIR"] == record["cwd"]
    assert not os.path.exists(record["cwd"])  # noqa: PTH110
    assert weights.name not in record["source"]


def test_a_kept_export_that_changed_is_made_again(fake, weights, no_models):
    exported(models.load("yolo26", weights))
    (kept,) = (no_models / "exported").iterdir()
    kept.write_bytes(b"changed")
    (fake / "record.json").unlink()
    assert exported(models.load("yolo26", weights)) == (fake / "model.onnx").read_bytes()
    assert (fake / "record.json").exists()


def test_a_failure_is_told_in_one_line(fake, weights, no_models):
    weights.write_bytes(b"evil code")
    with pytest.raises(InvalidRequest, match=r"could not export 'my weights\.pt'.*weights only load failed"):
        yolo26.build(model=weights)
    assert not (no_models / "exported").exists()


def test_without_ultralytics_the_extra_is_named(weights, no_models, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ultralytics" else real(name)
    )
    with pytest.raises(MissingExtra, match=r"AGPL-3\.0.*sfumato\[yolo\]"):
        yolo26.build(model=weights)


def test_other_files_pass_as_they_are(tmp_path, tiny_model):
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model(ROWS))
    assert exported(models.load("yolo26", path)) == path.read_bytes()
