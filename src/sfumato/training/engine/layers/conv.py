"""Convolutions and transposed convolutions in one to three dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import Kept, Kernel, Term, bytes_of, cleared, scaled


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution walks over its input; every tuple has a number per spatial dimension."""

    weight: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False
    extra: tuple[int, ...] = ()

    def backward(
        self, g: Tensor, x: Tensor, weight: Tensor, mask: tuple[bool, bool], groups: int = 0
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of input and weight, each where asked for."""
        out = torch.ops.aten.convolution_backward(
            g,
            x,
            weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.extra or (0,) * len(self.stride),
            groups or self.groups,
            (*mask, False),
        )
        return out[0], out[1]


class ConvTerm(Term):
    """The weight's gradient of each image.

    Args:
        x: (B, C, ...). g: (B, p, ...). how: the convolution.
    """

    def __init__(self, x: Tensor, g: Tensor, how: Geometry) -> None:
        self.x, self.g, self.how = x, g, how
        self.images = len(x)
        self.bytes = bytes_of(x, g)

    def per_image(self) -> Tensor:
        """Return gradients with the batch folded into the groups: one call, no unfolding."""
        images, how = self.images, self.how
        x = self.x.reshape(1, -1, *self.x.shape[2:])
        g = self.g.reshape(1, -1, *self.g.shape[2:])
        shape = (images * how.weight[0], *how.weight[1:])
        weight = x.new_empty(1).expand(shape)
        _, out = how.backward(g, x, weight, (False, True), images * how.groups)
        assert out is not None
        return out.reshape(images, -1)

    def total(self, weights: Tensor) -> Tensor:
        weight = self.x.new_empty(1).expand(self.how.weight)
        _, out = self.how.backward(scaled(self.g, weights), self.x, weight, (False, True))
        assert out is not None
        return out

    def select(self, images: Tensor | slice) -> Term:
        return ConvTerm(self.x[images], self.g[images], self.how)

    def without(self, bad: Tensor) -> Term:
        return ConvTerm(cleared(self.x, bad), cleared(self.g, bad), self.how)

    def key(self) -> tuple[object, ...]:
        return ("conv", self.how, *self.x.shape[1:])

    def kernels(self, grouping: Grouping) -> list[Kernel]:
        return [Kernel("groups", True, lambda: grouping.gather(self.per_image()))]


class ConvOp(Op):
    """A convolution whose geometry is known."""

    def __init__(
        self, tape: Tape, weight: Tensor, bias: Tensor | None, sources: Sequence[Source | None], how: Geometry
    ) -> None:
        self.tape, self.how = tape, how
        self.weight, self.bias = weight, bias
        self.sources = tape.use(*sources)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (x,) = inputs
        how, dims = self.how, len(self.how.stride)
        self.batch = x.shape[0]
        if how.transposed:
            function: Callable[..., Tensor] = (
                F.conv_transpose1d,
                F.conv_transpose2d,
                F.conv_transpose3d,
            )[dims - 1]
            more: tuple[Any, ...] = (how.stride, how.padding, how.extra, how.groups, how.dilation)
        else:
            function = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
            more = (how.stride, how.padding, how.dilation, how.groups)
        return function(x, self.weight, self.bias, *more), (x,)

    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        weight, bias = self.sources
        (x,) = saved
        if bias:
            self.tape.take(bias, Kept(bias.like(g).flatten(2).sum(2)))
        if weight:
            self.tape.take(weight, ConvTerm(weight.like(x), weight.like(g), self.how))
        if not needed:
            return None
        dx, _ = self.how.backward(g, x.to(g.dtype), self.weight.to(g.dtype), (True, False))
        assert dx is not None
        return dx.to(x.dtype)


def each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Return a number for each spatial dimension."""
    many = (value,) if isinstance(value, int) else tuple(value)
    return many * dims if len(many) == 1 else many


@handles(F.conv1d, F.conv2d, F.conv3d)
def convolution(
    tape: Tape,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Record F.conv1d to F.conv3d."""
    dims = weight.dim() - 2
    if input.dim() != weight.dim() or not tape.fixed(weight, bias) or not tape.batched(input):
        return None
    steps, holes = each(stride, dims), each(dilation, dims)
    if isinstance(padding, str):
        reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(holes, weight.shape[2:], strict=True)]
        if any(r % 2 for r in reach):
            # More on the right, as PyTorch does.
            input = F.pad(input, [side for r in reversed(reach) for side in (r // 2, r - r // 2)])
            reach = [0] * dims
        edges = tuple(r // 2 for r in reach)
    else:
        edges = each(padding, dims)
    how = Geometry(tuple(weight.shape), steps, edges, holes, groups)
    return record(tape, input, weight, bias, how)


@handles(F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
def transposed(
    tape: Tape,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor | None:
    """Record F.conv_transpose1d to F.conv_transpose3d."""
    dims = weight.dim() - 2
    if input.dim() != weight.dim() or not tape.fixed(weight, bias) or not tape.batched(input):
        return None
    shape = tuple(weight.shape)
    sizes = [each(value, dims) for value in (stride, padding, dilation)]
    how = Geometry(shape, *sizes, groups, True, each(output_padding, dims))
    return record(tape, input, weight, bias, how)


def record(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, how: Geometry) -> Tensor:
    """Record a convolution."""
    plain = None if bias is None else bias.detach()
    return ConvOp(tape, weight.detach(), plain, (tape.source(weight), tape.source(bias)), how)(input)
