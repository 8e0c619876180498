"""Per-image gradients of a convolution as those of a linear layer over its patches.

Source: the unfolding is that of Rochette, Manoel and Tramel (2019); the squared norms from it are those of
Bu, Mao and Xu, "Scalable and Efficient Training of Large Convolutional Neural Networks with DP" (2022).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.layers import gram
from sfumato.training.engine.layers.geometry import Geometry

#: Bytes of patches at a time, so that they are still in the cache when they are used.
CACHE = 2**21

#: Numbers that have to lie side by side for `per_image_pixels`.
RUN = 12

#: Inner products of patches are not offered where they cost so many times the multiplications of the
#: gradients.
WORTH = 2.0


def patches(x: Tensor, out: torch.Size, how: Geometry) -> Tensor:
    """Return (B * groups, numbers of a filter, positions)."""
    if any(how.padding):
        x = F.pad(x, [side for p in reversed(how.padding) for side in (p, p)])
    stride, kernel = how.stride[-1], how.weight[-1]
    if stride > 1 and kernel % stride == 0 and how.dilation[-1] == 1:
        return apart(x, out, how)
    x = x.contiguous()
    images, channels = x.shape[:2]
    steps = x.stride()[2:]
    view = x.as_strided(
        (images, channels, *how.weight[2:], *out),
        (
            *x.stride()[:2],
            *(step * d for step, d in zip(steps, how.dilation, strict=True)),
            *(step * s for step, s in zip(steps, how.stride, strict=True)),
        ),
        x.storage_offset(),
    )
    return view.reshape(images * how.groups, math.prod(how.weight[1:]), out.numel())


def apart(x: Tensor, out: torch.Size, how: Geometry) -> Tensor:
    """Return the same, with the pixels of a row laid out by their residue modulo the stride.

    What is copied then lies side by side, which is twice as fast.
    """
    stride = how.stride[-1]
    x = F.pad(x, (0, -x.shape[-1] % stride)).unfold(-1, stride, stride).mT.contiguous()
    images, channels = x.shape[:2]
    steps = x.stride()[2:-2]
    wide = x.shape[-1]
    view = x.as_strided(
        (images, channels, *how.weight[2:-1], how.weight[-1] // stride, stride, *out),
        (
            *x.stride()[:2],
            *(step * d for step, d in zip(steps, how.dilation, strict=False)),
            1,
            wide,
            *(step * s for step, s in zip(steps, how.stride, strict=False)),
            1,
        ),
    )
    return view.reshape(images * how.groups, math.prod(how.weight[1:]), out.numel())


def step_of(x: Tensor, g: Tensor, how: Geometry) -> int:
    """Return how many images to take at a time."""
    each = how.groups * math.prod(how.weight[1:]) * g.shape[2:].numel() * x.element_size()
    return max(1, CACHE // max(1, each))


def per_image(x: Tensor, g: Tensor, how: Geometry) -> Tensor:
    """Return (B, numbers) gradients."""
    images, step = len(x), step_of(x, g, how)
    out = x.new_empty(images * how.groups, how.weight[0] // how.groups, math.prod(how.weight[1:]))
    for first in range(0, images, step):
        few = g[first : first + step]
        rows = few.reshape(len(few) * how.groups, -1, few.shape[2:].numel())
        part = patches(x[first : first + step], g.shape[2:], how)
        torch.bmm(rows, part.mT, out=out[first * how.groups : (first + step) * how.groups])
    return out.view(images, -1)


def fits_pixels(how: Geometry) -> bool:
    """Return whether `per_image_pixels` knows this convolution, and copies runs of some length."""
    plain = not how.transposed and how.groups == 1 and how.dilation[-1] == 1
    return plain and how.weight[-1] * how.weight[1] >= RUN


def per_image_pixels(x: Tensor, g: Tensor, how: Geometry) -> Tensor:
    """Return (B, numbers) gradients with the channels last: `in_order` puts their sum in the weight's order.

    Channels last, the pixels of a kernel's row lie side by side, so that patches are copied in long runs.
    """
    images, step, channels = len(x), step_of(x, g, how), x.shape[1]
    out = x.new_empty(images, how.weight[0], math.prod(how.weight[1:]))
    sizes = [n + 2 * p for n, p in zip(x.shape[2:], how.padding, strict=True)]
    make = x.new_zeros if any(how.padding) else x.new_empty
    wide = make(min(step, images), *sizes, channels)
    inside = wide
    for dim, (n, p) in enumerate(zip(x.shape[2:], how.padding, strict=True)):
        inside = inside.narrow(1 + dim, p, n)
    steps, positions = wide.stride()[1:-1], g.shape[2:]
    for first in range(0, images, step):
        few = x[first : first + step]
        inside[: len(few)].copy_(few.movedim(1, -1))
        view = wide.as_strided(
            (len(few), *positions, *how.weight[2:-1], how.weight[-1] * channels),
            (
                wide.stride(0),
                *(n * s for n, s in zip(steps, how.stride, strict=True)),
                *(n * d for n, d in zip(steps[:-1], how.dilation, strict=False)),
                1,
            ),
        )
        part = view.reshape(len(few), positions.numel(), -1)
        torch.bmm(g[first : first + step].flatten(2), part, out=out[first : first + step])
    return out.view(images, -1)


def in_order(total: Tensor, how: Geometry) -> Tensor:
    """Return numbers that have the channels last in the order of the weight."""
    return total.view(how.weight[0], *how.weight[2:], how.weight[1]).movedim(-1, 1).flatten()


def fits(g: Tensor, how: Geometry, block: int) -> bool:
    """Return whether inner products of patches may pay."""
    positions, filters, numbers = block * g.shape[2:].numel(), how.weight[0], math.prod(how.weight[1:])
    grouped = filters // how.groups
    return not how.transposed and positions * (numbers + grouped) <= WORTH * numbers * grouped


def squares(x: Tensor, g: Tensor, how: Geometry, block: int) -> Tensor:
    """Return (U,) squared norms of the gradients of units of `block` images each."""
    units, step = len(x) // block, max(1, step_of(x, g, how) // block)
    out = x.new_empty(units)
    for first in range(0, units, step):
        few = slice(first * block, (first + step) * block)
        a, b = patches(x[few], g.shape[2:], how).mT, g[few].flatten(2)
        b = b.reshape(len(a), -1, b.shape[2]).mT
        if block > 1:
            a, b = beside(a, how.groups, block), beside(b, how.groups, block)
        out[first : first + step] = gram.squares(a, b).view(-1, how.groups).sum(1)
    return out


def beside(rows: Tensor, groups: int, block: int) -> Tensor:
    """Return the positions of a unit's images one after the other: (U * groups, K * T, numbers)."""
    positions, numbers = rows.shape[1:]
    wide = rows.reshape(-1, block, groups, positions, numbers).transpose(1, 2)
    return wide.reshape(-1, block * positions, numbers)
