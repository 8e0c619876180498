"""Convolutions and transposed convolutions in one to three dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from typing_extensions import override

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.layers import shifts, unfold
from sfumato.training.engine.layers.geometry import Geometry
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import SCRATCH, Kept, Kernel, Term, cleared, scaled

#: Channels of a group, below which the batch is not folded into the groups (but for depthwise ones).
FEW = 8


class ConvTerm(Term):
    """The weight's gradient of each image.

    Args:
        x: (B, C, ...). g: (B, p, ...). how: the convolution.
    """

    def __init__(self, x: Tensor, g: Tensor, how: Geometry) -> None:
        super().__init__(x, g)
        self.x, self.g, self.how = x, g, how

    @override
    def per_image(self) -> Tensor:
        return folded(self.x, self.g, self.how)

    @override
    def total(self, weights: Tensor) -> Tensor:
        weight = self.x.new_empty(1).expand(self.how.weight)
        _, out = self.how.backward(scaled(self.g, weights), self.x, weight, (False, True))
        assert out is not None
        return out

    @override
    def select(self, images: Tensor | slice) -> Term:
        return ConvTerm(self.x[images], self.g[images], self.how)

    @override
    def without(self, bad: Tensor) -> Term:
        return ConvTerm(cleared(self.x, bad), cleared(self.g, bad), self.how)

    @override
    def key(self) -> tuple[object, ...]:
        return ("conv", self.how, *self.x.shape[1:])

    @override
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        # The library pads the channels of each group to the width of a register.
        few = not self.how.transposed and self.how.weight[1] < FEW and self.how.weight[0] > self.how.groups
        out = [
            Kernel("groups", True, lambda: grouping.gather(folded(self.x, self.g, self.how)), heavy=few),
            Kernel("loop", True, lambda: looped(self.x, self.g, self.how, grouping)),
        ]
        if not self.how.transposed:
            out.append(
                Kernel("unfold", True, lambda: grouping.gather(unfold.per_image(self.x, self.g, self.how)))
            )
        if unfold.fits_pixels(self.how):
            pixels = Kernel(
                "pixels",
                True,
                lambda: grouping.gather(unfold.per_image_pixels(self.x, self.g, self.how)),
                lambda total: unfold.in_order(total, self.how),
            )
            out.append(pixels)
        if grouping.block and unfold.fits(self.g, self.how, grouping.block):
            squares = Kernel(
                "unfold gram", False, lambda: unfold.squares(self.x, self.g, self.how, grouping.block)
            )
            out.append(squares)
        if grouping.block and shifts.fits(self.x, self.g, self.how, grouping.block):
            shifted = Kernel(
                "shifts", False, lambda: shifts.squares(self.x, self.g, self.how, grouping.block)
            )
            out.append(shifted)
        return out


def folded(x: Tensor, g: Tensor, how: Geometry) -> Tensor:
    """Return (B, numbers) gradients with the batch folded into the groups: no unfolding."""
    numbers = math.prod(how.weight)
    out = x.new_empty(len(x), numbers)
    # A part at a time: the library lays the result out in its own way first, in memory of its own.
    step = max(1, SCRATCH // (2 * numbers * x.element_size()))
    for first in range(0, len(x), step):
        a, b = x[first : first + step], g[first : first + step]
        images = len(a)
        weight = x.new_empty(1).expand(images * how.weight[0], *how.weight[1:])
        a, b = a.reshape(1, -1, *a.shape[2:]), b.reshape(1, -1, *b.shape[2:])
        _, part = how.backward(b, a, weight, (False, True), images * how.groups)
        assert part is not None
        if images == len(x):
            return part.reshape(images, -1)
        out[first : first + step] = part.view(images, -1)
    return out


def looped(x: Tensor, g: Tensor, how: Geometry, grouping: Grouping) -> Tensor:
    """Return (U, numbers) gradients by a plain weight gradient for each unit."""
    weight = x.new_empty(1).expand(how.weight)
    out = x.new_empty(grouping.units, weight.numel())
    of_image = grouping.index
    for unit, row in enumerate(out):
        if of_image is None:
            images: Tensor | slice = slice(unit * grouping.block, (unit + 1) * grouping.block)
        else:
            images = (of_image == unit).nonzero().flatten()
        _, one = how.backward(g[images], x[images], weight, (False, True))
        assert one is not None
        row.copy_(one.reshape(-1))
    return out


class ConvOp(Op):
    """A convolution whose geometry is known."""

    def __init__(
        self, tape: Tape, weight: Tensor, bias: Tensor | None, sources: Sequence[Source | None], how: Geometry
    ) -> None:
        self.tape, self.how = tape, how
        self.weight, self.bias = weight, bias
        self.sources = tape.use(*sources)

    @override
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

    @override
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
        reach = [
            d * (k - 1) if padding == "same" else 0 for d, k in zip(holes, weight.shape[2:], strict=True)
        ]
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
    *rest: Any,
    **named: Any,
) -> Tensor | None:
    """Record F.conv_transpose1d to F.conv_transpose3d."""
    more = dict(zip(("groups", "dilation"), rest, strict=False)) | named
    groups, dilation = more.get("groups", 1), more.get("dilation", 1)
    dims = weight.dim() - 2
    if input.dim() != weight.dim() or not tape.fixed(weight, bias) or not tape.batched(input):
        return None
    shape = tuple(weight.shape)
    steps, edges, holes = (each(value, dims) for value in (stride, padding, dilation))
    how = Geometry(shape, steps, edges, holes, groups, True, each(output_padding, dims))
    return record(tape, input, weight, bias, how)


def record(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None, how: Geometry) -> Tensor:
    """Record a convolution."""
    plain = None if bias is None else bias.detach()
    return ConvOp(tape, weight.detach(), plain, (tape.source(weight), tape.source(bias)), how)(input)
