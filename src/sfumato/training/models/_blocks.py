"""The pieces of the convolutional models; none mixes images."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional


class WithHead(nn.Module):
    """A body that makes features, and a linear head: `model.body(x)` gives the features."""

    def __init__(self, body: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(images, channels, side, side) to (images, classes)."""
        y: Tensor = self.head(self.body(x))
        return y


def with_head(body: nn.Module, width: int, classes: int) -> nn.Module:
    """Put a linear head on a body."""
    return WithHead(body, width, classes)


def group_norm(width: int, groups: int = 32) -> nn.Module:
    """GroupNorm with as many groups as divide the width, up to `groups`."""
    return nn.GroupNorm(math.gcd(width, groups), width)


def pooled() -> tuple[nn.Module, nn.Module]:
    """Average each image's map to one number per channel."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()


class PreActivation(nn.Module):
    """The block of a wide ResNet: norm and ReLU come before each convolution."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(before, 16), group_norm(after, 16)
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.past = None
        if before != after or stride != 1:
            self.past = nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve twice, beside a way past."""
        first = functional.relu(self.norm1(x))
        past = x if self.past is None else self.past(first)
        y: Tensor = past + self.conv2(functional.relu(self.norm2(self.conv1(first))))
        return y


class Residual(nn.Module):
    """The block of ResNet-18: norm and ReLU come after each convolution."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm1, self.norm2 = group_norm(after), group_norm(after)
        self.past: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.past = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), group_norm(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve twice, beside a way past."""
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.past(x))
