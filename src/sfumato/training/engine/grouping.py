"""Which images belong to which unit, and how values per image become values per unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Grouping:
    """Images of a batch, by the unit that they belong to.

    Args:
        images: B.
        units: U.
        block: K, where the images are K consecutive ones of each unit; 0 where they are not.
        index: (B,) the unit of each image, where `block` is 0.
    """

    images: int
    units: int
    block: int
    index: Tensor | None = None

    def gather(self, rows: Tensor) -> Tensor:
        """Sum rows (B, ...) of images to rows (U, ...) of units."""
        if self.block == 1:
            return rows
        if self.block:
            return rows.view(self.units, self.block, *rows.shape[1:]).sum(1)
        assert self.index is not None
        shape = (self.units, *rows.shape[1:])
        return torch.zeros(shape, dtype=rows.dtype, device=rows.device).index_add_(0, self.index, rows)

    def spread(self, values: Tensor) -> Tensor:
        """Return (B,) values of images, each that of its unit."""
        if self.block == 1:
            return values
        if self.block:
            return values.repeat_interleave(self.block)
        assert self.index is not None
        return values.index_select(0, self.index)

    def of_image(self, device: torch.device) -> Tensor:
        """Return (B,) the unit of each image."""
        if self.index is not None:
            return self.index
        return torch.arange(self.images, device=device) // self.block

    def chunks(self, size: int) -> list[tuple[Tensor | slice, Grouping]]:
        """Return parts of at most `size` units: which images, and their grouping."""
        parts: list[tuple[Tensor | slice, Grouping]] = []
        for first in range(0, self.units, max(1, size)):
            last = min(first + max(1, size), self.units)
            if self.block:
                images = slice(first * self.block, last * self.block)
                part = Grouping((last - first) * self.block, last - first, self.block)
                parts.append((images, part))
                continue
            assert self.index is not None
            here = ((self.index >= first) & (self.index < last)).nonzero().flatten()
            parts.append((here, Grouping(len(here), last - first, 0, self.index[here] - first)))
        return parts


def grouping_of(images: int, units: Tensor | None, views: int) -> Grouping:
    """Return the grouping of a batch.

    Args:
        images: B.
        units: (B,) whole numbers, any; equal ones are one unit. Units come out in ascending order.
        views: images of one picture that follow each other.

    Raises:
        InvalidRequest: lengths that do not fit.
    """
    if isinstance(views, bool) or not isinstance(views, int) or views < 1:
        raise InvalidRequest(f"views must be a whole number from 1, got {views!r}")
    if images % views:
        raise InvalidRequest(
            f"{images} images are not {views} views of each: pass views that divide the batch"
        )
    if units is None:
        return Grouping(images, images // views, views)
    if units.dim() != 1 or len(units) != images or units.is_floating_point() or units.is_complex():
        raise InvalidRequest(
            f"units must be {images} whole numbers, one per image, got {tuple(units.shape)} of {units.dtype}"
        )
    found, index, counts = torch.unique(units, return_inverse=True, return_counts=True)
    if images and bool((counts == counts[0]).all()):
        size = images // len(found)
        if bool((index == torch.arange(images, device=units.device) // size).all()):
            return Grouping(images, len(found), size)
    return Grouping(images, len(found), 0, index)
