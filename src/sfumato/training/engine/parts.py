"""A parameter's part in the units' norms and in the clipped sum, by the kernel that was chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.training.engine.grouping import Grouping
from sfumato.training.engine.tape import Source
from sfumato.training.engine.terms import Kept, Term, square_norms


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
    rows = None
    for term in source.terms:
        new = grouping.gather(term.per_image())
        rows = new if rows is None else rows + new
    source.terms = []
    assert rows is not None
    return Part(square_norms(rows), [Kept(rows)])
