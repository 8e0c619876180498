"""Callbacks that watch a run: TensorBoard and MLflow get what is public anyway, and nothing else.

    with project.training(settings, on_step=[TensorBoard("board")]) as run: ...

A loss on private images, or a norm of their gradients, is a release without noise: neither is ever logged,
even where `insecure_debug` lets the run compute it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from sfumato.core.errors import InvalidRequest, MissingExtra
from sfumato.training.run import Progress

#: What a caller may add; anything else would have to be charged.
PUBLIC = ("learning_rate", "noise_multiplier", "clip", "expected_batch")
Quantities = Callable[[], Mapping[str, float]]


def public(progress: Progress, more: Quantities | None = None) -> dict[str, float]:
    """Return what may be shown of a step: name -> number.

    >>> from fractions import Fraction
    >>> told = public(Progress(3, 10, Fraction(1, 2), Fraction(1, 10**5), 4.0, loss=2.5))
    >>> sorted(told), told["epsilon"]
    (['delta', 'epsilon', 'seconds', 'step_of'], 0.5)

    Raises:
        InvalidRequest: `more` gives something that is not on the list of public quantities.
    """
    told = {
        "epsilon": float(progress.epsilon),
        "delta": float(progress.delta),
        "step_of": float(progress.steps),
        "seconds": progress.seconds,
    }
    for name, value in (more() if more is not None else {}).items():
        if name not in PUBLIC:
            raise InvalidRequest(
                f"{name!r} is not known to be public, and is not logged; public are {', '.join(PUBLIC)}. "
                "What was computed from private images needs noise and a charge of its own"
            )
        told[name] = float(value)
    return told


class TensorBoard:
    """Writes public quantities of a run for TensorBoard.

    Args:
        folder: of the log.
        more: gives further quantities, out of PUBLIC.

    Raises:
        MissingExtra: neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, folder: Path | str, *, more: Quantities | None = None) -> None:
        self._writer, self._more = _writer(str(folder)), more

    def __call__(self, progress: Progress) -> None:
        """Log a step."""
        for name, value in public(progress, self._more).items():
            self._writer.add_scalar(f"privacy/{name}", value, progress.step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MLflow:
    """Logs public quantities of a run to MLflow, as a run of its own.

    Args:
        experiment: its name; the server is MLflow's own setting (MLFLOW_TRACKING_URI).
        more: gives further quantities, out of PUBLIC.

    Raises:
        MissingExtra: mlflow is not installed.
    """

    def __init__(self, experiment: str, *, more: Quantities | None = None) -> None:
        try:
            self._mlflow: Any = importlib.import_module("mlflow")
        except ImportError as error:
            raise MissingExtra("logging to MLflow", ("mlflow",), "") from error
        self._more = more
        self._mlflow.set_experiment(experiment)
        self._run = self._mlflow.start_run()

    def __call__(self, progress: Progress) -> None:
        """Log a step."""
        self._mlflow.log_metrics(public(progress, self._more), step=progress.step)

    def close(self) -> None:
        """End MLflow's run."""
        self._mlflow.end_run()

    def __enter__(self) -> MLflow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _writer(folder: str) -> Any:
    """Return a writer of PyTorch's TensorBoard, or else of tensorboardX."""
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        try:
            return importlib.import_module(name).SummaryWriter(folder)
        except ImportError:
            continue
    raise MissingExtra("logging to TensorBoard", ("tensorboard",), "")
