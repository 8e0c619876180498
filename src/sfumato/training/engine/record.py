"""One recorded operation: its backward gives the input's gradient alone and hands over the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from sfumato.training.engine.tape import Source, Tape


class Op(ABC):
    """A use of one or more sources (parameters) by one operation.

    Attributes: `batch`, the length of dim 0; `sources`, what it is a use of.
    """

    batch: int
    sources: tuple[Source | None, ...]
    tape: Tape

    @abstractmethod
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the output, and what the backward needs."""

    @abstractmethod
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        """Hand (input, output gradient) to the tape; return the input's gradient where it is needed."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run and record."""
        self.tape.ops.append(self)
        out: Tensor = _Recorded.apply(self.tape.anchor, self, *inputs)  # type: ignore[no-untyped-call]
        return out


class _Recorded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, op: Op, *inputs: Tensor) -> Tensor:
        out, saved = op.forward(*inputs)
        ctx.op = op
        ctx.inputs = len(inputs)
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        needed = bool(ctx.inputs) and ctx.needs_input_grad[2]
        tape = ctx.op.tape
        if g.dtype.itemsize < tape.coarsest.itemsize:
            tape.coarsest = g.dtype
        dx = ctx.op.backward(ctx.saved_tensors, g, needed)
        return (None, None, dx)[: 2 + ctx.inputs]
