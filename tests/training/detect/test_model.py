"""Detectors are opened, frozen and written; what is written holds weights and nothing of a run."""

from __future__ import annotations

import os
import pickle
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.core.errors import InvalidRequest, MissingModel  # noqa: E402

NAMES = {0: "square", 1: "disc"}


@pytest.fixture(scope="module")
def written(yolo, tmp_path_factory):
    """A small detector on disk."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    yolo.save(yolo.build("yolo26n.yaml", 2), path, NAMES)
    return path


def test_importing_changes_nothing_for_others(yolo):
    import cv2
    from PIL import Image

    assert torch.save.__module__ == "torch.serialization"
    assert Image.open.__module__ == "PIL.Image"
    assert "YOLO_OFFLINE" not in os.environ or os.environ["YOLO_OFFLINE"] != "1"
    assert np.get_printoptions()["linewidth"] == 75
    assert cv2.getNumThreads() > 0
    from ultralytics.utils import ONLINE, SETTINGS

    assert (ONLINE, SETTINGS["sync"]) == (False, False)


def test_a_detector_is_written_and_read(yolo, written):
    from sfumato.training.detect.model import open_detector

    again = open_detector(written, NAMES)
    assert again.names == NAMES
    first = yolo.load(written).state_dict()
    assert all(torch.equal(first[name], value) for name, value in again.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters())


def test_other_classes_keep_what_fits_by_name(yolo, written):
    from sfumato.training.detect.model import open_detector

    other = open_detector(written, {0: "disc", 1: "square", 2: "star"})
    old, new = yolo.load(written), other
    assert yolo.head(new).nc == 3
    kept, given = old.state_dict(), new.state_dict()
    same = [name for name, value in given.items() if name in kept and value.shape == kept[name].shape]
    assert all(torch.equal(kept[name], given[name]) for name in same if ".cv3." not in name)
    last, before = (yolo.head(m).cv3[0][-1].weight for m in (new, old))
    assert torch.equal(last[0], before[1])
    assert torch.equal(last[1], before[0])


def test_what_is_written_holds_nothing_of_a_run(yolo, tmp_path):
    model = yolo.build("yolo26n.yaml", 2)
    model.args, model.pt_path = {"data": "/secret/patients.yaml"}, "/secret/run.pt"
    model.criterion = yolo.stock_criterion(model, 3)
    path = tmp_path / "out.pt"
    yolo.save(model, path, NAMES)
    assert b"secret" not in path.read_bytes()
    with zipfile.ZipFile(path) as parts:
        assert not any(b"loss" in parts.read(name) for name in parts.namelist() if name.endswith("data.pkl"))


def test_statistics_stay_frozen_and_scales_are_trained(yolo):
    from sfumato.training.detect.model import normalisers, prepare

    model = prepare(yolo.build("yolo26n.yaml", 2))
    found = list(normalisers(model))
    assert len(found) == 114
    assert model.training
    assert not any(module.training for module in found)
    assert all(parameter.requires_grad for parameter in model.parameters())
    before = [module.running_mean.clone() for module in found]
    made = model(torch.rand(2, 3, 64, 64))
    assert set(made) == {"one2many", "one2one"}
    assert all(torch.equal(a, b.running_mean) for a, b in zip(before, found, strict=True))


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [("backbone", {*range(11, 24)} - {11, 12, 14, 15, 18, 21}), ("neck", {23}), (5, None)],
)
def test_layers_are_frozen_as_asked(yolo, freeze, trained):
    from sfumato.training.detect.model import prepare

    model = prepare(yolo.build("yolo26n.yaml", 2), freeze)
    free = {int(name.split(".")[1]) for name, p in model.named_parameters() if p.requires_grad}
    assert free == trained if trained is not None else min(free) == 5


def test_other_choices_are_refused(yolo):
    from sfumato.training.detect.model import prepare

    model = yolo.build("yolo26n.yaml", 2)
    for freeze in ("head", -1, 24, True, 1.0):
        with pytest.raises(InvalidRequest, match="freeze must be one of"):
            prepare(model, freeze)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil was run",))


def test_files_that_are_no_detector_are_refused(yolo, tmp_path, monkeypatch):
    from sfumato.training.detect.model import open_detector

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "one.pt"
    with pytest.raises(MissingModel, match="does not exist"):
        open_detector(path, NAMES)
    path.write_bytes(b"no weights")
    with pytest.raises(InvalidRequest, match="does not read"):
        open_detector(path, NAMES)
    torch.save({"model": Evil()}, path, pickle_module=pickle)
    with pytest.raises(InvalidRequest, match="does not read"):
        open_detector(path, NAMES)
    assert not (tmp_path / "evil was run").exists()
    with pytest.raises(InvalidRequest, match=r"\.pt file"):
        open_detector("yolo26n.onnx", NAMES)
    with pytest.raises(InvalidRequest, match="no detector 'yolo99n"):
        open_detector("yolo99n.yaml", NAMES)
    with pytest.raises(InvalidRequest, match="not a detector"):
        yolo.build("yolo26n-seg.yaml", 2)


@pytest.mark.slow
def test_it_is_exported_and_run_without_ultralytics(yolo, written):
    pytest.importorskip("onnx", reason="needs onnx: pip install sfumato[yolo]")
    from sfumato.vision.detectors import yolo26

    detector = yolo26.build(model=written, threads=1)
    assert detector.finds == ("square", "disc")
    detector.detect(np.zeros((160, 160, 3), np.uint8))
