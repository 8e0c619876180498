"""The pieces of a vision transformer, in layers that the engine knows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Patches(nn.Module):
    """Pictures to patches: (images, channels, side, side) to (images, patches, width)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """Cut and project."""
        y: Tensor = self.projection(x)
        return y.flatten(2).transpose(1, 2)


class Positions(nn.Module):
    """Adds what is learnt about each position; by itself, so that its gradient is this module's alone."""

    def __init__(self, patches: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, patches, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions to (images, patches, width)."""
        return x + self.weight


class Attention(nn.Module):
    """Attention between the patches of one image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each image of (images, patches, width)."""
        images, patches, width = x.shape
        parts = self.qkv(x).reshape(images, patches, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.projection(mixed.transpose(1, 2).reshape(images, patches, width))
        return y


class Block(nn.Module):
    """Attention and a small network, each after LayerNorm and beside a way past."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (images, patches, width)."""
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class MeanOverPatches(nn.Module):
    """(images, patches, width) to (images, width)."""

    def forward(self, x: Tensor) -> Tensor:
        """Average each image's patches."""
        return x.mean(1)
