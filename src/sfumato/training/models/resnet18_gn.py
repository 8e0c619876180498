"""ResNet-18 with GroupNorm."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SUMMARY = "ResNet-18 with GroupNorm, 11 million parameters; a small stem for pictures up to 64x64"
NEEDS = ("torch",)
EXTRA = "training"

#: Up to this side, the first convolution keeps the size: 32x32 pictures would be 1x1 before the last stage.
SMALL = 64


def build(*, classes: int = 10, channels: int = 3, size: int = 32) -> nn.Module:
    """Build the ResNet-18 of He et al. (2016), with GroupNorm of 32 groups in place of BatchNorm."""
    from torch import nn

    from sfumato.training.models._blocks import Residual, group_norm, pooled, with_head

    small = size <= SMALL
    stem = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    if not small:
        stem = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    parts: list[nn.Module] = [stem, group_norm(64), nn.ReLU()]
    if not small:
        parts.append(nn.MaxPool2d(3, stride=2, padding=1))
    widths = (64, 64, 128, 256, 512)
    for index, (before, after) in enumerate(pairwise(widths)):
        parts += [Residual(before, after, stride=1 if index == 0 else 2), Residual(after, after)]
    return with_head(nn.Sequential(*parts, *pooled()), widths[-1], classes)
