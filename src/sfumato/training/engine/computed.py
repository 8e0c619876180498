"""Tensors computed from parameters alone: their per-image gradients go back to the parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import Kept


def pass_on(tape: Tape, source: Source) -> None:
    """Hand a computed tensor's per-image gradients to what it was computed from."""
    terms, source.terms = source.terms, []
    rows: Tensor | None = None
    for term in terms:
        new = term.per_image()
        rows = new if rows is None else rows + new
    parents = source.parents
    if rows is None:
        for parent in parents:
            parent.awaited -= 1
        return
    many = rows.to(source.tensor.dtype).view(-1, *source.tensor.shape)
    found = backward(tape, source, many)
    for parent, grad in zip(parents, found, strict=True):
        parent.awaited -= 1
        if grad is not None:
            parent.terms.append(Kept(parent.like(grad).reshape(len(rows), -1)))


def backward(tape: Tape, source: Source, rows: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients of the parents for each row."""
    inputs = [parent.alone() for parent in source.parents]
    try:
        return torch.autograd.grad(
            source.tensor, inputs, rows, retain_graph=True, allow_unused=True, is_grads_batched=True
        )
    except RuntimeError:
        each = [
            torch.autograd.grad(source.tensor, inputs, row, retain_graph=True, allow_unused=True)
            for row in rows
        ]
        return tuple(
            None if column[0] is None else torch.stack([part for part in column if part is not None])
            for column in zip(*each, strict=True)
        )
