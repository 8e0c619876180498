"""Embeddings: what falls on one entry in one unit is added up before its length is taken."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from typing_extensions import override

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.record import Op
from sfumato.training.engine.table import handles
from sfumato.training.engine.tape import Source, Tape
from sfumato.training.engine.terms import Kernel, Term, cleared, scaled


class EmbeddingTerm(Term):
    """Gradients that fall on entries of a table.

    Args:
        index: (B, T) entries; `entries` itself where nothing falls. g: (B, T, d).
    """

    def __init__(self, index: Tensor, g: Tensor, entries: int) -> None:
        super().__init__(index, g)
        self.index, self.g, self.entries = index, g, entries

    @override
    def per_image(self) -> Tensor:
        images, _, width = self.g.shape
        rows = torch.arange(images, device=self.index.device)[:, None] * (self.entries + 1) + self.index
        out = self.g.new_zeros(images * (self.entries + 1), width)
        out.index_add_(0, rows.flatten(), self.g.reshape(-1, width))
        return out.view(images, self.entries + 1, width)[:, :-1].flatten(1)

    @override
    def total(self, weights: Tensor) -> Tensor:
        out = self.g.new_zeros(self.entries + 1, self.g.shape[2])
        return out.index_add_(0, self.index.flatten(), scaled(self.g, weights).flatten(0, 1))[:-1]

    @override
    def select(self, images: Tensor | slice) -> Term:
        return EmbeddingTerm(self.index[images], self.g[images], self.entries)

    @override
    def without(self, bad: Tensor) -> Term:
        return EmbeddingTerm(self.index, cleared(self.g, bad), self.entries)

    @override
    def key(self) -> tuple[object, ...]:
        return ("embedding", *self.g.shape[1:], self.entries)

    @override
    def join(self, other: Term) -> Term | None:
        if not isinstance(other, EmbeddingTerm):
            return None
        return EmbeddingTerm(
            torch.cat([self.index, other.index], 1), torch.cat([self.g, other.g], 1), self.entries
        )

    @override
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        return [
            Kernel("kept", True, lambda: grouping.gather(self.per_image())),
            Kernel("entries", False, lambda: self.squares(grouping)),
        ]

    def squares(self, grouping: Grouping) -> Tensor:
        """Return (U,) squared norms, from the entries that a unit meets and no others."""
        units = grouping.of_image(self.index.device)
        met, place = torch.unique(units[:, None] * (self.entries + 1) + self.index, return_inverse=True)
        sums = self.g.new_zeros(len(met), self.g.shape[2])
        sums.index_add_(0, place.flatten(), self.g.flatten(0, 1))
        lengths = sums.square().sum(1).masked_fill_(met % (self.entries + 1) == self.entries, 0)
        return self.g.new_zeros(grouping.units).index_add_(0, met // (self.entries + 1), lengths)


class EmbeddingOp(Op):
    """y = weight[index]."""

    def __init__(self, tape: Tape, index: Tensor, source: Source, padding: int | None) -> None:
        self.tape, self.batch, self.source = tape, index.shape[0], source
        self.weight, self.padding = source.tensor.detach(), padding
        self.index = index
        self.sources = tape.use(source)

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return torch.embedding(self.weight, self.index), (self.index,)

    @override
    def backward(self, saved: Sequence[Tensor], g: Tensor, needed: bool) -> Tensor | None:
        index = saved[0].reshape(self.batch, -1).long()
        entries = len(self.weight)
        if self.padding is not None:
            index = index.masked_fill(index == self.padding % entries, entries)
        g = self.source.like(g).reshape(self.batch, index.shape[1], -1)
        self.tape.take(self.source, EmbeddingTerm(index, g, entries))
        return None


@handles(F.embedding)
def embedding(
    tape: Tape,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor | None:
    """Record F.embedding."""
    source = tape.source(weight)
    if source is None or not tape.batched(input):
        return None
    if max_norm is not None or scale_grad_by_freq:
        raise tape.refuse(
            [source],
            "its embedding has max_norm or scale_grad_by_freq, by which one image changes what others do: "
            "leave them out",
        )
    if input.dim() < 1:
        return None
    return EmbeddingOp(tape, input, source, padding_idx)()


@handles(F.embedding_bag, torch.embedding_bag)
def embedding_bag(tape: Tape, *args: object, **kwargs: object) -> Tensor | None:
    """Refuse: a bag's images cannot be told apart by a dimension."""
    found, _ = tape.tensors(args, kwargs)
    raise tape.refuse(
        found, "EmbeddingBag cannot be bounded per image: use nn.Embedding and add up the result"
    )
