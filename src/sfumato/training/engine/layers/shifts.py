"""Squared norms of a convolution's gradients from inner products of pixels, without the gradients.

The gradient at one place of the kernel is sum_t x_{st+o} g_t^T, with an offset o. Its squared norm sums
(x_{st+o} . x_{st'+o})(g_t . g_t') over pairs of output pixels, and the first factor is the same table of
inner products of input pixels for every offset, only shifted. So the table is taken once (once per residue of
the offset modulo the stride), its shifted parts are added up, and the sum meets the table of g: T^2 (C + p)
multiplications instead of T^2 (k^2 C + p), or of T k^2 C p for the gradients themselves.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from sfumato.training.engine.layers import gram
from sfumato.training.engine.layers.geometry import Geometry

#: Bytes of tables at a time; they are read many times over, and so should stay in the cache.
CACHE = 2**21

#: Bytes of one unit's tables above which they are not offered.
LARGEST = 2**24

#: Not offered where tables cost so many times the multiplications of the gradients themselves.
WORTH = 2.0


def fits(x: Tensor, g: Tensor, how: Geometry, block: int) -> bool:
    """Return whether tables may pay and stay small."""
    if how.transposed:
        return False
    inner, outer = block * x.shape[2:].numel(), block * g.shape[2:].numel()
    if (inner * inner + 2 * outer * outer) * how.groups * x.element_size() > LARGEST:
        return False
    table = outer * outer * (x.shape[1] + g.shape[1] + 2 * math.prod(how.weight[2:]) * how.groups)
    return table <= WORTH * outer * block * math.prod(how.weight)


def squares(x: Tensor, g: Tensor, how: Geometry, block: int) -> Tensor:
    """Return (U,) squared norms of the gradients of units of `block` images each.

    Args:
        x: (B, C, ...). g: (B, p, ...).
    """
    units = len(x) // block
    inner, outer = block * x.shape[2:].numel(), block * g.shape[2:].numel()
    each = (inner * inner + 2 * outer * outer) * how.groups * x.element_size()
    size = max(1, CACHE // each)
    out = x.new_empty(units)
    for first in range(0, units, size):
        part = slice(first * block, min(first + size, units) * block)
        out[first : first + size] = some(x[part], g[part], how, block)
    return out


def some(x: Tensor, g: Tensor, how: Geometry, block: int) -> Tensor:
    """Return squared norms of a few units."""
    sizes = g.shape[2:]
    of_g = table(g, how.groups, block)
    total = torch.zeros_like(of_g)
    for residues, offsets in places(how).items():
        cut = x[
            (
                slice(None),
                slice(None),
                *(slice(r, None, s) for r, s in zip(residues, how.stride, strict=True)),
            )
        ]
        if 0 in cut.shape:
            continue
        of_x = table(cut, how.groups, block)
        for shift in offsets:
            here: list[slice] = []
            there: list[slice] = []
            for q, out, n in zip(shift, sizes, cut.shape[2:], strict=True):
                low, high = max(0, -q), min(out, n - q)
                here.append(slice(low, high))
                there.append(slice(low + q, high + q))
            if all(part.start < part.stop for part in here):
                cut_out(total, here).add_(cut_out(of_x, there))
    pixels = block * sizes.numel()
    total, of_g = total.view(-1, pixels, pixels), of_g.view(-1, pixels, pixels)
    padding = gram.pad(total.diagonal(dim1=1, dim2=2), of_g.diagonal(dim1=1, dim2=2))
    found = total.mul_(of_g).sum((1, 2)) + padding
    return found.view(-1, how.groups).sum(1)


def cut_out(rows: Tensor, pixels: list[slice]) -> Tensor:
    """Return a part of a table, (U * groups, K, ..., K, ...), by the same pixels on both sides."""
    for side in (2, 3 + len(pixels)):
        for dim, part in enumerate(pixels):
            rows = rows.narrow(side + dim, part.start, part.stop - part.start)
    return rows


def places(how: Geometry) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """Return residue modulo the stride -> shifts in steps of the stride, over all places of the kernel."""
    found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in itertools.product(*(range(k) for k in how.weight[2:])):
        offset = [i * d - p for i, d, p in zip(place, how.dilation, how.padding, strict=True)]
        residues = tuple(o % s for o, s in zip(offset, how.stride, strict=True))
        shift = tuple(o // s for o, s in zip(offset, how.stride, strict=True))
        found.setdefault(residues, []).append(shift)
    return found


def table(rows: Tensor, groups: int, block: int) -> Tensor:
    """Return inner products of pixels, (U * groups, K, ..., K, ...), over the channels of a group.

    Args:
        rows: (U * K, channels, ...).
    """
    shape = rows.shape[2:]
    if block == 1:
        flat = rows.reshape(len(rows) * groups, -1, shape.numel())
        out = torch.bmm(flat.mT, flat)
    else:
        wide = rows.reshape(-1, block, groups, rows.shape[1] // groups, shape.numel())
        flat = wide.permute(0, 2, 3, 1, 4).reshape(-1, rows.shape[1] // groups, block * shape.numel())
        out = torch.bmm(flat.mT, flat)
    return out.view(-1, block, *shape, block, *shape)
