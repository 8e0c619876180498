"""A term: what one use of a parameter adds to its per-image gradients, and the ways to get at them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from sfumato.training.engine.grouping import Grouping

#: Bytes that a kernel may take for itself at a time.
SCRATCH = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to the units' gradients of one term.

    Args:
        name: shown in choices, and forced by tests.
        keeps: `run` returns gradients (U, numbers of the parameter), which then replace the weight gradient;
            else it returns squared norms (U,) alone.
        run: does it.
        order: puts the numbers of a sum in the parameter's order, where `run` has them in another.
        heavy: takes memory beyond its worth here, so that it is not even tried.
        pieces: costs no more where it is run on some units at a time.
    """

    name: str
    keeps: bool
    run: Callable[[], Tensor]
    order: Callable[[Tensor], Tensor] | None = None
    heavy: bool = False
    pieces: bool = False


class Term(ABC):
    """Per-image gradients that are not yet computed."""

    #: Rows of per-image gradients.
    images: int
    #: Bytes that this term keeps alive.
    bytes: int
    #: Of the gradients.
    dtype: torch.dtype
    device: torch.device

    def __init__(self, *alive: Tensor) -> None:
        rows = alive[-1]
        self.images, self.dtype, self.device = len(rows), rows.dtype, rows.device
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in alive)

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    @abstractmethod
    def per_image(self) -> Tensor:
        """Return (B, numbers) gradients."""

    @abstractmethod
    def total(self, weights: Tensor) -> Tensor:
        """Return the sum over images of weight * gradient, with the parameter's numbers in any shape."""

    @abstractmethod
    def select(self, images: Tensor | slice) -> Term:
        """Return the term of some images."""

    @abstractmethod
    def without(self, bad: Tensor) -> Term:
        """Return the term with everything of the images where `bad` is true set to zero."""

    @abstractmethod
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        """Return the ways, any of which may be taken; the first keeps gradients."""

    @abstractmethod
    def key(self) -> tuple[object, ...]:
        """Return what decides about times, without the number of images."""

    def join(self, other: Term) -> Term | None:
        """Return one term for the sum of two, where there is one."""
        return None


class Kept(Term):
    """Gradients that are already there, (B, numbers); with an `order`, for sums alone."""

    def __init__(self, rows: Tensor, order: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(rows)
        self.rows, self.order = rows, order

    @override
    def per_image(self) -> Tensor:
        return self.rows

    @override
    def total(self, weights: Tensor) -> Tensor:
        total = torch.mv(self.rows.t(), weights)
        return self.order(total) if self.order else total

    @override
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        return [Kernel("kept", True, lambda: grouping.gather(self.rows))]

    @override
    def key(self) -> tuple[object, ...]:
        return ("kept",)

    @override
    def select(self, images: Tensor | slice) -> Term:
        return Kept(self.rows[images], self.order)

    @override
    def without(self, bad: Tensor) -> Term:
        return Kept(cleared(self.rows, bad), self.order)


class Pieces(Term):
    """Gradients that are already there, some units' at a time: (units of a piece, numbers) each.

    Small pieces lie where activations lay that the backward is done with. A block of all would be larger
    than any of them, and so be new memory.
    """

    def __init__(self, rows: Sequence[Tensor], order: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__(*rows)
        self.pieces, self.order = tuple(rows), order
        self.lengths = [len(part) for part in rows]
        self.images = sum(self.lengths)

    @override
    def per_image(self) -> Tensor:
        return torch.cat(self.pieces)

    @override
    def total(self, weights: Tensor) -> Tensor:
        split = weights.split_with_sizes(self.lengths)
        total = torch.mv(self.pieces[0].t(), split[0])
        for rows, some in zip(self.pieces[1:], split[1:], strict=True):
            total.addmv_(rows.t(), some)
        return self.order(total) if self.order else total

    @override
    def kernels(self, grouping: Grouping) -> list[Kernel]:
        return [Kernel("kept", True, lambda: grouping.gather(self.per_image()))]

    @override
    def key(self) -> tuple[object, ...]:
        return ("kept",)

    @override
    def select(self, images: Tensor | slice) -> Term:
        return Kept(self.per_image()[images], self.order)

    @override
    def without(self, bad: Tensor) -> Term:
        split = bad.split_with_sizes([len(rows) for rows in self.pieces])
        return Pieces(
            [cleared(rows, some) for rows, some in zip(self.pieces, split, strict=True)], self.order
        )


def cleared(rows: Tensor, bad: Tensor) -> Tensor:
    """Return rows, zero where `bad` is true; multiplying by zero would keep NaN and infinity."""
    return rows.masked_fill(bad.view(-1, *[1] * (rows.dim() - 1)), 0)


def scaled(rows: Tensor, weights: Tensor) -> Tensor:
    """Return rows, each times its weight."""
    return rows * weights.view(-1, *[1] * (rows.dim() - 1)).to(rows.dtype)


def square_norms(rows: Tensor) -> Tensor:
    """Return (U,) squared norms of rows (U, numbers)."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms * norms
