"""`sfumato train`, as a user runs it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")
pytest.importorskip("safetensors", reason="needs safetensors: pip install sfumato[training]")

from sfumato.cli.main import main
from sfumato.core.project import Project

POLICY = """
[populations.people]
unit = "image"
epsilon = 2
delta = 1e-4
"""
RUN = """
[data]
npz = "data.npz"
[model]
features = "scattering"
[privacy]
epsilon = 1
delta = 1e-5
public_size = 40
expected_batch = 10
[optimiser]
lr = 1
[train]
steps = 4
[out]
model = "made/model.safetensors"
"""


def run(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Project.init(tmp_path / "place").close()
    place = tmp_path / "place"
    with (place / "sfumato.toml").open("a") as file:
        file.write(POLICY)
    rng = np.random.default_rng(1)
    np.savez(
        place / "data.npz", x_train=rng.integers(0, 255, (40, 16, 16), np.uint8), y_train=np.arange(40) % 3
    )
    (place / "run.toml").write_text(RUN)
    monkeypatch.chdir(place)
    return place


def reserved(place: Path) -> int:
    project = Project(place)
    count = len([entry for entry in project.ledger.entries() if entry.kind == "reserve"])
    project.close()
    return count


def test_a_run_ends_with_a_model_and_a_receipt(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "run.toml") == 0
    said = capsys.readouterr().out
    assert "Trained: 4 steps" in said
    assert "Spent: epsilon 0.9999 at delta 1e-05, for each image." in said
    assert "Guarantee: proven." in said
    assert run("receipt", "verify", "made/model.safetensors.receipt.json", "made/model.safetensors") == 0
    assert reserved(place) == 1


def test_explain_spends_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "data.npz").unlink()
    assert run("train", "run.toml", "--explain") == 0
    said = capsys.readouterr().out
    assert "noise multiplier" in said
    assert "Charged before the first step, to people/all" in said
    assert run("train", "run.toml", "--explain", "--json", "--epsilon", "1/2") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["epsilon"] == pytest.approx(0.5, rel=0.01)
    assert told["epsilon"] <= 0.5
    assert reserved(place) == 0
    assert not (place / "made").exists()


def test_json_and_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "run.toml", "--json", "--epsilon", "0.5", "-o", "other.safetensors") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "done"
    assert told["model"] == "other.safetensors"
    assert told["epsilon"] <= 0.5
    assert told["test_accuracy"] is None
    assert (place / "other.safetensors").exists()


def test_a_spent_budget_ends_with_its_own_code(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "run.toml", "--epsilon", "5") == 4
    assert not (place / "made").exists()
    assert reserved(place) == 0


def test_a_stopped_run_says_how_to_go_on(place: Path, monkeypatch, capsys) -> None:
    from sfumato.training import callbacks

    def stop(progress: Any, more: Any = None) -> dict[str, float]:
        if progress.step == 2:
            raise KeyboardInterrupt
        return {}

    board = ModuleType("tensorboardX")
    board.SummaryWriter = lambda folder: SimpleNamespace(add_scalar=None, close=lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "_writer", board.SummaryWriter)
        patch.setattr(callbacks, "public", stop)
        (place / "run.toml").write_text(RUN + 'tensorboard = "board"\n')
        assert run("train", "run.toml") == 130
    assert "--resume goes on with it" in capsys.readouterr().err
    (place / "run.toml").write_text(RUN)
    assert run("train", "run.toml", "--resume") == 0
    assert "Trained: 4 steps" in capsys.readouterr().out
    assert run("train", "run.toml", "--resume") == 2
    assert reserved(place) == 1


def test_bad_pictures_are_told_and_nothing_is_charged(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place / "pictures"
    for kind in ("a", "b"):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "x.png").write_bytes(b"no picture")
    (place / "run.toml").write_text(RUN.replace('npz = "data.npz"', 'folder = "pictures"\nside = 16'))
    assert run("train", "run.toml") == 1
    assert "2 of 2 pictures do not read: a/x.png" in capsys.readouterr().err
    assert reserved(place) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "CONFIG file, or --detector"),
        (("run.toml", "--detector", "x.pt"), 2, "one of the two"),
        (("run.toml", "--data", "x.yaml"), 2, "--data goes with --detector"),
        (("run.toml", "--set", "a=1"), 2, "--set goes with --detector"),
        (("nowhere.toml",), 2, "cannot be read"),
        (("run.toml", "--epsilon", "many"), 2, "privacy.epsilon"),
    ],
)
def test_what_cannot_be_asked(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert run("train", *arguments) == code
    assert says in capsys.readouterr().err
    assert reserved(place) == 0


def test_outside_of_a_project(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(RUN)
    monkeypatch.chdir(tmp_path)
    assert run("train", "run.toml") == 2
    assert "no project here" in capsys.readouterr().err


@dataclass(frozen=True)
class Detector:
    """As sfumato.training.detect.settings.DetectorTraining is, in short."""

    detector: str
    data: Path
    out: Path
    privacy: Any = None
    units: Path | None = None
    side: int = 640
    freeze: str | int = "nothing"
    lr: float = 0.01
    onnx: bool = True


@dataclass(frozen=True)
class Trained:
    weights: Path
    onnx: Path | None
    receipt: Any


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-ins for the room of detectors, which needs Ultralytics; what was asked of it."""
    asked: list[Any] = []
    package, settings, train = (
        ModuleType(f"sfumato.training.detect{part}") for part in ("", ".settings", ".train")
    )
    settings.DetectorTraining = Detector

    def trained(given: Detector, *, project: Project, resume: bool, on_step: Any) -> Trained:
        asked.append(given)
        receipt = SimpleNamespace(body={"guarantee": {"type": "proven", "statement": "s"}}, recorded=True)
        return Trained(given.out, None, receipt)

    train.train_detector = trained
    for module in (package, settings, train):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


