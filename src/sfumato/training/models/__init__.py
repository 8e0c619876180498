"""Models that can be trained privately: small ones of our own, one file each, and timm's by name.

`build(**settings)` of a model takes, all by keyword and optional:

    classes: int     how many outputs
    channels: int    of the picture: 1 or 3, mostly
    size: int        side of the picture in pixels

and returns a `torch.nn.Module` from (images, channels, size, size) float32 to (images, classes), whose last
layer is `head` (a `torch.nn.Linear`). No image's output may depend on another image: contract tests check it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest
from sfumato.core.plugins import Catalogue

if TYPE_CHECKING:
    from torch import nn

CATALOGUE = Catalogue("model", "sfumato.training.models", "sfumato.training.models")
TIMM = "timm:"


def build(
    name: str, *, classes: int = 10, channels: int = 3, size: int = 32, pretrained: bool = False
) -> nn.Module:
    """Build a model by its name.

    >>> build("mnist-cnn", channels=1, size=28).head.out_features
    10

    Args:
        name: of the catalogue ("mnist-cnn", "wrn-16-4", "resnet18-gn", "vit-tiny"), or "timm:NAME".
        classes: number of outputs, at least 2.
        channels: of the picture, at least 1.
        size: side of the picture in pixels.
        pretrained: with timm, take its public weights; our own models have none.

    Raises:
        UnknownName: no such model; the nearest is suggested.
        MissingExtra: PyTorch or timm is not installed.
        InvalidRequest: a value out of range; timm cannot be loaded; weights that do not exist.
    """
    for what, value, least in (("classes", classes, 2), ("channels", channels, 1), ("size", size, 8)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidRequest(f"{what} must be a whole number of at least {least}, got {value!r}")
    if name.startswith(TIMM):
        from sfumato.training.models._timm import build as build_timm

        return build_timm(name.removeprefix(TIMM), classes=classes, channels=channels, pretrained=pretrained)
    if pretrained:
        raise InvalidRequest(
            f"there are no public weights for {name!r}: take a timm model ('timm:resnet18.a1_in1k'), or load "
            "your own with load_state_dict and train on"
        )
    model: nn.Module = CATALOGUE.build(name, classes=classes, channels=channels, size=size)
    return model
