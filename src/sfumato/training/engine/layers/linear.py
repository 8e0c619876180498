"""Linear layers over any middle dimensions, and products with a raw matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from typing_extensions import override

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.layers import gram
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import Kept, Kernel, Term, cleared, scaled


class LinearTerm(Term):
    """The gradient g^T x of each image.

    Args:
        x: (B, T, d). g: (B, T, p).
    """

    def __init__(self, x: Tensor, g: Tensor) -> None:
        super().__init__(x, g)
        self.x, self.g = x, g

    @override
    def per_image(self) -> Tensor:
        return torch.bmm(self.g.mT, self.x).flatten(1)

    @override
    def total(self, weights: Tensor) -> Tensor:
        x, g = (self.x, scaled(self.g, weights))
        return g.flatten(0, 1).t() @ x.flatten(0, 1)

    @override
    def select(self, images: Tensor | slice) -> Term:
        return LinearTerm(self.x[images], self.g[images])

    @override
    def without(self, bad: Tensor) -> Term:
        return LinearTerm(cleared(self.x, bad), cleared(self.g, bad))

    @override
    def key(self) -> tuple[object, ...]:
        return ("linear", *self.x.shape[1:], self.g.shape[2])

    @override
    def join(self, other: Term) -> Term | None:
        if not isinstance(other, LinearTerm):
            return None
        return LinearTerm(torch.cat([self.x, other.x], 1), torch.cat([self.g, other.g], 1))

    @override
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        if not grouping.block:
            return [Kernel("bmm", True, lambda: grouping.gather(self.per_image()))]
        units, rows = grouping.units, self.x.shape[1] * grouping.block
        joined = LinearTerm(self.x.reshape(units, rows, -1), self.g.reshape(units, rows, -1))
        ghost = Kernel("gram", False, lambda: gram.squares(joined.x, joined.g))
        kept = Kernel("bmm", True, joined.per_image, pieces=True)
        # An outer product is never worth its numbers.
        return [ghost] if rows == 1 else [kept, ghost]


class LinearOp(Op):
    """y = x W^T + b."""

    def __init__(
        self, tape: Tape, weight: Tensor, bias: Tensor | None, sources: Sequence[Source | None], batch: int
    ) -> None:
        self.tape, self.batch = tape, batch
        self.weight, self.bias = weight, bias
        self.sources = tape.use(*sources)
        self.again: Callable[[Tensor], Tensor] | None = None

    @override
    def __call__(self, *inputs: Tensor) -> Tensor:
        self.kept = inputs
        recipe = self.tape.recipes.of(inputs[0]) if self.sources[0] else None
        if recipe:
            self.kept, self.again = (recipe.input,), recipe.run
        try:
            return super().__call__(*inputs)
        finally:
            del self.kept

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        saved = self.kept if self.sources[0] else ()
        out = F.linear(inputs[0], self.weight, self.bias)
        # Of (B, T, d) it is a view, which autograd would not let anyone write to: not an activation in place.
        return torch.ops.aten._unsafe_view(out, out.shape), saved

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        weight, bias = self.sources
        rows = g.reshape(self.batch, -1, g.shape[-1])
        if bias:
            self.tape.take(bias, Kept(bias.like(rows).sum(1)))
        if weight:
            x = self.again(saved[0]) if self.again else saved[0]
            x = x.reshape(self.batch, -1, x.shape[-1])
            self.tape.take(weight, LinearTerm(weight.like(x), weight.like(rows)))
        return g.matmul(self.weight.to(g.dtype)) if needed else None


@handles(F.linear)
def linear(tape: Tape, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    """Record F.linear."""
    if input.dim() < 2 or not tape.fixed(weight, bias) or not tape.batched(input):
        return None
    op = LinearOp(
        tape, weight.detach(), detached(bias), (tape.source(weight), tape.source(bias)), input.shape[0]
    )
    return op(input)


def detached(tensor: Tensor | None) -> Tensor | None:
    """Return the tensor without its history."""
    return None if tensor is None else tensor.detach()
