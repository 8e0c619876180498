"""Squared norms of a convolution's gradients from inner products of pixels, without the gradients.

The gradient at one place of the kernel is sum_t x_{st+o} g_t^T, with an offset o. Its squared norm sums
(x_{st+o} . x_{st'+o})(g_t . g_t') over pairs of output pixels, and the first factor is the same table of
inner products of input pixels for every offset, only shifted. So the table is taken once (once per residue of
the offset modulo the stride), its shifted parts are added up, one dimension after the other, and the sum
meets g: T^2 (C + p) multiplications instead of T^2 (k^2 C + p), or of T k^2 C p for the gradients themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sfumato.training.engine.layers import gram
from sfumato.training.engine.layers.geometry import Geometry

#: Bytes of tables at a time: at least, and at most; between the two, what the images of the layer take.
#: Fewer and longer parts are quicker on several threads, in spite of caches.
LEAST, MOST = 2**21, 2**24

#: Bytes of one unit's tables above which they are not offered.
LARGEST = 2**24

#: Not offered where tables cost so many times the multiplications of the gradients themselves.
WORTH = 2.0


Places = list[tuple[tuple[int, ...], tuple[list[int], ...]]]


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
    tables = (inner * inner + 2 * outer * outer) * how.groups + outer * g.shape[1]
    room = min(max(LEAST, (x.numel() + g.numel()) * x.element_size()), MOST)
    size = max(1, room // (tables * x.element_size()))
    found, out = places(how), x.new_empty(units)
    for first in range(0, units, size):
        part = slice(first * block, min(first + size, units) * block)
        out[first : first + size] = some(x[part], g[part], how, block, found)
    return out


def some(x: Tensor, g: Tensor, how: Geometry, block: int, found: Places) -> Tensor:
    """Return squared norms of a few units."""
    sizes = g.shape[2:]
    pixels = block * sizes.numel()
    total: Tensor | None = None
    for residues, shifts in found:
        cut = x
        if any(s > 1 for s in how.stride):
            cut = x[
                (
                    slice(None),
                    slice(None),
                    *(slice(r, None, s) for r, s in zip(residues, how.stride, strict=True)),
                )
            ]
        if 0 in cut.shape:
            continue
        rows = table(cut, how.groups, block)
        for dim, (along, out) in enumerate(zip(shifts, sizes, strict=True)):
            rows = added(rows, along, out, 2 + dim, 3 + dim + len(sizes))
        total = rows if total is None else total.add_(rows)
    flat = beside(g, how.groups, block)
    if total is None:
        return g.new_zeros(len(g) // block)
    # <T, G^T G> = <G T, G>: as many multiplications as the table of g, and fewer numbers to meet.
    total = total.reshape(-1, pixels, pixels)
    padding = gram.pad(total.diagonal(dim1=1, dim2=2), flat.square().sum(1))
    lengths = torch.bmm(flat, total).mul_(flat).sum((1, 2)) + padding
    return lengths.view(-1, how.groups).sum(1)


def added(rows: Tensor, shifts: Sequence[int], out: int, first: int, second: int) -> Tensor:
    """Return the sum of a table's shifted parts along one dimension of the pixels, `out` long.

    Shifts of several dimensions are all combinations of those of each, so the dimensions go one by one.
    """
    size = rows.shape[first]
    shape = list(rows.shape)
    shape[first] = shape[second] = out
    total: Tensor | None = None
    # One that covers all comes first, and is copied.
    for shift in sorted(shifts, key=abs):
        low, high = max(0, -shift), min(out, size - shift)
        if low >= high:
            continue
        whole = high - low == out
        part = rows
        if high - low < size:
            part = rows.narrow(first, low + shift, high - low).narrow(second, low + shift, high - low)
        if total is None and whole:
            if len(shifts) == 1:
                return part.contiguous()
            total = part.clone(memory_format=torch.contiguous_format)
            continue
        if total is None:
            total = rows.new_zeros(shape)
        here = total if whole else total.narrow(first, low, high - low).narrow(second, low, high - low)
        here.add_(part)
    return rows.new_zeros(shape) if total is None else total


def places(how: Geometry) -> Places:
    """Return (residues modulo the stride, shifts in steps of the stride), each for every dimension."""
    dims: list[list[tuple[int, list[int]]]] = []
    for k, d, p, s in zip(how.weight[2:], how.dilation, how.padding, how.stride, strict=True):
        found: dict[int, list[int]] = {}
        for place in range(k):
            offset = place * d - p
            found.setdefault(offset % s, []).append(offset // s)
        dims.append(list(found.items()))
    return [
        (tuple(residue for residue, _ in chosen), tuple(shifts for _, shifts in chosen))
        for chosen in itertools.product(*dims)
    ]


def table(rows: Tensor, groups: int, block: int) -> Tensor:
    """Return inner products of pixels, (U * groups, K, ..., K, ...), over the channels of a group.

    Args:
        rows: (U * K, channels, ...).
    """
    shape = rows.shape[2:]
    flat = beside(rows, groups, block)
    return torch.bmm(flat.mT, flat).view(-1, block, *shape, block, *shape)


def beside(rows: Tensor, groups: int, block: int) -> Tensor:
    """Return (U * groups, channels of a group, K * pixels) of rows (U * K, channels, ...)."""
    pixels, channels = rows.shape[2:].numel(), rows.shape[1] // groups
    if block == 1:
        return rows.reshape(len(rows) * groups, channels, pixels)
    wide = rows.reshape(-1, block, groups, channels, pixels)
    return wide.permute(0, 2, 3, 1, 4).reshape(-1, channels, block * pixels)
