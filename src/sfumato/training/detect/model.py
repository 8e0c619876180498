"""A detector made ready for private training: what is frozen, and what is trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sfumato.core.errors import InvalidRequest
from sfumato.training.detect import _ultralytics as yolo

#: Names for how many of the first layers stay as they are.
FREEZE = ("nothing", "backbone", "neck")


def open_detector(detector: str | Path, names: dict[int, str]) -> nn.Module:
    """Return a detector with an output for each class: from a `.pt` file, or untrained from a `.yaml` name.

    Args:
        detector: a file, the name of one in the model cache ("yolo26n.pt"), or a configuration of
            Ultralytics ("yolo26n.yaml"). A file's weights and statistics must come from PUBLIC data.
        names: class names by number.

    Raises:
        MissingExtra, MissingModel: Ultralytics or the file is not on this machine.
        InvalidRequest: it is no detector.
    """
    given = str(detector)
    if given.endswith(".yaml"):
        model: Any = yolo.build(given, len(names))
        model.names = dict(names)
        return yolo.trainable(model)
    if not given.endswith(".pt"):
        raise InvalidRequest(f"a detector is a .pt file or a name such as yolo26n.yaml, got {given!r}")
    return yolo.adapted(yolo.load(_found(given)), names)


def origin(detector: str | Path) -> dict[str, str]:
    """Return what a receipt says of the weights that training began with: no path."""
    if str(detector).endswith(".yaml"):
        return {"name": str(detector), "weights": "untrained"}
    from sfumato.vision import models

    known = models.load("yolo26", _found(str(detector))).weights
    return {"name": known.name, "sha256": known.sha256, "licence": known.licence}


def _found(given: str) -> Path:
    """Return the file, or the one of that name in the model cache, checked by its hash."""
    from sfumato.vision import models

    if not Path(given).exists():
        for one in models.REGISTRY:
            if one.file == given:
                return models.path(one.name)
    return Path(given)


def prepare(model: nn.Module, freeze: str | int = "nothing") -> nn.Module:
    """Set a detector to private training: normalisation by frozen statistics, layers frozen as asked.

    In training mode a BatchNorm layer mixes the pictures of a batch, so that no picture has a gradient of its
    own. With its statistics frozen, as they were at public pre-training, it is a scale and a shift of every
    channel by constants, and its weight and bias are trained like any other.

    Args:
        model: as opened; it is changed.
        freeze: "nothing", "backbone", "neck" (all but the head), or a number of first layers.

    Raises:
        InvalidRequest: no such choice, or nothing is left to train.
    """
    layers: Any = model.model
    for layer in layers[: _frozen(model, freeze)]:
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidRequest(f"freeze={freeze!r} leaves nothing to train")
    model.train()
    for module in normalisers(model):
        module.eval()
    return model


class Steady(nn.Module):
    """A detector in training mode whose normalisation stays frozen, whoever calls `train()`.

    Args:
        detector: as `prepare` left it.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def train(self, mode: bool = True) -> Steady:
        """Set the mode of everything but the BatchNorm layers, which stay in eval mode."""
        super().train(mode)
        for module in normalisers(self):
            module.eval()
        return self

    def forward(self, pixels: Tensor) -> Any:
        """Return the raw outputs of the heads."""
        return self.detector(pixels)


def normalisers(model: nn.Module) -> Iterator[nn.modules.batchnorm._BatchNorm]:
    """Yield the BatchNorm layers."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield module


def _frozen(model: nn.Module, freeze: str | int) -> int:
    """Return how many of the first layers are frozen."""
    detector: Any = model
    count = len(detector.model)
    if isinstance(freeze, int) and not isinstance(freeze, bool) and 0 <= freeze < count:
        return freeze
    named = {"nothing": 0, "backbone": len(detector.yaml["backbone"]), "neck": count - 1}
    if not isinstance(freeze, str) or freeze not in named:
        raise InvalidRequest(
            f"freeze must be one of {', '.join(FREEZE)}, or a number of layers below {count}; got {freeze!r}"
        )
    return named[freeze]
