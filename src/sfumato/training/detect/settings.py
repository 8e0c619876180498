"""What the private training of a detector was asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from sfumato.core.errors import InvalidRequest, UnknownName
from sfumato.training.detect.augment import Augment
from sfumato.training.detect.loss import Gains
from sfumato.training.settings import TrainingSettings

Optimiser = Literal["sgd", "adamw"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorTraining:
    """A detector, its data, and how it is trained; what it costs is `TrainingSettings`' part.

    >>> cost = TrainingSettings(epsilon=8, expected_batch=64, public_size=5000, epochs=20)
    >>> asked = DetectorTraining(
    ...     detector="yolo26n.pt", data=Path("data.yaml"), out=Path("private.pt"), privacy=cost
    ... )
    >>> asked.side, asked.freeze, asked.optimiser
    (640, 'nothing', 'sgd')

    Every value is public, and none may be computed from the private pictures or their labels.

    Args:
        detector: a `.pt` file that was trained on PUBLIC pictures alone, its name in the model cache, or a
            configuration of Ultralytics ("yolo26n.yaml", untrained: it learns little).
        data: a data.yaml; its `train` split is the private data.
        privacy: what the run may cost, and how it samples and clips.
        out: the `.pt` file to write; receipt and ONNX file lie beside it.
        units: a CSV table (picture, key) of whose each picture is; None: each picture is a unit.
        public: a data.yaml of PUBLIC pictures for mosaics; with `augment.mosaic` above 0.
        side: of the square that pictures are put into, in pixels; a multiple of 32.
        augment: what happens to a picture, by itself.
        gains: weights of the loss's parts.
        freeze: "nothing", "backbone", "neck" (train the head alone), or a number of first layers.
        optimiser: "sgd" or "adamw"; both see noisy sums alone.
        lr: learning rate at its highest.
        final_lr: share of it that is left at the end; it falls evenly.
        warmup: share of the steps in which it rises evenly.
        momentum: of SGD, with Nesterov's step; AdamW's first beta.
        weight_decay: for weights of convolutions; scales and shifts have none.
        ema: decay of the averaged weights that are written; 0: the last weights.
        device: such as "cpu" or "cuda".
        onnx: also write an ONNX file, which runs without Ultralytics.
        checkpoint_every: steps between checkpoints; 0: none.

    Raises:
        InvalidRequest: a value outside its range.
    """

    detector: str | Path
    data: Path
    out: Path
    privacy: TrainingSettings
    units: Path | None = None
    public: Path | None = None
    side: int = 640
    augment: Augment = field(default_factory=Augment)
    gains: Gains = field(default_factory=Gains)
    freeze: str | int = "nothing"
    optimiser: Optimiser = "sgd"
    lr: float = 0.01
    final_lr: float = 0.1
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 0.0005
    ema: float = 0.999
    device: str = "cpu"
    onnx: bool = True
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        if self.optimiser not in get_args(Optimiser):
            raise UnknownName("optimiser", str(self.optimiser), get_args(Optimiser))
        for name, low, high in (
            ("lr", 0.0, 1e3),
            ("final_lr", 0.0, 1.0),
            ("warmup", 0.0, 1.0),
            ("momentum", 0.0, 0.999999),
            ("weight_decay", 0.0, 1.0),
            ("ema", 0.0, 0.999999),
        ):
            value = getattr(self, name)
            wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
            if wrong or not low <= value <= high:
                raise InvalidRequest(f"{name} must lie in {low:g}..{high:g}, got {value!r}")
        if Path(self.out).suffix != ".pt":
            raise InvalidRequest(f"out must be a .pt file, got {str(self.out)!r}")
        every = self.checkpoint_every
        if isinstance(every, bool) or not isinstance(every, int) or every < 0:
            raise InvalidRequest(f"checkpoint_every must be a whole number from 0, got {every!r}")

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, 0..steps-1: up, then evenly down."""
        rising = max(1, round(self.warmup * steps))
        if step < rising and self.warmup > 0:
            return self.lr * (step + 1) / rising
        done = (step - rising) / max(steps - rising, 1) if self.warmup > 0 else step / max(steps, 1)
        return self.lr * (1 - done * (1 - self.final_lr))

    def facts(self) -> dict[str, Any]:
        """Return what the receipt says of it: settings, no path and no name."""
        return {
            "side": self.side,
            "freeze": self.freeze,
            "optimiser": self.optimiser,
            "lr": self.lr,
            "ema": self.ema,
            "mosaic with public pictures": self.augment.mosaic > 0,
        }
