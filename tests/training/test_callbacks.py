"""What watches a run gets public quantities, and nothing else."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install sfumato[training]")

from sfumato.core.errors import InvalidRequest, MissingExtra  # noqa: E402
from sfumato.training import callbacks  # noqa: E402
from sfumato.training.callbacks import MLflow, TensorBoard, public  # noqa: E402
from sfumato.training.run import Progress  # noqa: E402

PROGRESS = Progress(3, 10, Fraction(1, 2), Fraction(1, 10**5), 4.0, loss=123.25)


class Writer:
    made: ClassVar[list[Writer]] = []

    def __init__(self, folder: str) -> None:
        self.folder, self.logged, self.closed = folder, list[tuple[str, float, int]](), False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.logged.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def fake(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    def load(name: str) -> Any:
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr(callbacks.importlib, "import_module", load)


def test_tensorboard_gets_no_loss(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    board = ModuleType("tensorboardX")
    board.SummaryWriter = Writer
    fake(monkeypatch, tensorboardX=board)
    with TensorBoard(tmp_path / "board", more=lambda: {"learning_rate": 0.5}) as watch:
        watch(PROGRESS)
    writer = Writer.made[-1]
    logged = {name: value for name, value, _ in writer.logged}
    assert logged["privacy/epsilon"] == 0.5
    assert logged["privacy/learning_rate"] == 0.5
    assert {step for *_, step in writer.logged} == {3}
    assert PROGRESS.loss not in logged.values()
    assert not [name for name in logged if "loss" in name]
    assert writer.closed


def test_mlflow_gets_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    mlflow = ModuleType("mlflow")
    mlflow.set_experiment = lambda name: told.append(name)
    mlflow.start_run = lambda: told.append("start")
    mlflow.log_metrics = lambda metrics, step: told.append((metrics, step))
    mlflow.end_run = lambda: told.append("end")
    fake(monkeypatch, mlflow=mlflow)
    with MLflow("clinic") as watch:
        watch(PROGRESS)
    assert told[:2] == ["clinic", "start"]
    assert told[-1] == "end"
    metrics, step = told[2]
    assert step == 3
    assert metrics["epsilon"] == 0.5
    assert PROGRESS.loss not in metrics.values()


@pytest.mark.parametrize("name", ["loss", "gradient_norm", "accuracy"])
def test_what_is_not_public_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="not known to be public"):
        public(PROGRESS, lambda: {name: 1.0})


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(monkeypatch)
    with pytest.raises(MissingExtra, match="tensorboard"):
        TensorBoard(tmp_path)
    with pytest.raises(MissingExtra, match="mlflow"):
        MLflow("x")
    assert "mlflow" not in sys.modules
