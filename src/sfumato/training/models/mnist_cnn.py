"""The small CNN that papers on private training compare with, for 28x28 pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import nn

SUMMARY = "two convolutions with tanh, 26,000 parameters; for 28x28 pictures"
NEEDS = ("torch",)
EXTRA = "training"


def build(*, classes: int = 10, channels: int = 1, size: int = 28) -> nn.Module:
    """Build the CNN of Papernot et al. (2021), in the sizes of Tramer and Boneh (2021).

    Tanh keeps activations, and so gradients, bounded: it loses less to clipping than ReLU does.

    Raises:
        InvalidRequest: the picture is too small for it.
    """
    from torch import nn

    from sfumato.training.models._blocks import with_head

    first = (size + 4 - 8) // 2 + 1 - 1
    second = (first - 4) // 2 + 1 - 1
    if second < 1:
        raise InvalidRequest(f"mnist-cnn needs pictures of at least 16 pixels a side, got {size}")
    body = nn.Sequential(
        nn.Conv2d(channels, 16, 8, stride=2, padding=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(32 * second * second, 32),
        nn.Tanh(),
    )
    return with_head(body, 32, classes)
