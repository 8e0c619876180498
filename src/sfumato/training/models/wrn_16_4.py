"""Wide ResNet 16-4 with GroupNorm, for 32x32 pictures."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SUMMARY = "wide ResNet 16-4 with GroupNorm, 2.8 million parameters; for 32x32 pictures"
NEEDS = ("torch",)
EXTRA = "training"


def build(*, classes: int = 10, channels: int = 3, size: int = 32) -> nn.Module:
    """Build the wide ResNet of Zagoruyko and Komodakis (2016), with 16 groups (De et al., 2022)."""
    from torch import nn

    from sfumato.training.models._blocks import PreActivation, group_norm, pooled, with_head

    widths = (16, 64, 128, 256)
    parts: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)]
    for index, (before, after) in enumerate(pairwise(widths)):
        parts += [PreActivation(before, after, stride=1 if index == 0 else 2), PreActivation(after, after)]
    parts += [group_norm(widths[-1], 16), nn.ReLU(), *pooled()]
    return with_head(nn.Sequential(*parts), widths[-1], classes)
