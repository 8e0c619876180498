"""ViT-Ti: a small vision transformer, without a class token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato.core.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import nn

SUMMARY = "vision transformer Ti/16, 5.5 million parameters; patches of 4 for pictures up to 64x64"
NEEDS = ("torch",)
EXTRA = "training"

WIDTH, DEPTH, HEADS = 192, 12, 3
#: Pictures up to this side get patches of 4 pixels: of 16, a 32x32 picture would have four.
SMALL = 64


def build(
    *, classes: int = 10, channels: int = 3, size: int = 224, depth: int = DEPTH, width: int = WIDTH
) -> nn.Module:
    """Build the ViT-Ti of Touvron et al. (2021): mean over patches in place of a class token.

    Args:
        classes, channels, size: as for every model; `size` a multiple of the patch.
        depth, width: blocks, and numbers per patch (a multiple of 64), for smaller ones still.

    Raises:
        InvalidRequest: the side is not a multiple of the patch, or the width not of 64.
    """
    from torch import nn

    from sfumato.training.models._blocks import with_head
    from sfumato.training.models._vit import Block, MeanOverPatches, Patches, Positions

    patch = 4 if size <= SMALL else 16
    if size % patch:
        raise InvalidRequest(f"vit-tiny needs a side that is a multiple of {patch} pixels, got {size}")
    if width % (WIDTH // HEADS):
        raise InvalidRequest(f"the width must be a multiple of {WIDTH // HEADS}, got {width}")
    heads = width // (WIDTH // HEADS)
    body = nn.Sequential(
        Patches(channels, width, patch),
        Positions((size // patch) ** 2, width),
        *(Block(width, heads) for _ in range(depth)),
        nn.LayerNorm(width, eps=1e-6),
        MeanOverPatches(),
    )
    return with_head(body, width, classes)
