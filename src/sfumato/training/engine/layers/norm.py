"""Norms over one image: group, layer, instance and RMS norm, and batch norm whose statistics are frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.layers import frozen_batchnorm
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import Kept


class NormOp(Op):
    """y = normalised(x) * w + b, with the normalised input's gradient by autograd's own formulas.

    Args:
        plain: x -> normalised x, without parameters.
        channels: the parameter's first dimension in the input: 1 (B, C, ...), or -n for the last n.
    """

    def __init__(
        self,
        tape: Tape,
        plain: Callable[[Tensor], Tensor],
        weight: Tensor | None,
        bias: Tensor | None,
        channels: int,
        batch: int,
    ) -> None:
        self.tape, self.plain, self.batch = tape, plain, batch
        self.weight = None if weight is None else weight.detach()
        self.bias = None if bias is None else bias.detach()
        self.channels = channels
        self.sources = tape.use(tape.source(weight), tape.source(bias))

    def wide(self, value: Tensor, dims: int) -> Tensor:
        """Return a parameter in the input's dimensions."""
        return value.view(-1, *[1] * (dims - 2)) if self.channels == 1 else value

    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (x,) = inputs
        y = self.plain(x)
        if self.weight is not None:
            y = y * self.wide(self.weight, y.dim())
        if self.bias is not None:
            y = y + self.wide(self.bias, y.dim())
        return y, (x,)

    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        weight, bias = self.sources
        with torch.enable_grad():
            x = saved[0].detach().requires_grad_(needed)
            y = self.plain(x)
        if bias:
            self.tape.take(bias, Kept(self.sums(bias, bias.like(g))))
        if weight:
            self.tape.take(weight, Kept(self.sums(weight, weight.like(g) * weight.like(y.detach()))))
        if not needed:
            return None
        up = g if self.weight is None else g * self.wide(self.weight, g.dim()).to(g.dtype)
        (dx,) = torch.autograd.grad(y, x, up.to(y.dtype))
        return dx

    def sums(self, source: Source, rows: Tensor) -> Tensor:
        """Sum rows over everything but image and parameter."""
        if self.channels == 1:
            return rows.flatten(2).sum(2) if rows.dim() > 2 else rows
        return rows.reshape(self.batch, -1, source.tensor.numel()).sum(1)


@handles(F.group_norm, torch.group_norm)
def group_norm(
    tape: Tape,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.group_norm."""
    if input.dim() < 2 or not tape.fixed(weight, bias):
        return None
    return NormOp(tape, lambda x: F.group_norm(x, num_groups, None, None, eps), weight, bias, 1, len(input))(
        input
    )


@handles(F.layer_norm, torch.layer_norm)
def layer_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.layer_norm."""
    shape = list(normalized_shape)
    if input.dim() <= len(shape) or not tape.fixed(weight, bias):
        return None
    return NormOp(
        tape, lambda x: F.layer_norm(x, shape, None, None, eps), weight, bias, -len(shape), len(input)
    )(input)


@handles(F.rms_norm, torch.rms_norm)
def rms_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor | None:
    """Record F.rms_norm."""
    shape = list(normalized_shape)
    if input.dim() <= len(shape) or not tape.fixed(weight):
        return None
    return NormOp(tape, lambda x: F.rms_norm(x, shape, None, eps), weight, None, -len(shape), len(input))(input)


@handles(F.instance_norm, torch.instance_norm)
def instance_norm(
    tape: Tape,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.instance_norm with the statistics of the image itself."""
    if input.dim() < 3 or not tape.fixed(weight, bias):
        return None
    found = [source for source in (tape.source(weight), tape.source(bias)) if source]
    if not use_input_stats and running_mean is not None and running_var is not None:
        return frozen(tape, input, running_mean, running_var, weight, bias, eps)
    if running_mean is not None:
        raise tape.refuse(
            found,
            "its instance norm keeps running statistics of the images, which would leave without noise: set "
            "track_running_stats=False",
        )
    return NormOp(tape, lambda x: F.group_norm(x, x.shape[1], None, None, eps), weight, bias, 1, len(input))(input)


@handles(F.batch_norm, torch.batch_norm)
def batch_norm(
    tape: Tape,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: object,
) -> Tensor | None:
    """Record F.batch_norm with frozen statistics; with those of the batch it is refused."""
    found = [source for source in (tape.source(weight), tape.source(bias)) if source]
    if training or running_mean is None or running_var is None:
        raise tape.refuse(
            found,
            "its batch norm takes the statistics of the batch, so that each image changes every image's gradient: "
            "freeze or replace it",
        )
    if not tape.fixed(weight, bias):
        return None
    return frozen(tape, input, running_mean, running_var, weight, bias, eps)


def frozen(
    tape: Tape,
    input: Tensor,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Tensor:
    """Record a norm with statistics that no image moves."""
    return frozen_batchnorm.record(tape, input, mean, variance, weight, bias, eps)
