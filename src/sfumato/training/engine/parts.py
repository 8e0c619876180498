"""A parameter's part in the units' norms and in the clipped sum, by the kernel that was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.training.engine.choose import KEEP, choose, run_by
from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.tape import Source
from sfumato.training.engine.terms import SCRATCH, Kept, Pieces, Term, square_norms

#: Bytes of gradients that are kept in one block, where a kernel can be run on some units at a time.
PIECE = 5 * 2**19


@dataclass(slots=True)
class Part:
    """A parameter's squared norms (U,), and what its sum is taken from.

    Args:
        squares: (U,) squared norms.
        term: of one row per unit where `grouping` is None, else of one row per image.
        terms: what is summed.
        grouping: images to units; None: the terms' rows are the units.
    """

    squares: Tensor
    terms: list[Term]
    grouping: Grouping | None = None

    def total(self, factors: Tensor, bad: Tensor | None = None) -> Tensor:
        """Return the sum over units of factor * gradient; nothing of those where `bad` is true."""
        spread = factors if self.grouping is None else self.grouping.spread(factors)
        out: Tensor | None = None
        for term in self.terms:
            if bad is not None:
                term = term.without(bad if self.grouping is None else self.grouping.spread(bad))
            part = term.total(spread).flatten()
            out = part if out is None else out + part
        self.terms = []
        assert out is not None
        return out


def part_of(source: Source, grouping: Grouping) -> Part:
    """Return the part of a parameter whose uses have all been handed over."""
    terms, source.terms = joined(source.terms), []
    numbers = source.tensor.numel()
    if len(terms) > 1:
        return part_of_many(terms, numbers, grouping)
    (term,) = terms
    if isinstance(term, Kept):
        rows = grouping.gather(term.rows)
        return Part(square_norms(rows), [Kept(rows)])
    kernel = choose(term, numbers, grouping)
    size = numbers * term.itemsize * grouping.units
    if kernel.pieces and size > PIECE:
        found = list(run_by(-(-grouping.units // -(-size // PIECE)), kernel.name, term, grouping))
        return Part(torch.cat([square_norms(rows) for rows in found]), [Pieces(found, kernel.order)])
    rows = kernel.run()
    if kernel.keeps:
        return Part(square_norms(rows), [Kept(rows, kernel.order)])
    return Part(rows, [term], grouping)


def joined(terms: list[Term]) -> list[Term]:
    """Return fewer terms of the same sum, where some can be taken as one."""
    out: list[Term] = []
    for term in terms:
        for place, other in enumerate(out):
            one = other.join(term)
            if one is not None:
                out[place] = one
                break
        else:
            out.append(term)
    return out


def part_of_many(terms: list[Term], numbers: int, grouping: Grouping) -> Part:
    """Return the part of a parameter with several uses: the length of their sum, not of each."""
    size = grouping.units * numbers * terms[0].itemsize
    keep = size <= KEEP * sum(term.bytes for term in terms)
    found, squares = [], []
    for images, part in grouping.chunks(max(1, SCRATCH // max(1, numbers * terms[0].itemsize))):
        rows: Tensor | None = None
        for term in terms:
            new = part.gather(term.select(images).per_image())
            rows = new if rows is None else rows + new
        assert rows is not None
        squares.append(square_norms(rows))
        if keep:
            found.append(rows)
    if keep:
        return Part(torch.cat(squares), [Kept(torch.cat(found))])
    return Part(torch.cat(squares), terms, grouping)
