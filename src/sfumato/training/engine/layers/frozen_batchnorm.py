"""Batch norm with frozen statistics: a scale and a shift of each channel, by constants and two parameters.

y = (x - mean) / sqrt(variance + eps) * w + b. Per image, the gradients of b and w are sums over the map:
of g, and of g times the normalised x, which is (sum of g x - mean * sum of g) / sqrt(variance + eps). So neither
the normalised input nor its gradient is ever written to memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.record import Op
from sfumato.training.engine.tape import Tape
from sfumato.training.engine.terms import Kept


class FrozenOp(Op):
    """A channel's scale and shift.

    Args:
        mean, variance: (C,) of each channel; no image moves them.
        eps: added to the variance.
    """

    def __init__(
        self,
        tape: Tape,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> None:
        self.tape, self.mean, self.variance, self.eps = tape, mean, variance, eps
        self.weight = None if weight is None else weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.sources = tape.use(tape.source(weight), tape.source(bias))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (x,) = inputs
        self.batch = len(x)
        y = F.batch_norm(x, self.mean, self.variance, self.weight, self.bias, False, 0.0, self.eps)
        return y, (x,) if self.sources[0] else ()

    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        weight, bias = self.sources
        scale = (self.variance + self.eps).rsqrt()
        exact = scale.dtype
        totals = _sum(g, exact)
        if weight:
            # One pass over both; sums are taken in the parameter's precision, also of half-precision maps.
            (x,) = saved
            products = _sum(g.to(exact) * x.to(exact), exact)
            self.tape.take(weight, Kept(weight.like((products - self.mean * totals) * scale)))
        if bias:
            self.tape.take(bias, Kept(bias.like(totals)))
        if not needed:
            return None
        factor = scale if self.weight is None else scale * self.weight
        return g * factor.to(g.dtype).view(-1, *[1] * (g.dim() - 2))


def _sum(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum (B, C, ...) over the map: (B, C)."""
    return rows.flatten(2).sum(2, dtype=dtype) if rows.dim() > 2 else rows.to(dtype)


def record(
    tape: Tape,
    input: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Record F.batch_norm with statistics that no image moves."""
    return FrozenOp(tape, mean, variance, weight, bias, eps)(input)
