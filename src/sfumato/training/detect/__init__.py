"""Detectors trained with a guarantee for every picture, person or patient (extra `yolo`).

    from sfumato.training.detect import DetectorTraining, train_detector

Names are imported when they are first used: PyTorch and Ultralytics are optional.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sfumato.training.detect.augment import Augment
    from sfumato.training.detect.loss import DetectionLoss, Gains, Targets
    from sfumato.training.detect.settings import DetectorTraining
    from sfumato.training.detect.train import TrainedDetector, train_detector

__all__ = [
    "Augment",
    "DetectionLoss",
    "DetectorTraining",
    "Gains",
    "Targets",
    "TrainedDetector",
    "train_detector",
]

_HOMES = {
    "Augment": "augment",
    "DetectionLoss": "loss",
    "DetectorTraining": "settings",
    "Gains": "loss",
    "Targets": "loss",
    "TrainedDetector": "train",
    "train_detector": "train",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
