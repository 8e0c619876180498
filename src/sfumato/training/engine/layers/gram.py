"""Squared norms from inner products of positions, without the gradients themselves.

For a gradient sum_t x_t g_t^T the squared norm is sum_{t,s} (x_t . x_s)(g_t . g_s). Terms of both signs may
cancel, and rounding would then make the norm too small: a pad of some roundings of (sum_t |x_t||g_t|)^2 is
added, so that the clipped length stays inside the bound.

Source: Goodfellow, "Efficient per-example gradient computations" (2015); Li et al. (2022) for sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.training.engine.terms import SCRATCH

#: Roundings that the pad covers.
ROUNDINGS = 2.0


def pad(x_squares: Tensor, g_squares: Tensor) -> Tensor:
    """Return (B,) the pad, from squared lengths (B, T) of positions."""
    reach = (x_squares.clamp_min(0) * g_squares.clamp_min(0)).sqrt().sum(1)
    return ROUNDINGS * torch.finfo(reach.dtype).eps * reach * reach


def squares(x: Tensor, g: Tensor) -> Tensor:
    """Return (B,) squared norms of the gradients sum_t x_t g_t^T.

    Args:
        x: (B, T, d). g: (B, T, p).
    """
    rows, positions = x.shape[:2]
    if positions == 1:
        return x[:, 0].square().sum(1) * g[:, 0].square().sum(1)
    out = x.new_empty(rows)
    size = max(1, SCRATCH // (2 * positions * positions * x.element_size()))
    for first in range(0, rows, size):
        a, b = x[first : first + size], g[first : first + size]
        aa, bb = torch.bmm(a, a.mT), torch.bmm(b, b.mT)
        padding = pad(aa.diagonal(dim1=1, dim2=2), bb.diagonal(dim1=1, dim2=2))
        out[first : first + size] = aa.mul_(bb).sum((1, 2)) + padding
    return out