DETECTOR = ("--detector", "yolo26n.pt", "--data", "data.yaml", "--epsilon", "1")
SET = ("--set", "public_size=50", "--set", "expected_batch=5", "--set", "delta=1e-5", "--set", "epochs=2")


def test_a_detector_goes_to_its_own_room(room: list[Any], place: Path, capsys) -> None:
    more = ("--set", "lr=0.5", "--set", "side=320", "--set", "freeze=10", "--set", "onnx=false")
    assert run("train", *DETECTOR, *SET, *more, "--set", "units=whose.csv", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "private.pt"
    assert told["epsilon"] <= 1
    (asked,) = room
    assert (asked.lr, asked.side, asked.freeze, asked.onnx) == (0.5, 320, 10, False)
    assert asked.units == Path("whose.csv")
    assert (asked.privacy.steps, asked.privacy.epsilon) == (20, 1)
    assert run("train", *DETECTOR, *SET, "-o", "other.pt") == 0
    assert "other.pt.receipt.json" in capsys.readouterr().out
    assert run("train", *DETECTOR, *SET, "--explain") == 0
    assert "20 steps" in capsys.readouterr().out
    assert len(room) == 2


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("epochs", "KEY=VALUE"),
        ("epoch=3", "did you mean 'epochs'"),
        ("side=big", "side is a whole number"),
        ("lr=fast", "lr is a number"),
        ("onnx=yes", "true or false"),
    ],
)
def test_a_setting_that_does_not_do(room: list[Any], place: Path, capsys, setting: str, says: str) -> None:
    assert run("train", *DETECTOR, *SET, "--set", setting) == 2
    assert says in capsys.readouterr().err


@pytest.mark.usefixtures("room")
def test_a_detector_needs_data_and_a_price(place: Path, capsys) -> None:
    assert run("train", "--detector", "x.pt") == 2
    assert "--detector needs --data and --epsilon" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_with_epsilon(
    place: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fractions import Fraction

    from sfumato.cli.train import watching
    from sfumato.training.run import Progress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with watching(10) as (on_step, tell):
        tell("features", 1, 2)
        on_step[0](Progress(3, 10, Fraction(1, 4), Fraction(1, 10**5), 1.0))
        assert len(on_step) == 1
    assert "epsilon 0.250 so far" in capsys.readouterr().err
